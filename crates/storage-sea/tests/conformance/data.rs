//! What is written past the storage, as a damaged or newer program would.

use tokenward_storage::{Storage, StorageErrorKind};
use tokenward_testkit::storage::StorageFixture;
use tokenward_types::TenantId;

use crate::fixtures::{MysqlDatabase, PostgresDatabase, SqliteFile, mariadb_database, postgres_database};

const TENANT: &str = "INSERT INTO tenants (tenant_id, display_name, labels, state, created_at, updated_at, version) \
                      VALUES ('acme', '', '{}', 'hibernating', 1, 1, 1)";

async fn a_wrong_word_is_inconsistent(storage: &dyn Storage) {
    let error = storage.get_tenant(&TenantId::parse("acme").unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::Inconsistent);
    assert_eq!(error.to_string(), "tenant.get: inconsistent data (tenants.state of acme)");
}

#[tokio::test]
async fn a_state_that_no_version_wrote_is_inconsistent_on_sqlite() {
    let file = SqliteFile::new();
    let storage = file.open().await;
    storage.migrate().await.unwrap();
    file.execute(TENANT.into()).await;
    a_wrong_word_is_inconsistent(&*storage).await;
}

#[tokio::test]
async fn a_state_that_no_version_wrote_is_inconsistent_on_postgres() {
    let test = "data::a_state_that_no_version_wrote_is_inconsistent_on_postgres";
    let Some(database): Option<PostgresDatabase> = postgres_database(test).await else { return };
    let storage = database.open().await;
    storage.migrate().await.unwrap();
    database.execute(TENANT.into()).await;
    a_wrong_word_is_inconsistent(&*storage).await;
}

#[tokio::test]
async fn a_state_that_no_version_wrote_is_inconsistent_on_mysql() {
    let test = "data::a_state_that_no_version_wrote_is_inconsistent_on_mysql";
    let Some(database): Option<MysqlDatabase> = mariadb_database(test).await else { return };
    let storage = database.open().await;
    storage.migrate().await.unwrap();
    database.execute(TENANT.into()).await;
    a_wrong_word_is_inconsistent(&*storage).await;
}
