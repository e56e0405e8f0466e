//! As many calls as the server answers: each one follows the answer of another.

use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;

use super::wire::Wire;
use super::{CallError, Outcome, Random, Workload};
use crate::machine;

/// What a closed loop looks like.
#[derive(Clone, Copy, Debug)]
pub struct Closed {
    /// Connections.
    pub connections: usize,
    /// Calls in flight on each.
    pub streams: usize,
    /// Time before counting starts.
    pub warmup: Duration,
    /// Time that is counted.
    pub time: Duration,
    /// Which calls are picked.
    pub seed: u64,
}

/// What a closed loop brought.
#[derive(Clone, Debug)]
pub struct ClosedOutcome {
    /// The calls.
    pub outcome: Outcome,
    /// The time that was counted.
    pub time: Duration,
    /// Processor time that the server took meanwhile.
    pub server_cpu: Duration,
    /// Processor time that the load generator took meanwhile.
    pub client_cpu: Duration,
    /// Processor time that everything else took meanwhile: more than a little, and the figures are of a busy computer.
    pub other_cpu: Duration,
}

/// Runs a closed loop against the process `pid`.
///
/// # Errors
/// When the server cannot be reached, or is gone.
pub async fn closed_loop(workload: &Workload, plan: Closed, pid: u32) -> Result<ClosedOutcome> {
    let mut wires = Vec::new();
    for _ in 0..plan.connections {
        // One after the other, so that a server that deals connections out does so evenly.
        wires.push(Wire::connect(workload).await?);
    }
    let from = Instant::now() + plan.warmup;
    let until = from + plan.time;
    let mut random = Random::new(plan.seed);
    let mut workers = Vec::new();
    for wire in wires {
        let picks = Random::new(random.number());
        let calls = workload.calls.len();
        workers.push(tokio::spawn(async move {
            let mut outcome = Outcome::new();
            if let Err(error) = drive(wire, calls, plan.streams, picks, from, until, &mut outcome).await {
                outcome.failed(&error);
            }
            outcome
        }));
    }
    let own = std::process::id();
    tokio::time::sleep_until(from).await;
    let begin = Instant::now();
    let (server, client, busy) = (machine::cpu_time(pid)?, machine::cpu_time(own)?, machine::busy_time()?);
    tokio::time::sleep_until(until).await;
    let time = begin.elapsed();
    let server_cpu = machine::cpu_time(pid)?.saturating_sub(server);
    let client_cpu = machine::cpu_time(own)?.saturating_sub(client);
    let other_cpu = machine::busy_time()?.saturating_sub(busy).saturating_sub(server_cpu + client_cpu);
    let mut outcome = Outcome::new();
    for worker in workers {
        outcome.add(&worker.await?);
    }
    Ok(ClosedOutcome { outcome, time, server_cpu, client_cpu, other_cpu })
}

/// Keeps `streams` calls in flight until the time is over, and waits for the last ones.
async fn drive(
    mut wire: Wire,
    calls: usize,
    streams: usize,
    mut picks: Random,
    from: Instant,
    until: Instant,
    outcome: &mut Outcome,
) -> Result<(), CallError> {
    let mut done = Vec::new();
    let mut now = Instant::now();
    loop {
        while now < until && wire.in_flight() < streams && wire.has_room() {
            wire.send(picks.below(calls), now);
        }
        if wire.in_flight() == 0 {
            return Ok(());
        }
        wire.flush().await?;
        wire.readable().await?;
        wire.read(&mut done)?;
        now = Instant::now();
        for call in done.drain(..) {
            outcome.count(&call, now, now >= from && now < until);
        }
    }
}
