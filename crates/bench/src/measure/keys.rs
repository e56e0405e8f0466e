//! Replacing keys: how fast it is, and what callers notice.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use tokenward_api::admin::v1::key_job::State;
use tokenward_api::admin::v1::key_service_client::KeyServiceClient;
use tokenward_api::admin::v1::{GetKeyJobRequest, KeyJob, RotateDataKeysRequest, RotateEncryptionKeyRequest};
use tokio::time::Instant;

use super::warm::get_token_calls;
use crate::gateway::{AdminChannel, Gateway, Site};
use crate::load::{Closed, Open, Outcome, Workload, closed_loop, each, open_loop};
use crate::options::Options;
use crate::run::say;
use crate::setup::Filled;
use crate::stats::{count, float, median, rate};

/// How long a job may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// The shortest time between two looks at a job.
const SOON: Duration = Duration::from_millis(50);
const P99: f64 = 99.0;
/// How the most that a server bears is told: beyond it calls queue up, and latencies grow for as long as that goes on.
const BEARABLE_MS: f64 = 50.0;
/// How often the interval is halved that it lies in.
const STEPS: usize = 5;
/// How often a rate is tried that seems too much: a machine that stands still for a moment must not halve what is found.
const TRIES: usize = 2;

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Keys {
    /// Connections, each of a tenant with a data key of its own.
    pub connections: u64,
    /// From the beginning of a rotation of the key-encryption key to its end, in seconds.
    pub rotate_seconds: f64,
    /// Rows of connections that were sealed anew a second, with nothing else to do.
    pub alone_rows_per_second: f64,
    /// The same while callers ask.
    pub beside_rows_per_second: f64,
    /// The most calls of GetToken a second, of callers who do not wait for one another, where it was looked for.
    pub most_rps: Option<f64>,
    /// The calls of GetToken a second: half of that, or what was asked for.
    pub calls_per_second: f64,
    /// The 99th percentile of GetToken at that rate, alone, each round.
    pub alone_p99_ms: Vec<f64>,
    /// The same while rows are sealed anew.
    pub beside_p99_ms: Vec<f64>,
}

impl Keys {
    /// How much longer the 99th percentile is beside a job, by the medians.
    pub fn p99_ratio(&self) -> Option<f64> {
        Some(median(&self.beside_p99_ms)? / median(&self.alone_p99_ms)?)
    }
}

/// Runs jobs on servers whose tenants are all there, as the server of `site` left them, which has stopped. Each round has a copy of
/// its database in `folder`, unless that is no file: keys that were replaced are kept for a day, and what a job writes is scattered
/// the more, the more of them each tenant has. With a round every few seconds that would soon be dozens.
///
/// # Errors
/// When anything fails, a job among it.
pub async fn measure(site: &Site, folder: &Path, filled: &Filled, options: &Options) -> Result<Keys> {
    site.add_key(2).await?;
    let first = Stage::open(site, folder, filled, options).await?;
    let tenants = filled.world.tenants();
    say(&format!("rotating the key of {tenants} data keys"));
    let rotate_seconds = seconds(&first.jobs.rotate().await?)?;
    say(&format!("  {rotate_seconds:.2} s; making new data keys"));
    let alone_rows_per_second = float(count(tenants)) / seconds(&first.jobs.rotate_data().await?)?;

    say(&format!("  {alone_rows_per_second:.0} rows a second; callers alone, and beside jobs"));
    let plan = |number: usize, rate: f64| Open {
        connections: options.connections,
        rate,
        warmup: options.warmup(),
        time: options.round_time(),
        seed: options.seed.wrapping_add(count(number)),
    };
    let (most_rps, calls_per_second) = if let Some(given) = options.calls_per_second {
        (None, f64::from(given))
    } else {
        let too_many = first.too_many(options).await?;
        let most = most_bearable(&first.workload, too_many, plan).await?;
        (Some(most), most / 2.0)
    };
    first.close().await?;

    let (mut alone_p99_ms, mut beside_p99_ms) = (Vec::new(), Vec::new());
    let (mut rows, mut worked) = (0, 0.0);
    for number in 0..options.rounds {
        let stage = Stage::open(site, folder, filled, options).await?;
        let plan = plan(number, calls_per_second);
        // A server that has just started is slower. Whatever is left of that hits both alike, because they take turns to come first.
        stage.alone(plan).await?;
        let (alone, (beside, jobs)) = if number % 2 == 0 {
            (stage.alone(plan).await?, stage.beside_jobs(plan).await?)
        } else {
            let beside = stage.beside_jobs(plan).await?;
            (stage.alone(plan).await?, beside)
        };
        stage.close().await?;
        rows += tenants * jobs.len();
        worked += jobs.iter().sum::<f64>();
        alone_p99_ms.push(alone.latency_ms(P99));
        beside_p99_ms.push(beside.latency_ms(P99));
        say(&format!(
            "round {}: p99 {:.3} ms alone, {:.3} ms beside jobs, at {:.0} calls/s",
            number + 1,
            alone.latency_ms(P99),
            beside.latency_ms(P99),
            plan.rate
        ));
    }
    ensure!(worked > 0.0, "no job ended while callers called: give them more --seconds-per-round");
    Ok(Keys {
        connections: count(tenants),
        rotate_seconds,
        alone_rows_per_second,
        beside_rows_per_second: float(count(rows)) / worked,
        most_rps,
        calls_per_second,
        alone_p99_ms,
        beside_p99_ms,
    })
}

