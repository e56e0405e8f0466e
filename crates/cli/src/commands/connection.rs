use clap::{Args, Subcommand, ValueEnum};
use secrecy::ExposeSecret;
use serde::Serialize;
use tokenward_api::admin::v1::connection_service_client::ConnectionServiceClient;
use tokenward_api::admin::v1::import_connection_request::Token;
use tokenward_api::admin::v1::{
    Connection, DeleteConnectionRequest, DisconnectConnectionRequest, GetConnectionRequest,
    ImportConnectionRequest, ImportedRefreshToken, ImportedStaticToken, ListConnectionsRequest,
    RefreshConnectionRequest,
    connection::{Kind, State},
};

use crate::failure::Failure;
use crate::output::{Row, text, time};
use crate::remote::{AdminArgs, PAGE_SIZE, all_pages};
use crate::secret_input::SecretArgs;

/// What to do with connections.
#[derive(Debug, Args)]
pub(crate) struct ConnectionArgs {
    #[command(flatten)]
    admin: AdminArgs,
    #[command(subcommand)]
    command: ConnectionCommand,
}

/// A connection of a tenant.
#[derive(Debug, Args)]
struct Which {
    /// The tenant.
    tenant: String,
    /// The connection.
    connection: String,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum StateArg {
    Active,
    Suspect,
    ReauthRequired,
    Revoked,
}

#[derive(Debug, Subcommand)]
enum ConnectionCommand {
    /// Show a connection.
    #[command(after_help = "Example:\n  tokenward connection get acme con_018f")]
    Get {
        #[command(flatten)]
        which: Which,
    },
    /// List connections.
    #[command(after_help = "Example:\n  tokenward connection list --state reauth-required")]
    List {
        /// Only those of this tenant.
        #[arg(long, value_name = "TENANT", default_value = "")]
        tenant: String,
        /// Only those of this OAuth client.
        #[arg(long, value_name = "ID", default_value = "")]
        oauth_client: String,
        /// Only those of this provider.
        #[arg(long, value_name = "NAME", default_value = "")]
        provider: String,
        /// Only those in this state.
        #[arg(long, value_enum)]
        state: Option<StateArg>,
        /// Show this many at the most.
        #[arg(long, value_name = "COUNT")]
        limit: Option<usize>,
    },
    /// Create a connection from a refresh token or a static token that was got elsewhere.
    ///
    /// A refresh token is spent once, at once: stop using it elsewhere first.
    #[command(after_help = "Examples:
  tokenward connection import acme --oauth-client hubspot-main --secret-file ./refresh-token
  tokenward connection import acme --provider hubspot --scope crm.objects.contacts.read --secret-file ./private-app-token")]
    Import {
        /// The tenant.
        tenant: String,
        /// A refresh token of this OAuth client is imported.
        #[arg(long, value_name = "ID", conflicts_with = "provider", required_unless_present = "provider")]
        oauth_client: Option<String>,
        /// A token of this provider that does not expire is imported.
        #[arg(long, value_name = "NAME", requires = "scopes")]
        provider: Option<String>,
        /// A scope that the static token carries; may be repeated.
        #[arg(long = "scope", value_name = "SCOPE", requires = "provider")]
        scopes: Vec<String>,
        /// The account that the token must belong to.
        #[arg(long, value_name = "ID", default_value = "")]
        account: String,
        #[command(flatten)]
        secret: SecretArgs,
    },
    /// Refresh a connection's token now.
    #[command(after_help = "Example:\n  tokenward connection refresh acme con_018f")]
    Refresh {
        #[command(flatten)]
        which: Which,
    },
    /// Revoke a grant at the vendor and wipe its tokens here.
    #[command(
        after_help = "Example:\n  tokenward connection disconnect acme con_018f --reason \"customer left\""
    )]
    Disconnect {
        #[command(flatten)]
        which: Which,
        /// Why, for the record.
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
        /// Disconnect it only if this is still its etag.
        #[arg(long, default_value = "")]
        etag: String,
    },
    /// Delete a disconnected connection's record.
    #[command(after_help = "Example:\n  tokenward connection delete acme con_018f")]
    Delete {
        #[command(flatten)]
        which: Which,
    },
}

/// A connection as it is printed.
#[derive(Serialize)]
struct View {
    tenant_id: String,
    connection_id: String,
    provider: String,
    oauth_client_id: Option<String>,
    account_id: Option<String>,
    account_name: Option<String>,
    kind: &'static str,
    state: &'static str,
    state_reason: Option<String>,
    state_time: Option<String>,
    scopes: Vec<String>,
    token_expire_time: Option<String>,
    token_issue_time: Option<String>,
    create_time: Option<String>,
    update_time: Option<String>,
    etag: String,
}

