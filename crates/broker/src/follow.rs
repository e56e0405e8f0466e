//! What other servers on the database changed: the change log is read twice a second, and what it names is dropped from memory or
//! read again. Memory answers only for so long after a look at the log.
//!
//! - As long as looks succeed, memory answers for [`FRESH_FOR`] after each. A process that stood still looks before it answers.
//! - When a look fails, the database is away: memory answers for `max_stale` after the last look that succeeded.
//! - The look that succeeds again applies the log before memory answers by its word.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use tokenward_storage::{
    Change, ChangeCursor, Connection, ConnectionState, PageRequest, Replica, StorageError, StorageErrorKind,
};
use tokenward_types::{ConnectionId, Monotonic, Principal, TenantId};
use tokio::sync::Mutex;

use crate::broker::Broker;
use crate::directory::Entry;
use crate::{Error, Reason};

/// How often the log is looked at.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long one look may take before the database counts as away.
const LOOK_PATIENCE: Duration = Duration::from_secs(1);
/// How many looks a caller waits for.
const MAX_LOOKS: usize = 3;
/// How long memory answers after a look that succeeded: within the two seconds in which a change holds everywhere, and longer
/// than it takes to notice that the database is away.
const FRESH_FOR: Duration = Duration::from_millis(1900);
/// How many tenants and connections of one reading are compared with their rows; of more, the tenants are read again when they are
/// asked for.
const MAX_COMPARED: usize = 50;

/// How often a server says that it lives.
pub(crate) const REPORT_EVERY: Duration = Duration::from_secs(2);
/// For how long it counts as living after that.
pub const LIVE_WITHIN: Duration = Duration::from_secs(10);
/// How long servers that are gone stay listed.
const FORGET_REPLICAS: Duration = Duration::from_hours(24);
/// How long the log is kept: much longer than any transaction is open.
const KEEP_CHANGES: Duration = Duration::from_hours(2);

/// Who is told what the log says about callers.
#[async_trait]
pub trait Callers: Send + Sync {
    /// These principals are blocked from now on, and no others.
    fn set_blocked(&self, blocked: Vec<Principal>);

    /// Whether the principal is blocked.
    fn is_blocked(&self, principal: &Principal) -> bool;

    /// The keys of the built-in issuer have to be read again.
    ///
    /// # Errors
    /// They cannot be read: it is repeated.
    async fn reload_issuer_keys(&self, broker: &Broker) -> Result<(), Error>;
}

/// How far the log was read, and how that went.
struct Reading {
    cursor: ChangeCursor,
    /// When the last look that succeeded began.
    looked_at: u64,
    /// Why the last look failed, if it did.
    failure: Option<Error>,
}

/// What follows the log.
pub(crate) struct Following {
    origin: Monotonic,
    /// Until when memory may answer, in microseconds since `origin`.
    fresh_until: AtomicU64,
    /// Counts looks that ended, so that those who waited for one do not look again.
    ended: AtomicU64,
    reading: Mutex<Reading>,
    callers: OnceLock<Arc<dyn Callers>>,
    reloading_blocked: Mutex<()>,
}

