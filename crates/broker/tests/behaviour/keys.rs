//! Keys that move between backends, a backend that is away, and data keys that made many seals.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokenward_broker::{Broker, Error, Place, Reason};
use tokenward_crypto::{
    Aead, CryptoError, CryptoErrorKind, DataKeyMaterial, KekStatus, KeyBinding, KeyEncryption, MAX_SEALS,
    WrappedKey,
};
use tokenward_storage::{KeyJob, KeyJobState, KeyJobStep};

use crate::world::{HUB, READ, World, actor, tenant};

/// What the backend says while it is away: which one, which key, and what helps.
const AWAY: &str = "other: key other at 10.0.0.7: no answer: start it";
/// What it says while it denies everything.
const DENIED: &str = "other: key other at 10.0.0.7: permission denied: allow it in the policy";

/// A backend that makes versions, and can be away, denying or broken.
#[derive(Debug, Default)]
struct Other {
    versions: AtomicU32,
    away: AtomicBool,
    denying: AtomicBool,
    forgetful: AtomicBool,
    /// How often it was asked for anything, in vain as well.
    calls: AtomicU32,
    /// The installations and scopes for which it was asked to wrap or to unwrap.
    contexts: Mutex<BTreeSet<(String, String)>>,
}

impl Other {
    fn new() -> Arc<Self> {
        Arc::new(Self { versions: AtomicU32::new(1), ..Self::default() })
    }

    fn name(version: u32) -> String {
        format!("other:{version}")
    }

    fn asked_for(&self, binding: &KeyBinding<'_>) {
        let context = (binding.installation.to_owned(), binding.scope.to_owned());
        self.contexts.lock().unwrap().insert(context);
    }

    fn key(&self, kek: &str) -> Result<Aead, CryptoError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        if self.away.load(Ordering::SeqCst) {
            return Err(CryptoError::new(CryptoErrorKind::Unavailable, AWAY));
        }
        if self.denying.load(Ordering::SeqCst) {
            return Err(CryptoError::new(CryptoErrorKind::Internal, DENIED));
        }
        let known = (1..=self.versions.load(Ordering::SeqCst)).find(|version| Self::name(*version) == kek);
        let version = known.ok_or_else(|| CryptoError::new(CryptoErrorKind::UnknownKey, kek.to_owned()))?;
        Ok(Aead::new(&DataKeyMaterial::from_bytes([u8::try_from(version).unwrap(); 32])))
    }
}

#[async_trait]
impl KeyEncryption for Other {
    fn kind(&self) -> &'static str {
        "other"
    }

    async fn status(&self) -> Result<KekStatus, CryptoError> {
        self.key(&Self::name(1))?;
        let versions = self.versions.load(Ordering::SeqCst);
        Ok(KekStatus { newest: Self::name(versions), available: (1..=versions).map(Self::name).collect() })
    }

    async fn create_version(&self) -> Result<String, CryptoError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        Ok(Self::name(self.versions.fetch_add(1, Ordering::SeqCst) + 1))
    }

    async fn wrap(
        &self,
        kek: &str,
        binding: &KeyBinding<'_>,
        key: &DataKeyMaterial,
    ) -> Result<WrappedKey, CryptoError> {
        self.asked_for(binding);
        let bytes = self.key(kek)?.seal(&[], &binding.encode(), key.expose());
        Ok(WrappedKey { kek: kek.to_owned(), bytes })
    }

    async fn unwrap(
        &self,
        binding: &KeyBinding<'_>,
        wrapped: &WrappedKey,
    ) -> Result<DataKeyMaterial, CryptoError> {
        self.asked_for(binding);
        let key = self.key(&wrapped.kek)?;
        if self.forgetful.load(Ordering::SeqCst) {
            return Ok(DataKeyMaterial::from_bytes([0; 32]));
        }
        let plain = key.open(&wrapped.bytes, &binding.encode())?;
        Ok(DataKeyMaterial::from_bytes(plain.as_slice().try_into().unwrap()))
    }
}

async fn end_of(broker: &Broker, job: KeyJob) -> KeyJob {
    once(broker, &job, |now| now.state != KeyJobState::Running).await
}

