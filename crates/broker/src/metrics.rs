//! Counters and gauges of the broker. No tenant in a label: labels have few values, tenants are many.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Labels of a refresh.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RefreshLabels {
    /// The provider.
    pub provider: String,
    /// `ok`, or the class of the error.
    pub outcome: &'static str,
}

/// Labels of a connection count.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ConnectionLabels {
    /// The provider.
    pub provider: String,
    /// The state.
    pub state: &'static str,
}

/// Labels of an alert.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct AlertLabels {
    /// What the alert is about.
    pub alert: &'static str,
}

/// The registry, and the metrics that the broker keeps in it. Cloning shares them.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    /// Answers from memory.
    pub cache_hits: Counter<u64, AtomicU64>,
    /// Requests that needed more than memory.
    pub cache_misses: Counter<u64, AtomicU64>,
    /// Refreshes by provider and outcome.
    pub refreshes: Family<RefreshLabels, Counter>,
    /// How long a refresh took, provider and database included, in seconds.
    pub refresh_seconds: Histogram,
    /// Connections by provider and state.
    pub connections: Family<ConnectionLabels, Gauge>,
    /// Things that somebody should look at.
    pub alerts: Family<AlertLabels, Counter>,
    /// Refresh results that wait for the database.
    pub unsaved: Gauge,
    /// Leases and attempts that were taken over from a process that did not finish them.
    pub refresh_takeovers: Counter<u64, AtomicU64>,
    /// Provider calls of which nobody knows whether they issued a token.
    pub refresh_unknown_outcomes: Counter<u64, AtomicU64>,
    /// Results that a later attempt, a consent or a disconnect had overtaken.
    pub refresh_rejected_commits: Counter<u64, AtomicU64>,
    /// Results that were stored from the journal, by a restart or when the database came back.
    pub journal_replays: Counter<u64, AtomicU64>,
    /// Entries of the journal that could not be read, and were put aside.
    pub journal_refused: Counter<u64, AtomicU64>,
    /// From the provider's answer to its tokens being in the database or in the journal, in seconds.
    pub rotation_to_durable: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Fresh metrics in a fresh registry; names begin with `tokenward_`.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("tokenward");
        let buckets = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
        let metrics = Self {
            cache_hits: Counter::default(),
            cache_misses: Counter::default(),
            refreshes: Family::default(),
            refresh_seconds: Histogram::new(buckets),
            connections: Family::default(),
            alerts: Family::default(),
            unsaved: Gauge::default(),
            refresh_takeovers: Counter::default(),
            refresh_unknown_outcomes: Counter::default(),
            refresh_rejected_commits: Counter::default(),
            journal_replays: Counter::default(),
            journal_refused: Counter::default(),
            rotation_to_durable: Histogram::new([
                0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0,
            ]),
            registry: Arc::default(),
        };
        registry.register("cache_hits", "GetToken calls answered from memory", metrics.cache_hits.clone());
        registry.register("cache_misses", "GetToken calls that needed more", metrics.cache_misses.clone());
        registry.register("refreshes", "Refreshes by provider and outcome", metrics.refreshes.clone());
        registry.register("refresh_seconds", "Duration of refreshes", metrics.refresh_seconds.clone());
        registry.register("connections", "Connections by provider and state", metrics.connections.clone());
        registry.register("alerts", "Conditions that need attention", metrics.alerts.clone());
        registry.register("unsaved_results", "Refresh results not stored yet", metrics.unsaved.clone());
        let counters = [
            (
                "refresh_takeovers",
                "Refreshes taken over from a process that is gone",
                &metrics.refresh_takeovers,
            ),
            (
                "refresh_unknown_outcomes",
                "Provider calls whose outcome is unknown",
                &metrics.refresh_unknown_outcomes,
            ),
            (
                "refresh_rejected_commits",
                "Results that something newer had overtaken",
                &metrics.refresh_rejected_commits,
            ),
            ("journal_replays", "Results stored from the journal", &metrics.journal_replays),
            ("journal_refused", "Journal entries that could not be read", &metrics.journal_refused),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        registry.register(
            "rotation_to_durable_seconds",
            "From a provider's answer to its tokens being durable",
            metrics.rotation_to_durable.clone(),
        );
        *metrics.registry.lock() = registry;
        metrics
    }

    /// Adds further metrics, such as those of the listeners.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.registry.lock());
    }

    /// The text exposition format of Prometheus.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry.lock());
        text
    }

    /// Counts something that somebody should look at, and logs it.
    pub(crate) fn alert(&self, alert: &'static str, detail: &str) {
        self.alerts.get_or_create(&AlertLabels { alert }).inc();
        tracing::error!(alert, detail, "needs attention");
    }
}
