//! Work in the background at a steady rate, so that callers find a processor.

use std::time::Duration;

use parking_lot::Mutex;
use tokenward_types::Monotonic;

/// How much of what was missed is made up for: a rate is kept over stalls, as where callers leave no processor for a while, and
/// none of them is followed by a long rush.
const MAKE_UP: Duration = Duration::from_millis(250);

/// When what was done so far is due to be done, at some rate, and [`MAKE_UP`] later.
#[derive(Debug, Default)]
pub(crate) struct Pace(Mutex<Monotonic>);

impl Pace {
    /// How long to rest after so many pieces of work, where `rate` are done a second at the most; 0 is no limit.
    pub(crate) fn rest(&self, pieces: usize, rate: u32, now: Monotonic) -> Duration {
        if rate == 0 {
            return Duration::ZERO;
        }
        let pieces = u32::try_from(pieces).unwrap_or(u32::MAX);
        let mut done = self.0.lock();
        *done = Ord::max(*done, now) + Duration::from_secs(1) * pieces / rate;
        done.since(now).saturating_sub(MAKE_UP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u32 = 1000;

    fn at(millis: u64) -> Monotonic {
        Monotonic::default() + Duration::from_millis(millis)
    }

    #[test]
    fn who_rests_as_told_keeps_to_the_rate() {
        let (pace, mut now) = (Pace::default(), at(0));
        for _ in 0..100 {
            now = now + Duration::from_millis(3) + pace.rest(50, RATE, now + Duration::from_millis(3));
        }
        // 5,000 pieces, those of the last quarter of a second ahead.
        assert_eq!(now.since(at(0)), Duration::from_millis(4753));
    }

    #[test]
    fn a_stall_is_made_up_for_but_no_more_than_a_quarter_of_a_second_of_it() {
        let pace = Pace::default();
        assert_eq!(pace.rest(350, RATE, at(0)), Duration::from_millis(100));
        assert_eq!(pace.rest(50, RATE, at(150)), Duration::ZERO, "50 ms late");
        assert_eq!(pace.rest(50, RATE, at(200)), Duration::ZERO);
        assert_eq!(pace.rest(250, RATE, at(60_000)), Duration::ZERO, "a minute late");
        assert_eq!(pace.rest(50, RATE, at(60_000)), Duration::from_millis(50));
    }

    #[test]
    fn without_a_rate_nobody_rests() {
        assert_eq!(Pace::default().rest(usize::MAX, 0, at(0)), Duration::ZERO);
    }

    #[test]
    fn no_amount_of_work_is_too_much_to_reckon_with() {
        assert!(Pace::default().rest(usize::MAX, 1, at(0)) > Duration::from_hours(24));
    }
}
