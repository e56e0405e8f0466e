//! The consent page and what its form does.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use reqwest::Response;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokenward_hubspot_sim::SettingsPatch;
use url::Url;

use crate::support::{DATED, Fixture, HUB, REDIRECT, start, text};

const SCOPE: &str = "oauth crm.objects.contacts.read";

fn params<'a>(f: &'a Fixture, changes: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut all = vec![
        ("client_id", f.client_id.as_str()),
        ("redirect_uri", REDIRECT),
        ("scope", SCOPE),
        ("state", "st&te"),
    ];
    for &(name, value) in changes {
        all.retain(|(n, _)| *n != name);
        all.push((name, value));
    }
    all
}

async fn page(f: &Fixture, path: &str, changes: &[(&str, &str)]) -> (u16, String) {
    let url = Url::parse_with_params(&f.url(path), params(f, changes)).unwrap();
    let response = f.http.get(url).send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

async fn decide(f: &Fixture, decision: &str, changes: &[(&str, &str)]) -> Response {
    let mut form = params(f, changes);
    let hub = HUB.to_string();
    form.push(("decision", decision));
    if !form.iter().any(|(n, _)| *n == "hub_id") {
        form.push(("hub_id", &hub));
    }
    f.http.post(f.url("/oauth/authorize/decision")).form(&form).send().await.unwrap()
}

fn callback(response: &Response) -> Vec<(String, String)> {
    assert_eq!(response.status(), 302);
    let location = response.headers()["location"].to_str().unwrap();
    assert!(location.starts_with(REDIRECT), "{location}");
    Url::parse(location).unwrap().query_pairs().into_owned().collect()
}

fn param(pairs: &[(String, String)], name: &str) -> String {
    pairs.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()).unwrap_or_default()
}

async fn granted_code(f: &Fixture, changes: &[(&str, &str)]) -> String {
    let pairs = callback(&decide(f, "grant", changes).await);
    assert_eq!(param(&pairs, "state"), "st&te");
    param(&pairs, "code")
}

async fn exchange(f: &Fixture, code: &str, extra: &[(&str, &str)]) -> Value {
    let mut fields = vec![("grant_type", "authorization_code"), ("code", code), ("redirect_uri", REDIRECT)];
    fields.extend_from_slice(extra);
    f.post(DATED, &fields).await.1
}

#[tokio::test]
async fn the_page_is_a_form_without_script_that_names_app_accounts_and_scopes() {
    let f = start().await;
    let (status, html) = page(&f, "/oauth/authorize", &[]).await;
    assert_eq!(status, 200);
    for part in
        ["Demo Integration", "acme.example", "globex.example", "crm.objects.contacts.read", "st&amp;te"]
    {
        assert!(html.contains(part), "{part}");
    }
    assert!(html.contains("value=\"grant\"") && html.contains("value=\"cancel\""));
    assert!(!html.contains("<script"));
}

#[tokio::test]
async fn a_pinned_account_is_the_only_one_offered() {
    let f = start().await;
    let (status, html) = page(&f, "/oauth/7654321/authorize", &[]).await;
    assert_eq!(status, 200);
    assert!(html.contains("globex.example") && !html.contains("acme.example"));
    assert_eq!(page(&f, "/oauth/999/authorize", &[]).await.0, 400);
}

#[tokio::test]
async fn a_mismatch_is_shown_on_the_page_and_never_reaches_the_callback() {
    let f = start().await;
    let bad = [
        ("client_id", "unknown", "client ID"),
        ("redirect_uri", "http://localhost:8080/other", "redirect URL"),
        ("redirect_uri", "http://localhost:8080/callback/", "redirect URL"),
        ("scope", "oauth", "Required and missing: crm.objects.contacts.read"),
        ("scope", "crm.objects.contacts.read", "Required and missing: oauth"),
        ("scope", "oauth crm.objects.contacts.read tickets", "Not known to the app: tickets"),
        ("optional_scope", "files", "Not known to the app: files"),
        ("code_challenge_method", "S512", "code challenge method"),
    ];
    for (name, value, text) in bad {
        let changes = [(name, value), ("code_challenge", "x")];
        let changes = if name == "code_challenge_method" { &changes[..] } else { &changes[..1] };
        let (status, html) = page(&f, "/oauth/authorize", changes).await;
        assert_eq!(status, 400, "{name}={value}");
        assert!(html.contains(text), "{name}={value}: {html}");
        let response = decide(&f, "grant", changes).await;
        assert_eq!(response.status(), 400, "{name}={value}");
        assert!(!response.headers().contains_key("location"));
    }
}

