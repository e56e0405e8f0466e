//! The calls that this server may make for one OAuth client. The servers share a token bucket in the database; each takes
//! calls out of it in small batches, so that a refresh does not cost one more transaction.

use std::time::Duration;

use tokenward_provider::CallRate;
use tokenward_storage::ReserveCalls;
use tokenward_types::Monotonic;

/// Reserved calls that are not made in this time are forgotten, so that a server saves none up.
const KEPT_FOR: Duration = Duration::from_secs(1);
/// A batch is what the client may do in a second, divided by this.
const BATCHES_PER_SECOND: u32 = 10;

/// What is in hand.
#[derive(Debug)]
pub(crate) struct Calls {
    rate: Option<CallRate>,
    in_hand: u32,
    kept_until: Monotonic,
    /// As the bucket has it, for the time that the database is away.
    spent_until: Monotonic,
}

impl Calls {
    /// Nothing in hand; without a rate there is no end to it.
    pub(crate) fn new(rate: Option<CallRate>) -> Self {
        Self { rate, in_hand: 0, kept_until: Monotonic::default(), spent_until: Monotonic::default() }
    }

    /// Takes a call if one is in hand.
    pub(crate) fn take(&mut self, now: Monotonic) -> bool {
        if self.rate.is_none() {
            return true;
        }
        if self.kept_until <= now {
            self.in_hand = 0;
        }
        let is_there = self.in_hand > 0;
        self.in_hand -= u32::from(is_there);
        is_there
    }

    /// A call was taken and not made.
    pub(crate) fn put_back(&mut self) {
        if self.rate.is_some() {
            self.in_hand += 1;
        }
    }

    /// What to ask the bucket for.
    pub(crate) fn ask(&self) -> Option<ReserveCalls> {
        let CallRate { per_second, burst } = self.rate?;
        // Half of the burst at the most, so that two servers can share it.
        let calls = (per_second / BATCHES_PER_SECOND).min(burst / 2).max(1);
        Some(ReserveCalls { calls, interval: interval(per_second), burst })
    }

    /// The bucket gave so many.
    pub(crate) fn add(&mut self, calls: u32, now: Monotonic) {
        self.in_hand += calls;
        self.kept_until = now + KEPT_FOR;
    }

    /// Takes a call without asking the bucket, which cannot be reached: out of this server's share.
    ///
    /// # Errors
    /// How long to wait.
    pub(crate) fn alone(&mut self, servers: u32, now: Monotonic) -> Result<(), Duration> {
        let Some(CallRate { per_second, burst }) = self.rate else { return Ok(()) };
        let servers = servers.max(1);
        let one = interval(per_second).saturating_mul(servers);
        let room = one.saturating_mul((burst / servers).max(1));
        let taken = self.spent_until.since(now) + one;
        if taken > room {
            return Err(taken.saturating_sub(room));
        }
        self.spent_until = now + taken;
        Ok(())
    }

    /// How long until the last of so many has had its turn, if this server gets its share.
    pub(crate) fn wait(&self, position: usize, servers: u32) -> Duration {
        let position = u32::try_from(position).unwrap_or(u32::MAX);
        match self.rate {
            Some(rate) => interval(rate.per_second).saturating_mul(position).saturating_mul(servers.max(1)),
            None => Duration::ZERO,
        }
    }
}

fn interval(per_second: u32) -> Duration {
    Duration::from_secs(1) / per_second.max(1)
}

#[cfg(test)]
mod tests {
    use tokenward_types::{Clock, ManualClock, Timestamp};

    use super::*;

    fn calls(per_second: u32, burst: u32) -> (Calls, ManualClock) {
        let rate = CallRate { per_second, burst };
        (Calls::new(Some(rate)), ManualClock::new(Timestamp::from_secs(0)))
    }

    #[test]
    fn without_a_rate_nothing_is_asked_for() {
        let mut calls = Calls::new(None);
        assert!((0..1000).all(|_| calls.take(Monotonic::default())));
        assert_eq!(calls.ask(), None);
    }

    #[test]
    fn a_batch_is_a_tenth_of_a_second_and_half_of_the_burst_at_the_most() {
        for (per_second, burst, batch) in [(200, 200, 20), (200, 10, 5), (5, 5, 1), (1, 1, 1)] {
            let ask = calls(per_second, burst).0.ask().unwrap();
            assert_eq!((ask.calls, ask.burst), (batch, burst), "{per_second}");
            assert_eq!(ask.interval * per_second, Duration::from_secs(1));
        }
    }

    #[test]
    fn calls_in_hand_are_taken_once_and_not_saved_up() {
        let (mut calls, clock) = calls(100, 100);
        assert!(!calls.take(clock.monotonic()));
        calls.add(2, clock.monotonic());
        assert!(calls.take(clock.monotonic()) && calls.take(clock.monotonic()));
        assert!(!calls.take(clock.monotonic()));
        calls.put_back();
        assert!(calls.take(clock.monotonic()), "it was not made");
        calls.add(2, clock.monotonic());
        clock.advance(KEPT_FOR);
        assert!(!calls.take(clock.monotonic()));
    }

    #[test]
    fn alone_a_server_keeps_to_its_share() {
        let (mut calls, clock) = calls(100, 20);
        let mut made = 0;
        for _ in 0..1000 {
            while calls.alone(4, clock.monotonic()).is_ok() {
                made += 1;
            }
            clock.advance(Duration::from_millis(10));
        }
        assert!((250..=256).contains(&made), "{made} calls in 10 s as one of four");
        let wait = calls.alone(4, clock.monotonic()).and_then(|()| calls.alone(4, clock.monotonic()));
        assert!(wait.is_err_and(|wait| wait <= Duration::from_millis(40)), "{wait:?}");
    }
}
