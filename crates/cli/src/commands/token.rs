use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Serialize;
use tokenward_api::v1::token_service_client::TokenServiceClient;
use tokenward_api::v1::{GetTokenRequest, GetTokenResponse, warning};

use super::parse::duration;
use crate::failure::Failure;
use crate::output::{self, Output, text, time};
use crate::remote::CallerArgs;

/// What to do with tokens.
#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    /// Address of the service API: http://…, https://… or unix:///path.
    #[arg(
        long,
        env = "TOKENWARD_SERVICE_ADDR",
        default_value = "http://127.0.0.1:7601",
        global = true,
        value_name = "URL",
        help_heading = "Server"
    )]
    service_addr: String,
    #[command(flatten)]
    caller: CallerArgs,
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Get an access token of a tenant, as a service would.
    ///
    /// The token itself is shown only with --raw or --show-token.
    #[command(after_help = "Examples:
  tokenward token get acme --scope crm.objects.contacts.read --token-file ./caller-token
  curl -H \"Authorization: Bearer $(tokenward token get acme --raw)\" https://api.hubapi.com/crm/v3/objects/contacts")]
    Get {
        /// The tenant.
        tenant: String,
        /// The provider; needed where the tenant has several.
        #[arg(long, value_name = "NAME", default_value = "")]
        provider: String,
        /// A scope that is needed; may be repeated. Without, all that the access rules and the connection share.
        #[arg(long = "scope", value_name = "SCOPE")]
        scopes: Vec<String>,
        /// How long the token must still live; by default a minute.
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        min_ttl: Option<Duration>,
        /// The connection, where the tenant has several.
        #[arg(long, value_name = "ID", default_value = "")]
        connection: String,
        /// The account at the provider, where the tenant has several.
        #[arg(long, value_name = "ID", default_value = "")]
        account: String,
        /// Print the token alone, for scripts.
        #[arg(long, conflicts_with = "show")]
        raw: bool,
        /// Print the token too.
        #[arg(long = "show-token", id = "show")]
        show: bool,
    },
}

/// A token as it is printed.
#[derive(Serialize)]
struct View {
    #[serde(skip_serializing_if = "Option::is_none")]
    access_token: Option<String>,
    token_type: String,
    expire_time: Option<String>,
    ttl_seconds: Option<i64>,
    scopes: Vec<String>,
    provider: String,
    connection_id: String,
    account_id: Option<String>,
    fingerprint: String,
    warnings: Vec<WarningView>,
}

#[derive(Serialize)]
struct WarningView {
    reason: &'static str,
    message: String,
}

impl View {
    fn new(token: GetTokenResponse, show: bool) -> Self {
        let warnings = token.warnings.into_iter().map(|warning| WarningView {
            reason: match warning.reason() {
                warning::Reason::MinTtlNotMet => "MIN_TTL_NOT_MET",
                warning::Reason::RefreshFailing => "REFRESH_FAILING",
                warning::Reason::GrantSuspect => "GRANT_SUSPECT",
                warning::Reason::LifetimeAssumed => "LIFETIME_ASSUMED",
                warning::Reason::Unspecified => "UNKNOWN",
            },
            message: warning.message,
        });
        Self {
            warnings: warnings.collect(),
            access_token: show.then_some(token.access_token),
            token_type: token.token_type,
            expire_time: time(token.expire_time),
            ttl_seconds: token.ttl.map(|ttl| ttl.seconds),
            scopes: token.scopes,
            provider: token.provider,
            connection_id: token.connection_id,
            account_id: text(token.account_id),
            fingerprint: token.fingerprint,
        }
    }
}

pub(super) async fn run(args: &TokenArgs) -> Result<(), Failure> {
    let TokenCommand::Get { tenant, provider, scopes, min_ttl, connection, account, raw, show } =
        &args.command;
    let mut client = TokenServiceClient::new(args.caller.client(&args.service_addr)?);
    let request = GetTokenRequest {
        tenant_id: tenant.clone(),
        provider: provider.clone(),
        scopes: scopes.clone(),
        min_ttl: min_ttl.map(output::duration),
        connection_id: connection.clone(),
        account_id: account.clone(),
    };
    let token = client.get_token(request).await?.into_inner();
    if *raw {
        for warning in &token.warnings {
            eprintln!("warning: {}", crate::failure::printable(&warning.message));
        }
        // Scripts take what is printed as a header: nothing but the token may be in it.
        return output::print(&format!("{}\n", crate::failure::printable(&token.access_token)));
    }
    let view = View::new(token, *show);
    if args.caller.output == Output::Table {
        for warning in &view.warnings {
            eprintln!("warning: {}", crate::failure::printable(&warning.message));
        }
    }
    args.caller.output.one(&view)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_shown_only_when_asked_for() {
        let token = GetTokenResponse { access_token: "hunter2".into(), ..GetTokenResponse::default() };
        let hidden = serde_json::to_string(&View::new(token.clone(), false)).unwrap();
        assert!(!hidden.contains("hunter2") && !hidden.contains("access_token"), "{hidden}");
        assert!(serde_json::to_string(&View::new(token, true)).unwrap().contains("hunter2"));
    }
}
