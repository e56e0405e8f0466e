//! Routes, and the one path that every vendor request takes: log, faults, work, answer.

mod authorize;
mod control;
mod crm;
mod oauth;

use std::{net::IpAddr, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::DefaultBodyLimit,
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use crate::{
    conn::{Conn, Delivery},
    errors::{ApiError, ApiVersion, OAuthError, rate_limited},
    faults::{Endpoint, FaultKind, Plan, Subject},
    handle::SimHandle,
    log::{IssuedTokens, LogEntry, Outcome},
    vendor::fingerprint,
};

/// Larger than any form or JSON that HubSpot takes.
const BODY_LIMIT: usize = 64 * 1024;
const HUGE_BODY: usize = 10 * 1024 * 1024;

pub(crate) fn router(sim: SimHandle) -> Router {
    let mut router = Router::new()
        .route("/oauth/authorize", get(authorize::page))
        .route("/oauth/{hub_id}/authorize", get(authorize::pinned_page))
        .route("/oauth/authorize/decision", post(authorize::decision))
        .route("/oauth/v1/access-tokens/{token}", get(oauth::access_token_metadata))
        .route(
            "/oauth/v1/refresh-tokens/{token}",
            get(oauth::refresh_token_metadata).delete(oauth::delete_refresh_token),
        )
        .route("/oauth/v1/token", post(oauth::token_v1))
        .route("/appinstalls/{version}/external-install", delete(crm::uninstall))
        .route("/crm/v3/objects/contacts", get(crm::contacts))
        .route("/crm/objects/{version}/contacts", get(crm::contacts))
        .layer(DefaultBodyLimit::max(BODY_LIMIT));
    router = router.route("/oauth/v3/token", post(oauth::token_v3));
    for version in ["2026-03", "2026-09"] {
        router = router.route(&format!("/oauth/{version}/token"), post(oauth::token_dated));
    }
    for version in ["v3", "2026-03", "2026-09"] {
        router = router
            .route(&format!("/oauth/{version}/token/introspect"), post(oauth::introspect))
            .route(&format!("/oauth/{version}/token/revoke"), post(oauth::revoke));
    }
    router.nest("/_sim", control::router()).fallback(not_found).with_state(sim)
}

async fn not_found() -> Response {
    let body = json!({"status": "error", "message": "resource not found", "category": "OBJECT_NOT_FOUND"});
    Reply::json(StatusCode::NOT_FOUND, body).into_response()
}

/// An answer that faults can still change.
#[derive(Debug)]
pub(crate) struct Reply {
    status: StatusCode,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Content,
}

#[derive(Debug)]
enum Content {
    Empty,
    Json(Value),
    Raw(Bytes),
}

impl Reply {
    fn empty(status: StatusCode) -> Self {
        Self { status, headers: Vec::new(), body: Content::Empty }
    }

    fn json(status: StatusCode, body: Value) -> Self {
        Self { status, headers: Vec::new(), body: Content::Json(body) }
    }

    fn html(status: StatusCode, page: String) -> Self {
        Self::raw(status, HeaderValue::from_static("text/html; charset=utf-8"), page.into())
    }

    fn raw(status: StatusCode, content_type: HeaderValue, body: Bytes) -> Self {
        Self { status, headers: vec![(header::CONTENT_TYPE, content_type)], body: Content::Raw(body) }
    }

    fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    fn retry_after(self, seconds: Option<u64>) -> Self {
        match seconds {
            Some(seconds) => self.with(header::RETRY_AFTER, HeaderValue::from(seconds)),
            None => self,
        }
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        let mut response = match self.body {
            Content::Empty => Response::new(Body::empty()),
            Content::Raw(bytes) => Response::new(bytes.into()),
            Content::Json(value) => {
                let mut response = Response::new(Body::from(value.to_string()));
                let json = HeaderValue::from_static("application/json;charset=utf-8");
                response.headers_mut().insert(header::CONTENT_TYPE, json);
                response
            }
        };
        *response.status_mut() = self.status;
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response.headers_mut().extend(self.headers);
        response
    }
}

/// What was asked, as far as faults and the log care.
#[derive(Debug)]
pub(crate) struct Ask {
    endpoint: Endpoint,
    version: ApiVersion,
    grant_type: Option<String>,
    client_id: Option<String>,
    token: Option<String>,
}

impl Ask {
    fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, version: ApiVersion::Dated, grant_type: None, client_id: None, token: None }
    }
}

