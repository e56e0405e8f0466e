//! What there is to try: two tenants, one of them connected, an OAuth client, a rule, tokens. Made over the API, as an
//! operator and an admin would; what is there already is left as it is.

use secrecy::{ExposeSecret, SecretString};
use tokenward_api::admin::v1::access_rule_service_client::AccessRuleServiceClient;
use tokenward_api::admin::v1::connection::State;
use tokenward_api::admin::v1::connection_service_client::ConnectionServiceClient;
use tokenward_api::admin::v1::o_auth_client_service_client::OAuthClientServiceClient;
use tokenward_api::admin::v1::tenant_selector::Selector;
use tokenward_api::admin::v1::tenant_service_client::TenantServiceClient;
use tokenward_api::admin::v1::{
    AccessRule, CreateAccessRuleRequest, CreateConnectLinkRequest, CreateOAuthClientRequest,
    CreateTenantRequest, ListConnectionsRequest, OAuthClient, Tenant, TenantIds, TenantSelector,
};
use tokenward_auth::{BuiltinIssuer, Role};
use tokenward_hubspot_sim::SimConfig;
use tokenward_server::Addresses;
use tokenward_types::{Clock, Rng};
use tonic::{Code, Status};

use super::flow;
use crate::failure::Failure;
use crate::remote::{Client, client_with};

/// The tenant that is connected.
pub(super) const TENANT: &str = "acme";
/// The tenant that is connected by hand.
pub(super) const OTHER_TENANT: &str = "globex";
/// The provider.
pub(super) const PROVIDER: &str = "hubspot";
/// The OAuth client.
pub(super) const OAUTH_CLIENT: &str = "hubspot-demo";
/// What the demo service may ask for.
pub(super) const SCOPES: [&str; 1] = ["crm.objects.contacts.read"];
const CLIENT_SCOPES: [&str; 2] = ["oauth", "crm.objects.contacts.read"];
const SERVICE: &str = "demo-service";
const RULE: &str = "demo-service";
/// The longest life that there is: a development run should last for a day.
const TOKEN_LIFE: std::time::Duration = tokenward_auth::MAX_LIFETIME;

/// The principal of the demo service.
pub(super) fn principal() -> String {
    format!("builtin:{SERVICE}")
}

/// Caller tokens.
pub(super) struct Tokens {
    pub caller: SecretString,
    pub operator: SecretString,
    pub admin: SecretString,
}

/// Makes the caller tokens.
pub(super) fn issue_tokens(
    issuer: Option<&BuiltinIssuer>,
    clock: &dyn Clock,
    rng: &dyn Rng,
) -> Result<Tokens, Failure> {
    let issuer = issuer.ok_or_else(|| Failure::new("the built-in issuer is switched off"))?;
    let issue = |subject: &str, role| {
        let token = issuer.issue(subject, role, TOKEN_LIFE, rng, clock);
        token.map(|token| token.token).map_err(|error| Failure::new(error.to_string()))
    };
    Ok(Tokens {
        caller: issue(SERVICE, Role::Service)?,
        operator: issue("demo-operator", Role::Operator)?,
        admin: issue("demo-admin", Role::Admin)?,
    })
}

/// The running server, as its clients see it.
pub(super) struct Server {
    pub addresses: Addresses,
    pub public_url: String,
    pub hubspot: String,
    pub tokens: Tokens,
}

/// What was set up.
pub(super) struct Demo {
    pub connection_id: String,
    pub account_id: String,
    /// For the tenant that is connected by hand.
    pub connect_link: SecretString,
}

impl Demo {
    /// Sets everything up, and connects the tenant through the connect flow: at each start, because the stand-in forgets
    /// its consents when it stops.
    pub(super) async fn set_up(server: &Server) -> Result<Self, Failure> {
        let address = format!("http://{}", server.addresses.admin);
        let admin = client_with(&address, &server.tokens.admin)?;
        let operator = client_with(&address, &server.tokens.operator)?;

        create_oauth_client(admin).await?;
        create_tenants(operator.clone()).await?;
        create_rule(operator.clone()).await?;

        let portals = SimConfig::demo(Vec::<String>::new()).portals;
        let hub_id =
            |index: usize| portals.get(index).map(|portal| portal.hub_id.to_string()).unwrap_or_default();
        let (account_id, other_account) = (hub_id(0), hub_id(1));
        let link = create_link(operator.clone(), TENANT, &account_id).await?;
        flow::connect(&link, &server.hubspot, &account_id).await?;
        Ok(Self {
            connection_id: connection(operator.clone(), &account_id).await?,
            // Pinned, so that the account of the other tenant is not offered.
            connect_link: create_link(operator, OTHER_TENANT, &other_account).await?,
            account_id,
        })
    }
}

