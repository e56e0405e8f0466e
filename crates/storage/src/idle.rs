use std::time::Duration;

use async_trait::async_trait;
use tokenward_types::{ConnectionId, TenantId};

use crate::{Connection, Result};

/// A connection whose turn it is to be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueCheck {
    /// The connection.
    pub connection: Connection,
    /// When it was due, in the database's microseconds; `None` if nobody has planned a look yet. Names the look that is claimed.
    pub due: Option<i64>,
}

/// A look that is claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckClaim {
    /// The tenant of the connection.
    pub tenant: TenantId,
    /// The connection, which no other claim is about.
    pub connection: ConnectionId,
    /// When it was due, as it was read.
    pub due: Option<i64>,
    /// The next look is in this time from now, by the database's clock.
    pub next: Duration,
}

/// When each connection is looked at although nobody asks for it. No method changes a connection's version: a plan is none
/// of its properties.
#[async_trait]
pub trait CheckStore: Send + Sync {
    /// Active connections by OAuth that are due by the database's clock, at most `limit`: first those that nobody has planned
    /// yet, then the longest due.
    async fn list_due_checks(&self, limit: u32) -> Result<Vec<DueCheck>>;

    /// Claims looks by planning the next ones, all in one transaction; whether each was claimed, in the order of `claims`. One is
    /// not when the plan is not the one that was read any more, or there is no such connection: of many servers one claims it.
    async fn claim_checks(&self, claims: &[CheckClaim]) -> Result<Vec<bool>>;

    /// Plans the next look in `next` from now, by the database's clock, whatever was planned. An absent connection is no
    /// error.
    async fn plan_check(&self, tenant: &TenantId, connection: &ConnectionId, next: Duration) -> Result<()>;
}
