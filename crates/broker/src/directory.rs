//! Tenants, connections and living tokens in memory: what the warm path reads.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use tokenward_storage::{Connection, ConnectionState, Tenant, TenantState, Version};
use tokenward_types::{AccountId, ConnectionId, OAuthClientId, ProviderName, Scopes, TenantId, Timestamp};

use crate::Error;
use crate::token::LiveToken;

/// Why a connection cannot be refreshed at the moment.
#[derive(Clone, Debug)]
pub(crate) struct Failing {
    /// What callers are told when no token lives.
    pub error: Error,
    /// When the next try is allowed.
    pub until: Timestamp,
    /// How long the wait until then is; the next one depends on it.
    pub wait: Duration,
}

/// What is known of a connection at one moment; replaced as a whole.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    /// The version of the row that it shows; an older row never replaces a newer one.
    pub version: Version,
    pub state: ConnectionState,
    pub state_since: Timestamp,
    pub scopes: Scopes,
    pub live: Option<Arc<LiveToken>>,
    pub failing: Option<Arc<Failing>>,
}

/// A connection in memory.
#[derive(Debug)]
pub(crate) struct Entry {
    pub tenant: TenantId,
    pub id: ConnectionId,
    pub provider: ProviderName,
    pub oauth_client: Option<OAuthClientId>,
    pub account: AccountId,
    /// The consent that it shows; after another one the tenant is read again.
    pub consent_epoch: i64,
    snapshot: ArcSwap<Snapshot>,
    last_asked: AtomicI64,
}

impl Entry {
    /// What is known of it now.
    pub(crate) fn snapshot(&self) -> arc_swap::Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    /// Changes what is known of it; concurrent changes are applied one after the other.
    pub(crate) fn update(&self, change: impl Fn(&mut Snapshot)) {
        self.snapshot.rcu(|current| {
            let mut next = Snapshot::clone(current);
            change(&mut next);
            next
        });
    }

    /// Takes a token that a refresh brought while this entry was not in memory; `false` when it knows one as new.
    pub(crate) fn adopt(&self, live: &Arc<LiveToken>) -> bool {
        let is_news =
            |snapshot: &Snapshot| snapshot.live.as_ref().is_none_or(|known| known.issued_at < live.issued_at);
        let adopts = is_news(&self.snapshot());
        if adopts {
            self.update(|snapshot| {
                if is_news(snapshot) && snapshot.state != ConnectionState::Revoked {
                    snapshot.scopes = live.scopes.clone();
                    snapshot.live = Some(Arc::clone(live));
                }
            });
        }
        adopts
    }

    /// Notes that somebody asked for its token.
    pub(crate) fn touch(&self, now: Timestamp) {
        self.last_asked.store(now.as_micros(), Ordering::Relaxed);
    }

    /// When somebody last asked for its token; the epoch if nobody did since it was read.
    pub(crate) fn last_asked(&self) -> Timestamp {
        Timestamp::from_micros(self.last_asked.load(Ordering::Relaxed))
    }
}

/// A tenant with its connections in memory.
#[derive(Debug)]
pub(crate) struct TenantEntry {
    /// Tell the row that it was read from: a tenant that is created again under a name has version 1 again.
    version: Version,
    created_at: Timestamp,
    pub labels: Labels,
    pub state: TenantState,
    pub connections: Box<[Arc<Entry>]>,
}

impl TenantEntry {
    /// Whether it was read from this row as it is.
    pub(crate) fn shows(&self, row: &Tenant) -> bool {
        (self.version, self.created_at) == (row.version, row.created_at)
    }

    /// The connection with this identifier.
    pub(crate) fn connection(&self, id: &str) -> Option<&Arc<Entry>> {
        self.connections.iter().find(|entry| entry.id.as_str() == id)
    }
}

/// A tenant's labels: there are as many sets of them as there are plans and regions, not as there are tenants.
pub(crate) type Labels = Arc<BTreeMap<String, String>>;

/// Scope sets, labels, provider and client names that many connections share, kept once.
#[derive(Default)]
pub(crate) struct Interner {
    scopes: Mutex<HashSet<Scopes>>,
    labels: Mutex<HashSet<Labels>>,
    providers: Mutex<HashSet<ProviderName>>,
    clients: Mutex<HashSet<OAuthClientId>>,
}

/// Distinct values that are kept; further ones are simply not shared.
const MAX_INTERNED: usize = 10_000;

fn intern<T: Clone + Eq + std::hash::Hash>(set: &Mutex<HashSet<T>>, value: &T) -> T {
    let mut set = set.lock();
    if let Some(shared) = set.get(value) {
        return shared.clone();
    }
    if set.len() < MAX_INTERNED {
        set.insert(value.clone());
    }
    value.clone()
}

impl Interner {
    /// The shared copy of a scope set.
    pub(crate) fn scopes(&self, scopes: &Scopes) -> Scopes {
        intern(&self.scopes, scopes)
    }

    fn labels(&self, labels: BTreeMap<String, String>) -> Labels {
        intern(&self.labels, &Arc::new(labels))
    }

    fn provider(&self, provider: &ProviderName) -> ProviderName {
        intern(&self.providers, provider)
    }

    fn client(&self, client: &OAuthClientId) -> OAuthClientId {
        intern(&self.clients, client)
    }
}

