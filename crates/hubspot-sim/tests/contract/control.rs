//! The control API over HTTP, the log, and the program.

use std::{io::BufRead, process::Stdio};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokenward_hubspot_sim::{
    CreatedGrant, FamilyView, Fault, FaultKind, GrantRequest, LogPage, Outcome, Rotation, Settings,
    SettingsPatch, Stats,
};

use crate::support::{Fixture, HUB, answer, start, text};

async fn control(f: &Fixture, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
    let mut request = f.http.request(method, f.url(&format!("/_sim{path}")));
    if let Some(body) = body {
        request = request.json(&body);
    }
    answer(request.send().await.unwrap()).await
}

async fn read<T: serde::de::DeserializeOwned>(f: &Fixture, path: &str) -> T {
    serde_json::from_value(control(f, Method::GET, path, None).await.1).unwrap()
}

#[tokio::test]
async fn settings_are_read_and_changed() {
    let f = start().await;
    let patch = json!({
        "rotation": {"mode": "grace", "style": "supersede", "window_secs": 30}, "token_lifetime_secs": 60,
    });
    assert_eq!(control(&f, Method::PATCH, "/settings", Some(patch)).await.0, 200);
    let settings: Settings = read(&f, "/settings").await;
    assert_eq!(settings.token_lifetime_secs, 60);
    assert!(matches!(settings.rotation, Rotation::Grace { window_secs: 30, .. }));
    assert_eq!(control(&f, Method::PATCH, "/settings", Some(json!({"rotaton": 1}))).await.0, 422);
}

#[tokio::test]
async fn faults_are_ordered_listed_and_taken_back() {
    let f = start().await;
    let token = f.grant().refresh_token;
    let order = json!({
        "kind": "rate_limited", "retry_after": 3, "endpoint": "token", "grant_type": "refresh_token",
        "hub_id": HUB, "count": 2,
    });
    let (status, body) = control(&f, Method::POST, "/faults", Some(order)).await;
    assert_eq!(status, 200);
    assert_eq!(f.refresh(&token).await.0, 429);
    let (_, listed) = control(&f, Method::GET, "/faults", None).await;
    assert_eq!((listed[0]["hits"].as_u64(), listed[0]["count"].as_u64()), (Some(1), Some(1)));
    let path = format!("/faults/{}", body["id"]);
    assert_eq!(control(&f, Method::DELETE, &path, None).await.0, 204);
    assert_eq!(control(&f, Method::DELETE, &path, None).await.0, 404);
    assert_eq!(f.refresh(&token).await.0, 200);
    assert_eq!(control(&f, Method::DELETE, "/faults", None).await.0, 204);
}

#[tokio::test]
async fn a_misspelled_fault_is_refused() {
    let f = start().await;
    for bad in [json!({"kind": "bad_hub", "hubid": 1}), json!({"kind": "bad_hubb"}), json!({"count": 1})] {
        assert_eq!(control(&f, Method::POST, "/faults", Some(bad.clone())).await.0, 400, "{bad}");
    }
    assert!(f.handle().faults().is_empty());
}

#[tokio::test]
async fn apps_portals_secrets_and_clock_are_controlled() {
    let mut f = start().await;
    let portal = json!({"hub_id": 5, "hub_domain": "five.example", "user_email": "a@five.example"});
    assert_eq!(control(&f, Method::POST, "/portals", Some(portal)).await.0, 204);
    let app = json!({
        "client_id": "c2", "client_secret": "s2", "name": "Two", "required_scopes": ["oauth"],
        "redirect_uris": ["https://two.example/cb"],
    });
    assert_eq!(control(&f, Method::POST, "/apps", Some(app.clone())).await.0, 204);
    let mut bad = app;
    bad["redirect_uris"] = json!(["http://two.example/cb"]);
    assert_eq!(control(&f, Method::POST, "/apps", Some(bad)).await.0, 400);
    let order = json!({"client_id": "c2", "hub_ids": [5]});
    let (_, grants) = control(&f, Method::POST, "/grants", Some(order)).await;
    let token = text(&grants[0]["refresh_token"]);
    f.client_id = "c2".into();
    f.client_secret = "s3".into();
    assert_eq!(f.refresh(&token).await.1["status"], "BAD_CLIENT_SECRET");
    let secret = json!({"client_secret": "s3", "overlap_secs": 10});
    assert_eq!(control(&f, Method::POST, "/apps/c2/secret", Some(secret.clone())).await.0, 204);
    assert_eq!(control(&f, Method::POST, "/apps/nope/secret", Some(secret)).await.0, 404);
    assert_eq!(f.refresh(&token).await.0, 200);
    let (_, before) = control(&f, Method::GET, "/clock", None).await;
    let (_, after) = control(&f, Method::POST, "/clock/advance", Some(json!({"secs": 60}))).await;
    assert_eq!(after["now_ms"].as_i64().unwrap() - before["now_ms"].as_i64().unwrap(), 60_000);
    let (_, ended) = control(&f, Method::POST, "/portals/5/uninstall", Some(json!({}))).await;
    assert_eq!(ended["ended"], 1);
    assert_eq!(f.refresh(&token).await.1["status"], "BAD_REFRESH_TOKEN");
    assert_eq!(control(&f, Method::DELETE, "/portals/5", None).await.0, 204);
    assert_eq!(control(&f, Method::DELETE, "/portals/6", None).await.0, 404);
    assert_eq!(f.refresh(&token).await.1["status"], "BAD_HUB");
}

