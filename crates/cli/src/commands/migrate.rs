use clap::Args;
use tokenward_storage::SchemaStatus;

use crate::failure::Failure;
use crate::local::{Access, ConfigSource};
use crate::output;

/// Which database.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tokenward migrate --config /etc/tokenward/tokenward.toml
  tokenward migrate --check")]
pub(crate) struct MigrateArgs {
    #[command(flatten)]
    source: ConfigSource,
    /// Only tell whether the schema is up to date; the exit code is 1 when it is not.
    #[arg(long)]
    check: bool,
}

pub(super) async fn run(args: &MigrateArgs) -> Result<(), Failure> {
    let access = if args.check { Access::Shared } else { Access::Exclusive };
    let storage = args.source.check_storage(access)?.build().await?;
    let result = if args.check {
        match storage.schema_status().await? {
            SchemaStatus::Current => output::print("the schema is up to date\n"),
            SchemaStatus::Behind(missing) => {
                Err(Failure::new(format!("missing migrations: {}", missing.join(", ")))
                    .hint("run `tokenward migrate`"))
            }
            SchemaStatus::Newer(_) => {
                Err(Failure::new("the database belongs to a newer version of this program")
                    .hint("run that version"))
            }
        }
    } else {
        let applied = storage.migrate().await?;
        if applied.is_empty() {
            output::print("the schema is up to date\n")
        } else {
            output::print(&format!("applied: {}\n", applied.join(", ")))
        }
    };
    storage.close().await;
    result
}
