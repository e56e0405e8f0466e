//! The time the stand-in believes it is, so that a test can let half an hour pass at once.

use std::sync::atomic::{AtomicI64, Ordering};

use serde::{Deserialize, Serialize};

/// Where the stand-in's time comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClockKind {
    /// The computer's clock, plus whatever it was advanced by.
    #[default]
    Real,
    /// Stands still at 2026-11-01T00:00:00Z until it is advanced.
    Manual,
}

/// 2026-11-01T00:00:00Z in milliseconds since the Unix epoch.
const MANUAL_START_MS: i64 = 1_793_491_200_000;

/// A clock that can be pushed forward.
#[derive(Debug)]
pub struct SimClock {
    kind: ClockKind,
    advanced_ms: AtomicI64,
}

impl SimClock {
    /// A clock of the given kind that has not been advanced yet.
    pub fn new(kind: ClockKind) -> Self {
        Self { kind, advanced_ms: AtomicI64::new(0) }
    }

    /// Milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> i64 {
        let base = match self.kind {
            ClockKind::Real => real_now_ms(),
            ClockKind::Manual => MANUAL_START_MS,
        };
        base.saturating_add(self.advanced_ms.load(Ordering::Relaxed))
    }

    /// Moves the clock by so many milliseconds (backwards when negative).
    pub fn advance_ms(&self, ms: i64) {
        self.advanced_ms.fetch_add(ms, Ordering::Relaxed);
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the stand-in's own clock: it shares no crate with the gateway"
)]
fn real_now_ms() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}
