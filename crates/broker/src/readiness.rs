//! Whether what the broker stands on works.

use std::time::Duration;

use crate::broker::Broker;

/// How long a part may take to say that it works.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);

/// Which parts work.
#[derive(Clone, Debug)]
pub struct Readiness {
    /// The database takes writes.
    pub storage: Result<(), String>,
    /// The encryption backend answers.
    pub encryption: Result<(), String>,
}

impl Readiness {
    /// Whether callers are served here as well as they can be. A server without its encryption backend gives out what it has in
    /// memory and goes on with the data keys that are open; the others ask the same backend, and would fare no better.
    pub fn is_ready(&self) -> bool {
        self.storage.is_ok()
    }
}

impl Broker {
    /// Whether database and encryption backend work: each is asked for itself, and none waits for the other.
    pub async fn readiness(&self) -> Readiness {
        async fn in_time<E: ToString>(check: impl Future<Output = Result<(), E>>) -> Result<(), String> {
            match tokio::time::timeout(HEALTH_TIMEOUT, check).await {
                Ok(outcome) => outcome.map_err(|error| error.to_string()),
                Err(_) => Err("no answer in time".to_owned()),
            }
        }
        let checks = (in_time(self.storage().check_health()), in_time(self.sealer().check_health()));
        let (storage, encryption) = futures::join!(checks.0, checks.1);
        Readiness { storage, encryption }
    }
}
