//! The broker as a whole: what it is made of, how it starts and stops.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokenward_crypto::KeyEncryption;
use tokenward_journal::Journal;
use tokenward_provider::Provider;
use tokenward_storage::{ConnectionState, Storage};
use tokenward_types::{Clock, ProviderName, Rng, Scopes, TenantId, generate_suffix};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::Instrument;

use crate::access::RuleBook;
use crate::callers::Callers;
use crate::clients::Clients;
use crate::directory::Directory;
use crate::due::Schedule;
use crate::follow::Following;
use crate::idle::Checks;
use crate::key_jobs::KeyWork;
use crate::refresh::{Flights, Kept, Outage, Unsaved};
use crate::report::Reports;
use crate::sealer::SealerParts;
use crate::select::BaseScopes;
use crate::watched::{ProviderHealth, Watched};
use crate::{Error, Metrics, Reason, Sealer, Settings, Timer};

/// What a lease must leave beside the longest provider call.
pub const LEASE_MARGIN: Duration = Duration::from_secs(2);

/// What a broker is made of.
pub struct Parts {
    /// Where everything is stored.
    pub storage: Arc<dyn Storage>,
    /// What wraps data keys.
    pub key_encryption: Arc<dyn KeyEncryption>,
    /// What else unwraps them, while they move from one backend to another.
    pub further_encryption: Vec<Arc<dyn KeyEncryption>>,
    /// The configured providers.
    pub providers: Vec<Arc<dyn Provider>>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness for identifiers, states, links and jitter.
    pub rng: Arc<dyn Rng>,
    /// What an operator tuned.
    pub settings: Settings,
    /// Where it counts.
    pub metrics: Metrics,
    /// Where results wait while the database is away; without it they wait in memory alone.
    pub journal: Option<Journal>,
    /// How it waits.
    pub timer: Arc<dyn Timer>,
}

/// What was left when the broker stopped.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    /// Connections whose last refresh could not be stored and is lost, as `tenant/connection`.
    pub unsaved: Vec<String>,
    /// Connections whose last refresh waits in the journal for the next start, as `tenant/connection`.
    pub journaled: Vec<String>,
    /// Where the journal is.
    pub journal: Option<PathBuf>,
    /// Connections whose refresh is under way, named alike: its outcome will have to be found out.
    pub under_way: Vec<String>,
}

impl Shutdown {
    /// Whether nothing was left.
    pub fn is_clean(&self) -> bool {
        self.unsaved.is_empty() && self.journaled.is_empty() && self.under_way.is_empty()
    }
}

struct Inner {
    storage: Arc<dyn Storage>,
    providers: HashMap<ProviderName, Arc<dyn Provider>>,
    watched: Vec<Arc<Watched>>,
    clock: Arc<dyn Clock>,
    rng: Arc<dyn Rng>,
    settings: Settings,
    metrics: Metrics,
    sealer: Sealer,
    directory: Directory,
    rules: ArcSwap<RuleBook>,
    reloading: tokio::sync::Mutex<()>,
    key_work: KeyWork,
    clients: Clients,
    flights: Flights,
    unsaved: Unsaved,
    outage: Outage,
    journal: Option<Arc<Journal>>,
    timer: Arc<dyn Timer>,
    schedule: Schedule,
    callers: Callers,
    checks: Checks,
    reports: Reports,
    following: Following,
    /// How many servers share the database, as last known.
    replicas: AtomicU32,
    runtime: tokio::runtime::Handle,
    maintenance: Mutex<Vec<JoinHandle<()>>>,
    stopping: watch::Sender<bool>,
    /// Counts tasks that hold what a provider gave and is not stored yet.
    delicate: watch::Sender<usize>,
}

/// The use cases over the traits. Cloning shares it.
#[derive(Clone)]
pub struct Broker(Arc<Inner>);

/// A broker that may have stopped, for tasks that must not keep it alive.
pub(crate) struct WeakBroker(Weak<Inner>);

impl WeakBroker {
    /// The broker, if anybody still holds it.
    pub(crate) fn upgrade(&self) -> Option<Broker> {
        self.0.upgrade().map(Broker)
    }
}

