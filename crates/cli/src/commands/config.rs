use clap::{Args, Subcommand};

use crate::failure::Failure;
use crate::local::{Access, ConfigSource};
use crate::output;

/// What to do with the configuration.
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Report everything that is wrong with the configuration at once; nothing is opened or changed.
    #[command(after_help = "Example:\n  tokenward config check --config /etc/tokenward/tokenward.toml")]
    Check {
        #[command(flatten)]
        source: ConfigSource,
    },
}

pub(super) async fn run(args: &ConfigArgs) -> Result<(), Failure> {
    let ConfigCommand::Check { source } = &args.command;
    source.check(Access::Shared).await?;
    output::print("the configuration is valid\n")
}
