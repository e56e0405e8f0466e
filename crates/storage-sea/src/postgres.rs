//! Opens PostgreSQL.

use std::sync::Arc;

use sea_orm::SqlxPostgresConnector;
use sea_orm::sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sea_orm::sqlx::{ConnectOptions, Connection, Error};
use tokenward_plugin::{BackendDef, BuildError, Prepared};
use tokenward_storage::{Storage, StorageContext};

use crate::config::PostgresConfig;
use crate::session::Database;
use crate::store::SeaStorage;

const KIND: &str = "postgres";

/// The kind `postgres`: PostgreSQL 13 or newer.
pub fn postgres() -> BackendDef<Arc<dyn Storage>, StorageContext> {
    let summary = "a PostgreSQL server, which several processes may share";
    BackendDef::new(KIND, summary, |section, _: &StorageContext| {
        let (config, options) = PostgresConfig::read(section)?;
        Ok(Prepared::new(move || async move {
            let storage: Arc<dyn Storage> = Arc::new(open(&config, options).await?);
            Ok(storage)
        }))
    })
}

async fn open(config: &PostgresConfig, options: PgConnectOptions) -> Result<SeaStorage, BuildError> {
    let options = options.disable_statement_logging().options([
        ("statement_timeout", config.statement_timeout.as_millis().to_string()),
        // A process that was paused within a transaction must not keep its locks for ever.
        ("idle_in_transaction_session_timeout", "60000".to_owned()),
    ]);
    // The pool would retry a refused connection and then report no more than a timeout: ask once ourselves.
    let attempt = tokio::time::timeout(config.connect_timeout, options.connect()).await;
    match attempt.map_err(|_| Error::PoolTimedOut).flatten() {
        Ok(connection) => drop(connection.close().await),
        Err(error) => return Err(describe(config, &options, error)),
    }
    let pool = PgPoolOptions::new()
        .max_connections(config.max_connections)
        .acquire_timeout(config.acquire_timeout)
        .connect_lazy_with(options);
    let pool = SqlxPostgresConnector::from_sqlx_postgres_pool(pool);
    Ok(SeaStorage::new(Database { read: pool.clone(), write: pool }, None))
}

/// Names the database and the remedy; neither user nor password.
fn describe(config: &PostgresConfig, options: &PgConnectOptions, error: Error) -> BuildError {
    let place = options.get_socket().map_or_else(
        || format!("{}:{}", options.get_host(), options.get_port()),
        |socket| socket.display().to_string(),
    );
    let database = options.get_database().unwrap_or("(the user's default)");
    let (cause, remedy) = match &error {
        Error::PoolTimedOut => (
            format!("no answer within {} ms", config.connect_timeout.as_millis()),
            "check that the server runs and is reachable from here",
        ),
        Error::Io(error) => (error.to_string(), "check that the server runs and is reachable from here"),
        Error::Tls(error) => (
            format!("TLS failed: {error}"),
            "check sslmode in the URL and root_cert_file: the default trusts public certificate authorities only",
        ),
        Error::Database(error) => (
            format!("the server refused: SQLSTATE {}", error.code().unwrap_or_default()),
            "check user, password and database name in the URL",
        ),
        _ => ("the server did not answer as PostgreSQL does".to_owned(), "check host and port in the URL"),
    };
    BuildError::new(KIND, format!("cannot connect to database {database} at {place}: {cause}; {remedy}"))
        .source(error)
}