/// A server with a copy of the database, which has every token in memory.
struct Stage {
    gateway: Gateway,
    jobs: Jobs,
    workload: Workload,
}

impl Stage {
    async fn open(site: &Site, folder: &Path, filled: &Filled, options: &Options) -> Result<Self> {
        let gateway = site.copy_to(folder)?.serve().await?;
        let people = gateway.people().await?;
        let calls = get_token_calls(&gateway, filled, options).await?;
        each(site.service, calls.clone(), options.connections, 64).await?;
        let workload = Workload::new(site.service, calls).await?;
        Ok(Self { gateway, jobs: Jobs(KeyServiceClient::new(people.admin)), workload })
    }

    /// More calls a second than it bears from callers who do not wait. Callers who wait for an answer before they ask again get
    /// more answers than those who ask when they have to.
    async fn too_many(&self, options: &Options) -> Result<f64> {
        let closed = Closed {
            connections: options.connections,
            streams: options.streams,
            warmup: options.warmup(),
            time: options.round_time(),
            seed: options.seed,
        };
        let closed = closed_loop(&self.workload, closed, self.gateway.child.pid()).await?;
        Ok(rate(closed.outcome.all_right("closed round")?.calls, options.round_time()))
    }

    async fn alone(&self, plan: Open) -> Result<Outcome> {
        open_loop(&self.workload, plan).await?.all_right("paced round")
    }

    /// Callers who ask while data keys are replaced, and the seconds that each job took, which ended before they did.
    async fn beside_jobs(&self, plan: Open) -> Result<(Outcome, Vec<f64>)> {
        let callers = async { open_loop(&self.workload, plan).await?.all_right("paced round beside a job") };
        let mut callers = std::pin::pin!(callers);
        let mut took = Vec::new();
        // One job after the other, for as long as callers call; the last one, which is alone in the end, does not count.
        loop {
            let job = self.jobs.begin_rotate_data().await?;
            tokio::select! {
                outcome = &mut callers => {
                    let outcome = outcome?;
                    self.jobs.end(&job).await?;
                    return Ok((outcome, took));
                }
                done = self.jobs.end(&job) => took.push(seconds(&done?)?),
            }
        }
    }

    async fn close(mut self) -> Result<()> {
        self.gateway.child.must_run()?;
        self.gateway.child.stop().await?;
        self.gateway.site.remove()
    }
}

