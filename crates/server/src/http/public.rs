//! The public listener: what customers' browsers reach.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use tokenward_broker::Broker;
use url::Url;

use super::flow::ConnectFlow;
use super::handlers;
use super::results::Results;
use super::security::SecurityHeaders;
use super::surround::{PageMetrics, surround};
use crate::admission::{Admission, Waiting};

/// What the pages share.
pub(super) struct Pages<F> {
    pub(super) flow: F,
    /// `public_url` without a slash at its end.
    pub(super) base: String,
    pub(super) security: SecurityHeaders,
    pub(super) results: Results,
    pub(super) metrics: PageMetrics,
    pub(super) time_limit: Duration,
    /// Places of requests that are worked on.
    pub(super) places: Admission,
}

/// The longest time that a page takes: a code exchange with every secret tried.
const TIME_LIMIT: Duration = Duration::from_secs(30);

impl<F> Pages<F> {
    pub(super) fn new(flow: F, public_url: &Url, places: Admission) -> Self {
        Self {
            flow,
            base: public_url.as_str().trim_end_matches('/').to_owned(),
            security: SecurityHeaders::new(public_url),
            results: Results::default(),
            metrics: PageMetrics::default(),
            time_limit: TIME_LIMIT,
            places,
        }
    }
}

/// The pages of the connect flow, and nothing else:
///
/// | route | what it does |
/// |---|---|
/// | `GET /connect/{secret}` | shows what a link is for; starts nothing |
/// | `POST /connect/{secret}` | sets the attempt's cookie, 303 to the provider |
/// | `GET /oauth/{oauth_client_id}/callback` | takes the browser back, 303 to the result |
/// | `GET /connect/result/{id}` | shows the result for ten minutes |
/// | `GET /`, `GET /robots.txt` | for visitors without a link, and robots |
///
/// Works on `max_pages` requests at once, of which no route keeps another: links can be opened by anybody, and must not
/// keep customers from coming back. Counts its answers in the broker's metrics, so it is made once.
pub(crate) fn public_router(broker: Broker, max_pages: usize, waiting: &Waiting) -> Router {
    let public_url = broker.settings().public_url.clone();
    let places = Admission::new(max_pages, "page", "too many requests at once", waiting);
    let pages = Pages::new(broker, &public_url, places);
    pages.metrics.register(pages.flow.metrics());
    router(Arc::new(pages))
}

pub(super) fn router<F: ConnectFlow>(pages: Arc<Pages<F>>) -> Router {
    Router::new()
        .route("/", get(handlers::front))
        .route("/robots.txt", get(handlers::robots))
        .route("/connect/{secret}", get(handlers::show_link::<F>).post(handlers::start::<F>))
        .route("/connect/result/{id}", get(handlers::show_result::<F>))
        .route("/oauth/{oauth_client_id}/callback", get(handlers::callback::<F>))
        .fallback(handlers::not_found)
        .method_not_allowed_fallback(handlers::method_not_allowed)
        .layer(from_fn_with_state(Arc::clone(&pages), surround::<F>))
        .with_state(pages)
}
