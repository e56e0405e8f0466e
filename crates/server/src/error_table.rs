//! The one table from a reason to what callers of gRPC and HTTP see, and what they should do.

use std::collections::HashMap;
use std::fmt::Write;

use http::StatusCode;
use tokenward_broker::{Error, Reason};
use tokenward_types::RequestId;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// The domain of every `google.rpc.ErrorInfo` that comes from here.
pub const DOMAIN: &str = "tokenward";

/// What a reason means to a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The gRPC status code.
    pub code: Code,
    /// The HTTP status of a page with this error.
    pub http: StatusCode,
    /// Whether the same request may succeed later without anybody changing anything.
    pub retryable: bool,
    /// What happened, and what the caller does.
    pub advice: &'static str,
}

const fn row(code: Code, http: StatusCode, retryable: bool, advice: &'static str) -> Row {
    Row { code, http, retryable, advice }
}

const NO: bool = false;
const RETRY: bool = true;

/// The row of a reason.
#[expect(clippy::too_many_lines, reason = "one row per reason, and one match that the compiler keeps whole")]
pub const fn lookup(reason: Reason) -> Row {
    match reason {
        Reason::InvalidRequest => row(
            Code::InvalidArgument,
            StatusCode::BAD_REQUEST,
            NO,
            "A field is missing or malformed; `field` names it. Correct the request.",
        ),
        Reason::MinTtlTooLong => row(
            Code::InvalidArgument,
            StatusCode::BAD_REQUEST,
            NO,
            "No token of this connection ever lives that long; the message names the maximum. Ask for less.",
        ),
        Reason::RequestTooLarge => row(
            Code::InvalidArgument,
            StatusCode::PAYLOAD_TOO_LARGE,
            NO,
            "The request is larger than 64 KiB. Send less.",
        ),
        Reason::CallerTokenMissing => row(
            Code::Unauthenticated,
            StatusCode::UNAUTHORIZED,
            NO,
            "The call carries no caller token. Send `authorization: Bearer <token>`.",
        ),
        Reason::CallerTokenInvalid => row(
            Code::Unauthenticated,
            StatusCode::UNAUTHORIZED,
            NO,
            "The caller token is malformed, or not one that this server accepts. Get one from a configured issuer.",
        ),
        Reason::CallerTokenExpired => row(
            Code::Unauthenticated,
            StatusCode::UNAUTHORIZED,
            NO,
            "The caller token has expired. Get a new one and ask again.",
        ),
        Reason::CallerBlocked => row(
            Code::PermissionDenied,
            StatusCode::FORBIDDEN,
            NO,
            "The principal is blocked. An admin can unblock it.",
        ),
        Reason::CallerKeysUnavailable => row(
            Code::Unavailable,
            StatusCode::SERVICE_UNAVAILABLE,
            RETRY,
            "The keys of the caller token's issuer cannot be fetched. Wait and ask again.",
        ),
        Reason::RoleRequired => row(
            Code::PermissionDenied,
            StatusCode::FORBIDDEN,
            NO,
            "The caller's role may not call this method; `allowed_roles` names those that may.",
        ),
        Reason::AccessDenied => row(
            Code::PermissionDenied,
            StatusCode::FORBIDDEN,
            NO,
            "No access rule allows it, whether or not the tenant exists. An operator can add a rule.",
        ),
        Reason::TenantSuspended => row(
            Code::FailedPrecondition,
            StatusCode::CONFLICT,
            NO,
            "The tenant is suspended. An operator can activate it.",
        ),
        Reason::ConnectionRequired => row(
            Code::FailedPrecondition,
            StatusCode::CONFLICT,
            NO,
            "The tenant has no connection that fits. An operator sends the customer a connect link.",
        ),
        Reason::ConnectionAmbiguous => row(
            Code::FailedPrecondition,
            StatusCode::CONFLICT,
            NO,
            "Connections of several accounts or providers fit. Name one by `connection_id`, `account_id` or `provider`.",
        ),
        Reason::ScopeNotGranted => row(
            Code::FailedPrecondition,
            StatusCode::CONFLICT,
            NO,
            "The customer did not grant every scope; `missing_scopes` names the others. Ask for less, or have the customer \
             connect again with them.",
        ),
        Reason::TokenTooBroad => row(
            Code::PermissionDenied,
            StatusCode::FORBIDDEN,
            NO,
            "The token carries more scopes than the access rules allow, and the provider cannot narrow it. An operator \
             connects a narrower OAuth client, or sets `allow_broader` in the rule.",
        ),
        Reason::ReauthorizationRequired => row(
            Code::FailedPrecondition,
            StatusCode::CONFLICT,
            NO,
            "The grant is dead. Only the customer can help, by connecting again; `help_url` leads there where one is set.",
        ),
        Reason::GrantSuspect => row(
            Code::Unavailable,
            StatusCode::SERVICE_UNAVAILABLE,
            RETRY,
            "The provider called the grant dead once; that is being verified. Wait and ask again.",
        ),
        Reason::ProviderUnavailable => row(
            Code::Unavailable,
            StatusCode::SERVICE_UNAVAILABLE,
            RETRY,
            "The provider does not answer as it should. Wait and ask again.",
        ),
        Reason::ProviderRateLimited => row(
            Code::Unavailable,
            StatusCode::SERVICE_UNAVAILABLE,
            RETRY,
            "The provider throttles the OAuth client, or more tokens have to be refreshed than it may be asked for. Wait and ask again.",
        ),
        Reason::OAuthClientMisconfigured => row(
            Code::FailedPrecondition,
            StatusCode::SERVICE_UNAVAILABLE,
            NO,
            "The provider refuses the OAuth client's credentials. An admin corrects its client_id or secret.",
        ),
        Reason::StorageUnavailable => row(
            Code::Unavailable,
            StatusCode::SERVICE_UNAVAILABLE,
            RETRY,
            "The database cannot be reached. Wait and ask again.",
        ),
        Reason::StateStale => row(
            Code::Unavailable,
            StatusCode::SERVICE_UNAVAILABLE,
            RETRY,
            "This server has been cut off from its database for longer than `broker.max_stale`, and gives out nothing that \
             may have been taken back meanwhile. Ask another server, or wait and ask again.",
        ),
        Reason::EncryptionUnavailable => row(
            Code::Unavailable,
            StatusCode::SERVICE_UNAVAILABLE,
            RETRY,
            "The encryption backend cannot be reached. Wait and ask again.",
        ),
        Reason::StoredDataDamaged => row(
            Code::DataLoss,
            StatusCode::INTERNAL_SERVER_ERROR,
            NO,
            "A stored secret does not decrypt: it was altered, or its key is missing. An admin restores the key or the row.",
        ),
        Reason::KeyNotReady => row(
            Code::FailedPrecondition,
            StatusCode::CONFLICT,
            NO,
            "The encryption keys are not in a state that allows this; the message says what is missing and who adds it.",
        ),
        Reason::Overloaded => row(
            Code::ResourceExhausted,
            StatusCode::SERVICE_UNAVAILABLE,
            RETRY,
            "Too many calls at once. Wait and ask again.",
        ),
        Reason::DeadlineExceeded => row(
            Code::DeadlineExceeded,
            StatusCode::GATEWAY_TIMEOUT,
            RETRY,
            "It took longer than the caller, or the server, allows. Work that was begun goes on: ask again.",
        ),
        Reason::NotFound => {
            row(Code::NotFound, StatusCode::NOT_FOUND, NO, "There is no such thing; the message names it.")
        }
        Reason::AlreadyExists => row(
            Code::AlreadyExists,
            StatusCode::CONFLICT,
            NO,
            "There is one already. Update it, or choose another identifier.",
        ),
        Reason::EtagMismatch => row(
            Code::Aborted,
            StatusCode::CONFLICT,
            NO,
            "It changed since it was read. Read it again and decide anew.",
        ),
        Reason::InUse => row(
            Code::FailedPrecondition,
            StatusCode::CONFLICT,
            NO,
            "Something still needs it; the message says what. Remove that first.",
        ),
        Reason::AccountTaken => row(
            Code::FailedPrecondition,
            StatusCode::CONFLICT,
            NO,
            "Another tenant is connected to the account. Disconnect it there, or allow shared accounts.",
        ),
        Reason::AccountMismatch => row(
            Code::FailedPrecondition,
            StatusCode::CONFLICT,
            NO,
            "The grant is for another account than the one that was asked for. Choose the right account at the provider.",
        ),
        Reason::GrantRefused => row(
            Code::FailedPrecondition,
            StatusCode::BAD_GATEWAY,
            NO,
            "The provider refused the code or the imported token. Start again, or import one that is alive.",
        ),
        Reason::LinkUnknown => row(
            Code::NotFound,
            StatusCode::NOT_FOUND,
            NO,
            "There is no such connect link. An operator can make a new one.",
        ),
        Reason::LinkExpired => row(
            Code::FailedPrecondition,
            StatusCode::GONE,
            NO,
            "The connect link has expired. An operator can make a new one.",
        ),
        Reason::LinkUsed => row(
            Code::FailedPrecondition,
            StatusCode::GONE,
            NO,
            "The connect link was used successfully. Nothing is left to do with it.",
        ),
        Reason::StateUnknown => row(
            Code::InvalidArgument,
            StatusCode::BAD_REQUEST,
            NO,
            "The answer of the provider belongs to no attempt. Open the connect link again.",
        ),
        Reason::StateExpired => row(
            Code::FailedPrecondition,
            StatusCode::GONE,
            NO,
            "The customer took too long at the provider. Open the connect link again.",
        ),
        Reason::StateUsed => row(
            Code::FailedPrecondition,
            StatusCode::CONFLICT,
            NO,
            "The answer of the provider came before. If the first time failed, open the connect link again.",
        ),
        Reason::OtherBrowser => row(
            Code::PermissionDenied,
            StatusCode::FORBIDDEN,
            NO,
            "The browser is not the one that opened the connect link, or it refuses cookies. Open the link in this browser.",
        ),
        Reason::ConsentRefused => row(
            Code::FailedPrecondition,
            StatusCode::FORBIDDEN,
            NO,
            "The customer declined at the provider. The connect link still works.",
        ),
        Reason::IssuerMismatch => row(
            Code::PermissionDenied,
            StatusCode::FORBIDDEN,
            NO,
            "The answer names another authorization server (RFC 9207). Open the connect link again; tell the operator.",
        ),
        Reason::Internal => row(
            Code::Internal,
            StatusCode::INTERNAL_SERVER_ERROR,
            NO,
            "A bug. The log has more under the request id.",
        ),
    }
}

