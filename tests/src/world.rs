//! A whole installation: stand-in HubSpot, database, server, an admin, an operator, a service.

use tokenward_api::admin::v1::tenant_selector::Selector;
use tokenward_api::admin::v1::{
    AccessRule, AllTenants, CreateAccessRuleRequest, CreateConnectLinkRequest, CreateOAuthClientRequest,
    CreateTenantRequest, IssueCallerTokenRequest, ListConnectionsRequest, OAuthClient, Role, Tenant,
    TenantSelector, connection::State,
};
use tokenward_api::v1::GetTokenResponse;
use tokenward_hubspot_sim::{App, HubspotSim, RunningSim, SimConfig};
use tonic::{Code, Status};

use crate::{Clients, Consent, Database, Scratch, Serve, Settings, Tokenward, Walk, get_token};

/// A running installation. Fields are dropped in order: the server ends before its database.
pub struct World {
    server: Option<Serve>,
    /// The stand-in HubSpot.
    pub sim: RunningSim,
    /// The server's configuration; changes count from the next start on.
    pub settings: Settings,
    /// The admin's caller token.
    pub admin_token: String,
    /// The operator's caller token.
    pub operator_token: String,
    /// The service's caller token.
    pub service_token: String,
    /// The database.
    pub database: Database,
    /// Other files.
    pub folder: Scratch,
}

impl World {
    /// The OAuth client that [`World::start`] registers.
    pub const OAUTH_CLIENT: &str = "hubspot-main";
    /// An account that the stand-in has.
    pub const HUB_ID: u64 = 1_234_567;
    /// Another one.
    pub const OTHER_HUB_ID: u64 = 7_654_321;
    /// The service that may have every tenant's tokens.
    pub const PRINCIPAL: &str = "builtin:billing";

    /// Starts everything, registers an OAuth client, and lets the service have every tenant's tokens.
    pub async fn start(database: Database) -> Self {
        Self::start_with(database, |_| {}, |_| {}).await
    }

    /// The same after changes to the server's configuration and to the stand-in's.
    pub async fn start_with(
        database: Database,
        configure: impl FnOnce(&mut Settings),
        configure_sim: impl FnOnce(&mut SimConfig),
    ) -> Self {
        let mut world = Self::bare(database, configure, configure_sim).await;
        world.admin_token = world.bootstrap_admin().await;
        world.operator_token = world.issue("operator", Role::Operator).await;
        world.service_token = world.issue("billing", Role::Service).await;
        world.create_oauth_client(Self::OAUTH_CLIENT).await;
        world.create_rule(Self::PRINCIPAL, &["*"]).await;
        world
    }

    /// Starts the stand-in and the server, and sets nothing up.
    pub async fn bare(
        database: Database,
        configure: impl FnOnce(&mut Settings),
        configure_sim: impl FnOnce(&mut SimConfig),
    ) -> Self {
        let folder = Scratch::new();
        let mut settings = Settings::new(&folder, &database).await;
        let redirect = format!("{}/oauth/{}/callback", settings.public_url(), Self::OAUTH_CLIENT);
        let mut config = SimConfig::demo([redirect]);
        configure_sim(&mut config);
        let sim = HubspotSim::start(config).await.expect("the stand-in starts");
        settings.hubspot(&sim.base_url());
        configure(&mut settings);
        let server = Some(Serve::start(&settings).await);
        let (admin_token, operator_token, service_token) = Default::default();
        Self { server, sim, settings, admin_token, operator_token, service_token, database, folder }
    }

    /// The running server.
    #[track_caller]
    pub fn server(&self) -> &Serve {
        self.server.as_ref().expect("the server runs")
    }

    /// The running server, for looking after its process.
    #[track_caller]
    pub fn server_mut(&mut self) -> &mut Serve {
        self.server.as_mut().expect("the server runs")
    }

    /// Takes the server out, to stop or crash it; [`World::restart`] starts the next one.
    #[track_caller]
    pub fn take_server(&mut self) -> Serve {
        self.server.take().expect("the server runs")
    }

