//! Two brokers on one database: what one changes, the other follows. Their clock stands still, so that a look at the change log is due
//! when a test says so.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::json;
use tokenward_broker::admin::TenantChange;
use tokenward_broker::{Broker, Callers, Error, Reason};
use tokenward_storage::{
    BlockedPrincipal, ConnectionState, IssuerKey, ScopeGrant, StateChange, StorageContext, TenantState,
};
use tokenward_types::{AccessRuleId, Principal, Scopes, Sealed, Timestamp};
use tokio::sync::Semaphore;

use crate::world::{Ask, HUB, READ, WRITE, World, actor, secs, tenant};

/// A world whose tenant is in the memory of two brokers.
async fn two_brokers() -> (World, Broker) {
    let world = World::start().await;
    world.connect("acme", HUB, &["oauth", READ]).await;
    let other = world.another(|_| {}).await.unwrap();
    for broker in [&world.broker, &other] {
        world.ask_of(broker, Ask::default()).await.unwrap();
    }
    (world, other)
}

/// The reason why a broker refuses, or `None` when it gives a token.
async fn refusal(world: &World, broker: &Broker) -> Option<Reason> {
    world.ask_of(broker, Ask::default()).await.err().map(|error| error.reason)
}

/// Time passes until a look is due.
fn let_look_fall_due(world: &World) {
    world.advance(secs(2));
}

async fn set_state(world: &World, state: TenantState) {
    let change = TenantChange { state: Some(state), ..TenantChange::default() };
    world.broker.update_tenant(&actor(), &tenant("acme"), None, change).await.unwrap();
}

#[tokio::test]
async fn a_suspension_is_followed_before_anything_is_answered() {
    let (world, other) = two_brokers().await;
    set_state(&world, TenantState::Suspended).await;
    let_look_fall_due(&world);
    assert_eq!(refusal(&world, &other).await, Some(Reason::TenantSuspended));
    set_state(&world, TenantState::Active).await;
    let_look_fall_due(&world);
    assert_eq!(refusal(&world, &other).await, None);
}

#[tokio::test]
async fn a_rule_that_is_deleted_allows_nothing_at_the_other_broker() {
    let (world, other) = two_brokers().await;
    let rule = AccessRuleId::parse("read").unwrap();
    world.broker.delete_access_rule(&actor(), &rule, None).await.unwrap();
    let_look_fall_due(&world);
    assert_eq!(refusal(&world, &other).await, Some(Reason::AccessDenied));
}

#[tokio::test]
async fn another_consent_replaces_what_the_other_broker_knows() {
    let (world, other) = two_brokers().await;
    world.add_rule("write", ScopeGrant::Only(Scopes::parse(WRITE).unwrap()), false).await;
    let wider = || world.ask_of(&other, Ask { scopes: &[WRITE], ..Ask::default() });
    let_look_fall_due(&world);
    assert_eq!(wider().await.unwrap_err().reason, Reason::ScopeNotGranted);
    let connection = world.connect("acme", HUB, &["oauth", READ, WRITE]).await;
    let_look_fall_due(&world);
    assert_eq!(wider().await.unwrap().live.connection, connection.id);

    world.broker.disconnect(&actor(), &tenant("acme"), &connection.id, None, "").await.unwrap();
    let_look_fall_due(&world);
    assert_eq!(refusal(&world, &other).await, Some(Reason::ConnectionRequired));
}

#[tokio::test]
async fn a_state_that_another_broker_found_is_shown_with_the_living_token() {
    let (world, other) = two_brokers().await;
    let connection = world.ask_of(&other, Ask::default()).await.unwrap().live.connection.clone();
    let row = world.row("acme", &connection).await;
    let refreshes = world.refreshes();
    for (state, seen, warns) in
        [(ConnectionState::Suspect, row.version, true), (ConnectionState::Active, row.version + 1, false)]
    {
        let now = Timestamp::from_secs(1);
        let change = StateChange { seen, state, reason: "found".into(), now };
        world.storage.change_state(&tenant("acme"), &connection, &change).await.unwrap();
        let_look_fall_due(&world);
        let token = world.ask_of(&other, Ask::default()).await.unwrap();
        assert_eq!(!token.warnings.is_empty(), warns, "{:?}", token.warnings);
    }
    assert_eq!(world.refreshes(), refreshes, "the token in memory did");
}

#[tokio::test]
async fn a_broker_that_cannot_look_serves_what_it_knows_for_max_stale_and_then_nothing() {
    let (world, _) = two_brokers().await;
    world.storage.close().await;
    let_look_fall_due(&world);
    assert_eq!(refusal(&world, &world.broker).await, None);
    world.advance(secs(590));
    assert_eq!(refusal(&world, &world.broker).await, None);
    world.advance(secs(10));
    let error = world.ask(Ask::default()).await.unwrap_err();
    assert_eq!(error.reason, Reason::StateStale);
    assert!(error.retry_after.is_some());
}

