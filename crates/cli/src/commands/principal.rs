use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use secrecy::ExposeSecret;
use serde::Serialize;
use tokenward_api::admin::v1::principal_service_client::PrincipalServiceClient;
use tokenward_api::admin::v1::{
    BlockPrincipalRequest, BlockedPrincipal, IssueCallerTokenRequest, ListBlockedPrincipalsRequest, Role,
    UnblockPrincipalRequest,
};
use tokenward_broker::{Sealer, SealerParts};
use tokenward_storage::SchemaStatus;
use tokenward_types::{Clock, SystemClock, SystemRng, generate_suffix};

use super::parse::duration;
use crate::failure::Failure;
use crate::local::{Access, Checked, ConfigSource};
use crate::output::{self, Row, text, time};
use crate::remote::{AdminArgs, PAGE_SIZE, all_pages};

/// What to do with callers.
#[derive(Debug, Args)]
pub(crate) struct PrincipalArgs {
    #[command(flatten)]
    admin: AdminArgs,
    #[command(subcommand)]
    command: PrincipalCommand,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum RoleArg {
    /// Asks for tokens.
    #[default]
    Service,
    /// Manages tenants, connections and access rules.
    Operator,
    /// Manages OAuth clients, secrets, keys and callers.
    Admin,
    /// Reads.
    Auditor,
}

#[derive(Debug, Subcommand)]
enum PrincipalCommand {
    /// Make a caller token with the role admin from the configuration and the key alone: for the first admin.
    ///
    /// Works beside a running server. The token goes to standard output and nowhere else.
    #[command(after_help = "Example:
  tokenward principal bootstrap-admin --config /etc/tokenward/tokenward.toml --subject ada --ttl 1h > admin-token")]
    BootstrapAdmin {
        #[command(flatten)]
        source: ConfigSource,
        /// The name that the principal builtin:SUBJECT gets.
        #[arg(long, default_value = "bootstrap-admin")]
        subject: String,
        /// How long the token lives; at most 24h.
        #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "1h")]
        ttl: Duration,
    },
    /// Issue a caller token of the built-in issuer. It is shown once.
    #[command(after_help = "Example:\n  tokenward principal issue billing --ttl 24h")]
    Issue {
        /// The name that the principal builtin:SUBJECT gets.
        subject: String,
        /// What it may do.
        #[arg(long, value_enum, default_value_t)]
        role: RoleArg,
        /// How long the token lives; by default an hour, at most 24h.
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        ttl: Option<Duration>,
    },
    /// Refuse every call of a principal from now on.
    #[command(after_help = "Example:\n  tokenward principal block builtin:billing --reason \"token leaked\"")]
    Block {
        /// The principal.
        principal: String,
        /// Why, for the record.
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
    },
    /// Let a blocked principal call again.
    #[command(after_help = "Example:\n  tokenward principal unblock builtin:billing")]
    Unblock {
        /// The principal.
        principal: String,
    },
    /// List blocked principals.
    #[command(after_help = "Example:\n  tokenward principal list-blocked")]
    ListBlocked {
        /// Show this many at the most.
        #[arg(long, value_name = "COUNT")]
        limit: Option<usize>,
    },
}

/// A caller token as it is printed.
#[derive(Serialize)]
struct TokenView {
    caller_token: String,
    principal: String,
    expire_time: Option<String>,
}

/// A blocked principal as it is printed.
#[derive(Serialize)]
struct BlockedView {
    principal: String,
    reason: Option<String>,
    blocker: String,
    block_time: Option<String>,
}

impl Row for BlockedView {
    const COLUMNS: &'static [&'static str] = &["principal", "reason", "blocker", "block_time"];
}

impl From<BlockedPrincipal> for BlockedView {
    fn from(blocked: BlockedPrincipal) -> Self {
        Self {
            principal: blocked.principal,
            reason: text(blocked.reason),
            blocker: blocked.blocker,
            block_time: time(blocked.block_time),
        }
    }
}

