//! An index of the data keys that are active, without those that they replaced, which are kept for a while: what goes through
//! the active ones stays as fast, however often they were replaced.

use sea_orm::DbErr;
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager, async_trait};

use super::schema::Schema;

pub(super) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m0006_active_data_keys"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let schema = Schema { manager };
        schema.index_of_true("data_keys_by_activity", "data_keys", "active", &["scope", "id"]).await
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}
