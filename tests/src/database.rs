//! Where a server under test stores its data.

use sqlx::{Connection, Executor, PgConnection};
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
}

impl Database {
    /// A new file.
    pub fn sqlite() -> Self {
        Self::Sqlite(Scratch::new())
    }

    /// A new PostgreSQL database; `None`, said and noted, where there is no server.
    pub async fn postgres() -> Option<Self> {
        let server = parts::postgres_url()?;
        let mut url = Url::parse(&server).expect("TOKENWARD_TEST_POSTGRES_URL is a URL");
        let name = format!("tokenward_e2e_{}_{}", std::process::id(), unique());
        execute(&server, format!("CREATE DATABASE {name}")).await;
        url.set_path(&name);
        Some(Self::Postgres { url: url.into(), server })
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
        }
        section
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let Self::Postgres { url, server } = self else { return };
        let name = Url::parse(url).map(|url| url.path().trim_start_matches('/').to_owned());
        let Ok(name) = name else { return };
        let server = server.clone();
        // Dropping is synchronous, and this thread may be one of a runtime.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime
                .expect("a runtime starts")
                .block_on(execute(&server, format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")));
        });
        if dropped.join().is_err() {
            eprintln!("a scenario's database could not be dropped");
        }
    }
}

async fn execute(server: &str, statement: String) {
    let mut connection = PgConnection::connect(server).await.expect("PostgreSQL answers");
    let executed = connection.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(statement))).await;
    executed.expect("PostgreSQL does as it is told");
    // The server notices an abrupt end as well.
    let _ = connection.close().await;
}

/// Different for each call of this process.
fn unique() -> u32 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
