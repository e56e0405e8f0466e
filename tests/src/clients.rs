//! gRPC clients that send a caller token.

use tokenward_api::admin::v1::access_rule_service_client::AccessRuleServiceClient;
use tokenward_api::admin::v1::connection_service_client::ConnectionServiceClient;
use tokenward_api::admin::v1::key_service_client::KeyServiceClient;
use tokenward_api::admin::v1::o_auth_client_service_client::OAuthClientServiceClient;
use tokenward_api::admin::v1::principal_service_client::PrincipalServiceClient;
use tokenward_api::admin::v1::tenant_service_client::TenantServiceClient;
use tokenward_api::v1::token_service_client::TokenServiceClient;
use tokenward_api::v1::{GetTokenRequest, GetTokenResponse};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// A channel that sends a caller token with every call.
pub type Connected = InterceptedService<Channel, Bearer>;

/// Adds a caller token to each call.
#[derive(Clone, Debug)]
pub struct Bearer(MetadataValue<Ascii>);

impl Bearer {
    /// Of this token.
    pub fn new(token: &str) -> Self {
        Self(format!("Bearer {token}").parse().expect("a token is ASCII"))
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// One caller's clients of one address, over one connection.
#[derive(Clone, Debug)]
pub struct Clients(Connected);

impl Clients {
    /// Of the caller that has this token; it connects when the first call needs it, and again after a break.
    pub fn new(address: &str, token: &str) -> Self {
        let endpoint = Endpoint::from_shared(address.to_owned()).expect("an address of a server");
        Self::over(endpoint.connect_lazy(), token)
    }

    /// Over this channel.
    pub fn over(channel: Channel, token: &str) -> Self {
        Self(InterceptedService::new(channel, Bearer::new(token)))
    }

    /// The API that services use.
    pub fn tokens(&self) -> TokenServiceClient<Connected> {
        TokenServiceClient::new(self.0.clone())
    }

    /// Tenants.
    pub fn tenants(&self) -> TenantServiceClient<Connected> {
        TenantServiceClient::new(self.0.clone())
    }

    /// OAuth clients.
    pub fn oauth_clients(&self) -> OAuthClientServiceClient<Connected> {
        OAuthClientServiceClient::new(self.0.clone())
    }

    /// Connections and connect links.
    pub fn connections(&self) -> ConnectionServiceClient<Connected> {
        ConnectionServiceClient::new(self.0.clone())
    }

    /// Access rules.
    pub fn rules(&self) -> AccessRuleServiceClient<Connected> {
        AccessRuleServiceClient::new(self.0.clone())
    }

    /// Keys.
    pub fn keys(&self) -> KeyServiceClient<Connected> {
        KeyServiceClient::new(self.0.clone())
    }

    /// Callers.
    pub fn principals(&self) -> PrincipalServiceClient<Connected> {
        PrincipalServiceClient::new(self.0.clone())
    }
}

/// Gets a tenant's token with whatever scopes there are.
///
/// # Errors
/// The server's answer.
pub async fn get_token(caller: &Clients, tenant: &str) -> Result<GetTokenResponse, Status> {
    let request = GetTokenRequest { tenant_id: tenant.to_owned(), ..GetTokenRequest::default() };
    Ok(caller.tokens().get_token(request).await?.into_inner())
}
