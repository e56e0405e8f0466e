//! The consent page: plain HTML that a person can click and a test can post.

use std::{collections::BTreeSet, fmt::Write, sync::Arc};

use axum::{
    Extension, Form,
    extract::{Path, Query, State},
    response::Response,
};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::Deserialize;
use url::Url;

use super::{Ask, Done, Reply, exchange};
use crate::{
    config::App,
    conn::Conn,
    faults::Endpoint,
    handle::{SimHandle, redirect_uri_is_allowed},
    vendor::{Challenge, Code, Vendor},
};

/// More accounts than this are not offered; pin one in the URL instead.
const OFFERED_PORTALS: usize = 50;

/// The authorize URL's parameters, and the form's fields.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Request {
    client_id: String,
    redirect_uri: String,
    scope: String,
    optional_scope: String,
    state: String,
    code_challenge: String,
    code_challenge_method: String,
}

/// What the form sends.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Decision {
    #[serde(flatten)]
    request: Request,
    #[serde(default)]
    hub_id: String,
    #[serde(default)]
    #[serde(rename = "decision")]
    answer: String,
}

struct Valid {
    app: Arc<App>,
    client_id: Arc<str>,
    redirect_uri: Url,
    scopes: Vec<String>,
    optional: Vec<String>,
    challenge: Option<Challenge>,
}

/// Shown on HubSpot's own page; never reaches the callback.
struct Problem(String);

pub(super) async fn page(
    State(sim): State<SimHandle>,
    Extension(conn): Extension<Arc<Conn>>,
    Query(request): Query<Request>,
) -> Response {
    show(sim, conn, request, None).await
}

pub(super) async fn pinned_page(
    State(sim): State<SimHandle>,
    Extension(conn): Extension<Arc<Conn>>,
    Path(hub_id): Path<String>,
    Query(request): Query<Request>,
) -> Response {
    show(sim, conn, request, Some(hub_id)).await
}

async fn show(sim: SimHandle, conn: Arc<Conn>, request: Request, pinned: Option<String>) -> Response {
    let ask = Ask { client_id: Some(request.client_id.clone()), ..Ask::new(Endpoint::Authorize) };
    exchange(sim, conn, ask, move |sim| {
        let vendor = sim.vendor();
        let form = validate(&vendor, &request)
            .and_then(|valid| Ok((portals(&vendor, pinned.as_deref())?, valid)))
            .map(|(portals, valid)| consent_page(&request, &valid, &portals));
        match form {
            Ok(form) => Done::ok(secured(Reply::html(StatusCode::OK, form))),
            Err(problem) => refusal(&problem),
        }
    })
    .await
}

/// `POST /oauth/authorize/decision`: the parameters of the authorize URL, `hub_id`, and `decision` = `grant` or `cancel`.
pub(super) async fn decision(
    State(sim): State<SimHandle>,
    Extension(conn): Extension<Arc<Conn>>,
    Form(form): Form<Decision>,
) -> Response {
    let ask = Ask { client_id: Some(form.request.client_id.clone()), ..Ask::new(Endpoint::Authorize) };
    exchange(sim, conn, ask, move |sim| match decide(sim, &form) {
        Ok(location) => match HeaderValue::try_from(String::from(location)) {
            Ok(location) => Done::ok(Reply::empty(StatusCode::FOUND).with(header::LOCATION, location)),
            Err(_) => refusal(&Problem("The redirect URL cannot be sent.".into())),
        },
        Err(problem) => refusal(&problem),
    })
    .await
}

fn decide(sim: &SimHandle, form: &Decision) -> Result<Url, Problem> {
    let now_ms = sim.now_ms();
    let mut vendor = sim.vendor();
    let valid = validate(&vendor, &form.request)?;
    let mut location = valid.redirect_uri;
    match form.answer.as_str() {
        "grant" => {
            let hub_id = portals(&vendor, Some(&form.hub_id))?[0].0;
            let dropped = &vendor.settings.dropped_optional_scopes;
            let mut scopes = valid.scopes;
            for scope in valid.optional {
                if !dropped.contains(&scope) && !scopes.contains(&scope) {
                    scopes.push(scope);
                }
            }
            let code = Code {
                client_id: valid.client_id,
                redirect_uri: form.request.redirect_uri.clone(),
                hub_id,
                scopes: scopes.into(),
                challenge: valid.challenge,
                expires_at_ms: Vendor::code_expiry(now_ms),
            };
            let code = vendor.add_code(code, sim.rng());
            location.query_pairs_mut().append_pair("code", &code);
        }
        "cancel" => {
            location
                .query_pairs_mut()
                .append_pair("error", "access_denied")
                .append_pair("error_description", "The user did not grant access to this app.");
        }
        _ => return Err(Problem("The form was sent without a decision.".into())),
    }
    if !form.request.state.is_empty() {
        location.query_pairs_mut().append_pair("state", &form.request.state);
    }
    Ok(location)
}

