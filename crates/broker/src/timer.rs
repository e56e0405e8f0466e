use std::time::Duration;

use async_trait::async_trait;

/// How waiting is done; passed in, so that tests decide when a wait is over.
#[async_trait]
pub trait Timer: Send + Sync {
    /// Returns when this much time has passed.
    async fn sleep(&self, duration: Duration);
}

/// Waits by the runtime's own clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct RuntimeTimer;

#[async_trait]
impl Timer for RuntimeTimer {
    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}
