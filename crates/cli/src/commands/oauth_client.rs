use clap::{Args, Subcommand};
use prost_types::FieldMask;
use secrecy::ExposeSecret;
use serde::Serialize;
use tokenward_api::admin::v1::o_auth_client_service_client::OAuthClientServiceClient;
use tokenward_api::admin::v1::{
    ActivateClientSecretRequest, AddClientSecretRequest, ClientSecret, CreateOAuthClientRequest,
    DeleteOAuthClientRequest, GetOAuthClientRequest, ListClientSecretsRequest, ListOAuthClientsRequest,
    OAuthClient, RetireClientSecretRequest, UpdateOAuthClientRequest, client_secret::State,
};

use crate::failure::Failure;
use crate::output::{Output, Row, text, time};
use crate::remote::{AdminArgs, Client, PAGE_SIZE, all_pages};
use crate::secret_input::SecretArgs;

/// What to do with OAuth clients.
#[derive(Debug, Args)]
pub(crate) struct OAuthClientArgs {
    #[command(flatten)]
    admin: AdminArgs,
    #[command(subcommand)]
    command: OAuthClientCommand,
}

#[derive(Debug, Subcommand)]
enum OAuthClientCommand {
    /// Register an OAuth client; the answer tells the redirect URI to register at the vendor.
    #[command(after_help = "Example:
  tokenward oauth-client create hubspot-main --provider hubspot --client-id 1a2b --scope oauth \\
    --scope crm.objects.contacts.read --secret-file ./client-secret")]
    Create {
        /// The identifier: letters, digits and "._-"; it never changes.
        oauth_client: String,
        /// The provider, as the server's configuration names it.
        #[arg(long, value_name = "NAME")]
        provider: String,
        /// The client_id that the vendor gave.
        #[arg(long, value_name = "ID")]
        client_id: String,
        /// A scope that a customer must grant; may be repeated.
        #[arg(long = "scope", value_name = "SCOPE", required = true)]
        scopes: Vec<String>,
        /// A scope that a customer may decline; may be repeated.
        #[arg(long = "optional-scope", value_name = "SCOPE")]
        optional_scopes: Vec<String>,
        /// What customers read on the connect page.
        #[arg(long, value_name = "TEXT", default_value = "")]
        display_name: String,
        /// Where a customer is helped when a connection needs them; shown in errors.
        #[arg(long, value_name = "URL", default_value = "")]
        help_url: String,
        /// File that holds the client secret; "-" reads standard input. It can be added later, too.
        #[command(flatten)]
        secret: SecretArgs,
    },
    /// Show an OAuth client.
    #[command(after_help = "Example:\n  tokenward oauth-client get hubspot-main")]
    Get {
        /// The OAuth client.
        oauth_client: String,
    },
    /// List OAuth clients.
    #[command(after_help = "Example:\n  tokenward oauth-client list")]
    List {
        /// Show this many at the most.
        #[arg(long, value_name = "COUNT")]
        limit: Option<usize>,
    },
    /// Change an OAuth client.
    #[command(after_help = "Example:
  tokenward oauth-client update hubspot-main --help-url https://help.example.com/hubspot")]
    Update {
        /// The OAuth client.
        oauth_client: String,
        /// The new client_id; not once connections exist.
        #[arg(long, value_name = "ID")]
        client_id: Option<String>,
        /// The new scopes, which replace the old ones; may be repeated.
        #[arg(long = "scope", value_name = "SCOPE")]
        scopes: Option<Vec<String>>,
        /// The new optional scopes, which replace the old ones; may be repeated.
        #[arg(long = "optional-scope", value_name = "SCOPE")]
        optional_scopes: Option<Vec<String>>,
        /// The new name.
        #[arg(long, value_name = "TEXT")]
        display_name: Option<String>,
        /// The new address of help; "" removes it.
        #[arg(long, value_name = "URL")]
        help_url: Option<String>,
        /// Change it only if this is still its etag.
        #[arg(long, default_value = "")]
        etag: String,
    },
    /// Delete an OAuth client that no connection belongs to.
    #[command(after_help = "Example:\n  tokenward oauth-client delete hubspot-old")]
    Delete {
        /// The OAuth client.
        oauth_client: String,
        /// Delete it only if this is still its etag.
        #[arg(long, default_value = "")]
        etag: String,
    },
    /// Manage the versions of a client secret.
    Secret {
        #[command(subcommand)]
        command: SecretCommand,
    },
}

