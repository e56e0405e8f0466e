//! What servers that share a database tell each other: the change log, and who they are. `server_claims` stays as it is,
//! because a program of the version before may still use it.

use sea_orm::sea_query::{ColumnDef, Query};
use sea_orm::{DbBackend, DbErr};
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager, async_trait};

use super::schema::{Schema, big, int, required, text};

pub(super) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m0002_changes"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let schema = Schema { manager };
        schema.changes().await?;
        schema.replicas().await
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}

impl Schema<'_> {
    async fn changes(&self) -> Result<(), DbErr> {
        // One row at slot 1. The counter puts commits in order where the database does not tell their order.
        let columns = required([int("slot"), big("counter"), big("pruned_position")]);
        self.table("change_log", columns, &["slot"], vec![]).await?;
        let start = Query::insert()
            .into_table("change_log")
            .columns(["slot", "counter", "pruned_position"])
            .values_panic([1.into(), 0_i64.into(), 0_i64.into()])
            .to_owned();
        self.rows(start, "slot").await?;

        // The position is the transaction's number in PostgreSQL, the counter's value elsewhere.
        let columns = required([
            self.change_id(),
            big("position"),
            self.key("kind", 32),
            self.key("subject", 128),
            self.key("part", 64),
            big("logged_at"),
        ]);
        self.table("changes", columns, &["id"], vec![]).await?;
        self.index("changes_by_position", "changes", &["position"]).await?;
        self.index("changes_by_time", "changes", &["logged_at"]).await
    }

    /// Counted by a sequence in PostgreSQL; elsewhere the counter's value.
    fn change_id(&self) -> ColumnDef {
        let mut column = big("id");
        if self.manager.get_database_backend() == DbBackend::Postgres {
            column.auto_increment();
        }
        column
    }

    async fn replicas(&self) -> Result<(), DbErr> {
        let columns = required([
            self.key("id", 64),
            text("description"),
            self.key("version", 64),
            big("started_at"),
            big("seen_at"),
        ]);
        self.table("replicas", columns, &["id"], vec![]).await
    }
}
