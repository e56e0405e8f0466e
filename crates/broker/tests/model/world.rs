//! One connection, two brokers, one database, one vendor; and what can happen to them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tokenward_broker::admin::{NewOAuthClient, NewTenant};
use tokenward_broker::{Actor, Broker, Metrics, Parts, Place, Settings};
use tokenward_crypto::KeyEncryption;
use tokenward_journal::{Journal, MemoryFolder};
use tokenward_plugin::{BackendDef, Registry, Section};
use tokenward_storage::{
    Connection, ConnectionKind, Consent, ConsentBase, Storage, StorageContext, TenantState, TokenSet,
};
use tokenward_types::{
    AccountId, Clock, ConnectionId, ExposeSecret, FollowingClock, ManualClock, Principal, RequestId, Scopes,
    SecretString, SeededRng, TenantId, Timestamp,
};
use tokio::task::JoinHandle;
use url::Url;

use crate::gate::{Gate, GatedTimer};
use crate::storage::{Cheat, Gated, at_once};
use crate::vendor::{Line, Vendor, info};

/// How many brokers there are.
pub(crate) const NODES: usize = 2;

/// What all runs of a test share: the database and its keys.
pub(crate) struct Stage {
    home: tokio::runtime::Runtime,
    storage: Arc<dyn Storage>,
    keys: Arc<dyn KeyEncryption>,
}

async fn build<B, C>(def: BackendDef<B, C>, context: &C, values: serde_json::Value) -> B {
    let serde_json::Value::Object(values) = values else { panic!("a section is an object") };
    let (kind, section) = (def.kind(), Section { at: "test".into(), name: "test".into(), values });
    let prepared = Registry::new("test").with(def).prepare(kind, &section, context);
    prepared.map_err(|problems| problems.to_string()).unwrap().build().await.unwrap()
}

impl Stage {
    pub(crate) fn new() -> Self {
        let home =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (storage, keys) = home.block_on(async {
            let context = StorageContext { exclusive: true };
            let storage = build(tokenward_storage_sea::sqlite(), &context, json!({"in_memory": true})).await;
            storage.migrate().await.unwrap();
            let key = json!({"key": "1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="});
            (storage, build(tokenward_crypto_local::local(), &(), key).await)
        });
        Self { home, storage, keys }
    }
}

/// The clocks of all machines; each shows another time, and all run alike.
#[derive(Clone)]
pub(crate) struct Time {
    database: ManualClock,
    hosts: Arc<[ManualClock]>,
}

impl Time {
    fn new() -> Self {
        let start = Timestamp::from_secs(1_800_000_000);
        let skews = [0, 3600, 7200].map(|skew| ManualClock::new(start + Duration::from_secs(skew)));
        Self { database: ManualClock::new(start + Duration::from_secs(3600)), hosts: skews.into() }
    }

    pub(crate) fn advance(&self, duration: Duration) {
        self.database.advance(duration);
        self.hosts.iter().for_each(|host| host.advance(duration));
    }

    /// Somebody sets a machine's clock.
    pub(crate) fn jump(&self, node: usize, forward: bool) {
        let (host, hour) = (&self.hosts[node], Duration::from_hours(1));
        host.set_wall(if forward { host.now() + hour } else { host.now() - hour });
    }
}

/// A broker's machine: its journal and its clock outlive it.
pub(crate) struct Node {
    pub(crate) broker: Option<Broker>,
    pub(crate) actor: u64,
    pub(crate) is_cut: bool,
    pub(crate) journal: MemoryFolder,
    asks: Vec<JoinHandle<()>>,
}

pub(crate) struct World<'a> {
    stage: &'a Stage,
    pub(crate) gate: Gate,
    pub(crate) vendor: Arc<Vendor>,
    pub(crate) time: Time,
    pub(crate) nodes: Vec<Node>,
    pub(crate) tenant: TenantId,
    pub(crate) connection: ConnectionId,
    cheat: Cheat,
    seed: u64,
    actors: u64,
    /// Reads and writes past every gate.
    observer: Option<Broker>,
    forger: Arc<Mutex<Option<Broker>>>,
}

fn actor() -> Actor {
    Actor {
        principal: Principal::parse("builtin:admin").unwrap(),
        request_id: RequestId::parse("req_model").unwrap(),
    }
}