/// The most calls a second that come back in a bearable time, below `too_many`.
async fn most_bearable(
    workload: &Workload,
    mut too_many: f64,
    plan: impl Fn(usize, f64) -> Open,
) -> Result<f64> {
    let mut most = 0.0;
    for number in 0..STEPS {
        let tried = f64::midpoint(most, too_many);
        let is_bearable = is_bearable(workload, plan(number, tried)).await?;
        *(if is_bearable { &mut most } else { &mut too_many }) = tried;
    }
    ensure!(most > 0.0, "no load was bearable");
    Ok(most)
}

async fn is_bearable(workload: &Workload, plan: Open) -> Result<bool> {
    for _ in 0..TRIES {
        let p99 = open_loop(workload, plan).await?.all_right("paced round")?.latency_ms(P99);
        say(&format!("  p99 {p99:.3} ms at {:.0} calls/s", plan.rate));
        if p99 <= BEARABLE_MS {
            return Ok(true);
        }
    }
    Ok(false)
}

struct Jobs(KeyServiceClient<AdminChannel>);

impl Jobs {
    async fn rotate(&self) -> Result<KeyJob> {
        let begun = self.0.clone().rotate_encryption_key(RotateEncryptionKeyRequest::default()).await;
        let begun = begun.context("cannot rotate the key")?.into_inner();
        self.end(&begun).await
    }

    async fn begin_rotate_data(&self) -> Result<KeyJob> {
        let begun = self.0.clone().rotate_data_keys(RotateDataKeysRequest::default()).await;
        Ok(begun.context("cannot make new data keys")?.into_inner())
    }

    async fn rotate_data(&self) -> Result<KeyJob> {
        let begun = self.begin_rotate_data().await?;
        self.end(&begun).await
    }

    /// Waits for a job's end. It is looked at when half of what was left should be done: each look is work for the server, and for
    /// the processors that callers need as well.
    async fn end(&self, job: &KeyJob) -> Result<KeyJob> {
        let mut keys = self.0.clone();
        let start = Instant::now();
        let ended = async {
            loop {
                let request = GetKeyJobRequest { key_job_id: job.key_job_id.clone() };
                let now = keys.get_key_job(request).await?.into_inner();
                if !matches!(now.state(), State::Spreading | State::Running) {
                    return anyhow::Ok(now);
                }
                tokio::time::sleep(half_of_the_rest(&now, start.elapsed()).max(SOON)).await;
            }
        };
        let ended = tokio::time::timeout(PATIENCE, ended).await.context("a job does not end")??;
        ensure!(ended.state() == State::Done && ended.skipped_count == 0, "a job failed: {ended:?}");
        Ok(ended)
    }
}

/// How long half of what is left of a job takes, if it goes on as since its beginning.
fn half_of_the_rest(job: &KeyJob, since: Duration) -> Duration {
    let count = |count: i64| float(count.max(0).unsigned_abs());
    match job.done_count {
        1.. => since.mul_f64(count(job.total_count - job.done_count) / count(job.done_count) / 2.0),
        _ => Duration::ZERO,
    }
}

/// From a job's beginning to its end, by the database's clock.
fn seconds(job: &KeyJob) -> Result<f64> {
    let at = |time: Option<prost_types::Timestamp>| {
        let time = time.context("a job tells no time")?;
        anyhow::Ok(Duration::new(u64::try_from(time.seconds)?, u32::try_from(time.nanos)?))
    };
    Ok((at(job.finish_time)?.saturating_sub(at(job.create_time)?)).as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_looked_at_when_half_of_its_rest_is_due() {
        let half = |done_count, total_count| {
            let job = KeyJob { done_count, total_count, ..KeyJob::default() };
            half_of_the_rest(&job, Duration::from_secs(1)).as_millis()
        };
        assert_eq!(half(100, 500), 2000);
        assert_eq!(half(500, 500), 0);
        assert_eq!(half(0, 500), 0, "nothing is known yet");
        assert_eq!(half(600, 500), 0, "more was found meanwhile");
    }
}
