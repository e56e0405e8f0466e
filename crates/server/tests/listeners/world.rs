//! A server with everything that it needs, and clients of it.

use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret;
use serde_json::json;
use tokenward_api::admin::v1 as api;
use tokenward_api::v1::GetTokenRequest;
use tokenward_api::v1::token_service_client::TokenServiceClient;
use tokenward_auth::{AuthSettings, Authenticator, BuiltinIssuer, BuiltinSettings, Role};
use tokenward_broker::admin::{NewAccessRule, NewOAuthClient, NewTenant};
use tokenward_broker::{Actor, Broker, Metrics, Parts, RuntimeTimer, Settings};
use tokenward_hubspot_sim::{ClockKind, GrantRequest, HubspotSim, RunningSim, SimConfig};
use tokenward_plugin::Section;
use tokenward_provider::ProviderContext;
use tokenward_server::{
    Address, Addresses, Limits, ListenError, ListenerConfig, ServerConfig, ServerParts, bind,
};
use tokenward_storage::{ScopeGrant, Storage, StorageContext, TenantSelector, TenantState};
use tokenward_types::{
    ManualClock, Principal, RequestId, Scopes, SecretString, SeededRng, SystemRng, Timestamp,
};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::metadata::MetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_types::{ErrorDetails, StatusExt};
use url::Url;

pub(crate) const READ: &str = "crm.objects.contacts.read";
const CLIENT_ID: &str = "11111111-2222-4333-8444-555555555555";
const CLIENT_SECRET: &str = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee";
const HUB: u64 = 1_234_567;

