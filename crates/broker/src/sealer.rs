//! Seals and opens stored secrets: data keys are read, unwrapped and kept for a while.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::Mutex;
use quick_cache::sync::Cache;
use secrecy::SecretString;
use tokenward_crypto::{
    CryptoErrorKind, DataKey, DataKeyMaterial, KekStatus, KeyBinding, KeyEncryption, SealContext, WrappedKey,
    data_key_id,
};
use tokenward_storage::{DataKeyRecord, KekCheck, Storage, StorageErrorKind};
use tokenward_types::{Clock, Sealed, TenantId};

use crate::{Error, Reason};

pub use tokenward_crypto::INSTALLATION_SCOPE;

/// The scope of check records: no tenant can have this name.
const CHECK_SCOPE: &str = "_check";

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
}

/// Seals and opens.
pub struct Sealer {
    storage: Arc<dyn Storage>,
    backend: Arc<dyn KeyEncryption>,
    clock: Arc<dyn Clock>,
    installation: String,
    keys: Cache<String, Arc<ScopeKeys>>,
    /// Those of the installation, which are never evicted: the journal needs them while the database is away.
    installation_keys: Mutex<Option<Arc<ScopeKeys>>>,
    /// Seals that were made and are not counted in the database yet.
    uncounted: Mutex<HashMap<(String, i32), Arc<AtomicI64>>>,
    /// Counts what was forgotten, so that a reading that began before does not come back after.
    forgotten: Mutex<u64>,
}

impl Sealer {
    /// Checks that the backend has the keys that the database needs, and is ready to seal.
    ///
    /// # Errors
    /// `StoredDataDamaged` when a key is missing or is not the one that the database was encrypted with: names it.
    pub async fn start(
        storage: Arc<dyn Storage>,
        backend: Arc<dyn KeyEncryption>,
        clock: Arc<dyn Clock>,
        installation: String,
        max_cached_data_keys: u64,
    ) -> Result<Self, Error> {
        let sealer = Self {
            storage,
            backend,
            clock,
            installation,
            keys: Cache::new(usize::try_from(max_cached_data_keys).unwrap_or(usize::MAX)),
            installation_keys: Mutex::default(),
            uncounted: Mutex::default(),
            forgotten: Mutex::default(),
        };
        sealer.check_keys().await?;
        Ok(sealer)
    }

    async fn check_keys(&self) -> Result<(), Error> {
        let status = self.backend.status().await?;
        for (kek, count) in self.storage.count_data_keys().await? {
            if !status.available.contains(&kek) {
                return Err(Error::new(
                    Reason::StoredDataDamaged,
                    format!(
                        "{count} data keys of this database are wrapped by the encryption key {kek}, which is not there; \
                         there are: {}",
                        status.available.join(", ")
                    ),
                ));
            }
        }
        loop {
            let checks = self.storage.list_kek_checks().await?;
            self.open_checks(&status, &checks).await?;
            if checks.iter().any(|check| check.kek == status.newest) {
                return Ok(());
            }
            let wrapped = self
                .backend
                .wrap(&status.newest, &self.check_binding(), &DataKeyMaterial::generate())
                .await?;
            let check = KekCheck { kek: wrapped.kek, wrapped: wrapped.bytes, created_at: self.clock.now() };
            if self.storage.create_kek_check(&check, checks.len()).await? {
                return Ok(());
            }
            // Another server was faster: its record must open here too.
        }
    }

