//! Calls at a fixed rate, whatever the answers take. Latency counts from when a call should have been sent, so that a
//! server that stalls does not hide behind calls that were never made.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use super::{Outcome, Peer, Random, Workload};

/// How often calls that are due are sent. The runtime's own timer only knows milliseconds.
const TICK: Duration = Duration::from_micros(200);

/// What an open loop looks like.
#[derive(Clone, Copy, Debug)]
pub struct Open {
    /// Connections.
    pub connections: usize,
    /// Calls per second.
    pub rate: f64,
    /// Time before counting starts.
    pub warmup: Duration,
    /// Time that is counted.
    pub time: Duration,
    /// The most calls in flight; further ones wait, and the wait counts.
    pub max_in_flight: usize,
    /// Which calls are picked.
    pub seed: u64,
}

/// Runs an open loop.
///
/// # Errors
/// When the server cannot be reached.
pub async fn open_loop(workload: &Workload, plan: Open) -> Result<Outcome> {
    let peers = Peer::connect_many(workload.address, plan.connections).await?;
    let outcome = Arc::new(Mutex::new(Outcome::new()));
    let places = Arc::new(Semaphore::new(plan.max_in_flight));
    let mut random = Random::new(plan.seed);
    let pacer = Pacer::start()?;
    let start = Instant::now();
    let end = plan.warmup + plan.time;
    let mut tasks = tokio::task::JoinSet::new();
    let (mut sent, mut next) = (0_u64, Duration::ZERO);
    while next < end {
        while next <= start.elapsed() && next < end {
            let (Some(peer), Some(call)) =
                (peers.get(next_peer(sent, peers.len())), random.pick(&workload.calls))
            else {
                break;
            };
            let (mut peer, call, outcome) = (peer.clone(), call.clone(), Arc::clone(&outcome));
            let place = Arc::clone(&places).acquire_owned().await?;
            let intended = start + next;
            let counts = next >= plan.warmup;
            tasks.spawn(async move {
                let result = peer.call(&call).await;
                let mut outcome = outcome.lock();
                match result {
                    Ok(_) if counts => outcome.succeeded(intended.elapsed()),
                    Ok(_) => {}
                    Err(error) => outcome.failed(&error),
                }
                drop(place);
            });
            sent += 1;
            next = Duration::from_secs_f64(crate::stats::float(sent) / plan.rate);
        }
        while tasks.try_join_next().is_some() {}
        pacer.tick.notified().await;
    }
    while tasks.join_next().await.is_some() {}
    let outcome = outcome.lock().clone();
    Ok(outcome)
}

fn next_peer(sent: u64, peers: usize) -> usize {
    usize::try_from(sent).unwrap_or(0).checked_rem(peers).unwrap_or(0)
}

/// A thread that wakes the load generator every [`TICK`].
struct Pacer {
    tick: Arc<Notify>,
    stop: Arc<AtomicBool>,
}

impl Pacer {
    fn start() -> Result<Self> {
        let pacer = Self { tick: Arc::default(), stop: Arc::default() };
        let (tick, stop) = (Arc::clone(&pacer.tick), Arc::clone(&pacer.stop));
        std::thread::Builder::new().name("pacer".to_owned()).spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                std::thread::sleep(TICK);
                tick.notify_one();
            }
        })?;
        Ok(pacer)
    }
}

impl Drop for Pacer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
