use std::time::Duration;

use secrecy::SecretString;
use tokio::time::Instant;

/// The shortest and the longest time until something that failed is tried again.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// A token and how long it lives.
pub(crate) struct Session {
    pub(crate) token: SecretString,
    /// Tells sessions apart: a renewal keeps it, another token has another.
    pub(crate) number: u64,
    /// `None`: it lives until it is revoked.
    pub(crate) lease: Option<Lease>,
}

/// How long a token lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) since: Instant,
    pub(crate) ttl: Duration,
    pub(crate) renewable: bool,
}

impl Lease {
    /// A lease after an answer's words, where zero stands for no end.
    pub(crate) fn new(since: Instant, seconds: u64, renewable: bool) -> Option<Self> {
        (seconds > 0).then(|| Self { since, ttl: Duration::from_secs(seconds), renewable })
    }

    /// When to see to it: after two thirds of its life; after a failure sooner and sooner, and for ever.
    pub(crate) fn due(&self, failed_at: Option<Instant>) -> Instant {
        match failed_at {
            None => self.since + self.ttl * 2 / 3,
            Some(failed) => failed + (self.left(failed) / 4).clamp(RETRY.0, RETRY.1),
        }
    }

    /// How much of its life is left.
    pub(crate) fn left(&self, now: Instant) -> Duration {
        self.ttl.saturating_sub(now.saturating_duration_since(self.since))
    }

    /// Whether renewing gave much less than before: the token nears the end that no renewal moves.
    pub(crate) fn is_exhausted(&self, before: &Self) -> bool {
        self.ttl * 2 < before.ttl
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_seen_to_after_two_thirds_and_after_failures_until_it_works() {
        let since = Instant::now();
        let lease = Lease::new(since, 90, true).expect("it ends");
        assert_eq!(lease.due(None), since + SECOND * 60);
        assert_eq!(lease.due(Some(since + SECOND * 60)), since + SECOND * 67 + SECOND / 2);
        assert_eq!(lease.due(Some(since + SECOND * 89)), since + SECOND * 90);
        assert_eq!(lease.due(Some(since + SECOND * 500)), since + SECOND * 501);
        let long = Lease::new(since, 90_000, true).expect("it ends");
        assert_eq!(long.due(Some(since)), since + SECOND * 30);
    }

    #[tokio::test(start_paused = true)]
    async fn zero_seconds_stand_for_no_end() {
        assert_eq!(Lease::new(Instant::now(), 0, true), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_that_gives_less_than_half_nears_the_end() {
        let since = Instant::now();
        let lease = |seconds| Lease::new(since, seconds, true).expect("it ends");
        assert!(lease(29).is_exhausted(&lease(60)));
        assert!(!lease(30).is_exhausted(&lease(60)));
    }
}
