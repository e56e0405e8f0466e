//! How a server is put together, in the order in which it happens.

use std::sync::Arc;
use std::time::Duration;

use tokenward_auth::{AuthSettings, Authenticator, BuiltinIssuer, IssuerConfig};
use tokenward_broker::{Broker, Metrics, Parts, RuntimeTimer, Settings, Shutdown};
use tokenward_config::{Config, Transport};
use tokenward_journal::Journal;
use tokenward_server::{Address, BoundServer, Limits, ListenerConfig, ServerConfig, ServerParts, TlsFiles};
use tokenward_storage::{SchemaStatus, Storage, StorageError};
use tokenward_types::{Clock, FollowingClock, Rng, SystemRng, generate_suffix};
use tokio::task::JoinHandle;
use url::Url;

use crate::callers::FollowedCallers;
use crate::failure::Failure;
use crate::local::Checked;
use crate::{issuer, process};

/// How often issuers' keys are fetched anew, so that a withdrawn key stops being accepted.
const KEY_REFRESH: Duration = Duration::from_mins(5);

/// How often the database is asked for the time: clocks drift by microseconds meanwhile.
const CLOCK_LOOK: Duration = Duration::from_secs(10);

/// A server that is ready to serve.
pub(crate) struct Composed {
    /// The use cases.
    pub broker: Broker,
    /// The bound listeners.
    pub server: BoundServer,
    /// The built-in issuer, where it is switched on.
    pub issuer: Option<Arc<BuiltinIssuer>>,
    storage: Arc<dyn Storage>,
    grace: Duration,
    background: Vec<JoinHandle<()>>,
}

/// Puts a server together from a configuration that was checked.
pub(crate) async fn compose(checked: Checked) -> Result<Composed, Failure> {
    let Checked { config, storage, encryption, further_encryption, providers, issuers, public_url, clock } =
        checked;
    let rng: Arc<dyn Rng> = Arc::new(SystemRng);

    // 1. The database, with a schema that this program knows.
    let storage = storage.build().await?;
    prepare_schema(&*storage, config.server.migrate_on_start).await?;

    // 2. The time of the database, which every server on it has, whatever its machine's clock says.
    follow(&*storage, &clock).await?;
    let following = tokio::spawn(keep_following(Arc::clone(&storage), clock.clone()));

    // 3. The journal, which one process has at a time. Leases name their holder: no two processes may ever have one name.
    let server_id = format!("srv_{}", generate_suffix(&clock, &*rng));
    let journal = config.journal_dir().map(|folder| Journal::open(&folder, &server_id)).transpose()?;

    // 4. The encryption backend; starting the broker proves that it has the right keys.
    let key_encryption = encryption.build().await?;
    let mut further = Vec::new();
    for backend in further_encryption {
        further.push(backend.build().await?);
    }

    // 5. The broker; it first stores what a former process left in the journal.
    let parts = Parts {
        storage: Arc::clone(&storage),
        key_encryption,
        further_encryption: further,
        providers,
        clock: Arc::new(clock.clone()),
        rng,
        settings: settings(&config, public_url, server_id),
        metrics: Metrics::new(),
        journal,
        timer: Arc::new(RuntimeTimer),
    };
    let broker = Broker::start(parts).await?;

    // 6. Who may call, and the listeners.
    let (server, issuer, refresh_keys) = listen(&config, &broker, issuers, Arc::new(clock)).await?;
    let grace = config.server.shutdown_grace;
    Ok(Composed { broker, server, issuer, storage, grace, background: vec![following, refresh_keys] })
}

type Listening = (BoundServer, Option<Arc<BuiltinIssuer>>, JoinHandle<()>);

async fn listen(
    config: &Config,
    broker: &Broker,
    issuers: Vec<IssuerConfig>,
    clock: Arc<dyn Clock>,
) -> Result<Listening, Failure> {
    // The built-in issuer, the configured ones, and who is blocked.
    let builtin = issuer::load(&config.builtin_issuer, &**broker.storage(), broker.sealer(), &*clock)
        .await?
        .map(Arc::new);
    let keys = builtin.as_ref().map(|issuer| issuer.verification_keys());
    let auth_settings = AuthSettings { cache_capacity: config.server.max_cached_callers };
    let authenticator = Authenticator::new(issuers, keys, clock, auth_settings)
        .map_err(|error| Failure::new(error.to_string()))?;
    let authenticator = Arc::new(authenticator);
    let callers = FollowedCallers {
        authenticator: Arc::clone(&authenticator),
        builtin_issuer: config.builtin_issuer.clone(),
    };
    broker.follow_callers(Arc::new(callers)).await?;
    authenticator.preload().await;

    let parts = ServerParts {
        broker: broker.clone(),
        authenticator: Arc::clone(&authenticator),
        builtin_issuer: builtin.clone(),
        config: server_config(config)?,
    };
    let server =
        tokenward_server::bind(parts).await.map_err(|error| Failure::from(anyhow::Error::from(error)))?;
    Ok((server, builtin, tokio::spawn(refresh_keys(authenticator))))
}

impl Composed {
    /// Serves until `shutdown` is ready, then stops in order: calls, refreshes, database.
    pub(crate) async fn serve(self, shutdown: impl Future<Output = ()>) -> Result<(), Failure> {
        let Self { broker, server, issuer: _, storage, grace, background } = self;
        let served = server.serve(shutdown).await;
        background.iter().for_each(JoinHandle::abort);
        let left = broker.shutdown(grace).await;
        storage.close().await;
        served.map_err(|error| Failure::from(anyhow::Error::from(error)))?;
        report(&left)
    }
}

