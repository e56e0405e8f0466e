//! The load generator. It works on the current thread with calls that were encoded beforehand, because a full gRPC client
//! would cost more than the server that it measures.

mod closed;
mod each;
mod frames;
mod open;
mod peer;
mod priority;
mod script;
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;

pub use closed::{Closed, ClosedOutcome, closed_loop};
pub use each::{Answered, each};
pub use open::{Open, open_loop};
pub use peer::{CallError, Peer};
pub use priority::may_go_first;

use script::Script;
use tokio::time::Instant;
use wire::Done;

use crate::requests::Call;

/// Calls to one server, picked from at random.
#[derive(Clone, Debug)]
pub struct Workload {
    address: SocketAddr,
    calls: Arc<[Call]>,
    script: Arc<Script>,
}

impl Workload {
    /// Calls, of which there must be one at least.
    ///
    /// # Errors
    /// When they cannot be encoded.
    pub async fn new(address: SocketAddr, calls: Arc<[Call]>) -> anyhow::Result<Self> {
        Ok(Self { address, script: Arc::new(Script::new(&calls).await?), calls })
    }
}

/// What came of many calls.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Calls that were answered as expected within the measured time.
    pub calls: u64,
    /// Calls that were not, whenever.
    pub errors: u64,
    /// What was wrong with the first of those.
    pub first_error: Option<String>,
    /// Latencies of the counted calls in microseconds.
    pub latencies: Histogram<u64>,
}

impl Outcome {
    /// Nothing yet.
    pub fn new() -> Self {
        Self { calls: 0, errors: 0, first_error: None, latencies: latencies() }
    }

    /// Notes a call that has ended; successes are only counted if they are in the measured time.
    fn count(&mut self, call: &Done, now: Instant, counts: bool) {
        if !call.is_right {
            self.failed(&CallError::Wrong);
        } else if counts {
            self.succeeded(now - call.since);
        }
    }

    fn succeeded(&mut self, latency: Duration) {
        self.calls += 1;
        self.latencies.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }

    fn failed(&mut self, error: &CallError) {
        self.errors += 1;
        self.first_error.get_or_insert_with(|| error.to_string());
    }

    fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.errors += other.errors;
        if self.first_error.is_none() {
            self.first_error.clone_from(&other.first_error);
        }
        // Both have the same bounds.
        let _ = self.latencies.add(&other.latencies);
    }

    /// A percentile of the latencies in milliseconds.
    pub fn latency_ms(&self, percent: f64) -> f64 {
        crate::stats::float(self.latencies.value_at_percentile(percent)) / 1e3
    }

    /// Fails if any call failed: figures of wrong answers are worth nothing.
    ///
    /// # Errors
    /// With the first failure.
    pub fn all_right(self, what: &str) -> anyhow::Result<Self> {
        match &self.first_error {
            Some(error) => anyhow::bail!("{what}: {} calls failed; the first one: {error}", self.errors),
            None => Ok(self),
        }
    }
}

#[expect(clippy::expect_used, reason = "these bounds are valid")]
fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("valid bounds")
}

impl Default for Outcome {
    fn default() -> Self {
        Self::new()
    }
}

/// Random numbers that cost next to nothing (SplitMix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Numbers that repeat for the same seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 if that is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        let bound = crate::stats::count(bound);
        usize::try_from(self.number().checked_rem(bound).unwrap_or(0)).unwrap_or(0)
    }

    /// One of `items`; `None` of nothing.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.below(items.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_numbers_repeat_for_a_seed_and_stay_below_their_bound() {
        let numbers = |seed| {
            let mut random = Random::new(seed);
            (0..100).map(|_| random.below(10)).collect::<Vec<_>>()
        };
        assert_eq!(numbers(1), numbers(1));
        assert_ne!(numbers(1), numbers(2));
        assert!((0..10).all(|wanted| numbers(1).contains(&wanted)));
        assert_eq!(Random::new(1).below(0), 0);
        assert_eq!(Random::new(1).pick::<u8>(&[]), None);
    }

    #[test]
    fn outcomes_add_up_and_a_failure_shows() {
        let mut one = Outcome::new();
        one.succeeded(Duration::from_millis(2));
        let mut two = Outcome::new();
        two.succeeded(Duration::from_millis(4));
        two.failed(&CallError::Wrong);
        one.add(&two);
        assert_eq!((one.calls, one.errors, one.latencies.len()), (2, 1, 2));
        assert!((one.latency_ms(100.0) - 4.0).abs() < 0.01);
        assert!(one.all_right("x").is_err());
        assert!(Outcome::new().all_right("x").is_ok());
    }
}