impl Broker {
    /// Checks the keys, reads the rules, and starts the maintenance on the current tokio runtime.
    ///
    /// # Errors
    /// What keeps it from starting, such as a wrong encryption key.
    pub async fn start(parts: Parts) -> Result<Self, Error> {
        let Parts { storage, key_encryption, further_encryption, providers, clock, .. } = parts;
        let Parts { rng, settings, metrics, journal, timer, .. } = parts;
        for provider in &providers {
            let (name, timeout) = (&provider.info().name, provider.call_timeout());
            if timeout + LEASE_MARGIN > settings.lease {
                let lease = settings.lease.as_secs();
                let message = format!(
                    "is {lease} s, but a call of provider {name} may take {} s: make it at least {} s longer than that",
                    timeout.as_secs(),
                    LEASE_MARGIN.as_secs()
                );
                return Err(Error::invalid("broker.lease", message));
            }
        }
        // Ahead of all that is read and kept.
        let following = Following::new(storage.end_of_changes().await?, clock.monotonic());
        let installation = storage.installation_id(&generate_suffix(&*clock, &*rng)).await?;
        // Before a backend is asked, whose policy may have to name it.
        tracing::info!(installation, "this installation's identifier");
        let sealer = Sealer::start(SealerParts {
            storage: Arc::clone(&storage),
            backend: key_encryption,
            further: further_encryption,
            clock: Arc::clone(&clock),
            installation,
            max_cached_data_keys: settings.max_cached_data_keys,
            data_key_ttl: settings.data_key_ttl,
        })
        .await?;
        let undecryptable = sealer.undecryptable().clone();
        metrics.register(|registry| {
            registry.register("undecryptable_reads", "Stored secrets that did not decrypt", undecryptable);
        });
        let rules = RuleBook::load(&*storage).await?;
        let watch = |provider| Arc::new(Watched::new(provider, Arc::clone(&clock)));
        let watched: Vec<Arc<Watched>> = providers.into_iter().map(watch).collect();
        let (sender, news) = tokio::sync::mpsc::unbounded_channel();
        let broker = Self(Arc::new(Inner {
            directory: Directory::new(settings.max_cached_connections),
            providers: watched
                .iter()
                .map(|provider| (provider.info().name.clone(), Arc::clone(provider) as Arc<dyn Provider>))
                .collect(),
            watched,
            rules: ArcSwap::from_pointee(rules),
            reloading: tokio::sync::Mutex::default(),
            key_work: KeyWork::default(),
            clients: Clients::new(sender),
            flights: Flights::default(),
            unsaved: Unsaved::default(),
            outage: Outage::default(),
            journal: journal.map(Arc::new),
            timer,
            schedule: Schedule::default(),
            callers: Callers::default(),
            checks: Checks::default(),
            reports: Reports::default(),
            following,
            replicas: AtomicU32::new(1),
            runtime: tokio::runtime::Handle::current(),
            maintenance: Mutex::default(),
            stopping: watch::Sender::new(false),
            delicate: watch::Sender::new(0),
            storage,
            clock,
            rng,
            settings,
            metrics,
            sealer,
        }));
        broker.report_replica().await?;
        // A rotation that did not see this server in the list yet may have come to its end.
        broker.sealer().check_active().await?;
        broker.take_over_journal().await?;
        broker.prepare_journal();
        broker.start_maintenance(news);
        Ok(broker)
    }

    /// Takes over what a former process with this journal left: its results, then its leases. Others' attempts come after.
    async fn take_over_journal(&self) -> Result<(), Error> {
        let Some(journal) = self.journal() else { return Ok(()) };
        self.check_mark().await?;
        self.replay_journal().await?;
        if let Some(former) = journal.former_owner().filter(|former| *former != self.settings().server_id) {
            // The journal was free, so that process is certainly gone: nobody has to wait for its leases to lapse.
            let released = self.storage().release_leases(former).await?;
            self.metrics().refresh_takeovers.inc_by(released);
        }
        Ok(())
    }

