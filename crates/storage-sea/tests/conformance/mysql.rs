use serde_json::json;
use tokenward_storage::{ConsumeOutcome, SchemaStatus, StorageErrorKind};
use tokenward_storage_sea::mysql;
use tokenward_testkit::storage::StorageFixture;
use tokenward_types::Timestamp;
use tokio::net::TcpListener;

use crate::fixtures::{build, mariadb_database};
use crate::outages::tenant;

#[tokio::test]
async fn a_database_that_is_away_at_start_is_named_without_its_password() {
    // A port on which nobody listens: it was free a moment ago, and stays reserved for no one else.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let url = format!("mysql://tess:hunter2@127.0.0.1:{port}/vault");
    let error = build(mysql(), json!({"url": url}), true).await.err().expect("nobody listens");
    let told = error.to_string();
    assert!(told.contains(&format!("database vault at 127.0.0.1:{port}")), "{told}");
    assert!(told.contains("check that the server runs"), "{told}");
    assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let url = format!("mysql://tess:hunter2@127.0.0.1:{port}/vault");
    let values = json!({"url": url, "connect_timeout": "50ms"});
    let told = build(mysql(), values, true).await.err().expect("nobody answers").to_string();
    assert!(told.contains("no answer within 50 ms"), "{told}");
}

#[tokio::test]
async fn a_database_that_does_not_exist_is_named() {
    let Some(database) = mariadb_database("mysql::a_database_that_does_not_exist_is_named").await else {
        return;
    };
    let url = database.url().replace(database.name(), "tw_nonexistent");
    let told = build(mysql(), json!({"url": url}), true).await.err().expect("it does not exist").to_string();
    assert!(told.contains("database tw_nonexistent") && told.contains("SQLSTATE 42000"), "{told}");
}

#[tokio::test]
async fn the_pool_recovers_when_the_server_closes_its_connections() {
    let test = "mysql::the_pool_recovers_when_the_server_closes_its_connections";
    let Some(database) = mariadb_database(test).await else { return };
    let storage = database.open().await;
    storage.migrate().await.unwrap();
    storage.create_tenant(&tenant("acme")).await.unwrap();
    database.end_connections().await;
    assert!(storage.get_tenant(&tenant("acme").id).await.unwrap().is_some());
    storage.create_tenant(&tenant("other")).await.unwrap();
}

#[tokio::test]
async fn a_statement_that_waits_too_long_is_unavailable() {
    let test = "mysql::a_statement_that_waits_too_long_is_unavailable";
    let Some(database) = mariadb_database(test).await else { return };
    let storage = database.open().await;
    storage.migrate().await.unwrap();
    let impatient = database.open_with(json!({"statement_timeout": "50ms"})).await;
    // A session that holds the table until it is closed.
    let holder = sea_orm::Database::connect(database.url()).await.unwrap();
    let lock = sea_orm::TransactionTrait::begin(&holder).await.unwrap();
    sea_orm::ConnectionTrait::execute_unprepared(&lock, "LOCK TABLES tenants WRITE").await.unwrap();
    let error = impatient.create_tenant(&tenant("acme")).await.unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::Unavailable);
    sea_orm::ConnectionTrait::execute_unprepared(&lock, "UNLOCK TABLES").await.unwrap();
    impatient.create_tenant(&tenant("acme")).await.unwrap();
}

#[tokio::test]
async fn a_row_that_stays_locked_too_long_is_unavailable() {
    let test = "mysql::a_row_that_stays_locked_too_long_is_unavailable";
    let Some(database) = mariadb_database(test).await else { return };
    let storage = database.open().await;
    storage.migrate().await.unwrap();
    let stored = storage.create_tenant(&tenant("acme")).await.unwrap();
    let impatient = database.open_with(json!({"statement_timeout": "50ms"})).await;
    let holder = sea_orm::Database::connect(database.url()).await.unwrap();
    let lock = sea_orm::TransactionTrait::begin(&holder).await.unwrap();
    let hold = "SELECT * FROM tenants WHERE tenant_id = 'acme' FOR UPDATE";
    sea_orm::ConnectionTrait::execute_unprepared(&lock, hold).await.unwrap();
    let error = impatient.update_tenant(&stored).await.unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::Unavailable);
    lock.rollback().await.unwrap();
    assert_eq!(impatient.update_tenant(&stored).await.unwrap().unwrap().version, 2);
}

#[tokio::test]
async fn a_state_that_cannot_be_accepted_waits_for_no_write() {
    let test = "mysql::a_state_that_cannot_be_accepted_waits_for_no_write";
    let Some(database) = mariadb_database(test).await else { return };
    database.open().await.migrate().await.unwrap();
    let impatient = database.open_with(json!({"statement_timeout": "50ms"})).await;
    let holder = sea_orm::Database::connect(database.url()).await.unwrap();
    let lock = sea_orm::TransactionTrait::begin(&holder).await.unwrap();
    let writes_wait = "SELECT * FROM connect_attempts FOR UPDATE";
    sea_orm::ConnectionTrait::execute_unprepared(&lock, writes_wait).await.unwrap();
    let consumed = impatient.consume_connect_attempt(&[1; 32], &[2; 32], Timestamp::from_secs(1)).await;
    assert_eq!(consumed.unwrap(), ConsumeOutcome::Unknown);
    lock.rollback().await.unwrap();
}

