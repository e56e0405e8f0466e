//! Jobs beside callers, none of whom may fail. With `TOKENWARD_TEST_TENANTS=10000` and a release build it is the measurement of how fast
//! jobs are, and what callers notice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokenward_api::admin::v1::key_job::State;
use tokenward_api::admin::v1::{KeyJob, RotateDataKeysRequest, RotateEncryptionKeyRequest};
use tokenward_tests::{Database, World, get_token};
use tokio::time::Instant;

use crate::world::{add_version, end_of, tenant, with_tenants};

/// How long calls go on.
enum Until {
    Count(usize),
    Told(Arc<AtomicBool>),
}

impl Until {
    fn is_over(&self, calls: usize) -> bool {
        match self {
            Self::Count(count) => calls >= *count,
            Self::Told(stop) => stop.load(Ordering::Relaxed),
        }
    }
}

/// Calls of GetToken from memory, one after the other; their durations.
async fn calls(world: &World, tenants: u64, until: Until) -> Vec<Duration> {
    let service = world.service();
    let mut took = Vec::new();
    let mut number = 0;
    while !until.is_over(took.len()) {
        let began = Instant::now();
        get_token(&service, &tenant(number % tenants)).await.unwrap();
        took.push(began.elapsed());
        number += 1;
    }
    took
}

fn percentile(took: &mut [Duration]) -> Duration {
    took.sort_unstable();
    took[took.len() * 99 / 100]
}

async fn measured(world: &World, job: &KeyJob) -> f64 {
    let done = end_of(world, &job.key_job_id).await;
    assert_eq!((done.state(), done.skipped_count), (State::Done, 0), "{done:?}");
    let seconds = |time: prost_types::Timestamp| {
        Duration::new(u64::try_from(time.seconds).unwrap(), u32::try_from(time.nanos).unwrap()).as_secs_f64()
    };
    seconds(done.finish_time.unwrap()) - seconds(done.create_time.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_beside_callers_on_postgresql() {
    let count =
        std::env::var("TOKENWARD_TEST_TENANTS").ok().and_then(|count| count.parse().ok()).unwrap_or(50);
    let Some(database) = Database::postgres().await else { return };
    let world = with_tenants(database, count).await;
    for number in 0..count {
        world.get_token(&tenant(number)).await.unwrap();
    }
    let mut alone = calls(&world, count, Until::Count(2000)).await;
    add_version(&world.folder.file("tokenward.key"), 2).await;
    let job = world.admin().keys().rotate_encryption_key(RotateEncryptionKeyRequest::default()).await;
    let rotate = measured(&world, &job.unwrap().into_inner()).await;
    println!("rotate: {count} tenants in {rotate:.2} s");

    let job = world.admin().keys().rotate_data_keys(RotateDataKeysRequest::default()).await;
    let rotate = measured(&world, &job.unwrap().into_inner()).await;
    println!(
        "rotate-data: {count} tenants in {rotate:.2} s, {:.0} rows of connections a second",
        f64::from(u32::try_from(count).unwrap()) / rotate
    );

    let stop = Arc::new(AtomicBool::new(false));
    let job =
        world.admin().keys().rotate_data_keys(RotateDataKeysRequest::default()).await.unwrap().into_inner();
    let during = async {
        let took = measured(&world, &job).await;
        stop.store(true, Ordering::Relaxed);
        took
    };
    let (mut meanwhile, rotate) = tokio::join!(calls(&world, count, Until::Told(Arc::clone(&stop))), during);
    println!(
        "rotate-data beside callers: {rotate:.2} s; GetToken one after the other: p99 {:?} alone ({} calls), {:?} meanwhile ({} calls)",
        percentile(&mut alone),
        alone.len(),
        percentile(&mut meanwhile),
        meanwhile.len()
    );
}
