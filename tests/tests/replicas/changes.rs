//! What is changed on one server holds on the other within two seconds.

use tokenward_api::admin::v1::{
    BlockPrincipalRequest, DeleteAccessRuleRequest, DisconnectConnectionRequest, ListAccessRulesRequest,
    UnblockPrincipalRequest,
};
use tokenward_tests::{Signal, World, get_token};
use tokio::time::Instant;

use crate::world::{HOLDS_WITHIN, Second, holds_within, outcome, two_servers};

async fn on_second(world: &World, second: &Second, expected: &str) {
    let since = Instant::now();
    holds_within(since, expected, || async { outcome(second.get_token(world, "acme").await) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_tenant_and_its_return_hold_on_the_other_server() {
    let Some((world, second)) = two_servers().await else { return };
    world.cli("tenant suspend acme").run().await.ok();
    on_second(&world, &second, "TENANT_SUSPENDED").await;
    world.cli("tenant activate acme").run().await.ok();
    on_second(&world, &second, "OK").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_rule_holds_on_the_other_server() {
    let Some((world, second)) = two_servers().await else { return };
    let rules = world.operator().rules().list_access_rules(ListAccessRulesRequest::default()).await.unwrap();
    for rule in rules.into_inner().access_rules {
        let request = DeleteAccessRuleRequest { rule_id: rule.rule_id, ..DeleteAccessRuleRequest::default() };
        world.operator().rules().delete_access_rule(request).await.unwrap();
    }
    on_second(&world, &second, "ACCESS_DENIED").await;
    world.create_rule(World::PRINCIPAL, &["*"]).await;
    on_second(&world, &second, "OK").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disconnected_and_a_re_consented_connection_hold_on_the_other_server() {
    let Some((world, second)) = two_servers().await else { return };
    let before = second.get_token(&world, "acme").await.unwrap();
    assert_eq!(world.connect("acme", World::HUB_ID).await, before.connection_id);
    let after = world.get_token("acme").await.unwrap().access_token;
    assert_ne!(after, before.access_token, "another consent gives another token");
    let since = Instant::now();
    let token = || async { second.get_token(&world, "acme").await.unwrap().access_token };
    holds_within(since, &after, token).await;

    let request = DisconnectConnectionRequest {
        tenant_id: "acme".into(),
        connection_id: before.connection_id,
        ..DisconnectConnectionRequest::default()
    };
    world.operator().connections().disconnect_connection(request).await.unwrap();
    on_second(&world, &second, "CONNECTION_REQUIRED").await;
    world.connect("acme", World::HUB_ID).await;
    on_second(&world, &second, "OK").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_principal_is_blocked_on_the_other_server() {
    let Some((world, second)) = two_servers().await else { return };
    let principal = World::PRINCIPAL.to_owned();
    let request = BlockPrincipalRequest { principal: principal.clone(), reason: "lost".into() };
    world.admin().principals().block_principal(request).await.unwrap();
    on_second(&world, &second, "CALLER_BLOCKED").await;
    world.admin().principals().unblock_principal(UnblockPrincipalRequest { principal }).await.unwrap();
    on_second(&world, &second, "OK").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stood_still_looks_at_the_log_before_it_answers() {
    let Some((world, second)) = two_servers().await else { return };
    let caller = second.service(&world);
    get_token(&caller, "acme").await.unwrap();
    second.server.process.signal(Signal::Stop);
    let stopped = Instant::now();
    world.cli("tenant suspend acme").run().await.ok();
    // The call is there when the process goes on.
    let call = tokio::spawn(async move { outcome(get_token(&caller, "acme").await) });
    let stood_still = || stopped.elapsed() > HOLDS_WITHIN;
    assert!(world.wait_until(stood_still).await);
    second.server.process.signal(Signal::Continue);
    assert_eq!(call.await.unwrap(), "TENANT_SUSPENDED");
}