    fn check_binding(&self) -> KeyBinding<'_> {
        KeyBinding { installation: &self.installation, scope: CHECK_SCOPE, data_key: 0 }
    }

    /// Opens the records of keys that are there. One must be, if there are records at all: a key that no other server of this
    /// database has would seal what they cannot open.
    async fn open_checks(&self, status: &KekStatus, checks: &[KekCheck]) -> Result<(), Error> {
        if !checks.is_empty() && !checks.iter().any(|check| status.available.contains(&check.kek)) {
            let used: Vec<&str> = checks.iter().map(|check| &*check.kek).collect();
            return Err(Error::new(
                Reason::StoredDataDamaged,
                format!(
                    "this database is encrypted with other keys than those that are given: it uses {}, and there are: {}; \
                     give the key that its other servers use",
                    used.join(", "),
                    status.available.join(", ")
                ),
            ));
        }
        for check in checks.iter().filter(|check| status.available.contains(&check.kek)) {
            let wrapped = WrappedKey { kek: check.kek.clone(), bytes: check.wrapped.clone() };
            self.backend.unwrap(&self.check_binding(), &wrapped).await.map_err(|error| match error.kind() {
                CryptoErrorKind::Unavailable | CryptoErrorKind::Internal => Error::from(error),
                _ => Error::new(
                    Reason::StoredDataDamaged,
                    format!(
                        "the encryption key {} is not the one that this database was encrypted with: give the key that \
                         was used before",
                        check.kek
                    ),
                )
                .internal(error),
            })?;
        }
        Ok(())
    }

    /// Whether the encryption backend answers.
    ///
    /// # Errors
    /// `EncryptionUnavailable`.
    pub async fn check_health(&self) -> Result<(), Error> {
        self.backend.status().await?;
        Ok(())
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
    /// `StorageUnavailable` or `EncryptionUnavailable` while the scope's data key cannot be had.
    pub async fn seal(&self, place: Place<'_>, plaintext: &[u8]) -> Result<Sealed, Error> {
        let key = self.active_key(place.scope).await?;
        self.count_seal(place.scope, key.id());
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
        let id = data_key_id(sealed)?;
        let mut keys = self.scope_keys(place.scope).await?;
        if !keys.all.contains_key(&id) {
            keys = self.read_keys(place.scope).await?;
        }
        let key = keys.all.get(&id).ok_or_else(|| {
            Error::new(
                Reason::StoredDataDamaged,
                format!("a stored secret names the data key {id}, which is not there"),
            )
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
    }

    /// Forgets every unwrapped data key.
    pub fn forget_all(&self) {
        let mut forgotten = self.forgotten.lock();
        *forgotten += 1;
        self.keys.clear();
    }

    /// Writes the counts of seals that were made since the last time.
    ///
    /// # Errors
    /// `StorageUnavailable`; what was not written is kept for the next time.
    pub async fn flush_seal_counts(&self) -> Result<(), Error> {
        let counts: Vec<_> =
            self.uncounted.lock().iter().map(|(key, n)| (key.clone(), Arc::clone(n))).collect();
        for ((scope, id), count) in counts {
            let seals = count.swap(0, Ordering::SeqCst);
            if seals == 0 {
                self.uncounted.lock().remove(&(scope, id));
                continue;
            }
            if let Err(error) = self.storage.add_seals(&scope, id, seals).await {
                count.fetch_add(seals, Ordering::SeqCst);
                return Err(error.into());
            }
        }
        Ok(())
    }

    fn count_seal(&self, scope: &str, id: i32) {
        let mut uncounted = self.uncounted.lock();
        uncounted.entry((scope.to_owned(), id)).or_default().fetch_add(1, Ordering::SeqCst);
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

    async fn active_key(&self, scope: &str) -> Result<Arc<DataKey>, Error> {
        if let Some(active) = &self.scope_keys(scope).await?.active {
            return Ok(Arc::clone(active));
        }
        self.create_key(scope).await?;
        let keys = self.read_keys(scope).await?;
        keys.active.clone().ok_or_else(|| Error::new(Reason::StoredDataDamaged, "no data key is active"))
    }

    async fn create_key(&self, scope: &str) -> Result<(), Error> {
        let binding = KeyBinding { installation: &self.installation, scope, data_key: 1 };
        let kek = self.backend.status().await?.newest;
        let wrapped = self.backend.wrap(&kek, &binding, &DataKeyMaterial::generate()).await?;
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
            Err(error) if error.kind() == StorageErrorKind::AlreadyExists => {}
            Err(error) if error.kind() == StorageErrorKind::Conflict => {
                return Err(Error::not_found("tenant", scope).internal(error));
            }
            other => other?,
        }
        Ok(())
    }

    async fn scope_keys(&self, scope: &str) -> Result<Arc<ScopeKeys>, Error> {
        let known = match scope {
            INSTALLATION_SCOPE => self.installation_keys.lock().clone(),
            _ => self.keys.get(scope),
        };
        match known {
            Some(keys) => Ok(keys),
            None => self.read_keys(scope).await,
        }
    }

    async fn read_keys(&self, scope: &str) -> Result<Arc<ScopeKeys>, Error> {
        let reading = *self.forgotten.lock();
        let mut keys = ScopeKeys { active: None, all: HashMap::new() };
        for record in self.storage.list_data_keys(scope).await? {
            let binding = KeyBinding { installation: &self.installation, scope, data_key: record.id };
            let wrapped = WrappedKey { kek: record.kek, bytes: record.wrapped };
            let material = self.backend.unwrap(&binding, &wrapped).await?;
            let key = Arc::new(DataKey::new(record.id, &material));
            if record.active {
                keys.active = Some(Arc::clone(&key));
            }
            keys.all.insert(record.id, key);
        }
        let keys = Arc::new(keys);
        let forgotten = self.forgotten.lock();
        if scope == INSTALLATION_SCOPE {
            *self.installation_keys.lock() = Some(Arc::clone(&keys)).filter(|keys| keys.active.is_some());
        } else if keys.active.is_some() && *forgotten == reading {
            self.keys.insert(scope.to_owned(), Arc::clone(&keys));
        }
        drop(forgotten);
        Ok(keys)
    }
}