/// The job once it is as it should be.
async fn once(broker: &Broker, job: &KeyJob, is_so: impl Fn(&KeyJob) -> bool) -> KeyJob {
    let is_so = async {
        loop {
            let now = broker.get_key_job(&job.id).await.unwrap();
            if is_so(&now) {
                return now;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), is_so).await.expect("the job comes so far")
}

async fn keks(world: &World) -> Vec<(String, u64)> {
    world.storage.count_data_keys().await.unwrap()
}

/// A world whose keys have moved to the other backend.
async fn moved(other: &Arc<Other>) -> World {
    let mut world = World::start().await;
    world.connect("acme", HUB, &["oauth", READ]).await;
    world.restart_among(vec![Arc::clone(other) as Arc<dyn KeyEncryption>]).await;
    let job = world.broker.rotate_keys(&actor(), Some("other")).await.unwrap();
    let job = end_of(&world.broker, job).await;
    assert_eq!((job.state, job.step, job.skipped), (KeyJobState::Done, KeyJobStep::Working, 0), "{job:?}");
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_move_to_another_backend_and_back() {
    let other = Other::new();
    let mut world = moved(&other).await;
    assert_eq!(keks(&world).await, [("other:1".to_owned(), 2)]);
    world.restart_among(vec![Arc::clone(&other) as Arc<dyn KeyEncryption>]).await;
    world.token(&[READ]).await.unwrap();
    world.add_tenant("later").await;

    let job = world.broker.rotate_keys(&actor(), None).await.unwrap();
    assert_eq!(job.kek, "other:2", "a rotation stays where the keys are, and makes a version");
    end_of(&world.broker, job).await;
    let job = world.broker.rotate_keys(&actor(), Some("local")).await.unwrap();
    end_of(&world.broker, job).await;
    assert_eq!(keks(&world).await, [("local:1".to_owned(), 2)]);
    for kek in ["other:1", "other:2"] {
        world.broker.retire_kek(&actor(), kek).await.unwrap();
    }
    world.restart().await;
    world.token(&[READ]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_does_not_give_back_what_it_wrapped_gets_no_keys() {
    let other = Other::new();
    let mut world = World::start().await;
    world.restart_among(vec![Arc::clone(&other) as Arc<dyn KeyEncryption>]).await;
    other.forgetful.store(true, Ordering::SeqCst);
    let error = world.broker.rotate_keys(&actor(), Some("other")).await.unwrap_err();
    assert_eq!(error.reason, Reason::KeyNotReady);
    assert!(error.message.contains("other:1 cannot be used"), "{error}");
    assert!(keks(&world).await.iter().all(|(kek, _)| kek == "local:1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_is_asked_for_nothing_but_this_installation_also_on_trial() {
    let other = Other::new();
    let world = moved(&other).await;
    let installation = world.storage.installation_id("another").await.unwrap();
    assert_ne!(installation, "another", "the database has one already");
    let contexts = other.contexts.lock().unwrap().clone();
    let scopes = ["_check", "_installation", "_trial", "acme"];
    assert_eq!(contexts, scopes.map(|scope| (installation.clone(), scope.to_owned())).into());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_the_new_backend_does_not_start() {
    let world = moved(&Other::new()).await;
    let error = world.another(|_| {}).await.err().unwrap();
    assert_eq!(error.reason, Reason::StoredDataDamaged);
    assert!(error.message.contains("other:1"), "{error}");
    assert!(error.message.contains("give that key, or open its backend as [encryption.previous]"), "{error}");
}

fn place(tenant: &tokenward_types::TenantId) -> Place<'_> {
    Place::token(tenant, "con_x", "access_token", 1)
}

async fn seal(broker: &Broker) -> Result<(), Error> {
    broker.sealer().seal(place(&tenant("acme")), b"text").await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_backend_is_away_keys_in_memory_serve_until_they_expire() {
    let other = Other::new();
    let world = moved(&other).await;
    world.token(&[READ]).await.unwrap();
    seal(&world.broker).await.unwrap();
    let calls = || other.calls.load(Ordering::SeqCst);
    let before = calls();
    other.away.store(true, Ordering::SeqCst);
    for _ in 0..100 {
        world.token(&[READ]).await.unwrap();
        seal(&world.broker).await.unwrap();
    }
    assert_eq!(calls(), before, "neither asks the backend");
    world.clock.advance(Duration::from_secs(3599));
    seal(&world.broker).await.unwrap();
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(seal(&world.broker).await.unwrap_err().reason, Reason::EncryptionUnavailable);
    assert!(calls() > before, "a data key that is not in memory asks for it");
    other.away.store(false, Ordering::SeqCst);
    seal(&world.broker).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_key_that_made_many_seals_is_replaced_and_its_rows_still_open() {
    let mut world = World::start().await;
    let connection = world.connect("acme", HUB, &["oauth", READ]).await;
    world.storage.add_seals(&[("acme".to_owned(), 1, MAX_SEALS / 4 * 3)]).await.unwrap();
    world.restart().await;
    seal(&world.broker).await.unwrap();
    let keys = world.storage.list_data_keys("acme").await.unwrap();
    assert_eq!(keys.iter().map(|key| (key.id, key.active)).collect::<Vec<_>>(), [(2, true), (1, false)]);
    world.token(&[READ]).await.unwrap();
    let row = world.row("acme", &connection.id).await;
    assert_eq!(row.tokens.unwrap().access_token.data_key(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_key_that_made_all_its_seals_makes_no_more() {
    let other = Other::new();
    let mut world = moved(&other).await;
    world.storage.add_seals(&[("acme".to_owned(), 1, MAX_SEALS)]).await.unwrap();
    world.restart_among(vec![Arc::clone(&other) as Arc<dyn KeyEncryption>]).await;
    world.token(&[READ]).await.unwrap();
    other.away.store(true, Ordering::SeqCst);
    let error = seal(&world.broker).await.unwrap_err();
    assert_eq!(error.reason, Reason::KeyNotReady, "{error}");
    assert!(error.message.contains("all it may"), "{error}");
    other.away.store(false, Ordering::SeqCst);
    seal(&world.broker).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn seals_are_counted_over_restarts() {
    let mut world = World::start().await;
    world.connect("acme", HUB, &["oauth", READ]).await;
    let before = world.storage.list_data_keys("acme").await.unwrap()[0].seals;
    for _ in 0..3 {
        for _ in 0..5 {
            seal(&world.broker).await.unwrap();
        }
        world.restart().await;
    }
    let after = world.storage.list_data_keys("acme").await.unwrap()[0].seals;
    assert!(after >= before + 15, "{before} became {after}");
}

/// Each way in which the backend fails, with what it says and why a call fails then.
fn failures(other: &Other) -> [(&AtomicBool, &'static str, Reason); 2] {
    [(&other.away, AWAY, Reason::EncryptionUnavailable), (&other.denying, DENIED, Reason::Internal)]
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_are_told_what_the_backend_says_and_services_only_that_it_failed() {
    let other = Other::new();
    let mut world = moved(&other).await;
    world.restart_among(vec![Arc::clone(&other) as Arc<dyn KeyEncryption>]).await;
    for (fails, said, reason) in failures(&other) {
        fails.store(true, Ordering::SeqCst);
        let error = world.broker.rotate_keys(&actor(), None).await.unwrap_err();
        assert_eq!((error.reason, &*error.message), (reason, said));
        let error = world.token(&[READ]).await.unwrap_err();
        assert_eq!(error.reason, reason);
        assert!(!error.message.contains("other") && !error.message.contains("10.0.0.7"), "{error}");
        fails.store(false, Ordering::SeqCst);
    }
    world.token(&[READ]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_notes_what_the_backend_says_and_ends_once_it_is_back() {
    let other = Other::new();
    let world = moved(&other).await;
    for (fails, said, _) in failures(&other) {
        fails.store(true, Ordering::SeqCst);
        let job = world.broker.rotate_data_keys(&actor(), None).await.unwrap();
        let waiting = once(&world.broker, &job, |job| !job.message.is_empty()).await;
        assert_eq!((waiting.state, &*waiting.message), (KeyJobState::Running, said));
        fails.store(false, Ordering::SeqCst);
        let joined = world.broker.rotate_data_keys(&actor(), None).await.unwrap();
        assert_eq!(joined.id, job.id);
        assert_eq!(end_of(&world.broker, joined).await.state, KeyJobState::Done);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_start_says_what_the_backend_says() {
    let other = Other::new();
    let world = moved(&other).await;
    for (fails, said, reason) in failures(&other) {
        fails.store(true, Ordering::SeqCst);
        let further = vec![Arc::clone(&other) as Arc<dyn KeyEncryption>];
        let error = world.another_among(further).await.err().unwrap().for_operator();
        assert_eq!((error.reason, &*error.message), (reason, said));
        fails.store(false, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_listed_while_a_backend_does_not_answer() {
    let other = Other::new();
    let world = moved(&other).await;
    let listed = async || {
        let status = world.broker.key_status().await.unwrap();
        let keks = status.keks.into_iter();
        let keks: Vec<_> = keks.map(|kek| (kek.name, kek.available, kek.data_keys)).collect();
        let silent: Vec<_> = status.silent.into_iter().map(|one| (one.kind, one.problem)).collect();
        (keks, silent)
    };
    let all =
        |available| [("local:1".to_owned(), Some(true), 0), ("other:1".to_owned(), available, 2)].to_vec();
    assert_eq!(listed().await, (all(Some(true)), Vec::new()));
    for (fails, said, _) in failures(&other) {
        fails.store(true, Ordering::SeqCst);
        assert_eq!(listed().await, (all(None), vec![("other", said.to_owned())]));
        fails.store(false, Ordering::SeqCst);
    }
    assert_eq!(listed().await, (all(Some(true)), Vec::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_in_the_way_of_another_is_told_with_its_key_and_backend() {
    let other = Other::new();
    let mut world = World::start().await;
    world.restart_among(vec![Arc::clone(&other) as Arc<dyn KeyEncryption>]).await;
    // Without that backend, so that the rotation waits for it.
    let _without = world.another_server(|_| {}).await;
    let job = world.broker.rotate_keys(&actor(), Some("other")).await.unwrap();
    let error = world.broker.rotate_keys(&actor(), Some("local")).await.unwrap_err();
    assert_eq!(error.reason, Reason::KeyNotReady);
    let expected = format!("the key other:1 of the backend other is running already, as job {}", job.id);
    assert!(error.message.contains(&expected), "{error}");
}
