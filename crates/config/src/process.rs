//! The sections of the process itself: what it logs, and how much of what it does at a time.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokenward_plugin::duration;

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// Levels by target, such as `info,tokenward_broker=debug`.
    pub filter: String,
    /// How a line looks.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self { filter: "info".into(), format: LogFormat::Text }
    }
}

/// The process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// Threads that serve the service listener; 0 for one per processor.
    pub worker_threads: usize,
    /// Whether each of them stays on a processor, where there is one for each.
    pub pin_worker_threads: bool,
    /// How long calls are still taken after health checks were told that the process stops.
    #[serde(with = "duration")]
    pub drain_delay: Duration,
    /// How long requests in flight may take when the process is told to stop.
    #[serde(with = "duration")]
    pub shutdown_grace: Duration,
    /// How long one call may take.
    #[serde(with = "duration")]
    pub request_timeout: Duration,
    /// How many connections each listener takes at a time.
    pub max_connections: usize,
    /// How many calls each gRPC listener works on at a time; more are refused.
    pub max_calls: usize,
    /// How many gRPC calls one connection may have in flight.
    pub max_calls_per_connection: u32,
    /// How many calls for tokens wait for the database or a vendor at a time; more are refused, fairly by principal.
    pub max_waiting_calls: usize,
    /// How many caller tokens are verified at a time; more are refused, fairly by principal.
    pub max_verifications: usize,
    /// How many admin calls are worked on at a time; more are refused, fairly by principal.
    pub max_admin_calls: usize,
    /// How many requests of browsers are worked on at a time; more are refused.
    pub max_pages: usize,
    /// How many verified caller tokens are remembered.
    pub max_cached_callers: u64,
    /// Whether the database's schema is brought up to date at start.
    pub migrate_on_start: bool,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            worker_threads: 0,
            pin_worker_threads: true,
            drain_delay: Duration::ZERO,
            shutdown_grace: Duration::from_secs(30),
            request_timeout: Duration::from_secs(30),
            max_connections: 10_000,
            max_calls: 10_000,
            max_calls_per_connection: 1024,
            max_waiting_calls: 5_000,
            max_verifications: 1_000,
            max_admin_calls: 500,
            max_pages: 500,
            max_cached_callers: 100_000,
            migrate_on_start: true,
        }
    }
}
