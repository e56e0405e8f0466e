//! Fills a server through its real interfaces: the admin API, and refresh tokens that the stand-in gives.

use std::ops::Range;
use std::sync::Arc;

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};
use http::HeaderValue;
use tokenward_api::admin::v1::access_rule_service_client::AccessRuleServiceClient;
use tokenward_api::admin::v1::connection_service_client::ConnectionServiceClient;
use tokenward_api::admin::v1::import_connection_request::Token;
use tokenward_api::admin::v1::o_auth_client_service_client::OAuthClientServiceClient;
use tokenward_api::admin::v1::tenant_service_client::TenantServiceClient;
use tokenward_api::admin::v1::{
    AddClientSecretRequest, CreateAccessRuleRequest, CreateOAuthClientRequest, CreateTenantRequest,
    ImportConnectionRequest, ImportedRefreshToken, OAuthClient, Role,
};
use tokio::time::Instant;

use crate::gateway::{self, People};
use crate::run::say;
use crate::sim::{CLIENT_ID, CLIENT_SECRET, Grant, Sim};
use crate::stats;
use crate::world::{self, World};

/// Our name of the registration at the stand-in.
const OAUTH_CLIENT: &str = "hubspot-bench";
/// Consents that are asked for at a time.
const GRANTS: usize = 10_000;

/// Registers the stand-in's app.
///
/// # Errors
/// When the server refuses.
pub async fn oauth_client(people: &People, world: &World) -> Result<()> {
    let mut clients = OAuthClientServiceClient::new(people.admin.clone());
    let client = OAuthClient {
        oauth_client_id: OAUTH_CLIENT.to_owned(),
        provider: "hubspot".to_owned(),
        client_id: CLIENT_ID.to_owned(),
        display_name: "Benchmark".to_owned(),
        scopes: world.granted(),
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

/// Creates the rules and issues the callers' tokens.
///
/// # Errors
/// When the server refuses.
pub async fn callers(people: &People, world: &World, concurrency: usize) -> Result<Vec<HeaderValue>> {
    let rules = (0..world.rules()).map(|index| {
        let mut client = AccessRuleServiceClient::new(people.operator.clone());
        let request = CreateAccessRuleRequest { access_rule: Some(world.access_rule(index)) };
        async move { client.create_access_rule(request).await.map(drop) }
    });
    let done = stream::iter(rules).buffer_unordered(concurrency).try_collect::<()>().await;
    done.context("cannot create a rule")?;
    let mut tokens = Vec::new();
    for caller in 0..world.callers() {
        let token = gateway::issue(&people.admin, &world::subject(caller), Role::Service).await?;
        tokens.push(gateway::bearer(&token)?);
    }
    Ok(tokens)
}

/// Creates the tenants with these numbers, and imports one connection for each: the account's number is `first_hub_id` plus
/// the tenant's.
///
/// # Errors
/// When the server or the stand-in refuses.
pub async fn tenants(
    people: &People,
    sim: &Sim,
    world: &World,
    numbers: Range<usize>,
    first_hub_id: u64,
    concurrency: usize,
) -> Result<()> {
    let begin = Instant::now();
    let total = numbers.len();
    let mut done = 0;
    for first in numbers.clone().step_by(GRANTS) {
        let count = GRANTS.min(numbers.end - first);
        let grants = sim.grants(first_hub_id + stats::count(first), count).await?;
        let imports =
            grants.into_iter().zip(first..).map(|(grant, number)| tenant(people, world, number, grant));
        stream::iter(imports).buffer_unordered(concurrency).try_collect::<()>().await?;
        done += count;
        let rate = stats::rate(stats::count(done), begin.elapsed());
        say(&format!("  {done} of {total} tenants with a connection, {rate:.0} a second"));
    }
    Ok(())
}

async fn tenant(people: &People, world: &World, number: usize, grant: Grant) -> Result<()> {
    let request = CreateTenantRequest { tenant: Some(world.tenant(number)) };
    let created = TenantServiceClient::new(people.operator.clone()).create_tenant(request).await;
    created.context("cannot create a tenant")?;
    let request = ImportConnectionRequest {
        tenant_id: world::tenant_id(number),
        account_id: grant.hub_id.to_string(),
        token: Some(Token::RefreshToken(ImportedRefreshToken {
            oauth_client_id: OAUTH_CLIENT.to_owned(),
            refresh_token: grant.refresh_token,
        })),
    };
    let imported = ConnectionServiceClient::new(people.operator.clone()).import_connection(request).await;
    imported.context("cannot import a connection")?;
    Ok(())
}

/// A server that is filled: who there is, and the callers' tokens.
#[derive(Clone)]
pub struct Filled {
    /// Who there is.
    pub world: Arc<World>,
    /// The callers' tokens, by the callers' numbers.
    pub bearers: Vec<HeaderValue>,
    /// The account's number is this plus the tenant's.
    pub first_hub_id: u64,
}

impl Filled {
    /// The token of the caller who may have every tenant's token.
    ///
    /// # Errors
    /// When there are no callers.
    pub fn reader(&self) -> Result<&HeaderValue> {
        self.bearers.get(World::READER).context("no callers")
    }
}
