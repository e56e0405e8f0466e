//! Calls at a fixed rate, whatever the answers take. Latency counts from when a call should have been sent, so that a
//! server that stalls does not hide behind calls that were never made.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::priority::go_first;
use super::wire::Wire;
use super::{CallError, Outcome, Random, Workload};
use crate::stats::float;

/// How long the load generator sleeps before it looks again at what is due and what came; the runtime's own timer only knows
/// milliseconds. No answer wakes it: that took a quarter of a processor from the server that it measures. So latencies come out
/// longer by what is left of the sleep.
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

/// Runs an open loop on a thread of its own, ahead of the servers where the system lets it.
///
/// # Errors
/// When the server cannot be reached.
pub async fn open_loop(workload: &Workload, plan: Open) -> Result<Outcome> {
    let (done, outcome) = oneshot::channel();
    let workload = workload.clone();
    let begin = move || {
        go_first();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let outcome =
            runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(callers(&workload, plan)));
        // Nobody may wait for it any more.
        let _ = done.send(outcome);
    };
    std::thread::Builder::new().name("callers".to_owned()).spawn(begin)?;
    outcome.await.context("the load generator ended early")?
}

async fn callers(workload: &Workload, plan: Open) -> Result<Outcome> {
    let mut wires = Vec::new();
    for _ in 0..plan.connections {
        wires.push(Wire::connect(workload).await?);
    }
    let mut outcome = Outcome::new();
    if let Err(error) = drive(&mut wires, workload.calls.len(), plan, &mut outcome).await {
        outcome.failed(&error);
    }
    Ok(outcome)
}

/// Sends what is due and reads what came, and sleeps.
async fn drive(wires: &mut [Wire], calls: usize, plan: Open, outcome: &mut Outcome) -> Result<(), CallError> {
    let start = Instant::now();
    let counts_from = start + plan.warmup;
    let mut schedules: Vec<_> =
        (0..wires.len()).map(|number| Schedule { plan, start, next: crate::stats::count(number) }).collect();
    let mut picks = Random::new(plan.seed);
    let mut done = Vec::new();
    loop {
        let mut is_over = true;
        for (wire, schedule) in wires.iter_mut().zip(&mut schedules) {
            wire.read(&mut done)?;
            let now = Instant::now();
            for call in done.drain(..) {
                outcome.count(&call, now, call.since >= counts_from);
            }
            while let Some(due) = schedule.next().filter(|due| *due <= now && wire.has_room()) {
                wire.send(picks.below(calls), due);
                schedule.advance();
            }
            is_over &= wire.in_flight() == 0 && schedule.next().is_none();
            wire.flush().await?;
        }
        if is_over {
            return Ok(());
        }
        // The whole thread, since its runtime would wake for each answer; after it, sockets are asked what they have.
        std::thread::sleep(TICK);
        tokio::task::yield_now().await;
    }
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
