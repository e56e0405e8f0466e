//! The installation's mark: how a server notices that the database was put back to an earlier state.

use sea_orm::sea_query::Query;
use sea_orm::DbErr;
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager, async_trait};

use super::schema::{Schema, big, int, required};

pub(super) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m0004_marks"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let schema = Schema { manager };
        // One row, at slot 1.
        schema.table("marks", required([int("slot"), big("mark")]), &["slot"], vec![]).await?;
        let first = Query::insert()
            .into_table("marks")
            .columns(["slot", "mark"])
            .values_panic([1.into(), 0_i64.into()])
            .to_owned();
        schema.rows(first, "slot").await
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}
