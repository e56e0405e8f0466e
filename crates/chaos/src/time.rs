//! Wall-clock time in milliseconds: the stand-in's log, the servers and this process share one computer's clock.

use std::time::Duration;

use tokenward_types::{Clock, SystemClock};

/// Milliseconds since the Unix epoch.
pub fn now_ms() -> i64 {
    SystemClock.now().as_micros() / 1000
}

/// A duration in whole milliseconds.
pub fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
