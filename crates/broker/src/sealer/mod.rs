//! Seals and opens stored secrets: data keys are read, unwrapped and kept for a while.

mod backends;
mod fields;
mod start;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use quick_cache::sync::Cache;
use secrecy::SecretString;
use tokenward_crypto::{
    CryptoError, CryptoErrorKind, DataKey, DataKeyMaterial, KekStatus, KeyBinding, KeyEncryption, MAX_SEALS,
    SealContext, WrappedKey, data_key_id,
};
use tokenward_storage::{DataKeyRecord, SealCount, Storage, StorageErrorKind};
use tokenward_types::{Clock, Monotonic, Sealed, TenantId};

pub(crate) use self::backends::Backends;
pub(crate) use self::fields::{Former, OpenKeys, Reseal, name as field_name};
pub(crate) use self::start::active as active_of;
use crate::{Error, Reason};

pub use tokenward_crypto::INSTALLATION_SCOPE;

/// After how many seals a data key is replaced, well ahead of the most that it may make.
const REPLACE_AFTER: i64 = MAX_SEALS / 4 * 3;
/// How many counts of seals one transaction writes.
const COUNTS: usize = 500;
/// How long the keys of a scope are kept of which one does not open: it heals soon after the right key is back.
const DAMAGED_TTL: Duration = Duration::from_secs(10);
/// How often a data key is made anew when the key that wraps it was replaced meanwhile.
const MAX_TRIES: u32 = 3;

/// Where a sealed field stands: everything that its ciphertext is bound to.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// A tenant's identifier, or [`INSTALLATION_SCOPE`].
    pub scope: &'a str,
    /// The kind of record, such as `connection`.
    pub kind: &'a str,
    /// The record.
    pub record: &'a str,
    /// The field.
    pub field: &'a str,
    /// The attempt that produced it, for tokens.
    pub fence: Option<i64>,
}

impl<'a> Place<'a> {
    /// A token of a connection.
    pub fn token(tenant: &'a TenantId, connection: &'a str, field: &'a str, fence: i64) -> Self {
        Self { scope: tenant.as_str(), kind: "connection", record: connection, field, fence: Some(fence) }
    }
}

/// The unwrapped data keys of one scope.
struct ScopeKeys {
    active: Option<Arc<DataKey>>,
    all: HashMap<i32, Arc<DataKey>>,
    /// Those that do not open, and why.
    damaged: HashMap<i32, String>,
    /// How many seals the active one was known to have made when it was read.
    seals: i64,
    read_at: Monotonic,
}

/// What a sealer is made of.
pub struct SealerParts {
    /// Where data keys are stored.
    pub storage: Arc<dyn Storage>,
    /// What wraps them.
    pub backend: Arc<dyn KeyEncryption>,
    /// What else opens them, while they move from one backend to another.
    pub further: Vec<Arc<dyn KeyEncryption>>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The installation's identifier.
    pub installation: String,
    /// How many scopes' unwrapped data keys are kept.
    pub max_cached_data_keys: u64,
    /// For how long; the installation's own are kept as long as the process lives.
    pub data_key_ttl: Duration,
}

/// Seals and opens.
pub struct Sealer {
    storage: Arc<dyn Storage>,
    backends: Backends,
    clock: Arc<dyn Clock>,
    installation: String,
    ttl: Duration,
    keys: Cache<String, Arc<ScopeKeys>>,
    /// Those of the installation, which are never evicted: the journal needs them while the database is away.
    installation_keys: Mutex<Option<Arc<ScopeKeys>>>,
    /// They have to be read again as soon as that is possible.
    installation_stale: AtomicBool,
    /// Seals that were made and are not counted in the database yet.
    uncounted: Mutex<HashMap<(String, i32), i64>>,
    /// Counts what was forgotten, so that a reading that began before does not come back after.
    forgotten: Mutex<u64>,
    undecryptable: Counter,
}

impl Sealer {
    /// Checks that the backend has the keys that the database needs, and is ready to seal.
    ///
    /// # Errors
    /// `StoredDataDamaged` when a key is missing or is not the one that the database was encrypted with: names it.
    pub async fn start(parts: SealerParts) -> Result<Self, Error> {
        let sealer = Self {
            storage: parts.storage,
            backends: Backends::new(parts.backend, parts.further),
            clock: parts.clock,
            installation: parts.installation,
            ttl: parts.data_key_ttl,
            keys: Cache::new(usize::try_from(parts.max_cached_data_keys).unwrap_or(usize::MAX)),
            installation_keys: Mutex::default(),
            installation_stale: AtomicBool::new(false),
            uncounted: Mutex::default(),
            forgotten: Mutex::default(),
            undecryptable: Counter::default(),
        };
        sealer.check_keys().await?;
        Ok(sealer)
    }

