//! Every call once, for what it brings rather than for how fast it goes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Peer;
use crate::requests::Call;

/// An answer and how long it took.
#[derive(Clone, Debug)]
pub struct Answered {
    /// The framed answer.
    pub answer: Bytes,
    /// From sending to the last byte.
    pub latency: Duration,
}

/// Makes every call once, `in_flight` at a time over `connections`, and returns the answers in order.
///
/// # Errors
/// When a call fails.
pub async fn each(
    address: SocketAddr,
    calls: Arc<[Call]>,
    connections: usize,
    in_flight: usize,
) -> Result<Vec<Answered>> {
    let peers = Peer::connect_many(address, connections).await?;
    let next = Arc::new(AtomicUsize::new(0));
    let mut workers = JoinSet::new();
    for peer in peers.iter().cycle().take(in_flight.min(calls.len())) {
        let (mut peer, calls, next) = (peer.clone(), Arc::clone(&calls), Arc::clone(&next));
        workers.spawn(async move {
            let mut answers = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(call) = calls.get(index) else { return Ok(answers) };
                let begin = Instant::now();
                let answer = peer.call(call).await.with_context(|| format!("call {index}"))?;
                answers.push((index, Answered { answer, latency: begin.elapsed() }));
            }
        });
    }
    let mut answers = Vec::with_capacity(calls.len());
    while let Some(worker) = workers.join_next().await {
        let of_worker: Result<Vec<_>> = worker?;
        answers.extend(of_worker?);
    }
    answers.sort_unstable_by_key(|(index, _)| *index);
    Ok(answers.into_iter().map(|(_, answered)| answered).collect())
}
