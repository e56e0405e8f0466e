use async_trait::async_trait;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
use sea_orm_migration::{MigratorTrait, SchemaManager};
use tokenward_storage::{InstallationStore, Result, SchemaStatus, StorageErrorKind};

use super::SeaStorage;
use crate::dialect;
use crate::entity::{health_checks, installation};
use crate::migration::{Migrator, difference, has_history};

/// Where the single row of a table is.
const SLOT: i32 = 1;

#[async_trait]
impl InstallationStore for SeaStorage {
    #[tracing::instrument(name = "db.installation.migrate", level = "debug", skip_all)]
    async fn migrate(&self) -> Result<Vec<String>> {
        let tx = self.db.begin("installation.migrate").await?;
        tx.check(dialect::lock_migrations(&tx.conn).await)?;
        let manager = SchemaManager::new(&tx.conn);
        let has_history = tx.check(has_history(&manager).await)?;
        let difference = tx.check(difference(&tx.conn, has_history).await)?;
        if !difference.unknown.is_empty() {
            let newer = format!("the database is newer: it has {}", difference.unknown.join(", "));
            return Err(tx.error(StorageErrorKind::Inconsistent).detail(newer));
        }
        if !difference.missing.is_empty() {
            tx.check(Migrator::up(&tx.conn, None).await)?;
            tx.commit().await?;
        }
        Ok(difference.missing)
    }

    #[tracing::instrument(name = "db.installation.schema_status", level = "debug", skip_all)]
    async fn schema_status(&self) -> Result<SchemaStatus> {
        let db = self.db.read("installation.schema_status");
        let has_history = db.check(has_history(&SchemaManager::new(&db.conn)).await)?;
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

    async fn close(&self) {
        // Closing waits for the connections in use and cannot fail.
        drop(self.db.read.close_by_ref().await);
        drop(self.db.write.close_by_ref().await);
    }
}
