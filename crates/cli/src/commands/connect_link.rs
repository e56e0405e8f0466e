use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Serialize;
use tokenward_api::admin::v1::connection_service_client::ConnectionServiceClient;
use tokenward_api::admin::v1::{
    ConnectLink, CreateConnectLinkRequest, DeleteConnectLinkRequest, ListConnectLinksRequest,
};

use super::parse::duration;
use crate::failure::Failure;
use crate::output::{self, Row, text, time};
use crate::remote::{AdminArgs, PAGE_SIZE, all_pages};

/// What to do with connect links.
#[derive(Debug, Args)]
pub(crate) struct ConnectLinkArgs {
    #[command(flatten)]
    admin: AdminArgs,
    #[command(subcommand)]
    command: ConnectLinkCommand,
}

#[derive(Debug, Subcommand)]
enum ConnectLinkCommand {
    /// Make a link for a customer. Whoever opens it can connect an account to the tenant: it is shown once.
    #[command(
        after_help = "Example:\n  tokenward connect-link create acme --oauth-client hubspot-main --ttl 7days"
    )]
    Create {
        /// The tenant.
        tenant: String,
        /// The OAuth client that the customer grants access to.
        #[arg(long, value_name = "ID")]
        oauth_client: String,
        /// Accept this account only (HubSpot: the hub_id).
        #[arg(long, value_name = "ID", default_value = "")]
        account: String,
        /// How long the link works; by default a day, at most 30 days.
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        ttl: Option<Duration>,
        /// Where the result page leads: an address that the server's configuration allows.
        #[arg(long, value_name = "URL", default_value = "")]
        return_url: String,
    },
    /// List a tenant's links, without their addresses.
    #[command(after_help = "Example:\n  tokenward connect-link list acme")]
    List {
        /// The tenant.
        tenant: String,
        /// Show this many at the most.
        #[arg(long, value_name = "COUNT")]
        limit: Option<usize>,
    },
    /// Take a link back.
    #[command(after_help = "Example:\n  tokenward connect-link delete acme lnk_018f")]
    Delete {
        /// The tenant.
        tenant: String,
        /// The link's identifier.
        connect_link: String,
    },
}

/// A link as it is printed.
#[derive(Serialize)]
struct View {
    connect_link_id: String,
    tenant_id: String,
    oauth_client_id: String,
    account_id: Option<String>,
    return_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    creator: String,
    create_time: Option<String>,
    expire_time: Option<String>,
    use_time: Option<String>,
}

impl Row for View {
    const COLUMNS: &'static [&'static str] =
        &["connect_link_id", "oauth_client_id", "account_id", "creator", "expire_time", "use_time"];
}

impl From<ConnectLink> for View {
    fn from(link: ConnectLink) -> Self {
        Self {
            connect_link_id: link.connect_link_id,
            tenant_id: link.tenant_id,
            oauth_client_id: link.oauth_client_id,
            account_id: text(link.account_id),
            return_url: text(link.return_url),
            url: text(link.url),
            creator: link.creator,
            create_time: time(link.create_time),
            expire_time: time(link.expire_time),
            use_time: time(link.use_time),
        }
    }
}

pub(super) async fn run(args: &ConnectLinkArgs) -> Result<(), Failure> {
    let mut client = ConnectionServiceClient::new(args.admin.client()?);
    let output = args.admin.output();
    match &args.command {
        ConnectLinkCommand::Create { tenant, oauth_client, account, ttl, return_url } => {
            let request = CreateConnectLinkRequest {
                tenant_id: tenant.clone(),
                oauth_client_id: oauth_client.clone(),
                account_id: account.clone(),
                ttl: ttl.map(output::duration),
                return_url: return_url.clone(),
            };
            output.one(&View::from(client.create_connect_link(request).await?.into_inner()))
        }
        ConnectLinkCommand::List { tenant, limit } => {
            let request = ListConnectLinksRequest {
                tenant_id: tenant.clone(),
                page_size: PAGE_SIZE,
                ..Default::default()
            };
            let links = all_pages!(client, list_connect_links, request, connect_links, *limit);
            output.list(&links.into_iter().map(View::from).collect::<Vec<_>>())
        }
        ConnectLinkCommand::Delete { tenant, connect_link } => {
            let request =
                DeleteConnectLinkRequest { tenant_id: tenant.clone(), connect_link_id: connect_link.clone() };
            client.delete_connect_link(request).await?;
            output.done(&format!("deleted connect link {connect_link} of tenant {tenant}"))
        }
    }
}
