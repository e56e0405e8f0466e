use std::error::Error;
use std::fmt;

/// What went wrong, closed: only this decides how a caller reacts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StorageErrorKind {
    /// A row with this key is there already.
    AlreadyExists,
    /// The row changed since it was read: read it again and decide anew.
    Conflict,
    /// Another tenant holds a connection to the same account.
    AccountTaken,
    /// The connect link was used or taken back meanwhile.
    LinkUsed,
    /// Something still refers to the row.
    InUse,
    /// The key under which this was sealed or wrapped was replaced meanwhile: seal or wrap it anew.
    KeyReplaced,
    /// The database cannot be reached, is overloaded or timed out: worth another try.
    Unavailable,
    /// The database was away while a transaction committed: it may or may not have happened.
    OutcomeUnknown,
    /// Our own data is wrong, such as a state that no version of this program wrote.
    Inconsistent,
    /// Anything else: a bug or a database that does not do what it should.
    Internal,
}

/// A failed storage call. Display names operation and kind; the driver's own words are the source, for logs only.
#[derive(Debug)]
pub struct StorageError {
    kind: StorageErrorKind,
    operation: &'static str,
    detail: Option<String>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl StorageError {
    /// An error of `kind` in `operation` (such as `tenant.create`).
    pub fn new(kind: StorageErrorKind, operation: &'static str) -> Self {
        Self { kind, operation, detail: None, source: None }
    }

    /// Adds which row is meant, and why; never a secret.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> StorageErrorKind {
        self.kind
    }

    /// Whether the same call may succeed later without any change.
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind, StorageErrorKind::Unavailable | StorageErrorKind::OutcomeUnknown)
    }

    /// Whether it is certain that nothing was changed.
    pub fn is_certain(&self) -> bool {
        self.kind != StorageErrorKind::OutcomeUnknown
    }
}

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            StorageErrorKind::AlreadyExists => "already exists",
            StorageErrorKind::Conflict => "changed meanwhile",
            StorageErrorKind::AccountTaken => "account belongs to another tenant",
            StorageErrorKind::LinkUsed => "the connect link was used or taken back meanwhile",
            StorageErrorKind::InUse => "still in use",
            StorageErrorKind::KeyReplaced => "the key was replaced meanwhile",
            StorageErrorKind::Unavailable => "database unavailable",
            StorageErrorKind::OutcomeUnknown => "database went away, outcome unknown",
            StorageErrorKind::Inconsistent => "inconsistent data",
            StorageErrorKind::Internal => "internal error",
        };
        write!(f, "{}: {kind}", self.operation)?;
        self.detail.as_ref().map_or(Ok(()), |detail| write!(f, " ({detail})"))
    }
}

impl Error for StorageError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| &**source as &(dyn Error + 'static))
    }
}