#[tokio::test]
async fn what_the_page_shows_is_escaped() {
    let f = start().await;
    let (_, html) = page(&f, "/oauth/authorize", &[("state", "\"><b>x")]).await;
    assert!(html.contains("&quot;&gt;&lt;b&gt;x") && !html.contains("<b>x"));
}

#[tokio::test]
async fn granting_brings_a_code_that_is_good_once() {
    let f = start().await;
    let code = granted_code(&f, &[("hub_id", "7654321")]).await;
    let body = exchange(&f, &code, &[]).await;
    assert_eq!(body["hub_id"], 7_654_321);
    assert_eq!(body["scopes"], json!(["oauth", "crm.objects.contacts.read"]));
    assert_eq!(f.contacts(&text(&body["access_token"]), "").await.0, 200);
    assert_eq!(f.refresh(&text(&body["refresh_token"])).await.0, 200);
    assert_eq!(exchange(&f, &code, &[]).await["status"], "BAD_AUTH_CODE");
}

#[tokio::test]
async fn a_code_expires_and_is_bound_to_its_redirect_uri() {
    let f = start().await;
    let code = granted_code(&f, &[]).await;
    let other =
        [("grant_type", "authorization_code"), ("code", &code), ("redirect_uri", "https://a.example/")];
    assert_eq!(f.post(DATED, &other).await.1["status"], "BAD_REDIRECT_URI");
    f.handle().advance_secs(600);
    assert_eq!(exchange(&f, &code, &[]).await["status"], "BAD_AUTH_CODE");
}

#[tokio::test]
async fn cancelling_comes_back_with_an_error_and_the_state() {
    let f = start().await;
    let pairs = callback(&decide(&f, "cancel", &[]).await);
    assert_eq!(param(&pairs, "error"), "access_denied");
    assert!(!param(&pairs, "error_description").is_empty());
    assert_eq!(param(&pairs, "state"), "st&te");
    assert!(param(&pairs, "code").is_empty());
}

#[tokio::test]
async fn optional_scopes_are_granted_unless_they_are_dropped_silently() {
    let f = start().await;
    let optional = [("optional_scope", "crm.objects.contacts.write crm.objects.companies.read")];
    let code = granted_code(&f, &optional).await;
    assert_eq!(exchange(&f, &code, &[]).await["scopes"].as_array().unwrap().len(), 4);
    let dropped = Some(["crm.objects.contacts.write".to_owned()].into());
    f.set(SettingsPatch { dropped_optional_scopes: dropped, ..SettingsPatch::default() });
    let code = granted_code(&f, &optional).await;
    let want = json!(["oauth", "crm.objects.contacts.read", "crm.objects.companies.read"]);
    assert_eq!(exchange(&f, &code, &[]).await["scopes"], want);
}

#[tokio::test]
async fn a_code_challenge_demands_its_verifier() {
    let f = start().await;
    let verifier = "v".repeat(43);
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(&verifier));
    let pkce = [("code_challenge", challenge.as_str()), ("code_challenge_method", "S256")];
    for wrong in [vec![], vec![("code_verifier", "wrong")]] {
        let code = granted_code(&f, &pkce).await;
        assert_eq!(exchange(&f, &code, &wrong).await["status"], "BAD_CODE_VERIFIER");
    }
    let code = granted_code(&f, &pkce).await;
    assert_eq!(exchange(&f, &code, &[("code_verifier", &verifier)]).await["hub_id"], HUB);
}

#[tokio::test]
async fn a_page_without_pkce_ignores_challenge_and_verifier() {
    let f = start().await;
    f.set(SettingsPatch { ignore_pkce: Some(true), ..SettingsPatch::default() });
    let code = granted_code(&f, &[("code_challenge", "c"), ("code_challenge_method", "S256")]).await;
    assert_eq!(exchange(&f, &code, &[("code_verifier", "anything")]).await["hub_id"], HUB);
}

#[tokio::test]
async fn redirect_uris_that_hubspot_would_refuse_cannot_be_registered() {
    let f = start().await;
    let mut app = tokenward_hubspot_sim::SimConfig::demo(["x"]).apps.remove(0);
    for (uri, allowed) in [
        ("https://app.example.com/cb", true),
        ("http://localhost:9/cb", true),
        ("http://127.0.0.1:9/cb", false),
        ("https://10.0.0.1/cb", false),
        ("http://app.example.com/cb", false),
    ] {
        app.redirect_uris = vec![uri.into()];
        assert_eq!(f.handle().add_app(app.clone()).is_ok(), allowed, "{uri}");
    }
}