#[tokio::test]
async fn access_tokens_are_invalidated_and_static_tokens_made() {
    let f = start().await;
    let access = f.grant().access_token.unwrap();
    let path = format!("/portals/{HUB}/invalidate-access-tokens");
    assert_eq!(control(&f, Method::POST, &path, None).await.0, 204);
    assert_eq!(f.contacts(&access, "").await.0, 401);
    let order = json!({"hub_id": HUB, "scopes": ["crm.objects.contacts.read"]});
    let (_, made) = control(&f, Method::POST, "/static-tokens", Some(order)).await;
    assert_eq!(f.contacts(&text(&made["token"]), "").await.0, 200);
}

#[tokio::test]
async fn many_grants_are_made_in_one_call_and_each_works() {
    let f = start().await;
    f.set(SettingsPatch { access_token_length: Some(512), ..SettingsPatch::default() });
    let order = json!({"client_id": f.client_id, "count": 20_000, "first_hub_id": 5_000_000});
    let (status, body) = control(&f, Method::POST, "/grants", Some(order)).await;
    assert_eq!(status, 200);
    let grants: Vec<CreatedGrant> = serde_json::from_value(body).unwrap();
    assert_eq!(grants.len(), 20_000);
    let last = grants.last().unwrap();
    assert_eq!((last.hub_id, last.expires_in), (5_019_999, 1800));
    assert_eq!(f.refresh(&last.refresh_token).await.1["hub_id"], 5_019_999);
    let first = grants[0].access_token.as_deref().unwrap();
    assert_eq!((first.len(), f.contacts(first, "").await.0.as_u16()), (512, 200));
    let unknown = GrantRequest { client_id: "nope".into(), count: 1, ..GrantRequest::default() };
    assert!(f.handle().create_grants(&unknown).is_err());
}

#[tokio::test]
async fn living_tokens_and_dead_families_are_shown_with_their_values() {
    let f = start().await;
    f.rotate(Rotation::Strict);
    let (first, second) = (f.grant().refresh_token, f.grant().refresh_token);
    let child = f.spend(&first).await.unwrap();
    f.spend(&first).await.unwrap_err();
    let living: Vec<FamilyView> = read(&f, &format!("/tokens?hub_id={HUB}&client_id={}", f.client_id)).await;
    assert_eq!(living.len(), 1);
    assert_eq!(living[0].refresh_tokens[0].token, second);
    let all: Vec<FamilyView> = read(&f, &format!("/grants/{HUB}")).await;
    assert_eq!((all.len(), all[0].alive, all[0].reuse_detected), (2, false, 1));
    assert_eq!(all[0].refresh_tokens[1].token, child);
    assert_eq!(all[0].live().count(), 0);
}

