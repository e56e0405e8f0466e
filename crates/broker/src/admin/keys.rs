//! What admins do with keys. Work that takes long becomes a job, which servers go on with by themselves.

use std::collections::BTreeMap;

use tokenward_crypto::{CryptoErrorKind, DataKeyMaterial, KeyBinding};
use tokenward_storage::{
    DataKeyState, Kek, KekState, KeyFinding, KeyJob, KeyJobKind, NewKeyJob, Page, PageRequest, RetireOutcome,
};
use tokenward_types::{TenantId, generate_suffix};

use super::audited;
use crate::audit::Actor;
use crate::broker::Broker;
use crate::follow::LIVE_WITHIN;
use crate::{Error, Reason};

/// The scope under which a backend is tried out: no tenant can have this name.
const TRIAL_SCOPE: &str = "_trial";

/// A key-encryption key, and what it is needed for.
#[derive(Clone, Debug)]
pub struct KekInfo {
    /// The key as the database knows it; one that only a backend knows is not there.
    pub known: Option<Kek>,
    /// Its name.
    pub name: String,
    /// Whether this server can open what it wrapped; `None` where its backend does not say.
    pub available: Option<bool>,
    /// How many data keys it wraps.
    pub data_keys: u64,
}

/// All that is known of key-encryption keys.
#[derive(Clone, Debug)]
pub struct KeyStatus {
    /// The keys, in order of their names.
    pub keks: Vec<KekInfo>,
    /// The backends that do not say which keys they have.
    pub silent: Vec<SilentBackend>,
}

/// A backend that does not say which keys it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SilentBackend {
    /// Its kind.
    pub kind: &'static str,
    /// What is wrong, and what helps.
    pub problem: String,
}

impl Broker {
    /// Every key-encryption key that the database or a backend knows, in order of the names. Where a backend does not answer,
    /// that is said, and what the database knows remains.
    ///
    /// # Errors
    /// `StorageUnavailable`.
    pub async fn key_status(&self) -> Result<KeyStatus, Error> {
        let survey = self.sealer().backends().survey().await;
        let mut counts: BTreeMap<String, u64> = self.storage().count_data_keys().await?.into_iter().collect();
        let mut all = BTreeMap::new();
        for kek in self.storage().list_keks().await? {
            all.insert(kek.kek.clone(), Some(kek));
        }
        for name in survey.status.available.iter().chain(counts.keys()) {
            all.entry(name.clone()).or_insert(None);
        }
        let info = |(name, known): (String, Option<Kek>)| KekInfo {
            available: survey.is_available(&name),
            data_keys: counts.remove(&name).unwrap_or_default(),
            known,
            name,
        };
        let keks = all.into_iter().map(info).collect();
        let silent = survey.silent.into_iter();
        let silent = silent.map(|(kind, error)| SilentBackend { kind, problem: error.to_string() });
        Ok(KeyStatus { keks, silent: silent.collect() })
    }

    /// One page of all data keys, each with the number of stored fields that it sealed.
    ///
    /// # Errors
    /// `StorageUnavailable`.
    pub async fn list_data_keys(&self, page: &PageRequest) -> Result<Page<(DataKeyState, u64)>, Error> {
        let keys = self.storage().list_data_key_states(page).await?;
        let mut scopes: Vec<String> = keys.items.iter().map(|key| key.scope.clone()).collect();
        scopes.dedup();
        let counted = self.storage().count_sealed(Some(&scopes)).await?;
        let counts: BTreeMap<(String, i32), u64> =
            counted.into_iter().map(|(scope, id, fields)| ((scope, id), fields)).collect();
        let count = |key: DataKeyState| {
            let fields = counts.get(&(key.scope.clone(), key.id)).copied().unwrap_or_default();
            (key, fields)
        };
        Ok(Page { items: keys.items.into_iter().map(count).collect(), next: keys.next })
    }

    /// Begins to rotate: the newest key-encryption key of a backend, a new one where the backend makes them, becomes the
    /// active one, and wraps every data key. `to` names another backend than that of the active key, by its kind. Joins a
    /// rotation to the same key that is running.
    ///
    /// # Errors
    /// `KeyNotReady` when there is no newer key and only an operator can make one, when the backend is not configured or does
    /// not give back what it wrapped, or when another job is in the way.
    pub async fn rotate_keys(&self, actor: &Actor, to: Option<&str>) -> Result<KeyJob, Error> {
        let outcome = self.try_rotate(actor, to).await.map_err(Error::for_operator);
        audited(actor, "key.rotate", to.unwrap_or_default(), outcome)
    }

