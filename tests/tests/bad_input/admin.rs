//! Operators and admins who mistype, race or overreach.

use prost_types::{Duration, FieldMask};
use tokenward_api::admin::v1::tenant_selector::Selector;
use tokenward_api::admin::v1::{
    AccessRule, AllTenants, BlockPrincipalRequest, CreateAccessRuleRequest, CreateConnectLinkRequest,
    CreateOAuthClientRequest, CreateTenantRequest, DeleteConnectionRequest, DeleteOAuthClientRequest,
    DeleteTenantRequest, GetConnectionRequest, GetTenantRequest, ImportConnectionRequest,
    ImportedRefreshToken, IssueCallerTokenRequest, ListAccessRulesRequest, ListBlockedPrincipalsRequest,
    ListConnectionsRequest, ListOAuthClientsRequest, ListTenantsRequest, OAuthClient,
    RetireClientSecretRequest, Role, Tenant, TenantSelector, UpdateOAuthClientRequest, UpdateTenantRequest,
    import_connection_request::Token,
};
use tokenward_api::v1::GetTokenRequest;
use tokenward_tests::{Clients, Database, Sql, World};
use tonic::{Code, Status};

use crate::refusal::refused;

async fn connected() -> (World, String) {
    let world = World::start(Database::sqlite()).await;
    world.set_up_tenant("acme").await;
    let connection = world.connect("acme", World::HUB_ID).await;
    (world, connection)
}

fn tenant(id: &str) -> Tenant {
    Tenant { tenant_id: id.to_owned(), ..Tenant::default() }
}

fn client(id: &str) -> OAuthClient {
    OAuthClient {
        oauth_client_id: id.to_owned(),
        provider: "hubspot".to_owned(),
        client_id: "x".to_owned(),
        scopes: vec!["oauth".to_owned()],
        ..OAuthClient::default()
    }
}

fn rule(principal: &str) -> AccessRule {
    AccessRule {
        principal: principal.to_owned(),
        tenants: Some(TenantSelector { selector: Some(Selector::All(AllTenants {})) }),
        scopes: vec!["*".to_owned()],
        ..AccessRule::default()
    }
}

