//! What went wrong, and who can help.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt;

/// The domain of Tokenward's `google.rpc.ErrorInfo`.
const DOMAIN: &str = "tokenward";

/// Who can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An operator: no access rule allows this, or the caller or the tenant is blocked.
    Denied,
    /// The customer, with a connect link: there is no connection, or it lacks a scope.
    NotConnected,
    /// The customer, with a connect link: the grant is dead.
    ReauthorizationRequired,
    /// The code that calls: a field is malformed, or the request is ambiguous.
    InvalidRequest,
    /// Time, mostly: the server, its database or the provider has trouble.
    Unavailable,
    /// Whoever gives out caller tokens: this service's is missing, expired or unknown.
    Unauthenticated,
    /// The people who run Tokenward: a bug, or damaged data.
    Internal,
}

/// A failed request. Carries no secret; cloning is cheap.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}: {}", .0.reason, .0.message)]
pub struct Error(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    reason: String,
    message: String,
    metadata: BTreeMap<String, String>,
    retry_after: Option<Duration>,
    code: Code,
    /// Whether a Tokenward server said this, rather than the network or a proxy.
    from_server: bool,
}

impl Error {
    /// An error that did not come from a server.
    pub(crate) fn local(kind: ErrorKind, reason: &str, message: impl Into<String>) -> Self {
        let code = match kind {
            ErrorKind::Unauthenticated => Code::Unauthenticated,
            ErrorKind::Unavailable => Code::Unavailable,
            _ => Code::Internal,
        };
        Self(Arc::new(Inner {
            kind,
            reason: reason.to_owned(),
            message: message.into(),
            metadata: BTreeMap::new(),
            retry_after: None,
            code,
            from_server: false,
        }))
    }

    pub(crate) fn from_status(status: &Status) -> Self {
        let info = status.get_details_error_info().filter(|info| info.domain == DOMAIN);
        let retry_after = status.get_details_retry_info().and_then(|info| info.retry_delay);
        let from_server = info.is_some();
        let (reason, metadata) = info.map_or_else(
            || (code_name(status.code()).to_owned(), BTreeMap::new()),
            |info| (info.reason, info.metadata.into_iter().collect()),
        );
        Self(Arc::new(Inner {
            kind: kind(&reason, status),
            reason,
            message: status.message().to_owned(),
            metadata,
            retry_after,
            code: status.code(),
            from_server,
        }))
    }

    /// Who can help.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The server's stable reason, such as `REAUTHORIZATION_REQUIRED`; the gRPC code's name when no Tokenward server
    /// answered.
    pub fn reason(&self) -> &str {
        &self.0.reason
    }

    /// What happened, for people.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Details of the error by name, such as `missing_scopes`.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.0.metadata
    }

    /// The connection that the error is about.
    pub fn connection_id(&self) -> Option<&str> {
        self.0.metadata.get("connection_id").map(String::as_str)
    }

    /// The account that the error is about.
    pub fn account_id(&self) -> Option<&str> {
        self.0.metadata.get("account_id").map(String::as_str)
    }

    /// A page of the operator's that says what to do; no secret, may be shown to the customer.
    pub fn help_url(&self) -> Option<&str> {
        self.0.metadata.get("help_url").map(String::as_str)
    }

    /// When another try makes sense, where the server said so.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    pub(crate) fn code(&self) -> Code {
        self.0.code
    }

    pub(crate) fn is_from_server(&self) -> bool {
        self.0.from_server
    }
}

impl From<Error> for Status {
    /// The same as a gRPC status, for callers of a channel with a [`TokenLayer`](crate::TokenLayer).
    fn from(error: Error) -> Self {
        Self::new(error.code(), format!("no access token: {error}"))
    }
}

fn kind(reason: &str, status: &Status) -> ErrorKind {
    match reason {
        "CONNECTION_REQUIRED" | "SCOPE_NOT_GRANTED" => return ErrorKind::NotConnected,
        "REAUTHORIZATION_REQUIRED" => return ErrorKind::ReauthorizationRequired,
        "TENANT_SUSPENDED" | "TOKEN_TOO_BROAD" => return ErrorKind::Denied,
        "OAUTH_CLIENT_MISCONFIGURED" => return ErrorKind::Unavailable,
        "STORED_DATA_DAMAGED" => return ErrorKind::Internal,
        _ => {}
    }
    match status.code() {
        Code::Unauthenticated => ErrorKind::Unauthenticated,
        Code::PermissionDenied => ErrorKind::Denied,
        Code::InvalidArgument
        | Code::OutOfRange
        | Code::FailedPrecondition
        | Code::NotFound
        | Code::AlreadyExists => ErrorKind::InvalidRequest,
        Code::Unavailable
        | Code::ResourceExhausted
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::Cancelled => ErrorKind::Unavailable,
        // A transport error that tonic has no code for.
        Code::Unknown | Code::Internal if std::error::Error::source(status).is_some() => {
            ErrorKind::Unavailable
        }
        _ => ErrorKind::Internal,
    }
}

/// The name of a code as the gRPC documentation writes it.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
