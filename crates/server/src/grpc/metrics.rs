//! Counters and histograms of gRPC calls. What a successful call touches is looked up once, at start.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::{MetricType, TypedMetric};
use tokenward_broker::Metrics;

use super::methods::{METHODS, Method};

/// The method label of calls that are not in the table: a caller must not be able to make labels up.
pub(crate) const UNKNOWN_METHOD: &str = "unknown";

const BUCKETS_MICROS: [u64; 16] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 10_000_000,
];

/// Labels of a call.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CallLabels {
    method: &'static str,
    code: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct MethodLabels {
    method: &'static str,
}

/// A histogram of atomics: the registry's own takes a lock that every thread would share.
#[derive(Clone, Default)]
pub(crate) struct Latency(Arc<LatencyCells>);

#[derive(Default)]
struct LatencyCells {
    /// Per bucket, not cumulative; the last one is above every bound.
    buckets: [AtomicU64; BUCKETS_MICROS.len() + 1],
    sum_micros: AtomicU64,
}

impl Latency {
    /// Counts one duration.
    pub(crate) fn observe(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS_MICROS.partition_point(|bound| *bound < micros);
        self.0.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.0.sum_micros.fetch_add(micros, Ordering::Relaxed);
    }
}

impl fmt::Debug for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Latency")
    }
}

impl TypedMetric for Latency {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Latency {
    fn encode(&self, mut encoder: MetricEncoder) -> fmt::Result {
        let counts = self.0.buckets.each_ref().map(|bucket| bucket.load(Ordering::Relaxed));
        let bounds = BUCKETS_MICROS.iter().map(|micros| seconds(*micros)).chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        let sum = seconds(self.0.sum_micros.load(Ordering::Relaxed));
        encoder.encode_histogram::<NoLabelSet>(sum, counts.iter().sum(), &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

fn seconds(micros: u64) -> f64 {
    Duration::from_micros(micros).as_secs_f64()
}

/// A method with its metrics.
pub(crate) struct MeteredMethod {
    /// The method.
    pub method: &'static Method,
    /// How long its calls take, failed ones too.
    pub latency: Latency,
    ok: Counter<u64, AtomicU64>,
}

impl MeteredMethod {
    /// Counts a call that succeeded.
    pub(crate) fn count_ok(&self) {
        self.ok.inc();
    }
}

/// The methods by their paths, and the metrics of their calls.
pub(crate) struct CallMetrics {
    by_path: HashMap<String, MeteredMethod>,
    calls: Family<CallLabels, Counter<u64, AtomicU64>>,
}

impl CallMetrics {
    /// Registers the metrics of every method.
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let calls = Family::<CallLabels, Counter<u64, AtomicU64>>::default();
        let latencies = Family::<MethodLabels, Latency>::default();
        let by_path = METHODS
            .iter()
            .map(|method| {
                let labels = CallLabels { method: method.name, code: "OK", reason: "" };
                let metered = MeteredMethod {
                    method,
                    latency: latencies.get_or_create_owned(&MethodLabels { method: method.name }),
                    ok: calls.get_or_create_owned(&labels),
                };
                (format!("/{}", method.name), metered)
            })
            .collect();
        metrics.register(|registry| {
            registry.register("grpc_calls", "gRPC calls by method, code and reason", calls.clone());
            registry.register("grpc_call_seconds", "Duration of gRPC calls in seconds", latencies.clone());
        });
        Self { by_path, calls }
    }

    /// The method that a request's path names.
    pub(crate) fn find(&self, path: &str) -> Option<&MeteredMethod> {
        self.by_path.get(path)
    }

    /// Counts a call that failed.
    pub(crate) fn count_failure(&self, method: &'static str, code: &'static str, reason: &'static str) {
        self.calls.get_or_create(&CallLabels { method, code, reason }).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_and_durations_are_exposed_by_method_code_and_reason() {
        let metrics = Metrics::new();
        let calls = CallMetrics::new(&metrics);
        let get_token = calls.find("/tokenward.v1.TokenService/GetToken").unwrap();
        get_token.count_ok();
        get_token.latency.observe(Duration::from_micros(60));
        get_token.latency.observe(Duration::from_secs(60));
        calls.count_failure(get_token.method.name, "PERMISSION_DENIED", "ACCESS_DENIED");
        let text = metrics.encode();
        let method = r#"method="tokenward.v1.TokenService/GetToken""#;
        for line in [
            format!(r#"tokenward_grpc_calls_total{{{method},code="OK",reason=""}} 1"#),
            format!(
                r#"tokenward_grpc_calls_total{{{method},code="PERMISSION_DENIED",reason="ACCESS_DENIED"}} 1"#
            ),
            format!(r#"tokenward_grpc_call_seconds_bucket{{le="0.00005",{method}}} 0"#),
            format!(r#"tokenward_grpc_call_seconds_bucket{{le="0.0001",{method}}} 1"#),
            format!(r#"tokenward_grpc_call_seconds_bucket{{le="+Inf",{method}}} 2"#),
            format!("tokenward_grpc_call_seconds_count{{{method}}} 2"),
        ] {
            assert!(text.contains(&line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn a_path_that_is_not_in_the_table_is_not_found() {
        let calls = CallMetrics::new(&Metrics::new());
        assert!(calls.find("/tokenward.v1.TokenService/Other").is_none());
        assert!(calls.find("tokenward.v1.TokenService/GetToken").is_none());
    }
}
