use std::time::Duration;

use async_trait::async_trait;
use tokenward_types::Timestamp;

use crate::Result;

/// A server on this database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Unique per process; leases name their holder by it.
    pub id: String,
    /// Host and process, for people.
    pub description: String,
    /// The version of the program.
    pub version: String,
    /// The key-encryption keys that it can open; none where it is of a version that does not say.
    pub keks: Vec<String>,
}

/// A server that reported lately.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveReplica {
    /// The server.
    pub replica: Replica,
    /// When it first reported, by the database's clock.
    pub started_at: Timestamp,
    /// When it last reported, by the database's clock.
    pub seen_at: Timestamp,
}

/// The servers that share the database. Each reports every few seconds; nothing else is known of them.
#[async_trait]
pub trait ReplicaStore: Send + Sync {
    /// Notes that a server lives. The first report of an identifier is its start; later ones keep that, and replace the
    /// rest. Returns how many servers reported within `within`, this one included.
    async fn report_replica(&self, replica: &Replica, within: Duration) -> Result<u64>;

    /// The servers that reported within `within` by the database's clock, in order of their identifiers.
    async fn live_replicas(&self, within: Duration) -> Result<Vec<LiveReplica>>;

    /// Removes a server that stops. Repeating it changes nothing.
    async fn remove_replica(&self, id: &str) -> Result<()>;

    /// Removes servers that have not reported for `silence`; returns how many.
    async fn forget_replicas(&self, silence: Duration) -> Result<u64>;
}
