//! Audit events: structured log events on a target of their own, `tokenward::audit`, so that they can be routed apart.

use tokenward_types::{ConnectionId, Principal, RequestId, TenantId};

/// The target of audit events.
pub const TARGET: &str = "tokenward::audit";

/// Who acts.
#[derive(Clone, Debug)]
pub struct Actor {
    /// The authenticated caller.
    pub principal: Principal,
    /// The request that it acts by.
    pub request_id: RequestId,
}

/// An admin changed something, or tried to.
pub fn admin(actor: &Actor, action: &'static str, target: &str, outcome: Result<(), crate::Reason>) {
    let outcome = outcome.map_or_else(crate::Reason::as_str, |()| "OK");
    tracing::info!(
        target: TARGET,
        event = "admin_action",
        action,
        object = target,
        principal = %actor.principal,
        request_id = %actor.request_id,
        outcome,
        "admin action"
    );
}

/// Writes the event of an admin action, whatever its outcome, and passes its result on.
pub(crate) fn admin_result<T>(
    actor: &Actor,
    action: &'static str,
    target: &str,
    result: Result<T, crate::Error>,
) -> Result<T, crate::Error> {
    admin(actor, action, target, result.as_ref().map(|_| ()).map_err(|error| error.reason));
    result
}

/// A customer connected an account, or failed to.
pub fn connect(
    tenant: &TenantId,
    link: &str,
    account: Option<&str>,
    outcome: Result<&ConnectionId, crate::Reason>,
) {
    let (connection, outcome) = match outcome {
        Ok(connection) => (connection.as_str(), "OK"),
        Err(reason) => ("", reason.as_str()),
    };
    tracing::info!(
        target: TARGET,
        event = "connect",
        tenant = %tenant,
        connect_link = link,
        account = account.unwrap_or_default(),
        connection,
        outcome,
        "connect attempt"
    );
}

/// A connection came into another state.
pub fn state_change(tenant: &TenantId, connection: &ConnectionId, from: &str, to: &str, reason: &str) {
    tracing::info!(
        target: TARGET,
        event = "state_change",
        tenant = %tenant,
        connection = %connection,
        from,
        to,
        reason,
        "connection state changed"
    );
}

/// A principal was refused.
pub fn denial(principal: &Principal, tenant: &str, request_id: &RequestId, reason: crate::Reason) {
    tracing::info!(
        target: TARGET,
        event = "denial",
        principal = %principal,
        tenant,
        request_id = %request_id,
        reason = reason.as_str(),
        "access denied"
    );
}

/// A principal got a token of a connection for the first time since this process started.
pub fn first_issuance(
    principal: &Principal,
    tenant: &TenantId,
    connection: &ConnectionId,
    fingerprint: &str,
    request_id: &RequestId,
) {
    tracing::info!(
        target: TARGET,
        event = "first_issuance",
        principal = %principal,
        tenant = %tenant,
        connection = %connection,
        fingerprint,
        request_id = %request_id,
        "token given to a principal for the first time"
    );
}
