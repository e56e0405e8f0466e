//! As many calls as the server answers: each one follows the answer of another.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use anyhow::Result;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::time::Instant;

use super::peer::Wire;
use super::{Outcome, Peer, Random, Workload};
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
    let mut links = Vec::new();
    for _ in 0..plan.connections {
        links.push(Peer::connect_apart(workload.address).await?);
    }
    let from = Instant::now() + plan.warmup;
    let until = from + plan.time;
    let mut random = Random::new(plan.seed);
    let mut workers = Vec::new();
    for (peer, wire) in links {
        let slots: FuturesUnordered<_> = (0..plan.streams)
            .map(|_| work(peer.clone(), workload.clone(), Random::new(random.number()), from, until))
            .collect();
        workers.push(tokio::spawn(drive(wire, slots)));
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

/// Polls a connection and the calls over it as one task: what they send leaves at once, while the server works on what
/// other connections sent. As tasks of their own all calls would wait for each other.
async fn drive(mut wire: Wire, mut slots: FuturesUnordered<impl Future<Output = Outcome>>) -> Outcome {
    let mut outcome = Outcome::new();
    poll_fn(|cx| {
        // An error of the wire is the error of every call over it.
        let _ = wire.poll_unpin(cx);
        while let Poll::Ready(Some(of_slot)) = slots.poll_next_unpin(cx) {
            outcome.add(&of_slot);
        }
        let _ = wire.poll_unpin(cx);
        if slots.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    outcome
}

async fn work(
    mut peer: Peer,
    workload: Workload,
    mut random: Random,
    from: Instant,
    until: Instant,
) -> Outcome {
    let mut outcome = Outcome::new();
    let mut begin = Instant::now();
    while begin < until {
        let Some(call) = random.pick(&workload.calls) else { break };
        let result = peer.call(call).await;
        let end = Instant::now();
        match result {
            Ok(_) if end >= from && end < until => outcome.succeeded(end - begin),
            Ok(_) => {}
            Err(error) => {
                outcome.failed(&error);
                // A server that is gone must not be asked millions of times.
                if matches!(error, super::CallError::Http(_)) {
                    break;
                }
            }
        }
        begin = end;
    }
    outcome
}
