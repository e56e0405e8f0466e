//! Where a server under test stores its data.

use sqlx::{Connection, Executor, MySqlConnection, PgConnection};
use url::Url;

use crate::{Scratch, parts};

/// The database kinds by their names in the configuration.
pub const POSTGRES: &str = "postgres";

/// A database of a scenario's own; it goes with the scenario.
pub enum Database {
    /// A file.
    Sqlite(Scratch),
    /// A database on the PostgreSQL server that the tests are given.
    Postgres {
        /// Its URL.
        url: String,
        /// A superuser's URL of the server.
        server: String,
    },
    /// A database on the MariaDB server that the tests are given.
    Mariadb {
        /// Its URL.
        url: String,
        /// The URL of a user who may do everything.
        server: String,
    },
}

impl Database {
    /// A new file.
    pub fn sqlite() -> Self {
        Self::Sqlite(Scratch::new())
    }

    /// A new PostgreSQL database; `None`, said and noted, where there is no server.
    pub async fn postgres() -> Option<Self> {
        let server = parts::postgres_url()?;
        let (name, url) = new_database(&server);
        postgres_execute(&server, format!("CREATE DATABASE {name}")).await;
        Some(Self::Postgres { url, server })
    }

    /// A new MariaDB database; `None`, said and noted, where there is no server.
    pub async fn mariadb() -> Option<Self> {
        let server = parts::mariadb_url()?;
        let (name, url) = new_database(&server);
        mariadb_execute(&server, format!("CREATE DATABASE {name}")).await;
        Some(Self::Mariadb { url, server })
    }

    /// The same PostgreSQL database by another URL, such as one with a password.
    #[must_use]
    pub fn at(mut self, other: &str) -> Self {
        if let Self::Postgres { url, .. } = &mut self {
            other.clone_into(url);
        }
        self
    }

    /// The section `[storage]` of the configuration.
    pub fn section(&self) -> toml::Table {
        let mut section = toml::Table::new();
        match self {
            Self::Sqlite(folder) => {
                section.insert("kind".into(), "sqlite".into());
                section.insert("path".into(), folder.file("tokenward.db").display().to_string().into());
            }
            Self::Postgres { url, .. } => {
                section.insert("kind".into(), POSTGRES.into());
                section.insert("url".into(), url.clone().into());
            }
            Self::Mariadb { url, .. } => {
                section.insert("kind".into(), "mysql".into());
                section.insert("url".into(), url.clone().into());
            }
        }
        section
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (Self::Postgres { url, .. } | Self::Mariadb { url, .. }) = self else { return };
        let name = Url::parse(url).map(|url| url.path().trim_start_matches('/').to_owned());
        let Ok(name) = name else { return };
        let dropped = match self {
            Self::Mariadb { server, .. } => {
                drop_in_a_runtime(mariadb_execute(server, format!("DROP DATABASE IF EXISTS {name}")))
            }
            Self::Postgres { server, .. } => {
                let drop = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
                drop_in_a_runtime(postgres_execute(server, drop))
            }
            Self::Sqlite(_) => return,
        };
        if !dropped {
            eprintln!("a scenario's database could not be dropped");
        }
    }
}

/// Dropping is synchronous, and this thread may be one of a runtime.
fn drop_in_a_runtime(drop: impl Future<Output = ()> + Send) -> bool {
    std::thread::scope(|scope| {
        let dropped = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime starts").block_on(drop);
        });
        dropped.join().is_ok()
    })
}

/// A name for a database of a server, and its URL.
fn new_database(server: &str) -> (String, String) {
    let mut url = Url::parse(server).expect("the server's address is a URL");
    let name = format!("tokenward_e2e_{}_{}", std::process::id(), unique());
    url.set_path(&name);
    (name, url.into())
}

async fn postgres_execute(server: &str, statement: String) {
    let mut connection = PgConnection::connect(server).await.expect("PostgreSQL answers");
    let executed = connection.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(statement))).await;
    executed.expect("PostgreSQL does as it is told");
    // The server notices an abrupt end as well.
    let _ = connection.close().await;
}

async fn mariadb_execute(server: &str, statement: String) {
    let mut connection = MySqlConnection::connect(server).await.expect("MariaDB answers");
    let executed = connection.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(statement))).await;
    executed.expect("MariaDB does as it is told");
    let _ = connection.close().await;
}

/// Different for each call of this process.
fn unique() -> u32 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