    /// Starts a server on the same database and configuration, after stopping the one that may run.
    pub async fn restart(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop().await;
        }
        self.server = Some(Serve::start(&self.settings).await);
    }

    /// The admin's clients.
    pub fn admin(&self) -> Clients {
        Clients::new(&self.server().admin(), &self.admin_token)
    }

    /// The operator's clients.
    pub fn operator(&self) -> Clients {
        Clients::new(&self.server().admin(), &self.operator_token)
    }

    /// The service's clients.
    pub fn service(&self) -> Clients {
        Clients::new(&self.server().service(), &self.service_token)
    }

    /// The demo app at the stand-in.
    pub fn app() -> App {
        SimConfig::demo(Vec::<String>::new()).apps.remove(0)
    }

    /// Where an OAuth client's callbacks come in.
    pub fn redirect_uri(&self, oauth_client: &str) -> String {
        format!("{}/oauth/{oauth_client}/callback", self.settings.public_url())
    }

    /// A call of the binary as the operator, on the admin API.
    pub fn cli(&self, arguments: &str) -> Tokenward {
        self.cli_as("operator", &self.operator_token, arguments)
    }

    /// The same as the admin.
    pub fn cli_admin(&self, arguments: &str) -> Tokenward {
        self.cli_as("admin", &self.admin_token, arguments)
    }

    /// The same as the service.
    pub fn cli_service(&self, arguments: &str) -> Tokenward {
        self.cli_as("service", &self.service_token, arguments)
    }

    fn cli_as(&self, name: &str, token: &str, arguments: &str) -> Tokenward {
        let file = self.folder.write(&format!("{name}-token"), token);
        Tokenward::new(arguments)
            .env("TOKENWARD_ADDR", self.server().admin())
            .env("TOKENWARD_SERVICE_ADDR", self.server().service())
            .env("TOKENWARD_TOKEN_FILE", file.display().to_string())
    }

    /// An admin's caller token from configuration and key alone.
    pub async fn bootstrap_admin(&self) -> String {
        let call = self.settings.call("principal bootstrap-admin");
        call.run().await.ok().trim().to_owned()
    }

    /// A caller token of the built-in issuer, for `builtin:<subject>`.
    pub async fn issue(&self, subject: &str, role: Role) -> String {
        let request = IssueCallerTokenRequest { subject: subject.to_owned(), role: role.into(), ttl: None };
        let issued = self.admin().principals().issue_caller_token(request).await;
        issued.expect("the admin issues caller tokens").into_inner().caller_token
    }

    /// Registers the demo app as an OAuth client.
    pub async fn create_oauth_client(&self, id: &str) -> OAuthClient {
        let app = Self::app();
        let oauth_client = OAuthClient {
            oauth_client_id: id.to_owned(),
            provider: "hubspot".to_owned(),
            client_id: app.client_id,
            display_name: app.name,
            scopes: app.required_scopes,
            ..OAuthClient::default()
        };
        let request =
            CreateOAuthClientRequest { oauth_client: Some(oauth_client), client_secret: app.client_secret };
        let created = self.admin().oauth_clients().create_o_auth_client(request).await;
        created.expect("the admin registers OAuth clients").into_inner()
    }

    /// Lets a principal have every tenant's tokens with these scopes.
    pub async fn create_rule(&self, principal: &str, scopes: &[&str]) {
        let rule = AccessRule {
            principal: principal.to_owned(),
            tenants: Some(TenantSelector { selector: Some(Selector::All(AllTenants {})) }),
            scopes: scopes.iter().map(|&scope| scope.to_owned()).collect(),
            ..AccessRule::default()
        };
        let request = CreateAccessRuleRequest { access_rule: Some(rule) };
        self.operator().rules().create_access_rule(request).await.expect("the operator writes rules");
    }

    /// Creates a tenant, unless it exists.
    pub async fn set_up_tenant(&self, tenant_id: &str) {
        let tenant = Tenant { tenant_id: tenant_id.to_owned(), ..Tenant::default() };
        let request = CreateTenantRequest { tenant: Some(tenant) };
        match self.operator().tenants().create_tenant(request).await {
            Err(status) if status.code() != Code::AlreadyExists => panic!("no tenant: {status}"),
            _ => {}
        }
    }

    /// A connect link's address.
    pub async fn connect_link(&self, tenant: &str) -> String {
        let request = CreateConnectLinkRequest {
            tenant_id: tenant.to_owned(),
            oauth_client_id: Self::OAUTH_CLIENT.to_owned(),
            ..CreateConnectLinkRequest::default()
        };
        let created = self.operator().connections().create_connect_link(request).await;
        created.expect("the operator makes links").into_inner().url
    }

    /// Connects a tenant to an account through the connect flow; gives the connection's id.
    pub async fn connect(&self, tenant: &str, hub_id: u64) -> String {
        let walk = Walk::start(&self.connect_link(tenant).await).await;
        let callback = walk.decide(Consent::Grant(hub_id)).await;
        let landed = walk.finish(callback).await;
        assert!(landed.status.is_success(), "the result page answers {}", landed.status);
        self.connection(tenant, hub_id).await
    }

    /// The id of a tenant's active connection to an account.
    pub async fn connection(&self, tenant: &str, hub_id: u64) -> String {
        let request = ListConnectionsRequest {
            tenant_id: tenant.to_owned(),
            state: State::Active.into(),
            page_size: 1000,
            ..ListConnectionsRequest::default()
        };
        let listed = self.operator().connections().list_connections(request).await;
        let connections = listed.expect("the operator lists connections").into_inner().connections;
        let account = hub_id.to_string();
        let found = connections.into_iter().find(|connection| connection.account_id == account);
        found.unwrap_or_else(|| panic!("{tenant} has no active connection to {account}")).connection_id
    }

    /// Waits until something holds that no event tells of; false when patience ends.
    pub async fn wait_until(&self, mut holds: impl FnMut() -> bool) -> bool {
        let asked = async {
            while !holds() {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(crate::PATIENCE, asked).await.is_ok()
    }

    /// Gets a tenant's token as the service.
    ///
    /// # Errors
    /// The server's answer.
    pub async fn get_token(&self, tenant: &str) -> Result<GetTokenResponse, Status> {
        get_token(&self.service(), tenant).await
    }
}