/// Each change of the schema commits by itself: whatever is left of a migration, the next run completes it.
#[tokio::test]
async fn a_migration_that_was_interrupted_is_completed_by_the_next() {
    let test = "mysql::a_migration_that_was_interrupted_is_completed_by_the_next";
    let Some(database) = mariadb_database(test).await else { return };
    let storage = database.open().await;
    let all = storage.migrate().await.unwrap();
    // As if it had ended ahead of the last tables, the last index and the last rows, and so was never recorded.
    for undo in [
        "DROP TABLE issuer_keys",
        "DROP TABLE access_rules",
        "DROP INDEX pending_grants_by_time ON pending_grants",
        "DELETE FROM locks WHERE slot > 100",
        "DELETE FROM server_claims",
        "DELETE FROM seaql_migrations",
    ] {
        database.execute(undo.into()).await;
    }
    assert_eq!(storage.migrate().await.unwrap(), all);
    assert_eq!(storage.schema_status().await.unwrap(), SchemaStatus::Current);
    assert!(storage.list_issuer_keys().await.unwrap().is_empty());
    storage.check_health().await.unwrap();
    let count = "SELECT CAST(COUNT(*) AS CHAR) AS name FROM locks \
                 UNION ALL SELECT CAST(COUNT(*) AS CHAR) FROM server_claims \
                 UNION ALL SELECT CAST(COUNT(*) AS CHAR) FROM information_schema.statistics \
                 WHERE table_schema = DATABASE() AND index_name = 'pending_grants_by_time'";
    assert_eq!(database.names(count).await, ["256", "1", "1"]);
}

/// What `docs/plugins/storage-mysql.md` says that the user needs.
#[tokio::test]
async fn the_rights_that_are_documented_are_enough() {
    let test = "mysql::the_rights_that_are_documented_are_enough";
    let Some(database) = mariadb_database(test).await else { return };
    let manual = include_str!("../../../../docs/plugins/storage-mysql.md");
    let rights = manual.split("GRANT ").nth(1).unwrap().split(" ON ").next().unwrap();
    let name = database.name();
    // A new server has a nobody at localhost, who comes ahead of everybody from anywhere.
    let users = format!("{name}@'%', {name}@localhost");
    let with_password = users.replace(',', " IDENTIFIED BY 'hunter2',");
    database.execute(format!("CREATE USER {with_password} IDENTIFIED BY 'hunter2'")).await;
    database.execute(format!("GRANT {rights} ON {name}.* TO {users}")).await;
    let url = database.url().replace("//root@", &format!("//{name}:hunter2@"));
    let storage = build(mysql(), json!({"url": url}), false).await.expect("the user may come in");
    storage.migrate().await.unwrap();
    storage.check_health().await.unwrap();
    storage.create_tenant(&tenant("acme")).await.unwrap();
    assert!(storage.delete_tenant(&tenant("acme").id, true).await.unwrap());
    database.execute(format!("DROP USER {users}")).await;
}

/// Whatever the server and the database default to.
#[tokio::test]
async fn every_table_compares_byte_by_byte() {
    let test = "mysql::every_table_compares_byte_by_byte";
    let Some(database) = mariadb_database(test).await else { return };
    database.open().await.migrate().await.unwrap();
    let list = "SELECT CONCAT(table_name, '.', column_name) AS name FROM information_schema.columns \
                WHERE table_schema = DATABASE() AND table_name <> 'seaql_migrations' \
                AND collation_name IS NOT NULL AND collation_name <> 'utf8mb4_nopad_bin'";
    assert_eq!(database.names(list).await, Vec::<String>::new());
}

/// What the server says, by its numbers, and how a caller reacts.
#[tokio::test]
async fn what_another_try_may_mend_is_unavailable() {
    let test = "mysql::what_another_try_may_mend_is_unavailable";
    let Some(database) = mariadb_database(test).await else { return };
    let storage = database.open().await;
    storage.migrate().await.unwrap();
    for (number, meaning, kind) in [
        (1213, "a deadlock", StorageErrorKind::Unavailable),
        (1205, "a lock that took too long", StorageErrorKind::Unavailable),
        (1020, "a row that changed since the snapshot", StorageErrorKind::Unavailable),
        (1290, "a server that only reads", StorageErrorKind::Unavailable),
        (1021, "a full disk", StorageErrorKind::Unavailable),
        (1047, "a cluster's node that is not ready", StorageErrorKind::Unavailable),
        (1927, "a connection that was ended", StorageErrorKind::Unavailable),
        (1712, "a damaged index", StorageErrorKind::Inconsistent),
        (1406, "a value that is too long", StorageErrorKind::Internal),
    ] {
        let fail = format!("SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = {number}");
        database.execute(format!("CREATE TRIGGER fail BEFORE INSERT ON tenants FOR EACH ROW {fail}")).await;
        let error = storage.create_tenant(&tenant("acme")).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{meaning}: {error:?}");
        assert!(error.is_certain(), "{meaning}");
        database.execute("DROP TRIGGER fail".into()).await;
    }
    storage.create_tenant(&tenant("acme")).await.unwrap();
}
