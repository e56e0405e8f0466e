//! The commands, one file each.

mod completions;
mod config;
mod connect_link;
mod connection;
mod key;
mod migrate;
mod oauth_client;
mod parse;
mod principal;
mod rule;
mod serve;
mod tenant;
mod token;

pub(crate) use key::write_new as write_new_key;

use clap::Subcommand;

use crate::failure::Failure;

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the server.
    Serve(serve::ServeArgs),
    /// Run everything on this machine, with a stand-in HubSpot and a connected demo tenant.
    Dev(crate::dev::DevArgs),
    /// Bring the database's schema up to date.
    Migrate(migrate::MigrateArgs),
    /// Look at the configuration.
    Config(config::ConfigArgs),
    /// Make, rotate, check and retire encryption keys.
    Key(key::KeyArgs),
    /// Manage tenants.
    Tenant(tenant::TenantArgs),
    /// Manage registrations at vendors and their secrets.
    OauthClient(oauth_client::OAuthClientArgs),
    /// Manage connections: tenants' grants.
    Connection(connection::ConnectionArgs),
    /// Manage links by which customers connect their accounts.
    ConnectLink(connect_link::ConnectLinkArgs),
    /// Manage access rules: nothing is allowed without one.
    Rule(rule::RuleArgs),
    /// Manage callers.
    Principal(principal::PrincipalArgs),
    /// Get access tokens.
    Token(token::TokenArgs),
    /// Print a completion script for a shell.
    Completions(completions::CompletionsArgs),
}

impl Command {
    /// Whether it serves others.
    pub(crate) fn is_server(&self) -> bool {
        matches!(self, Self::Serve(_) | Self::Dev(_))
    }
}

/// Runs a command.
pub(crate) async fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Serve(args) => serve::run(args).await,
        Command::Dev(args) => crate::dev::run(args).await,
        Command::Migrate(args) => migrate::run(args).await,
        Command::Config(args) => config::run(args).await,
        Command::Key(args) => key::run(args).await,
        Command::Tenant(args) => tenant::run(args).await,
        Command::OauthClient(args) => oauth_client::run(args).await,
        Command::Connection(args) => connection::run(args).await,
        Command::ConnectLink(args) => connect_link::run(args).await,
        Command::Rule(args) => rule::run(args).await,
        Command::Principal(args) => principal::run(args).await,
        Command::Token(args) => token::run(args).await,
        Command::Completions(args) => completions::run(args),
    }
}
