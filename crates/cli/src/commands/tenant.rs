use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use prost_types::FieldMask;
use serde::Serialize;
use tokenward_api::admin::v1::connection_service_client::ConnectionServiceClient;
use tokenward_api::admin::v1::tenant_service_client::TenantServiceClient;
use tokenward_api::admin::v1::{
    CreateTenantRequest, DeleteTenantRequest, GetTenantRequest, ListConnectionsRequest, ListTenantsRequest,
    Tenant, UpdateTenantRequest, tenant::State,
};

use super::parse::label;
use crate::failure::Failure;
use crate::output::{Output, Row, text, time};
use crate::remote::{AdminArgs, Client, PAGE_SIZE, all_pages};

/// What to do with tenants.
#[derive(Debug, Args)]
pub(crate) struct TenantArgs {
    #[command(flatten)]
    admin: AdminArgs,
    #[command(subcommand)]
    command: TenantCommand,
}

#[derive(Debug, Subcommand)]
enum TenantCommand {
    /// Create a tenant.
    #[command(
        after_help = "Example:\n  tokenward tenant create acme --display-name \"Acme Corp\" --label plan=pro"
    )]
    Create {
        /// The identifier: letters, digits and "._:-"; it never changes.
        tenant: String,
        /// A name for people.
        #[arg(long, value_name = "TEXT", default_value = "")]
        display_name: String,
        /// A label that access rules can select by; may be repeated.
        #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
        labels: Vec<(String, String)>,
    },
    /// Show a tenant.
    #[command(after_help = "Example:\n  tokenward tenant get acme")]
    Get {
        /// The tenant.
        tenant: String,
    },
    /// List tenants.
    #[command(after_help = "Example:\n  tokenward tenant list --output json")]
    List {
        /// Show this many at the most.
        #[arg(long, value_name = "COUNT")]
        limit: Option<usize>,
    },
    /// Change a tenant's name or labels.
    #[command(after_help = "Example:\n  tokenward tenant update acme --label plan=enterprise")]
    Update {
        /// The tenant.
        tenant: String,
        /// The new name.
        #[arg(long, value_name = "TEXT")]
        display_name: Option<String>,
        /// The new labels, which replace all old ones; may be repeated.
        #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label, conflicts_with = "clear_labels")]
        labels: Vec<(String, String)>,
        /// Remove all labels.
        #[arg(long)]
        clear_labels: bool,
        /// Change it only if this is still its etag.
        #[arg(long, default_value = "")]
        etag: String,
    },
    /// Stop giving out a tenant's tokens; its connections are kept alive.
    #[command(after_help = "Example:\n  tokenward tenant suspend acme")]
    Suspend {
        /// The tenant.
        tenant: String,
    },
    /// Give out a suspended tenant's tokens again.
    #[command(after_help = "Example:\n  tokenward tenant activate acme")]
    Activate {
        /// The tenant.
        tenant: String,
    },
    /// Delete a tenant with its connections and its keys.
    #[command(after_help = "Example:\n  tokenward tenant delete acme --force")]
    Delete {
        /// The tenant.
        tenant: String,
        /// Delete it only if this is still its etag.
        #[arg(long, default_value = "")]
        etag: String,
        /// Delete it although it has connections that are not disconnected.
        #[arg(long)]
        force: bool,
    },
}

/// A tenant as it is printed.
#[derive(Serialize)]
struct View {
    tenant_id: String,
    display_name: Option<String>,
    labels: BTreeMap<String, String>,
    state: &'static str,
    create_time: Option<String>,
    update_time: Option<String>,
    etag: String,
}

impl Row for View {
    const COLUMNS: &'static [&'static str] = &["tenant_id", "display_name", "state", "labels", "create_time"];
}

impl From<Tenant> for View {
    fn from(tenant: Tenant) -> Self {
        Self {
            state: match tenant.state() {
                State::Active => "active",
                State::Suspended => "suspended",
                State::Unspecified => "unknown",
            },
            tenant_id: tenant.tenant_id,
            display_name: text(tenant.display_name),
            labels: tenant.labels.into_iter().collect(),
            create_time: time(tenant.create_time),
            update_time: time(tenant.update_time),
            etag: tenant.etag,
        }
    }
}

