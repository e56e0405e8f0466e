//! The connect flow, with the stand-in HubSpot's consent page in the middle.

use std::collections::HashMap;

use tokenward_broker::{Callback, Error, FinishedConnect, NewConnectLink, Reason, StartedConnect};
use tokenward_hubspot_sim::{Fault, FaultKind};
use tokenward_types::{AccountId, ExposeSecret};
use url::Url;

use crate::world::{Ask, HUB, OTHER_HUB, READ, WRITE, World, actor, client_id, secs, tenant};

fn link() -> NewConnectLink {
    NewConnectLink {
        tenant: tenant("acme"),
        oauth_client: client_id(),
        account: None,
        ttl: None,
        return_url: None,
    }
}

async fn secret(world: &World, new: NewConnectLink) -> String {
    let (_, url) = world.broker.create_connect_link(&actor(), new).await.unwrap();
    url.expose_secret().rsplit('/').next().unwrap().to_owned()
}

/// What a person does at the provider's page; returns the query of the callback.
async fn decide(started: &StartedConnect, hub: u64, decision: &str) -> HashMap<String, String> {
    let mut form: Vec<(String, String)> = started.authorize_url.query_pairs().into_owned().collect();
    form.push(("hub_id".into(), hub.to_string()));
    form.push(("decision".into(), decision.into()));
    let client =
        reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().build().unwrap();
    let target = started.authorize_url.join("/oauth/authorize/decision").unwrap();
    let answer = client.post(target).form(&form).send().await.unwrap();
    assert_eq!(answer.status(), 302);
    let location = Url::parse(answer.headers()["location"].to_str().unwrap()).unwrap();
    assert_eq!(location.path(), "/oauth/main/callback");
    location.query_pairs().into_owned().collect()
}

async fn finish(
    world: &World,
    started: &StartedConnect,
    query: &HashMap<String, String>,
) -> Result<FinishedConnect, Error> {
    let cookies = [(started.cookie_name.as_str(), started.cookie_value.expose_secret())];
    callback(world, query, &cookies).await
}

async fn callback(
    world: &World,
    query: &HashMap<String, String>,
    cookies: &[(&str, &str)],
) -> Result<FinishedConnect, Error> {
    let get = |name: &str| query.get(name).map(String::as_str);
    let callback = Callback {
        oauth_client: "main",
        code: get("code"),
        state: get("state"),
        error: get("error"),
        iss: get("iss"),
        cookies,
    };
    world.broker.finish_connect(callback).await
}

#[tokio::test]
async fn a_customer_connects_an_account_and_a_service_gets_its_token() {
    let world = World::start().await;
    let secret = secret(&world, link()).await;
    let page = world.broker.connect_page(&secret).await.unwrap();
    assert_eq!((page.tenant_name.as_str(), page.client_name.as_str()), ("acme Ltd", "Example App"));
    let started = world.broker.start_connect(&secret).await.unwrap();
    let query = decide(&started, HUB, "grant").await;
    let finished = finish(&world, &started, &query).await.unwrap();
    assert_eq!(finished.account.as_str(), HUB.to_string());
    assert_eq!(finished.account_name, "acme.example");
    let token = world.ask(Ask { scopes: &[READ], ..Ask::default() }).await;
    assert_eq!(token.unwrap_err().reason, Reason::TokenTooBroad, "the optional scope was granted too");
    world
        .add_rule(
            "write",
            tokenward_storage::ScopeGrant::Only(tokenward_types::Scopes::parse(WRITE).unwrap()),
            false,
        )
        .await;
    let token = world.token(&[READ]).await.unwrap();
    assert!(world.handle().is_access_token_live(token.live.access_token().expose_secret()));

    assert_eq!(world.broker.connect_page(&secret).await.unwrap_err().reason, Reason::LinkUsed);
    assert_eq!(world.broker.start_connect(&secret).await.unwrap_err().reason, Reason::LinkUsed);
    assert_eq!(finish(&world, &started, &query).await.unwrap_err().reason, Reason::StateUsed);
}

