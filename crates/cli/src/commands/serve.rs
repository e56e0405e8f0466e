use clap::Args;

use crate::compose::compose;
use crate::failure::Failure;
use crate::local::{Access, ConfigSource};
use crate::signals::Signals;

/// How to serve.
///
/// Reads the configuration from --config, then from the environment (TOKENWARD__SECTION__KEY), then from --set; the later
/// wins. The first SIGTERM or SIGINT lets calls in flight finish, the second one stops at once.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tokenward key generate --file tokenward.key
  TOKENWARD__ENCRYPTION__KEY_FILE=tokenward.key tokenward serve
  tokenward serve --config /etc/tokenward/tokenward.toml --set log.format=json")]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    source: ConfigSource,
}

pub(super) async fn run(args: &ServeArgs) -> Result<(), Failure> {
    let signals = Signals::listen()?;
    let checked = args.source.check(Access::Exclusive).await?;
    let composed = compose(checked).await?;
    let addresses = composed.server.addresses();
    tracing::info!(
        service = addresses.service,
        admin = addresses.admin,
        public = addresses.public,
        operations = addresses.operations,
        version = env!("CARGO_PKG_VERSION"),
        "serving"
    );
    let broker = composed.broker.clone();
    composed.serve(signals.first(broker)).await?;
    tracing::info!("stopped");
    Ok(())
}