/// The status that a caller sees: code, message, `google.rpc.ErrorInfo`, and `google.rpc.RetryInfo` where waiting helps.
/// What `error` keeps for the log is not in it.
pub fn to_status(error: &Error, request_id: &RequestId) -> Status {
    let metadata: HashMap<String, String> = error
        .metadata
        .iter()
        .map(|(key, value)| ((*key).to_owned(), value.clone()))
        .chain([("request_id".to_owned(), request_id.as_str().to_owned())])
        .collect();
    let mut details = ErrorDetails::new();
    details.set_error_info(error.reason.as_str(), DOMAIN, metadata);
    let row = lookup(error.reason);
    // A wait that the broker keeps for itself promises nothing to callers who cannot be helped by waiting.
    if let Some(wait) = error.retry_after.filter(|_| row.retryable) {
        details.set_retry_info(Some(wait));
    }
    Status::with_error_details(row.code, error.message.clone(), details)
}

/// The name of a status code as the gRPC specification writes it.
pub const fn code_name(code: Code) -> &'static str {
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

const INTRODUCTION: &str = "\
# Errors

Every error of the gRPC API carries `google.rpc.ErrorInfo` with domain `tokenward`, one of the reasons below, and metadata:
`request_id` always, and what the reason needs, such as `connection_id` or `missing_scopes`. Where waiting helps,
`google.rpc.RetryInfo` says how long. Decide by the reason, or by the code where the reason is unknown to your program;
messages are for people and may change.

