//! A broker on real SQLite and a real keyring, in front of the stand-in HubSpot; both share a clock that stands still.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokenward_broker::admin::{NewAccessRule, NewOAuthClient, NewTenant};
use tokenward_broker::{Actor, Broker, Error, Metrics, Parts, RuntimeTimer, Settings, Token, TokenRequest};
use tokenward_crypto::KeyEncryption;
use tokenward_hubspot_sim::{ClockKind, GrantRequest, HubspotSim, RunningSim, SimConfig, SimHandle};
use tokenward_plugin::Section;
use tokenward_provider::ProviderContext;
use tokenward_storage::{
    BeginPause, Connection, ScopeGrant, Storage, StorageContext, TenantSelector, TenantState,
};
use tokenward_types::{
    AccessRuleId, ConnectionId, ManualClock, OAuthClientId, Principal, ProviderName, RequestId, Scopes,
    SecretString, SeededRng, TenantId, Timestamp,
};
use url::Url;

pub(crate) const CLIENT_ID: &str = "11111111-2222-4333-8444-555555555555";
pub(crate) const CLIENT_SECRET: &str = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee";
pub(crate) const READ: &str = "crm.objects.contacts.read";
pub(crate) const WRITE: &str = "crm.objects.contacts.write";
pub(crate) const HUB: u64 = 1_234_567;
pub(crate) const OTHER_HUB: u64 = 7_654_321;

pub(crate) struct World {
    pub(crate) broker: Broker,
    pub(crate) clock: ManualClock,
    pub(crate) sim: RunningSim,
    pub(crate) storage: Arc<dyn Storage>,
    key: String,
    provider: serde_json::Value,
}

fn section(name: &str, values: serde_json::Value) -> Section {
    let serde_json::Value::Object(values) = values else { panic!("a section is an object") };
    Section { at: name.into(), name: name.into(), values }
}

