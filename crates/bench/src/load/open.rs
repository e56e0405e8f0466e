//! Calls at a fixed rate, whatever the answers take. Latency counts from when a call should have been sent, so that a
//! server that stalls does not hide behind calls that were never made.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::wire::Wire;
use super::{CallError, Outcome, Random, Workload};
use crate::stats::float;

/// How often calls that are due are sent. The runtime's own timer only knows milliseconds.
const TICK: Duration = Duration::from_micros(200);

/// What an open loop looks like.
#[derive(Clone, Copy, Debug)]
pub struct Open {
    /// Connections, which take turns.
    pub connections: usize,
    /// Calls per second.
    pub rate: f64,
    /// Time before counting starts.
    pub warmup: Duration,
    /// Time that is counted.
    pub time: Duration,
    /// Which calls are picked.
    pub seed: u64,
}

/// Runs an open loop.
///
/// # Errors
/// When the server cannot be reached.
pub async fn open_loop(workload: &Workload, plan: Open) -> Result<Outcome> {
    let mut wires = Vec::new();
    for _ in 0..plan.connections {
        wires.push(Wire::connect(workload).await?);
    }
    let ticks: Vec<Arc<Notify>> = wires.iter().map(|_| Arc::default()).collect();
    let _pacer = Pacer::start(ticks.clone())?;
    let mut random = Random::new(plan.seed);
    let start = Instant::now();
    let mut workers = Vec::new();
    for (number, (wire, tick)) in wires.into_iter().zip(ticks).enumerate() {
        let schedule = Schedule { plan, start, next: crate::stats::count(number) };
        let (picks, calls) = (Random::new(random.number()), workload.calls.len());
        workers.push(tokio::spawn(async move {
            let mut outcome = Outcome::new();
            if let Err(error) = drive(wire, calls, picks, schedule, &tick, &mut outcome).await {
                outcome.failed(&error);
            }
            outcome
        }));
    }
    let mut outcome = Outcome::new();
    for worker in workers {
        outcome.add(&worker.await?);
    }
    Ok(outcome)
}

/// When one of the connections sends.
struct Schedule {
    plan: Open,
    start: Instant,
    /// The number of its next call, among those of all connections.
    next: u64,
}

impl Schedule {
    /// The time of the next call; `None` when it was the last one.
    fn next(&self) -> Option<Instant> {
        let after = Duration::from_secs_f64(float(self.next) / self.plan.rate);
        (after < self.plan.warmup + self.plan.time).then(|| self.start + after)
    }

    fn advance(&mut self) {
        self.next += crate::stats::count(self.plan.connections);
    }
}

async fn drive(
    mut wire: Wire,
    calls: usize,
    mut picks: Random,
    mut schedule: Schedule,
    tick: &Notify,
    outcome: &mut Outcome,
) -> Result<(), CallError> {
    let counts_from = schedule.start + schedule.plan.warmup;
    let mut done = Vec::new();
    loop {
        let now = Instant::now();
        while let Some(due) = schedule.next().filter(|due| *due <= now && wire.has_room()) {
            wire.send(picks.below(calls), due);
            schedule.advance();
        }
        if wire.in_flight() == 0 && schedule.next().is_none() {
            return Ok(());
        }
        wire.flush().await?;
        tokio::select! {
            readable = wire.readable() => {
                readable?;
                wire.read(&mut done)?;
                let now = Instant::now();
                for call in done.drain(..) {
                    let counts = call.since >= counts_from;
                    outcome.count(&call, now, counts);
                }
            }
            () = tick.notified() => {}
        }
    }
}

/// A thread that wakes the load generator every [`TICK`].
struct Pacer(Arc<AtomicBool>);

impl Pacer {
    fn start(ticks: Vec<Arc<Notify>>) -> Result<Self> {
        let pacer = Self(Arc::default());
        let stop = Arc::clone(&pacer.0);
        std::thread::Builder::new().name("pacer".to_owned()).spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                std::thread::sleep(TICK);
                for tick in &ticks {
                    tick.notify_one();
                }
            }
        })?;
        Ok(pacer)
    }
}

impl Drop for Pacer {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