    async fn try_rotate(&self, actor: &Actor, to: Option<&str>) -> Result<KeyJob, Error> {
        // Before anything is made: a second call must not make a second version.
        let running = self.storage().running_key_jobs().await?;
        if let Some(job) = running.iter().find(|job| job.kind == KeyJobKind::Rotate) {
            let belongs = |kind: &str| job.kek.split_once(':').is_some_and(|(of, _)| of == kind);
            return if to.is_none_or(belongs) { Ok(job.clone()) } else { Err(in_the_way(job)) };
        }
        if let Some(job) = running.iter().find(|job| job.kind == KeyJobKind::RotateData) {
            return Err(in_the_way(job));
        }
        let active = self.sealer().active_kek().await?;
        let backends = self.sealer().backends();
        let backend = match to {
            Some(kind) => backends.of_kind(kind).ok_or_else(|| {
                let kinds = backends.kinds().join(", ");
                Error::new(
                    Reason::KeyNotReady,
                    format!(
                        "no encryption backend of kind {kind} is open, only {kinds}: configure it as [encryption.next] on every \
                         server, and restart them"
                    ),
                )
            })?,
            None => backends.of_kek(&active).ok_or_else(|| {
                let message = format!(
                    "the backend of the active key {active} is not open: configure it as [encryption.previous] on every server, \
                     and restart them"
                );
                Error::new(Reason::KeyNotReady, message)
            })?,
        };
        let newest = backend.status().await?.newest;
        let kek = if newest == active || self.is_retired(&newest).await? {
            match backend.create_version().await {
                Ok(created) => created,
                Err(error) if error.kind() == CryptoErrorKind::Unsupported => {
                    let message = format!(
                        "{newest} is the newest key, and no rotation can make it the active one: {error}"
                    );
                    return Err(Error::new(Reason::KeyNotReady, message));
                }
                Err(error) => return Err(error.into()),
            }
        } else {
            newest
        };
        self.try_out(&kek).await?;
        self.storage().note_kek(&kek).await?;
        // So that nobody waits for this server if it ends right after the job began.
        self.sealer().refresh_keks().await?;
        self.report_replica().await?;
        self.begin_job(actor, KeyJobKind::Rotate, kek, "").await
    }

    async fn is_retired(&self, kek: &str) -> Result<bool, Error> {
        let known = self.storage().list_keks().await?;
        Ok(known.iter().any(|known| known.kek == kek && known.state == KekState::Retired))
    }

    /// A key that does not give back what it wrapped must never be the only one.
    async fn try_out(&self, kek: &str) -> Result<(), Error> {
        // A policy may allow nothing but what is bound to this installation.
        let installation = self.sealer().installation();
        let binding = KeyBinding { installation, scope: TRIAL_SCOPE, data_key: 1 };
        let key = DataKeyMaterial::generate();
        let backends = self.sealer().backends();
        let outcome = async {
            let wrapped = backends.wrap(kek, &binding, &key).await?;
            backends.unwrap(&binding, &wrapped).await
        };
        let not_ready = |detail: String| {
            Error::new(Reason::KeyNotReady, format!("{kek} cannot be used: a trial failed: {detail}"))
        };
        match outcome.await {
            Ok(back) if tokenward_types::constant_time_eq(back.expose(), key.expose()) => Ok(()),
            Ok(_) => Err(not_ready("another key came back than was wrapped".to_owned())),
            Err(error) => Err(not_ready(error.to_string())),
        }
    }

    /// Begins to make new data keys, of one tenant or of all and the installation, and to seal every field anew. Joins such a
    /// job for the same that is running.
    ///
    /// # Errors
    /// `KeyNotReady` when another job is in the way; `NotFound` when there is no such tenant.
    pub async fn rotate_data_keys(&self, actor: &Actor, tenant: Option<&TenantId>) -> Result<KeyJob, Error> {
        let outcome = self.begin_data_job(actor, KeyJobKind::RotateData, tenant).await;
        audited(actor, "key.rotate_data", tenant.map_or("", |tenant| tenant.as_str()), outcome)
    }

    /// Begins to open every stored field, of one tenant or of all and the installation. Joins such a job that is running.
    ///
    /// # Errors
    /// `KeyNotReady` when one for another tenant is running; `NotFound` when there is no such tenant.
    pub async fn verify_keys(&self, actor: &Actor, tenant: Option<&TenantId>) -> Result<KeyJob, Error> {
        let outcome = self.begin_data_job(actor, KeyJobKind::Verify, tenant).await;
        audited(actor, "key.verify", tenant.map_or("", |tenant| tenant.as_str()), outcome)
    }

