//! What a token is good for: reading contacts, and uninstalling the app.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Extension,
    extract::{Query, State},
    response::Response,
};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use super::{Ask, Done, Reply, bearer_token, exchange};
use crate::{conn::Conn, errors::ApiError, faults::Endpoint, handle::SimHandle, vendor::Bearer};

/// Contacts that every account has.
const CONTACTS: u64 = 25;
const NAMES: [(&str, &str); 5] = [
    ("Maria", "Johnson"),
    ("Brian", "Halligan"),
    ("Ada", "Lovelace"),
    ("Grace", "Hopper"),
    ("Alan", "Turing"),
];
const CREATED: &str = "2026-01-15T09:30:00.000Z";

/// `GET /crm/v3/objects/contacts`: <https://developers.hubspot.com/docs/api/crm/contacts>
pub(super) async fn contacts(
    State(sim): State<SimHandle>,
    Extension(conn): Extension<Arc<Conn>>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    let token = bearer_token(&headers);
    let ask = Ask { token: token.clone(), ..Ask::new(Endpoint::Contacts) };
    exchange(sim, conn, ask, move |sim| {
        let page = authenticate(sim, token.as_deref()).and_then(|bearer| list(&bearer, &query));
        match page {
            Ok(body) => Done::ok(Reply::json(StatusCode::OK, body)),
            Err(error) => Done::api_error(sim, &error),
        }
    })
    .await
}

fn authenticate(sim: &SimHandle, token: Option<&str>) -> Result<Bearer, ApiError> {
    sim.vendor().bearer(token.ok_or(ApiError::InvalidAuthentication)?, sim.now_ms())
}

fn list(bearer: &Bearer, query: &HashMap<String, String>) -> Result<Value, ApiError> {
    const SCOPE: &str = "crm.objects.contacts.read";
    if !bearer.scopes.iter().any(|s| s == SCOPE) {
        return Err(ApiError::MissingScopes(SCOPE));
    }
    let limit: u64 = query
        .get("limit")
        .map_or(Ok(10), |v| v.parse())
        .ok()
        .filter(|n| (1..=100).contains(n))
        .ok_or(ApiError::Validation("limit must be a number from 1 to 100"))?;
    let after: u64 = query
        .get("after")
        .map_or(Ok(0), |v| v.parse())
        .map_err(|_| ApiError::Validation("after is not a cursor of this list"))?;
    let end = after.saturating_add(limit).min(CONTACTS);
    let results: Vec<Value> = (after..end).map(|n| contact(bearer.hub_id, n + 1)).collect();
    let mut body = json!({"results": results});
    if end < CONTACTS {
        let link = format!("https://api.hubapi.com/crm/v3/objects/contacts?limit={limit}&after={end}");
        body["paging"] = json!({"next": {"after": end.to_string(), "link": link}});
    }
    Ok(body)
}

fn contact(hub_id: u64, n: u64) -> Value {
    let (first, last) = NAMES[usize::try_from(n % 5).unwrap_or(0)];
    let id = n.to_string();
    json!({
        "id": id,
        "properties": {
            "firstname": first, "lastname": last, "hs_object_id": id,
            "email": format!("{}.{n}@hub-{hub_id}.example", first.to_lowercase()),
            "createdate": CREATED, "lastmodifieddate": CREATED,
        },
        "createdAt": CREATED, "updatedAt": CREATED, "archived": false,
    })
}

/// `DELETE /appinstalls/{version}/external-install`: the app leaves the account that the token is for.
pub(super) async fn uninstall(
    State(sim): State<SimHandle>,
    Extension(conn): Extension<Arc<Conn>>,
    headers: HeaderMap,
) -> Response {
    let token = bearer_token(&headers);
    let ask = Ask { token: token.clone(), ..Ask::new(Endpoint::Uninstall) };
    exchange(sim, conn, ask, move |sim| {
        let bearer = authenticate(sim, token.as_deref()).and_then(|bearer| {
            // A private-app token belongs to no installed app.
            let client_id = bearer.client_id.ok_or(ApiError::InvalidAuthentication)?;
            Ok((bearer.hub_id, client_id))
        });
        match bearer {
            Ok((hub_id, client_id)) => {
                sim.vendor().uninstall(hub_id, Some(&client_id));
                Done::ok(Reply::empty(StatusCode::NO_CONTENT))
            }
            Err(error) => Done::api_error(sim, &error),
        }
    })
    .await
}