/// A tenant weighs as much as it has connections.
#[derive(Clone, Copy)]
struct ByConnections;

impl Weighter<TenantId, Arc<TenantEntry>> for ByConnections {
    fn weight(&self, _: &TenantId, tenant: &Arc<TenantEntry>) -> u64 {
        tenant.connections.len().max(1) as u64
    }
}

/// The tenants in memory: bounded, those that are asked for the least go first.
pub(crate) struct Directory {
    tenants: Cache<TenantId, Arc<TenantEntry>, ByConnections>,
    pub interner: Interner,
    /// Counts what was forgotten, so that a reading that began before does not come back after.
    forgotten: Mutex<u64>,
}

impl Directory {
    /// A directory for so many connections.
    pub(crate) fn new(max_connections: u64) -> Self {
        let most_tenants = usize::try_from(max_connections).unwrap_or(usize::MAX);
        let tenants = Cache::with_weighter(most_tenants, max_connections, ByConnections);
        Self { tenants, interner: Interner::default(), forgotten: Mutex::new(0) }
    }

    /// The tenant, if it is in memory.
    pub(crate) fn get(&self, tenant: &str) -> Option<Arc<TenantEntry>> {
        self.tenants.get(tenant)
    }

    /// The connection, if it is in memory.
    pub(crate) fn connection(&self, tenant: &TenantId, connection: &ConnectionId) -> Option<Arc<Entry>> {
        self.get(tenant.as_str())?.connection(connection.as_str()).cloned()
    }

    /// A row's names, as memory has them already: a token in memory holds them too.
    pub(crate) fn names(&self, row: &Connection) -> (ConnectionId, AccountId, ProviderName) {
        let known = self.connection(&row.tenant, &row.id).filter(|entry| entry.account == row.account);
        let (id, account) =
            known.as_ref().map_or((&row.id, &row.account), |entry| (&entry.id, &entry.account));
        (id.clone(), account.clone(), self.interner.provider(&row.provider))
    }

    /// To be taken before a tenant is read from storage, and given to [`Directory::insert`].
    pub(crate) fn reading(&self) -> u64 {
        *self.forgotten.lock()
    }

    /// Puts a tenant into memory as it was read. If anything was forgotten since `reading`, what was read may be stale:
    /// `None`, read again.
    pub(crate) fn insert(
        &self,
        reading: u64,
        tenant: Tenant,
        connections: &[Connection],
    ) -> Option<Arc<TenantEntry>> {
        let entries = connections.iter().map(|connection| Arc::new(self.entry(&tenant.id, connection)));
        let fresh = Arc::new(TenantEntry {
            connections: entries.collect(),
            version: tenant.version,
            created_at: tenant.created_at,
            labels: self.interner.labels(tenant.labels),
            state: tenant.state,
        });
        let forgotten = self.forgotten.lock();
        if *forgotten != reading {
            return None;
        }
        // Of two readers at once, the first one's entries stay: tokens may hang on them already.
        let entry = self.tenants.get_or_insert_with(&tenant.id, || Ok::<_, Infallible>(Arc::clone(&fresh)));
        Some(entry.unwrap_or(fresh))
    }

    fn entry(&self, tenant: &TenantId, connection: &Connection) -> Entry {
        Entry {
            tenant: tenant.clone(),
            id: connection.id.clone(),
            provider: self.interner.provider(&connection.provider),
            oauth_client: connection.oauth_client.as_ref().map(|client| self.interner.client(client)),
            account: connection.account.clone(),
            consent_epoch: connection.consent_epoch,
            snapshot: ArcSwap::from_pointee(Snapshot {
                version: connection.version,
                state: connection.state,
                state_since: connection.state_since,
                scopes: connection
                    .tokens
                    .as_ref()
                    .map(|tokens| self.interner.scopes(&tokens.scopes))
                    .unwrap_or_default(),
                live: None,
                failing: None,
            }),
            last_asked: AtomicI64::new(0),
        }
    }

    /// Drops a tenant; the next request reads it again.
    pub(crate) fn forget(&self, tenant: &TenantId) {
        let mut forgotten = self.forgotten.lock();
        *forgotten += 1;
        self.tenants.remove(tenant);
    }

    /// Drops all tenants.
    pub(crate) fn forget_all(&self) {
        let mut forgotten = self.forgotten.lock();
        *forgotten += 1;
        self.tenants.clear();
    }

    /// Has readings that are under way begin again: what they read may be stale.
    pub(crate) fn restart_readings(&self) {
        *self.forgotten.lock() += 1;
    }

    /// Every tenant in memory; which ones were asked for lately does not change by this.
    pub(crate) fn all(&self) -> HashMap<TenantId, Arc<TenantEntry>> {
        self.tenants.iter().collect()
    }

    /// Lets the connections of a client be tried again at once: an admin mended it.
    pub(crate) fn forget_failures(&self, client: &OAuthClientId) {
        for (_, tenant) in self.tenants.iter() {
            for entry in tenant.connections.iter().filter(|entry| entry.oauth_client.as_ref() == Some(client))
            {
                if entry.snapshot().failing.is_some() {
                    entry.update(|snapshot| snapshot.failing = None);
                }
            }
        }
    }

    /// How many connections are in memory, about.
    pub(crate) fn len(&self) -> u64 {
        self.tenants.weight()
    }
}