    /// Does something every so often, until this broker stops, which waits for the time under way, or nobody holds it any more.
    pub(crate) fn every(&self, first: Duration, period: Duration, work: fn(Self) -> BoxFuture<'static, ()>) {
        // Weak, so that a broker that nobody holds any more stops working.
        let inner = Arc::downgrade(&self.0);
        let mut stopping = self.0.stopping.subscribe();
        let task = self.0.runtime.spawn(async move {
            let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + first, period);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    _ = stopping.wait_for(|stopping| *stopping) => return,
                    _ = ticks.tick() => {}
                }
                let Some(inner) = inner.upgrade() else { return };
                work(Self(inner)).await;
            }
        });
        self.0.maintenance.lock().push(task);
    }

    /// Begins nothing more by itself, such as a refresh ahead of time. What callers ask for is still done.
    pub fn begin_shutdown(&self) {
        self.0.stopping.send_replace(true);
    }

    /// Lets refreshes that are under way finish, and tells what was left after `grace`.
    pub async fn shutdown(&self, grace: Duration) -> Shutdown {
        self.begin_shutdown();
        let maintenance: Vec<_> = self.0.maintenance.lock().drain(..).collect();
        // Who still waits for a turn would wait for too long.
        self.0.clients.close();
        let finished = async {
            // What maintenance has begun, such as revoking a grant, is not left half-done.
            for task in maintenance {
                let _ = task.await;
            }
            let _ = self.0.delicate.subscribe().wait_for(|count| *count == 0).await;
            self.0.flights.finished().await;
            self.0.unsaved.finished().await;
            self.key_jobs_paused().await;
        };
        let _ = tokio::time::timeout(grace, finished).await;
        if !self.0.flights.is_empty() {
            // What is cut off now is taken up by another server at once, not when its lease lapses.
            if let Err(error) = self.storage().release_leases(&self.0.settings.server_id).await {
                tracing::warn!(%error, "cannot release the leases of refreshes that did not finish");
            }
        }
        if let Err(error) = self.sealer().flush_seal_counts().await {
            tracing::warn!(%error, "cannot write seal counts");
        }
        self.remove_replica().await;
        self.left()
    }

    /// What would be left if the process ended now.
    pub fn left(&self) -> Shutdown {
        Shutdown {
            unsaved: self.0.unsaved.names(Kept::InMemory),
            journaled: self.0.unsaved.names(Kept::InJournal),
            journal: self.journal().map(|journal| journal.path().to_owned()),
            under_way: self.0.flights.names(),
        }
    }

    /// What the calls of each provider came to lately, in the order of the names. Asks nobody.
    pub fn provider_health(&self) -> Vec<(ProviderName, ProviderHealth)> {
        let health = |provider: &Arc<Watched>| (provider.info().name.clone(), provider.health());
        let mut all: Vec<_> = self.0.watched.iter().map(health).collect();
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        all
    }

    /// Reads all access rules again; to be called after each change of one.
    ///
    /// # Errors
    /// `StorageUnavailable`: the rules in memory stay.
    pub async fn reload_rules(&self) -> Result<(), Error> {
        // One at a time: what was read earlier must not replace what was read later.
        let _one = self.0.reloading.lock().await;
        let rules = RuleBook::load(&*self.0.storage).await?;
        if !rules.is_same(&self.rules()) {
            self.0.rules.store(Arc::new(rules));
        }
        Ok(())
    }

    /// Drops a tenant with its tokens from memory; to be called after each change of one.
    pub fn forget_tenant(&self, tenant: &TenantId) {
        self.0.directory.forget(tenant);
    }

    /// Tells how many servers share the database: in an outage of it each keeps to its share of what a provider may be
    /// asked for.
    pub fn set_replicas(&self, replicas: u32) {
        self.0.replicas.store(replicas.max(1), Ordering::Relaxed);
    }

    /// How many servers share the database, as last known.
    pub(crate) fn replicas(&self) -> u32 {
        self.0.replicas.load(Ordering::Relaxed)
    }

    /// The storage.
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.0.storage
    }

    /// The provider of this name.
    pub fn provider(&self, name: &ProviderName) -> Option<&Arc<dyn Provider>> {
        self.0.providers.get(name)
    }

    /// The names of the configured providers, in order.
    pub fn provider_names(&self) -> Vec<ProviderName> {
        let mut names: Vec<_> = self.0.providers.keys().cloned().collect();
        names.sort();
        names
    }

    /// The clock.
    pub fn clock(&self) -> &dyn Clock {
        &*self.0.clock
    }

    /// The generator.
    pub fn rng(&self) -> &dyn Rng {
        &*self.0.rng
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// The metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// What seals and opens.
    pub fn sealer(&self) -> &Sealer {
        &self.0.sealer
    }

    /// How many connections are in memory, about.
    pub fn cached_connections(&self) -> u64 {
        self.0.directory.len()
    }

    pub(crate) fn key_work(&self) -> &KeyWork {
        &self.0.key_work
    }

    /// Returns when this server begins nothing more.
    pub(crate) async fn stopping(&self) {
        // An error would mean that the broker is gone, which this one holds.
        let _ = self.0.stopping.subscribe().wait_for(|stopping| *stopping).await;
    }

    /// Whether this server begins nothing more.
    pub(crate) fn is_stopping(&self) -> bool {
        *self.0.stopping.borrow()
    }

    pub(crate) fn now(&self) -> tokenward_types::Timestamp {
        self.0.clock.now()
    }

    pub(crate) fn directory(&self) -> &Directory {
        &self.0.directory
    }

    pub(crate) fn rules(&self) -> arc_swap::Guard<Arc<RuleBook>> {
        self.0.rules.load()
    }

    pub(crate) fn clients(&self) -> &Clients {
        &self.0.clients
    }

    pub(crate) fn flights(&self) -> &Flights {
        &self.0.flights
    }

    pub(crate) fn unsaved(&self) -> &Unsaved {
        &self.0.unsaved
    }

    pub(crate) fn timer(&self) -> &dyn Timer {
        &*self.0.timer
    }

    pub(crate) fn outage(&self) -> &Outage {
        &self.0.outage
    }

    pub(crate) fn journal(&self) -> Option<&Arc<Journal>> {
        self.0.journal.as_ref()
    }

    pub(crate) fn schedule(&self) -> &Schedule {
        &self.0.schedule
    }

    pub(crate) fn following(&self) -> &Following {
        &self.0.following
    }

    pub(crate) fn callers(&self) -> &Callers {
        &self.0.callers
    }

    pub(crate) fn checks(&self) -> &Checks {
        &self.0.checks
    }

    pub(crate) fn downgrade(&self) -> WeakBroker {
        WeakBroker(Arc::downgrade(&self.0))
    }

    pub(crate) fn reports(&self) -> &Reports {
        &self.0.reports
    }

    /// Runs a task that no caller can cancel, and that a shutdown waits for.
    pub(crate) async fn detached<T: Send + 'static>(
        &self,
        task: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        struct Counted(Broker);
        impl Drop for Counted {
            fn drop(&mut self) {
                self.0.0.delicate.send_modify(|count| *count -= 1);
            }
        }
        self.0.delicate.send_modify(|count| *count += 1);
        let counted = Counted(self.clone());
        let task = self.spawn(async move {
            let result = task.await;
            drop(counted);
            result
        });
        task.await.unwrap_or_else(|error| Err(Error::new(Reason::Internal, "internal error").internal(error)))
    }

    /// Runs a task that no caller can cancel.
    pub(crate) fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.0.runtime.spawn(task.in_current_span())
    }
}

impl BaseScopes for Broker {
    fn base_scopes(&self, provider: &ProviderName) -> Option<&Scopes> {
        self.provider(provider).map(|provider| &provider.info().base_scopes)
    }
}

/// The word for a state in metrics, logs and audit events.
pub(crate) fn state_name(state: ConnectionState) -> &'static str {
    match state {
        ConnectionState::Active => "active",
        ConnectionState::Suspect => "suspect",
        ConnectionState::ReauthRequired => "reauth_required",
        ConnectionState::Revoked => "revoked",
    }
}
