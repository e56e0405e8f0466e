//! Fills the servers through their real interfaces: the admin API, and refresh tokens that the stand-in gives.

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};
use tokenward_api::admin::v1::access_rule_service_client::AccessRuleServiceClient;
use tokenward_api::admin::v1::connection_service_client::ConnectionServiceClient;
use tokenward_api::admin::v1::import_connection_request::Token;
use tokenward_api::admin::v1::o_auth_client_service_client::OAuthClientServiceClient;
use tokenward_api::admin::v1::tenant_selector::Selector;
use tokenward_api::admin::v1::tenant_service_client::TenantServiceClient;
use tokenward_api::admin::v1::{
    AccessRule, AddClientSecretRequest, AllTenants, CreateAccessRuleRequest, CreateOAuthClientRequest,
    CreateTenantRequest, ImportConnectionRequest, ImportedRefreshToken, OAuthClient, Tenant, TenantSelector,
};

use crate::people::{CANARY, Line, People, SERVICE, line};
use crate::replica::Replica;
use crate::sim::{CLIENT_ID, CLIENT_SECRET, Grant, SCOPES, Sim};

/// Our name of the registration at the stand-in.
const OAUTH_CLIENT: &str = "hubspot-chaos";
/// The number of the first tenant's account; the others follow.
const FIRST_HUB_ID: u64 = 1_000_000;
/// Admin calls in flight.
const CONCURRENCY: usize = 16;

/// A connection that must not be lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Its tenant.
    pub tenant_id: String,
    /// Its name at the servers.
    pub connection_id: String,
    /// Its account at the vendor.
    pub hub_id: u64,
}

/// Registers the stand-in's app, lets callers at everything, and makes so many tenants with one connection each.
///
/// # Errors
/// When a server or the stand-in refuses.
pub async fn fill(replica: &Replica, people: &People, sim: &Sim, tenants: usize) -> Result<Vec<Connection>> {
    let admin = line(replica.addresses.admin, &people.admin)?;
    let operator = line(replica.addresses.admin, &people.operator)?;
    oauth_client(&admin).await?;
    for subject in [SERVICE, CANARY] {
        rule(&operator, subject).await?;
    }
    let grants = sim.grants(FIRST_HUB_ID, tenants).await?;
    let imports = grants.into_iter().enumerate().map(|(number, grant)| connection(&operator, number, grant));
    stream::iter(imports).buffered(CONCURRENCY).try_collect().await
}

async fn oauth_client(admin: &Line) -> Result<()> {
    let mut clients = OAuthClientServiceClient::new(admin.clone());
    let client = OAuthClient {
        oauth_client_id: OAUTH_CLIENT.to_owned(),
        provider: "hubspot".to_owned(),
        client_id: CLIENT_ID.to_owned(),
        display_name: "Chaos".to_owned(),
        scopes: SCOPES.map(str::to_owned).to_vec(),
        ..OAuthClient::default()
    };
    let request = CreateOAuthClientRequest { oauth_client: Some(client), client_secret: String::new() };
    clients.create_o_auth_client(request).await.context("cannot create the OAuth client")?;
    let request = AddClientSecretRequest {
        oauth_client_id: OAUTH_CLIENT.to_owned(),
        client_secret: CLIENT_SECRET.to_owned(),
        activate: true,
    };
    clients.add_client_secret(request).await.context("cannot add the client secret")?;
    Ok(())
}

async fn rule(operator: &Line, subject: &str) -> Result<()> {
    let rule = AccessRule {
        principal: format!("builtin:{subject}"),
        tenants: Some(TenantSelector { selector: Some(Selector::All(AllTenants {})) }),
        scopes: vec!["*".to_owned()],
        ..AccessRule::default()
    };
    let request = CreateAccessRuleRequest { access_rule: Some(rule) };
    let created = AccessRuleServiceClient::new(operator.clone()).create_access_rule(request).await;
    created.map(drop).context("cannot create a rule")
}

async fn connection(operator: &Line, number: usize, grant: Grant) -> Result<Connection> {
    let tenant_id = format!("customer-{number:06}");
    let tenant = Tenant {
        tenant_id: tenant_id.clone(),
        display_name: format!("Customer {number}"),
        ..Tenant::default()
    };
    let request = CreateTenantRequest { tenant: Some(tenant) };
    let created = TenantServiceClient::new(operator.clone()).create_tenant(request).await;
    created.context("cannot create a tenant")?;
    let hub_id = grant.hub_id;
    let request = import_request(&tenant_id, grant);
    let imported = ConnectionServiceClient::new(operator.clone()).import_connection(request).await;
    let connection_id = imported.context("cannot import a connection")?.into_inner().connection_id;
    Ok(Connection { tenant_id, connection_id, hub_id })
}

/// Hands a tenant's grant over.
pub fn import_request(tenant_id: &str, grant: Grant) -> ImportConnectionRequest {
    ImportConnectionRequest {
        tenant_id: tenant_id.to_owned(),
        account_id: grant.hub_id.to_string(),
        token: Some(Token::RefreshToken(ImportedRefreshToken {
            oauth_client_id: OAUTH_CLIENT.to_owned(),
            refresh_token: grant.refresh_token,
        })),
    }
}
