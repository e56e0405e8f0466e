//! When something that failed is tried again.

use std::time::Duration;

use tokenward_types::Rng;

/// The wait after one of `previous`, by *decorrelated jitter* ("Exponential Backoff And Jitter", AWS Architecture Blog): at
/// random between `base` and three times the previous one, at most `max`. Those that failed together come apart more
/// quickly than by doubling. A first failure counts as one after half of `base`, so that a single one costs little.
pub(crate) fn backoff(base: Duration, max: Duration, previous: Duration, rng: &dyn Rng) -> Duration {
    let highest = previous.max(base / 2).saturating_mul(3).min(max);
    (base + upto(highest.saturating_sub(base), rng)).min(max)
}

/// The same where only the number of failures is known: the previous wait counts as the longest that it can have been.
pub(crate) fn backoff_after(base: Duration, max: Duration, failures: u32, rng: &dyn Rng) -> Duration {
    backoff(base, max, base.saturating_mul(3_u32.saturating_pow(failures)).min(max), rng)
}

/// A time of up to `longest`, at random.
pub(crate) fn upto(longest: Duration, rng: &dyn Rng) -> Duration {
    Duration::from_millis(rng.below(u64::try_from(longest.as_millis()).unwrap_or(u64::MAX).saturating_add(1)))
}

#[cfg(test)]
mod tests {
    use tokenward_types::SeededRng;

    use super::*;

    const BASE: Duration = Duration::from_secs(1);
    const MAX: Duration = Duration::from_secs(300);

    #[test]
    fn a_wait_is_between_the_base_and_three_times_the_previous_one() {
        let rng = SeededRng::new(3);
        let mut previous = Duration::ZERO;
        for _ in 0..1000 {
            let wait = backoff(BASE, MAX, previous, &rng);
            assert!(wait >= BASE && wait <= (previous.max(BASE / 2) * 3).min(MAX), "{previous:?}, {wait:?}");
            previous = wait;
        }
        for failures in 0..40 {
            let wait = backoff_after(BASE, MAX, failures, &rng);
            assert!(wait >= BASE && wait <= MAX, "{failures}: {wait:?}");
        }
    }

    #[test]
    fn a_thousand_that_failed_together_come_apart() {
        let rng = SeededRng::new(4);
        let mut at = vec![Duration::ZERO; 1000];
        let mut previous = vec![Duration::ZERO; 1000];
        for _ in 0..6 {
            for (at, previous) in at.iter_mut().zip(&mut previous) {
                *previous = backoff(BASE, MAX, *previous, &rng);
                *at += *previous;
            }
        }
        let mut seconds = std::collections::HashMap::new();
        for at in &at {
            *seconds.entry(at.as_secs()).or_insert(0) += 1;
        }
        assert!(*seconds.values().max().unwrap() < 100, "{seconds:?}");
    }
}
