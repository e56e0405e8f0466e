use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Counts failures in a row; after several it refuses calls for a while, and then lets one through to find out.
pub(super) struct Breaker {
    limit: u32,
    pause: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    failures: u32,
    /// What the last failure said.
    last: String,
    /// Calls are refused until then.
    open_until: Option<Instant>,
    /// After that: whether a call that finds out is under way.
    probing: bool,
}

/// Why a call is refused.
pub(super) struct Refusal {
    pub(super) failures: u32,
    /// Zero while a call that finds out is under way.
    pub(super) wait: Duration,
    pub(super) last: String,
}

/// Leave for one call. Dropping it without a verdict, as when the call is given up, decides nothing.
pub(super) struct Permit<'a> {
    breaker: &'a Breaker,
    probe: bool,
}

impl Breaker {
    pub(super) fn new(limit: u32, pause: Duration) -> Self {
        Self { limit: limit.max(1), pause, state: Mutex::default() }
    }

    pub(super) fn admit(&self, now: Instant) -> Result<Permit<'_>, Refusal> {
        let mut state = self.state.lock();
        let Some(until) = state.open_until else { return Ok(Permit { breaker: self, probe: false }) };
        if until > now || state.probing {
            let wait = until.saturating_duration_since(now);
            return Err(Refusal { failures: state.failures, wait, last: state.last.clone() });
        }
        state.probing = true;
        Ok(Permit { breaker: self, probe: true })
    }

    /// Whether a call would be refused now.
    pub(super) fn is_open(&self, now: Instant) -> bool {
        let state = self.state.lock();
        state.open_until.is_some_and(|until| until > now || state.probing)
    }
}

impl Permit<'_> {
    /// The service answered, be it with a refusal.
    pub(super) fn answered(self) {
        *self.breaker.state.lock() = State::default();
    }

    pub(super) fn failed(self, now: Instant, message: String) {
        let mut state = self.breaker.state.lock();
        state.failures = state.failures.saturating_add(1);
        state.last = message;
        // A late failure of a call from before does not prolong the pause.
        let opens =
            if state.open_until.is_some() { self.probe } else { state.failures >= self.breaker.limit };
        if opens {
            state.open_until = Some(now + self.breaker.pause);
        }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if self.probe {
            self.breaker.state.lock().probing = false;
        }
    }
}
