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

/// When each connection is looked at although nobody asks for it. No method changes a connection's version: a plan is none
/// of its properties.
#[async_trait]
pub trait CheckStore: Send + Sync {
    /// Active connections by OAuth that are due by the database's clock, at most `limit`: first those that nobody has planned
    /// yet, then the longest due.
    async fn list_due_checks(&self, limit: u32) -> Result<Vec<DueCheck>>;

    /// Claims a look by planning the next one in `next` from now, by the database's clock. `false` when the plan is not
    /// the one that was read any more, or there is no such connection: of many servers one claims it.
    async fn claim_check(
        &self,
        tenant: &TenantId,
        connection: &ConnectionId,
        due: Option<i64>,
        next: Duration,
    ) -> Result<bool>;

    /// Plans the next look in `next` from now, by the database's clock, whatever was planned. An absent connection is no
    /// error.
    async fn plan_check(&self, tenant: &TenantId, connection: &ConnectionId, next: Duration) -> Result<()>;
}
