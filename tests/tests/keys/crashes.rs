//! Crashes in the midst of jobs: every row opens after each, and the job comes to its end.

use std::time::Duration;

use tokenward_api::admin::v1::key_job::State;
use tokenward_api::admin::v1::{GetKeyJobRequest, RotateDataKeysRequest, RotateEncryptionKeyRequest};
use tokenward_tests::{Database, World};

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

async fn rotations_survive_crashes(database: Database) {
    let mut world = with_tenants(database, TENANTS).await;
    let mut moments = Moments::new("rotate");
    let mut over = 0;
    for version in 2..CRASHES + 2 {
        add_version(&world.folder.file("tokenward.key"), version).await;
        let started = world.admin().keys().rotate_encryption_key(RotateEncryptionKeyRequest::default()).await;
        let job = started.unwrap().into_inner();
        assert_eq!(job.encryption_key, format!("local:{version}"));
        over += u32::from(crash_and_finish(&mut world, &mut moments, &job.key_job_id).await);
    }
    all_tokens(&world).await;
    eprintln!("{over} of {CRASHES} jobs were over when the server was killed, or at once after its start");
}

async fn rotations_of_data_keys_survive_crashes(database: Database) {
    let mut world = with_tenants(database, TENANTS).await;
    let mut moments = Moments::new("rotate-data");
    let mut over = 0;
    for _ in 0..CRASHES {
        let started = world.admin().keys().rotate_data_keys(RotateDataKeysRequest::default()).await;
        let job = started.unwrap().into_inner();
        over += u32::from(crash_and_finish(&mut world, &mut moments, &job.key_job_id).await);
    }
    all_tokens(&world).await;
    eprintln!("{over} of {CRASHES} jobs were over when the server was killed, or at once after its start");
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
