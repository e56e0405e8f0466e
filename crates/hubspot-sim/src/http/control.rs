//! `/_sim`: the control API, a thin layer on [`SimHandle`].

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, Query, State},
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    SimError,
    config::{App, Portal, Settings, SettingsPatch},
    faults::{ActiveFault, Fault},
    handle::{CreatedGrant, FamilyView, GrantRequest, Overlap, SimHandle, TokenFilter},
    log::{LogPage, Stats},
};

/// Room for the account numbers of a few hundred thousand consents.
const BODY_LIMIT: usize = 16 * 1024 * 1024;

type Sim = State<SimHandle>;

pub(super) fn router() -> Router<SimHandle> {
    Router::new()
        .route("/settings", get(settings).patch(change_settings))
        .route("/faults", get(faults).post(add_fault).delete(clear_faults))
        .route("/faults/{id}", delete(remove_fault))
        .route("/apps", post(add_app))
        .route("/apps/{client_id}/secret", post(set_secret))
        .route("/portals", post(add_portal))
        .route("/portals/{hub_id}", delete(delete_portal))
        .route("/portals/{hub_id}/uninstall", post(uninstall))
        .route("/portals/{hub_id}/invalidate-access-tokens", post(invalidate))
        .route("/clock", get(clock))
        .route("/clock/advance", post(advance))
        .route("/grants", post(create_grants))
        .route("/grants/{hub_id}", get(grants))
        .route("/tokens", get(tokens))
        .route("/static-tokens", post(static_token))
        .route("/log", get(log).delete(clear_log))
        .route("/stats", get(stats))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
}

impl IntoResponse for SimError {
    fn into_response(self) -> Response {
        let status = match self {
            Self::UnknownApp(_) | Self::UnknownPortal(_) => StatusCode::NOT_FOUND,
            Self::Start(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::RedirectUri(_) | Self::Invalid(_) => StatusCode::BAD_REQUEST,
        };
        (status, Json(json!({"error": self.to_string()}))).into_response()
    }
}

async fn settings(State(sim): Sim) -> Json<Settings> {
    Json(sim.settings())
}

async fn change_settings(State(sim): Sim, Json(patch): Json<SettingsPatch>) -> Json<Settings> {
    Json(sim.change_settings(patch))
}

async fn faults(State(sim): Sim) -> Json<Vec<ActiveFault>> {
    Json(sim.faults())
}

async fn add_fault(State(sim): Sim, Json(order): Json<Value>) -> Result<Json<Value>, SimError> {
    let fault: Fault = serde_json::from_value(order.clone()).map_err(|e| SimError::Invalid(e.to_string()))?;
    // A misspelled selector would silently hit every request.
    let known = serde_json::to_value(&fault).unwrap_or_default();
    let names = order.as_object().into_iter().flatten().map(|(name, _)| name);
    if let Some(name) = names.into_iter().find(|name| known.get(name.as_str()).is_none()) {
        return Err(SimError::Invalid(format!("{} has no field {name:?}", fault.kind.name())));
    }
    Ok(Json(json!({"id": sim.add_fault(fault)})))
}

async fn clear_faults(State(sim): Sim) -> StatusCode {
    sim.clear_faults();
    StatusCode::NO_CONTENT
}

async fn remove_fault(State(sim): Sim, Path(id): Path<u64>) -> StatusCode {
    if sim.remove_fault(id) { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND }
}

async fn add_app(State(sim): Sim, Json(app): Json<App>) -> Result<StatusCode, SimError> {
    sim.add_app(app).map(|()| StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewSecret {
    client_secret: String,
    #[serde(default)]
    overlap_secs: u64,
}

async fn set_secret(
    State(sim): Sim,
    Path(client_id): Path<String>,
    Json(new): Json<NewSecret>,
) -> Result<StatusCode, SimError> {
    let overlap = if new.overlap_secs == 0 { Overlap::None } else { Overlap::Secs(new.overlap_secs) };
    sim.set_client_secret(&client_id, &new.client_secret, overlap).map(|()| StatusCode::NO_CONTENT)
}

async fn add_portal(State(sim): Sim, Json(portal): Json<Portal>) -> StatusCode {
    sim.add_portal(portal);
    StatusCode::NO_CONTENT
}

async fn delete_portal(State(sim): Sim, Path(hub_id): Path<u64>) -> Result<StatusCode, SimError> {
    sim.delete_portal(hub_id).map(|()| StatusCode::NO_CONTENT)
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Uninstall {
    client_id: Option<String>,
}

async fn uninstall(
    State(sim): Sim,
    Path(hub_id): Path<u64>,
    Json(which): Json<Uninstall>,
) -> Result<Json<Value>, SimError> {
    let ended = sim.uninstall(hub_id, which.client_id.as_deref())?;
    Ok(Json(json!({"ended": ended})))
}

async fn invalidate(State(sim): Sim, Path(hub_id): Path<u64>) -> Result<StatusCode, SimError> {
    sim.invalidate_access_tokens(hub_id).map(|()| StatusCode::NO_CONTENT)
}

async fn clock(State(sim): Sim) -> Json<Value> {
    Json(json!({"now_ms": sim.now_ms()}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Advance {
    secs: i64,
}

async fn advance(State(sim): Sim, Json(by): Json<Advance>) -> Json<Value> {
    sim.advance_secs(by.secs);
    Json(json!({"now_ms": sim.now_ms()}))
}

async fn create_grants(
    State(sim): Sim,
    Json(request): Json<GrantRequest>,
) -> Result<Json<Vec<CreatedGrant>>, SimError> {
    sim.create_grants(&request).map(Json)
}

async fn grants(State(sim): Sim, Path(hub_id): Path<u64>) -> Json<Vec<FamilyView>> {
    Json(sim.grants(hub_id))
}

async fn tokens(State(sim): Sim, Query(filter): Query<TokenFilter>) -> Json<Vec<FamilyView>> {
    Json(sim.living(&filter))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StaticToken {
    hub_id: u64,
    scopes: Vec<String>,
}

async fn static_token(State(sim): Sim, Json(order): Json<StaticToken>) -> Result<Json<Value>, SimError> {
    let token = sim.add_static_token(order.hub_id, order.scopes)?;
    Ok(Json(json!({"token": token})))
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct LogQuery {
    since: Option<u64>,
    limit: Option<usize>,
}

async fn log(State(sim): Sim, Query(query): Query<LogQuery>) -> Json<LogPage> {
    Json(sim.log(query.since, query.limit.unwrap_or(1000)))
}

async fn clear_log(State(sim): Sim) -> StatusCode {
    sim.clear_log();
    StatusCode::NO_CONTENT
}

async fn stats(State(sim): Sim) -> Json<Stats> {
    Json(sim.stats())
}