/// Adds a caller token to every call.
#[derive(Clone)]
pub(crate) struct Bearer(MetadataValue<tonic::metadata::Ascii>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

pub(crate) type Authenticated = InterceptedService<Channel, Bearer>;

pub(crate) fn bearer(token: &str) -> Bearer {
    Bearer(format!("Bearer {token}").parse().unwrap())
}

pub(crate) struct World {
    pub(crate) clock: ManualClock,
    pub(crate) sim: RunningSim,
    pub(crate) issuer: Arc<BuiltinIssuer>,
    pub(crate) addresses: Addresses,
    stop: Option<oneshot::Sender<()>>,
    serving: Option<JoinHandle<Result<(), ListenError>>>,
}

fn section(at: &str, name: &str, values: serde_json::Value) -> Section {
    let serde_json::Value::Object(values) = values else { panic!("a section is an object") };
    Section { at: at.into(), name: name.into(), values }
}

async fn build<B, C>(def: tokenward_plugin::BackendDef<B, C>, context: &C, section: &Section) -> B {
    let kind = def.kind();
    let registry = tokenward_plugin::Registry::new("test").with(def);
    let prepared = registry.prepare(kind, section, context).map_err(|problems| problems.to_string()).unwrap();
    prepared.build().await.unwrap()
}

pub(crate) fn listener(name: &'static str) -> ListenerConfig {
    ListenerConfig {
        name,
        address: Address::Tcp("127.0.0.1:0".parse().unwrap()),
        tls: None,
        allow_plaintext: false,
        reflection: true,
    }
}

pub(crate) fn config() -> ServerConfig {
    ServerConfig {
        service: listener("service"),
        admin: listener("admin"),
        public: listener("public"),
        operations: listener("operations"),
        worker_threads: 2,
        pin_worker_threads: true,
        drain_delay: Duration::ZERO,
        shutdown_grace: Duration::from_secs(10),
        limits: Limits {
            max_connections: 10_000,
            max_calls: 10_000,
            max_calls_per_connection: 1024,
            max_waiting_calls: 5_000,
            max_verifications: 1_000,
            max_admin_calls: 500,
            max_pages: 500,
            call_timeout: Duration::from_secs(30),
        },
    }
}

fn actor() -> Actor {
    Actor {
        principal: Principal::parse("builtin:setup").unwrap(),
        request_id: RequestId::parse("setup").unwrap(),
    }
}

/// A broker with tenant `acme`, connected, and a rule that lets `builtin:app` read contacts.
pub(crate) async fn parts(config: ServerConfig) -> (ServerParts, ManualClock, RunningSim) {
    let sim_config = SimConfig {
        clock: ClockKind::Manual,
        ..SimConfig::demo(["http://localhost:7603/oauth/main/callback"])
    };
    let sim = HubspotSim::start(sim_config).await.unwrap();
    let clock = ManualClock::new(Timestamp::from_micros(sim.handle().now_ms() * 1000));
    let storage: Arc<dyn Storage> = build(
        tokenward_storage_sea::sqlite(),
        &StorageContext { exclusive: true },
        &section("storage", "storage", json!({"in_memory": true})),
    )
    .await;
    storage.migrate().await.unwrap();
    let key = "1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let encryption = section("encryption", "encryption", json!({"key": key}));
    let provider = json!({
        "api_base_url": sim.base_url(),
        "authorize_url": sim.authorize_url(),
        "allow_http": true,
        "allow_private_addresses": true,
    });
    let provider = build(
        tokenward_provider_hubspot::hubspot(),
        &ProviderContext { clock: Arc::new(clock.clone()) },
        &section("providers.hubspot", "hubspot", provider),
    )
    .await;
    let broker = Broker::start(Parts {
        storage,
        key_encryption: build(tokenward_crypto_local::local(), &(), &encryption).await,
        further_encryption: Vec::new(),
        providers: vec![provider],
        clock: Arc::new(clock.clone()),
        rng: Arc::new(SeededRng::new(7)),
        settings: Settings::new(Url::parse("http://localhost:7603").unwrap()),
        metrics: Metrics::new(),
        journal: None,
        timer: Arc::new(RuntimeTimer),
    })
    .await
    .unwrap();
    connect(&broker, &sim).await;
    let (private, public, kid) = BuiltinIssuer::generate_key();
    let issuer = BuiltinIssuer::from_keys(vec![(kid, private, public)], BuiltinSettings::default()).unwrap();
    let authenticator = Authenticator::new(
        Vec::new(),
        Some(issuer.verification_keys()),
        Arc::new(clock.clone()),
        AuthSettings::default(),
    )
    .unwrap();
    let parts = ServerParts {
        broker,
        authenticator: Arc::new(authenticator),
        builtin_issuer: Some(Arc::new(issuer)),
        config,
    };
    (parts, clock, sim)
}

async fn connect(broker: &Broker, sim: &RunningSim) {
    let tenant = NewTenant {
        id: "acme".parse().unwrap(),
        display_name: "Acme Ltd".into(),
        labels: [("tier".to_owned(), "gold".to_owned())].into(),
        state: TenantState::Active,
    };
    broker.create_tenant(&actor(), tenant).await.unwrap();
    let client = NewOAuthClient {
        id: "main".parse().unwrap(),
        provider: "hubspot".parse().unwrap(),
        client_id: CLIENT_ID.into(),
        display_name: "Example App".into(),
        scopes: Scopes::parse(&format!("oauth {READ}")).unwrap(),
        optional_scopes: Scopes::default(),
        help_url: None,
    };
    broker.create_oauth_client(&actor(), client, Some(SecretString::from(CLIENT_SECRET))).await.unwrap();
    let rule = NewAccessRule {
        id: Some("read".parse().unwrap()),
        principal: "builtin:app".into(),
        tenants: TenantSelector::All,
        provider: None,
        scopes: ScopeGrant::Only(Scopes::parse(READ).unwrap()),
        allow_broader: false,
        description: String::new(),
    };
    broker.create_access_rule(&actor(), rule).await.unwrap();
    let token = SecretString::from(refresh_token(sim, HUB));
    let (tenant, client) = ("acme".parse().unwrap(), "main".parse().unwrap());
    broker.import_refresh_token(&actor(), &tenant, &client, token, None).await.unwrap();
}

fn refresh_token(sim: &RunningSim, hub: u64) -> String {
    let grant = GrantRequest {
        client_id: CLIENT_ID.into(),
        hub_ids: vec![hub],
        scopes: Some(vec!["oauth".to_owned(), READ.to_owned()]),
        ..GrantRequest::default()
    };
    sim.handle().create_grants(&grant).unwrap().remove(0).refresh_token
}

impl World {
    /// The vendor takes a new client secret, and the old one for another hour.
    pub(crate) fn rotate_secret(&self, secret: &str) {
        let overlap = tokenward_hubspot_sim::Overlap::Secs(3600);
        self.sim.handle().set_client_secret(CLIENT_ID, secret, overlap).unwrap();
    }

    pub(crate) async fn start() -> Self {
        Self::with(config()).await
    }

    pub(crate) async fn with(config: ServerConfig) -> Self {
        let (parts, clock, sim) = parts(config).await;
        let issuer = parts.builtin_issuer.clone().unwrap();
        let server = bind(parts).await.unwrap();
        let addresses = server.addresses();
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(server.serve(async move {
            let _ = stopped.await;
        }));
        Self { clock, sim, issuer, addresses, stop: Some(stop), serving: Some(serving) }
    }

    /// Tells the server to stop.
    pub(crate) fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    /// Waits until it has stopped.
    pub(crate) async fn stopped(&mut self) -> Result<(), ListenError> {
        self.serving.take().unwrap().await.unwrap()
    }

    pub(crate) fn caller_token(&self, subject: &str, role: Role) -> String {
        let issued =
            self.issuer.issue(subject, role, Duration::from_secs(3600), &SystemRng, &self.clock).unwrap();
        issued.token.expose_secret().to_owned()
    }

    pub(crate) async fn channel(&self) -> Channel {
        endpoint(&self.addresses.service).connect().await.unwrap()
    }

    pub(crate) async fn admin_channel(&self) -> Channel {
        endpoint(&self.addresses.admin).connect().await.unwrap()
    }

    /// A refresh token of a grant that HubSpot has and the server does not.
    pub(crate) fn refresh_token(&self, hub: u64) -> String {
        refresh_token(&self.sim, hub)
    }

    /// A client of the service listener.
    pub(crate) async fn tokens(&self, subject: &str, role: Role) -> TokenServiceClient<Authenticated> {
        TokenServiceClient::with_interceptor(self.channel().await, bearer(&self.caller_token(subject, role)))
    }

    /// What admin clients are made of.
    pub(crate) async fn admin(&self, role: Role) -> Authenticated {
        InterceptedService::new(self.admin_channel().await, bearer(&self.caller_token("ops", role)))
    }

    pub(crate) async fn operations(&self, path: &str) -> (u16, String) {
        let answer =
            http_client().get(format!("http://{}{path}", self.addresses.operations)).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }
}

pub(crate) fn endpoint(address: &str) -> Endpoint {
    let uri = if address.starts_with("unix:") { address.to_owned() } else { format!("http://{address}") };
    Endpoint::from_shared(uri).unwrap()
}

pub(crate) fn http_client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap()
}

pub(crate) fn ask() -> GetTokenRequest {
    GetTokenRequest { tenant_id: "acme".into(), scopes: vec![READ.into()], ..Default::default() }
}

/// The reason of an error, and all its details.
pub(crate) fn reason(status: &Status) -> (String, ErrorDetails) {
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("no ErrorInfo in {status:?}"));
    assert_eq!(info.domain, "tokenward");
    assert!(!info.metadata["request_id"].is_empty());
    (info.reason.clone(), details)
}

pub(crate) fn tenant(id: &str) -> api::Tenant {
    api::Tenant { tenant_id: id.into(), ..Default::default() }
}
