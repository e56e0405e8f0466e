//! Why a caller was turned away: one text for the caller, another for the log.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use crate::Caller;

/// Why a caller was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AuthErrorReason {
    /// No bearer token was sent.
    Missing,
    /// It is not a signed JWT in compact form, or a claim has the wrong type.
    Malformed,
    /// Unsigned, HMAC, not on the issuer's list, or not the algorithm of the key that it names.
    UnsupportedAlgorithm,
    /// `iss` is not a configured issuer.
    UnknownIssuer,
    /// The issuer has no such key.
    UnknownKey,
    /// The signature is not the issuer's.
    BadSignature,
    /// `exp` has passed.
    Expired,
    /// `nbf` lies ahead.
    NotYetValid,
    /// `aud` is for another service.
    WrongAudience,
    /// A required claim is absent, or cannot name a principal.
    MissingClaim,
    /// It lives longer than [`MAX_LIFETIME`](crate::MAX_LIFETIME).
    LifetimeTooLong,
    /// The issuer may not give this role.
    RoleNotAllowed,
    /// An operator has blocked the principal.
    Blocked,
    /// The issuer's keys cannot be fetched now; the only reason where waiting helps.
    KeysUnavailable,
}

impl AuthErrorReason {
    /// Whether the same token may be accepted a little later.
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::KeysUnavailable)
    }

    const fn message(self) -> &'static str {
        match self {
            Self::Missing => "No caller token: send one as `authorization: Bearer <token>`.",
            Self::Malformed => {
                "The caller token is not a signed JWT of at most 8 KiB: check that it is sent whole."
            }
            Self::UnsupportedAlgorithm => {
                "The caller token's algorithm is not allowed: sign it with an asymmetric one that its issuer is configured for."
            }
            Self::UnknownIssuer => {
                "The caller token's issuer (iss) is not configured here: use a token of a configured issuer."
            }
            Self::UnknownKey => {
                "The caller token is signed with a key that its issuer does not publish: get a new token; a key that was published just now is known within 30 seconds."
            }
            Self::BadSignature => {
                "The caller token's signature is wrong: get a new token from the issuer that it names."
            }
            Self::Expired => "The caller token has expired: get a new one.",
            Self::NotYetValid => "The caller token is not valid yet (nbf): wait, or set the clocks right.",
            Self::WrongAudience => {
                "The caller token is for another audience (aud): get one for this service."
            }
            Self::MissingClaim => {
                "The caller token lacks a required claim: it needs iss, aud, exp and the principal's claim."
            }
            Self::LifetimeTooLong => {
                "The caller token lives too long: get one that lives for 24 hours at most."
            }
            Self::RoleNotAllowed => {
                "The caller token's issuer may not give its role: use an issuer that may, or another role."
            }
            Self::Blocked => "This principal is blocked: ask an admin of this service to unblock it.",
            Self::KeysUnavailable => {
                "The keys of the caller token's issuer cannot be fetched now: try again later."
            }
        }
    }
}

/// A caller was turned away. `Display` shows the public message; neither text shows the token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct AuthError {
    reason: AuthErrorReason,
    message: Cow<'static, str>,
    detail: String,
    caller: Option<Arc<Caller>>,
}

impl AuthError {
    pub(crate) fn new(reason: AuthErrorReason, detail: impl Into<String>) -> Self {
        Self { reason, message: reason.message().into(), detail: detail.into(), caller: None }
    }

    pub(crate) fn with_message(mut self, message: String) -> Self {
        self.message = message.into();
        self
    }

    pub(crate) fn of(mut self, caller: &Arc<Caller>) -> Self {
        self.caller = Some(Arc::clone(caller));
        self
    }

    /// Who was turned away, where the token proved it: only for `Blocked`.
    pub fn caller(&self) -> Option<&Arc<Caller>> {
        self.caller.as_ref()
    }

    /// No token was sent at all.
    pub fn missing() -> Self {
        Self::new(AuthErrorReason::Missing, "no bearer token")
    }

    /// The check itself failed; `detail` is for the log.
    pub fn unchecked(detail: &str) -> Self {
        Self::new(AuthErrorReason::KeysUnavailable, detail)
    }

    /// Why.
    pub fn reason(&self) -> AuthErrorReason {
        self.reason
    }

    /// What the caller may read: what is wrong and how to put it right.
    pub fn public_message(&self) -> &str {
        &self.message
    }

    /// What the log keeps; not for callers.
    pub fn detail(&self) -> &str {
        &self.detail
    }
}

/// Text that somebody else chose, for a log line: escaped, and cut at 64 characters.
pub(crate) struct Foreign<'a>(pub(crate) &'a str);

impl fmt::Display for Foreign<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.0.char_indices().nth(64).map_or(self.0.len(), |(index, _)| index);
        write!(f, "{:?}{}", &self.0[..end], if end < self.0.len() { "…" } else { "" })
    }
}

/// The configuration of callers cannot be used; lists every problem.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", problems.join("; "))]
pub struct SetupError {
    /// One sentence each.
    pub problems: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_is_escaped_and_cut_between_characters() {
        assert_eq!(Foreign("a\nb").to_string(), r#""a\nb""#);
        let long = "ü".repeat(65);
        assert_eq!(Foreign(&long).to_string(), format!("\"{}\"…", "ü".repeat(64)));
    }

    #[test]
    fn only_unavailable_keys_are_worth_a_retry() {
        assert!(AuthErrorReason::KeysUnavailable.is_retryable());
        assert!(!AuthErrorReason::UnknownKey.is_retryable());
    }
}