/// What exists already is as good as new.
fn unless_it_exists<T>(result: Result<T, Status>) -> Result<(), Failure> {
    match result {
        Err(status) if status.code() != Code::AlreadyExists => Err(status.into()),
        _ => Ok(()),
    }
}

async fn create_oauth_client(client: Client) -> Result<(), Failure> {
    let config = SimConfig::demo(Vec::<String>::new());
    let Some(app) = config.apps.into_iter().next() else {
        return Err(Failure::new("the stand-in HubSpot has no app"));
    };
    let oauth_client = OAuthClient {
        oauth_client_id: OAUTH_CLIENT.to_owned(),
        provider: PROVIDER.to_owned(),
        client_id: app.client_id,
        display_name: app.name,
        scopes: CLIENT_SCOPES.map(str::to_owned).to_vec(),
        ..OAuthClient::default()
    };
    let request =
        CreateOAuthClientRequest { oauth_client: Some(oauth_client), client_secret: app.client_secret };
    unless_it_exists(OAuthClientServiceClient::new(client).create_o_auth_client(request).await)
}

async fn create_tenants(client: Client) -> Result<(), Failure> {
    let mut tenants = TenantServiceClient::new(client);
    for (tenant_id, display_name) in [(TENANT, "Acme Corp"), (OTHER_TENANT, "Globex Inc")] {
        let tenant = Tenant {
            tenant_id: tenant_id.to_owned(),
            display_name: display_name.to_owned(),
            ..Tenant::default()
        };
        unless_it_exists(tenants.create_tenant(CreateTenantRequest { tenant: Some(tenant) }).await)?;
    }
    Ok(())
}

async fn create_rule(client: Client) -> Result<(), Failure> {
    let tenant_ids = vec![TENANT.to_owned(), OTHER_TENANT.to_owned()];
    let rule = AccessRule {
        rule_id: RULE.to_owned(),
        principal: principal(),
        tenants: Some(TenantSelector { selector: Some(Selector::Ids(TenantIds { tenant_ids })) }),
        provider: PROVIDER.to_owned(),
        scopes: SCOPES.map(str::to_owned).to_vec(),
        description: "the demo service reads contacts".to_owned(),
        ..AccessRule::default()
    };
    let request = CreateAccessRuleRequest { access_rule: Some(rule) };
    unless_it_exists(AccessRuleServiceClient::new(client).create_access_rule(request).await)
}

async fn create_link(client: Client, tenant: &str, account: &str) -> Result<SecretString, Failure> {
    let request = CreateConnectLinkRequest {
        tenant_id: tenant.to_owned(),
        oauth_client_id: OAUTH_CLIENT.to_owned(),
        account_id: account.to_owned(),
        ..CreateConnectLinkRequest::default()
    };
    let link = ConnectionServiceClient::new(client).create_connect_link(request).await?.into_inner();
    Ok(link.url.into())
}

async fn connection(client: Client, account: &str) -> Result<String, Failure> {
    let request = ListConnectionsRequest {
        tenant_id: TENANT.to_owned(),
        oauth_client_id: OAUTH_CLIENT.to_owned(),
        state: State::Active.into(),
        page_size: 100,
        ..ListConnectionsRequest::default()
    };
    let found =
        ConnectionServiceClient::new(client).list_connections(request).await?.into_inner().connections;
    let connection = found.into_iter().find(|connection| connection.account_id == account);
    connection
        .map(|connection| connection.connection_id)
        .ok_or_else(|| Failure::new("the demo tenant was connected, but its connection is not active"))
}

/// Exposes a link at the point of use.
pub(super) fn link_url(link: &SecretString) -> Result<url::Url, Failure> {
    url::Url::parse(link.expose_secret()).map_err(|_| Failure::new("the connect link is not a URL"))
}