fn validate(vendor: &Vendor, request: &Request) -> Result<Valid, Problem> {
    let entry = vendor
        .apps
        .get(&request.client_id)
        .ok_or_else(|| Problem("There is no app with this client ID.".into()))?;
    let app = entry.app.clone();
    let registered = app.redirect_uris.contains(&request.redirect_uri);
    let redirect_uri = Url::parse(&request.redirect_uri)
        .ok()
        .filter(|_| registered && redirect_uri_is_allowed(&request.redirect_uri))
        .ok_or_else(|| {
            Problem("The redirect URL in this link does not match one that is registered for the app.".into())
        })?;
    let scopes = words(&request.scope);
    let optional = words(&request.optional_scope);
    let known: BTreeSet<&String> = app.required_scopes.iter().chain(&app.optional_scopes).collect();
    let missing: Vec<&String> = app.required_scopes.iter().filter(|s| !scopes.contains(s)).collect();
    let unknown: Vec<&String> = scopes.iter().chain(&optional).filter(|s| !known.contains(s)).collect();
    if !missing.is_empty() || !unknown.is_empty() || !scopes.iter().any(|s| s == "oauth") {
        let mut text =
            "The scopes in this link do not match the scopes that the app is registered with.".to_owned();
        for (label, list) in [("Required and missing", missing), ("Not known to the app", unknown)] {
            if !list.is_empty() {
                let list: Vec<&str> = list.into_iter().map(String::as_str).collect();
                let _ = write!(text, " {label}: {}.", list.join(", "));
            }
        }
        return Err(Problem(text));
    }
    let challenge = match (vendor.settings.ignore_pkce, request.code_challenge.as_str()) {
        (true, _) | (_, "") => None,
        (false, challenge) => Some(match request.code_challenge_method.as_str() {
            "S256" => Challenge::S256(challenge.into()),
            "" | "plain" => Challenge::Plain(challenge.into()),
            _ => return Err(Problem("The code challenge method must be S256 or plain.".into())),
        }),
    };
    Ok(Valid { app, client_id: entry.client_id.clone(), redirect_uri, scopes, optional, challenge })
}

fn words(text: &str) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for word in text.split(' ').filter(|w| !w.is_empty()) {
        if !out.iter().any(|w| w == word) {
            out.push(word.to_owned());
        }
    }
    out
}

/// The pinned account, or those to choose from: at least one.
fn portals(vendor: &Vendor, pinned: Option<&str>) -> Result<Vec<(u64, String)>, Problem> {
    let found: Vec<(u64, String)> = match pinned {
        Some(hub_id) => hub_id
            .parse()
            .ok()
            .and_then(|id: u64| vendor.portals.get(&id))
            .filter(|p| !p.deleted)
            .map(|p| (p.portal.hub_id, p.portal.hub_domain.clone()))
            .into_iter()
            .collect(),
        None => vendor
            .portals
            .values()
            .filter(|p| !p.deleted)
            .take(OFFERED_PORTALS)
            .map(|p| (p.portal.hub_id, p.portal.hub_domain.clone()))
            .collect(),
    };
    if found.is_empty() {
        return Err(Problem("You have no access to the account that this link is for.".into()));
    }
    Ok(found)
}

const STYLE: &str = "body{font:1rem/1.5 system-ui,sans-serif;max-width:34rem;margin:3rem auto;padding:0 1rem;\
color:#213343;background:#fff}fieldset{border:1px solid #7c98b6;margin:1rem 0}button{font:inherit;padding:.6rem 1.2rem;\
margin:0 .6rem 0 0;border:2px solid #213343;background:#fff;color:#213343}button[value=grant]{background:#213343;\
color:#fff}label{display:block;padding:.2rem 0}";

fn document(title: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width,initial-scale=1\"><title>{title}</title><style>{STYLE}</style></head><body>\
         <main>{body}<p><small>This is a stand-in for HubSpot, for development and tests.</small></p></main></body></html>"
    )
}

fn consent_page(request: &Request, valid: &Valid, portals: &[(u64, String)]) -> String {
    let app = escape(&valid.app.name);
    let mut form = format!(
        "<h1>Connect {app} to HubSpot</h1><form method=\"post\" action=\"/oauth/authorize/decision\">"
    );
    let fields = [
        ("client_id", &request.client_id),
        ("redirect_uri", &request.redirect_uri),
        ("scope", &request.scope),
        ("optional_scope", &request.optional_scope),
        ("state", &request.state),
        ("code_challenge", &request.code_challenge),
        ("code_challenge_method", &request.code_challenge_method),
    ];
    for (name, value) in fields {
        let _ = write!(form, "<input type=\"hidden\" name=\"{name}\" value=\"{}\">", escape(value));
    }
    form.push_str("<fieldset><legend>Account</legend>");
    for (n, (hub_id, domain)) in portals.iter().enumerate() {
        let checked = if n == 0 { " checked" } else { "" };
        let _ = write!(
            form,
            "<label><input type=\"radio\" name=\"hub_id\" value=\"{hub_id}\"{checked}> {} ({hub_id})</label>",
            escape(domain)
        );
    }
    let _ = write!(form, "</fieldset><h2>{app} is asking for</h2><ul>");
    for scope in &valid.scopes {
        let _ = write!(form, "<li><code>{}</code></li>", escape(scope));
    }
    for scope in &valid.optional {
        let _ = write!(form, "<li><code>{}</code> (optional)</li>", escape(scope));
    }
    form.push_str(
        "</ul><p><button type=\"submit\" name=\"decision\" value=\"grant\">Grant access</button>\
         <button type=\"submit\" name=\"decision\" value=\"cancel\">Cancel</button></p></form>",
    );
    document(&format!("Connect {app}"), &form)
}

fn refusal(problem: &Problem) -> Done {
    let body = format!("<h1>Authorization failed</h1><p role=\"alert\">{}</p>", escape(&problem.0));
    let reply = secured(Reply::html(StatusCode::BAD_REQUEST, document("Authorization failed", &body)));
    Done { code: Some("AUTHORIZE_PAGE_ERROR"), ..Done::ok(reply) }
}

fn secured(reply: Reply) -> Reply {
    reply
        .with(
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
        )
        .with(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"))
        .with(HeaderName::from_static("referrer-policy"), HeaderValue::from_static("no-referrer"))
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}
