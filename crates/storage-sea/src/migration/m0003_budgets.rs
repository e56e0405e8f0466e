//! What servers share about calls to providers, and when idle connections are looked at.
//!
//! Servers of the former version go on beside it: they neither read nor write what is new.

use sea_orm::DbErr;
use sea_orm::sea_query::{Table, TableAlterStatement};
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager, async_trait};

use super::schema::{Schema, big, int, owned_by, required};

pub(super) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m0003_budgets"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let schema = Schema { manager };
        schema.budgets().await?;
        schema.checks().await
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}

impl Schema<'_> {
    /// One row for each client that has a rate, or had a pause.
    async fn budgets(&self) -> Result<(), DbErr> {
        let mut columns = required([
            self.key("oauth_client_id", 64),
            // The theoretical arrival time of the generic cell rate algorithm: when the calls reserved so far are used up.
            big("spent_until"),
            big("pause_number"),
            int("pause_refusals"),
        ]);
        columns.extend([self.key("pause_cause", 32), big("pause_until"), big("probe_until")]);
        let client = owned_by("oauth_clients", &[("oauth_client_id", "id")]);
        self.table("call_budgets", columns, &["oauth_client_id"], vec![client]).await
    }

    /// NULL: nobody has planned a look at this connection yet.
    async fn checks(&self) -> Result<(), DbErr> {
        if !self.manager.has_column("connections", "next_check_at").await? {
            let mut alter: TableAlterStatement = Table::alter();
            alter.table("connections").add_column(big("next_check_at"));
            self.manager.alter_table(alter).await?;
        }
        self.index("connections_by_check", "connections", &["kind", "state", "next_check_at"]).await
    }
}
