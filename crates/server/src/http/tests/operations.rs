use std::sync::Arc;

use parking_lot::Mutex;
use tokenward_broker::{Metrics, ProviderHealth, Readiness};
use tokenward_types::ProviderName;

use super::fake::{browser, serve};
use crate::http::operations::{Health, ReadyHandle, router};

/// A broker whose parts are as the test wants them.
#[derive(Clone)]
struct Parts {
    metrics: Metrics,
    storage: Arc<Mutex<Result<(), String>>>,
    encryption: Arc<Mutex<Result<(), String>>>,
}

fn works() -> Arc<Mutex<Result<(), String>>> {
    Arc::new(Mutex::new(Ok(())))
}

impl Health for Parts {
    fn metrics_text(&self) -> String {
        self.metrics.encode()
    }

    async fn readiness(&self) -> Readiness {
        Readiness { storage: self.storage.lock().clone(), encryption: self.encryption.lock().clone() }
    }

    fn provider_health(&self) -> Vec<(ProviderName, ProviderHealth)> {
        let name = |text| ProviderName::parse(text).unwrap();
        vec![(name("crm"), ProviderHealth::Unreachable), (name("hubspot"), ProviderHealth::Ok)]
    }
}

async fn get(address: std::net::SocketAddr, path: &str) -> (u16, String, String) {
    let response = browser().get(format!("http://{address}{path}")).send().await.unwrap();
    let content_type = response.headers()["content-type"].to_str().unwrap().to_owned();
    (response.status().as_u16(), content_type, response.text().await.unwrap())
}

#[tokio::test]
async fn metrics_and_health_are_answered_and_name_the_part_that_fails() {
    let parts = Parts { metrics: Metrics::new(), storage: works(), encryption: works() };
    parts.metrics.cache_hits.inc_by(3);
    let ready = ReadyHandle::default();
    let (address, task) = serve(router(parts.clone(), ready.clone())).await;

    let (status, content_type, text) = get(address, "/metrics").await;
    assert_eq!(status, 200);
    assert!(content_type.starts_with("application/openmetrics-text; version=1.0.0"));
    assert!(text.contains("tokenward_cache_hits_total 3\n") && text.ends_with("# EOF\n"), "{text}");

    let (status, content_type, body) = get(address, "/readyz").await;
    assert_eq!((status, content_type.as_str()), (200, "application/json"));
    // A provider that is away is told of, and makes nothing unready.
    let providers = r#""providers":{"crm":"unreachable","hubspot":"ok"}"#;
    let ready_body = r#"{"status":"ready","parts":{"storage":"ok","encryption":"ok"},"#;
    assert_eq!(body, format!("{ready_body}{providers}}}"));
    serde_json::from_str::<serde_json::Value>(&body).unwrap();

    *parts.storage.lock() = Err("connection to 10.0.0.5 refused, password=hunter2".to_owned());
    let (status, _, body) = get(address, "/readyz").await;
    assert_eq!(status, 503);
    let unready_body = r#"{"status":"not ready","parts":{"storage":"unavailable","encryption":"ok"},"#;
    assert_eq!(body, format!("{unready_body}{providers}}}"));
    assert_eq!(get(address, "/livez").await.0, 200, "a database that is away is no reason for a restart");

    *parts.storage.lock() = Ok(());
    *parts.encryption.lock() = Err("connection to 10.0.0.6 refused, token=hunter2".to_owned());
    let (status, _, body) = get(address, "/readyz").await;
    assert_eq!(
        status, 200,
        "what is in memory is still given out, and every other server asks the same backend"
    );
    let served_body = r#"{"status":"ready","parts":{"storage":"ok","encryption":"unavailable"},"#;
    assert_eq!(body, format!("{served_body}{providers}}}"));

    ready.drain();
    let (status, _, body) = get(address, "/readyz").await;
    assert_eq!((status, body.contains("draining")), (503, true));
    assert_eq!(browser().get(format!("http://{address}/other")).send().await.unwrap().status(), 404);
    task.abort();
}