    async fn begin_data_job(
        &self,
        actor: &Actor,
        kind: KeyJobKind,
        tenant: Option<&TenantId>,
    ) -> Result<KeyJob, Error> {
        if let Some(tenant) = tenant {
            self.get_tenant(tenant).await?;
        }
        self.begin_job(actor, kind, String::new(), tenant.map_or("", |tenant| tenant.as_str())).await
    }

    async fn begin_job(
        &self,
        actor: &Actor,
        kind: KeyJobKind,
        kek: String,
        scope: &str,
    ) -> Result<KeyJob, Error> {
        self.refuse_beside_older_servers().await?;
        let new = NewKeyJob {
            id: format!("job_{}", generate_suffix(self.clock(), self.rng())),
            kind,
            kek,
            scope: scope.to_owned(),
            created_by: actor.principal.to_string(),
        };
        let (job, _) = self.storage().create_key_job(&new).await?;
        if job.kind != new.kind || job.kek != new.kek || job.scope != new.scope {
            return Err(in_the_way(&job));
        }
        self.wake_key_jobs();
        Ok(job)
    }

    /// A server of the version before knows neither jobs nor what they write to the change log.
    async fn refuse_beside_older_servers(&self) -> Result<(), Error> {
        let live = self.storage().live_replicas(LIVE_WITHIN).await?;
        let older: Vec<_> = live
            .iter()
            .filter(|live| live.replica.keks.is_empty())
            .map(|live| &*live.replica.description)
            .collect();
        if older.is_empty() {
            return Ok(());
        }
        let message = format!(
            "these servers are of an older version, and have to be updated first: {}",
            older.join(", ")
        );
        Err(Error::new(Reason::KeyNotReady, message))
    }

    /// Retires a key-encryption key that nothing uses: from then on it can be destroyed.
    ///
    /// # Errors
    /// `InUse`, which says what uses it; `NotFound`.
    pub async fn retire_kek(&self, actor: &Actor, kek: &str) -> Result<(), Error> {
        audited(actor, "key.retire", kek, self.try_retire(kek).await)
    }

    async fn try_retire(&self, kek: &str) -> Result<(), Error> {
        match self.storage().retire_kek(kek).await? {
            RetireOutcome::Retired => Ok(()),
            RetireOutcome::Unknown => Err(Error::not_found("encryption key", kek)),
            RetireOutcome::InUse { active, data_keys, job } => {
                let mut uses = Vec::new();
                if active {
                    uses.push("it is the active key: rotate first".to_owned());
                }
                if data_keys > 0 {
                    uses.push(format!("it wraps {data_keys} data keys"));
                }
                if let Some(job) = job {
                    uses.push(format!("job {job} makes it the active key"));
                }
                let message = format!("{kek} cannot be retired: {}", uses.join("; "));
                Err(Error::new(Reason::InUse, message).with("data_keys", data_keys.to_string()))
            }
        }
    }

    /// One job.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn get_key_job(&self, id: &str) -> Result<KeyJob, Error> {
        self.storage().get_key_job(id).await?.ok_or_else(|| Error::not_found("key job", id))
    }

    /// One page of all jobs, in order of their identifiers, which is that of their beginnings.
    ///
    /// # Errors
    /// `StorageUnavailable`.
    pub async fn list_key_jobs(&self, page: &PageRequest) -> Result<Page<KeyJob>, Error> {
        Ok(self.storage().list_key_jobs(page).await?)
    }

    /// What a job could not open, at most `limit`.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn list_key_findings(&self, id: &str, limit: u32) -> Result<Vec<KeyFinding>, Error> {
        self.get_key_job(id).await?;
        Ok(self.storage().list_key_findings(id, limit).await?)
    }
}

fn in_the_way(job: &KeyJob) -> Error {
    let kind = match job.kind {
        KeyJobKind::Rotate => {
            let backend = job.kek.split_once(':').map_or("", |(backend, _)| backend);
            format!("a rotation to the key {} of the backend {backend}", job.kek)
        }
        KeyJobKind::RotateData => "a rotation of data keys".to_owned(),
        KeyJobKind::Verify => "a verification".to_owned(),
    };
    Error::new(Reason::KeyNotReady, format!("{kind} is running already, as job {}: wait for its end", job.id))
        .with("job_id", job.id.clone())
}
