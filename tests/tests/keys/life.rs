//! One installation through rotation, new data keys, verification and retirement, while callers and refreshes go on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokenward_api::admin::v1::RefreshConnectionRequest;
use tokenward_tests::{Clients, Database, Sql, World, get_token};

use crate::world::{
    add_version, assert_everything_opens, finished, key, remove_version, status, tenant, with_tenants,
};

const TENANTS: u64 = 12;

/// Callers and refreshes that must not notice anything.
pub(crate) struct Traffic {
    stop: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Traffic {
    /// One of each for so many tenants, round and round.
    pub(crate) async fn start(world: &World, tenants: u64) -> Self {
        let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut connections = Vec::new();
        for number in 0..tenants {
            connections.push((tenant(number), world.connection(&tenant(number), 5_000_000 + number).await));
        }
        let (service, operator) = (world.service(), world.operator());
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&calls));
        let task = tokio::spawn(async move {
            while !stopped.load(Ordering::Relaxed) {
                for (tenant, connection) in &connections {
                    call(&service, &operator, tenant, connection).await;
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Self { stop, calls, task }
    }

    /// How many there were.
    pub(crate) async fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
        self.calls.load(Ordering::Relaxed)
    }
}

async fn call(service: &Clients, operator: &Clients, tenant: &str, connection: &str) {
    get_token(service, tenant).await.unwrap_or_else(|status| panic!("no token of {tenant}: {status:?}"));
    let request =
        RefreshConnectionRequest { tenant_id: tenant.to_owned(), connection_id: connection.to_owned() };
    let refreshed = operator.connections().refresh_connection(request).await;
    refreshed.unwrap_or_else(|status| panic!("no refresh of {tenant}: {status:?}"));
}

/// The identifier of the data key that seals, by scope.
async fn active_data_keys(world: &World) -> BTreeMap<String, i64> {
    let all = key(world, "status --data-keys").await.json();
    let active = all["data_keys"].as_array().unwrap().iter().filter(|key| key["state"] == "active");
    let of = |key: &serde_json::Value| {
        (key["scope"].as_str().unwrap().to_owned(), key["data_key_id"].as_i64().unwrap())
    };
    active.map(of).collect()
}

async fn a_whole_life(database: Database) {
    let mut world = with_tenants(database, TENANTS).await;
    let keyring = world.folder.file("tokenward.key");
    assert_eq!(status(&world, "local:1").await["state"], "active");
    let traffic = Traffic::start(&world, TENANTS).await;

    // Nothing to rotate to: only the operator can make a key, and is told how.
    let told = key(&world, "rotate").await.fails(3);
    assert!(told.contains("tokenward key generate --version 2 >> "), "{told}");
    add_version(&keyring, 2).await;
    assert_eq!(status(&world, "local:2").await["state"], "new");
    let rotated = finished(key(&world, "rotate").await);
    assert_eq!((&rotated["kind"], &rotated["encryption_key"]), (&"rotate".into(), &"local:2".into()));
    assert_eq!(rotated["done_count"], TENANTS + 1, "each tenant's data key and the installation's");
    let (old, new) = (status(&world, "local:1").await, status(&world, "local:2").await);
    assert_eq!((&old["state"], &old["data_key_count"]), (&"decrypt_only".into(), &0.into()));
    assert_eq!((&new["state"], &new["data_key_count"]), (&"active".into(), &(TENANTS + 1).into()));
    assert!(old["unused_time"].is_string(), "younger backups do not need it: {old}");

    let told = key(&world, "retire local:2").await.fails(3);
    assert!(told.contains("it is the active key") && told.contains("wraps 13 data keys"), "{told}");

    let rotated = finished(key(&world, "rotate-data").await);
    assert_eq!((&rotated["kind"], &rotated["skipped_count"]), (&"rotate_data".into(), &0.into()));
    let before = active_data_keys(&world).await;
    assert_eq!(before.len(), usize::try_from(TENANTS).unwrap() + 1, "each tenant's and the installation's");
    let only = finished(key(&world, &format!("rotate-data --tenant {}", tenant(0))).await);
    assert_eq!(only["tenant_id"], tenant(0));
    let after = active_data_keys(&world).await;
    assert!(after[&tenant(0)] > before[&tenant(0)], "{before:?} became {after:?}");
    let of_others = |mut keys: BTreeMap<String, i64>| {
        keys.remove(&tenant(0));
        keys
    };
    assert_eq!(of_others(after), of_others(before), "the others keep theirs");
    let checked = finished(key(&world, "verify").await);
    assert_eq!(checked["skipped_count"], 0);
    let calls = traffic.end().await;
    assert!(calls >= TENANTS, "only {calls} calls were made meanwhile");
    assert_everything_opens(&world).await;

    // No tenant's row is left under its first data key.
    let mut sql = Sql::open(&world.database).await;
    let first = "substr(access_token, 2, 4) = substr(refresh_token, 2, 4) AND tenant_id IS NOT NULL";
    assert_eq!(sql.count(&format!("connections WHERE {first}")).await, i64::try_from(TENANTS).unwrap());
    let data_keys = key(&world, "status --data-keys").await.json()["data_keys"].as_array().unwrap().clone();
    let replaced: Vec<_> = data_keys.iter().filter(|key| key["state"] == "replaced").collect();
    assert!(replaced.len() >= usize::try_from(TENANTS).unwrap());
    assert!(replaced.iter().all(|key| key["secret_count"] == 0), "{replaced:?}");

    assert_eq!(key(&world, "retire local:1").await.json()["state"], "retired");
    remove_version(&keyring, 1);
    world.restart().await;
    for number in 0..TENANTS {
        world.get_token(&tenant(number)).await.unwrap();
    }
    assert_everything_opens(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_life_of_keys_on_sqlite() {
    a_whole_life(Database::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_life_of_keys_on_postgresql() {
    let Some(database) = Database::postgres().await else { return };
    a_whole_life(database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_whose_line_was_replaced_is_refused_and_the_former_goes_on() {
    let world = with_tenants(Database::sqlite(), 1).await;
    let keyring = world.folder.file("tokenward.key");
    let kept = std::fs::read_to_string(&keyring).unwrap();
    std::fs::write(&keyring, "").unwrap();
    add_version(&keyring, 1).await;
    let told = key(&world, "rotate").await;
    assert!(!told.status.success(), "{told:?}");
    world.get_token(&tenant(0)).await.unwrap();
    std::fs::write(&keyring, kept).unwrap();
    add_version(&keyring, 2).await;
    finished(key(&world, "rotate").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_is_not_open_is_named_with_the_remedy() {
    let world = with_tenants(Database::sqlite(), 1).await;
    let told = key(&world, "migrate --to openbao").await.fails(3);
    assert!(
        told.contains("no encryption backend of kind openbao is open") && told.contains("[encryption.next]"),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn only_an_admin_changes_keys_and_an_operator_reads() {
    let world = with_tenants(Database::sqlite(), 1).await;
    for command in ["rotate", "rotate-data", "verify", "retire local:1"] {
        let told = world.cli(&format!("key {command}")).run().await;
        assert!(!told.status.success() && told.stderr.contains("ROLE_REQUIRED"), "{command}: {told:?}");
    }
    world.cli("key status").run().await.ok();
}
