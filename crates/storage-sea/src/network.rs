//! What opening a database over the network has in common.

use std::fmt::Display;
use std::future::Future;
use std::io::ErrorKind;
use std::time::Duration;

use sea_orm::sqlx::{self, Connection};
use tokenward_plugin::BuildError;

/// A database on a server, in the words that a message may repeat: neither user nor password.
pub(crate) struct Place {
    /// The kind of the backend.
    pub(crate) kind: &'static str,
    /// The server's product.
    pub(crate) product: &'static str,
    /// The database's name.
    pub(crate) database: String,
    /// Host and port, or a socket.
    pub(crate) address: String,
    /// Which option of the URL says how to verify the server.
    pub(crate) tls_option: &'static str,
}

impl Place {
    /// Connects once, within a time: a pool would retry a refused connection and then report no more than a timeout.
    pub(crate) async fn try_connect<C: Connection>(
        &self,
        within: Duration,
        connect: impl Future<Output = sqlx::Result<C>>,
    ) -> Result<C, BuildError> {
        let attempt = tokio::time::timeout(within, connect).await;
        attempt.map_err(|_| sqlx::Error::PoolTimedOut).flatten().map_err(|error| self.cannot(within, error))
    }

    /// The database does not fit, and what to do about it.
    pub(crate) fn refused(&self, why: impl Display) -> BuildError {
        BuildError::new(self.kind, format!("database {} at {} {why}", self.database, self.address))
    }

    /// Names the database, the cause and the remedy.
    pub(crate) fn cannot(&self, within: Duration, error: sqlx::Error) -> BuildError {
        let running = "check that the server runs and is reachable from here".to_owned();
        let tls = |error: &dyn Display| {
            let remedy = format!(
                "check {} in the URL and root_cert_file: the default trusts public certificate authorities only",
                self.tls_option
            );
            (format!("TLS failed: {error}"), remedy)
        };
        let (cause, remedy) = match &error {
            sqlx::Error::PoolTimedOut => (format!("no answer within {} ms", within.as_millis()), running),
            // What a handshake finds wrong with a certificate comes as data that is not valid.
            sqlx::Error::Io(error) if error.kind() == ErrorKind::InvalidData => tls(error),
            sqlx::Error::Io(error) => (error.to_string(), running),
            sqlx::Error::Tls(error) => tls(error),
            // What MySQL's `caching_sha2_password` comes to without TLS.
            sqlx::Error::Configuration(_) => {
                let cause = "the server takes passwords by TLS only".to_owned();
                (cause, format!("give {} in the URL", self.tls_option))
            }
            sqlx::Error::Database(error) => {
                let cause = format!("the server refused: SQLSTATE {}", error.code().unwrap_or_default());
                (cause, "check user, password and database name in the URL".to_owned())
            }
            _ => {
                let cause = format!("the server did not answer as {} does", self.product);
                (cause, "check host and port in the URL".to_owned())
            }
        };
        let Self { database, address, .. } = self;
        let message = format!("cannot connect to database {database} at {address}: {cause}; {remedy}");
        BuildError::new(self.kind, message).source(error)
    }
}
