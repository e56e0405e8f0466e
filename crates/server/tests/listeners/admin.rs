//! The admin listener: resources from creation to deletion, masks, etags, pages, roles.

use prost_types::FieldMask;
use tokenward_api::admin::v1 as api;
use tokenward_api::admin::v1::access_rule_service_client::AccessRuleServiceClient;
use tokenward_api::admin::v1::connection_service_client::ConnectionServiceClient;
use tokenward_api::admin::v1::o_auth_client_service_client::OAuthClientServiceClient;
use tokenward_api::admin::v1::principal_service_client::PrincipalServiceClient;
use tokenward_api::admin::v1::tenant_service_client::TenantServiceClient;
use tokenward_api::v1::token_service_client::TokenServiceClient;
use tokenward_auth::Role;
use tokenward_hubspot_sim::{Fault, FaultKind};
use tonic::Code;

use crate::world::{READ, World, ask, bearer, reason, tenant};

fn mask(path: &str) -> FieldMask {
    FieldMask { paths: vec![path.to_owned()] }
}

#[tokio::test]
async fn a_tenant_lives_from_creation_to_deletion() {
    let world = World::start().await;
    let mut tenants = TenantServiceClient::new(world.admin(Role::Operator).await);
    let create = |id: &str| api::CreateTenantRequest { tenant: Some(tenant(id)) };
    let made = tenants.create_tenant(create("beta")).await.unwrap().into_inner();
    assert_eq!(
        (made.tenant_id.as_str(), made.state(), made.etag.as_str()),
        ("beta", api::tenant::State::Active, "1")
    );
    let status = tenants.create_tenant(create("beta")).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).0.as_str()), (Code::AlreadyExists, "ALREADY_EXISTS"));

    let change = |etag: &str, path: &str| api::UpdateTenantRequest {
        tenant: Some(api::Tenant {
            display_name: "Beta".into(),
            state: api::tenant::State::Suspended.into(),
            etag: etag.into(),
            ..tenant("beta")
        }),
        update_mask: Some(mask(path)),
    };
    let named = tenants.update_tenant(change("1", "display_name")).await.unwrap().into_inner();
    assert_eq!((named.display_name.as_str(), named.state()), ("Beta", api::tenant::State::Active));
    let status = tenants.update_tenant(change("1", "state")).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).0.as_str()), (Code::Aborted, "ETAG_MISMATCH"));
    let suspended = tenants.update_tenant(change("", "state")).await.unwrap().into_inner();
    assert_eq!(suspended.state(), api::tenant::State::Suspended);
    let status = tenants.update_tenant(change("", "tenant_id")).await.unwrap_err();
    assert!(
        status.code() == Code::InvalidArgument && status.message().contains("display_name, labels, state")
    );

    let delete =
        |id: &str, force| api::DeleteTenantRequest { tenant_id: id.into(), force, ..Default::default() };
    tenants.delete_tenant(delete("beta", false)).await.unwrap();
    let status = tenants.get_tenant(api::GetTenantRequest { tenant_id: "beta".into() }).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).0.as_str()), (Code::NotFound, "NOT_FOUND"));

    let status = tenants.delete_tenant(delete("acme", false)).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).0.as_str()), (Code::FailedPrecondition, "IN_USE"));
    tenants.delete_tenant(delete("acme", true)).await.unwrap();
}

#[tokio::test]
async fn listings_come_in_pages_that_neither_repeat_nor_hide() {
    let world = World::start().await;
    let mut tenants = TenantServiceClient::new(world.admin(Role::Operator).await);
    for index in 0..6 {
        tenants
            .create_tenant(api::CreateTenantRequest { tenant: Some(tenant(&format!("t{index}"))) })
            .await
            .unwrap();
    }
    let mut auditor = TenantServiceClient::new(world.admin(Role::Auditor).await);
    let (mut seen, mut token) = (Vec::new(), String::new());
    loop {
        let request = api::ListTenantsRequest { page_size: 3, page_token: token };
        let page = auditor.list_tenants(request).await.unwrap().into_inner();
        assert!(page.tenants.len() <= 3);
        seen.extend(page.tenants.into_iter().map(|tenant| tenant.tenant_id));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, ["acme", "t0", "t1", "t2", "t3", "t4", "t5"]);

    let page = api::ListTenantsRequest { page_size: 1, page_token: String::new() };
    let foreign = auditor.list_tenants(page).await.unwrap().into_inner().next_page_token;
    let mut rules = AccessRuleServiceClient::new(world.admin(Role::Auditor).await);
    let request = api::ListAccessRulesRequest { page_token: foreign, ..Default::default() };
    let status = rules.list_access_rules(request).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).0.as_str()), (Code::InvalidArgument, "INVALID_REQUEST"));
}