impl Row for View {
    const COLUMNS: &'static [&'static str] = &[
        "tenant_id",
        "connection_id",
        "provider",
        "account_id",
        "account_name",
        "state",
        "token_expire_time",
    ];
}

impl From<Connection> for View {
    fn from(connection: Connection) -> Self {
        Self {
            kind: match connection.kind() {
                Kind::Oauth => "oauth",
                Kind::Static => "static",
                Kind::Unspecified => "unknown",
            },
            state: match connection.state() {
                State::Active => "active",
                State::Suspect => "suspect",
                State::ReauthRequired => "reauth_required",
                State::Revoked => "revoked",
                State::Unspecified => "unknown",
            },
            tenant_id: connection.tenant_id,
            connection_id: connection.connection_id,
            provider: connection.provider,
            oauth_client_id: text(connection.oauth_client_id),
            account_id: text(connection.account_id),
            account_name: text(connection.account_name),
            state_reason: text(connection.state_reason),
            state_time: time(connection.state_time),
            scopes: connection.scopes,
            token_expire_time: time(connection.token_expire_time),
            token_issue_time: time(connection.token_issue_time),
            create_time: time(connection.create_time),
            update_time: time(connection.update_time),
            etag: connection.etag,
        }
    }
}

pub(super) async fn run(args: &ConnectionArgs) -> Result<(), Failure> {
    let mut client = ConnectionServiceClient::new(args.admin.client()?);
    let output = args.admin.output();
    let connection = match &args.command {
        ConnectionCommand::Get { which } => {
            let (tenant_id, connection_id) = which.ids();
            client.get_connection(GetConnectionRequest { tenant_id, connection_id }).await?
        }
        ConnectionCommand::List { limit, .. } => {
            let found = all_pages!(client, list_connections, filter(&args.command), connections, *limit);
            return output.list(&found.into_iter().map(View::from).collect::<Vec<_>>());
        }
        ConnectionCommand::Import { .. } => client.import_connection(import(&args.command)?).await?,
        ConnectionCommand::Refresh { which } => {
            let (tenant_id, connection_id) = which.ids();
            client.refresh_connection(RefreshConnectionRequest { tenant_id, connection_id }).await?
        }
        ConnectionCommand::Disconnect { which, reason, etag } => {
            let (tenant_id, connection_id) = which.ids();
            let (etag, reason) = (etag.clone(), reason.clone());
            let request = DisconnectConnectionRequest { tenant_id, connection_id, etag, reason };
            client.disconnect_connection(request).await?
        }
        ConnectionCommand::Delete { which } => {
            let (tenant_id, connection_id) = which.ids();
            client.delete_connection(DeleteConnectionRequest { tenant_id, connection_id }).await?;
            return output
                .done(&format!("deleted connection {} of tenant {}", which.connection, which.tenant));
        }
    };
    output.one(&View::from(connection.into_inner()))
}

impl Which {
    fn ids(&self) -> (String, String) {
        (self.tenant.clone(), self.connection.clone())
    }
}

fn filter(command: &ConnectionCommand) -> ListConnectionsRequest {
    let ConnectionCommand::List { tenant, oauth_client, provider, state, .. } = command else {
        return ListConnectionsRequest::default();
    };
    let state = match state {
        None => State::Unspecified,
        Some(StateArg::Active) => State::Active,
        Some(StateArg::Suspect) => State::Suspect,
        Some(StateArg::ReauthRequired) => State::ReauthRequired,
        Some(StateArg::Revoked) => State::Revoked,
    };
    ListConnectionsRequest {
        tenant_id: tenant.clone(),
        oauth_client_id: oauth_client.clone(),
        provider: provider.clone(),
        state: state.into(),
        page_size: PAGE_SIZE,
        ..ListConnectionsRequest::default()
    }
}

fn import(command: &ConnectionCommand) -> Result<ImportConnectionRequest, Failure> {
    let ConnectionCommand::Import { tenant, oauth_client, provider, scopes, account, secret } = command
    else {
        return Ok(ImportConnectionRequest::default());
    };
    let token = match (oauth_client, provider) {
        (Some(oauth_client), _) => Token::RefreshToken(ImportedRefreshToken {
            oauth_client_id: oauth_client.clone(),
            refresh_token: secret.read("Refresh token")?.expose_secret().to_owned(),
        }),
        (None, provider) => Token::StaticToken(ImportedStaticToken {
            provider: provider.clone().unwrap_or_default(),
            access_token: secret.read("Access token")?.expose_secret().to_owned(),
            scopes: scopes.clone(),
        }),
    };
    Ok(ImportConnectionRequest { tenant_id: tenant.clone(), account_id: account.clone(), token: Some(token) })
}
