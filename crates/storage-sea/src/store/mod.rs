//! The storage traits, a file per aggregate.

mod access;
mod budget;
mod change;
mod connect;
mod connection;
mod consent;
mod idle;
mod installation;
mod keks;
mod key_job;
mod keys;
mod oauth_client;
mod refresh;
mod replica;
mod revocation;
mod sealed;
mod tenant;

use std::fs::File;
use std::time::Duration;

use tokenward_storage::{Result, StorageError, StorageErrorKind};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use crate::session::Database;

/// Storage in SQLite, PostgreSQL, or MySQL or MariaDB.
#[derive(Debug)]
pub struct SeaStorage {
    db: Database,
    begins: Begins,
    /// Held for as long as this lives.
    _lock: Option<File>,
}

impl SeaStorage {
    pub(crate) fn new(db: Database, lock: Option<File>) -> Self {
        Self { db, begins: Begins::default(), _lock: lock }
    }

    /// Begins attempts on a third of so many connections at a time; a call waits so long for its turn.
    pub(crate) fn with_begins(mut self, connections: u32, patience: Duration) -> Self {
        let places = usize::try_from(connections / 3).unwrap_or(1).max(1);
        self.begins = Begins { places: Semaphore::new(places), patience };
        self
    }
}

/// How many attempts begin at a time. Each that began brings an answer that must not be lost, and that has to find a free
/// connection when it comes.
#[derive(Debug)]
struct Begins {
    places: Semaphore,
    patience: Duration,
}

impl Default for Begins {
    /// As many as like.
    fn default() -> Self {
        Self { places: Semaphore::new(Semaphore::MAX_PERMITS), patience: Duration::MAX }
    }
}

impl Begins {
    async fn turn(&self) -> Result<SemaphorePermit<'_>> {
        match timeout(self.patience, self.places.acquire()).await {
            Ok(Ok(turn)) => Ok(turn),
            Ok(Err(_)) | Err(_) => Err(StorageError::new(StorageErrorKind::Unavailable, "attempt.begin")
                .detail("the database does not keep up")),
        }
    }
}
