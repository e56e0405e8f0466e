//! A server that goes away and comes back, without a restart of ours: on each database that is a server.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use tokenward_storage::{Storage, StorageErrorKind, Tenant, TenantState};
use tokenward_storage_sea::{mysql, postgres};
use tokenward_testkit::storage::StorageFixture;
use tokenward_types::{TenantId, Timestamp};

use crate::fixtures::{MysqlDatabase, PostgresDatabase, build, mariadb_database, postgres_database};
use crate::proxy::Proxy;

pub(crate) fn tenant(id: &str) -> Tenant {
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

/// Opens a database, with its schema in it, behind a proxy.
async fn through_proxy(database: &impl Reachable, more: Value) -> (Arc<dyn Storage>, Proxy) {
    database.open().await.migrate().await.unwrap();
    let proxy = Proxy::start(database.address()).await;
    let storage = database.open_at(proxy.port(), more).await;
    storage.create_tenant(&tenant("before")).await.unwrap();
    (storage, proxy)
}

trait Reachable: StorageFixture {
    /// Host and port of the server.
    fn address(&self) -> String;
    /// Opens the database by another port of this machine.
    async fn open_at(&self, port: u16, more: Value) -> Arc<dyn Storage>;
}

fn merged(url: &str, more: Value) -> Value {
    let mut values = json!({"url": url, "max_connections": 3, "acquire_timeout": "2s"});
    let Value::Object(more) = more else { panic!("options are an object") };
    values.as_object_mut().expect("an object").extend(more);
    values
}

impl Reachable for PostgresDatabase {
    fn address(&self) -> String {
        let options: sea_orm::sqlx::postgres::PgConnectOptions = self.url().parse().unwrap();
        format!("{}:{}", options.get_host(), options.get_port())
    }

    async fn open_at(&self, port: u16, more: Value) -> Arc<dyn Storage> {
        let url = self.url();
        let url = url.split('?').next().unwrap();
        let url = format!("{url}?hostaddr=127.0.0.1&port={port}&sslmode=disable");
        build(postgres(), merged(&url, more), false).await.expect("the proxy forwards")
    }
}

impl Reachable for MysqlDatabase {
    fn address(&self) -> String {
        let options: sea_orm::sqlx::mysql::MySqlConnectOptions = self.url().parse().unwrap();
        format!("{}:{}", options.get_host(), options.get_port())
    }

    async fn open_at(&self, port: u16, more: Value) -> Arc<dyn Storage> {
        let options: sea_orm::sqlx::mysql::MySqlConnectOptions = self.url().parse().unwrap();
        let url = self.url().replace(&format!(":{}/", options.get_port()), &format!(":{port}/"));
        build(mysql(), merged(&url, more), false).await.expect("the proxy forwards")
    }
}

async fn a_commit_whose_answer_is_lost_has_an_unknown_outcome(database: &impl Reachable) {
    let (storage, proxy) = through_proxy(database, json!({})).await;
    proxy.lose_next_commit();
    let error = storage.create_tenant(&tenant("acme")).await.unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::OutcomeUnknown);
    assert!(!error.is_certain() && error.is_retryable());
    let again = storage.create_tenant(&tenant("acme")).await.unwrap_err();
    assert_eq!(again.kind(), StorageErrorKind::AlreadyExists, "it had happened");
}

async fn a_database_that_was_away_is_used_again_without_a_restart(database: &impl Reachable) {
    let (storage, proxy) = through_proxy(database, json!({"acquire_timeout": "500ms"})).await;
    for outage in 1..=3 {
        proxy.cut();
        let read = storage.get_tenant(&tenant("before").id).await.unwrap_err();
        assert_eq!(read.kind(), StorageErrorKind::Unavailable, "{read:?}");
        let id = format!("during-{outage}");
        let write = storage.create_tenant(&tenant(&id)).await.unwrap_err();
        assert_eq!(write.kind(), StorageErrorKind::Unavailable, "{write:?}");
        proxy.restore();
        assert!(storage.get_tenant(&tenant("before").id).await.unwrap().is_some());
        storage.create_tenant(&tenant(&id)).await.expect("it had not happened");
    }
}

async fn calls_in_flight_when_the_way_is_cut_fail_and_give_their_connections_back(database: &impl Reachable) {
    let (storage, proxy) = through_proxy(database, json!({})).await;
    for round in 0..3 {
        let calls: Vec<_> = (0..20)
            .map(|call| {
                let storage = Arc::clone(&storage);
                tokio::spawn(
                    async move { storage.create_tenant(&tenant(&format!("t-{round}-{call}"))).await },
                )
            })
            .collect();
        tokio::task::yield_now().await;
        proxy.cut();
        for call in calls {
            if let Err(error) = call.await.unwrap() {
                assert!(error.is_retryable(), "{error:?}");
            }
        }
        proxy.restore();
        storage.check_health().await.unwrap();
    }
}

async fn a_server_that_falls_silent_is_given_up_and_takes_no_connection_of_the_pool_along(
    database: &impl Reachable,
) {
    let limits = json!({"acquire_timeout": "200ms", "statement_timeout": "1s"});
    let (storage, proxy) = through_proxy(database, limits).await;
    proxy.silence_commits(true);
    let calls: Vec<_> = (0..3)
        .map(|call| {
            let storage = Arc::clone(&storage);
            tokio::spawn(async move { storage.create_tenant(&tenant(&format!("silent-{call}"))).await })
        })
        .collect();
    let mut unknown = 0;
    for call in calls {
        let error = call.await.unwrap().unwrap_err();
        assert!(error.is_retryable(), "{error:?}");
        unknown += usize::from(error.kind() == StorageErrorKind::OutcomeUnknown);
    }
    assert!(unknown > 0, "one at least had sent its COMMIT");
    proxy.silence_commits(false);
    // The silent connections never end by themselves: the pool has to let go of them.
    let again = async { while storage.check_health().await.is_err() {} };
    tokio::time::timeout(std::time::Duration::from_secs(30), again).await.expect("the pool is usable again");
}

async fn more_callers_than_connections_wait_for_their_turn_and_not_for_ever(database: &impl Reachable) {
    let (storage, _proxy) = through_proxy(database, json!({"acquire_timeout": "30s"})).await;
    let calls: Vec<_> = (0..50)
        .map(|_| {
            let storage = Arc::clone(&storage);
            tokio::spawn(async move { storage.check_health().await })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
}

macro_rules! on_each_server {
    ($($case:ident,)+) => {
        mod on_postgres {
            $(#[tokio::test]
            async fn $case() {
                let test = concat!("outages::on_postgres::", stringify!($case));
                if let Some(database) = super::postgres_database(test).await {
                    super::$case(&database).await;
                }
            })+
        }
        mod on_mysql {
            $(#[tokio::test]
            async fn $case() {
                let test = concat!("outages::on_mysql::", stringify!($case));
                if let Some(database) = super::mariadb_database(test).await {
                    super::$case(&database).await;
                }
            })+
        }
    };
}

on_each_server! {
    a_commit_whose_answer_is_lost_has_an_unknown_outcome,
    a_database_that_was_away_is_used_again_without_a_restart,
    calls_in_flight_when_the_way_is_cut_fail_and_give_their_connections_back,
    a_server_that_falls_silent_is_given_up_and_takes_no_connection_of_the_pool_along,
    more_callers_than_connections_wait_for_their_turn_and_not_for_ever,
}