#[tokio::test]
async fn an_admin_may_what_an_operator_may_and_not_the_other_way_round() {
    let world = World::start().await;
    let create = || api::CreateTenantRequest { tenant: Some(tenant("beta")) };
    for role in [Role::Service, Role::Auditor] {
        let status =
            TenantServiceClient::new(world.admin(role).await).create_tenant(create()).await.unwrap_err();
        assert_eq!(
            (status.code(), reason(&status).0.as_str()),
            (Code::PermissionDenied, "ROLE_REQUIRED"),
            "{role}"
        );
    }
    TenantServiceClient::new(world.admin(Role::Admin).await).create_tenant(create()).await.unwrap();
    let issue = api::IssueCallerTokenRequest { subject: "x".into(), role: 3, ..Default::default() };
    let mut principals = PrincipalServiceClient::new(world.admin(Role::Operator).await);
    let status = principals.issue_caller_token(issue).await.unwrap_err();
    assert_eq!(reason(&status).0, "ROLE_REQUIRED");
}

#[tokio::test]
async fn a_suspended_tenant_gets_no_token_from_the_next_call_on() {
    let world = World::start().await;
    let mut client = world.tokens("app", Role::Service).await;
    client.get_token(ask()).await.unwrap();
    let mut tenants = TenantServiceClient::new(world.admin(Role::Operator).await);
    let state = api::tenant::State::Suspended.into();
    let request =
        api::UpdateTenantRequest { tenant: Some(api::Tenant { state, ..tenant("acme") }), update_mask: None };
    tenants.update_tenant(request).await.unwrap();
    let status = client.get_token(ask()).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).0.as_str()), (Code::FailedPrecondition, "TENANT_SUSPENDED"));
}

#[tokio::test]
async fn a_rule_counts_from_its_creation_to_its_deletion() {
    let world = World::start().await;
    let mut rules = AccessRuleServiceClient::new(world.admin(Role::Operator).await);
    let mut other = world.tokens("other", Role::Service).await;
    other.get_token(ask()).await.unwrap_err();
    let rule = api::AccessRule {
        principal: "builtin:oth*".into(),
        tenants: Some(api::TenantSelector {
            selector: Some(api::tenant_selector::Selector::Labels(api::TenantLabels {
                labels: [("tier".to_owned(), "gold".to_owned())].into(),
            })),
        }),
        scopes: vec![READ.into()],
        ..Default::default()
    };
    let request = api::CreateAccessRuleRequest { access_rule: Some(rule) };
    let made = rules.create_access_rule(request).await.unwrap().into_inner();
    assert!(made.rule_id.starts_with("rule_"));
    other.get_token(ask()).await.unwrap();
    let delete = api::DeleteAccessRuleRequest { rule_id: made.rule_id, ..Default::default() };
    rules.delete_access_rule(delete).await.unwrap();
    let status = other.get_token(ask()).await.unwrap_err();
    assert_eq!(reason(&status).0, "ACCESS_DENIED");
}

#[tokio::test]
async fn client_secrets_are_versions_that_are_never_shown() {
    let world = World::start().await;
    let mut clients = OAuthClientServiceClient::new(world.admin(Role::Admin).await);
    let add = |secret: &str, activate| api::AddClientSecretRequest {
        oauth_client_id: "main".into(),
        client_secret: secret.into(),
        activate,
    };
    let refused = clients.add_client_secret(add("typo", true)).await.unwrap_err();
    assert_eq!(reason(&refused).0, "OAUTH_CLIENT_MISCONFIGURED", "the provider was asked about it");
    let retire_typo = api::RetireClientSecretRequest { oauth_client_id: "main".into(), secret_version: 2 };
    clients.retire_client_secret(retire_typo).await.unwrap();
    world.rotate_secret("second-secret");
    let second = clients.add_client_secret(add("second-secret", true)).await.unwrap().into_inner();
    assert_eq!((second.secret_version, second.state()), (3, api::client_secret::State::Active));
    let status = clients.add_client_secret(add(" copied\n", false)).await.unwrap_err();
    assert!(status.code() == Code::InvalidArgument && !status.message().contains("copied\n"), "{status:?}");

    let retire =
        |version| api::RetireClientSecretRequest { oauth_client_id: "main".into(), secret_version: version };
    let status = clients.retire_client_secret(retire(3)).await.unwrap_err();
    assert_eq!(reason(&status).0, "IN_USE");
    clients.retire_client_secret(retire(1)).await.unwrap();
    let activate = api::ActivateClientSecretRequest { oauth_client_id: "main".into(), secret_version: 1 };
    assert_eq!(reason(&clients.activate_client_secret(activate).await.unwrap_err()).0, "IN_USE");
    let listed = clients
        .list_client_secrets(api::ListClientSecretsRequest { oauth_client_id: "main".into() })
        .await
        .unwrap();
    let versions: Vec<_> =
        listed.into_inner().client_secrets.iter().map(|s| (s.secret_version, s.state())).collect();
    let retired = api::client_secret::State::Retired;
    assert_eq!(versions, [(3, api::client_secret::State::Active), (2, retired), (1, retired)]);

    let delete = api::DeleteOAuthClientRequest { oauth_client_id: "main".into(), ..Default::default() };
    assert_eq!(reason(&clients.delete_o_auth_client(delete).await.unwrap_err()).0, "IN_USE");
}

