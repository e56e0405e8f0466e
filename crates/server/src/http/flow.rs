//! What the pages need of the broker.

use tokenward_broker::{Broker, Callback, ConnectPage, Error, FinishedConnect, StartedConnect};
use tokenward_types::{Clock, Rng};

/// The connect flow behind the pages.
pub(super) trait ConnectFlow: Send + Sync + 'static {
    /// The clock.
    fn clock(&self) -> &dyn Clock;

    /// The generator.
    fn rng(&self) -> &dyn Rng;

    /// What a link is for. Changes nothing: whatever scans mail opens links.
    fn page(&self, link_secret: &str) -> impl Future<Output = Result<ConnectPage, Error>> + Send;

    /// Starts an attempt.
    fn start(&self, link_secret: &str) -> impl Future<Output = Result<StartedConnect, Error>> + Send;

    /// Takes a browser back.
    fn finish(&self, callback: Callback<'_>) -> impl Future<Output = Result<FinishedConnect, Error>> + Send;
}

impl ConnectFlow for Broker {
    fn clock(&self) -> &dyn Clock {
        self.clock()
    }

    fn rng(&self) -> &dyn Rng {
        self.rng()
    }

    async fn page(&self, link_secret: &str) -> Result<ConnectPage, Error> {
        self.connect_page(link_secret).await
    }

    async fn start(&self, link_secret: &str) -> Result<StartedConnect, Error> {
        self.start_connect(link_secret).await
    }

    async fn finish(&self, callback: Callback<'_>) -> Result<FinishedConnect, Error> {
        self.finish_connect(callback).await
    }
}
