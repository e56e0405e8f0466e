use std::error::Error;
use std::fmt;

/// What went wrong, for the caller to decide what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CryptoErrorKind {
    /// The key that sealed this is not here; it opens again when that key returns.
    UnknownKey,
    /// Authentication failed: another key under the same name, or a ciphertext that was altered, moved or replaced by an
    /// older one.
    Refused,
    /// These bytes were never written by this format: too short, or of an unknown version.
    Malformed,
    /// The backend is away; the same call may succeed later.
    Unavailable,
    /// This backend cannot do it; the message says what the operator does instead.
    Unsupported,
    /// A fault in the backend or in its set-up that neither waiting nor other data mends.
    Internal,
}

/// A failure of sealing, opening, wrapping or unwrapping. The message names keys and remedies, never key or plaintext bytes.
#[derive(Debug)]
pub struct CryptoError {
    kind: CryptoErrorKind,
    message: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl CryptoError {
    /// An error of the given kind. `message` must hold no secret.
    pub fn new(kind: CryptoErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> CryptoErrorKind {
        self.kind
    }

    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        self.kind == CryptoErrorKind::Unavailable
    }
}

impl fmt::Display for CryptoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for CryptoError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_backend_that_is_away_is_worth_another_try() {
        use CryptoErrorKind::{Internal, Malformed, Refused, Unavailable, UnknownKey, Unsupported};
        for kind in [UnknownKey, Refused, Malformed, Unsupported, Internal] {
            assert!(!CryptoError::new(kind, "no").is_retryable(), "{kind:?}");
        }
        assert!(CryptoError::new(Unavailable, "away").is_retryable());
    }

    #[test]
    fn an_error_keeps_its_cause_out_of_its_message() {
        let error =
            CryptoError::new(CryptoErrorKind::Unavailable, "the backend is away").with_source("refused");
        assert_eq!(error.to_string(), "the backend is away");
        assert_eq!(error.source().expect("it has a cause").to_string(), "refused");
    }
}
