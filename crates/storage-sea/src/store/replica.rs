use std::time::Duration;

use async_trait::async_trait;
use sea_orm::sea_query::{Expr, Query, SimpleExpr};
use sea_orm::{
    ColumnTrait, ConnectionTrait, EntityTrait, ExprTrait, PaginatorTrait, QueryFilter, QueryOrder,
};
use tokenward_storage::{LiveReplica, Replica, ReplicaStore, Result};
use tokenward_types::Timestamp;

use super::SeaStorage;
use crate::convert::{Row, to_json};
use crate::dialect::{self, micros};
use crate::entity::replicas::{self, Column};
use crate::error::Inconsistent;

impl TryFrom<replicas::Model> for LiveReplica {
    type Error = Inconsistent;

    fn try_from(row: replicas::Model) -> Result<Self, Inconsistent> {
        let place = Row { table: "replicas", key: &[&row.id] };
        let keks = row.keks.as_deref().map(|keks| place.json("keks", keks)).transpose()?.unwrap_or_default();
        Ok(Self {
            replica: Replica { id: row.id.clone(), description: row.description, version: row.version, keks },
            started_at: Timestamp::from_micros(row.started_at),
            seen_at: Timestamp::from_micros(row.seen_at),
        })
    }
}

/// The server reported no longer ago than this.
fn is_live(now: SimpleExpr, within: Duration) -> SimpleExpr {
    Expr::col(Column::SeenAt).gte(now.sub(micros(within)))
}

#[async_trait]
impl ReplicaStore for SeaStorage {
    #[tracing::instrument(name = "db.replica.report", level = "debug", skip_all)]
    async fn report_replica(&self, replica: &Replica, within: Duration) -> Result<u64> {
        let tx = self.db.begin("replica.report").await?;
        let now = dialect::now_micros(tx.conn.get_database_backend());
        let update = replicas::Entity::update_many()
            .col_expr(Column::Description, Expr::value(&*replica.description))
            .col_expr(Column::Version, Expr::value(&*replica.version))
            .col_expr(Column::Keks, Expr::value(to_json(&replica.keks)))
            .col_expr(Column::SeenAt, now.clone())
            .filter(Column::Id.eq(&*replica.id));
        if tx.update(update).await? == 0 {
            let insert = Query::insert()
                .into_table(replicas::Entity)
                .columns([
                    Column::Id,
                    Column::Description,
                    Column::Version,
                    Column::Keks,
                    Column::StartedAt,
                    Column::SeenAt,
                ])
                .values_panic([
                    Expr::value(&*replica.id),
                    Expr::value(&*replica.description),
                    Expr::value(&*replica.version),
                    Expr::value(to_json(&replica.keks)),
                    now.clone(),
                    now.clone(),
                ])
                .to_owned();
            tx.execute(&insert).await?;
        }
        let live = replicas::Entity::find().filter(is_live(now, within));
        let count = tx.check(live.count(&tx.conn).await)?;
        tx.commit().await?;
        Ok(count)
    }

    #[tracing::instrument(name = "db.replica.list_live", level = "debug", skip_all)]
    async fn live_replicas(&self, within: Duration) -> Result<Vec<LiveReplica>> {
        let db = self.db.read("replica.list_live");
        let now = dialect::now_micros(db.conn.get_database_backend());
        db.all(replicas::Entity::find().filter(is_live(now, within)).order_by_asc(Column::Id)).await
    }

    #[tracing::instrument(name = "db.replica.remove", level = "debug", skip_all)]
    async fn remove_replica(&self, id: &str) -> Result<()> {
        let tx = self.db.begin("replica.remove").await?;
        tx.delete(replicas::Entity::delete_many().filter(Column::Id.eq(id))).await?;
        tx.commit().await
    }

    #[tracing::instrument(name = "db.replica.forget", level = "debug", skip_all)]
    async fn forget_replicas(&self, silence: Duration) -> Result<u64> {
        let tx = self.db.begin("replica.forget").await?;
        let now = dialect::now_micros(tx.conn.get_database_backend());
        let silent = is_live(now, silence).not();
        let forgotten = tx.delete(replicas::Entity::delete_many().filter(silent)).await?;
        tx.commit().await?;
        Ok(forgotten)
    }
}