impl<'a> World<'a> {
    /// A tenant of its own for the run, with one connection.
    pub(crate) async fn new(stage: &'a Stage, vendor: Arc<Vendor>, cheat: Cheat, seed: u64) -> Self {
        let mut world = Self {
            stage,
            gate: Gate::default(),
            vendor,
            time: Time::new(),
            nodes: Vec::new(),
            tenant: TenantId::parse(&format!("tenant-{seed}")).unwrap(),
            connection: ConnectionId::parse("con_1").unwrap(),
            cheat,
            seed,
            actors: 1,
            observer: None,
            forger: Arc::default(),
        };
        let open = Gate::default();
        open.open();
        let observer = world.start(&open, 0, NODES, Cheat::None, None).await;
        *world.forger.lock().unwrap() = Some(observer.clone());
        world.furnish(&observer).await;
        world.observer = Some(observer);
        world.consent().await;
        for _ in 0..NODES {
            let node = Node {
                broker: None,
                actor: 0,
                is_cut: false,
                journal: MemoryFolder::default(),
                asks: Vec::new(),
            };
            world.nodes.push(node);
        }
        for node in 0..NODES {
            world.restart(node).await;
        }
        world
    }

    async fn start(
        &self,
        gate: &Gate,
        actor: u64,
        host: usize,
        cheat: Cheat,
        journal: Option<Journal>,
    ) -> Broker {
        let clock = FollowingClock::new(Arc::new(self.time.hosts[host].clone()));
        clock.follow(self.time.database.now(), clock.monotonic());
        let clock: Arc<dyn Clock> = Arc::new(clock);
        let storage = Gated {
            inner: Arc::clone(&self.stage.storage),
            home: self.stage.home.handle().clone(),
            gate: gate.clone(),
            actor,
            cheat,
            forger: Arc::clone(&self.forger),
        };
        let line = Line {
            vendor: Arc::clone(&self.vendor),
            gate: gate.clone(),
            actor,
            clock: Arc::clone(&clock),
            info: info(self.vendor.mode),
        };
        let mut settings = Settings::new(Url::parse("http://localhost:7603").unwrap());
        settings.server_id = format!("server-{}-{actor}", self.seed);
        let broker = Broker::start(Parts {
            storage: Arc::new(storage),
            key_encryption: Arc::clone(&self.stage.keys),
            further_encryption: Vec::new(),
            providers: vec![Arc::new(line)],
            clock,
            rng: Arc::new(SeededRng::new(self.seed.wrapping_mul(1000) + actor)),
            settings,
            metrics: Metrics::new(),
            journal,
            timer: Arc::new(GatedTimer { gate: gate.clone(), actor, time: self.time.clone() }),
        })
        .await
        .unwrap();
        // The run decides when the maintenance does its work.
        broker.shutdown(Duration::ZERO).await;
        broker
    }

    async fn furnish(&self, observer: &Broker) {
        let client = NewOAuthClient {
            id: "client".parse().unwrap(),
            provider: "vendor".parse().unwrap(),
            client_id: "app".into(),
            display_name: "App".into(),
            scopes: Scopes::parse("read").unwrap(),
            optional_scopes: Scopes::default(),
            help_url: None,
        };
        // The first run makes it for all.
        let _ = observer.create_oauth_client(&actor(), client, Some(SecretString::from("secret"))).await;
        let tenant = NewTenant {
            id: self.tenant.clone(),
            display_name: "Tenant".into(),
            labels: [].into(),
            state: TenantState::Active,
        };
        observer.create_tenant(&actor(), tenant).await.unwrap();
    }

    fn observer(&self) -> &Broker {
        self.observer.as_ref().expect("it was started first")
    }

    /// The row, whatever the gate says.
    pub(crate) fn row(&self) -> Option<Connection> {
        let read = self.stage.storage.get_connection(&self.tenant, &self.connection);
        at_once(self.stage.home.handle(), read).unwrap()
    }

    /// The stored refresh token.
    pub(crate) async fn stored_token(&self, row: &Connection) -> Option<String> {
        let sealed = row.tokens.as_ref()?.refresh_token.as_ref()?;
        let place = Place::token(&self.tenant, self.connection.as_str(), "refresh_token", row.grant_fence);
        let token = self.observer().sealer().open_text(place, sealed).await;
        Some(token.unwrap().expose_secret().to_owned())
    }