#[tokio::test]
async fn without_max_stale_a_broker_that_cannot_look_serves_nothing() {
    let world = World::with(json!({}), |settings| settings.max_stale = secs(0)).await;
    world.connect("acme", HUB, &["oauth", READ]).await;
    for _ in 0..3 {
        let_look_fall_due(&world);
        assert_eq!(refusal(&world, &world.broker).await, None, "it can look");
    }
    world.storage.close().await;
    let_look_fall_due(&world);
    assert_eq!(refusal(&world, &world.broker).await, Some(Reason::StateStale));
}

/// An authenticator that only remembers who is blocked.
#[derive(Default)]
struct Doorkeeper(Mutex<Vec<Principal>>);

#[async_trait]
impl Callers for Doorkeeper {
    fn set_blocked(&self, blocked: Vec<Principal>) {
        *self.0.lock() = blocked;
    }

    fn is_blocked(&self, principal: &Principal) -> bool {
        self.0.lock().contains(principal)
    }

    async fn reload_issuer_keys(&self, _: &Broker) -> Result<(), Error> {
        Ok(())
    }
}

#[tokio::test]
async fn who_was_blocked_while_a_broker_did_not_look_gets_nothing_from_it() {
    let (world, other) = two_brokers().await;
    let blocked = |principal: &str| BlockedPrincipal {
        principal: Principal::parse(principal).unwrap(),
        reason: String::new(),
        blocked_by: "builtin:admin".into(),
        blocked_at: Timestamp::from_secs(1),
    };
    world.storage.block_principal(&blocked("builtin:early")).await.unwrap();
    let doorkeeper = Arc::new(Doorkeeper::default());
    other.follow_callers(Arc::clone(&doorkeeper) as Arc<dyn Callers>).await.unwrap();
    assert!(doorkeeper.is_blocked(&blocked("builtin:early").principal), "as it is stored at the start");

    world.storage.block_principal(&blocked("builtin:app")).await.unwrap();
    let_look_fall_due(&world);
    assert_eq!(refusal(&world, &other).await, Some(Reason::CallerBlocked));
    world.storage.unblock_principal(&blocked("builtin:app").principal).await.unwrap();
    let_look_fall_due(&world);
    assert_eq!(refusal(&world, &other).await, None);
}

/// An authenticator whose keys take as long to read as a test says.
struct Slow {
    entered: Semaphore,
    may_go_on: Semaphore,
}

#[async_trait]
impl Callers for Slow {
    fn set_blocked(&self, _: Vec<Principal>) {}

    fn is_blocked(&self, _: &Principal) -> bool {
        false
    }

    async fn reload_issuer_keys(&self, _: &Broker) -> Result<(), Error> {
        self.entered.add_permits(1);
        self.may_go_on.acquire().await.unwrap().forget();
        Ok(())
    }
}

#[tokio::test]
async fn a_look_during_which_the_process_stood_still_is_followed_by_another_one() {
    let (world, other) = two_brokers().await;
    let slow = Arc::new(Slow { entered: Semaphore::new(0), may_go_on: Semaphore::new(1) });
    other.follow_callers(Arc::clone(&slow) as Arc<dyn Callers>).await.unwrap();
    slow.entered.acquire().await.unwrap().forget();
    let key = IssuerKey {
        kid: "first".into(),
        sealed: Sealed::from(vec![1]),
        public_key: vec![2; 32],
        created_at: Timestamp::from_secs(1),
    };
    assert!(world.storage.create_first_issuer_key(&key).await.unwrap());
    let_look_fall_due(&world);
    let (first, second) = (refusal(&world, &other), refusal(&world, &other));
    let stands_still = async {
        slow.entered.acquire().await.unwrap().forget();
        world.advance(secs(1000));
        slow.may_go_on.add_permits(1);
    };
    let (first, second, ()) = tokio::join!(first, second, stands_still);
    assert_eq!((first, second), (None, None));
}

#[tokio::test]
async fn brokers_know_how_many_they_are() {
    let (world, other) = two_brokers().await;
    assert_eq!(other.live_replicas(), 2);
    other.shutdown(secs(1)).await;
    let third = world.another(|settings| settings.server_id = "third".into()).await.unwrap();
    assert_eq!(third.live_replicas(), 2, "who stopped does not count");
}

#[tokio::test]
async fn a_broker_with_a_key_that_the_others_lack_is_refused_on_an_empty_database() {
    let section = tokenward_plugin::Section {
        at: "storage".into(),
        name: "storage".into(),
        values: [("in_memory".to_owned(), json!(true))].into_iter().collect(),
    };
    let registry = tokenward_plugin::Registry::new("storage").with(tokenward_storage_sea::sqlite());
    let prepared = registry.prepare("sqlite", &section, &StorageContext { exclusive: true });
    let storage = prepared.unwrap_or_else(|problems| panic!("{problems}")).build().await.unwrap();
    storage.migrate().await.unwrap();
    let world = World::start().await;
    let first = world.broker_on(&storage, "1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").await;
    first.unwrap();
    let error =
        world.broker_on(&storage, "2:ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=").await.err().unwrap();
    assert_eq!(error.reason, Reason::StoredDataDamaged);
    assert!(error.message.contains("encrypted with local:1"), "{error}");
    let both =
        "1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n2:ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=";
    world.broker_on(&storage, both).await.unwrap();
}
