//! What became of attempts, kept for the result page so that its URL holds neither code nor state.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use secrecy::ExposeSecret;
use tokenward_broker::{FinishedConnect, Reason};
use tokenward_types::{Clock, Monotonic, RequestId, Rng, random_token};

/// How long a result can be looked at.
const KEEP: Duration = Duration::from_mins(10);
/// How many results of one kind are kept.
const MAX_RESULTS: usize = 10_000;

/// What became of an attempt.
#[derive(Clone)]
pub(super) enum Outcome {
    Connected(Arc<FinishedConnect>),
    Failed { reason: Reason, request_id: RequestId },
}

/// Results by a name that cannot be guessed. Failures, which anybody can cause, are kept apart so that they cannot drive
/// out what a customer waits to see.
#[derive(Default)]
pub(super) struct Results {
    connected: Mutex<Kept>,
    failed: Mutex<Kept>,
}

/// Results of one kind.
#[derive(Default)]
struct Kept {
    by_name: HashMap<String, Outcome>,
    /// Names in the order in which they came, with the time when they go.
    order: VecDeque<(Monotonic, String)>,
}

impl Results {
    /// Keeps a result and returns its name.
    pub(super) fn put(&self, outcome: Outcome, clock: &dyn Clock, rng: &dyn Rng) -> String {
        let name = random_token(rng).expose_secret().to_owned();
        let now = clock.monotonic();
        let kept = match &outcome {
            Outcome::Connected(_) => &self.connected,
            Outcome::Failed { .. } => &self.failed,
        };
        let mut kept = kept.lock();
        kept.drop_expired(now);
        if kept.order.len() >= MAX_RESULTS {
            kept.drop_oldest();
        }
        kept.order.push_back((now + KEEP, name.clone()));
        kept.by_name.insert(name.clone(), outcome);
        name
    }

    /// The result with this name, while it is kept.
    pub(super) fn get(&self, name: &str, clock: &dyn Clock) -> Option<Outcome> {
        let now = clock.monotonic();
        [&self.connected, &self.failed].into_iter().find_map(|kept| {
            let mut kept = kept.lock();
            kept.drop_expired(now);
            kept.by_name.get(name).cloned()
        })
    }
}

impl Kept {
    fn drop_expired(&mut self, now: Monotonic) {
        while self.order.front().is_some_and(|(until, _)| *until <= now) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((_, name)) = self.order.pop_front() {
            self.by_name.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokenward_types::{AccountId, ManualClock, SeededRng, Timestamp};

    use super::*;

    fn failed(reason: Reason) -> Outcome {
        Outcome::Failed { reason, request_id: RequestId::parse("req-1").unwrap() }
    }

    fn connected() -> Outcome {
        Outcome::Connected(Arc::new(FinishedConnect {
            tenant_name: "Acme".to_owned(),
            provider_name: "HubSpot".to_owned(),
            account: AccountId::parse("42").unwrap(),
            account_name: String::new(),
            return_url: None,
        }))
    }

    fn setting() -> (Results, ManualClock, SeededRng) {
        (Results::default(), ManualClock::new(Timestamp::from_secs(1_700_000_000)), SeededRng::new(1))
    }

    #[test]
    fn a_result_is_kept_for_ten_minutes() {
        let (results, clock, rng) = setting();
        let name = results.put(failed(Reason::StateUsed), &clock, &rng);
        assert!(matches!(
            results.get(&name, &clock),
            Some(Outcome::Failed { reason: Reason::StateUsed, .. })
        ));
        clock.advance(Duration::from_secs(599));
        assert!(results.get(&name, &clock).is_some());
        clock.advance(Duration::from_secs(1));
        assert!(results.get(&name, &clock).is_none());
        assert!(results.get("guess", &clock).is_none());
    }

    #[test]
    fn a_flood_of_failures_is_bounded_and_drives_out_no_success() {
        let (results, clock, rng) = setting();
        let success = results.put(connected(), &clock, &rng);
        let first = results.put(failed(Reason::StateUnknown), &clock, &rng);
        for _ in 0..MAX_RESULTS {
            results.put(failed(Reason::StateUnknown), &clock, &rng);
        }
        assert!(results.get(&first, &clock).is_none());
        assert!(results.get(&success, &clock).is_some());
        assert_eq!(results.failed.lock().by_name.len(), MAX_RESULTS);
        assert_eq!(results.failed.lock().order.len(), MAX_RESULTS);
    }
}
