//! A hand in the database behind the server's back.

use sqlx::postgres::PgConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};
use tokenward_tests::Database;

/// A connection of the test's own.
pub(crate) enum Sql {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

macro_rules! on_either {
    ($self:expr, $connection:ident => $query:expr) => {
        match $self {
            Sql::Sqlite($connection) => $query.await.unwrap(),
            Sql::Postgres($connection) => $query.await.unwrap(),
        }
    };
}

impl Sql {
    pub(crate) async fn open(database: &Database) -> Self {
        match database {
            Database::Sqlite(folder) => {
                let options = SqliteConnectOptions::new().filename(folder.file("tokenward.db"));
                Self::Sqlite(options.connect().await.unwrap())
            }
            Database::Postgres { url, .. } => Self::Postgres(PgConnection::connect(url).await.unwrap()),
            Database::Mariadb { .. } => panic!("its dialect is not spoken here"),
        }
    }

    pub(crate) async fn count(&mut self, query: &str) -> i64 {
        let query = AssertSqlSafe(query.to_owned());
        on_either!(self, connection => sqlx::query_scalar(query).fetch_one(connection))
    }

    pub(crate) async fn run(&mut self, query: &str) {
        let query = AssertSqlSafe(query.to_owned());
        on_either!(self, connection => async { sqlx::query(query).execute(connection).await.map(drop) });
    }

    /// A ciphertext of a tenant's connection.
    pub(crate) async fn token(&mut self, tenant: &str, column: &str) -> Vec<u8> {
        let query = AssertSqlSafe(format!("SELECT {column} FROM connections WHERE tenant_id = $1"));
        on_either!(self, connection => sqlx::query_scalar(query).bind(tenant).fetch_one(connection))
    }

    pub(crate) async fn put_token(&mut self, tenant: &str, column: &str, bytes: &[u8]) {
        let query = AssertSqlSafe(format!("UPDATE connections SET {column} = $2 WHERE tenant_id = $1"));
        on_either!(self, connection => async {
            sqlx::query(query).bind(tenant).bind(bytes).execute(connection).await.map(drop)
        });
    }
}