#[derive(Debug, Subcommand)]
enum SecretCommand {
    /// Add a version; it is tried when the active one is refused, until it is activated.
    #[command(after_help = "Example:
  tokenward oauth-client secret add hubspot-main --secret-file ./new-secret --activate")]
    Add {
        /// The OAuth client.
        oauth_client: String,
        /// Try it first from now on.
        #[arg(long)]
        activate: bool,
        #[command(flatten)]
        secret: SecretArgs,
    },
    /// Try a version first.
    #[command(after_help = "Example:\n  tokenward oauth-client secret activate hubspot-main 2")]
    Activate {
        /// The OAuth client.
        oauth_client: String,
        /// The version.
        version: i32,
    },
    /// Take a version out of use for good, and wipe it.
    #[command(after_help = "Example:\n  tokenward oauth-client secret retire hubspot-main 1")]
    Retire {
        /// The OAuth client.
        oauth_client: String,
        /// The version, not the active one.
        version: i32,
    },
    /// List the versions; the secrets themselves are never shown.
    #[command(after_help = "Example:\n  tokenward oauth-client secret list hubspot-main")]
    List {
        /// The OAuth client.
        oauth_client: String,
    },
}

/// An OAuth client as it is printed.
#[derive(Serialize)]
struct View {
    oauth_client_id: String,
    provider: String,
    client_id: String,
    display_name: Option<String>,
    scopes: Vec<String>,
    optional_scopes: Vec<String>,
    help_url: Option<String>,
    redirect_uri: String,
    create_time: Option<String>,
    update_time: Option<String>,
    etag: String,
}

impl Row for View {
    const COLUMNS: &'static [&'static str] =
        &["oauth_client_id", "provider", "client_id", "display_name", "scopes"];
}

impl From<OAuthClient> for View {
    fn from(client: OAuthClient) -> Self {
        Self {
            oauth_client_id: client.oauth_client_id,
            provider: client.provider,
            client_id: client.client_id,
            display_name: text(client.display_name),
            scopes: client.scopes,
            optional_scopes: client.optional_scopes,
            help_url: text(client.help_url),
            redirect_uri: client.redirect_uri,
            create_time: time(client.create_time),
            update_time: time(client.update_time),
            etag: client.etag,
        }
    }
}

/// A version of a client secret as it is printed.
#[derive(Serialize)]
struct SecretView {
    oauth_client_id: String,
    secret_version: i32,
    state: &'static str,
    create_time: Option<String>,
    update_time: Option<String>,
}

impl Row for SecretView {
    const COLUMNS: &'static [&'static str] = &["secret_version", "state", "create_time", "update_time"];
}

impl From<ClientSecret> for SecretView {
    fn from(secret: ClientSecret) -> Self {
        Self {
            state: match secret.state() {
                State::Enabled => "enabled",
                State::Active => "active",
                State::Retired => "retired",
                State::Unspecified => "unknown",
            },
            oauth_client_id: secret.oauth_client_id,
            secret_version: secret.secret_version,
            create_time: time(secret.create_time),
            update_time: time(secret.update_time),
        }
    }
}

pub(super) async fn run(args: &OAuthClientArgs) -> Result<(), Failure> {
    let output = args.admin.output();
    if let OAuthClientCommand::Create { secret, .. } = &args.command
        && secret.secret_file == args.admin.caller.token_file
        && secret.secret_file.is_some()
    {
        return Err(Failure::new("--secret-file and --token-file are the same"));
    }
    let mut client = OAuthClientServiceClient::new(args.admin.client()?);
    let shown = match &args.command {
        OAuthClientCommand::Create { secret, .. } => {
            let client_secret =
                secret.read_if_given()?.map(|secret| secret.expose_secret().to_owned()).unwrap_or_default();
            let oauth_client = Some(new_client(&args.command));
            client.create_o_auth_client(CreateOAuthClientRequest { oauth_client, client_secret }).await?
        }
        OAuthClientCommand::Get { oauth_client } => {
            client.get_o_auth_client(GetOAuthClientRequest { oauth_client_id: oauth_client.clone() }).await?
        }
        OAuthClientCommand::List { limit } => {
            let request = ListOAuthClientsRequest { page_size: PAGE_SIZE, ..Default::default() };
            let clients = all_pages!(client, list_o_auth_clients, request, oauth_clients, *limit);
            return output.list(&clients.into_iter().map(View::from).collect::<Vec<_>>());
        }
        OAuthClientCommand::Update { .. } => client.update_o_auth_client(update(&args.command)?).await?,
        OAuthClientCommand::Delete { oauth_client, etag } => {
            let request =
                DeleteOAuthClientRequest { oauth_client_id: oauth_client.clone(), etag: etag.clone() };
            client.delete_o_auth_client(request).await?;
            return output.done(&format!("deleted OAuth client {oauth_client}"));
        }
        OAuthClientCommand::Secret { command } => return secret(&mut client, command, output).await,
    };
    output.one(&View::from(shown.into_inner()))
}