async fn build<B, C>(def: tokenward_plugin::BackendDef<B, C>, context: &C, section: &Section) -> B {
    let kind = def.kind();
    let registry = tokenward_plugin::Registry::new("test").with(def);
    let prepared = registry.prepare(kind, section, context).map_err(|problems| problems.to_string()).unwrap();
    prepared.build().await.unwrap()
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with(json!({}), |_| {}).await
    }

    /// A world with settings of the provider and of the broker.
    pub(crate) async fn with(provider: serde_json::Value, tune: impl FnOnce(&mut Settings)) -> Self {
        let config = SimConfig {
            clock: ClockKind::Manual,
            ..SimConfig::demo(["http://localhost:7603/oauth/main/callback"])
        };
        let sim = HubspotSim::start(config).await.unwrap();
        let clock = ManualClock::new(Timestamp::from_micros(sim.handle().now_ms() * 1000));
        let storage = build(
            tokenward_storage_sea::sqlite(),
            &StorageContext { exclusive: true },
            &section("storage", json!({"in_memory": true})),
        )
        .await;
        storage.migrate().await.unwrap();
        let key = "1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".to_owned();
        let mut section = json!({
            "api_base_url": sim.base_url(),
            "authorize_url": sim.authorize_url(),
            "allow_http": true,
            "allow_private_addresses": true,
        });
        for (name, value) in provider.as_object().unwrap() {
            section[name] = value.clone();
        }
        let broker = broker(&storage, &clock, &key, &section, tune).await.unwrap();
        let world = Self { broker, clock, sim, storage, key, provider: section };
        world.prepare().await;
        world
    }

    /// Tenant `acme`, client `main`, and a rule that allows `builtin:app` to read contacts.
    async fn prepare(&self) {
        self.add_tenant("acme").await;
        self.broker
            .create_oauth_client(
                &actor(),
                NewOAuthClient {
                    id: client_id(),
                    provider: provider_name(),
                    client_id: CLIENT_ID.into(),
                    display_name: "Example App".into(),
                    scopes: Scopes::parse(&format!("oauth {READ}")).unwrap(),
                    optional_scopes: Scopes::parse(WRITE).unwrap(),
                    help_url: Some("https://help.example.com/hubspot".into()),
                },
                Some(SecretString::from(CLIENT_SECRET)),
            )
            .await
            .unwrap();
        self.add_rule("read", ScopeGrant::Only(Scopes::parse(READ).unwrap()), false).await;
    }

    pub(crate) async fn add_tenant(&self, id: &str) {
        self.broker
            .create_tenant(
                &actor(),
                NewTenant {
                    id: tenant(id),
                    display_name: format!("{id} Ltd"),
                    labels: [("tier".to_owned(), "gold".to_owned())].into(),
                    state: TenantState::Active,
                },
            )
            .await
            .unwrap();
    }

    pub(crate) async fn add_rule(&self, id: &str, scopes: ScopeGrant, allow_broader: bool) {
        self.add_rule_for(id, TenantSelector::All, scopes, allow_broader).await;
    }

    pub(crate) async fn add_rule_for(
        &self,
        id: &str,
        tenants: TenantSelector,
        scopes: ScopeGrant,
        allow_broader: bool,
    ) {
        self.broker
            .create_access_rule(
                &actor(),
                NewAccessRule {
                    id: Some(AccessRuleId::parse(id).unwrap()),
                    principal: "builtin:app".into(),
                    tenants,
                    provider: None,
                    scopes,
                    allow_broader,
                    description: String::new(),
                },
            )
            .await
            .unwrap();
    }

    pub(crate) fn handle(&self) -> &SimHandle {
        self.sim.handle()
    }

    /// A grant for the account, and its import.
    pub(crate) async fn connect(&self, tenant_id: &str, hub: u64, scopes: &[&str]) -> Connection {
        let token = self.grant(hub, scopes);
        self.broker
            .import_refresh_token(&actor(), &tenant(tenant_id), &client_id(), token, None)
            .await
            .unwrap()
    }

    pub(crate) fn grant(&self, hub: u64, scopes: &[&str]) -> SecretString {
        let request = GrantRequest {
            client_id: CLIENT_ID.into(),
            hub_ids: vec![hub],
            scopes: Some(scopes.iter().map(|scope| (*scope).to_owned()).collect()),
            ..GrantRequest::default()
        };
        let grants = self.handle().create_grants(&request).unwrap();
        SecretString::from(grants[0].refresh_token.clone())
    }

    /// Time passes, for the broker and for HubSpot.
    pub(crate) fn advance(&self, duration: Duration) {
        self.clock.advance(duration);
        self.handle().advance_secs(i64::try_from(duration.as_secs()).unwrap());
    }

    pub(crate) async fn token(&self, scopes: &[&str]) -> Result<Token, Error> {
        self.ask(Ask { scopes, ..Ask::default() }).await
    }

    pub(crate) async fn ask(&self, ask: Ask<'_>) -> Result<Token, Error> {
        self.ask_of(&self.broker, ask).await
    }

    /// The same of another broker.
    pub(crate) async fn ask_of(&self, broker: &Broker, ask: Ask<'_>) -> Result<Token, Error> {
        let principal = Principal::parse(ask.principal).unwrap();
        let scopes: Vec<String> = ask.scopes.iter().map(|scope| (*scope).to_owned()).collect();
        let request = TokenRequest {
            principal: &principal,
            tenant: ask.tenant,
            provider: ask.provider,
            scopes: &scopes,
            min_ttl: ask.min_ttl,
            connection: ask.connection,
            account: ask.account,
            patience: ask.patience,
        };
        match broker.token_from_memory(&request) {
            Some(token) => Ok(token),
            None => broker.token(&request).await,
        }
    }

    pub(crate) async fn row(&self, tenant_id: &str, id: &ConnectionId) -> Connection {
        self.storage.get_connection(&tenant(tenant_id), id).await.unwrap().expect("the connection is stored")
    }

    pub(crate) fn refreshes(&self) -> u64 {
        self.handle().stats().refreshes
    }

    /// The same database under a new broker: what a restart does.
    pub(crate) async fn restart(&mut self) {
        self.broker.shutdown(Duration::from_secs(5)).await;
        self.broker = broker(&self.storage, &self.clock, &self.key, &self.provider, |_| {}).await.unwrap();
    }

    /// Another broker on the same database, as in another process.
    pub(crate) async fn another(&self, tune: impl FnOnce(&mut Settings)) -> Result<Broker, Error> {
        let tune = |settings: &mut Settings| {
            settings.server_id = "another".into();
            tune(settings);
        };
        broker(&self.storage, &self.clock, &self.key, &self.provider, tune).await
    }

    /// Another broker on the same database that has further encryption backends open.
    pub(crate) async fn another_among(&self, further: Vec<Arc<dyn KeyEncryption>>) -> Result<Broker, Error> {
        let tune = |settings: &mut Settings| settings.server_id = "another".into();
        broker_among(further, &self.storage, &self.clock, &self.key, &self.provider, tune).await
    }

    /// The same database under a new broker that has further encryption backends open.
    pub(crate) async fn restart_among(&mut self, further: Vec<Arc<dyn KeyEncryption>>) {
        self.broker.shutdown(Duration::from_secs(5)).await;
        let broker =
            broker_among(further, &self.storage, &self.clock, &self.key, &self.provider, |_| {}).await;
        self.broker = broker.unwrap();
    }

    /// A broker on another database.
    pub(crate) async fn broker_on(&self, storage: &Arc<dyn Storage>, key: &str) -> Result<Broker, Error> {
        broker(storage, &self.clock, key, &self.provider, |_| {}).await
    }

    /// A second server on the same database.
    pub(crate) async fn another_server(&self, tune: impl FnOnce(&mut Settings)) -> Broker {
        self.another(tune).await.unwrap()
    }

    /// Waits until the pause of the client is in the database, and lets it pass there too: the database has a clock of
    /// its own.
    pub(crate) async fn let_pause_pass(&self) {
        let pause = loop {
            if let Some(pause) = self.storage.list_pauses().await.unwrap().pop() {
                break pause;
            }
            tokio::task::yield_now().await;
        };
        self.storage.end_pause(&pause.oauth_client, pause.number).await.unwrap();
        let over = BeginPause { cause: pause.cause, length: Duration::ZERO, refusals: pause.refusals };
        self.storage.pause_calls(&pause.oauth_client, &over).await.unwrap().unwrap();
    }

    /// A broker on the same database with another key.
    pub(crate) async fn with_key(&self, key: &str) -> Result<Broker, Error> {
        broker(&self.storage, &self.clock, key, &self.provider, |_| {}).await
    }
}