    /// The customer consents, for the first time or again.
    pub(crate) async fn consent(&self) {
        let (base, fence) = match self.row() {
            None => (ConsentBase::New, 1),
            Some(row) => {
                let (consent_epoch, lease_fence) = (row.consent_epoch, row.lease_fence);
                (ConsentBase::Existing { consent_epoch, lease_fence }, row.lease_fence + 1)
            }
        };
        let token = self.vendor.consent();
        let sealer = self.observer().sealer();
        let place = |field| Place::token(&self.tenant, self.connection.as_str(), field, fence);
        let now = self.time.database.now();
        let consent = Consent {
            tenant: self.tenant.clone(),
            connection: self.connection.clone(),
            base,
            provider: "vendor".parse().unwrap(),
            kind: ConnectionKind::OAuth,
            oauth_client: Some("client".parse().unwrap()),
            account: AccountId::parse("42").unwrap(),
            account_name: String::new(),
            tokens: TokenSet {
                access_token: sealer.seal(place("access_token"), b"access").await.unwrap(),
                refresh_token: Some(sealer.seal(place("refresh_token"), token.as_bytes()).await.unwrap()),
                issued_at: now,
                expires_at: Some(now + Duration::from_mins(30)),
                scopes: Scopes::parse("read").unwrap(),
            },
            exclusive_account: false,
            link: None,
            pending: None,
            now,
        };
        at_once(self.stage.home.handle(), self.stage.storage.save_consent(&consent)).unwrap();
    }

    /// An operator disconnects. Nothing happens while a lease holds.
    pub(crate) fn disconnect(&self) -> bool {
        let now = self.time.database.now();
        let disconnect =
            self.stage.storage.disconnect(&self.tenant, &self.connection, None, "disconnected", now);
        at_once(self.stage.home.handle(), disconnect).is_ok()
    }

    /// The lease runs out by the database's clock.
    pub(crate) fn expire_lease(&self) {
        if let Some(row) = self.row().filter(|row| row.lease.is_some()) {
            let end = self.stage.storage.end_attempt(&self.tenant, &self.connection, row.lease_fence, false);
            at_once(self.stage.home.handle(), end).unwrap();
        }
        // A holder that only paused may find that its lease is over.
        self.time.advance(Duration::from_secs(16));
    }

    /// A process starts on a node's machine, and takes its journal over.
    pub(crate) async fn restart(&mut self, node: usize) {
        let owner = format!("server-{}-{}", self.seed, self.actors);
        let journal = Journal::in_memory(&self.nodes[node].journal, &owner);
        self.restart_with(node, journal).await;
    }

    /// The same with another journal.
    pub(crate) async fn restart_with(&mut self, node: usize, journal: Journal) {
        let actor = self.actors;
        self.actors += 1;
        self.gate.exempt(Some(actor));
        let broker = self.start(&self.gate, actor, node, self.cheat, Some(journal)).await;
        self.gate.exempt(None);
        let node = &mut self.nodes[node];
        (node.broker, node.actor, node.is_cut) = (Some(broker), actor, false);
    }

    /// A process ends where it stands.
    pub(crate) fn crash(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        self.gate.kill(node.actor);
        node.journal.cut_off();
        node.asks.clear();
        node.broker = None;
    }

    pub(crate) fn cut(&mut self, node: usize, is_cut: bool) {
        let node = &mut self.nodes[node];
        node.is_cut = is_cut;
        self.gate.cut(node.actor, is_cut);
    }

    /// Whether nobody waits for a refresh at a node.
    pub(crate) fn is_idle(&self, node: usize) -> bool {
        self.nodes[node].asks.iter().all(JoinHandle::is_finished)
    }

    /// Somebody asks a node for a new token.
    pub(crate) fn ask(&mut self, node: usize) {
        let (tenant, connection) = (self.tenant.clone(), self.connection.clone());
        let node = &mut self.nodes[node];
        let Some(broker) = node.broker.clone() else { return };
        node.asks.push(tokio::spawn(async move {
            let _ = broker.refresh_connection(&actor(), &tenant, &connection).await;
        }));
    }

    /// A node looks for what others left.
    pub(crate) fn resolve(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        let Some(broker) = node.broker.clone() else { return };
        node.asks.push(tokio::spawn(async move {
            let _ = broker.resolve_attempts().await;
        }));
    }

    /// Leaves nothing for the next run to find.
    pub(crate) fn clear(&self) {
        self.expire_lease();
        self.disconnect();
    }
}
