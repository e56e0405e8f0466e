//! Many connections, several servers, one provider: who waits for whom.

use std::sync::Arc;

use futures::stream::{FuturesUnordered, StreamExt};
use serde_json::json;
use tokenward_broker::admin::NewOAuthClient;
use tokenward_broker::{Broker, Error, Reason, Token, TokenRequest};
use tokenward_hubspot_sim::{App, Fault, FaultKind, GrantRequest};
use tokenward_storage::Connection;
use tokenward_types::{OAuthClientId, Principal, Scopes, SecretString};

use crate::world::{Ask, CLIENT_ID, HUB, READ, World, actor, provider_name, secs, tenant};

const OTHER_CLIENT_ID: &str = "99999999-2222-4333-8444-555555555555";

fn nth(n: u64) -> u64 {
    3_000_000 + n
}

fn of(connection: &Connection) -> Ask<'_> {
    Ask { connection: connection.id.as_str(), scopes: &[READ], ..Ask::default() }
}

async fn connected(world: &World, count: u64) -> Vec<Connection> {
    let mut connections = Vec::new();
    for n in 0..count {
        connections.push(world.connect("acme", nth(n), &["oauth", READ]).await);
    }
    connections
}

/// Asks another server of the same database for a connection's token.
async fn ask_at(broker: &Broker, connection: &Connection) -> Result<Token, Error> {
    let principal = Principal::parse("builtin:app").unwrap();
    let request = TokenRequest {
        principal: &principal,
        tenant: connection.tenant.as_str(),
        provider: "",
        scopes: &[READ.to_owned()],
        min_ttl: None,
        connection: connection.id.as_str(),
        account: "",
        patience: None,
    };
    broker.token(&request).await
}

/// A second OAuth client at the same provider, with a connection of tenant `globex`.
async fn connect_by_other_client(world: &World) {
    world.add_tenant("globex").await;
    let secret = "bbbbbbbb-bbbb-4ccc-8ddd-eeeeeeeeeeee";
    let app = App {
        client_id: OTHER_CLIENT_ID.into(),
        client_secret: secret.into(),
        app_id: 7,
        name: "Other".into(),
        required_scopes: vec!["oauth".into(), READ.into()],
        optional_scopes: Vec::new(),
        redirect_uris: vec!["http://localhost:7603/oauth/other/callback".into()],
    };
    world.handle().add_app(app).unwrap();
    let id = OAuthClientId::parse("other").unwrap();
    let client = NewOAuthClient {
        id: id.clone(),
        provider: provider_name(),
        client_id: OTHER_CLIENT_ID.into(),
        display_name: "Other".into(),
        scopes: Scopes::parse(&format!("oauth {READ}")).unwrap(),
        optional_scopes: Scopes::default(),
        help_url: None,
    };
    let secret = SecretString::from(secret);
    world.broker.create_oauth_client(&actor(), client, Some(secret)).await.unwrap();
    let request = GrantRequest {
        client_id: OTHER_CLIENT_ID.into(),
        hub_ids: vec![HUB],
        scopes: Some(vec!["oauth".into(), READ.into()]),
        ..GrantRequest::default()
    };
    let granted = world.handle().create_grants(&request).unwrap();
    let token = SecretString::from(granted[0].refresh_token.clone());
    world.broker.import_refresh_token(&actor(), &tenant("globex"), &id, token, None).await.unwrap();
}

/// The database of this test has one connection in all, and both clients are at the same vendor: whatever two refreshes share
/// and one of them keeps to itself would show.
#[tokio::test]
async fn two_hundred_hanging_refreshes_keep_no_other_client_waiting() {
    let world = World::with(json!({"timeout": "60s"}), |settings| settings.lease = secs(90)).await;
    let world = Arc::new(world);
    let slow = connected(&world, 200).await;
    connect_by_other_client(&world).await;
    world.advance(secs(1801));
    let hang = Fault::new(FaultKind::Latency { ms: 600_000 }).on_refresh();
    world.handle().add_fault(Fault { client_id: Some(CLIENT_ID.into()), ..hang });
    let hanging: Vec<_> = slow
        .into_iter()
        .map(|connection| {
            let world = Arc::clone(&world);
            tokio::spawn(async move { world.ask(of(&connection)).await })
        })
        .collect();
    while world.handle().faults()[0].hits < 200 {
        tokio::task::yield_now().await;
    }
    let other = Ask { tenant: "globex", scopes: &[READ], ..Ask::default() };
    let before = world.handle().stats().issued;
    assert!(world.ask(other).await.unwrap().warnings.is_empty());
    assert_eq!(world.handle().stats().issued - before, 1, "it had to be refreshed");
    assert!(hanging.iter().all(|call| !call.is_finished()), "they still hang");
}