async fn broker(
    storage: &Arc<dyn Storage>,
    clock: &ManualClock,
    key: &str,
    provider: &serde_json::Value,
    tune: impl FnOnce(&mut Settings),
) -> Result<Broker, Error> {
    broker_among(Vec::new(), storage, clock, key, provider, tune).await
}

async fn broker_among(
    further_encryption: Vec<Arc<dyn KeyEncryption>>,
    storage: &Arc<dyn Storage>,
    clock: &ManualClock,
    key: &str,
    provider: &serde_json::Value,
    tune: impl FnOnce(&mut Settings),
) -> Result<Broker, Error> {
    let key_encryption =
        build(tokenward_crypto_local::local(), &(), &section("encryption", json!({"key": key}))).await;
    let context = ProviderContext { clock: Arc::new(clock.clone()) };
    let mut section = section("providers.hubspot", provider.clone());
    section.name = "hubspot".into();
    let provider = build(tokenward_provider_hubspot::hubspot(), &context, &section).await;
    let mut settings = Settings::new(Url::parse("http://localhost:7603").unwrap());
    tune(&mut settings);
    Broker::start(Parts {
        storage: Arc::clone(storage),
        key_encryption,
        further_encryption,
        providers: vec![provider],
        clock: Arc::new(clock.clone()),
        rng: Arc::new(SeededRng::new(7)),
        settings,
        metrics: Metrics::new(),
        journal: None,
        timer: Arc::new(RuntimeTimer),
    })
    .await
}

/// What is asked for; by default tenant `acme` as `builtin:app`.
pub(crate) struct Ask<'a> {
    pub(crate) principal: &'a str,
    pub(crate) tenant: &'a str,
    pub(crate) provider: &'a str,
    pub(crate) scopes: &'a [&'a str],
    pub(crate) min_ttl: Option<Duration>,
    pub(crate) connection: &'a str,
    pub(crate) account: &'a str,
    pub(crate) patience: Option<Duration>,
}

impl Default for Ask<'_> {
    fn default() -> Self {
        Self {
            principal: "builtin:app",
            tenant: "acme",
            provider: "",
            scopes: &[],
            min_ttl: None,
            connection: "",
            account: "",
            patience: None,
        }
    }
}

pub(crate) fn actor() -> Actor {
    Actor {
        principal: Principal::parse("builtin:admin").unwrap(),
        request_id: RequestId::parse("req_test").unwrap(),
    }
}

pub(crate) fn tenant(id: &str) -> TenantId {
    TenantId::parse(id).unwrap()
}

pub(crate) fn client_id() -> OAuthClientId {
    OAuthClientId::parse("main").unwrap()
}

pub(crate) fn provider_name() -> ProviderName {
    ProviderName::parse("hubspot").unwrap()
}

pub(crate) fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}
