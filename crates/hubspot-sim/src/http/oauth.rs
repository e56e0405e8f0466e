//! Token, introspection and revocation, in all versions.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Extension,
    extract::{Path, State},
    response::Response,
};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use serde_json::{Value, json};

use super::{Ask, Done, Reply, exchange};
use crate::{
    conn::Conn,
    errors::{ApiVersion, OAuthError},
    faults::Endpoint,
    handle::SimHandle,
    log::IssuedTokens,
    vendor::{Issued, LiveToken, Vendor, fingerprint},
};

/// Form fields; of a field that comes twice the first counts.
#[derive(Debug, Default)]
struct Form(HashMap<String, String>);

impl Form {
    /// Nothing when the body is not a form.
    fn read(headers: &HeaderMap, body: &Bytes) -> Self {
        let is_form = headers
            .get(header::CONTENT_TYPE)
            .and_then(|v| v.to_str().ok())
            .and_then(|v| v.split(';').next())
            .is_some_and(|v| v.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded"));
        let mut fields = HashMap::new();
        if is_form {
            for (name, value) in url::form_urlencoded::parse(body) {
                fields.entry(name.into_owned()).or_insert_with(|| value.into_owned());
            }
        }
        Self(fields)
    }

    fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    fn owned(&self, name: &str) -> Option<String> {
        self.0.get(name).filter(|v| !v.is_empty()).cloned()
    }
}

type Connection = Extension<Arc<Conn>>;

pub(super) async fn token_v1(
    sim: State<SimHandle>,
    conn: Connection,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    token(sim, conn, ApiVersion::V1, &headers, &body).await
}

pub(super) async fn token_v3(
    sim: State<SimHandle>,
    conn: Connection,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    token(sim, conn, ApiVersion::V3, &headers, &body).await
}

pub(super) async fn token_dated(
    sim: State<SimHandle>,
    conn: Connection,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    token(sim, conn, ApiVersion::Dated, &headers, &body).await
}

async fn token(
    State(sim): State<SimHandle>,
    Extension(conn): Connection,
    version: ApiVersion,
    headers: &HeaderMap,
    body: &Bytes,
) -> Response {
    let form = Form::read(headers, body);
    let ask = Ask {
        version,
        grant_type: form.owned("grant_type"),
        client_id: form.owned("client_id"),
        token: form.owned("refresh_token"),
        ..Ask::new(Endpoint::Token)
    };
    exchange(sim, conn, ask, move |sim| grant(sim, version, &form)).await
}

fn grant(sim: &SimHandle, version: ApiVersion, form: &Form) -> Done {
    let now_ms = sim.now_ms();
    let client_id = form.get("client_id");
    let mut vendor = sim.vendor();
    let mut reuse = false;
    let issued = match form.get("grant_type") {
        kind @ ("authorization_code" | "refresh_token" | "client_credentials") => vendor
            .authenticate(client_id, form.get("client_secret"), now_ms)
            .map(drop)
            .and_then(|()| match kind {
                "authorization_code" => {
                    let verifier = form.0.get("code_verifier").map(String::as_str);
                    let request = (client_id, form.get("code"), form.get("redirect_uri"), verifier);
                    vendor.redeem_code(request, now_ms, sim.rng())
                }
                "refresh_token" => {
                    vendor.refresh(client_id, form.get("refresh_token"), now_ms, sim.rng()).map_err(|e| {
                        reuse = e.1;
                        e.0
                    })
                }
                // No app of the stand-in has scopes of its own: it knows this grant as a probe of the secret.
                _ => Err(OAuthError::Scopes),
            }),
        _ => Err(OAuthError::GrantType),
    };
    let answer = issued.map(|issued| {
        let hub_id = vendor.families[issued.family].hub_id;
        (answer(&vendor, &issued), (hub_id, issued.family), told(&issued, now_ms))
    });
    drop(vendor);
    match answer {
        Ok((body, found, tokens)) => {
            Done { issued: Some(tokens), found: Some(found), ..Done::ok(Reply::json(StatusCode::OK, body)) }
        }
        Err(error) => Done { reuse_detected: reuse, ..Done::oauth_error(sim, error, version) },
    }
}

/// For the log.
fn told(issued: &Issued, now_ms: i64) -> IssuedTokens {
    IssuedTokens {
        at_ms: now_ms,
        expires_at_ms: now_ms.saturating_add(i64::from(issued.expires_in) * 1000),
        access_token: fingerprint(&issued.access_token),
        refresh_token: fingerprint(&issued.refresh_token),
    }
}

fn answer(vendor: &Vendor, issued: &Issued) -> Value {
    let family = &vendor.families[issued.family];
    json!({
        "token_type": "bearer",
        "access_token": issued.access_token,
        "refresh_token": &*issued.refresh_token,
        "expires_in": issued.expires_in,
        "hub_id": family.hub_id,
        "user_id": family.user_id,
        "scopes": &*family.scopes,
        "token_use": "access_token",
    })
}

/// RFC 7662 in HubSpot's dress; it echoes the token.
pub(super) async fn introspect(
    State(sim): State<SimHandle>,
    Extension(conn): Connection,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let form = Form::read(&headers, &body);
    let ask = Ask {
        client_id: form.owned("client_id"),
        token: form.owned("token"),
        ..Ask::new(Endpoint::Introspect)
    };
    exchange(sim, conn, ask, move |sim| {
        let now_ms = sim.now_ms();
        let vendor = sim.vendor();
        if let Err(error) = vendor.authenticate(form.get("client_id"), form.get("client_secret"), now_ms) {
            drop(vendor);
            return Done::oauth_error(sim, error, ApiVersion::Dated);
        }
        let token = form.get("token");
        let live = vendor.live_access(token, now_ms).or_else(|| vendor.live_refresh(token));
        let body = match live.filter(|l| *vendor.families[l.family].client_id == *form.get("client_id")) {
            Some(live) => {
                let mut body = metadata(&vendor, &live, token);
                body["active"] = json!(true);
                body["token_type"] = json!("Bearer");
                body
            }
            None => json!({"active": false}),
        };
        Done::ok(Reply::json(StatusCode::OK, body))
    })
    .await
}

fn metadata(vendor: &Vendor, live: &LiveToken, token: &str) -> Value {
    let family = &vendor.families[live.family];
    let portal = vendor.portals.get(&family.hub_id).map(|p| &p.portal);
    let mut body = json!({
        "token": token,
        "hub_id": family.hub_id,
        "user_id": family.user_id,
        "client_id": &*family.client_id,
        "app_id": vendor.apps.get(&*family.client_id).map_or(0, |a| a.app.app_id),
        "hub_domain": portal.map(|p| p.hub_domain.as_str()),
        "user": portal.map(|p| p.user_email.as_str()),
        "scopes": &*family.scopes,
        "token_use": "refresh_token",
    });
    if let Some(seconds) = live.expires_in {
        body["expires_in"] = json!(seconds);
        body["token_use"] = json!("access_token");
    }
    body
}

/// RFC 7009: 200 also for a token that is not known.
pub(super) async fn revoke(
    State(sim): State<SimHandle>,
    Extension(conn): Connection,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let form = Form::read(&headers, &body);
    let ask =
        Ask { client_id: form.owned("client_id"), token: form.owned("token"), ..Ask::new(Endpoint::Revoke) };
    exchange(sim, conn, ask, move |sim| {
        let client_id = form.get("client_id");
        let mut vendor = sim.vendor();
        let known = vendor.authenticate(client_id, form.get("client_secret"), sim.now_ms()).map(drop);
        if let Err(error) = known {
            drop(vendor);
            return Done::oauth_error(sim, error, ApiVersion::Dated);
        }
        vendor.revoke(form.get("token"), Some(client_id));
        Done::ok(Reply::empty(StatusCode::OK))
    })
    .await
}

pub(super) async fn delete_refresh_token(
    State(sim): State<SimHandle>,
    Extension(conn): Connection,
    Path(token): Path<String>,
) -> Response {
    let ask = Ask { version: ApiVersion::V1, token: Some(token.clone()), ..Ask::new(Endpoint::Revoke) };
    exchange(sim, conn, ask, move |sim| {
        sim.vendor().revoke(&token, None);
        Done::ok(Reply::empty(StatusCode::NO_CONTENT))
    })
    .await
}

pub(super) async fn access_token_metadata(
    State(sim): State<SimHandle>,
    Extension(conn): Connection,
    Path(token): Path<String>,
) -> Response {
    let look = |vendor: &Vendor, token: &str, now_ms| vendor.live_access(token, now_ms);
    v1_metadata(sim, conn, token, "bearer", look).await
}

pub(super) async fn refresh_token_metadata(
    State(sim): State<SimHandle>,
    Extension(conn): Connection,
    Path(token): Path<String>,
) -> Response {
    v1_metadata(sim, conn, token, "refresh", |vendor, token, _| vendor.live_refresh(token)).await
}

async fn v1_metadata(
    sim: SimHandle,
    conn: Arc<Conn>,
    token: String,
    token_type: &'static str,
    look: impl Fn(&Vendor, &str, i64) -> Option<LiveToken> + Send + 'static,
) -> Response {
    let ask = Ask { version: ApiVersion::V1, token: Some(token.clone()), ..Ask::new(Endpoint::Introspect) };
    exchange(sim, conn, ask, move |sim| {
        let now_ms = sim.now_ms();
        let vendor = sim.vendor();
        if let Some(live) = look(&vendor, &token, now_ms) {
            let mut body = metadata(&vendor, &live, &token);
            body["token_type"] = json!(token_type);
            return Done::ok(Reply::json(StatusCode::OK, body));
        }
        let body = json!({
            "status": "error", "message": "missing or unknown token", "correlationId": sim.rng().uuid(),
        });
        Done { code: Some("UNKNOWN_TOKEN"), ..Done::ok(Reply::json(StatusCode::NOT_FOUND, body)) }
    })
    .await
}
