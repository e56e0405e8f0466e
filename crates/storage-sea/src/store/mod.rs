//! The storage traits, a file per aggregate.

mod access;
mod batch;
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

use crate::session::Database;
use crate::sqlite::SqliteFile;

/// Storage in SQLite, PostgreSQL, or MySQL or MariaDB.
#[derive(Debug)]
pub struct SeaStorage {
    db: Database,
    /// Where each connection has a thread.
    file: Option<SqliteFile>,
    /// Held for as long as this lives.
    _lock: Option<File>,
}

impl SeaStorage {
    pub(crate) fn new(db: Database, file: Option<SqliteFile>, lock: Option<File>) -> Self {
        Self { db, file, _lock: lock }
    }
}
