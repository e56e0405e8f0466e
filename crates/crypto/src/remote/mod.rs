//! Calls to a backend that is a service: bounded in time, tried again where that can help, and left alone for a while when
//! several have failed in a row.

mod address;
mod breaker;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokenward_types::Rng;
use tokio::time::{Instant, sleep, timeout};

use crate::{CryptoError, CryptoErrorKind};
pub use address::service_address;
use breaker::Breaker;

/// How a service is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallPolicy {
    /// How long one attempt may take.
    pub timeout: Duration,
    /// How many attempts a call has, the first included; at least one is made.
    pub attempts: u32,
    /// How long to wait before the second attempt; it doubles with each further one. Up to half of a wait is left to chance,
    /// so that servers that failed together do not come back together.
    pub first_wait: Duration,
    /// The longest wait between two attempts.
    pub longest_wait: Duration,
    /// How many attempts in a row must have failed before the service is left alone.
    pub failures: u32,
    /// How long it is left alone; then one attempt finds out whether it is back.
    pub pause: Duration,
}

impl Default for CallPolicy {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(5),
            attempts: 3,
            first_wait: Duration::from_millis(100),
            longest_wait: Duration::from_secs(1),
            failures: 6,
            pause: Duration::from_secs(5),
        }
    }
}

impl CallPolicy {
    /// The longest that a call can take.
    #[must_use]
    pub fn longest_call(&self) -> Duration {
        let attempts = self.attempts.max(1);
        self.timeout * attempts + self.longest_wait * (attempts - 1)
    }
}

/// The calls of one backend to its service.
pub struct RemoteCalls {
    service: String,
    policy: CallPolicy,
    rng: Arc<dyn Rng>,
    breaker: Breaker,
}

impl RemoteCalls {
    /// `service` begins every message: the backend's kind, the key and where the service is.
    pub fn new(service: impl Into<String>, policy: CallPolicy, rng: Arc<dyn Rng>) -> Self {
        let breaker = Breaker::new(policy.failures, policy.pause);
        Self { service: service.into(), policy, rng, breaker }
    }

    /// What begins every message.
    pub fn service(&self) -> &str {
        &self.service
    }

    /// An error of this service; `message` names what is wrong and the remedy.
    pub fn error(&self, kind: CryptoErrorKind, message: impl fmt::Display) -> CryptoError {
        CryptoError::new(kind, format!("{}: {message}", self.service))
    }

    /// Makes a call that may be made twice without harm: an attempt that fails as `Unavailable`, or that takes too long, is
    /// followed by another.
    ///
    /// # Errors
    /// That of the last attempt; `Unavailable` without an attempt while the service is left alone.
    pub async fn repeatable<T, F>(&self, mut attempt: impl FnMut() -> F) -> Result<T, CryptoError>
    where
        F: Future<Output = Result<T, CryptoError>>,
    {
        let mut wait = self.policy.first_wait;
        let mut left = self.policy.attempts.max(1);
        loop {
            let error = match self.attempt(&mut attempt).await {
                Err(error) if error.is_retryable() => error,
                outcome => return outcome,
            };
            left -= 1;
            if left == 0 || self.breaker.is_open(Instant::now()) {
                return Err(error);
            }
            sleep(self.jittered(wait)).await;
            wait = (wait * 2).min(self.policy.longest_wait);
        }
    }

    /// Makes a call that must not be made twice: it has one attempt.
    ///
    /// # Errors
    /// That of the attempt; `Unavailable` without an attempt while the service is left alone.
    pub async fn once<T, F>(&self, mut attempt: impl FnMut() -> F) -> Result<T, CryptoError>
    where
        F: Future<Output = Result<T, CryptoError>>,
    {
        self.attempt(&mut attempt).await
    }

    async fn attempt<T, F>(&self, attempt: &mut impl FnMut() -> F) -> Result<T, CryptoError>
    where
        F: Future<Output = Result<T, CryptoError>>,
    {
        let permit = self.breaker.admit(Instant::now()).map_err(|refusal| {
            let message = format!(
                "not asked, because its last {} calls failed; it is asked again in {:.1} s. The last failure: {}",
                refusal.failures,
                refusal.wait.as_secs_f64(),
                refusal.last
            );
            self.error(CryptoErrorKind::Unavailable, message)
        })?;
        let outcome = timeout(self.policy.timeout, attempt()).await.unwrap_or_else(|_| {
            let message = format!(
                "no answer within {:.1} s: check that it runs and is not overloaded, or allow it more time",
                self.policy.timeout.as_secs_f64()
            );
            Err(self.error(CryptoErrorKind::Unavailable, message))
        });
        match &outcome {
            Err(error) if error.is_retryable() => permit.failed(Instant::now(), error.to_string()),
            // A refusal is an answer: the service is there.
            _ => permit.answered(),
        }
        outcome
    }

    fn jittered(&self, wait: Duration) -> Duration {
        let half = wait / 2;
        let micros = u64::try_from(half.as_micros()).unwrap_or(u64::MAX);
        half + Duration::from_micros(self.rng.below(micros.saturating_add(1)))
    }
}

impl fmt::Debug for RemoteCalls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteCalls")
            .field("service", &self.service)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