impl Following {
    /// Begins at the end of the log; whatever is read from the database later is as new as that.
    pub(crate) fn new(cursor: ChangeCursor, origin: Monotonic) -> Self {
        Self {
            origin,
            fresh_until: AtomicU64::new(micros(FRESH_FOR)),
            ended: AtomicU64::new(0),
            reading: Mutex::new(Reading { cursor, looked_at: 0, failure: None }),
            callers: OnceLock::new(),
            reloading_blocked: Mutex::default(),
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Broker {
    /// Tells `callers` what the log says about them from now on, beginning with what is stored.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn follow_callers(&self, callers: Arc<dyn Callers>) -> Result<(), Error> {
        // Of two, the first stays: a server has one authenticator.
        let callers = self.following().callers.get_or_init(|| callers);
        self.reload_blocked().await?;
        callers.reload_issuer_keys(self).await
    }

    /// Reads again who is blocked; to be called after each change of that.
    ///
    /// # Errors
    /// `StorageUnavailable`: who was blocked stays so.
    pub async fn reload_blocked(&self) -> Result<(), Error> {
        let Some(callers) = self.following().callers.get() else { return Ok(()) };
        // One at a time: what was read earlier must not replace what was read later.
        let _one = self.following().reloading_blocked.lock().await;
        let mut blocked = Vec::new();
        let mut page = PageRequest::first();
        loop {
            let answer = self.storage().list_blocked_principals(&page).await?;
            blocked.extend(answer.items.into_iter().map(|blocked| blocked.principal));
            match answer.next {
                Some(next) => page.after = Some(next),
                None => break,
            }
        }
        callers.set_blocked(blocked);
        Ok(())
    }

    /// How many servers work on the database, this one included, as of the last report.
    pub fn live_replicas(&self) -> u64 {
        self.replicas().into()
    }

    /// Whether memory may answer: a load and a comparison.
    pub(crate) fn is_fresh(&self) -> bool {
        self.monotonic_micros() < self.following().fresh_until.load(Ordering::Acquire)
    }

    fn monotonic_micros(&self) -> u64 {
        micros(self.clock().monotonic().since(self.following().origin))
    }

    /// Makes sure that what is in memory may be answered to `principal`: looks at the log where the last look is too old.
    ///
    /// # Errors
    /// `StateStale` when the database is away, and was for too long; `CallerBlocked` when the principal was blocked since its
    /// call was let in.
    pub(crate) async fn ensure_fresh(&self, principal: &Principal) -> Result<(), Error> {
        let mut looks = 0;
        while !self.is_fresh() {
            let outcome = self.look_unless_fresh().await;
            looks += 1;
            // A look that succeeded but began before this process stood still is too old already: the next one is not.
            if !self.is_fresh() && (outcome.is_err() || looks >= MAX_LOOKS) {
                return Err(outcome.err().map_or_else(stale, |error| stale().internal(error)));
            }
        }
        let callers = self.following().callers.get();
        if callers.is_some_and(|callers| callers.is_blocked(principal)) {
            return Err(Error::new(Reason::CallerBlocked, format!("{principal} is blocked")));
        }
        Ok(())
    }

    /// Looks at the log, or waits for the look that is under way.
    async fn look_unless_fresh(&self) -> Result<(), Error> {
        let following = self.following();
        let ended = following.ended.load(Ordering::Acquire);
        let mut reading = following.reading.lock().await;
        if self.is_fresh() {
            return Ok(());
        }
        match &reading.failure {
            Some(failure) if following.ended.load(Ordering::Acquire) != ended => Err(failure.clone()),
            _ => self.look_with(&mut reading).await,
        }
    }

    /// Looks at the log now.
    pub(crate) async fn look(&self) {
        let mut reading = self.following().reading.lock().await;
        // How it went is noted in the reading.
        let _ = self.look_with(&mut reading).await;
    }

    /// One look. When its future is dropped midway, the next look begins where this one did: applying twice does no harm.
    async fn look_with(&self, reading: &mut Reading) -> Result<(), Error> {
        let following = self.following();
        let began = self.monotonic_micros();
        let outcome = self.read_and_apply(reading).await;
        match &outcome {
            Ok(()) => {
                reading.looked_at = began;
                following.fresh_until.store(began.saturating_add(micros(FRESH_FOR)), Ordering::Release);
                if reading.failure.take().is_some() {
                    tracing::info!("the change log can be read again, and memory is up to date");
                    // A database that came back may be another one, or an older state of it.
                    let broker = self.clone();
                    self.spawn(async move { broker.compare_memory().await });
                }
            }
            Err(error) => {
                let until = reading.looked_at.saturating_add(micros(self.settings().max_stale));
                following.fresh_until.store(until, Ordering::Release);
                if reading.failure.is_none() {
                    let max_stale = self.settings().max_stale.as_secs();
                    tracing::warn!(
                        %error,
                        detail = error.log_detail(),
                        max_stale,
                        "the change log cannot be read; tokens in memory are given out for a while"
                    );
                }
                reading.failure = Some(error.clone());
            }
        }
        following.ended.fetch_add(1, Ordering::AcqRel);
        outcome
    }

    async fn read_and_apply(&self, reading: &mut Reading) -> Result<(), Error> {
        let read = self.storage().read_changes(&reading.cursor);
        let changes =
            tokio::time::timeout(LOOK_PATIENCE, read).await.map_err(|_| too_slow("change.read"))??;
        if changes.since.as_ref().is_none_or(|since| !since.is_empty()) {
            let apply = self.apply(changes.since);
            tokio::time::timeout(LOOK_PATIENCE, apply).await.map_err(|_| too_slow("change.apply"))??;
        }
        reading.cursor = changes.next;
        Ok(())
    }

    /// Makes memory follow what changed; `None` when that is not known.
    async fn apply(&self, changes: Option<Vec<Change>>) -> Result<(), Error> {
        let Some(changes) = changes else {
            tracing::warn!("the change log went on without this server; everything in memory is read again");
            self.forget_everything();
            self.reload_rules().await?;
            self.reload_blocked().await?;
            return self.reload_issuer_keys().await;
        };
        let (mut tenants, mut connections) = (HashSet::new(), HashSet::new());
        let (mut rules, mut principals, mut issuer_keys, mut keys) = (false, false, false, false);
        for change in changes {
            match change {
                Change::Tenant(tenant) => {
                    tenants.insert(tenant);
                }
                Change::Connection(tenant, connection) => {
                    connections.insert((tenant, connection));
                }
                Change::OAuthClient(client) => self.forget_oauth_client(&client),
                Change::AccessRules => rules = true,
                Change::Principals => principals = true,
                Change::IssuerKeys => issuer_keys = true,
                Change::Keys => keys = true,
                Change::DataKeys(first, last) => self.sealer().forget_between(&first, &last),
            }
        }
        if principals {
            self.reload_blocked().await?;
        }
        if rules {
            self.reload_rules().await?;
        }
        let compares = tenants.len() + connections.len() <= MAX_COMPARED;
        for tenant in tenants {
            if compares {
                self.follow_tenant(&tenant).await?;
            } else {
                self.drop_tenant(&tenant);
            }
        }
        for (tenant, connection) in connections {
            if compares {
                self.follow_connection(&tenant, &connection).await?;
            } else {
                self.forget_tenant(&tenant);
            }
        }
        if issuer_keys {
            self.reload_issuer_keys().await?;
        }
        if keys {
            self.sealer().forget_all();
            self.wake_key_jobs();
        }
        Ok(())
    }

    pub(crate) async fn reload_issuer_keys(&self) -> Result<(), Error> {
        match self.following().callers.get() {
            Some(callers) => callers.reload_issuer_keys(self).await,
            None => Ok(()),
        }
    }

    fn forget_everything(&self) {
        self.directory().forget_all();
        self.forget_oauth_clients();
        self.sealer().forget_all();
    }

    /// Drops a tenant with its data keys: one that is created again under a name gets others.
    pub(crate) fn drop_tenant(&self, tenant: &TenantId) {
        self.forget_tenant(tenant);
        self.sealer().forget(tenant.as_str());
    }

    /// Drops a tenant that is not stored as memory knows it. One that is, as after a change by this server itself, keeps what is
    /// known of its use.
    async fn follow_tenant(&self, tenant: &TenantId) -> Result<(), Error> {
        // Whoever is reading the tenant may have read it too early.
        self.directory().restart_readings();
        if let Some(known) = self.directory().get(tenant.as_str()) {
            match self.storage().get_tenant(tenant).await {
                Ok(Some(stored)) if known.shows(&stored) => return Ok(()),
                Ok(_) => {}
                Err(error) => {
                    // It may be suspended, and is known to have changed.
                    self.drop_tenant(tenant);
                    return Err(error.into());
                }
            }
        }
        self.drop_tenant(tenant);
        Ok(())
    }

    /// Shows a connection's state as it is stored; what has another grant than memory knows is read anew.
    pub(crate) async fn follow_connection(
        &self,
        tenant: &TenantId,
        connection: &ConnectionId,
    ) -> Result<(), Error> {
        // Whoever is reading the tenant may have read it too early.
        self.directory().restart_readings();
        let Some(known) = self.directory().get(tenant.as_str()) else { return Ok(()) };
        let read = self.storage().get_connection(tenant, connection).await;
        let row = read.inspect_err(|_| self.forget_tenant(tenant))?;
        let row = row.filter(|row| row.state != ConnectionState::Revoked);
        match (known.connection(connection.as_str()), row) {
            (Some(entry), Some(row)) if entry.consent_epoch == row.consent_epoch => show_state(entry, &row),
            (None, None) => {}
            _ => self.forget_tenant(tenant),
        }
        Ok(())
    }

    /// Says that this server lives, and learns how many others do.
    pub(crate) async fn report_replica(&self) -> Result<(), StorageError> {
        let settings = self.settings();
        let replica = Replica {
            id: settings.server_id.clone(),
            description: settings.server_description.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            keks: self.sealer().available_keks(),
        };
        let live = self.storage().report_replica(&replica, LIVE_WITHIN).await?;
        self.set_replicas(u32::try_from(live).unwrap_or(u32::MAX));
        self.metrics().replicas.set(i64::try_from(live).unwrap_or(i64::MAX));
        Ok(())
    }

    /// Takes this server off the list, if the database answers.
    pub(crate) async fn remove_replica(&self) {
        let removed = self.storage().remove_replica(&self.settings().server_id);
        if tokio::time::timeout(LOOK_PATIENCE, removed).await.is_ok_and(|removed| removed.is_ok()) {
            return;
        }
        tracing::warn!("cannot take this server off the list of servers; it counts for a few seconds more");
    }

    /// Removes what is old from the log and from the list of servers.
    pub(crate) async fn prune_log(&self) {
        if let Err(error) = self.storage().prune_changes(KEEP_CHANGES).await {
            tracing::warn!(%error, "cannot prune the change log");
        }
        if let Err(error) = self.storage().forget_replicas(FORGET_REPLICAS).await {
            tracing::warn!(%error, "cannot forget servers that are gone");
        }
    }
}

/// Another server changed a connection's state: unless memory knows a newer row, it is shown.
fn show_state(entry: &Entry, row: &Connection) {
    entry.update(|snapshot| {
        if snapshot.version >= row.version {
            return;
        }
        if snapshot.state != row.state {
            // Why it failed before says nothing about how it stands now.
            snapshot.failing = None;
        }
        snapshot.version = row.version;
        snapshot.state = row.state;
        snapshot.state_since = row.state_since;
    });
}

fn too_slow(operation: &'static str) -> Error {
    StorageError::new(StorageErrorKind::Unavailable, operation).detail("no answer in time").into()
}

fn stale() -> Error {
    Error::new(
        Reason::StateStale,
        "this server has been cut off from its database for so long that what it knows may be outdated",
    )
    .retry_after(Duration::from_secs(1))
}