/// Takes over the database's time.
async fn follow(storage: &dyn Storage, clock: &FollowingClock) -> Result<(), StorageError> {
    let asked = clock.monotonic();
    clock.follow(storage.time().await?, asked);
    Ok(())
}

/// Stays with the database's time, for ever. While it is away the time goes on by itself.
async fn keep_following(storage: Arc<dyn Storage>, clock: FollowingClock) {
    loop {
        tokio::time::sleep(CLOCK_LOOK).await;
        // What is wrong with the database is reported by who needs it.
        let _ = follow(&*storage, &clock).await;
    }
}

/// Names what was left when the server stopped, and where it is.
fn report(left: &Shutdown) -> Result<(), Failure> {
    let mut found = Vec::new();
    let mut hints = Vec::new();
    if !left.unsaved.is_empty() {
        found.push(format!("refreshed tokens could not be stored: {}", left.unsaved.join(", ")));
        hints.push("connections whose tokens are lost may need the customer's consent again".to_owned());
    }
    if let (false, Some(journal)) = (left.journaled.is_empty(), &left.journal) {
        let journal = journal.display();
        found.push(format!(
            "refreshed tokens wait for the database in the journal {journal}: {}",
            left.journaled.join(", ")
        ));
        hints.push(format!("keep {journal}: the next start with this journal stores what is in it"));
    }
    if !left.under_way.is_empty() {
        found.push(format!("refreshes were still under way: {}", left.under_way.join(", ")));
        hints.push(
            "the next server finds out what became of them; a longer server.shutdown_grace lets them finish"
                .to_owned(),
        );
    }
    if found.is_empty() {
        return Ok(());
    }
    Err(Failure::new(found.join("; ")).hint(hints.join("; ")))
}

async fn prepare_schema(storage: &dyn Storage, migrate: bool) -> Result<(), Failure> {
    if migrate {
        for name in storage.migrate().await? {
            tracing::info!(migration = name, "brought the schema up to date");
        }
        return Ok(());
    }
    match storage.schema_status().await? {
        SchemaStatus::Current => Ok(()),
        SchemaStatus::Behind(_) => Err(Failure::new("the database's schema is older than this program")
            .hint("run `tokenward migrate`, or set server.migrate_on_start = true")),
        SchemaStatus::Newer(_) => {
            Err(Failure::new("the database belongs to a newer version of this program")
                .hint("run that version"))
        }
    }
}

fn settings(config: &Config, public_url: Url, server_id: String) -> Settings {
    let broker = &config.broker;
    Settings {
        return_urls: config.public.return_urls.iter().filter_map(|url| Url::parse(url).ok()).collect(),
        allow_shared_accounts: broker.allow_shared_accounts,
        default_min_ttl: broker.default_min_ttl,
        min_refresh_age: broker.min_refresh_age,
        expired_below: broker.expired_below,
        refresh_ahead_percent: broker.refresh_ahead_percent,
        connect_link_ttl: broker.connect_link_ttl,
        connect_link_max_ttl: broker.connect_link_max_ttl,
        state_ttl: broker.state_ttl,
        lease: broker.lease,
        suspect_confirm_after: broker.suspect_confirm_after,
        backoff_base: broker.backoff_base,
        backoff_max: broker.backoff_max,
        max_cached_connections: broker.max_cached_connections,
        max_cached_data_keys: broker.max_cached_data_keys,
        data_key_ttl: broker.data_key_ttl,
        keep_replaced_data_keys: broker.keep_replaced_data_keys,
        max_key_job_rate: broker.max_key_job_rate,
        report_interval: broker.report_interval,
        max_stale: broker.max_stale,
        idle_check_interval: broker.idle_check_interval,
        server_id,
        server_description: process::describe(),
        ..Settings::new(public_url)
    }
}

async fn refresh_keys(authenticator: Arc<Authenticator>) {
    let mut ticks = tokio::time::interval(KEY_REFRESH);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // The first tick is immediate, and the keys have just been fetched.
    ticks.tick().await;
    loop {
        ticks.tick().await;
        authenticator.refresh_keys().await;
    }
}

fn server_config(config: &Config) -> Result<ServerConfig, Failure> {
    let listen = &config.listen;
    let server = &config.server;
    Ok(ServerConfig {
        service: listener("service", &listen.service.transport(), listen.service.reflects())?,
        admin: listener("admin", &listen.admin.transport(), listen.admin.reflects())?,
        public: listener("public", &listen.public.transport(), false)?,
        operations: listener("operations", &listen.operations.transport(), false)?,
        worker_threads: server.worker_threads,
        pin_worker_threads: server.pin_worker_threads,
        drain_delay: server.drain_delay,
        shutdown_grace: server.shutdown_grace,
        limits: Limits {
            max_connections: server.max_connections,
            max_calls: server.max_calls,
            max_calls_per_connection: server.max_calls_per_connection,
            max_waiting_calls: server.max_waiting_calls,
            max_verifications: server.max_verifications,
            max_admin_calls: server.max_admin_calls,
            max_pages: server.max_pages,
            call_timeout: server.request_timeout,
        },
    })
}

fn listener(
    name: &'static str,
    transport: &Transport<'_>,
    reflection: bool,
) -> Result<ListenerConfig, Failure> {
    let address =
        transport.address.parse().map_err(|error| Failure::new(format!("listen.{name}.address: {error}")))?;
    let tls = transport.cert_file.zip(transport.key_file);
    Ok(ListenerConfig {
        name,
        address: match address {
            tokenward_config::Address::Tcp(address) => Address::Tcp(address),
            tokenward_config::Address::Unix(path) => Address::Unix(path),
        },
        tls: tls.map(|(cert, key)| TlsFiles { cert_file: cert.to_owned(), key_file: key.to_owned() }),
        allow_plaintext: transport.allow_plaintext,
        reflection,
    })
}
