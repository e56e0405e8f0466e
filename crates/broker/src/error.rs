//! What a caller may see, and what only the log keeps.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokenward_crypto::{CryptoError, CryptoErrorKind};
use tokenward_storage::{StorageError, StorageErrorKind};
use tokenward_types::InvalidId;

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// Why a request failed: a closed list, stable names.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $($(#[$doc])* $variant,)*
        }

        impl Reason {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable name, as `google.rpc.ErrorInfo.reason` carries it.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

reasons! {
    /// A field is missing or malformed.
    InvalidRequest = "INVALID_REQUEST",
    /// No token of this connection ever lives for `min_ttl`.
    MinTtlTooLong = "MIN_TTL_TOO_LONG",
    /// The request is larger than the listener takes.
    RequestTooLarge = "REQUEST_TOO_LARGE",
    /// The call carries no caller token.
    CallerTokenMissing = "CALLER_TOKEN_MISSING",
    /// The caller token is not one of a configured issuer.
    CallerTokenInvalid = "CALLER_TOKEN_INVALID",
    /// The caller token has expired.
    CallerTokenExpired = "CALLER_TOKEN_EXPIRED",
    /// The principal is blocked.
    CallerBlocked = "CALLER_BLOCKED",
    /// The keys of the caller token's issuer cannot be fetched.
    CallerKeysUnavailable = "CALLER_KEYS_UNAVAILABLE",
    /// The caller's role may not do this.
    RoleRequired = "ROLE_REQUIRED",
    /// No access rule allows it. Says nothing about whether the tenant exists.
    AccessDenied = "ACCESS_DENIED",
    /// The tenant is suspended.
    TenantSuspended = "TENANT_SUSPENDED",
    /// The tenant has no connection that fits.
    ConnectionRequired = "CONNECTION_REQUIRED",
    /// Connections of several accounts fit: name one.
    ConnectionAmbiguous = "CONNECTION_AMBIGUOUS",
    /// The customer did not grant a scope that was asked for.
    ScopeNotGranted = "SCOPE_NOT_GRANTED",
    /// The token carries more than the access rules allow, and the provider cannot narrow it.
    TokenTooBroad = "TOKEN_TOO_BROAD",
    /// The grant is dead: the customer has to connect again.
    ReauthorizationRequired = "REAUTHORIZATION_REQUIRED",
    /// The provider called the grant dead once; that is being verified.
    GrantSuspect = "GRANT_SUSPECT",
    /// The provider does not answer as it should.
    ProviderUnavailable = "PROVIDER_UNAVAILABLE",
    /// The provider throttles this OAuth client, or more have to be refreshed than it may be asked for.
    ProviderRateLimited = "PROVIDER_RATE_LIMITED",
    /// The provider refuses the OAuth client's credentials.
    OAuthClientMisconfigured = "OAUTH_CLIENT_MISCONFIGURED",
    /// The database cannot be reached.
    StorageUnavailable = "STORAGE_UNAVAILABLE",
    /// The server was cut off from its database for too long.
    StateStale = "STATE_STALE",
    /// The encryption backend cannot be reached.
    EncryptionUnavailable = "ENCRYPTION_UNAVAILABLE",
    /// A stored secret does not decrypt.
    StoredDataDamaged = "STORED_DATA_DAMAGED",
    /// The encryption keys are not in a state that allows this.
    KeyNotReady = "KEY_NOT_READY",
    /// Too many calls at once.
    Overloaded = "OVERLOADED",
    /// It took too long.
    DeadlineExceeded = "DEADLINE_EXCEEDED",
    /// There is no such thing.
    NotFound = "NOT_FOUND",
    /// There is one already.
    AlreadyExists = "ALREADY_EXISTS",
    /// It changed since it was read.
    EtagMismatch = "ETAG_MISMATCH",
    /// Something still needs it.
    InUse = "IN_USE",
    /// Another tenant is connected to the account.
    AccountTaken = "ACCOUNT_TAKEN",
    /// The grant is for another account than the one that was asked for.
    AccountMismatch = "ACCOUNT_MISMATCH",
    /// The provider refused the code or the imported token.
    GrantRefused = "GRANT_REFUSED",
    /// No such connect link.
    LinkUnknown = "LINK_UNKNOWN",
    /// The connect link has expired.
    LinkExpired = "LINK_EXPIRED",
    /// The connect link was used.
    LinkUsed = "LINK_USED",
    /// No such state.
    StateUnknown = "STATE_UNKNOWN",
    /// The state came back too late.
    StateExpired = "STATE_EXPIRED",
    /// The state came back before.
    StateUsed = "STATE_USED",
    /// The browser is not the one that started.
    OtherBrowser = "OTHER_BROWSER",
    /// The customer declined.
    ConsentRefused = "CONSENT_REFUSED",
    /// The answer names another issuer than the provider (RFC 9207).
    IssuerMismatch = "ISSUER_MISMATCH",
    /// A bug.
    Internal = "INTERNAL",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A failed use case. Everything but `internal` may be shown to the caller.
#[derive(Clone, Debug)]
pub struct Error {
    /// Why.
    pub reason: Reason,
    /// What happened and what helps, for people.
    pub message: String,
    /// The same for programs, such as `connection_id` or `missing_scopes`.
    pub metadata: BTreeMap<&'static str, String>,
    /// When another try makes sense.
    pub retry_after: Option<Duration>,
    /// What an encryption backend said: it names backends, keys and addresses, which callers need not know.
    backend: Option<String>,
    internal: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error without details.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            metadata: BTreeMap::new(),
            retry_after: None,
            backend: None,
            internal: None,
        }
    }

    /// Adds a detail that the caller may see.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.metadata.insert(key, value.into());
        self
    }

    /// Says it otherwise, where more is known.
    #[must_use]
    pub(crate) fn saying(mut self, message: String) -> Self {
        self.message = message;
        self
    }

    /// Says what an encryption backend said, if it was one that failed: which one, which key, and what helps. That is for those
    /// who look after it, and never holds a secret; a service that asks for a token is told no more than that it failed.
    #[must_use]
    pub fn for_operator(mut self) -> Self {
        if let Some(said) = self.backend.take() {
            self.message = said;
        }
        self
    }

    /// Adds when another try makes sense.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Adds the cause, for the log only.
    #[must_use]
    pub fn internal(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.internal = Some(Arc::from(cause.into()));
        self
    }

    /// A field that is missing or malformed.
    pub fn invalid(field: &'static str, message: impl fmt::Display) -> Self {
        Self::new(Reason::InvalidRequest, format!("{field}: {message}")).with("field", field)
    }

    /// An identifier that is malformed; its own message names the field.
    pub fn invalid_id(error: &InvalidId) -> Self {
        Self::new(Reason::InvalidRequest, error.to_string()).with("field", error.kind)
    }

    /// Something that is there already.
    pub(crate) fn or_exists(error: StorageError, kind: &'static str, id: impl fmt::Display) -> Self {
        let taken = error.kind() == StorageErrorKind::AlreadyExists;
        let error = Self::from(error);
        if taken { error.saying(format!("there is a {kind} {id} already")).with("kind", kind) } else { error }
    }

    /// Something that is not there.
    pub fn not_found(kind: &'static str, id: impl fmt::Display) -> Self {
        Self::new(Reason::NotFound, format!("there is no {kind} {id}")).with("kind", kind)
    }

    /// The chain of causes, for the log.
    pub fn log_detail(&self) -> String {
        let mut text = String::new();
        let mut cause = self.internal.as_deref().map(|error| error as &dyn std::error::Error);
        while let Some(error) = cause {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.internal.as_deref().map(|error| error as &(dyn std::error::Error + 'static))
    }
}

impl From<StorageError> for Error {
    fn from(error: StorageError) -> Self {
        let (reason, message) = match error.kind() {
            StorageErrorKind::AlreadyExists => (Reason::AlreadyExists, "it exists already"),
            StorageErrorKind::Conflict => {
                (Reason::EtagMismatch, "it changed since it was read: read it again and repeat the change")
            }
            StorageErrorKind::AccountTaken => (
                Reason::AccountTaken,
                "another tenant is connected to this account: disconnect it there, or allow shared accounts",
            ),
            StorageErrorKind::LinkUsed => (Reason::LinkUsed, "this link was used already, or taken back"),
            StorageErrorKind::InUse => (Reason::InUse, "something still needs it"),
            StorageErrorKind::KeyReplaced => {
                (Reason::KeyNotReady, "a key was replaced meanwhile: repeat the request")
            }
            StorageErrorKind::Unavailable | StorageErrorKind::OutcomeUnknown => {
                (Reason::StorageUnavailable, "the database cannot be reached")
            }
            StorageErrorKind::Inconsistent | StorageErrorKind::Internal => {
                (Reason::Internal, "internal error; the log has more under this request id")
            }
        };
        let error = Self::new(reason, message).internal(error);
        if reason == Reason::StorageUnavailable { error.retry_after(Duration::from_secs(1)) } else { error }
    }
}

impl From<CryptoError> for Error {
    fn from(error: CryptoError) -> Self {
        let mut vague = match error.kind() {
            CryptoErrorKind::Unavailable => {
                Self::new(Reason::EncryptionUnavailable, "the encryption backend cannot be reached")
                    .retry_after(Duration::from_secs(1))
            }
            CryptoErrorKind::UnknownKey | CryptoErrorKind::Refused | CryptoErrorKind::Malformed => Self::new(
                Reason::StoredDataDamaged,
                "a stored secret does not decrypt: it was altered, moved, or its key is missing",
            ),
            CryptoErrorKind::Unsupported => Self::new(Reason::KeyNotReady, error.to_string()),
            CryptoErrorKind::Internal => Self::new(Reason::Internal, "internal error"),
        };
        vague.backend = Some(error.to_string());
        vague.internal(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_log_keeps_is_not_what_the_caller_sees() {
        let error = Error::from(
            StorageError::new(StorageErrorKind::Unavailable, "tenant.get").source("password=hunter2"),
        );
        assert!(!error.to_string().contains("hunter2"));
        assert!(error.log_detail().contains("hunter2"));
        assert_eq!(error.reason, Reason::StorageUnavailable);
        assert!(error.retry_after.is_some());
    }

    #[test]
    fn only_operators_are_told_what_a_backend_says() {
        use CryptoErrorKind::{Internal, Malformed, Refused, Unavailable, UnknownKey};
        let said = "box: key box:1 at 10.0.0.7: sealed: unseal it";
        for kind in [Unavailable, UnknownKey, Refused, Malformed, Internal] {
            let error = Error::from(CryptoError::new(kind, said).with_source("password=hunter2"));
            assert!(!error.to_string().contains("box"), "{error}");
            assert!(error.log_detail().contains(said), "{kind:?}");
            let (reason, told) = (error.reason, error.for_operator());
            assert_eq!((told.reason, &*told.message), (reason, said));
        }
        let other = Error::not_found("tenant", "acme");
        assert_eq!(other.clone().for_operator().message, other.message);
    }

    #[test]
    fn reasons_have_distinct_names_in_capitals() {
        let mut names: Vec<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert!(names.iter().all(|name| name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_')));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Reason::ALL.len());
    }
}
