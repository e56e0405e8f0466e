use serde_json::json;
use tokenward_storage::{ConsumeOutcome, StorageErrorKind};
use tokenward_storage_sea::postgres;
use tokenward_testkit::parts::pgbouncer_url;
use tokenward_testkit::storage::StorageFixture;
use tokenward_types::Timestamp;
use tokio::net::TcpListener;

use crate::fixtures::{PostgresDatabase, build, postgres_database, with_database};
use crate::outages::tenant;

#[tokio::test]
async fn a_database_that_is_away_at_start_is_named_without_its_password() {
    // A port on which nobody listens: it was free a moment ago, and stays reserved for no one else.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let url = format!("postgres://tess:hunter2@127.0.0.1:{port}/vault");
    let error = build(postgres(), json!({"url": url}), true).await.err().expect("nobody listens");
    let told = error.to_string();
    assert!(told.contains(&format!("database vault at 127.0.0.1:{port}")), "{told}");
    assert!(told.contains("check that the server runs"), "{told}");
    assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let url = format!("postgres://tess:hunter2@127.0.0.1:{port}/vault");
    let values = json!({"url": url, "connect_timeout": "50ms"});
    let told = build(postgres(), values, true).await.err().expect("nobody answers").to_string();
    assert!(told.contains("no answer within 50 ms"), "{told}");
}

#[tokio::test]
async fn a_database_that_does_not_exist_is_named() {
    let Some(database) = postgres_database("postgres::a_database_that_does_not_exist_is_named").await else {
        return;
    };
    let url = database.url().replace(database.name(), "tw_nonexistent");
    let told =
        build(postgres(), json!({"url": url}), true).await.err().expect("it does not exist").to_string();
    assert!(told.contains("database tw_nonexistent") && told.contains("SQLSTATE 3D000"), "{told}");
}

#[tokio::test]
async fn the_pool_recovers_when_the_server_closes_its_connections() {
    let test = "postgres::the_pool_recovers_when_the_server_closes_its_connections";
    let Some(database) = postgres_database(test).await else { return };
    let storage = database.open().await;
    storage.migrate().await.unwrap();
    storage.create_tenant(&tenant("acme")).await.unwrap();
    let name = database.name();
    let terminate =
        format!("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{name}'");
    database.execute_on_server(terminate).await;
    assert!(storage.get_tenant(&tenant("acme").id).await.unwrap().is_some());
    storage.create_tenant(&tenant("other")).await.unwrap();
}

#[tokio::test]
async fn a_statement_that_waits_too_long_is_unavailable() {
    let test = "postgres::a_statement_that_waits_too_long_is_unavailable";
    let Some(database) = postgres_database(test).await else { return };
    let storage = database.open().await;
    storage.migrate().await.unwrap();
    let impatient = database.open_with(json!({"statement_timeout": "50ms"})).await;
    // A transaction that holds the table until it is closed.
    let holder = sea_orm::Database::connect(database.url()).await.unwrap();
    let lock = sea_orm::TransactionTrait::begin(&holder).await.unwrap();
    sea_orm::ConnectionTrait::execute_unprepared(&lock, "LOCK TABLE tenants").await.unwrap();
    let error = impatient.create_tenant(&tenant("acme")).await.unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::Unavailable);
    lock.rollback().await.unwrap();
    impatient.create_tenant(&tenant("acme")).await.unwrap();
}

#[tokio::test]
async fn a_state_that_cannot_be_accepted_waits_for_no_write() {
    let test = "postgres::a_state_that_cannot_be_accepted_waits_for_no_write";
    let Some(database) = postgres_database(test).await else { return };
    database.open().await.migrate().await.unwrap();
    let impatient = database.open_with(json!({"statement_timeout": "50ms"})).await;
    let holder = sea_orm::Database::connect(database.url()).await.unwrap();
    let lock = sea_orm::TransactionTrait::begin(&holder).await.unwrap();
    let writes_wait = "LOCK TABLE connect_attempts IN EXCLUSIVE MODE";
    sea_orm::ConnectionTrait::execute_unprepared(&lock, writes_wait).await.unwrap();
    let consumed = impatient.consume_connect_attempt(&[1; 32], &[2; 32], Timestamp::from_secs(1)).await;
    assert_eq!(consumed.unwrap(), ConsumeOutcome::Unknown);
    lock.rollback().await.unwrap();
}

/// The URL of a database by way of pgbouncer, which pools each of the three users as the name says.
async fn by_pooler(pooler: &str, user: &str, database: &PostgresDatabase) -> String {
    let create = format!("CREATE ROLE {user} SUPERUSER LOGIN");
    let unless_there = format!("DO $$ BEGIN {create}; EXCEPTION WHEN duplicate_object THEN NULL; END $$");
    database.execute_on_server(unless_there).await;
    let (scheme, rest) = pooler.split_once("://").unwrap();
    let (_, address) = rest.split_once('@').unwrap();
    with_database(&format!("{scheme}://{user}@{address}"), database.name())
}

#[tokio::test]
async fn a_pooler_that_shares_sessions_is_refused_by_name() {
    let test = "postgres::a_pooler_that_shares_sessions_is_refused_by_name";
    let Some(pooler) = pgbouncer_url(test) else { return };
    let Some(database) = postgres_database(test).await else { return };
    for user in ["transaction", "statement"] {
        let url = by_pooler(&pooler, user, &database).await;
        let refused = build(postgres(), json!({"url": url}), false).await;
        let told = refused.err().expect("it shares sessions").to_string();
        assert!(told.contains(&format!("database {} at ", database.name())), "{told}");
        assert!(
            told.contains("behind a pooler, such as pgbouncer") && told.contains("pool_mode = session"),
            "{told}"
        );
    }
}

#[tokio::test]
async fn a_pooler_that_keeps_sessions_is_as_good_as_none() {
    let test = "postgres::a_pooler_that_keeps_sessions_is_as_good_as_none";
    let Some(pooler) = pgbouncer_url(test) else { return };
    let Some(database) = postgres_database(test).await else { return };
    let url = by_pooler(&pooler, "session", &database).await;
    let values = json!({"url": url, "statement_timeout": "50ms", "max_connections": 2});
    let storage = build(postgres(), values, false).await.expect("sessions are kept");
    storage.migrate().await.unwrap();
    storage.create_tenant(&tenant("acme")).await.unwrap();
    let holder = sea_orm::Database::connect(database.url()).await.unwrap();
    let lock = sea_orm::TransactionTrait::begin(&holder).await.unwrap();
    sea_orm::ConnectionTrait::execute_unprepared(&lock, "LOCK TABLE tenants").await.unwrap();
    let error = storage.create_tenant(&tenant("other")).await.unwrap_err();
    assert_eq!(
        error.kind(),
        StorageErrorKind::Unavailable,
        "the time of a statement is limited all the same"
    );
    lock.rollback().await.unwrap();
}
