//! Who speaks to servers, over channels that connect anew by themselves.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use prost_types::Duration as ProtoDuration;
use tokenward_api::admin::v1::principal_service_client::PrincipalServiceClient;
use tokenward_api::admin::v1::{IssueCallerTokenRequest, Role};
use tokenward_api::v1::token_service_client::TokenServiceClient;
use tokenward_api::v1::{GetTokenRequest, GetTokenResponse};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::process::output;
use crate::replica::Replica;

/// The longest life of a caller token.
const DAY: ProtoDuration = ProtoDuration { seconds: 86_400, nanos: 0 };
const CONNECT: Duration = Duration::from_millis(500);

/// Adds a caller token to every call.
#[derive(Clone)]
pub struct Bearer(MetadataValue<Ascii>);

impl Bearer {
    /// Of a token as it was printed or issued.
    ///
    /// # Errors
    /// When the token has characters that it cannot have.
    pub fn new(token: &str) -> Result<Self> {
        Ok(Self(format!("Bearer {}", token.trim()).parse()?))
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// A channel with a caller token.
pub type Line = InterceptedService<Channel, Bearer>;

/// A channel to an address, which need not answer yet.
///
/// # Errors
/// When the address makes no URI.
pub fn line(address: SocketAddr, bearer: &Bearer) -> Result<Line> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?.connect_timeout(CONNECT);
    Ok(InterceptedService::new(endpoint.connect_lazy(), bearer.clone()))
}

/// Those who may do something.
#[derive(Clone)]
pub struct People {
    /// Makes OAuth clients and caller tokens, blocks principals.
    pub admin: Bearer,
    /// Makes tenants, connections and rules.
    pub operator: Bearer,
    /// Asks for tokens.
    pub service: Bearer,
    /// Asks for tokens, and is blocked now and then.
    pub canary: Bearer,
}

/// The names of those who ask for tokens.
pub const SERVICE: &str = "chaos";
/// The same of the one who is blocked now and then.
pub const CANARY: &str = "canary";

impl People {
    /// The first admin, by the command line; then the others, by the admin API.
    ///
    /// # Errors
    /// When one cannot be made.
    pub async fn first(replica: &Replica) -> Result<Self> {
        let mut bootstrap = replica.command(&["principal", "bootstrap-admin", "--ttl", "24h"]);
        let token = output(&mut bootstrap).await.context("cannot bootstrap an admin")?;
        let admin = Bearer::new(&token)?;
        let channel = line(replica.addresses.admin, &admin)?;
        Ok(Self {
            operator: issue(&channel, "operator", Role::Operator).await?,
            service: issue(&channel, SERVICE, Role::Service).await?,
            canary: issue(&channel, CANARY, Role::Service).await?,
            admin,
        })
    }
}

async fn issue(admin: &Line, subject: &str, role: Role) -> Result<Bearer> {
    let request = IssueCallerTokenRequest { subject: subject.to_owned(), role: role.into(), ttl: Some(DAY) };
    let answer = PrincipalServiceClient::new(admin.clone()).issue_caller_token(request).await;
    Bearer::new(&answer.context("cannot issue a caller token")?.into_inner().caller_token)
}

/// Asks once for a tenant's token.
///
/// # Errors
/// What the server said, or that it said nothing in time.
pub async fn get_token(
    line: &Line,
    tenant_id: String,
    patience: Duration,
) -> Result<GetTokenResponse, Status> {
    let request = GetTokenRequest { tenant_id, provider: "hubspot".to_owned(), ..GetTokenRequest::default() };
    let mut request = tonic::Request::new(request);
    // As clients do: whoever knows until when an answer is of use can give out a living token before it is too late.
    request.set_timeout(patience);
    let mut client = TokenServiceClient::new(line.clone());
    match tokio::time::timeout(patience, client.get_token(request)).await {
        Ok(answer) => answer.map(tonic::Response::into_inner),
        Err(_) => Err(Status::new(Code::DeadlineExceeded, "no answer in time")),
    }
}