    /// The installation's identifier, which everything is bound to.
    pub(crate) fn installation(&self) -> &str {
        &self.installation
    }

    /// The backends.
    pub(crate) fn backends(&self) -> &Backends {
        &self.backends
    }

    /// The key-encryption keys that this server can open, as of when a backend was last asked.
    pub(crate) fn available_keks(&self) -> Vec<String> {
        self.backends.available()
    }

    /// Asks the backends which keys they have.
    ///
    /// # Errors
    /// `EncryptionUnavailable`.
    pub(crate) async fn refresh_keks(&self) -> Result<KekStatus, Error> {
        Ok(self.backends.status().await?)
    }

    /// Counts what did not open.
    pub(crate) fn undecryptable(&self) -> &Counter {
        &self.undecryptable
    }

    /// Whether the encryption backend answers.
    ///
    /// # Errors
    /// `EncryptionUnavailable`.
    pub async fn check_health(&self) -> Result<(), Error> {
        match self.backends.status().await {
            // What is wrong with the set-up keeps nobody from the keys that are in memory.
            Err(error) if error.kind() == CryptoErrorKind::Internal => {
                tracing::warn!(%error, "the encryption backend cannot tell its keys");
                Ok(())
            }
            other => other.map(drop).map_err(Error::from),
        }
    }

    /// Has the installation's data key in memory from now on, so that sealing for the installation needs no database.
    ///
    /// # Errors
    /// As [`Sealer::seal`].
    pub async fn hold_installation_key(&self) -> Result<(), Error> {
        self.active_key(INSTALLATION_SCOPE).await.map(drop)
    }

    /// Seals a text for a place.
    ///
    /// # Errors
    /// `StorageUnavailable` or `EncryptionUnavailable` while the scope's data key cannot be had; `KeyNotReady` when it has made
    /// as many seals as it may, and another one cannot be made.
    pub async fn seal(&self, place: Place<'_>, plaintext: &[u8]) -> Result<Sealed, Error> {
        let (mut key, known) = self.active_key(place.scope).await?;
        let made = known.saturating_add(self.count_seal(place.scope, key.id()));
        if made >= REPLACE_AFTER {
            match self.replace_key(place.scope, key.id()).await {
                Ok(()) => (key, _) = self.active_key(place.scope).await?,
                Err(error) if made >= MAX_SEALS => {
                    let message = format!(
                        "data key {} of {} has made {MAX_SEALS} seals, which is all it may, and no other can be made",
                        key.id(),
                        place.scope
                    );
                    return Err(Error::new(Reason::KeyNotReady, message).internal(error));
                }
                Err(error) => {
                    tracing::warn!(scope = place.scope, %error, "a data key that made many seals cannot be replaced yet");
                }
            }
        }
        Ok(key.seal(&self.context(place), plaintext))
    }

    /// Opens what was sealed for the same place.
    ///
    /// # Errors
    /// `StoredDataDamaged` when it was altered, moved or replaced by an older ciphertext, or its key is missing.
    pub async fn open(
        &self,
        place: Place<'_>,
        sealed: &Sealed,
    ) -> Result<zeroize::Zeroizing<Vec<u8>>, Error> {
        let opened = self.try_open(place, sealed).await;
        if opened.as_ref().is_err_and(|error| error.reason == Reason::StoredDataDamaged) {
            self.undecryptable.inc();
        }
        opened
    }

    async fn try_open(
        &self,
        place: Place<'_>,
        sealed: &Sealed,
    ) -> Result<zeroize::Zeroizing<Vec<u8>>, Error> {
        let id = data_key_id(sealed)?;
        let mut keys = self.scope_keys(place.scope).await?;
        if !keys.all.contains_key(&id) && !keys.damaged.contains_key(&id) {
            keys = self.read_keys(place.scope).await?;
        }
        let damaged = |detail: &str| {
            let message = "a stored secret does not decrypt: it was altered, moved, or its key is missing";
            Error::new(Reason::StoredDataDamaged, message).internal(detail.to_owned())
        };
        let key = keys.all.get(&id).ok_or_else(|| match keys.damaged.get(&id) {
            Some(problem) => damaged(problem),
            None => damaged(&format!("it names the data key {id}, which is not there")),
        })?;
        Ok(key.open(&self.context(place), sealed)?)
    }

