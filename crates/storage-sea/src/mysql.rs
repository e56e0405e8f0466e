//! Opens MySQL or MariaDB.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sea_orm::sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlPool, MySqlPoolOptions, MySqlSslMode};
use sea_orm::sqlx::{self, AssertSqlSafe, ConnectOptions, Connection, Executor, Row};
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, SqlxMySqlConnector,
    Statement, TransactionTrait,
};
use secrecy::{ExposeSecret, SecretString};
use tokenward_plugin::{BackendDef, BuildError, Prepared, Problems, Section};
use tokenward_storage::{Storage, StorageContext};

use crate::config::ServerConfig;
use crate::network::Place;
use crate::patience::Patience;
use crate::session::Database;
use crate::store::SeaStorage;

const KIND: &str = "mysql";

/// When the server ends a connection that does nothing: a process that was paused within a transaction must not keep its
/// locks for ever.
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

/// What a URL may say. The rest, such as the character set and the time zone, the store depends on.
const PARAMETERS: [&str; 9] =
    ["ssl-mode", "sslmode", "ssl-ca", "sslca", "ssl-cert", "sslcert", "ssl-key", "sslkey", "socket"];

/// The kind `mysql`: MySQL 8.0.17 or newer, or MariaDB 10.6 or newer.
pub fn mysql() -> BackendDef<Arc<dyn Storage>, StorageContext> {
    let summary = "a MySQL or MariaDB server, which several processes may share";
    BackendDef::new(KIND, summary, |section, _: &StorageContext| {
        let (config, options) = ServerConfig::read(section, parse_url, with_root_certificate)?;
        Ok(Prepared::new(move || async move {
            let storage: Arc<dyn Storage> = Arc::new(open(&config, options).await?);
            Ok(storage)
        }))
    })
}

async fn open(config: &ServerConfig, options: MySqlConnectOptions) -> Result<SeaStorage, BuildError> {
    let options = options.disable_statement_logging();
    let place = place(&options);
    let mut connection = place.try_connect(config.connect_timeout, options.connect()).await?;
    let version = tokio::time::timeout(config.connect_timeout, version(&mut connection)).await;
    let version = version.map_err(|_| sqlx::Error::PoolTimedOut).flatten();
    let version = version.map_err(|error| place.cannot(config.connect_timeout, error))?;
    drop(connection.close().await);
    if !is_supported(&version) {
        return Err(
            place.refused(format!("is version {version}; upgrade it to MariaDB 10.6, MySQL 8.0.17 or newer"))
        );
    }
    let server = Server { options };
    let patience = config.patience();
    let pool = server.pool(Limits {
        connections: config.max_connections,
        acquire: config.acquire_timeout,
        statement: Some(config.statement_timeout),
        patience: patience.clone(),
    });
    let pool = SqlxMySqlConnector::from_sqlx_mysql_pool(pool);
    let beginnings = Database::beginnings(config.max_connections);
    let database = Database {
        read: pool.clone(),
        write: pool,
        patience,
        beginnings,
        turns: None,
        migrations: Some(server),
    };
    Ok(SeaStorage::new(database, None, None))
}

async fn version(connection: &mut MySqlConnection) -> sqlx::Result<String> {
    connection.fetch_one("SELECT VERSION()").await?.try_get(0)
}

/// MySQL says `8.0.36`, MariaDB `10.11.6-MariaDB-0+deb12u1`.
fn is_supported(version: &str) -> bool {
    let mut numbers =
        version.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse::<u32>().ok());
    let mut next = || numbers.next().unwrap_or_default();
    let oldest = if version.contains("MariaDB") { (10, 6, 0) } else { (8, 0, 17) };
    (next(), next(), next()) >= oldest
}

/// A server, and how to connect to it.
pub(crate) struct Server {
    options: MySqlConnectOptions,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The options show their password.
        f.debug_struct("Server").finish_non_exhaustive()
    }
}

struct Limits {
    connections: u32,
    acquire: Duration,
    /// `None` for as long as it takes.
    statement: Option<Duration>,
    patience: Patience,
}

impl Server {
    fn pool(&self, limits: Limits) -> MySqlPool {
        let settings: Arc<str> = settings(limits.statement).into();
        let of_idle = limits.patience.clone();
        MySqlPoolOptions::new()
            .max_connections(limits.connections)
            .acquire_timeout(limits.acquire)
            .idle_timeout(WAIT_TIMEOUT / 2)
            .after_connect(move |connection, _| {
                let settings = Arc::clone(&settings);
                Box::pin(async move {
                    // Between two statements of a transaction what others committed is seen, as on PostgreSQL.
                    connection.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED").await?;
                    connection.execute(AssertSqlSafe(settings.to_string())).await.map(drop)
                })
            })
            .test_before_acquire(false)
            .before_acquire(move |connection, meta| {
                let patience = of_idle.clone();
                Box::pin(async move { patience.check_idle(connection, meta.idle_for).await })
            })
            .after_release(move |connection, _| {
                let patience = limits.patience.clone();
                Box::pin(async move { patience.check(connection).await })
            })
            .connect_lazy_with(self.options.clone())
    }