fn new_client(command: &OAuthClientCommand) -> OAuthClient {
    let OAuthClientCommand::Create {
        oauth_client,
        provider,
        client_id,
        scopes,
        optional_scopes,
        display_name,
        help_url,
        ..
    } = command
    else {
        return OAuthClient::default();
    };
    OAuthClient {
        oauth_client_id: oauth_client.clone(),
        provider: provider.clone(),
        client_id: client_id.clone(),
        display_name: display_name.clone(),
        scopes: scopes.clone(),
        optional_scopes: optional_scopes.clone(),
        help_url: help_url.clone(),
        ..OAuthClient::default()
    }
}

fn update(command: &OAuthClientCommand) -> Result<UpdateOAuthClientRequest, Failure> {
    let OAuthClientCommand::Update {
        oauth_client,
        client_id,
        scopes,
        optional_scopes,
        display_name,
        help_url,
        etag,
    } = command
    else {
        return Ok(UpdateOAuthClientRequest::default());
    };
    let given = [
        ("client_id", client_id.is_some()),
        ("scopes", scopes.is_some()),
        ("optional_scopes", optional_scopes.is_some()),
        ("display_name", display_name.is_some()),
        ("help_url", help_url.is_some()),
    ];
    let paths: Vec<String> =
        given.iter().filter(|(_, given)| *given).map(|(path, _)| (*path).to_owned()).collect();
    if paths.is_empty() {
        return Err(Failure::new("nothing to change").hint("see `tokenward oauth-client update --help`"));
    }
    let oauth_client = OAuthClient {
        oauth_client_id: oauth_client.clone(),
        client_id: client_id.clone().unwrap_or_default(),
        scopes: scopes.clone().unwrap_or_default(),
        optional_scopes: optional_scopes.clone().unwrap_or_default(),
        display_name: display_name.clone().unwrap_or_default(),
        help_url: help_url.clone().unwrap_or_default(),
        etag: etag.clone(),
        ..OAuthClient::default()
    };
    Ok(UpdateOAuthClientRequest { oauth_client: Some(oauth_client), update_mask: Some(FieldMask { paths }) })
}

async fn secret(
    client: &mut OAuthClientServiceClient<Client>,
    command: &SecretCommand,
    output: Output,
) -> Result<(), Failure> {
    let version = match command {
        SecretCommand::Add { oauth_client, activate, secret } => {
            let client_secret = secret.read("Client secret")?.expose_secret().to_owned();
            let oauth_client_id = oauth_client.clone();
            let request = AddClientSecretRequest { oauth_client_id, client_secret, activate: *activate };
            client.add_client_secret(request).await?
        }
        SecretCommand::Activate { oauth_client, version } => {
            let oauth_client_id = oauth_client.clone();
            let request = ActivateClientSecretRequest { oauth_client_id, secret_version: *version };
            client.activate_client_secret(request).await?
        }
        SecretCommand::Retire { oauth_client, version } => {
            let oauth_client_id = oauth_client.clone();
            client
                .retire_client_secret(RetireClientSecretRequest { oauth_client_id, secret_version: *version })
                .await?
        }
        SecretCommand::List { oauth_client } => {
            let request = ListClientSecretsRequest { oauth_client_id: oauth_client.clone() };
            let secrets = client.list_client_secrets(request).await?.into_inner().client_secrets;
            return output.list(&secrets.into_iter().map(SecretView::from).collect::<Vec<_>>());
        }
    };
    output.one(&SecretView::from(version.into_inner()))
}
