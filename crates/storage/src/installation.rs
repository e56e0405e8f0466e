use std::sync::Arc;

use async_trait::async_trait;
use tokenward_types::Timestamp;

use crate::{Result, Storage};

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

    /// The same storage for work in the background: its threads, if it has any, are begun by the thread that polls this, and so
    /// have that one's priority. What one of the two stores, the other finds. `None` where there are no such threads.
    async fn in_background(&self) -> Result<Option<Arc<dyn Storage>>> {
        Ok(None)
    }

    /// Closes all connections to the database; later calls fail as `Unavailable`.
    async fn close(&self);
}
