use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use tokenward_storage::{ConsumeOutcome, StorageErrorKind, Tenant, TenantState};
use tokenward_storage_sea::postgres;
use tokenward_testkit::storage::StorageFixture;
use tokenward_types::{TenantId, Timestamp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::fixtures::{build, postgres_database};

fn tenant(id: &str) -> Tenant {
    Tenant {
        id: TenantId::parse(id).unwrap(),
        display_name: String::new(),
        labels: BTreeMap::new(),
        state: TenantState::Active,
        created_at: Timestamp::from_secs(1),
        updated_at: Timestamp::from_secs(1),
        version: 1,
    }
}

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

/// Forwards one address to the server until `cut` is set: then the next COMMIT reaches the server and its answer is lost.
async fn proxy(server: String, cut: Arc<AtomicBool>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(&server).await.unwrap();
            tokio::spawn(forward(client, server, Arc::clone(&cut)));
        }
    });
    port
}

async fn forward(mut client: TcpStream, mut server: TcpStream, cut: Arc<AtomicBool>) {
    let (mut from_client, mut from_server) = (vec![0; 65536], vec![0; 65536]);
    loop {
        tokio::select! {
            read = client.read(&mut from_client) => {
                let Ok(count @ 1..) = read else { return };
                if server.write_all(&from_client[..count]).await.is_err() {
                    return;
                }
                let commits = from_client[..count].windows(6).any(|window| window == b"COMMIT");
                if commits && cut.swap(false, Ordering::SeqCst) {
                    // The server's answer proves that it happened; the client never sees it.
                    drop(server.read(&mut from_server).await);
                    return;
                }
            }
            read = server.read(&mut from_server) => {
                let Ok(count @ 1..) = read else { return };
                if client.write_all(&from_server[..count]).await.is_err() {
                    return;
                }
            }
        }
    }
}

#[tokio::test]
async fn an_outage_during_a_commit_leaves_the_outcome_unknown() {
    let test = "postgres::an_outage_during_a_commit_leaves_the_outcome_unknown";
    let Some(database) = postgres_database(test).await else { return };
    database.open().await.migrate().await.unwrap();
    let options: sea_orm::sqlx::postgres::PgConnectOptions = database.url().parse().unwrap();
    let server = format!("{}:{}", options.get_host(), options.get_port());
    let cut = Arc::new(AtomicBool::new(false));
    let port = proxy(server, Arc::clone(&cut)).await;
    let query = "sslmode=disable";
    let url = format!("{}?hostaddr=127.0.0.1&port={port}&{query}", database.url().split('?').next().unwrap());
    let storage = build(postgres(), json!({"url": url}), false).await.expect("the proxy forwards");
    storage.create_tenant(&tenant("before")).await.unwrap();
    cut.store(true, Ordering::SeqCst);
    let error = storage.create_tenant(&tenant("acme")).await.unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::OutcomeUnknown);
    assert!(!error.is_certain() && error.is_retryable());
    let again = storage.create_tenant(&tenant("acme")).await.unwrap_err();
    assert_eq!(again.kind(), StorageErrorKind::AlreadyExists, "it had happened");
}
