//! Crashes in the midst of jobs: every row opens after each, and the job comes to its end.

use std::time::Duration;

use tokenward_api::admin::v1::key_job::State;
use tokenward_api::admin::v1::{
    GetKeyJobRequest, KeyJob, RotateDataKeysRequest, RotateEncryptionKeyRequest, VerifyStoredSecretsRequest,
};
use tokenward_tests::{Database, World, parts};

use crate::migration::{Bao, configure, keyring, with};
use crate::world::{add_version, assert_everything_opens, end_of, tenant, with_tenants};

const CRASHES: u32 = 50;
const TENANTS: u64 = 40;
/// The longest time from the beginning of a job to its crash: jobs of this size take about as long.
const LATEST: u64 = 60_000;

/// A seeded generator (splitmix64), so that a run can be repeated.
struct Moments(u64);

impl Moments {
    fn new(name: &str) -> Self {
        let given = std::env::var("TOKENWARD_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| u64::from(std::process::id()) << 20 | u64::from(CRASHES));
        eprintln!("{name}: TOKENWARD_TEST_SEED={seed}");
        Self(seed)
    }

    fn next(&mut self) -> Duration {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Duration::from_micros((z ^ (z >> 31)) % LATEST)
    }
}

/// Crashes the server at a moment of a job that was just begun, starts it again, and waits for the job's end.
async fn crash_and_finish(world: &mut World, moments: &mut Moments, job: &str) -> bool {
    tokio::time::sleep(moments.next()).await;
    world.take_server().crash().await;
    world.restart().await;
    let request = GetKeyJobRequest { key_job_id: job.to_owned() };
    let after_start = world.admin().keys().get_key_job(request).await.unwrap().into_inner();
    let was_over = after_start.finish_time.is_some();
    assert_everything_opens(world).await;
    let done = end_of(world, job).await;
    assert_eq!((done.state(), done.skipped_count), (State::Done, 0), "{done:?}");
    assert_everything_opens(world).await;
    was_over
}

async fn all_tokens(world: &World) {
    for number in 0..TENANTS {
        world.get_token(&tenant(number)).await.unwrap();
    }
}

/// Has a crash meet each of fifty jobs, and ends them all.
async fn jobs_survive_crashes(mut world: World, name: &str, begin: impl AsyncFn(&World, u32) -> KeyJob) {
    let mut moments = Moments::new(name);
    let mut over = 0;
    for number in 0..CRASHES {
        let job = begin(&world, number).await;
        over += u32::from(crash_and_finish(&mut world, &mut moments, &job.key_job_id).await);
    }
    all_tokens(&world).await;
    eprintln!("{over} of {CRASHES} jobs were over when the server was killed, or at once after its start");
    assert!(over < CRASHES, "no crash met a job at work");
}

async fn rotate(world: &World, to: &str) -> KeyJob {
    let request = RotateEncryptionKeyRequest { backend: to.to_owned() };
    world.admin().keys().rotate_encryption_key(request).await.unwrap().into_inner()
}

async fn rotations_survive_crashes(database: Database) {
    let world = with_tenants(database, TENANTS).await;
    jobs_survive_crashes(world, "rotate", async |world, number| {
        let version = number + 2;
        add_version(&world.folder.file("tokenward.key"), version).await;
        let job = rotate(world, "").await;
        assert_eq!(job.encryption_key, format!("local:{version}"));
        job
    })
    .await;
}

async fn rotations_of_data_keys_survive_crashes(database: Database) {
    let world = with_tenants(database, TENANTS).await;
    jobs_survive_crashes(world, "rotate-data", async |world, _| {
        let request = RotateDataKeysRequest::default();
        world.admin().keys().rotate_data_keys(request).await.unwrap().into_inner()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_crashes_of_moves_between_backends_leave_every_row_readable() {
    let Some(address) = parts::openbao_address() else { return };
    let bao = Bao::new(address).await;
    let mut world = with_tenants(Database::sqlite(), TENANTS).await;
    let local = keyring(&world, "tokenward.key");
    configure(&mut world, with(&local, "next", &bao.section(&["encrypt", "decrypt"]).await)).await;
    let names = [bao.kek(), "local:1".to_owned()];
    jobs_survive_crashes(world, "migrate", async |world, number| {
        let way = usize::from(number % 2 == 1);
        let job = rotate(world, ["openbao", "local"][way]).await;
        assert_eq!(job.encryption_key, names[way]);
        job
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_crashes_of_checks_leave_every_row_readable() {
    let world = with_tenants(Database::sqlite(), TENANTS).await;
    jobs_survive_crashes(world, "verify", async |world, _| {
        let request = VerifyStoredSecretsRequest::default();
        world.admin().keys().verify_stored_secrets(request).await.unwrap().into_inner()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_crashes_of_rotations_leave_every_row_readable_on_sqlite() {
    rotations_survive_crashes(Database::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_crashes_of_rotations_leave_every_row_readable_on_postgresql() {
    let Some(database) = Database::postgres().await else { return };
    rotations_survive_crashes(database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_crashes_of_new_data_keys_leave_every_row_readable_on_sqlite() {
    rotations_of_data_keys_survive_crashes(Database::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_crashes_of_new_data_keys_leave_every_row_readable_on_postgresql() {
    let Some(database) = Database::postgres().await else { return };
    rotations_of_data_keys_survive_crashes(database).await;
}
