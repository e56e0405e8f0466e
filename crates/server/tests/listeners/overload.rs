//! Too much at once: who is turned away, who is not, and what a caller that goes away leaves behind.

use std::time::Duration;

use tokenward_api::admin::v1 as api;
use tokenward_api::admin::v1::access_rule_service_client::AccessRuleServiceClient;
use tokenward_api::admin::v1::tenant_service_client::TenantServiceClient;
use tokenward_api::v1::GetTokenResponse;
use tokenward_auth::Role;
use tokenward_hubspot_sim::{Fault, FaultKind};
use tokenward_server::{Limits, ServerConfig};
use tokio::task::JoinSet;
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::world::{READ, World, ask, config, reason};

async fn world(limits: Limits) -> World {
    World::with(ServerConfig { limits, worker_threads: 1, ..config() }).await
}

/// The token of `acme` has expired, and HubSpot takes its time for the next one.
fn make_slow(world: &World, time: Duration) {
    world.clock.advance(Duration::from_secs(1801));
    world.sim.handle().advance_secs(1801);
    let ms = u64::try_from(time.as_millis()).unwrap();
    world.sim.handle().add_fault(Fault::new(FaultKind::Latency { ms }).on_refresh());
}

/// Calls that are under way, each over a connection of its own.
async fn calls(world: &World, subject: &str, count: usize) -> JoinSet<Result<GetTokenResponse, Status>> {
    let mut calls = JoinSet::new();
    for _ in 0..count {
        let mut client = world.tokens(subject, Role::Service).await;
        calls.spawn(async move { client.get_token(ask()).await.map(tonic::Response::into_inner) });
    }
    calls
}

async fn wait_for_waiting(world: &World, count: usize) {
    let line = format!("tokenward_waiting{{work=\"token\"}} {count}\n");
    while !world.operations("/metrics").await.1.contains(&line) {
        tokio::task::yield_now().await;
    }
}

#[track_caller]
fn assert_overloaded(status: &Status) {
    let (name, details) = reason(status);
    assert_eq!((status.code(), name.as_str()), (Code::ResourceExhausted, "OVERLOADED"));
    let wait = details.retry_info().unwrap().retry_delay.unwrap();
    assert!((250..=750).contains(&wait.as_millis()), "{wait:?}");
}

