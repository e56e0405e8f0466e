//! Time, so that tests need not wait for it.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

/// A clock to measure by and to sleep on, and the jitter of sleeps.
#[async_trait]
pub(crate) trait Time: Send + Sync + fmt::Debug {
    /// Now, on a clock that only goes forward.
    fn now(&self) -> Instant;

    /// Waits.
    async fn sleep(&self, duration: Duration);

    /// A number from 0 up to 1, another each time.
    fn jitter(&self) -> f64;
}

/// The runtime's clock.
#[derive(Debug)]
pub(crate) struct RuntimeTime;

#[async_trait]
impl Time for RuntimeTime {
    fn now(&self) -> Instant {
        Instant::now()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    fn jitter(&self) -> f64 {
        // Each RandomState has keys of its own, which is random enough to spread retries.
        let bits = RandomState::new().hash_one(0_u8) >> 32;
        f64::from(u32::try_from(bits).unwrap_or(0)) / (f64::from(u32::MAX) + 1.0)
    }
}

#[cfg(test)]
mod unit_tests {
    use super::*;

    #[test]
    fn jitter_spreads_between_zero_and_one() {
        let values: Vec<f64> = (0..100).map(|_| RuntimeTime.jitter()).collect();
        assert!(values.iter().all(|value| (0.0..1.0).contains(value)));
        assert!(values.iter().any(|value| *value < 0.5) && values.iter().any(|value| *value >= 0.5));
    }
}