#[tokio::test]
async fn a_caller_who_would_wait_for_too_long_is_told_when_his_turn_is() {
    let world = World::with(json!({"calls_per_second": 1}), |_| {}).await;
    let connections = connected(&world, 60).await;
    world.advance(secs(1801));
    let world = &world;
    let mut calls: FuturesUnordered<_> = connections
        .iter()
        .map(|connection| async move { (connection, world.ask(of(connection)).await) })
        .collect();
    let mut told = Vec::new();
    while told.len() < 30 {
        let (connection, answer) = calls.next().await.unwrap();
        if let Err(error) = answer {
            assert_eq!(error.reason, Reason::ProviderRateLimited, "{error}");
            let wait = error.retry_after.unwrap();
            assert!(wait > secs(10), "{wait:?}");
            told.push((wait, connection));
        }
    }
    assert!(world.refreshes() - 60 < 30, "most of them still stand in line");
    // Who asks again joins the refresh that stands there: it is not put at the end.
    let (wait, last) = told.into_iter().max_by_key(|(wait, _)| *wait).unwrap();
    let again = world.ask(of(last)).await.unwrap_err();
    assert_eq!(again.reason, Reason::ProviderRateLimited);
    assert!(again.retry_after.is_some_and(|again| again <= wait), "{:?}", again.retry_after);
}

#[tokio::test]
async fn calls_are_made_at_the_rate_over_all_servers() {
    let world = World::with(json!({"calls_per_second": 20, "call_burst": 4}), |_| {}).await;
    let connections = connected(&world, 16).await;
    let other = world.another_server(|_| {}).await;
    world.advance(secs(1801));
    let started = tokio::time::Instant::now();
    let (here, there) = connections.split_at(8);
    let here = futures::future::join_all(here.iter().map(|connection| world.ask(of(connection))));
    let there = futures::future::join_all(there.iter().map(|connection| ask_at(&other, connection)));
    let (here, there) = futures::join!(here, there);
    assert!(here.into_iter().chain(there).all(|answer| answer.is_ok()));
    // Four at once, and twelve more, each 50 ms after the one before.
    assert!(started.elapsed() >= std::time::Duration::from_millis(590), "{:?}", started.elapsed());
    assert!(world.broker.metrics().encode().contains("tokenward_provider_wait_seconds_count"));
}

#[tokio::test]
async fn a_throttle_holds_on_every_server_and_one_call_ends_it_for_all() {
    let world = World::start().await;
    let connections = connected(&world, 2).await;
    let other = world.another_server(|_| {}).await;
    world.advance(secs(1801));
    let throttle = FaultKind::RateLimited { retry_after: Some(20), policy_name: None };
    world.handle().add_fault(Fault::new(throttle.clone()).on_refresh().times(1));
    let before = world.refreshes();
    world.ask(of(&connections[0])).await.unwrap_err();
    while world.storage.list_pauses().await.unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    let error = ask_at(&other, &connections[1]).await.unwrap_err();
    assert_eq!(error.reason, Reason::ProviderRateLimited);
    assert!(error.retry_after.is_some_and(|wait| wait > secs(10) && wait <= secs(20)), "{error:?}");
    assert_eq!(world.refreshes() - before, 1, "the other server called nobody");

    // The pause is over, and the probe is throttled again: the other server does not call either.
    world.let_pause_pass().await;
    world.advance(secs(20));
    world.handle().add_fault(Fault::new(throttle).on_refresh().times(1));
    let (here, there) = futures::join!(world.ask(of(&connections[0])), ask_at(&other, &connections[1]));
    assert_eq!(here.unwrap_err().reason, Reason::ProviderRateLimited);
    assert_eq!(there.unwrap_err().reason, Reason::ProviderRateLimited);
    assert_eq!(world.refreshes() - before, 2, "one probe over all servers");

    world.let_pause_pass().await;
    world.advance(secs(20));
    ask_at(&other, &connections[1]).await.unwrap();
    while !world.storage.list_pauses().await.unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    world.ask(of(&connections[0])).await.unwrap();
}

#[tokio::test]
async fn a_new_client_secret_opens_the_breaker_of_every_server() {
    let world = World::start().await;
    let connections = connected(&world, 2).await;
    let other = world.another_server(|_| {}).await;
    world.advance(secs(1801));
    world.handle().set_client_secret(CLIENT_ID, "another", tokenward_hubspot_sim::Overlap::None).unwrap();
    let refused = world.ask(of(&connections[0])).await.unwrap_err();
    assert_eq!(refused.reason, Reason::OAuthClientMisconfigured);
    while world.storage.list_pauses().await.unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    let before = world.refreshes();
    let refused = ask_at(&other, &connections[1]).await.unwrap_err();
    assert_eq!((refused.reason, world.refreshes()), (Reason::OAuthClientMisconfigured, before));

    let secret = SecretString::from("another");
    let client = crate::world::client_id();
    world.broker.add_client_secret(&actor(), &client, &secret, true).await.unwrap();
    while !world.storage.list_pauses().await.unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    world.ask(of(&connections[0])).await.unwrap();
}