*Retry* means that the same request may succeed later without anybody changing anything: wait as `RetryInfo` says, or back
off with jitter. Everything else fails again until somebody acts.

| Reason | gRPC code | HTTP status | Retry | What happened, and what to do |
|---|---|---|---|---|
";

/// The page of the documentation about errors, made from the table.
pub fn documentation() -> String {
    let mut page = INTRODUCTION.to_owned();
    for &reason in Reason::ALL {
        let row = lookup(reason);
        let retry = if row.retryable { "yes" } else { "no" };
        // Writing to a String cannot fail.
        let _ = writeln!(
            page,
            "| `{reason}` | `{}` | {} | {retry} | {} |",
            code_name(row.code),
            row.http.as_u16(),
            row.advice
        );
    }
    page
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_documentation_is_what_the_table_says() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, documentation()).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap();
        assert_eq!(committed, documentation(), "run this test with UPDATE_DOCS=1 to rewrite docs/errors.md");
    }

    #[test]
    fn each_reason_has_its_status() {
        use Code::{
            Aborted, AlreadyExists, DataLoss, DeadlineExceeded, FailedPrecondition, Internal,
            InvalidArgument, NotFound, PermissionDenied, ResourceExhausted, Unauthenticated, Unavailable,
        };
        let expected = [
            ("INVALID_REQUEST", InvalidArgument, 400, NO),
            ("MIN_TTL_TOO_LONG", InvalidArgument, 400, NO),
            ("REQUEST_TOO_LARGE", InvalidArgument, 413, NO),
            ("CALLER_TOKEN_MISSING", Unauthenticated, 401, NO),
            ("CALLER_TOKEN_INVALID", Unauthenticated, 401, NO),
            ("CALLER_TOKEN_EXPIRED", Unauthenticated, 401, NO),
            ("CALLER_BLOCKED", PermissionDenied, 403, NO),
            ("CALLER_KEYS_UNAVAILABLE", Unavailable, 503, RETRY),
            ("ROLE_REQUIRED", PermissionDenied, 403, NO),
            ("ACCESS_DENIED", PermissionDenied, 403, NO),
            ("TENANT_SUSPENDED", FailedPrecondition, 409, NO),
            ("CONNECTION_REQUIRED", FailedPrecondition, 409, NO),
            ("CONNECTION_AMBIGUOUS", FailedPrecondition, 409, NO),
            ("SCOPE_NOT_GRANTED", FailedPrecondition, 409, NO),
            ("TOKEN_TOO_BROAD", PermissionDenied, 403, NO),
            ("REAUTHORIZATION_REQUIRED", FailedPrecondition, 409, NO),
            ("GRANT_SUSPECT", Unavailable, 503, RETRY),
            ("PROVIDER_UNAVAILABLE", Unavailable, 503, RETRY),
            ("PROVIDER_RATE_LIMITED", Unavailable, 503, RETRY),
            ("OAUTH_CLIENT_MISCONFIGURED", FailedPrecondition, 503, NO),
            ("STORAGE_UNAVAILABLE", Unavailable, 503, RETRY),
            ("STATE_STALE", Unavailable, 503, RETRY),
            ("ENCRYPTION_UNAVAILABLE", Unavailable, 503, RETRY),
            ("STORED_DATA_DAMAGED", DataLoss, 500, NO),
            ("KEY_NOT_READY", FailedPrecondition, 409, NO),
            ("OVERLOADED", ResourceExhausted, 503, RETRY),
            ("DEADLINE_EXCEEDED", DeadlineExceeded, 504, RETRY),
            ("NOT_FOUND", NotFound, 404, NO),
            ("ALREADY_EXISTS", AlreadyExists, 409, NO),
            ("ETAG_MISMATCH", Aborted, 409, NO),
            ("IN_USE", FailedPrecondition, 409, NO),
            ("ACCOUNT_TAKEN", FailedPrecondition, 409, NO),
            ("ACCOUNT_MISMATCH", FailedPrecondition, 409, NO),
            ("GRANT_REFUSED", FailedPrecondition, 502, NO),
            ("LINK_UNKNOWN", NotFound, 404, NO),
            ("LINK_EXPIRED", FailedPrecondition, 410, NO),
            ("LINK_USED", FailedPrecondition, 410, NO),
            ("STATE_UNKNOWN", InvalidArgument, 400, NO),
            ("STATE_EXPIRED", FailedPrecondition, 410, NO),
            ("STATE_USED", FailedPrecondition, 409, NO),
            ("OTHER_BROWSER", PermissionDenied, 403, NO),
            ("CONSENT_REFUSED", FailedPrecondition, 403, NO),
            ("ISSUER_MISMATCH", PermissionDenied, 403, NO),
            ("INTERNAL", Internal, 500, NO),
        ];
        let actual: Vec<_> = Reason::ALL
            .iter()
            .map(|&reason| {
                let row = lookup(reason);
                (reason.as_str(), row.code, row.http.as_u16(), row.retryable)
            })
            .collect();
        assert_eq!(actual, expected);
    }

    #[test]
    fn a_caller_sees_reason_details_and_wait_but_never_the_cause() {
        let error = Error::new(Reason::GrantSuspect, "being verified")
            .with("connection_id", "con_1")
            .retry_after(Duration::from_secs(7))
            .internal("password=hunter2");
        let status = to_status(&error, &RequestId::parse("req-1").unwrap());
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(status.message(), "being verified");
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("GRANT_SUSPECT", "tokenward"));
        assert_eq!(info.metadata["request_id"], "req-1");
        assert_eq!(info.metadata["connection_id"], "con_1");
        assert_eq!(details.retry_info().unwrap().retry_delay, Some(Duration::from_secs(7)));
        assert!(!format!("{status:?}{}", String::from_utf8_lossy(status.details())).contains("hunter2"));
    }

    #[test]
    fn only_reasons_that_may_heal_by_themselves_are_retryable_codes() {
        for &reason in Reason::ALL {
            let row = lookup(reason);
            let heals =
                matches!(row.code, Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded);
            assert_eq!(heals, row.retryable, "{reason}: generic gRPC retry policies go by the code");
        }
    }
}
