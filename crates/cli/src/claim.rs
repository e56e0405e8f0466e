//! One server per database: a claim that is renewed while the server runs.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokenward_storage::{ClaimOutcome, ServerClaim, Storage};
use tokenward_types::{Clock, Rng, generate_suffix};

use crate::failure::Failure;

/// How long a claim holds after its last renewal, by the database's clock.
const TTL: Duration = Duration::from_secs(10);
/// How often it is renewed.
const RENEWAL: Duration = Duration::from_secs(3);
/// Added to the wait for another server's claim to lapse.
const MARGIN: Duration = Duration::from_millis(200);

/// The right to work on the database.
pub(crate) struct Claim {
    storage: Arc<dyn Storage>,
    claim: ServerClaim,
}

impl Claim {
    /// Claims the database. A claim that a former server left behind is taken over at once where it is certain that it is
    /// dead, else when it lapses.
    ///
    /// # Errors
    /// Another server works on the database.
    pub(crate) async fn acquire(
        storage: &Arc<dyn Storage>,
        clock: &dyn Clock,
        rng: &dyn Rng,
    ) -> Result<Self, Failure> {
        let server = format!("srv_{}", generate_suffix(clock, rng));
        let claim = ServerClaim { description: Process::this().describe(&server), server };
        let mut outcome = storage.claim_server(&claim, TTL).await?;
        if let ClaimOutcome::Held { description, remaining } = &outcome {
            match Process::parse(description) {
                Some((former, server)) if former.is_dead() => storage.release_server(&server).await?,
                _ => {
                    tracing::warn!(holder = %description, "the database belongs to another server; waiting whether it still runs");
                    tokio::time::sleep(*remaining + MARGIN).await;
                }
            }
            outcome = storage.claim_server(&claim, TTL).await?;
        }
        match outcome {
            ClaimOutcome::Claimed => Ok(Self { storage: Arc::clone(storage), claim }),
            ClaimOutcome::Held { description, .. } => {
                Err(Failure::new(format!("another server works on this database: {description}"))
                    .hint("stop that one first, or give this one a database of its own"))
            }
        }
    }

    /// Names this server, for leases.
    pub(crate) fn server(&self) -> &str {
        &self.claim.server
    }

    /// Renews the claim for ever; returns only when it is lost. While the database is away nobody else can claim it either.
    pub(crate) async fn keep(&self) -> Failure {
        let mut ticks = tokio::time::interval(RENEWAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            match self.storage.claim_server(&self.claim, TTL).await {
                Ok(ClaimOutcome::Claimed) => {}
                Ok(ClaimOutcome::Held { description, .. }) => {
                    return Failure::new(format!("another server took the database over: {description}"))
                        .hint("run one server per database");
                }
                Err(error) => tracing::warn!(%error, "cannot renew the claim on the database"),
            }
        }
    }

    /// Gives the claim up, so that the next server starts at once.
    pub(crate) async fn release(&self) {
        if let Err(error) = self.storage.release_server(&self.claim.server).await {
            tracing::warn!(%error, "cannot give up the claim on the database; it lapses by itself");
        }
    }
}

/// A process, exactly enough to tell later whether it is gone: boot, process namespace and number.
#[derive(Debug, PartialEq, Eq)]
struct Process {
    boot: String,
    namespace: String,
    pid: u32,
}

impl Process {
    fn this() -> Self {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        let digits = namespace.to_string_lossy().chars().filter(char::is_ascii_digit).collect();
        Self { boot: boot.trim().to_owned(), namespace: digits, pid: std::process::id() }
    }

    fn describe(&self, server: &str) -> String {
        format!("process {} in {}/{} as {server}", self.pid, self.boot, self.namespace)
    }

    /// Reads what [`Process::describe`] wrote.
    fn parse(text: &str) -> Option<(Self, String)> {
        let rest = text.strip_prefix("process ")?;
        let (pid, rest) = rest.split_once(" in ")?;
        let (place, server) = rest.split_once(" as ")?;
        let (boot, namespace) = place.split_once('/')?;
        let process = Self { boot: boot.to_owned(), namespace: namespace.to_owned(), pid: pid.parse().ok()? };
        Some((process, server.to_owned()))
    }

    /// Whether it certainly runs no more. `false` where this process cannot see that.
    fn is_dead(&self) -> bool {
        let this = Self::this();
        let is_visible = !this.boot.is_empty()
            && !this.namespace.is_empty()
            && this.boot == self.boot
            && this.namespace == self.namespace;
        is_visible && self.pid != this.pid && !Path::new(&format!("/proc/{}", self.pid)).exists()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_reads_back() {
        let this = Process::this();
        assert_eq!(Process::parse(&this.describe("srv_1")), Some((Process::this(), "srv_1".into())));
        assert_eq!(Process::parse("somebody else"), None);
    }

    #[test]
    fn only_a_process_that_could_be_seen_is_called_dead() {
        // Above the highest number that Linux gives (4194304).
        let gone = Process { pid: 4_294_967, ..Process::this() };
        assert!(gone.is_dead());
        assert!(!Process { boot: "another".into(), ..gone }.is_dead());
        assert!(!Process { pid: 1, ..Process::this() }.is_dead());
    }
}