/// What the real work came to.
#[derive(Debug)]
pub(crate) struct Done {
    reply: Reply,
    issued: Option<IssuedTokens>,
    code: Option<&'static str>,
    reuse_detected: bool,
    /// Account and family, where they come out only by doing the work.
    found: Option<(u64, usize)>,
}

impl Done {
    fn ok(reply: Reply) -> Self {
        Self { reply, issued: None, code: None, reuse_detected: false, found: None }
    }

    fn oauth_error(sim: &SimHandle, error: OAuthError, version: ApiVersion) -> Self {
        let settings = sim.settings();
        let status = error.status(version, settings.wrong_secret_status);
        let body = error.body(version, settings.error_style, &sim.rng().uuid());
        Self { code: Some(error.code()), ..Self::ok(Reply::json(status, body)) }
    }

    fn api_error(sim: &SimHandle, error: &ApiError) -> Self {
        let reply = Reply::json(error.status(), error.body(&sim.rng().uuid()));
        Self { code: Some(error.category()), ..Self::ok(reply) }
    }
}

/// Logs the request, makes the trouble that was ordered, does the work and hands the answer to the connection.
async fn exchange<W>(sim: SimHandle, conn: Arc<Conn>, ask: Ask, work: W) -> Response
where
    W: FnOnce(&SimHandle) -> Done + Send + 'static,
{
    let (seq, plan) = open(&sim, &ask, conn.peer());
    let (reply, delivery) = if plan.delay_before.is_zero() && plan.delay_after.is_zero() {
        settle(&sim, seq, &ask, plan, work)
    } else {
        // A client that gives up waiting must not undo what the vendor does.
        let task = tokio::spawn({
            let sim = sim.clone();
            async move {
                let after = plan.delay_after;
                tokio::time::sleep(plan.delay_before).await;
                let settled = settle(&sim, seq, &ask, plan, work);
                tokio::time::sleep(after).await;
                settled
            }
        });
        match task.await {
            Ok(settled) => settled,
            Err(_) => (Reply::empty(StatusCode::INTERNAL_SERVER_ERROR), Delivery::Cut),
        }
    };
    conn.answer(seq, delivery);
    reply.into_response()
}

/// Writes the request into the log and chooses its faults.
fn open(sim: &SimHandle, ask: &Ask, peer: IpAddr) -> (u64, Plan) {
    let (family, hub_id, owner) = {
        let vendor = sim.vendor();
        match ask.token.as_deref().and_then(|t| vendor.family_of(t)) {
            Some(id) => {
                let family = &vendor.families[id];
                (Some(id as u64), Some(family.hub_id), Some(family.client_id.clone()))
            }
            None => (None, None, None),
        }
    };
    let client_id = ask.client_id.as_deref().or(owner.as_deref());
    let subject =
        Subject { endpoint: ask.endpoint, grant_type: ask.grant_type.as_deref(), client_id, hub_id };
    let plan = sim.0.faults.lock().plan(&subject, sim.rng());
    let seq = sim.journal().open(LogEntry {
        seq: 0,
        at_ms: sim.now_ms(),
        peer: Some(peer),
        endpoint: ask.endpoint,
        grant_type: ask.grant_type.as_deref().map(bounded),
        client_id: client_id.map(bounded),
        hub_id,
        token: ask.token.as_deref().map(fingerprint),
        family,
        outcome: Outcome::Pending,
        code: None,
        status: 0,
        issued: false,
        tokens: None,
        faults: plan.names.iter().map(|&n| n.to_owned()).collect(),
        server_us: 0,
        delivered: false,
    });
    (seq, plan)
}

/// Text from the network, short enough to be kept in the log.
fn bounded(text: &str) -> String {
    text.chars().take(64).collect()
}