    /// Opens a sealed text.
    ///
    /// # Errors
    /// As [`Sealer::open`].
    pub async fn open_text(&self, place: Place<'_>, sealed: &Sealed) -> Result<SecretString, Error> {
        let bytes = self.open(place, sealed).await?;
        let text = std::str::from_utf8(&bytes)
            .map_err(|_| Error::new(Reason::StoredDataDamaged, "a stored secret is not text"))?;
        Ok(SecretString::from(text))
    }

    /// Forgets a deleted tenant's keys.
    pub fn forget(&self, scope: &str) {
        let mut forgotten = self.forgotten.lock();
        *forgotten += 1;
        self.keys.remove(scope);
        drop(forgotten);
        if scope == INSTALLATION_SCOPE {
            self.installation_stale.store(true, Ordering::SeqCst);
        }
    }

    /// Forgets the keys of scopes from the first to the last.
    pub(crate) fn forget_between(&self, first: &str, last: &str) {
        let is_between = |scope: &str| (first..=last).contains(&scope);
        let mut forgotten = self.forgotten.lock();
        *forgotten += 1;
        self.keys.retain(|scope, _| !is_between(scope));
        if is_between(INSTALLATION_SCOPE) {
            self.installation_stale.store(true, Ordering::SeqCst);
        }
    }

    /// Forgets every unwrapped data key.
    pub fn forget_all(&self) {
        let mut forgotten = self.forgotten.lock();
        *forgotten += 1;
        self.keys.clear();
        self.installation_stale.store(true, Ordering::SeqCst);
    }

    /// Wipes data keys that were kept for long enough.
    pub(crate) fn drop_expired(&self) {
        let now = self.clock.monotonic();
        self.keys.retain(|_, keys| !self.is_expired(keys, now));
    }

    fn is_expired(&self, keys: &ScopeKeys, now: Monotonic) -> bool {
        let ttl = if keys.damaged.is_empty() { self.ttl } else { DAMAGED_TTL.min(self.ttl) };
        now.since(keys.read_at) >= ttl
    }