#[tokio::test]
async fn an_oauth_client_is_registered_only_for_a_configured_provider() {
    let world = World::start().await;
    let mut clients = OAuthClientServiceClient::new(world.admin(Role::Admin).await);
    let new = |provider: &str| api::CreateOAuthClientRequest {
        oauth_client: Some(api::OAuthClient {
            oauth_client_id: "second".into(),
            provider: provider.into(),
            client_id: "abc".into(),
            scopes: vec!["oauth".into()],
            ..Default::default()
        }),
        client_secret: "first-secret".into(),
    };
    let status = clients.create_o_auth_client(new("salesforce")).await.unwrap_err();
    assert_eq!(reason(&status).1.error_info().unwrap().metadata["field"], "provider");
    let made = clients.create_o_auth_client(new("hubspot")).await.unwrap().into_inner();
    assert_eq!(made.redirect_uri, "http://localhost:7603/oauth/second/callback");
    let delete = api::DeleteOAuthClientRequest { oauth_client_id: "second".into(), etag: made.etag };
    clients.delete_o_auth_client(delete).await.unwrap();
}

#[tokio::test]
async fn connections_and_links_are_listed_and_links_show_their_address_once() {
    let world = World::start().await;
    let mut connections = ConnectionServiceClient::new(world.admin(Role::Operator).await);
    let listed =
        connections.list_connections(api::ListConnectionsRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.connections.len(), 1);
    let connection = &listed.connections[0];
    assert_eq!((connection.tenant_id.as_str(), connection.state()), ("acme", api::connection::State::Active));
    let revoked =
        api::ListConnectionsRequest { state: api::connection::State::Revoked.into(), ..Default::default() };
    assert!(connections.list_connections(revoked).await.unwrap().into_inner().connections.is_empty());

    let request = api::CreateConnectLinkRequest {
        tenant_id: "acme".into(),
        oauth_client_id: "main".into(),
        ..Default::default()
    };
    let link = connections.create_connect_link(request).await.unwrap().into_inner();
    assert!(link.url.starts_with("http://localhost:7603/connect/"), "{}", link.url);
    let listing = api::ListConnectLinksRequest { tenant_id: "acme".into(), ..Default::default() };
    let links = connections.list_connect_links(listing).await.unwrap().into_inner().connect_links;
    assert_eq!((links.len(), links[0].url.as_str()), (1, ""));

    let empty = api::ImportConnectionRequest { tenant_id: "acme".into(), ..Default::default() };
    let status = connections.import_connection(empty).await.unwrap_err();
    assert_eq!(reason(&status).1.error_info().unwrap().metadata["field"], "token");
}

#[tokio::test]
async fn a_change_is_finished_although_its_caller_goes_away() {
    let world = World::start().await;
    let mut tenants = TenantServiceClient::new(world.admin(Role::Operator).await);
    tenants.create_tenant(api::CreateTenantRequest { tenant: Some(tenant("beta")) }).await.unwrap();
    let import = api::ImportConnectionRequest {
        tenant_id: "beta".into(),
        token: Some(api::import_connection_request::Token::RefreshToken(api::ImportedRefreshToken {
            oauth_client_id: "main".into(),
            refresh_token: world.refresh_token(7_654_321),
        })),
        ..Default::default()
    };
    world.sim.handle().add_fault(Fault::new(FaultKind::Latency { ms: 300 }).on_refresh().times(1));
    let mut connections = ConnectionServiceClient::new(world.admin(Role::Operator).await);
    let call = tokio::spawn(async move { connections.import_connection(import).await });
    while world.sim.handle().stats().refreshes < 2 {
        assert!(!call.is_finished(), "{:?}", call.await);
        tokio::task::yield_now().await;
    }
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    let mut connections = ConnectionServiceClient::new(world.admin(Role::Auditor).await);
    let list = api::ListConnectionsRequest { tenant_id: "beta".into(), ..Default::default() };
    while connections.list_connections(list.clone()).await.unwrap().into_inner().connections.is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_issued_caller_token_works_until_its_principal_is_blocked() {
    let world = World::start().await;
    let mut principals = PrincipalServiceClient::new(world.admin(Role::Admin).await);
    let issue = api::IssueCallerTokenRequest { subject: "app".into(), ..Default::default() };
    let issued = principals.issue_caller_token(issue).await.unwrap().into_inner();
    assert_eq!(issued.principal, "builtin:app");
    let mut client =
        TokenServiceClient::with_interceptor(world.channel().await, bearer(&issued.caller_token));
    client.get_token(ask()).await.unwrap();

    let block = api::BlockPrincipalRequest { principal: "builtin:app".into(), reason: "leaked".into() };
    principals.block_principal(block).await.unwrap();
    let status = client.get_token(ask()).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).0.as_str()), (Code::PermissionDenied, "CALLER_BLOCKED"));
    let listed = principals
        .list_blocked_principals(api::ListBlockedPrincipalsRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(listed.blocked_principals[0].blocker, "builtin:ops");

    let unblock = || api::UnblockPrincipalRequest { principal: "builtin:app".into() };
    principals.unblock_principal(unblock()).await.unwrap();
    client.get_token(ask()).await.unwrap();
    assert_eq!(reason(&principals.unblock_principal(unblock()).await.unwrap_err()).0, "NOT_FOUND");
}
