//! A real database in a folder of its own, with every safety on, that can be crashed and started again.

mod mariadb;
mod postgres;

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Result;

use crate::options::Store;

use mariadb::Mariadb;
use postgres::Postgres;

/// The database's name, its user's and that one's password: this computer alone can reach it.
const NAME: &str = "tokenward";

/// A database.
pub enum Database {
    /// PostgreSQL.
    Postgres(Postgres),
    /// MariaDB.
    Mariadb(Box<Mariadb>),
    /// A file: it neither crashes nor goes away.
    Sqlite,
}

impl Database {
    /// Starts a new one.
    ///
    /// # Errors
    /// When its programs are missing or it does not come up.
    pub async fn start(store: Store, folder: &Path) -> Result<Self> {
        Ok(match store {
            Store::Postgres => Self::Postgres(Postgres::start().await?),
            Store::Mariadb => Self::Mariadb(Box::new(Mariadb::start(folder).await?)),
            Store::Sqlite => Self::Sqlite,
        })
    }

    /// Where it listens; a file does not.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Postgres(server) => Some(server.address()),
            Self::Mariadb(server) => Some(server.address()),
            Self::Sqlite => None,
        }
    }

    /// Ends it as a crash does: nothing is finished, nothing flushed.
    ///
    /// # Errors
    /// When that cannot be done.
    pub async fn crash(&mut self) -> Result<()> {
        match self {
            Self::Postgres(server) => server.crash().await,
            Self::Mariadb(server) => server.crash().await,
            Self::Sqlite => Ok(()),
        }
    }

    /// Starts it again; it recovers by itself.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn recover(&mut self) -> Result<()> {
        match self {
            Self::Postgres(server) => server.up().await,
            Self::Mariadb(server) => server.up().await,
            Self::Sqlite => Ok(()),
        }
    }
}

/// The section `[storage]` of a server that reaches the database at `address`.
pub fn section(store: Store, address: Option<SocketAddr>, folder: &Path) -> String {
    let quoted = |text: String| serde_json::Value::from(text).to_string();
    let timeouts = "acquire_timeout = \"2s\"\nstatement_timeout = \"2s\"";
    match (store, address) {
        (Store::Postgres, Some(address)) => {
            let url = quoted(format!("postgres://postgres@{address}/{NAME}"));
            format!("kind = \"postgres\"\nurl = {url}\n{timeouts}\n")
        }
        (Store::Mariadb, Some(address)) => {
            let url = quoted(format!("mysql://{NAME}:{NAME}@{address}/{NAME}"));
            format!("kind = \"mysql\"\nurl = {url}\n{timeouts}\n")
        }
        _ => {
            let path = quoted(folder.join("tokenward.db").display().to_string());
            format!("kind = \"sqlite\"\npath = {path}\n")
        }
    }
}