    /// Writes the counts of seals that were made since the last time.
    ///
    /// # Errors
    /// `StorageUnavailable`; what was not written is kept for the next time.
    pub async fn flush_seal_counts(&self) -> Result<(), Error> {
        let counts = std::mem::take(&mut *self.uncounted.lock());
        let counts: Vec<SealCount> =
            counts.into_iter().map(|((scope, id), seals)| (scope, id, seals)).collect();
        let mut pieces = counts.chunks(COUNTS);
        while let Some(piece) = pieces.next() {
            match self.storage.add_seals(piece).await {
                Ok(known) => {
                    // Others count too: what they made is known when the key is read again.
                    for (scope, ..) in known.iter().filter(|(.., total)| *total >= REPLACE_AFTER) {
                        self.forget(scope);
                    }
                }
                Err(error) => {
                    for (scope, id, seals) in piece.iter().chain(pieces.flatten()) {
                        self.add_uncounted(scope, *id, *seals);
                    }
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }

    /// Counts a seal; gives how many are not counted in the database yet.
    fn count_seal(&self, scope: &str, id: i32) -> i64 {
        self.add_uncounted(scope, id, 1)
    }

    fn add_uncounted(&self, scope: &str, id: i32, seals: i64) -> i64 {
        let mut uncounted = self.uncounted.lock();
        let count = uncounted.entry((scope.to_owned(), id)).or_default();
        *count += seals;
        *count
    }

    fn context<'a>(&'a self, place: Place<'a>) -> SealContext<'a> {
        SealContext {
            installation: &self.installation,
            scope: place.scope,
            kind: place.kind,
            record: place.record,
            field: place.field,
            fence: place.fence,
        }
    }

    /// The data key that seals, and how many seals it was known to have made.
    async fn active_key(&self, scope: &str) -> Result<(Arc<DataKey>, i64), Error> {
        let keys = self.scope_keys(scope).await?;
        if let Some(active) = &keys.active {
            return Ok((Arc::clone(active), keys.seals));
        }
        if keys.damaged.is_empty() {
            self.create_key(scope).await?;
        }
        let keys = self.read_keys(scope).await?;
        let none = || {
            let mut error = Error::new(Reason::StoredDataDamaged, "the data key that seals does not open");
            if let Some(problem) = keys.damaged.values().next() {
                error =
                    Error::from(CryptoError::new(CryptoErrorKind::Refused, problem)).saying(error.message);
            }
            error
        };
        Ok((keys.active.clone().ok_or_else(none)?, keys.seals))
    }

    /// The key-encryption key that wraps, by the database's word.
    pub(crate) async fn active_kek(&self) -> Result<String, Error> {
        let keks = self.storage.list_keks().await?;
        let none = || Error::new(Reason::Internal, "no encryption key is active");
        active_of(&keks).map(str::to_owned).ok_or_else(none)
    }

    async fn create_key(&self, scope: &str) -> Result<(), Error> {
        let mut tries = 1;
        loop {
            let kek = self.active_kek().await?;
            let binding = KeyBinding { installation: &self.installation, scope, data_key: 1 };
            let wrapped = self.backends.wrap(&kek, &binding, &DataKeyMaterial::generate()).await?;
            let record = DataKeyRecord {
                scope: scope.to_owned(),
                id: 1,
                kek: wrapped.kek,
                wrapped: wrapped.bytes,
                active: true,
                seals: 0,
                created_at: self.clock.now(),
            };
            match self.storage.create_data_key(&record).await {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == StorageErrorKind::AlreadyExists => return Ok(()),
                Err(error) if error.kind() == StorageErrorKind::Conflict => {
                    return Err(Error::not_found("tenant", scope).internal(error));
                }
                Err(error) if error.kind() == StorageErrorKind::KeyReplaced && tries < MAX_TRIES => {
                    tries += 1;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Makes another data key the one that seals, unless another one than `former` is already.
    ///
    /// # Errors
    /// `StorageUnavailable`, `EncryptionUnavailable`.
    pub(crate) async fn replace_key(&self, scope: &str, former: i32) -> Result<(), Error> {
        let stored = self.storage.list_data_keys(scope).await?;
        if stored.iter().any(|key| key.active && key.id == former)
            && let Some(newest) = stored.first()
        {
            let kek = self.active_kek().await?;
            let former = Former { scope: scope.to_owned(), id: newest.id, seals: 0 };
            let made = self.successors(&kek, vec![former]).await?;
            let made: Vec<_> = made.into_iter().map(|(record, _)| record).collect();
            self.storage.replace_data_keys(None, &made, &[]).await?;
        }
        self.forget(scope);
        self.read_keys(scope).await.map(drop)
    }

    async fn scope_keys(&self, scope: &str) -> Result<Arc<ScopeKeys>, Error> {
        if scope == INSTALLATION_SCOPE && self.installation_stale.swap(false, Ordering::SeqCst) {
            let read = self.read_keys(scope).await;
            let known = self.installation_keys.lock().clone();
            return match (read, known) {
                (Err(_), Some(known)) => {
                    self.installation_stale.store(true, Ordering::SeqCst);
                    Ok(known)
                }
                (read, _) => read,
            };
        }
        let known = match scope {
            INSTALLATION_SCOPE => self.installation_keys.lock().clone(),
            _ => self.keys.get(scope).filter(|keys| !self.is_expired(keys, self.clock.monotonic())),
        };
        match known {
            Some(keys) => Ok(keys),
            None => self.read_keys(scope).await,
        }
    }

    async fn read_keys(&self, scope: &str) -> Result<Arc<ScopeKeys>, Error> {
        let reading = *self.forgotten.lock();
        let read_at = self.clock.monotonic();
        let (mut all, mut damaged) = (HashMap::new(), HashMap::new());
        let (mut active, mut seals) = (None, 0);
        for record in self.storage.list_data_keys(scope).await? {
            let binding = KeyBinding { installation: &self.installation, scope, data_key: record.id };
            let wrapped = WrappedKey { kek: record.kek, bytes: record.wrapped };
            let material = match self.backends.unwrap(&binding, &wrapped).await {
                Ok(material) => material,
                Err(error) => match error.kind() {
                    CryptoErrorKind::Unavailable
                    | CryptoErrorKind::Internal
                    | CryptoErrorKind::Unsupported => return Err(error.into()),
                    _ => {
                        tracing::error!(scope, data_key = record.id, %error, "a data key does not open");
                        damaged.insert(record.id, error.to_string());
                        continue;
                    }
                },
            };
            let key = Arc::new(DataKey::new(record.id, &material));
            if record.active {
                active = Some(Arc::clone(&key));
                seals = record.seals;
            }
            all.insert(record.id, key);
        }
        let keys = Arc::new(ScopeKeys { active, all, damaged, seals, read_at });
        let forgotten = self.forgotten.lock();
        let is_usable = keys.active.is_some() && keys.damaged.is_empty();
        if scope == INSTALLATION_SCOPE {
            *self.installation_keys.lock() = Some(Arc::clone(&keys)).filter(|_| is_usable);
        } else if (is_usable || !keys.damaged.is_empty()) && *forgotten == reading {
            self.keys.insert(scope.to_owned(), Arc::clone(&keys));
        }
        drop(forgotten);
        Ok(keys)
    }
}
