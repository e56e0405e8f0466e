//! Browsers that come back from the vendor with something else than was agreed.

use reqwest::StatusCode;
use tokenward_api::admin::v1::CreateConnectLinkRequest;
use tokenward_hubspot_sim::{Fault, FaultKind};
use tokenward_tests::{Consent, Database, Landed, Sql, Walk, World};
use url::Url;

use crate::refusal::MARKER;

async fn world() -> World {
    let world = World::start(Database::sqlite()).await;
    world.set_up_tenant("acme").await;
    world
}

/// A customer who has granted access and is on the way back.
async fn granted(world: &World) -> (Walk, Url) {
    let walk = Walk::start(&world.connect_link("acme").await).await;
    let callback = walk.decide(Consent::Grant(World::HUB_ID)).await;
    (walk, callback)
}

/// The same address with other parameters.
fn with(callback: &Url, change: impl Fn(&str, &str) -> Option<String>) -> Url {
    let mut url = callback.clone();
    let pairs: Vec<_> = callback.query_pairs().into_owned().collect();
    url.query_pairs_mut().clear();
    for (key, value) in pairs {
        if let Some(value) = change(&key, &value) {
            url.query_pairs_mut().append_pair(&key, &value);
        }
    }
    url
}

#[track_caller]
fn shows(landed: &Landed, reason: &str) {
    assert!(landed.html.contains(&format!("<code>{reason} ")), "not {reason}: {}", landed.html);
    assert!(landed.html.contains("What you can do"), "{}", landed.html);
    for word in ["code=", "state=", "<script", "sqlite", "panicked", MARKER] {
        assert!(!landed.html.contains(word) && !landed.url.as_str().contains(word), "{word} shows");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_belongs_to_no_attempt_spends_nothing_and_the_customer_can_go_on() {
    let world = world().await;
    let (walk, callback) = granted(&world).await;
    let mut stranger = walk.clone();
    stranger.cookie.clear();
    let (elsewhere, _) = granted(&world).await;
    let mut bare = callback.clone();
    bare.set_query(None);
    let twice = Url::parse(&format!("{callback}&state=another")).unwrap();
    let mut sql = Sql::open(&world.database).await;
    let before = (sql.rows().await, world.sim.handle().stats().code_exchanges);
    let state = |state: &'static str| {
        with(&callback, move |key, value| Some(if key == "state" { state } else { value }.to_owned()))
    };
    for (browser, url, reason) in [
        (&walk, bare, "STATE_UNKNOWN"),
        (&walk, with(&callback, |key, value| (key != "state").then(|| value.to_owned())), "STATE_UNKNOWN"),
        (&walk, state(""), "STATE_UNKNOWN"),
        (&walk, state("wrong"), "STATE_UNKNOWN"),
        (&walk, twice, "INVALID_REQUEST"),
        (&stranger, callback.clone(), "OTHER_BROWSER"),
        (&elsewhere, callback.clone(), "OTHER_BROWSER"),
    ] {
        shows(&browser.finish(url).await, reason);
    }
    assert_eq!((sql.rows().await, world.sim.handle().stats().code_exchanges), before);

    let landed = walk.finish(callback.clone()).await;
    assert_eq!(landed.status, StatusCode::OK);
    assert!(landed.html.contains("is connected"), "{}", landed.html);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_at_another_clients_address_connects_nothing() {
    let world = world().await;
    let (walk, callback) = granted(&world).await;
    let elsewhere = Url::parse(&callback.as_str().replace(World::OAUTH_CLIENT, "another")).unwrap();
    shows(&walk.finish(elsewhere).await, "STATE_UNKNOWN");
    assert_eq!(world.sim.handle().stats().code_exchanges, 0);
    assert_eq!(Sql::open(&world.database).await.count("connections").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_is_loaded_again_says_that_the_first_time_counted() {
    let world = world().await;
    let (walk, callback) = granted(&world).await;
    walk.finish(callback.clone()).await;
    let exchanges = world.sim.handle().stats().code_exchanges;
    shows(&walk.finish(callback.clone()).await, "STATE_USED");
    let mut stranger = walk;
    stranger.cookie.clear();
    shows(&stranger.finish(callback).await, "OTHER_BROWSER");
    assert_eq!(world.sim.handle().stats().code_exchanges, exchanges);
    world.get_token("acme").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_keeps_the_cookie_that_tells_a_reload_from_a_stranger() {
    let world = world().await;
    let (walk, callback) = granted(&world).await;
    let http = crate::http::client();
    let answer = http.get(callback).header("cookie", &walk.cookie).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::SEE_OTHER);
    assert!(!answer.headers().contains_key("set-cookie"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_the_vendor_ends_connects_nothing_and_leaves_the_link_working() {
    let world = world().await;
    let link = world.connect_link("acme").await;
    let mut sql = Sql::open(&world.database).await;
    let before = sql.rows().await;

    let walk = Walk::start(&link).await;
    let declined = walk.decide(Consent::Decline).await;
    shows(&walk.finish(declined).await, "CONSENT_REFUSED");

    let error = format!("error=server_error&error_description=%3Cscript%3E{MARKER}");
    for query in [error.as_str(), "", "code=forged"] {
        let walk = Walk::start(&link).await;
        let callback = walk.decide(Consent::Grant(World::HUB_ID)).await;
        let state = callback.query_pairs().find(|(key, _)| key == "state").unwrap().1.into_owned();
        let mut url = callback.clone();
        url.set_query(Some(&format!("state={state}&{query}")));
        shows(&walk.finish(url).await, "GRANT_REFUSED");
    }
    assert_eq!(sql.rows().await, before);

    let walk = Walk::start(&link).await;
    let callback = walk.decide(Consent::Grant(World::HUB_ID)).await;
    assert!(walk.finish(callback).await.html.contains("is connected"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_took_too_long_has_expired() {
    let configure = |settings: &mut tokenward_tests::Settings| {
        settings.set("broker.state_ttl", "1m");
    };
    let world = World::start_with(Database::sqlite(), configure, |_| {}).await;
    world.set_up_tenant("acme").await;
    let (walk, callback) = granted(&world).await;
    let mut sql = Sql::open(&world.database).await;
    // The minute is over: its end is moved, because a test should not wait for it.
    sql.expire_attempts().await;
    shows(&walk.finish(callback).await, "STATE_EXPIRED");
    assert_eq!(sql.count("connections").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_portal_than_the_one_that_was_asked_for_is_kept_from_use() {
    let world = world().await;
    let request = CreateConnectLinkRequest {
        tenant_id: "acme".to_owned(),
        oauth_client_id: World::OAUTH_CLIENT.to_owned(),
        account_id: World::HUB_ID.to_string(),
        ..CreateConnectLinkRequest::default()
    };
    let link = world.operator().connections().create_connect_link(request).await.unwrap().into_inner().url;
    let walk = Walk::start(&link).await;
    let fault = Fault::new(FaultKind::WrongHubId { answer_hub_id: World::OTHER_HUB_ID });
    world.sim.handle().add_fault(fault);
    let callback = walk.decide(Consent::Grant(World::HUB_ID)).await;
    shows(&walk.finish(callback).await, "ACCOUNT_MISMATCH");
    assert_eq!(Sql::open(&world.database).await.count("connections").await, 0);

    // And a portal that another tenant is connected to.
    world.sim.handle().clear_faults();
    world.connect("acme", World::HUB_ID).await;
    world.set_up_tenant("globex").await;
    let walk = Walk::start(&world.connect_link("globex").await).await;
    let callback = walk.decide(Consent::Grant(World::HUB_ID)).await;
    shows(&walk.finish(callback).await, "ACCOUNT_TAKEN");
    world.get_token("acme").await.unwrap();
    assert_eq!(Sql::open(&world.database).await.count("connections").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_answer_to_the_code_leaves_no_connection_behind() {
    let world = world().await;
    let link = world.connect_link("acme").await;
    let mut sql = Sql::open(&world.database).await;
    let before = sql.rows().await;
    let leaky = FaultKind::Status {
        status: 500,
        body: Some(format!("{{\"message\":\"{MARKER}\"}}")),
        content_type: None,
        retry_after: None,
    };
    for (fault, reason) in [
        (FaultKind::Html { status: Some(200) }, "PROVIDER_UNAVAILABLE"),
        (FaultKind::EmptyBody, "PROVIDER_UNAVAILABLE"),
        (FaultKind::HugeBody { bytes: None }, "PROVIDER_UNAVAILABLE"),
        (FaultKind::TruncatedBody, "PROVIDER_UNAVAILABLE"),
        (FaultKind::DropReplyAfterIssue, "PROVIDER_UNAVAILABLE"),
        (leaky, "PROVIDER_UNAVAILABLE"),
        (FaultKind::BadClientSecret, "OAUTH_CLIENT_MISCONFIGURED"),
    ] {
        let walk = Walk::start(&link).await;
        let callback = walk.decide(Consent::Grant(World::HUB_ID)).await;
        world.sim.handle().add_fault(Fault::new(fault));
        shows(&walk.finish(callback).await, reason);
        world.sim.handle().clear_faults();
    }
    assert_eq!(sql.rows().await, before);
    assert!(!world.server().process.stderr.text().contains(MARKER), "the vendor's words are in the log");
}