#[tokio::test]
async fn opening_a_link_changes_nothing_and_declining_leaves_it_usable() {
    let world = World::start().await;
    let secret = secret(&world, link()).await;
    for _ in 0..3 {
        world.broker.connect_page(&secret).await.unwrap();
    }
    let started = world.broker.start_connect(&secret).await.unwrap();
    let query = decide(&started, HUB, "cancel").await;
    assert_eq!(finish(&world, &started, &query).await.unwrap_err().reason, Reason::ConsentRefused);
    let started = world.broker.start_connect(&secret).await.unwrap();
    let query = decide(&started, HUB, "grant").await;
    finish(&world, &started, &query).await.unwrap();
}

#[tokio::test]
async fn links_that_are_unknown_expired_or_taken_back_say_so() {
    let world = World::start().await;
    for unknown in ["", "guess", &"x".repeat(10_000)] {
        assert_eq!(world.broker.connect_page(unknown).await.unwrap_err().reason, Reason::LinkUnknown);
    }
    let expiring = secret(&world, NewConnectLink { ttl: Some(secs(60)), ..link() }).await;
    world.advance(secs(61));
    assert_eq!(world.broker.start_connect(&expiring).await.unwrap_err().reason, Reason::LinkExpired);
    let (made, url) = world.broker.create_connect_link(&actor(), link()).await.unwrap();
    world.broker.delete_connect_link(&actor(), &tenant("acme"), &made.id).await.unwrap();
    let taken = url.expose_secret().rsplit('/').next().unwrap();
    assert_eq!(world.broker.connect_page(taken).await.unwrap_err().reason, Reason::LinkUnknown);
}

#[tokio::test]
async fn a_callback_without_its_state_or_its_browser_spends_nothing() {
    let world = World::start().await;
    let secret = secret(&world, link()).await;
    let started = world.broker.start_connect(&secret).await.unwrap();
    let query = decide(&started, HUB, "grant").await;
    let cookie = (started.cookie_name.as_str(), started.cookie_value.expose_secret());

    let with = |key: &str, value: Option<&str>| {
        let mut changed = query.clone();
        match value {
            Some(value) => changed.insert(key.to_owned(), value.to_owned()),
            None => changed.remove(key),
        };
        changed
    };
    for (query, cookies, reason) in [
        (with("state", None), vec![cookie], Reason::StateUnknown),
        (with("state", Some("wrong")), vec![cookie], Reason::StateUnknown),
        (query.clone(), vec![], Reason::OtherBrowser),
        (query.clone(), vec![(cookie.0, "another")], Reason::OtherBrowser),
        (query.clone(), vec![("tokenward-else", cookie.1)], Reason::OtherBrowser),
    ] {
        assert_eq!(callback(&world, &query, &cookies).await.unwrap_err().reason, reason);
    }
    finish(&world, &started, &query).await.unwrap();
}

#[tokio::test]
async fn a_state_works_for_ten_minutes() {
    let world = World::start().await;
    let secret = secret(&world, link()).await;
    let started = world.broker.start_connect(&secret).await.unwrap();
    let query = decide(&started, HUB, "grant").await;
    world.advance(secs(601));
    assert_eq!(finish(&world, &started, &query).await.unwrap_err().reason, Reason::StateExpired);
}

#[tokio::test]
async fn the_wrong_account_is_refused_kept_from_use_and_not_revoked() {
    let world = World::start().await;
    let pinned = NewConnectLink { account: Some(AccountId::parse(&HUB.to_string()).unwrap()), ..link() };
    let secret = secret(&world, pinned).await;
    let started = world.broker.start_connect(&secret).await.unwrap();
    assert!(started.authorize_url.path().contains(&HUB.to_string()), "the page is pinned");
    let query = decide(&started, OTHER_HUB, "grant").await;
    let error = finish(&world, &started, &query).await.unwrap_err();
    assert_eq!(error.reason, Reason::AccountMismatch);
    assert!(world.storage.list_tenant_connections(&tenant("acme")).await.unwrap().is_empty());
    assert!(world.storage.list_pending_grants(10).await.unwrap().is_empty(), "it is refused, not pending");
    assert!(world.handle().grants(OTHER_HUB).iter().any(|family| family.alive));
}

