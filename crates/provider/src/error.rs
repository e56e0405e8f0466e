use std::fmt;
use std::time::Duration;

/// What a failed call means for the grant, the connection and the OAuth client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The vendor says definitely that this grant is no more (RFC 6749, section 5.2 `invalid_grant`).
    GrantDead,
    /// The client id or secret is wrong: every connection of the OAuth client is concerned.
    ClientConfig,
    /// A bad code, redirect URI or PKCE verifier: that attempt to connect is over, nothing else.
    ConnectAttempt,
    /// 429: the OAuth client has to wait.
    RateLimited,
    /// The account is locked or moving: that connection only has to wait.
    AccountUnavailable,
    /// DNS, connecting or TLS failed: not a byte of the request was sent.
    NotSent,
    /// A server error, a reset, a timeout, an answer that cannot be read: the vendor may have done what was asked.
    OutcomeUnknown,
    /// Any other refusal: that connection backs off and somebody is told; it never marks a grant dead.
    Unexpected,
}

impl ErrorClass {
    /// The word for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::GrantDead => "grant_dead",
            Self::ClientConfig => "client_config",
            Self::ConnectAttempt => "connect_attempt",
            Self::RateLimited => "rate_limited",
            Self::AccountUnavailable => "account_unavailable",
            Self::NotSent => "not_sent",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::Unexpected => "unexpected",
        }
    }
}

/// A call to a vendor that did not give what was asked for. Holds nothing secret: neither what was sent nor what the
/// vendor wrote, except a code from a closed set of characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderError {
    /// What it means.
    pub class: ErrorClass,
    /// The HTTP status, when there was an answer.
    pub http_status: Option<u16>,
    /// The vendor's code, such as `invalid_grant`: letters and `_`, `-`, `.`, at most 64; safe to log.
    pub code: Option<String>,
    /// How long the vendor wants to be left alone (RFC 9110, section 10.2.3).
    pub retry_after: Option<Duration>,
    /// For logs: what happened, in our own words.
    pub detail: String,
}

impl ProviderError {
    /// An error without an answer behind it.
    pub fn new(class: ErrorClass, detail: impl Into<String>) -> Self {
        Self { class, http_status: None, code: None, retry_after: None, detail: detail.into() }
    }

    /// Whether the vendor certainly did not do what was asked, so that the same token may be spent again. A refusal counts
    /// when it is definite: it must name a code, since a proxy's bare 4xx says nothing about what the vendor did.
    pub fn outcome_is_certain(&self) -> bool {
        match self.class {
            ErrorClass::OutcomeUnknown => false,
            ErrorClass::Unexpected => self.code.is_some(),
            ErrorClass::GrantDead
            | ErrorClass::ClientConfig
            | ErrorClass::ConnectAttempt
            | ErrorClass::RateLimited
            | ErrorClass::AccountUnavailable
            | ErrorClass::NotSent => true,
        }
    }
}

impl fmt::Display for ProviderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.class.as_str(), self.detail)?;
        if let Some(status) = self.http_status {
            write!(f, " (HTTP {status})")?;
        }
        if let Some(code) = &self.code {
            write!(f, " [{code}]")?;
        }
        Ok(())
    }
}

impl std::error::Error for ProviderError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_definite_answers_make_the_outcome_certain() {
        let with_code = |class| ProviderError { code: Some("x".into()), ..ProviderError::new(class, "") };
        assert!(ProviderError::new(ErrorClass::GrantDead, "").outcome_is_certain());
        assert!(ProviderError::new(ErrorClass::NotSent, "").outcome_is_certain());
        assert!(!with_code(ErrorClass::OutcomeUnknown).outcome_is_certain());
        assert!(!ProviderError::new(ErrorClass::Unexpected, "").outcome_is_certain());
        assert!(with_code(ErrorClass::Unexpected).outcome_is_certain());
    }

    #[test]
    fn it_prints_class_detail_status_and_code() {
        let error = ProviderError {
            http_status: Some(400),
            code: Some("invalid_grant".into()),
            ..ProviderError::new(ErrorClass::GrantDead, "refresh refused")
        };
        assert_eq!(error.to_string(), "grant_dead: refresh refused (HTTP 400) [invalid_grant]");
    }
}
