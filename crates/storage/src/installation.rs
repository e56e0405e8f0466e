use std::time::Duration;

use async_trait::async_trait;
use tokenward_types::Timestamp;

use crate::Result;

/// How the database's schema stands to this program's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchemaStatus {
    /// It is this program's.
    Current,
    /// These migrations are missing; all of them when the database is empty.
    Behind(Vec<String>),
    /// It has migrations that this program does not know: the database belongs to a newer version.
    Newer(Vec<String>),
}

/// A server that wants to work on the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerClaim {
    /// Unique per process.
    pub server: String,
    /// Host and process, for people.
    pub description: String,
}

/// What became of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimOutcome {
    /// The server may work.
    Claimed,
    /// Another one does.
    Held {
        /// Who, for people.
        description: String,
        /// When its claim lapses unless it renews it, by the database's clock.
        remaining: Duration,
    },
}

/// A number that only grows, as long as nobody puts the database back to an earlier state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// What it was.
    pub before: i64,
    /// What it is now.
    pub after: i64,
}

/// The installation as a whole.
#[async_trait]
pub trait InstallationStore: Send + Sync {
    /// Brings the schema up to date, under a lock, so that of two at once one waits and finds nothing to do. Repeating it
    /// changes nothing. Returns the names of the migrations that were applied.
    ///
    /// # Errors
    /// `Inconsistent` when the database is newer than this program; it is left as it is.
    async fn migrate(&self) -> Result<Vec<String>>;

    /// How the schema stands, without changing it.
    async fn schema_status(&self) -> Result<SchemaStatus>;

    /// Writes a row and deletes it: the database takes writes.
    async fn check_health(&self) -> Result<()>;

    /// The installation's identifier: the stored one, else `candidate`, which is then stored. Of many at once all get the
    /// same.
    async fn installation_id(&self, candidate: &str) -> Result<String>;

    /// The time by the database's clock, which all servers share.
    async fn time(&self) -> Result<Timestamp>;

    /// Moves the installation's mark ahead, to `now` in microseconds or one beyond what it was, and gives it before and
    /// after. Of many at once each gets another. Whoever remembers a mark that the database is behind of, knows that the
    /// database was put back to an earlier state.
    async fn advance_mark(&self, now: Timestamp) -> Result<Mark>;

    /// Claims the database for one server until `ttl` from now by the database's clock, unless another server's claim
    /// holds. The same server's claim is renewed.
    async fn claim_server(&self, claim: &ServerClaim, ttl: Duration) -> Result<ClaimOutcome>;

    /// Gives a claim up. Repeating it changes nothing.
    async fn release_server(&self, server: &str) -> Result<()>;

    /// Closes all connections to the database; later calls fail as `Unavailable`.
    async fn close(&self);
}

/// A wrapped data key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataKeyRecord {
    /// The tenant's identifier, or `_installation`.
    pub scope: String,
    /// The data key's identifier, unique within the scope, from 1.
    pub id: i32,
    /// The key-encryption key that wrapped it, as its backend names it, version included.
    pub kek: String,
    /// The wrapped key.
    pub wrapped: Vec<u8>,
    /// Whether it seals; others only open.
    pub active: bool,
    /// How many seals it is known to have made.
    pub seals: i64,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A record sealed under one version of the key-encryption key: proof of having the right one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KekCheck {
    /// The key-encryption key.
    pub kek: String,
    /// The wrapped check value.
    pub wrapped: Vec<u8>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Data keys and check records.
#[async_trait]
pub trait KeyStore: Send + Sync {
    /// Inserts a data key; if it is active, the scope's others are no longer.
    ///
    /// # Errors
    /// `AlreadyExists` when the scope has one with this identifier: another server was faster; read again. `Conflict`
    /// when the scope is a tenant that does not exist.
    async fn create_data_key(&self, key: &DataKeyRecord) -> Result<()>;

    /// All data keys of a scope, newest first.
    async fn list_data_keys(&self, scope: &str) -> Result<Vec<DataKeyRecord>>;

    /// The key-encryption keys that data keys are wrapped by, each with the number of those.
    async fn count_data_keys(&self) -> Result<Vec<(String, u64)>>;

    /// Adds to a data key's count of seals and returns the new count; `None` when there is no such key.
    async fn add_seals(&self, scope: &str, id: i32, seals: i64) -> Result<Option<i64>>;

    /// Inserts a check record. `false` when there is one for this key already: open that one instead.
    async fn create_kek_check(&self, check: &KekCheck) -> Result<bool>;

    /// All check records, in order of their keys.
    async fn list_kek_checks(&self) -> Result<Vec<KekCheck>>;
}