#[tokio::test]
async fn a_required_scope_that_was_not_granted_is_named() {
    let world = World::start().await;
    let change = tokenward_broker::admin::OAuthClientChange {
        scopes: Some(tokenward_types::Scopes::parse(&format!("oauth {READ} {WRITE}")).unwrap()),
        optional_scopes: Some(tokenward_types::Scopes::default()),
        ..Default::default()
    };
    let secret = secret(&world, link()).await;
    let started = world.broker.start_connect(&secret).await.unwrap();
    world.handle().change_settings(tokenward_hubspot_sim::SettingsPatch {
        dropped_optional_scopes: Some([WRITE.to_owned()].into()),
        ..Default::default()
    });
    let query = decide(&started, HUB, "grant").await;
    world.broker.update_oauth_client(&actor(), &client_id(), None, change).await.unwrap();
    let error = finish(&world, &started, &query).await.unwrap_err();
    assert_eq!((error.reason, error.metadata["missing_scopes"].as_str()), (Reason::ScopeNotGranted, WRITE));
}

#[tokio::test]
async fn a_provider_that_fails_at_the_exchange_leaves_the_link_usable() {
    let world = World::start().await;
    let secret = secret(&world, link()).await;
    let started = world.broker.start_connect(&secret).await.unwrap();
    let query = decide(&started, HUB, "grant").await;
    world.handle().add_fault(Fault::new(FaultKind::Html { status: None }).times(1));
    assert_eq!(finish(&world, &started, &query).await.unwrap_err().reason, Reason::ProviderUnavailable);
    let mut wrong = query.clone();
    wrong.insert("code".into(), "wrong".into());
    let started = world.broker.start_connect(&secret).await.unwrap();
    let fresh = decide(&started, HUB, "grant").await;
    wrong.insert("state".into(), fresh["state"].clone());
    assert_eq!(finish(&world, &started, &wrong).await.unwrap_err().reason, Reason::GrantRefused);
    let started = world.broker.start_connect(&secret).await.unwrap();
    let query = decide(&started, HUB, "grant").await;
    finish(&world, &started, &query).await.unwrap();
}

#[tokio::test]
async fn pkce_binds_the_code_to_the_attempt() {
    let world = World::with(serde_json::json!({"pkce": true}), |_| {}).await;
    let secret = secret(&world, link()).await;
    let first = world.broker.start_connect(&secret).await.unwrap();
    let second = world.broker.start_connect(&secret).await.unwrap();
    assert!(first.authorize_url.query_pairs().any(|(key, _)| key == "code_challenge"));
    let stolen = decide(&first, HUB, "grant").await;
    let mut mixed = decide(&second, HUB, "grant").await;
    mixed.insert("code".into(), stolen["code"].clone());
    assert_eq!(finish(&world, &second, &mixed).await.unwrap_err().reason, Reason::GrantRefused);
    let third = world.broker.start_connect(&secret).await.unwrap();
    let query = decide(&third, HUB, "grant").await;
    finish(&world, &third, &query).await.unwrap();
}

#[tokio::test]
async fn return_urls_must_be_allowed() {
    let world = World::with(serde_json::json!({}), |settings| {
        settings.return_urls = vec![Url::parse("https://app.example.com/settings/").unwrap()];
    })
    .await;
    let make = |url: &str| {
        let (broker, new) = (world.broker.clone(), NewConnectLink { return_url: Some(url.into()), ..link() });
        async move { broker.create_connect_link(&actor(), new).await.map(drop) }
    };
    make("https://app.example.com/settings").await.unwrap();
    make("https://app.example.com/settings/hubspot?done=1").await.unwrap();
    for refused in [
        "https://app.example.com/settingsx",
        "https://app.example.com.evil.test/settings/",
        "http://app.example.com/settings/",
        "https://app.example.com/settings/../admin",
        "https://user@app.example.com/settings/",
        "javascript:alert(1)",
        "not a url",
    ] {
        assert_eq!(make(refused).await.unwrap_err().metadata["field"], "return_url", "{refused}");
    }
}