#[tokio::test]
async fn a_principal_that_floods_is_turned_away_and_another_one_gets_its_token() {
    let world = world(Limits { max_waiting_calls: 8, ..config().limits }).await;
    let rule = api::AccessRule {
        principal: "builtin:quiet".into(),
        scopes: vec![READ.into()],
        tenants: Some(api::TenantSelector {
            selector: Some(api::tenant_selector::Selector::All(api::AllTenants {})),
        }),
        ..Default::default()
    };
    let request = api::CreateAccessRuleRequest { access_rule: Some(rule) };
    let mut rules = AccessRuleServiceClient::new(world.admin(Role::Operator).await);
    rules.create_access_rule(request).await.unwrap();
    make_slow(&world, Duration::from_secs(3));

    let mut flood = calls(&world, "app", 20).await;
    for _ in 0..17 {
        let refused = flood.join_next().await.unwrap().unwrap().unwrap_err();
        assert_overloaded(&refused);
    }
    wait_for_waiting(&world, 3).await;
    let mut quiet = calls(&world, "quiet", 1).await;
    wait_for_waiting(&world, 4).await;
    let token = quiet.join_next().await.unwrap().unwrap().unwrap().access_token;
    while let Some(answer) = flood.join_next().await {
        assert_eq!(answer.unwrap().unwrap().access_token, token);
    }
    wait_for_waiting(&world, 0).await;
    assert_eq!(world.sim.handle().stats().refreshes, 2, "the import's, and one for everybody");
    // From here on the answer is in memory, and nobody needs a place.
    let mut warm = calls(&world, "app", 50).await;
    while let Some(answer) = warm.join_next().await {
        answer.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_caller_whose_time_is_over_or_that_went_away_frees_its_place_and_the_refresh_goes_on() {
    let world = world(Limits { max_waiting_calls: 1, ..config().limits }).await;
    make_slow(&world, Duration::from_secs(2));
    let mut client = world.tokens("app", Role::Service).await;
    let mut hasty = Request::new(ask());
    hasty.set_timeout(Duration::from_millis(100));
    client.get_token(hasty).await.unwrap_err();
    wait_for_waiting(&world, 0).await;

    let mut gone = calls(&world, "app", 1).await;
    wait_for_waiting(&world, 1).await;
    assert_overloaded(&client.get_token(ask()).await.unwrap_err());
    gone.abort_all();
    wait_for_waiting(&world, 0).await;

    let token = client.get_token(ask()).await.unwrap().into_inner().access_token;
    assert!(world.sim.handle().is_access_token_live(&token));
    assert_eq!(world.sim.handle().stats().refreshes, 2, "the import's, and one that all three waited for");
}

#[tokio::test]
async fn caller_tokens_are_verified_in_bounded_numbers_and_nonsense_takes_no_place() {
    let world = world(Limits { max_verifications: 0, ..config().limits }).await;
    let mut client = world.tokens("app", Role::Service).await;
    assert_overloaded(&client.get_token(ask()).await.unwrap_err());
    let nonsense = crate::world::bearer("a.b.c");
    let mut client = tokenward_api::v1::token_service_client::TokenServiceClient::with_interceptor(
        world.channel().await,
        nonsense,
    );
    let status = client.get_token(ask()).await.unwrap_err();
    assert_eq!(reason(&status).0, "CALLER_TOKEN_INVALID");
}

#[tokio::test]
async fn admin_calls_have_places_of_their_own() {
    let world = world(Limits { max_admin_calls: 0, ..config().limits }).await;
    let mut tenants = TenantServiceClient::new(world.admin(Role::Operator).await);
    assert_overloaded(&tenants.list_tenants(api::ListTenantsRequest::default()).await.unwrap_err());
    let tenant = Some(crate::world::tenant("new"));
    assert_overloaded(&tenants.create_tenant(api::CreateTenantRequest { tenant }).await.unwrap_err());
    world.tokens("app", Role::Service).await.get_token(ask()).await.unwrap();
}

#[tokio::test]
async fn a_connection_has_as_many_calls_in_flight_as_it_may() {
    let world = world(Limits { max_calls_per_connection: 2, ..config().limits }).await;
    let mut client = world.tokens("app", Role::Service).await;
    // Before it has heard of the limit, a client may go beyond it, and is refused.
    client.get_token(ask()).await.unwrap();
    make_slow(&world, Duration::from_secs(2));
    let mut calls = JoinSet::new();
    for _ in 0..5 {
        let mut client = client.clone();
        calls.spawn(async move { client.get_token(ask()).await });
    }
    // The other three wait at the client, and are answered from memory later.
    wait_for_waiting(&world, 2).await;
    while let Some(answer) = calls.join_next().await {
        answer.unwrap().unwrap();
    }
    let (_, metrics) = world.operations("/metrics").await;
    assert!(metrics.contains("tokenward_cache_hits_total 3\n"), "{metrics}");
}

#[tokio::test]
async fn those_who_watch_health_are_bounded_and_keep_nobody_from_a_token() {
    let world = world(config().limits).await;
    let mut health = HealthClient::new(world.channel().await);
    let mut watches = Vec::new();
    for _ in 0..1000 {
        let mut stream = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
        stream.message().await.unwrap().unwrap();
        watches.push(stream);
    }
    assert_overloaded_open(&health.watch(HealthCheckRequest::default()).await.unwrap_err());
    assert_overloaded_open(&health.check(HealthCheckRequest::default()).await.unwrap_err());
    world.tokens("app", Role::Service).await.get_token(ask()).await.unwrap();
    // Whoever stops watching makes room.
    drop(watches);
    while health.check(HealthCheckRequest::default()).await.is_err() {
        tokio::task::yield_now().await;
    }
}

#[track_caller]
fn assert_overloaded_open(status: &Status) {
    assert_eq!((status.code(), reason(status).0.as_str()), (Code::ResourceExhausted, "OVERLOADED"));
}

#[tokio::test]
async fn a_vendor_that_is_away_makes_nothing_unready_and_is_told_of() {
    let world = World::start().await;
    let is = |word: &str| format!(r#""providers":{{"hubspot":"{word}"}}"#);
    let (status, body) = world.operations("/readyz").await;
    assert!(status == 200 && body.contains(&is("ok")), "the import asked it: {body}");

    world.sim.handle().add_fault(Fault::new(FaultKind::Html { status: None }).on_refresh());
    for _ in 0..3 {
        world.clock.advance(Duration::from_secs(1801));
        world.sim.handle().advance_secs(1801);
        // The clock has moved beyond the life of the caller token before.
        let status = world.tokens("app", Role::Service).await.get_token(ask()).await.unwrap_err();
        assert_eq!(reason(&status).0, "PROVIDER_UNAVAILABLE");
    }
    let (status, body) = world.operations("/readyz").await;
    assert!(status == 200 && body.contains(&is("unreachable")), "{body}");
    let answer = HealthClient::new(world.channel().await).check(HealthCheckRequest::default()).await.unwrap();
    assert_eq!(answer.into_inner().status, 1, "gRPC health alike");

    world.sim.handle().clear_faults();
    world.clock.advance(Duration::from_secs(300));
    world.tokens("app", Role::Service).await.get_token(ask()).await.unwrap();
    assert!(world.operations("/readyz").await.1.contains(&is("ok")));
    world.clock.advance(Duration::from_secs(600));
    assert!(
        world.operations("/readyz").await.1.contains(&is("unknown")),
        "nobody is asked for the sake of it"
    );
}
