//! The pages. Everything that is put into them is escaped.

use askama::Template;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use tokenward_broker::{ConnectPage, FinishedConnect};
use url::Url;

use super::explain::Explanation;

/// The style sheet, as it stands in every page and is hashed for the content security policy.
pub(super) const STYLE: &str = include_str!("../../templates/style.css");

/// More scopes than this are folded away.
const FOLD_SCOPES: usize = 8;

/// What a link is for, and the button to go on.
#[derive(Template)]
#[template(path = "connect.html")]
struct ConnectView<'a> {
    style: &'static str,
    page: &'a ConnectPage,
    provider_host: Option<String>,
}

impl ConnectView<'_> {
    fn is_long(&self) -> bool {
        self.page.scopes.len() + self.page.optional_scopes.len() > FOLD_SCOPES
    }
}

/// A connection that was made.
#[derive(Template)]
#[template(path = "connected.html")]
struct ConnectedView<'a> {
    style: &'static str,
    done: &'a FinishedConnect,
    back: Option<Back>,
}

/// Where the browser may go on to.
struct Back {
    href: String,
    host: String,
}

/// A page that only says something.
#[derive(Template)]
#[template(path = "notice.html")]
struct NoticeView<'a> {
    style: &'static str,
    text: &'a Explanation,
    failed: bool,
    reference: Option<&'a str>,
}

pub(super) fn connect(page: &ConnectPage) -> Response {
    let provider_host =
        Url::parse(&page.authorize_origin).ok().and_then(|url| url.host_str().map(str::to_owned));
    render(StatusCode::OK, &ConnectView { style: STYLE, page, provider_host })
}

pub(super) fn connected(done: &FinishedConnect) -> Response {
    let back = done.return_url.as_deref().and_then(|text| {
        let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "https" | "http"))?;
        Some(Back { host: url.host_str()?.to_owned(), href: url.into() })
    });
    render(StatusCode::OK, &ConnectedView { style: STYLE, done, back })
}

/// A failure, with what support needs to find it in the log.
pub(super) fn failure(status: StatusCode, text: &Explanation, reference: &str) -> Response {
    render(status, &NoticeView { style: STYLE, text, failed: true, reference: Some(reference) })
}

pub(super) fn notice(status: StatusCode, text: &Explanation) -> Response {
    render(status, &NoticeView { style: STYLE, text, failed: false, reference: None })
}

fn render(status: StatusCode, page: &impl Template) -> Response {
    match page.render() {
        Ok(html) => {
            let html_type = (CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
            (status, [html_type], html).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "page not rendered");
            (StatusCode::INTERNAL_SERVER_ERROR, "The page cannot be shown.").into_response()
        }
    }
}