/// Does the work and applies the plan; records the outcome.
fn settle<W>(sim: &SimHandle, seq: u64, ask: &Ask, mut plan: Plan, work: W) -> (Reply, Delivery)
where
    W: FnOnce(&SimHandle) -> Done,
{
    let replaced = plan.replace.take();
    let mut done = if replaced.is_none() || plan.work_first {
        work(sim)
    } else {
        Done::ok(Reply::empty(StatusCode::OK))
    };
    let issued = done.issued.is_some();
    let mut outcome = match (issued, done.code) {
        (true, _) => Outcome::Issued,
        (false, Some(_)) => Outcome::Error,
        (false, None) => Outcome::Ok,
    };
    edit(&mut done.reply, &plan.edits);
    let mut delivery = Delivery::Whole;
    if let Some(kind) = replaced {
        outcome = Outcome::Fault;
        (done.reply, delivery) = replace(sim, ask, kind, done.reply);
    }
    let mut journal = sim.journal();
    journal.stats.issued += u64::from(issued);
    journal.stats.issued_untold += u64::from(issued && outcome == Outcome::Fault);
    journal.stats.reuse_detected += u64::from(done.reuse_detected);
    if let Some(code) = done.code {
        journal.error(code);
    }
    if let Some(entry) = journal.entry(seq) {
        entry.outcome = outcome;
        entry.code = done.code.map(str::to_owned);
        entry.issued = issued;
        entry.tokens = done.issued;
        entry.status = if delivery == Delivery::Cut { 0 } else { done.reply.status.as_u16() };
        if let Some((hub_id, family)) = done.found {
            entry.hub_id = Some(hub_id);
            entry.family = Some(family as u64);
        }
    }
    (done.reply, delivery)
}

/// Changes a successful token answer.
fn edit(reply: &mut Reply, edits: &[FaultKind]) {
    let Content::Json(Value::Object(body)) = &mut reply.body else { return };
    if !reply.status.is_success() {
        return;
    }
    for kind in edits {
        match kind {
            FaultKind::NoExpiresIn => {
                body.remove("expires_in");
            }
            FaultKind::NegativeExpiresIn => {
                body.insert("expires_in".into(), json!(-1));
            }
            FaultKind::NoRefreshToken => {
                body.remove("refresh_token");
            }
            FaultKind::WrongHubId { answer_hub_id } => {
                body.insert("hub_id".into(), json!(answer_hub_id));
            }
            _ => {}
        }
    }
}

/// What a fault answers in place of `real`.
fn replace(sim: &SimHandle, ask: &Ask, kind: FaultKind, real: Reply) -> (Reply, Delivery) {
    let refuse = |error| Done::oauth_error(sim, error, ask.version).reply;
    let reply = match kind {
        FaultKind::TruncatedBody => return (real, Delivery::Half { left: None }),
        FaultKind::DropReplyAfterIssue | FaultKind::HangUpBefore => return (real, Delivery::Cut),
        FaultKind::Status { status, body, content_type, retry_after } => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let content_type = content_type
                .and_then(|t| HeaderValue::try_from(t).ok())
                .unwrap_or_else(|| HeaderValue::from_static("application/json"));
            let body = body.unwrap_or_else(|| {
                json!({"status": "error", "message": "ordered by a fault", "correlationId": sim.rng().uuid()})
                    .to_string()
            });
            Reply::raw(status, content_type, body.into()).retry_after(retry_after)
        }
        FaultKind::Html { status } => {
            let status = status.and_then(|s| StatusCode::from_u16(s).ok()).unwrap_or(StatusCode::BAD_GATEWAY);
            Reply::html(status, "<html><body><h1>Bad gateway</h1><p>proxy error</p></body></html>".into())
        }
        FaultKind::EmptyBody => Reply::empty(StatusCode::OK),
        FaultKind::HugeBody { bytes } => {
            let fill = "x".repeat(bytes.unwrap_or(HUGE_BODY).saturating_sub(14));
            let json = HeaderValue::from_static("application/json");
            Reply::raw(StatusCode::OK, json, format!("{{\"padding\":\"{fill}\"}}").into())
        }
        FaultKind::RateLimited { retry_after, policy_name } => {
            let policy = policy_name.as_deref().unwrap_or("TEN_SECONDLY_ROLLING");
            let body = rate_limited(policy, &sim.rng().uuid());
            Reply::json(StatusCode::TOO_MANY_REQUESTS, body).retry_after(retry_after)
        }
        FaultKind::BadHub => refuse(OAuthError::Hub),
        FaultKind::BadRefreshToken => refuse(OAuthError::RefreshToken),
        FaultKind::BadClientSecret => refuse(OAuthError::ClientSecret),
        FaultKind::Latency { .. }
        | FaultKind::NoExpiresIn
        | FaultKind::NegativeExpiresIn
        | FaultKind::NoRefreshToken
        | FaultKind::WrongHubId { .. } => real,
    };
    (reply, Delivery::Whole)
}

/// The token of `Authorization: Bearer …`.
fn bearer_token(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
}
