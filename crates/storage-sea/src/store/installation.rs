use std::sync::Arc;

use async_trait::async_trait;
use sea_orm::sea_query::{Expr, Query};
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, ExprTrait, QueryFilter};
use sea_orm_migration::SchemaManager;
use tokenward_storage::{InstallationStore, Mark, Result, SchemaStatus, Storage, StorageErrorKind};
use tokenward_types::Timestamp;

use super::SeaStorage;
use crate::entity::{health_checks, installation, marks};
use crate::migration::{apply, difference, has_history};
use crate::session::Tx;
use crate::{dialect, error};

/// Where the single row of a table is.
const SLOT: i32 = 1;

#[async_trait]
impl InstallationStore for SeaStorage {
    #[tracing::instrument(name = "db.installation.migrate", level = "debug", skip_all)]
    async fn migrate(&self) -> Result<Vec<String>> {
        const OPERATION: &str = "installation.migrate";
        if let Some(server) = &self.db.migrations {
            let (pool, tx) =
                server.migrating().await.map_err(|error| error::of_statement(OPERATION, error))?;
            let tx = Tx::endless(tx, OPERATION);
            let applied = bring_up(&tx).await?;
            tx.commit().await?;
            // Gives the lock back; dropping the connection would as well, a moment later.
            drop(pool.close().await);
            return Ok(applied);
        }
        let tx = self.db.begin(OPERATION).await?;
        tx.check(dialect::lock_migrations(&tx.conn.inner).await)?;
        let applied = bring_up(&tx).await?;
        if !applied.is_empty() {
            tx.commit().await?;
        }
        Ok(applied)
    }

    #[tracing::instrument(name = "db.installation.schema_status", level = "debug", skip_all)]
    async fn schema_status(&self) -> Result<SchemaStatus> {
        let db = self.db.read("installation.schema_status");
        let has_history = db.check(has_history(&SchemaManager::new(&db.conn.inner)).await)?;
        let difference = db.check(difference(&db.conn, has_history).await)?;
        Ok(if !difference.unknown.is_empty() {
            SchemaStatus::Newer(difference.unknown)
        } else if difference.missing.is_empty() {
            SchemaStatus::Current
        } else {
            SchemaStatus::Behind(difference.missing)
        })
    }

    #[tracing::instrument(name = "db.installation.check_health", level = "debug", skip_all)]
    async fn check_health(&self) -> Result<()> {
        let tx = self.db.begin("installation.check_health").await?;
        // One after the other: on MySQL those that wait to insert the same row would lock each other up.
        tx.lock("health_check").await?;
        tx.insert(health_checks::Model { slot: SLOT }).await?;
        tx.delete(health_checks::Entity::delete_many().filter(health_checks::Column::Slot.eq(SLOT))).await?;
        tx.commit().await
    }

    #[tracing::instrument(name = "db.installation.id", level = "debug", skip_all)]
    async fn installation_id(&self, candidate: &str) -> Result<String> {
        let tx = self.db.begin("installation.id").await?;
        let row = installation::Model { slot: SLOT, installation_id: candidate.to_owned() };
        tx.insert_if_absent(row, [installation::Column::Slot]).await?;
        let stored = tx.check(installation::Entity::find_by_id(SLOT).one(&tx.conn).await)?;
        tx.commit().await?;
        // The row was inserted, or another one was there; nothing deletes it.
        Ok(stored.map_or_else(|| candidate.to_owned(), |row| row.installation_id))
    }

    #[tracing::instrument(name = "db.installation.time", level = "debug", skip_all)]
    async fn time(&self) -> Result<Timestamp> {
        let db = self.db.read("installation.time");
        let backend = db.conn.get_database_backend();
        let select = Query::select().expr_as(dialect::now_micros(backend), "db_now").to_owned();
        let row = db.check(db.conn.query_one(&select).await)?;
        let Some(row) = row else {
            return Err(db.error(StorageErrorKind::Internal).detail("a query without a table gave no row"));
        };
        Ok(Timestamp::from_micros(db.check(row.try_get("", "db_now"))?))
    }

    #[tracing::instrument(name = "db.installation.mark", level = "debug", skip_all)]
    async fn advance_mark(&self, now: Timestamp) -> Result<Mark> {
        use marks::Column;
        let tx = self.db.begin("installation.mark").await?;
        // The update locks the row ahead of reading it.
        let touch = marks::Entity::update_many()
            .col_expr(Column::Mark, Expr::col(Column::Mark).add(0))
            .filter(Column::Slot.eq(SLOT));
        tx.update(touch).await?;
        let Some(row) = tx.check(marks::Entity::find_by_id(SLOT).one(&tx.conn).await)? else {
            return Err(tx.error(StorageErrorKind::Inconsistent).detail("marks has lost its row"));
        };
        let after = Ord::max(now.as_micros(), row.mark.saturating_add(1));
        let update = marks::Entity::update_many()
            .col_expr(Column::Mark, Expr::value(after))
            .filter(Column::Slot.eq(SLOT));
        tx.update(update).await?;
        tx.commit().await?;
        Ok(Mark { before: row.mark, after })
    }

    #[tracing::instrument(name = "db.installation.in_background", level = "debug", skip_all)]
    async fn in_background(&self) -> Result<Option<Arc<dyn Storage>>> {
        let Some(file) = &self.file else { return Ok(None) };
        Ok(Some(Arc::new(file.reopen().await?)))
    }

    async fn close(&self) {
        // Closing waits for the connections in use and cannot fail.
        drop(self.db.read.close_by_ref().await);
        drop(self.db.write.close_by_ref().await);
    }
}

/// Applies the migrations that are missing, and names them.
async fn bring_up(tx: &Tx) -> Result<Vec<String>> {
    let conn = &tx.conn.inner;
    let has_history = tx.check(has_history(&SchemaManager::new(conn)).await)?;
    let difference = tx.check(difference(conn, has_history).await)?;
    if !difference.unknown.is_empty() {
        let newer = format!("the database is newer: it has {}", difference.unknown.join(", "));
        return Err(tx.error(StorageErrorKind::Inconsistent).detail(newer));
    }
    if !difference.missing.is_empty() {
        tx.check(apply(conn, &difference.missing).await)?;
    }
    Ok(difference.missing)
}
