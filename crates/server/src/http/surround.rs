//! What surrounds every page: request identifier, limits, time limit, headers, counts, and the one log event.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::header::{CONTENT_LENGTH, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tokenward_broker::{Error, Metrics, Reason};
use tokenward_types::RequestId;
use tracing::Instrument;

use super::flow::ConnectFlow;
use super::handlers::failure;
use super::public::Pages;
use super::{cookies, explain, views};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest path and query. Codes of some vendors are signed tokens.
const MAX_URL: usize = 8 * 1024;
const MAX_COOKIES: usize = 16 * 1024;
/// The forms have no fields.
const MAX_BODY: u64 = 4 * 1024;

/// Why a page says that something failed, for the log event. Rides on the response.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    reason: Reason,
    detail: String,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            reason: error.reason,
            detail: format!("{} {}", error.message, error.log_detail()).trim().to_owned(),
        }
    }
}

/// Labels of an answered request. No URL: routes have few values, URLs are secret.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PageLabels {
    route: String,
    status: u32,
    reason: &'static str,
}

/// Counts of answered requests.
#[derive(Clone, Default)]
pub(super) struct PageMetrics(Family<PageLabels, Counter>);

impl PageMetrics {
    pub(super) fn register(&self, metrics: &Metrics) {
        let requests = self.0.clone();
        metrics
            .register(|registry| registry.register("http_requests", "Pages answered to browsers", requests));
    }
}

/// Runs a handler.
pub(super) async fn surround<F: ConnectFlow>(
    State(pages): State<Arc<Pages<F>>>,
    mut request: Request,
    next: Next,
) -> Response {
    let began = pages.flow.clock().monotonic();
    let request_id = request_id(&pages, request.headers());
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str).to_owned();
    request.extensions_mut().insert(request_id.clone());

    let span = tracing::info_span!("request", %request_id);
    let mut response = match (over_limit(&request), pages.places.enter(&route, None)) {
        (Some(status), _) => views::notice(status, &explain::TOO_LARGE),
        (None, Err(error)) => overloaded(error, &request_id),
        (None, Ok(_place)) => tokio::time::timeout(pages.time_limit, next.run(request).instrument(span))
            .await
            .unwrap_or_else(|_| failure(Error::new(Reason::DeadlineExceeded, "time is up"), &request_id)),
    };

    pages.security.apply(response.headers_mut());
    if let Ok(value) = HeaderValue::try_from(request_id.as_str()) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    let status = response.status();
    let failure = response.extensions_mut().remove::<Failure>();
    let (reason, detail) =
        failure.as_ref().map_or(("", ""), |failure| (failure.reason.as_str(), failure.detail.as_str()));
    let labels = PageLabels { route: route.clone(), status: status.as_u16().into(), reason };
    pages.metrics.0.get_or_create(&labels).inc();
    let millis = u64::try_from(pages.flow.clock().monotonic().since(began).as_millis()).unwrap_or(u64::MAX);
    if status.is_server_error() {
        tracing::warn!(%request_id, %method, route, status = status.as_u16(), reason, detail, millis, "page failed");
    } else {
        tracing::info!(%request_id, %method, route, status = status.as_u16(), reason, detail, millis, "page answered");
    }
    response
}

/// A page that asks for patience, and says so to programs too.
fn overloaded(error: Error, request_id: &RequestId) -> Response {
    let wait = error.retry_after.unwrap_or_default();
    let mut response = failure(error, request_id);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
    response
}

/// The identifier that a proxy gave the request, or a new one.
fn request_id<F: ConnectFlow>(pages: &Pages<F>, headers: &HeaderMap) -> RequestId {
    headers
        .get(REQUEST_ID)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| RequestId::parse(text).ok())
        .unwrap_or_else(|| RequestId::generate(pages.flow.clock(), pages.flow.rng()))
}

fn over_limit(request: &Request) -> Option<StatusCode> {
    let url = request.uri().path_and_query().map_or(0, |url| url.as_str().len());
    let body =
        request.headers().get(CONTENT_LENGTH).map_or(Some(0), |length| length.to_str().ok()?.parse().ok());
    if url > MAX_URL {
        Some(StatusCode::URI_TOO_LONG)
    } else if cookies::size(request.headers()) > MAX_COOKIES {
        Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)
    } else if body.is_none_or(|length: u64| length > MAX_BODY) {
        Some(StatusCode::PAYLOAD_TOO_LARGE)
    } else {
        None
    }
}
