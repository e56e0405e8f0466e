//! `tokenward dev` with clients in other languages, HubSpot's own among them.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};
use tokenward_hubspot_sim::{HubspotSim, SimConfig};
use tokenward_tests::{Dev, Script, Signal, World, parts};

#[tokio::test(flavor = "multi_thread")]
async fn the_ready_file_has_the_keys_that_programs_rely_on() {
    let dev = Dev::start().await;
    let keys: BTreeSet<&str> = dev.ready.as_object().unwrap().keys().map(String::as_str).collect();
    let promised = [
        "account_id",
        "admin_grpc",
        "admin_token",
        "caller_token",
        "connect_link",
        "connection_id",
        "grpc",
        "http",
        "hubspot",
        "oauth_client_id",
        "operations",
        "operator_token",
        "principal",
        "provider",
        "scopes",
        "tenant_id",
        "unconnected_tenant_id",
    ];
    assert_eq!(keys, promised.into());
    assert!(dev.ready["scopes"].as_array().unwrap().iter().all(Value::is_string));
    let ended = dev.process.end(Signal::Interrupt).await;
    assert!(ended.status.success(), "{}", ended.stderr);
    assert!(!dev.ready_file.exists(), "the ready file goes with the run");
}

fn check(answer: &Value, dev: &Dev) {
    assert_eq!(answer["connection_id"], dev.ready["connection_id"]);
    let scopes = answer["scopes"].as_array().unwrap();
    assert!(dev.ready["scopes"].as_array().unwrap().iter().all(|scope| scopes.contains(scope)), "{answer}");
    assert!((1..=1800).contains(&answer["ttl"].as_i64().unwrap()), "{answer}");
    assert_eq!(answer["page"], 10);
    assert_eq!(answer["everyone"], 25, "the stand-in's accounts have 25 contacts");
    assert!(answer["first"]["email"].as_str().unwrap().contains('@'), "{answer}");
    assert_eq!(answer["without_caller_token"], "UNAUTHENTICATED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_service_gets_a_token_that_hubspots_python_client_works_with() {
    let Some(python) = parts::python() else { return };
    let dev = Dev::start().await;
    check(&Script::python(&python, "get_token.py").run(&dev.ready).await, &dev);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_service_gets_a_token_that_hubspots_node_client_works_with() {
    let Some(node) = parts::node_folder() else { return };
    let dev = Dev::start().await;
    check(&Script::node(&node, "get_token.cjs").run(&dev.ready).await, &dev);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rust_clients_example_gets_a_token() {
    let dev = Dev::start().await;
    // Beside the folder of this test's binary.
    let binary = std::env::current_exe().unwrap();
    let example = binary.parent().and_then(Path::parent).unwrap().join("examples/client_get_token");
    assert!(example.is_file(), "{} is missing: build all targets", example.display());
    let ready_file = dev.ready_file.display().to_string();
    let script = Script::program(&example, &["--ready-file", &ready_file]);
    let said = script.finish(&Value::Null).await.ok();
    for expected in [
        &format!("tenant:      {}", dev.get("tenant_id")),
        &format!("connection:  {}", dev.get("connection_id")),
        "(from the cache)",
    ] {
        assert!(said.contains(expected), "{expected:?} in:\n{said}");
    }
}

/// A consent at the stand-in, for clients that speak OAuth themselves.
async fn consent(base_url: &str, redirect_uri: &str) -> Value {
    let app = World::app();
    let http = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
    let hub_id = World::HUB_ID.to_string();
    let form = [
        ("client_id", app.client_id.as_str()),
        ("redirect_uri", redirect_uri),
        ("scope", &app.required_scopes.join(" ")),
        ("hub_id", &hub_id),
        ("decision", "grant"),
    ];
    let decision = format!("{base_url}/oauth/authorize/decision");
    let granted = http.build().unwrap().post(decision).form(&form).send().await.unwrap();
    let location = url::Url::parse(granted.headers()["location"].to_str().unwrap()).unwrap();
    let code = location.query_pairs().find(|(key, _)| key == "code").unwrap().1.into_owned();
    json!({
        "base_url": base_url,
        "client_id": app.client_id,
        "client_secret": app.client_secret,
        "redirect_uri": redirect_uri,
        "code": code,
    })
}

/// The stand-in is as HubSpot where HubSpot's own clients say so.
async fn hubspots_client_speaks_with_the_stand_in(script: Script) {
    let redirect_uri = "http://localhost:7603/callback";
    let sim = HubspotSim::start(SimConfig::demo([redirect_uri])).await.unwrap();
    let answer = script.run(&consent(&sim.base_url(), redirect_uri).await).await;
    let family = &sim.handle().grants(World::HUB_ID)[0];
    let stats = sim.handle().stats();
    assert_eq!((stats.code_exchanges, stats.refreshes), (1, 2));
    assert_eq!(
        answer,
        json!({
            "expires_in": 1800,
            "refresh_token": family.refresh_tokens[0].token,
            "new_access_token": true,
            "account": World::HUB_ID,
            "contacts": 10,
            "refused": "BAD_REFRESH_TOKEN",
        })
    );
    sim.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hubspots_python_client_exchanges_and_refreshes_at_the_stand_in() {
    let Some(python) = parts::python() else { return };
    hubspots_client_speaks_with_the_stand_in(Script::python(&python, "hubspot_oauth.py")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hubspots_node_client_exchanges_and_refreshes_at_the_stand_in() {
    let Some(node) = parts::node_folder() else { return };
    hubspots_client_speaks_with_the_stand_in(Script::node(&node, "hubspot_oauth.cjs")).await;
}
