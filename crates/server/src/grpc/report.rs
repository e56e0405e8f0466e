//! A call that failed: its answer, its count, its one log event, and the audit event of a denial.

use http::Response;
use tokenward_auth::Caller;
use tokenward_broker::{Error, Reason, audit};
use tokenward_types::{RequestId, TenantId};
use tonic::body::Body;
use tonic::{Code, Status};
use tracing::Level;

use super::layer::error_of;
use super::metrics::CallMetrics;
use crate::error_table::{code_name, lookup, to_status};

/// The answer to a call that failed, counted and logged.
pub(crate) fn failure(
    metrics: &CallMetrics,
    method: &'static str,
    request_id: &RequestId,
    caller: Option<&Caller>,
    answer: &Response<Body>,
) -> Response<Body> {
    let status =
        answer.extensions().get::<Status>().cloned().or_else(|| Status::from_header_map(answer.headers()));
    let status = status.unwrap_or_else(|| Status::unknown("the call failed"));
    let Some((error, tenant)) = error_of(&status) else {
        let code = code_name(status.code());
        metrics.count_failure(method, code, "");
        Event {
            method,
            request_id,
            caller,
            tenant: None,
            code,
            reason: "",
            message: status.message(),
            detail: "",
        }
        .log(Level::INFO);
        return Status::new(status.code(), status.message()).into_http();
    };
    if let Some(caller) = caller {
        audit_denial(caller, tenant, request_id, &error);
    }
    let (code, reason) = (code_name(lookup(error.reason).code), error.reason.as_str());
    metrics.count_failure(method, code, reason);
    let (message, detail) = (&*error.message, &*error.log_detail());
    Event { method, request_id, caller, tenant, code, reason, message, detail }.log(level(error.reason));
    to_status(&error, request_id).into_http()
}

struct Event<'a> {
    method: &'static str,
    request_id: &'a RequestId,
    caller: Option<&'a Caller>,
    tenant: Option<&'a TenantId>,
    code: &'static str,
    reason: &'static str,
    message: &'a str,
    detail: &'a str,
}

impl Event<'_> {
    fn log(&self, level: Level) {
        macro_rules! log {
            ($level:ident) => {
                tracing::$level!(
                    method = self.method,
                    request_id = self.request_id.as_str(),
                    principal = self.caller.map(|caller| caller.principal.as_str()),
                    tenant = self.tenant.map(TenantId::as_str),
                    code = self.code,
                    reason = self.reason,
                    detail = self.detail,
                    error = self.message,
                    "call failed"
                )
            };
        }
        match level {
            Level::ERROR => log!(error),
            Level::WARN => log!(warn),
            Level::INFO => log!(info),
            _ => log!(debug),
        }
    }
}

fn level(reason: Reason) -> Level {
    match lookup(reason).code {
        Code::Internal | Code::DataLoss => Level::ERROR,
        Code::Unavailable => Level::WARN,
        // A flood of calls must not become a flood of events; the count tells of it.
        Code::ResourceExhausted => Level::DEBUG,
        _ => Level::INFO,
    }
}

fn audit_denial(caller: &Caller, tenant: Option<&TenantId>, request_id: &RequestId, error: &Error) {
    if matches!(
        error.reason,
        Reason::AccessDenied | Reason::TokenTooBroad | Reason::RoleRequired | Reason::CallerBlocked
    ) {
        audit::denial(&caller.principal, tenant.map_or("", TenantId::as_str), request_id, error.reason);
    }
}
