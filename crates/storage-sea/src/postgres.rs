//! Opens PostgreSQL.

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use sea_orm::SqlxPostgresConnector;
use sea_orm::sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions, PgSslMode};
use sea_orm::sqlx::{self, AssertSqlSafe, ConnectOptions, Connection, Executor, Row};
use secrecy::{ExposeSecret, SecretString};
use tokenward_plugin::{BackendDef, BuildError, Prepared, Problems, Section};
use tokenward_storage::{Storage, StorageContext};

use crate::config::ServerConfig;
use crate::network::Place;
use crate::session::Database;
use crate::store::SeaStorage;

const KIND: &str = "postgres";

/// The kind `postgres`: PostgreSQL 13 or newer.
pub fn postgres() -> BackendDef<Arc<dyn Storage>, StorageContext> {
    let summary = "a PostgreSQL server, which several processes may share";
    BackendDef::new(KIND, summary, |section, _: &StorageContext| {
        let (config, options) = ServerConfig::read(section, parse_url, with_root_certificate)?;
        Ok(Prepared::new(move || async move {
            let storage: Arc<dyn Storage> = Arc::new(open(&config, options).await?);
            Ok(storage)
        }))
    })
}

async fn open(config: &ServerConfig, options: PgConnectOptions) -> Result<SeaStorage, BuildError> {
    // No column is of floating point, and a pooler would take the option for one that it does not know.
    let options = options.disable_statement_logging().extra_float_digits(None);
    let place = place(&options);
    refuse_shared_sessions(config, &options, &place).await?;
    let settings: Arc<str> = settings(config).into();
    let patience = config.patience();
    let (of_idle, of_pool) = (patience.clone(), patience.clone());
    let pool = PgPoolOptions::new()
        .max_connections(config.max_connections)
        .acquire_timeout(config.acquire_timeout)
        .after_connect(move |connection, _| {
            let settings = Arc::clone(&settings);
            Box::pin(async move { connection.execute(AssertSqlSafe(settings.to_string())).await.map(drop) })
        })
        .test_before_acquire(false)
        .before_acquire(move |connection, meta| {
            let patience = of_idle.clone();
            Box::pin(async move { patience.check_idle(connection, meta.idle_for).await })
        })
        .after_release(move |connection, _| {
            let patience = of_pool.clone();
            Box::pin(async move { patience.check(connection).await })
        })
        .connect_lazy_with(options);
    let pool = SqlxPostgresConnector::from_sqlx_postgres_pool(pool);
    let beginnings = Database::beginnings(config.max_connections);
    let database =
        Database { read: pool.clone(), write: pool, patience, beginnings, turns: None, migrations: None };
    Ok(SeaStorage::new(database, None, None))
}

/// What a session is set to. Not by the connection's options, which poolers do not pass on.
fn settings(config: &ServerConfig) -> String {
    // A process that was paused within a transaction must not keep its locks for ever.
    format!(
        "SET statement_timeout = {}; SET idle_in_transaction_session_timeout = 60000",
        config.statement_timeout.as_millis()
    )
}

/// Refuses a pooler that gives a session to whoever has a transaction to run: neither prepared statements nor the settings
/// of a session would be there when they are needed. Such a pooler shows when one connection's session is found under
/// another, or changes while another has a transaction open.
async fn refuse_shared_sessions(
    config: &ServerConfig,
    options: &PgConnectOptions,
    place: &Place,
) -> Result<(), BuildError> {
    let mut one = place.try_connect(config.connect_timeout, options.connect()).await?;
    let mut two = place.try_connect(config.connect_timeout, options.connect()).await?;
    let look = async {
        let before = session(&mut one).await?;
        two.execute("BEGIN").await?;
        let other = session(&mut two).await?;
        let shared = before == other || before != session(&mut one).await?;
        two.execute("ROLLBACK").await?;
        Ok(shared)
    };
    let looked = tokio::time::timeout(config.connect_timeout, look).await;
    let shared = match looked.map_err(|_| sqlx::Error::PoolTimedOut).flatten() {
        // The words are those of pgbouncer.
        Err(sqlx::Error::Database(error)) if error.message().contains("statement pooling mode") => true,
        result => result.map_err(|error| place.cannot(config.connect_timeout, error))?,
    };
    if shared {
        return Err(place.refused(
            "is behind a pooler, such as pgbouncer, that shares sessions between transactions; \
             set pool_mode = session there, or connect to PostgreSQL itself",
        ));
    }
    drop(one.close().await);
    drop(two.close().await);
    Ok(())
}

/// The server's process that serves a connection.
async fn session(connection: &mut PgConnection) -> sqlx::Result<i32> {
    connection.fetch_one("SELECT pg_backend_pid()").await?.try_get(0)
}

fn place(options: &PgConnectOptions) -> Place {
    let address = options.get_socket().map_or_else(
        || format!("{}:{}", options.get_host(), options.get_port()),
        |socket| socket.display().to_string(),
    );
    Place {
        kind: KIND,
        product: "PostgreSQL",
        database: options.get_database().unwrap_or("(the user's default)").to_owned(),
        address,
        tls_option: "sslmode",
    }
}

/// The URL is never repeated, because it holds a password.
fn parse_url(section: &Section, url: &SecretString) -> Result<PgConnectOptions, Problems> {
    let mut problems = Problems::new();
    let text = url.expose_secret();
    let expected = "must be a URL such as postgres://user:password@host:5432/database?sslmode=verify-full";
    if text.starts_with("postgres://") || text.starts_with("postgresql://") {
        match PgConnectOptions::from_str(text) {
            Ok(options) => return Ok(options.application_name("tokenward")),
            Err(_) => problems.add(section.option("url"), expected),
        }
    } else {
        problems.add(section.option("url"), expected);
    }
    Err(problems)
}

fn with_root_certificate(options: PgConnectOptions, file: &Path) -> Result<PgConnectOptions, &'static str> {
    match options.get_ssl_mode() {
        PgSslMode::VerifyCa | PgSslMode::VerifyFull => Ok(options.ssl_root_cert(file)),
        _ => Err("has no effect unless the URL says sslmode=verify-full (or verify-ca)"),
    }
}
