//! The operations listener: metrics and health, for the platform's own tools.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use tokenward_broker::{Broker, ProviderHealth, Readiness};
use tokenward_types::ProviderName;

/// What the text exposition is called (OpenMetrics 1.0), which Prometheus asks for first.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whether this process wants traffic. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct ReadyHandle {
    draining: Arc<AtomicBool>,
}

impl ReadyHandle {
    /// Makes `/readyz` say no from now on, so that load balancers stop sending while open calls end.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether the process is on its way out.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

/// What the endpoints need of the broker.
pub(super) trait Health: Clone + Send + Sync + 'static {
    fn metrics_text(&self) -> String;
    fn readiness(&self) -> impl Future<Output = Readiness> + Send;
    fn provider_health(&self) -> Vec<(ProviderName, ProviderHealth)>;
}

impl Health for Broker {
    fn metrics_text(&self) -> String {
        self.metrics().encode()
    }

    async fn readiness(&self) -> Readiness {
        Self::readiness(self).await
    }

    fn provider_health(&self) -> Vec<(ProviderName, ProviderHealth)> {
        Self::provider_health(self)
    }
}

/// `/metrics` for Prometheus; `/livez`, which only a hung process fails; `/readyz`, 503 while the database does not work or the
/// process is draining, with a JSON body that names the part. The encryption backend and providers, by what their calls came to
/// lately, are named too and make nothing unready: tokens that live are served without them, and another server would fare no
/// better. No secret and no tenant shows here, but nothing of it is for the public either: bind it to loopback or a management
/// network.
pub fn operations_router(broker: Broker, ready: ReadyHandle) -> Router {
    router(broker, ready)
}

pub(super) fn router<H: Health>(health: H, ready: ReadyHandle) -> Router {
    Router::new()
        .route("/metrics", get(metrics::<H>))
        .route("/livez", get(|| async { ([(CACHE_CONTROL, "no-store")], "alive\n") }))
        .route("/readyz", get(readyz::<H>))
        .with_state((health, ready))
}

async fn metrics<H: Health>(State((health, _)): State<(H, ReadyHandle)>) -> Response {
    ([(CONTENT_TYPE, METRICS_TYPE), (CACHE_CONTROL, "no-store")], health.metrics_text()).into_response()
}

async fn readyz<H: Health>(State((health, ready)): State<(H, ReadyHandle)>) -> Response {
    let parts = health.readiness().await;
    let word = |part: &'static str, state: &Result<(), String>| match state {
        Ok(()) => "ok",
        Err(detail) => {
            // Drivers' words stay in the log.
            tracing::warn!(part, detail, "not ready");
            "unavailable"
        }
    };
    let (storage, encryption) = (word("storage", &parts.storage), word("encryption", &parts.encryption));
    let (code, status) = if ready.is_draining() {
        (StatusCode::SERVICE_UNAVAILABLE, "draining")
    } else if parts.is_ready() {
        (StatusCode::OK, "ready")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready")
    };
    // Only fixed words and names of letters and digits go in, so nothing needs escaping.
    let providers: Vec<String> = health
        .provider_health()
        .into_iter()
        .map(|(name, health)| format!(r#""{name}":"{}""#, health.as_str()))
        .collect();
    let body = format!(
        r#"{{"status":"{status}","parts":{{"storage":"{storage}","encryption":"{encryption}"}},"providers":{{{}}}}}"#,
        providers.join(",")
    );
    (code, [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")], body).into_response()
}