pub(super) async fn run(args: &PrincipalArgs) -> Result<(), Failure> {
    if let PrincipalCommand::BootstrapAdmin { source, subject, ttl } = &args.command {
        return bootstrap_admin(source, subject, *ttl).await;
    }
    let mut client = PrincipalServiceClient::new(args.admin.client()?);
    let output = args.admin.output();
    match &args.command {
        PrincipalCommand::BootstrapAdmin { .. } => Ok(()),
        PrincipalCommand::Issue { subject, role, ttl } => {
            let role = match role {
                RoleArg::Service => Role::Service,
                RoleArg::Operator => Role::Operator,
                RoleArg::Admin => Role::Admin,
                RoleArg::Auditor => Role::Auditor,
            };
            let ttl = ttl.map(output::duration);
            let request = IssueCallerTokenRequest { subject: subject.clone(), role: role.into(), ttl };
            let issued = client.issue_caller_token(request).await?.into_inner();
            output.one(&TokenView {
                caller_token: issued.caller_token,
                principal: issued.principal,
                expire_time: time(issued.expire_time),
            })
        }
        PrincipalCommand::Block { principal, reason } => {
            let request = BlockPrincipalRequest { principal: principal.clone(), reason: reason.clone() };
            output.one(&BlockedView::from(client.block_principal(request).await?.into_inner()))
        }
        PrincipalCommand::Unblock { principal } => {
            client.unblock_principal(UnblockPrincipalRequest { principal: principal.clone() }).await?;
            output.done(&format!("unblocked {principal}"))
        }
        PrincipalCommand::ListBlocked { limit } => {
            let request = ListBlockedPrincipalsRequest { page_size: PAGE_SIZE, ..Default::default() };
            let blocked = all_pages!(client, list_blocked_principals, request, blocked_principals, *limit);
            output.list(&blocked.into_iter().map(BlockedView::from).collect::<Vec<_>>())
        }
    }
}

async fn bootstrap_admin(source: &ConfigSource, subject: &str, ttl: Duration) -> Result<(), Failure> {
    let Checked { config, storage, encryption, further_encryption, .. } =
        source.check(Access::Shared).await?;
    let clock = Arc::new(SystemClock);
    let storage = storage.build().await?;
    if storage.schema_status().await? != SchemaStatus::Current {
        return Err(Failure::new("the database is not set up for this version of the program")
            .hint("start the server once, or run `tokenward migrate`"));
    }
    let installation = storage.installation_id(&generate_suffix(&*clock, &SystemRng)).await?;
    let backend = encryption.build().await?;
    let mut further = Vec::new();
    for backend in further_encryption {
        further.push(backend.build().await?);
    }
    let sealer = Sealer::start(SealerParts {
        storage: Arc::clone(&storage),
        backend,
        further,
        clock: Arc::clone(&clock) as Arc<dyn Clock>,
        installation,
        max_cached_data_keys: config.broker.max_cached_data_keys,
        data_key_ttl: config.broker.data_key_ttl,
    })
    .await?;
    let issuer =
        crate::issuer::load(&config.builtin_issuer, &*storage, &sealer, &*clock).await?.ok_or_else(|| {
            Failure::new("the built-in issuer is switched off")
                .hint("use a token of a configured issuer that may give the role admin")
        })?;
    let token = issuer
        .issue(subject, tokenward_auth::Role::Admin, ttl, &SystemRng, &*clock)
        .map_err(|error| Failure::new(error.to_string()))?;
    sealer.flush_seal_counts().await?;
    storage.close().await;
    tracing::info!(
        target: tokenward_broker::audit::TARGET,
        event = "bootstrap_admin",
        principal = %token.principal,
        token_id = token.token_id,
        "made a caller token with the role admin on this machine"
    );
    output::print(&format!("{}\n", token.token.expose_secret()))
}
