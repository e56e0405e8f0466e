//! Requests for tokens that make no sense, or ask for what the caller may not have.

use prost_types::Duration;
use tokenward_api::admin::v1::tenant_selector::Selector;
use tokenward_api::admin::v1::{AccessRule, CreateAccessRuleRequest, Role, TenantIds, TenantSelector};
use tokenward_api::v1::{GetTokenRequest, GetTokenResponse, ReportRejectedTokenRequest};
use tokenward_tests::{Clients, Database, Sql, World};
use tonic::{Code, Status};

use crate::refusal::refused;

const READ: &str = "crm.objects.contacts.read";
const WRITE: &str = "crm.objects.contacts.write";

async fn connected() -> World {
    let world = World::start(Database::sqlite()).await;
    world.set_up_tenant("acme").await;
    world.connect("acme", World::HUB_ID).await;
    world
}

/// A caller that may have `scopes` of these tenants.
async fn caller(world: &World, subject: &str, tenants: &[&str], scopes: &[&str]) -> Clients {
    let tenant_ids = tenants.iter().map(|&tenant| tenant.to_owned()).collect();
    let rule = AccessRule {
        principal: format!("builtin:{subject}"),
        tenants: Some(TenantSelector { selector: Some(Selector::Ids(TenantIds { tenant_ids })) }),
        provider: "hubspot".to_owned(),
        scopes: scopes.iter().map(|&scope| scope.to_owned()).collect(),
        ..AccessRule::default()
    };
    if !tenants.is_empty() {
        let request = CreateAccessRuleRequest { access_rule: Some(rule) };
        world.operator().rules().create_access_rule(request).await.unwrap();
    }
    Clients::new(&world.server().service(), &world.issue(subject, Role::Service).await)
}

async fn get(caller: &Clients, request: GetTokenRequest) -> Result<GetTokenResponse, Status> {
    caller.tokens().get_token(request).await.map(tonic::Response::into_inner)
}

fn acme() -> GetTokenRequest {
    GetTokenRequest { tenant_id: "acme".to_owned(), ..GetTokenRequest::default() }
}

fn scopes(scopes: &[&str]) -> GetTokenRequest {
    GetTokenRequest { scopes: scopes.iter().map(|&scope| scope.to_owned()).collect(), ..acme() }
}