pub(super) async fn run(args: &TenantArgs) -> Result<(), Failure> {
    let mut client = TenantServiceClient::new(args.admin.client()?);
    let output = args.admin.output();
    let tenant = match &args.command {
        TenantCommand::Create { tenant, display_name, labels } => {
            let tenant = Tenant {
                tenant_id: tenant.clone(),
                display_name: display_name.clone(),
                labels: labels.iter().cloned().collect(),
                ..Tenant::default()
            };
            client.create_tenant(CreateTenantRequest { tenant: Some(tenant) }).await?
        }
        TenantCommand::Get { tenant } => {
            client.get_tenant(GetTenantRequest { tenant_id: tenant.clone() }).await?
        }
        TenantCommand::List { limit } => {
            let tenants = all_pages!(
                client,
                list_tenants,
                ListTenantsRequest { page_size: PAGE_SIZE, ..Default::default() },
                tenants,
                *limit
            );
            return output.list(&tenants.into_iter().map(View::from).collect::<Vec<_>>());
        }
        TenantCommand::Update { tenant, display_name, labels, clear_labels, etag } => {
            let mut paths = Vec::new();
            if display_name.is_some() {
                paths.push("display_name".to_owned());
            }
            if !labels.is_empty() || *clear_labels {
                paths.push("labels".to_owned());
            }
            if paths.is_empty() {
                return Err(
                    Failure::new("nothing to change").hint("give --display-name, --label or --clear-labels")
                );
            }
            let tenant = Tenant {
                tenant_id: tenant.clone(),
                display_name: display_name.clone().unwrap_or_default(),
                labels: labels.iter().cloned().collect(),
                etag: etag.clone(),
                ..Tenant::default()
            };
            let update_mask = Some(FieldMask { paths });
            client.update_tenant(UpdateTenantRequest { tenant: Some(tenant), update_mask }).await?
        }
        TenantCommand::Suspend { tenant } => client.update_tenant(to_state(tenant, State::Suspended)).await?,
        TenantCommand::Activate { tenant } => client.update_tenant(to_state(tenant, State::Active)).await?,
        TenantCommand::Delete { tenant, etag, force } => {
            let request =
                DeleteTenantRequest { tenant_id: tenant.clone(), etag: etag.clone(), force: *force };
            let tokens_expire = latest_expiry(args.admin.client()?, tenant).await;
            client.delete_tenant(request).await?;
            let encryption_keys = super::key::needed_by_backups(args.admin.client()?).await;
            let deleted = Deleted { tenant_id: tenant.clone(), tokens_expire, encryption_keys };
            return match output {
                Output::Json => output.one(&deleted),
                Output::Table => output.done(&format!("deleted tenant {tenant}\n{}", deleted.what_stays())),
            };
        }
    };
    output.one(&View::from(tenant.into_inner()))
}

/// What a deletion does not reach, and until when that stays readable.
#[derive(Serialize)]
struct Deleted {
    tenant_id: String,
    /// When the last of the access tokens expires that may have been given out; none where the tenant had none that expires.
    tokens_expire: Option<String>,
    /// Backups from before open as long as one of these exists; empty where that cannot be told.
    encryption_keys: Vec<String>,
}

impl Deleted {
    fn what_stays(&self) -> String {
        let tokens = match &self.tokens_expire {
            Some(time) => format!("until they expire, the last known one at {time}"),
            None => "until they expire".to_owned(),
        };
        let keys = if self.encryption_keys.is_empty() {
            "the encryption keys that wrapped its data key exist (`tokenward key status` names them)"
                .to_owned()
        } else {
            format!("one of these encryption keys exists: {}", self.encryption_keys.join(", "))
        };
        format!(
            "Its connections, tokens and data keys are gone from the database. What stays readable:\n\
             - access tokens that were given out before, {tokens}\n\
             - backups from before now, as long as {keys}\n\
             To end that: `tokenward key rotate`, then `tokenward key retire` each of the keys above and destroy every copy of them"
        )
    }
}

/// When the last access token of a tenant expires, as far as that can be told.
async fn latest_expiry(client: Client, tenant: &str) -> Option<String> {
    let mut client = ConnectionServiceClient::new(client);
    let mut request =
        ListConnectionsRequest { tenant_id: tenant.to_owned(), page_size: PAGE_SIZE, ..Default::default() };
    let mut latest = None;
    loop {
        let page = client.list_connections(request.clone()).await.ok()?.into_inner();
        let expiries = page.connections.into_iter().filter_map(|connection| connection.token_expire_time);
        latest = expiries.chain(latest).max_by_key(|time| (time.seconds, time.nanos));
        if page.next_page_token.is_empty() {
            return time(latest);
        }
        request.page_token = page.next_page_token;
    }
}

fn to_state(tenant: &str, state: State) -> UpdateTenantRequest {
    let tenant = Tenant { tenant_id: tenant.to_owned(), state: state.into(), ..Tenant::default() };
    UpdateTenantRequest {
        tenant: Some(tenant),
        update_mask: Some(FieldMask { paths: vec!["state".to_owned()] }),
    }
}
