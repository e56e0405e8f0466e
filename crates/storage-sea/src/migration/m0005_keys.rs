//! The life of keys: which key-encryption key is the active one, what servers can open, and the jobs that replace keys.
//!
//! Servers of the former version go on beside it: they neither read nor write what is new. A rotation does not begin while one
//! of them is there, because it does not say what it can open.

use sea_orm::sea_query::{ColumnDef, Table, TableAlterStatement};
use sea_orm::{ConnectionTrait, DbBackend, DbErr};
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager, async_trait};

use super::schema::{Schema, big, int, required, text};

pub(super) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m0005_keys"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let schema = Schema { manager };
        schema.keks().await?;
        schema.key_jobs().await?;
        schema.add("data_keys", big("replaced_at")).await?;
        // The last job that is through with this key.
        schema.add("data_keys", schema.key("settled_job", 64)).await?;
        // The same of verifications, which run beside others.
        schema.add("data_keys", schema.key("checked_job", 64)).await?;
        schema.index_of_set("data_keys_by_replacement", "data_keys", "replaced_at").await?;
        schema.add("replicas", text("keks")).await?;
        schema.leave_room("connections").await
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}

impl Schema<'_> {
    /// Adds a column that may be NULL.
    async fn add(&self, table: &'static str, mut column: ColumnDef) -> Result<(), DbErr> {
        let name = column.get_column_name();
        if self.manager.has_column(table, name).await? {
            return Ok(());
        }
        let mut alter: TableAlterStatement = Table::alter();
        alter.table(table).add_column(&mut column);
        self.manager.alter_table(alter).await
    }

    /// Has PostgreSQL keep half of each page free for a row's next version, which then needs no new entry in any index: all of a
    /// table's rows are rewritten when data keys are replaced.
    async fn leave_room(&self, table: &str) -> Result<(), DbErr> {
        if self.manager.get_database_backend() != DbBackend::Postgres {
            return Ok(());
        }
        let alter = format!("ALTER TABLE {table} SET (fillfactor = 50)");
        self.manager.get_connection().execute_unprepared(&alter).await.map(drop)
    }

    async fn keks(&self) -> Result<(), DbErr> {
        let mut columns = required([self.key("kek", 512), self.key("state", 32), big("created_at")]);
        columns.extend([big("activated_at"), big("replaced_at"), big("unused_since"), big("retired_at")]);
        self.table("keks", columns, &["kek"], vec![]).await
    }

    async fn key_jobs(&self) -> Result<(), DbErr> {
        let mut columns = required([
            self.key("id", 64),
            self.key("kind", 32),
            self.key("state", 32),
            self.key("step", 32),
            self.key("kek", 512),
            // A tenant's identifier, or nothing for all.
            self.key("scope", 128),
            text("created_by"),
            big("created_at"),
            big("updated_at"),
            big("total"),
            big("done"),
            big("skipped"),
            // How far data keys were handed out.
            self.key("cursor_scope", 128),
            int("cursor_id"),
            text("message"),
        ]);
        columns.push(big("finished_at"));
        self.table("key_jobs", columns, &["id"], vec![]).await?;
        self.index("key_jobs_by_state", "key_jobs", &["state"]).await?;
        let columns = required([
            self.key("job_id", 64),
            self.key("scope", 128),
            self.key("place", 400),
            text("problem"),
        ]);
        self.table("key_findings", columns, &["job_id", "scope", "place"], vec![]).await
    }
}
