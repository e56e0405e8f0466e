//! What is written past the storage, as a damaged or newer program would.

use tokenward_storage::{ConnectionFilter, PageRequest, Storage, StorageErrorKind};
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

/// One unreadable row among three stops neither the list nor its pages.
#[tokio::test]
async fn a_connection_with_an_unknown_state_is_left_out_of_lists() {
    let file = SqliteFile::new();
    let storage = file.open().await;
    storage.migrate().await.unwrap();
    file.execute(TENANT.replace("hibernating", "active")).await;
    for (id, state) in [("con_1", "active"), ("con_2", "hibernating"), ("con_3", "suspect")] {
        file.execute(format!(
            "INSERT INTO connections (tenant_id, id, provider, kind, oauth_client_key, account_id, account_name, state, \
             state_reason, state_since, lease_fence, grant_fence, consent_epoch, created_at, updated_at, version) \
             VALUES ('acme', '{id}', 'hubspot', 'static', '', '{id}', '', '{state}', '', 1, 1, 1, 1, 1, 1, 1)"
        ))
        .await;
    }
    let (mut found, mut page) = (Vec::new(), PageRequest { size: 1, after: None });
    loop {
        let answer = storage.list_connections(&ConnectionFilter::default(), &page).await.unwrap();
        found.extend(answer.items.into_iter().map(|connection| connection.id.to_string()));
        match answer.next {
            Some(next) => page.after = Some(next),
            None => break,
        }
    }
    assert_eq!(found, ["con_1", "con_3"]);
    let tenant = TenantId::parse("acme").unwrap();
    assert_eq!(storage.list_tenant_connections(&tenant).await.unwrap().len(), 2);
    assert_eq!(storage.count_connections().await.unwrap().len(), 2);
    assert_eq!(storage.list_connection_marks(&PageRequest::first()).await.unwrap().items.len(), 2);
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
