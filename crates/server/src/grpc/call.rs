//! What the layer knows of a call, and how a handler refuses one.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokenward_auth::Caller;
use tokenward_broker::{Actor, Error, Reason};
use tokenward_types::TenantId;
use tonic::{Extensions, Status};

use super::request_id::CallId;
use crate::error_table::lookup;

/// The authenticated caller and its request.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// Who calls.
    pub caller: Arc<Caller>,
    /// The request's identifier.
    pub id: CallId,
    /// How long it may take.
    pub patience: Duration,
}

impl Call {
    /// The call that the layer put into a request.
    pub(crate) fn take(extensions: &mut Extensions) -> Result<Self, Status> {
        // Only a server that was put together without the layer has none: deny.
        extensions.remove().ok_or_else(|| refuse(Error::new(Reason::CallerTokenMissing, "unauthenticated")))
    }

    /// The caller as the audit trail names it, and the message of its request.
    pub(crate) fn actor<M>(request: tonic::Request<M>) -> Result<(Actor, M), Status> {
        let (_, mut extensions, message) = request.into_parts();
        let call = Self::take(&mut extensions)?;
        Ok((Actor { principal: call.caller.principal.clone(), request_id: call.id.to_id() }, message))
    }
}

/// An error on its way from a handler to the layer, which makes the answer, the log event and the counts of it.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// The error.
    pub error: Error,
    /// The tenant that the call was about, for the log.
    pub tenant: Option<TenantId>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for Refusal {}

/// Refuses a call.
pub(crate) fn refuse(error: Error) -> Status {
    to_refusal(error, None)
}

/// Refuses a call that is about `tenant`, which is the caller's text: only what can be a tenant goes into the log.
pub(crate) fn refuse_for(tenant: &str, error: Error) -> Status {
    to_refusal(error, TenantId::parse(tenant).ok())
}

fn to_refusal(error: Error, tenant: Option<TenantId>) -> Status {
    let mut status = Status::new(lookup(error.reason).code, error.message.clone());
    status.set_source(Arc::new(Refusal { error, tenant }));
    status
}
