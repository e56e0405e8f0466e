//! One function a route.

use std::sync::Arc;

use axum::Extension;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, SET_COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use secrecy::ExposeSecret;
use tokenward_broker::{Error, Reason};
use tokenward_types::{OAuthClientId, RequestId};

use super::explain::{self, explain};
use super::flow::ConnectFlow;
use super::public::Pages;
use super::query::CallbackQuery;
use super::results::Outcome;
use super::surround::Failure;
use super::{cookies, views};
use crate::error_table::lookup;

/// The longest secret of a link; ours have 43 characters.
const MAX_SECRET: usize = 128;
/// How a browser says where a request comes from (W3C Fetch Metadata).
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

type Shared<F> = State<Arc<Pages<F>>>;
type PathText = Result<Path<String>, PathRejection>;

pub(super) async fn front() -> Response {
    views::notice(StatusCode::OK, &explain::FRONT)
}

pub(super) async fn robots() -> Response {
    ([(CONTENT_TYPE, "text/plain; charset=utf-8")], "User-agent: *\nDisallow: /\n").into_response()
}

pub(super) async fn not_found() -> Response {
    views::notice(StatusCode::NOT_FOUND, &explain::NO_PAGE)
}

pub(super) async fn method_not_allowed() -> Response {
    views::notice(StatusCode::METHOD_NOT_ALLOWED, &explain::NO_METHOD)
}

/// Shows what a link is for. Also answers HEAD. Starts nothing.
pub(super) async fn show_link<F: ConnectFlow>(
    State(pages): Shared<F>,
    Extension(request_id): Extension<RequestId>,
    path: PathText,
) -> Response {
    let page = match link_secret(path) {
        Ok(secret) => pages.flow.page(&secret).await,
        Err(error) => Err(error),
    };
    match page {
        Ok(page) => {
            let mut response = views::connect(&page);
            let policy = pages.security.policy_with_form(&page.authorize_origin);
            response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
            response
        }
        Err(error) => failure(error, &request_id),
    }
}

/// Sends the browser to the provider.
pub(super) async fn start<F: ConnectFlow>(
    State(pages): Shared<F>,
    Extension(request_id): Extension<RequestId>,
    path: PathText,
    headers: HeaderMap,
) -> Response {
    let secret = match link_secret(path) {
        Ok(secret) => secret,
        Err(error) => return failure(error, &request_id),
    };
    if !is_from_our_page(&headers) {
        // Another site's form must not take a customer past the page that says what is asked.
        return see_other(&format!("{}/connect/{secret}", pages.base));
    }
    match pages.flow.start(&secret).await {
        Ok(started) => {
            let value = started.cookie_value.expose_secret();
            let cookie = cookies::set(&started.cookie_name, value, started.max_age, started.cookie_secure);
            let Some(cookie) = cookie else {
                return failure(Error::new(Reason::Internal, "the cookie cannot be sent"), &request_id);
            };
            let mut response = see_other(started.authorize_url.as_str());
            response.headers_mut().insert(SET_COOKIE, cookie);
            response
        }
        Err(error) => failure(error, &request_id),
    }
}

/// Takes the browser back, and sends it on to an address that holds neither code nor state.
pub(super) async fn callback<F: ConnectFlow>(
    State(pages): Shared<F>,
    Extension(request_id): Extension<RequestId>,
    path: PathText,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let finished = finish(&pages, path, query.as_deref().unwrap_or_default(), &headers).await;
    let result = |outcome| {
        let name = pages.results.put(outcome, pages.flow.clock(), pages.flow.rng());
        see_other(&format!("{}/connect/result/{name}", pages.base))
    };
    match finished {
        Ok(done) => {
            // The cookie stays until it expires: who reloads the page is told that it came before, not that the browser
            // is the wrong one. Its state is used up.
            result(Outcome::Connected(Arc::new(done)))
        }
        Err(error) => {
            let mut response = result(Outcome::Failed { reason: error.reason, request_id });
            response.extensions_mut().insert(Failure::from(error));
            response
        }
    }
}

async fn finish<F: ConnectFlow>(
    pages: &Pages<F>,
    path: PathText,
    query: &str,
    headers: &HeaderMap,
) -> Result<tokenward_broker::FinishedConnect, Error> {
    let unknown = || Error::new(Reason::StateUnknown, "no such redirect address");
    let Path(client) = path.map_err(|_| unknown())?;
    let client = OAuthClientId::parse(&client).map_err(|_| unknown())?;
    let query = CallbackQuery::parse(query)?;
    let cookies = cookies::parse(headers);
    pages.flow.finish(query.callback(client.as_str(), &cookies)).await
}

/// Shows what became of an attempt.
pub(super) async fn show_result<F: ConnectFlow>(State(pages): Shared<F>, path: PathText) -> Response {
    let outcome = path.ok().and_then(|Path(name)| pages.results.get(&name, pages.flow.clock()));
    match outcome {
        Some(Outcome::Connected(done)) => views::connected(&done),
        Some(Outcome::Failed { reason, request_id }) => {
            views::failure(StatusCode::OK, &explain(reason), &reference(reason, &request_id))
        }
        None => views::notice(StatusCode::NOT_FOUND, &explain::NO_RESULT),
    }
}

/// A page about an error, with the status of the one table.
pub(super) fn failure(error: Error, request_id: &RequestId) -> Response {
    let status = lookup(error.reason).http;
    let mut response = views::failure(status, &explain(error.reason), &reference(error.reason, request_id));
    response.extensions_mut().insert(Failure::from(error));
    response
}

fn reference(reason: Reason, request_id: &RequestId) -> String {
    format!("{reason} {request_id}")
}

/// The secret of a link, if it can be one at all.
fn link_secret(path: PathText) -> Result<String, Error> {
    path.ok()
        .map(|Path(secret)| secret)
        .filter(|secret| secret.len() <= MAX_SECRET)
        .filter(|secret| secret.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'))
        .ok_or_else(|| Error::new(Reason::LinkUnknown, "this cannot be a link's secret"))
}

/// Browsers that do not say are believed: the header is a second line of defence.
fn is_from_our_page(headers: &HeaderMap) -> bool {
    headers.get(SEC_FETCH_SITE).is_none_or(|site| site == "same-origin" || site == "none")
}

fn see_other(location: &str) -> Response {
    match HeaderValue::try_from(location) {
        Ok(location) => (StatusCode::SEE_OTHER, [(LOCATION, location)]).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
