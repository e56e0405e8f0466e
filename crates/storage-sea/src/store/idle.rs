use std::time::Duration;

use async_trait::async_trait;
use sea_orm::sea_query::{Expr, SimpleExpr};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, EntityTrait, ExprTrait, QueryFilter, QueryOrder, QuerySelect,
};
use tokenward_storage::{CheckClaim, CheckStore, ConnectionKind, ConnectionState, DueCheck, Result};
use tokenward_types::{ConnectionId, TenantId};

use super::SeaStorage;
use super::connection::is;
use crate::convert::Word;
use crate::dialect::{self, micros};
use crate::entity::connections::{self, Column};
use crate::session::{Session, Tx};

/// Connections that are looked at although nobody asks for them; in the order of the index over kind, state and plan.
fn looked_at() -> Condition {
    Condition::all()
        .add(Column::Kind.eq(ConnectionKind::OAuth.word()))
        .add(Column::State.eq(ConnectionState::Active.word()))
}

impl<C: ConnectionTrait> Session<C> {
    async fn due_checks(&self, plan: SimpleExpr, limit: u32) -> Result<Vec<DueCheck>> {
        let select = connections::Entity::find()
            .filter(looked_at())
            .filter(plan)
            .order_by_asc(Column::NextCheckAt)
            .limit(u64::from(limit));
        let rows = self.connection_rows(select).await?;
        let convert = |row: super::connection::ConnectionRow| {
            let due = row.model.next_check_at;
            Ok(DueCheck { connection: self.convert(row)?, due })
        };
        rows.into_iter().map(convert).collect()
    }
}

impl Tx {
    async fn plan(&self, connection: Condition, next: Duration) -> Result<bool> {
        let now = dialect::now_micros(self.conn.get_database_backend());
        let plan = connections::Entity::update_many()
            .col_expr(Column::NextCheckAt, now.add(micros(next)))
            .filter(connection);
        Ok(self.update(plan).await? == 1)
    }
}

#[async_trait]
impl CheckStore for SeaStorage {
    #[tracing::instrument(name = "db.check.list_due", level = "debug", skip_all)]
    async fn list_due_checks(&self, limit: u32) -> Result<Vec<DueCheck>> {
        let db = self.db.read("check.list_due");
        // Two queries, because an index serves each of them and none serves both.
        let mut due = db.due_checks(Column::NextCheckAt.is_null(), limit).await?;
        let left = limit.saturating_sub(u32::try_from(due.len()).unwrap_or(u32::MAX));
        if left > 0 {
            let now = dialect::now_micros(db.conn.get_database_backend());
            due.extend(db.due_checks(Expr::col(Column::NextCheckAt).lte(now), left).await?);
        }
        Ok(due)
    }

    #[tracing::instrument(name = "db.check.claim", level = "debug", skip_all)]
    async fn claim_checks(&self, claims: &[CheckClaim]) -> Result<Vec<bool>> {
        let mut claimed = vec![false; claims.len()];
        // Whoever locks many connections locks them in this order.
        let mut ordered: Vec<_> = claims.iter().zip(&mut claimed).collect();
        ordered.sort_by_key(|(CheckClaim { tenant, connection, .. }, _)| (tenant, connection));
        let tx = self.db.begin("check.claim").await?;
        for (claim, claimed) in ordered {
            let seen = match claim.due {
                Some(due) => Column::NextCheckAt.eq(due),
                None => Column::NextCheckAt.is_null(),
            };
            *claimed = tx.plan(is(&claim.tenant, &claim.connection).add(seen), claim.next).await?;
        }
        tx.commit().await?;
        Ok(claimed)
    }

    #[tracing::instrument(name = "db.check.plan", level = "debug", skip_all)]
    async fn plan_check(&self, tenant: &TenantId, connection: &ConnectionId, next: Duration) -> Result<()> {
        let tx = self.db.begin("check.plan").await?;
        tx.plan(is(tenant, connection), next).await?;
        tx.commit().await
    }
}