fn min_ttl(seconds: i64, nanos: i32) -> GetTokenRequest {
    GetTokenRequest { min_ttl: Some(Duration { seconds, nanos }), ..acme() }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_malformed_field_is_named_and_nothing_is_written_or_asked() {
    let world = connected().await;
    let mut sql = Sql::open(&world.database).await;
    let before = (sql.rows().await, world.sim.handle().stats().requests);
    let tenant = |id: &str| GetTokenRequest { tenant_id: id.to_owned(), ..GetTokenRequest::default() };
    let many: Vec<String> = (0..1000).map(|i| format!("scope{i}")).collect();
    let long = "x".repeat(257);
    for (request, field) in [
        (tenant(""), "tenant_id"),
        (tenant("a b"), "tenant_id"),
        (tenant("../acme"), "tenant_id"),
        (tenant("acme\0"), "tenant_id"),
        (tenant("_installation"), "tenant_id"),
        (tenant(&"a".repeat(129)), "tenant_id"),
        (GetTokenRequest { provider: "hub spot".into(), ..acme() }, "provider"),
        (GetTokenRequest { connection_id: "../1".into(), ..acme() }, "connection_id"),
        (GetTokenRequest { account_id: "1\n2".into(), ..acme() }, "account_id"),
        (scopes(&[""]), "scopes"),
        (scopes(&["a b"]), "scopes"),
        (scopes(&["caf\u{e9}"]), "scopes"),
        (scopes(&["a\"b"]), "scopes"),
        (scopes(&[&long]), "scopes"),
        (GetTokenRequest { scopes: many, ..acme() }, "scopes"),
        (min_ttl(-1, 0), "min_ttl"),
        (min_ttl(0, -1), "min_ttl"),
        (min_ttl(1, 1_000_000_000), "min_ttl"),
    ] {
        let refused = refused(get(&world.service(), request.clone()).await);
        assert_eq!(refused.is(), (Code::InvalidArgument, "INVALID_REQUEST"), "{request:?}: {refused:?}");
        assert_eq!(refused.field(), field, "{request:?}: {refused:?}");
        assert!(refused.message.contains(field.trim_end_matches("_id")), "{refused:?}");
    }
    assert_eq!((sql.rows().await, world.sim.handle().stats().requests), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_min_ttl_that_no_token_reaches_is_refused_with_the_longest_one_before_the_vendor_is_asked() {
    let mut world = connected().await;
    let asked = world.sim.handle().stats().refreshes;
    for _ in 0..2 {
        let refused = refused(get(&world.service(), min_ttl(86_400, 0)).await);
        assert_eq!(refused.is(), (Code::InvalidArgument, "MIN_TTL_TOO_LONG"));
        let longest: i64 = refused.metadata["max_min_ttl_seconds"].parse().unwrap();
        assert!(refused.message.contains(&longest.to_string()), "{refused:?}");
        let token = get(&world.service(), min_ttl(longest, 0)).await.unwrap();
        assert!(token.ttl.unwrap().seconds > 0);
        // And once more by a server that has nothing in memory yet.
        world.restart().await;
    }
    assert_eq!(world.sim.handle().stats().refreshes, asked);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_over_64_kib_is_refused() {
    let world = connected().await;
    for size in [70_000, 5_000_000] {
        let request = GetTokenRequest { tenant_id: "a".repeat(size), ..GetTokenRequest::default() };
        let refused = refused(get(&world.service(), request).await);
        assert_eq!(refused.is(), (Code::InvalidArgument, "REQUEST_TOO_LARGE"), "{size}");
        assert!(refused.message.contains("64 KiB"), "{refused:?}");
    }
    world.get_token("acme").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_rule_nobody_learns_which_tenants_there_are() {
    let world = connected().await;
    let stranger = caller(&world, "stranger", &[], &[]).await;
    let mut answers = Vec::new();
    for tenant_id in ["acme", "ghost"] {
        let request = GetTokenRequest { tenant_id: tenant_id.to_owned(), ..GetTokenRequest::default() };
        let mut refused = refused(get(&stranger, request).await);
        assert_eq!(refused.is(), (Code::PermissionDenied, "ACCESS_DENIED"));
        refused.metadata.remove("request_id");
        answers.push(format!("{refused:?}"));
    }
    assert_eq!(answers[0], answers[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scope_is_refused_by_the_rules_before_it_is_looked_for_in_the_grant() {
    let world = connected().await;
    let narrow = caller(&world, "narrow", &["acme"], &[READ]).await;
    let denied = refused(get(&narrow, scopes(&[WRITE])).await);
    assert_eq!(denied.is(), (Code::PermissionDenied, "ACCESS_DENIED"));
    assert!(!denied.metadata.contains_key("missing_scopes"), "{denied:?}");

    let broad = caller(&world, "broad", &["acme"], &[READ, WRITE]).await;
    let missing = refused(get(&broad, scopes(&[READ, WRITE])).await);
    assert_eq!(missing.is(), (Code::FailedPrecondition, "SCOPE_NOT_GRANTED"));
    assert_eq!(missing.metadata["missing_scopes"], WRITE);
    assert!(missing.message.contains(WRITE) && missing.metadata.contains_key("connection_id"), "{missing:?}");
    get(&broad, scopes(&[READ])).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_connected_is_said_with_what_was_asked_for() {
    let world = connected().await;
    world.set_up_tenant("empty").await;
    let caller = caller(&world, "app", &["acme", "empty", "ghost"], &[READ]).await;
    for (request, key, value) in [
        (GetTokenRequest { tenant_id: "empty".into(), ..GetTokenRequest::default() }, "", ""),
        (GetTokenRequest { provider: "salesforce".into(), ..acme() }, "provider", "salesforce"),
        (GetTokenRequest { account_id: "99".into(), ..acme() }, "account_id", "99"),
        (GetTokenRequest { connection_id: "con_99".into(), ..acme() }, "connection_id", "con_99"),
    ] {
        let refused = refused(get(&caller, request.clone()).await);
        assert_eq!(refused.is(), (Code::FailedPrecondition, "CONNECTION_REQUIRED"), "{request:?}");
        assert!(refused.message.contains("connect-link create"), "{refused:?}");
        assert_eq!(refused.metadata.get(key).map_or("", String::as_str), value, "{refused:?}");
    }
    // The rule names it, so that its author's slip may show.
    let ghost = GetTokenRequest { tenant_id: "ghost".into(), ..GetTokenRequest::default() };
    assert_eq!(refused(get(&caller, ghost).await).is(), (Code::NotFound, "NOT_FOUND"));
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_of_tokens_that_nobody_was_given_are_refused() {
    let world = connected().await;
    let token = world.get_token("acme").await.unwrap();
    let stranger = caller(&world, "stranger", &[], &[]).await;
    let good = ReportRejectedTokenRequest {
        tenant_id: "acme".to_owned(),
        connection_id: token.connection_id,
        fingerprint: token.fingerprint,
    };
    for (request, field) in [
        (ReportRejectedTokenRequest { tenant_id: String::new(), ..good.clone() }, "tenant_id"),
        (ReportRejectedTokenRequest { connection_id: String::new(), ..good.clone() }, "connection_id"),
        (ReportRejectedTokenRequest { fingerprint: token.access_token, ..good.clone() }, "fingerprint"),
    ] {
        let refused = refused(world.service().tokens().report_rejected_token(request).await);
        assert_eq!((refused.is(), refused.field()), ((Code::InvalidArgument, "INVALID_REQUEST"), field));
    }
    let ghost = ReportRejectedTokenRequest { connection_id: "con_99".into(), ..good.clone() };
    for (caller, request) in [(&world.service(), ghost), (&stranger, good)] {
        let refused = refused(caller.tokens().report_rejected_token(request).await);
        assert_eq!(refused.is(), (Code::PermissionDenied, "ACCESS_DENIED"));
    }
}