fn mask(path: &str) -> FieldMask {
    FieldMask { paths: vec![path.to_owned()] }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_stored_is_refused_by_its_field() {
    let (world, _) = connected().await;
    let (operator, admin) = (world.operator(), world.admin());
    let mut sql = Sql::open(&world.database).await;
    let before = sql.rows().await;
    let mut answers = Vec::new();
    for (new, field) in [
        (tenant(""), "tenant_id"),
        (tenant("a b"), "tenant_id"),
        (Tenant { display_name: "n".repeat(300), ..tenant("t") }, "display_name"),
        (Tenant { display_name: "a\u{1b}[31mb".into(), ..tenant("t") }, "display_name"),
        (Tenant { labels: [(String::new(), String::new())].into(), ..tenant("t") }, "labels"),
        (
            Tenant { labels: (0..65).map(|i| (format!("k{i}"), "v".into())).collect(), ..tenant("t") },
            "labels",
        ),
        (Tenant { state: 9, ..tenant("t") }, "state"),
    ] {
        let request = CreateTenantRequest { tenant: Some(new) };
        answers.push((refused(operator.tenants().create_tenant(request).await), field));
    }
    for (new, secret, field) in [
        (client("../x"), "", "oauth_client_id"),
        (OAuthClient { provider: "nosuch".into(), ..client("c") }, "", "provider"),
        (OAuthClient { client_id: "a\nb".into(), ..client("c") }, "", "client_id"),
        (OAuthClient { scopes: vec![], ..client("c") }, "", "scopes"),
        (OAuthClient { help_url: "javascript:alert(1)".into(), ..client("c") }, "", "help_url"),
        (client("c"), "secret\n", "client_secret"),
    ] {
        let request = CreateOAuthClientRequest { oauth_client: Some(new), client_secret: secret.into() };
        answers.push((refused(admin.oauth_clients().create_o_auth_client(request).await), field));
    }
    for (new, field) in [
        (rule("billing"), "principal"),
        (rule("a b"), "principal"),
        (AccessRule { tenants: None, ..rule("builtin:x") }, "tenants"),
        (AccessRule { scopes: vec![], ..rule("builtin:x") }, "scopes"),
        (AccessRule { scopes: vec!["*".into(), "a".into()], ..rule("builtin:x") }, "scopes"),
        (AccessRule { provider: "nosuch".into(), ..rule("builtin:x") }, "provider"),
    ] {
        let request = CreateAccessRuleRequest { access_rule: Some(new) };
        answers.push((refused(operator.rules().create_access_rule(request).await), field));
    }
    for (subject, role, secs, field) in [
        ("", 1, 60, "subject"),
        ("a:b", 1, 60, "subject"),
        ("x", 9, 60, "role"),
        ("x", 1, 86_401, "ttl"),
        ("x", 1, -1, "ttl"),
    ] {
        let ttl = Some(Duration { seconds: secs, nanos: 0 });
        let request = IssueCallerTokenRequest { subject: subject.into(), role, ttl };
        answers.push((refused(admin.principals().issue_caller_token(request).await), field));
    }
    for principal in ["", "billing", "builtin:", "builtin:*", "builtin:bootstrap-admin"] {
        let request = BlockPrincipalRequest { principal: principal.into(), reason: String::new() };
        answers.push((refused(admin.principals().block_principal(request).await), "principal"));
    }
    for (refused, field) in answers {
        assert_eq!(
            (refused.is(), refused.field()),
            ((Code::InvalidArgument, "INVALID_REQUEST"), field),
            "{refused:?}"
        );
    }
    assert_eq!(sql.rows().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_says_what_it_is_based_on_and_what_it_changes() {
    let (world, _) = connected().await;
    let mut tenants = world.operator().tenants();
    let read = tenants.get_tenant(GetTenantRequest { tenant_id: "acme".into() }).await.unwrap().into_inner();
    let mut update = async |etag: &str, name: &str, path: &str| {
        let changed = Tenant { display_name: name.into(), etag: etag.into(), ..tenant("acme") };
        let request = UpdateTenantRequest { tenant: Some(changed), update_mask: Some(mask(path)) };
        tenants.update_tenant(request).await.map(tonic::Response::into_inner)
    };
    let changed = update(&read.etag, "Acme", "display_name").await.unwrap();
    let late = refused(update(&read.etag, "Late", "display_name").await);
    assert_eq!(late.is(), (Code::Aborted, "ETAG_MISMATCH"));
    assert_eq!(late.metadata["etag"], changed.etag);
    let junk = refused(update("junk", "Junk", "display_name").await);
    assert_eq!((junk.reason.as_str(), junk.field()), ("INVALID_REQUEST", "etag"));
    for path in ["colour", "tenant_id", "create_time", "labels.a"] {
        let refused = refused(update("", "Junk", path).await);
        assert_eq!((refused.reason.as_str(), refused.field()), ("INVALID_REQUEST", "update_mask"));
        assert!(refused.message.contains("display_name"), "it names what can be changed: {refused:?}");
    }
    let read = tenants.get_tenant(GetTenantRequest { tenant_id: "acme".into() }).await.unwrap().into_inner();
    assert_eq!((read.display_name, read.etag), (changed.display_name, changed.etag));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_token_counts_for_its_own_listing_alone() {
    let (world, _) = connected().await;
    world.set_up_tenant("globex").await;
    let operator = world.operator();
    let first = ListTenantsRequest { page_size: 1, page_token: String::new() };
    let token = operator.tenants().list_tenants(first).await.unwrap().into_inner().next_page_token;
    assert!(!token.is_empty());
    let tenants = |page_token: &str| ListTenantsRequest { page_size: 1, page_token: page_token.into() };
    operator.tenants().list_tenants(tenants(&token)).await.unwrap();
    let mut answers = Vec::new();
    for garbage in ["garbage", "AAAA", &"x".repeat(5000), "caf\u{e9}"] {
        answers.push(refused(operator.tenants().list_tenants(tenants(garbage)).await));
    }
    let rules = ListAccessRulesRequest { page_token: token.clone(), ..ListAccessRulesRequest::default() };
    answers.push(refused(operator.rules().list_access_rules(rules).await));
    let clients = ListOAuthClientsRequest { page_token: token.clone(), ..ListOAuthClientsRequest::default() };
    answers.push(refused(operator.oauth_clients().list_o_auth_clients(clients).await));
    let connections = ListConnectionsRequest { page_token: token, ..ListConnectionsRequest::default() };
    answers.push(refused(operator.connections().list_connections(connections).await));
    for refused in answers {
        assert_eq!((refused.reason.as_str(), refused.field()), ("INVALID_REQUEST", "page_token"));
    }
    let negative = ListTenantsRequest { page_size: -1, page_token: String::new() };
    assert_eq!(refused(operator.tenants().list_tenants(negative).await).field(), "page_size");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_use_stays_and_what_exists_is_not_made_again() {
    let (world, connection_id) = connected().await;
    let (operator, admin) = (world.operator(), world.admin());
    let mut sql = Sql::open(&world.database).await;
    let before = sql.rows().await;
    let oauth_client_id = World::OAUTH_CLIENT.to_owned();
    let delete_tenant = DeleteTenantRequest { tenant_id: "acme".into(), ..DeleteTenantRequest::default() };
    let delete_client =
        DeleteOAuthClientRequest { oauth_client_id: oauth_client_id.clone(), etag: String::new() };
    let delete_connection =
        DeleteConnectionRequest { tenant_id: "acme".into(), connection_id: connection_id.clone() };
    let retire = RetireClientSecretRequest { oauth_client_id: oauth_client_id.clone(), secret_version: 1 };
    let moved = OAuthClient { client_id: "another".into(), ..client(&oauth_client_id) };
    let update = UpdateOAuthClientRequest { oauth_client: Some(moved), update_mask: Some(mask("client_id")) };
    for refused in [
        refused(operator.tenants().delete_tenant(delete_tenant).await),
        refused(admin.oauth_clients().delete_o_auth_client(delete_client).await),
        refused(operator.connections().delete_connection(delete_connection).await),
        refused(admin.oauth_clients().retire_client_secret(retire).await),
        refused(admin.oauth_clients().update_o_auth_client(update).await),
    ] {
        assert_eq!(refused.is(), (Code::FailedPrecondition, "IN_USE"), "{refused:?}");
    }
    let again = CreateTenantRequest { tenant: Some(tenant("acme")) };
    let again = refused(operator.tenants().create_tenant(again).await);
    assert_eq!(again.is(), (Code::AlreadyExists, "ALREADY_EXISTS"));
    assert!(again.message.contains("tenant acme"), "{again:?}");

    // Another tenant's connection is none.
    world.set_up_tenant("globex").await;
    let other = GetConnectionRequest { tenant_id: "globex".into(), connection_id };
    let other = refused(operator.connections().get_connection(other).await);
    assert_eq!(other.is(), (Code::NotFound, "NOT_FOUND"));
    let mut expected = before;
    *expected.get_mut("tenants").unwrap() += 1;
    assert_eq!(sql.rows().await, expected);
    world.get_token("acme").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn links_and_imports_that_lead_nowhere_are_refused() {
    let (world, _) = connected().await;
    let operator = world.operator();
    let mut sql = Sql::open(&world.database).await;
    let before = sql.rows().await;
    let link = |tenant: &str, client: &str, secs: i64, return_url: &str| CreateConnectLinkRequest {
        tenant_id: tenant.into(),
        oauth_client_id: client.into(),
        ttl: Some(Duration { seconds: secs, nanos: 0 }),
        return_url: return_url.into(),
        ..CreateConnectLinkRequest::default()
    };
    for (request, reason) in [
        (link("ghost", World::OAUTH_CLIENT, 3600, ""), "NOT_FOUND"),
        (link("acme", "ghost", 3600, ""), "NOT_FOUND"),
        (link("acme", World::OAUTH_CLIENT, 1, ""), "INVALID_REQUEST"),
        (link("acme", World::OAUTH_CLIENT, 31 * 86_400, ""), "INVALID_REQUEST"),
        (link("acme", World::OAUTH_CLIENT, 3600, "https://evil.example/"), "INVALID_REQUEST"),
    ] {
        let refused = refused(operator.connections().create_connect_link(request.clone()).await);
        assert_eq!(refused.reason, reason, "{request:?}");
    }
    let import = |client: &str, token: &str| ImportConnectionRequest {
        tenant_id: "acme".into(),
        token: Some(Token::RefreshToken(ImportedRefreshToken {
            oauth_client_id: client.into(),
            refresh_token: token.into(),
        })),
        ..ImportConnectionRequest::default()
    };
    let nothing = ImportConnectionRequest { tenant_id: "acme".into(), ..ImportConnectionRequest::default() };
    for (request, reason) in [
        (nothing, "INVALID_REQUEST"),
        (import(World::OAUTH_CLIENT, ""), "INVALID_REQUEST"),
        (import(World::OAUTH_CLIENT, "a b"), "INVALID_REQUEST"),
        (import("ghost", "na1-token"), "NOT_FOUND"),
        (import(World::OAUTH_CLIENT, "na1-bogus"), "GRANT_REFUSED"),
    ] {
        let refused = refused(operator.connections().import_connection(request).await);
        assert_eq!(refused.reason, reason, "{refused:?}");
        assert!(!refused.message.contains("na1-"), "{refused:?}");
    }
    assert_eq!(sql.rows().await, before);
}

/// Calls one method of each kind with a request that has nothing in it: whether the role may call it shows before that.
async fn probe(service: &Clients, admin: &Clients) -> Vec<(&'static str, bool)> {
    let may = |result: Result<(), Status>| match result {
        Ok(()) => true,
        result => refused(result).reason != "ROLE_REQUIRED",
    };
    macro_rules! call {
        ($client:expr, $method:ident, $request:expr) => {
            may($client.$method($request).await.map(drop))
        };
    }
    vec![
        ("get tokens", call!(service.tokens(), get_token, GetTokenRequest::default())),
        ("read tenants", call!(admin.tenants(), list_tenants, ListTenantsRequest::default())),
        ("change tenants", call!(admin.tenants(), create_tenant, CreateTenantRequest::default())),
        (
            "read clients",
            call!(admin.oauth_clients(), list_o_auth_clients, ListOAuthClientsRequest::default()),
        ),
        (
            "change clients",
            call!(admin.oauth_clients(), create_o_auth_client, CreateOAuthClientRequest::default()),
        ),
        ("read connections", call!(admin.connections(), list_connections, ListConnectionsRequest::default())),
        (
            "change connections",
            call!(admin.connections(), create_connect_link, CreateConnectLinkRequest::default()),
        ),
        ("read rules", call!(admin.rules(), list_access_rules, ListAccessRulesRequest::default())),
        ("change rules", call!(admin.rules(), create_access_rule, CreateAccessRuleRequest::default())),
        (
            "read blocks",
            call!(admin.principals(), list_blocked_principals, ListBlockedPrincipalsRequest::default()),
        ),
        ("change callers", call!(admin.principals(), block_principal, BlockPrincipalRequest::default())),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_may_do_its_own_and_nothing_else() {
    let world = World::start(Database::sqlite()).await;
    let reads = ["read tenants", "read clients", "read connections", "read rules", "read blocks"];
    let operates = ["change tenants", "change connections", "change rules"];
    let administers = ["change clients", "change callers"];
    let all = [&["get tokens"][..], &reads, &operates, &administers].concat();
    for (role, may) in [
        (Role::Service, vec!["get tokens"]),
        (Role::Operator, [&["get tokens"][..], &reads, &operates].concat()),
        (Role::Admin, all),
        (Role::Auditor, reads.to_vec()),
    ] {
        let token = world.issue("probe", role).await;
        let service = Clients::new(&world.server().service(), &token);
        let admin = Clients::new(&world.server().admin(), &token);
        for (what, allowed) in probe(&service, &admin).await {
            assert_eq!(allowed, may.contains(&what), "{role:?}: {what}");
        }
    }
}