#[tokio::test]
async fn the_log_tells_who_asked_what_and_how_it_ended_in_order() {
    let f = start().await;
    let grant = f.grant();
    f.refresh(&grant.refresh_token).await;
    f.refresh("na1-unknown").await;
    f.contacts(grant.access_token.as_deref().unwrap(), "").await;
    let page: LogPage = read(&f, "/log?since=0").await;
    assert_eq!((page.entries.len(), page.next, page.lost), (3, 3, 0));
    let [issued, refused, contacts] = &page.entries[..] else { unreachable!() };
    assert_eq!((issued.outcome, issued.status, issued.hub_id), (Outcome::Issued, 200, Some(HUB)));
    assert_eq!(issued.grant_type.as_deref(), Some("refresh_token"));
    assert_eq!(issued.client_id.as_deref(), Some(f.client_id.as_str()));
    let fingerprint = &f.handle().grants(HUB)[0].refresh_tokens[0].fingerprint;
    assert_eq!((issued.token.as_ref(), issued.family), (Some(fingerprint), Some(0)));
    assert!(issued.delivered && issued.server_us > 0);
    assert_eq!((refused.outcome, refused.code.as_deref()), (Outcome::Error, Some("BAD_REFRESH_TOKEN")));
    assert_eq!((contacts.outcome, contacts.client_id.as_ref()), (Outcome::Ok, Some(&f.client_id)));
    assert!(!serde_json::to_string(&page).unwrap().contains(&grant.refresh_token));
    let newest: LogPage = read(&f, "/log?limit=1").await;
    assert_eq!(newest.entries[0].seq, 3);
    let none: LogPage = read(&f, "/log?since=3").await;
    assert_eq!((none.entries.len(), none.next), (0, 3));
    let stats: Stats = read(&f, "/stats").await;
    assert_eq!((stats.refreshes, stats.issued, stats.errors["BAD_REFRESH_TOKEN"]), (2, 1, 1));
    assert_eq!(control(&f, Method::DELETE, "/log", None).await.0, 204);
    assert_eq!(f.handle().stats(), Stats::default());
}

#[tokio::test]
async fn the_log_tells_which_tokens_were_issued_to_whom_even_if_nobody_was_told() {
    let f = start().await;
    f.rotate(Rotation::Strict);
    f.handle().add_fault(Fault::new(FaultKind::DropReplyAfterIssue).times(1));
    let request = f.refresh_request(&f.grant().refresh_token);
    request.send().await.unwrap_err();
    let entry = f.handle().log(None, 1).entries.remove(0);
    assert!(entry.peer.unwrap().is_loopback() && !entry.delivered);
    let tokens = entry.tokens.unwrap();
    let living = &f.handle().grants(HUB)[0].refresh_tokens[1];
    assert_eq!(tokens.refresh_token, living.fingerprint);
    assert_ne!(tokens.access_token, tokens.refresh_token);
    assert_eq!(tokens.expires_at_ms - tokens.at_ms, 1_800_000);
    f.refresh("na1-unknown").await;
    assert_eq!(f.handle().log(None, 1).entries[0].tokens, None);
}

#[tokio::test]
async fn the_log_is_bounded_and_says_what_it_lost() {
    let f = start().await;
    let config = tokenward_hubspot_sim::SimConfig { log_capacity: 3, ..Default::default() };
    let small = Fixture { sim: tokenward_hubspot_sim::HubspotSim::start(config).await.unwrap(), ..f };
    for _ in 0..5 {
        small.contacts("x", "").await;
    }
    let page = small.handle().log(Some(0), 100);
    assert_eq!((page.entries.len(), page.entries[0].seq, page.lost), (3, 3, 2));
}

#[tokio::test]
async fn shutting_down_closes_the_port_and_keeps_the_books() {
    let f = start().await;
    f.contacts("x", "").await;
    let (handle, address) = (f.handle().clone(), f.sim.address());
    f.sim.shutdown().await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
    assert_eq!(handle.log(None, 10).entries.len(), 1);
}

#[test]
fn the_program_writes_its_ready_file_and_serves() {
    let folder = tempfile::tempdir().unwrap();
    let ready = folder.path().join("ready.json");
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_hubspot-sim"))
        .arg("--ready-file")
        .arg(&ready)
        .args(["--redirect-uri", "http://localhost:1/cb"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let served = runtime.block_on(async {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        http.get(format!("{}/_sim/stats", line.trim())).send().await.unwrap().status()
    });
    let facts: Value = serde_json::from_str(&std::fs::read_to_string(&ready).unwrap()).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(served, 200);
    assert_eq!(facts["base_url"], line.trim());
    assert_eq!(facts["apps"][0]["redirect_uris"][0], "http://localhost:1/cb");
}
