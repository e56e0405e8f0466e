//! Signals: the first one stops gracefully, the second one at once.

use tokenward_broker::Broker;
use tokio::signal::unix::{SignalKind, signal};

use crate::failure::Failure;

/// The exit code of a process that a second signal ended.
const ENDED_BY_SIGNAL: i32 = 130;

/// Listens from now on.
pub(crate) struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    pub(crate) fn listen() -> Result<Self, Failure> {
        let listen =
            |kind| signal(kind).map_err(|error| Failure::new(format!("cannot listen for signals: {error}")));
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// Waits for the first signal; from then on another one ends the process at once, and what `broker` has not stored is
    /// named.
    pub(crate) async fn first(mut self, broker: Broker) {
        self.next().await;
        tracing::info!("stopping; a second signal ends the process at once");
        tokio::spawn(async move {
            self.next().await;
            let left = broker.left();
            let (unsaved, under_way) = (left.unsaved.join(", "), left.under_way.join(", "));
            tracing::error!(unsaved, under_way, "stopped at once by a second signal");
            std::process::exit(ENDED_BY_SIGNAL);
        });
    }
}