    /// A connection that holds the lock of migrations until it is closed, and the pool that it alone is of. What is called a
    /// transaction is none, because a change of the schema ends it; it keeps to the one connection.
    pub(crate) async fn migrating(&self) -> Result<(DatabaseConnection, DatabaseTransaction), DbErr> {
        let limits =
            Limits { connections: 1, acquire: WAIT_TIMEOUT, statement: None, patience: Patience::endless() };
        let pool = SqlxMySqlConnector::from_sqlx_mysql_pool(self.pool(limits));
        let connection = pool.begin().await?;
        // The lock's name is the server's, not the database's. Others wait until a long migration is done.
        let lock = "SELECT GET_LOCK(CONCAT('tokenward/migrate/', SHA1(DATABASE())), 3600) AS locked";
        let locked = connection.query_one_raw(Statement::from_string(DbBackend::MySql, lock)).await?;
        let locked = locked.map(|row| row.try_get::<Option<i64>>("", "locked")).transpose()?;
        if locked.flatten() == Some(1) {
            Ok((pool, connection))
        } else {
            Err(DbErr::Custom("another server holds the lock of migrations".to_owned()))
        }
    }
}

/// What a session is set to, whatever the server's own settings are. Each product runs only the comment that is meant
/// for it. MySQL limits the time of statements that read, and the time that others wait for a row.
fn settings(statement_timeout: Option<Duration>) -> String {
    let seconds = statement_timeout.map_or(0.0, |timeout| timeout.as_secs_f64());
    let millis = statement_timeout.map_or(0, |timeout| timeout.as_millis());
    let lock_wait = statement_timeout.map_or(3600, |timeout| timeout.as_secs().max(1));
    format!(
        "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', \
         /*M! max_statement_time = {seconds:.3}, */ /*!80017 max_execution_time = {millis}, */ \
         innodb_lock_wait_timeout = {lock_wait}, wait_timeout = {}",
        WAIT_TIMEOUT.as_secs()
    )
}

fn place(options: &MySqlConnectOptions) -> Place {
    let address = options.get_socket().map_or_else(
        || format!("{}:{}", options.get_host(), options.get_port()),
        |socket| socket.display().to_string(),
    );
    Place {
        kind: KIND,
        product: "MySQL or MariaDB",
        database: options.get_database().unwrap_or_default().to_owned(),
        address,
        tls_option: "ssl-mode",
    }
}

/// The URL is never repeated, because it holds a password.
fn parse_url(section: &Section, url: &SecretString) -> Result<MySqlConnectOptions, Problems> {
    let mut problems = Problems::new();
    let text = url.expose_secret();
    let expected = "must be a URL such as mysql://user:password@host:3306/database?ssl-mode=VERIFY_IDENTITY";
    let query = text.split_once('?').map_or("", |(_, query)| query);
    let known = query
        .split('&')
        .filter(|parameter| !parameter.is_empty())
        .all(|parameter| PARAMETERS.contains(&parameter.split('=').next().unwrap_or_default()));
    let options = if text.starts_with("mysql://") || text.starts_with("mariadb://") {
        MySqlConnectOptions::from_str(text).ok()
    } else {
        None
    };
    let at = section.option("url");
    match options {
        None => problems.add(at, expected),
        Some(options) if options.get_database().is_none() => {
            problems.add(at, format!("names no database: {expected}"));
        }
        // The driver would pass over a word that it does not know, such as a misspelt ssl-mode.
        Some(_) if !known => {
            let parameters = PARAMETERS.join(", ");
            problems.add(at, format!("has a parameter other than {parameters}: remove or correct it"));
        }
        Some(options) => return Ok(options),
    }
    Err(problems)
}

fn with_root_certificate(
    options: MySqlConnectOptions,
    file: &Path,
) -> Result<MySqlConnectOptions, &'static str> {
    match options.get_ssl_mode() {
        MySqlSslMode::VerifyCa | MySqlSslMode::VerifyIdentity => Ok(options.ssl_ca(file)),
        _ => Err("has no effect unless the URL says ssl-mode=VERIFY_IDENTITY (or VERIFY_CA)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_product() {
        for supported in
            ["8.0.17", "8.4.3", "9.1.0", "10.6.0-MariaDB", "10.11.6-MariaDB-0+deb12u1", "11.4.2-MariaDB"]
        {
            assert!(is_supported(supported), "{supported}");
        }
        for old in ["5.7.44", "8.0.16-log", "10.5.23-MariaDB-1", "5.5.5-10.4.1-MariaDB", ""] {
            assert!(!is_supported(old), "{old}");
        }
    }

    #[test]
    fn a_limit_below_a_second_is_kept_where_the_server_can() {
        let settings = settings(Some(Duration::from_millis(50)));
        assert!(settings.contains("max_statement_time = 0.050,"), "{settings}");
        assert!(settings.contains("max_execution_time = 50,"), "{settings}");
        assert!(settings.contains("innodb_lock_wait_timeout = 1,"), "{settings}");
    }
}
