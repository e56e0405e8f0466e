//! A look into the server's database behind its back, and a hand in it.

use std::collections::BTreeMap;

use sqlx::postgres::PgConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};

use crate::Database;

/// The tables that say what there is; bookkeeping of the server itself is left out.
const TABLES: [&str; 14] = [
    "tenants",
    "data_keys",
    "kek_checks",
    "oauth_clients",
    "client_secrets",
    "connections",
    "revocations",
    "attempts",
    "spares",
    "connect_links",
    "pending_grants",
    "access_rules",
    "blocked_principals",
    "issuer_keys",
];

/// A connection's sealed access and refresh token.
pub type SealedTokens = (Vec<u8>, Vec<u8>);

/// A connection of the test's own.
pub enum Sql {
    /// To a file.
    Sqlite(SqliteConnection),
    /// To a PostgreSQL.
    Postgres(PgConnection),
}

macro_rules! on_either {
    ($self:expr, $connection:ident => $query:expr) => {
        match $self {
            Sql::Sqlite($connection) => $query.await.expect("the database does as it is told"),
            Sql::Postgres($connection) => $query.await.expect("the database does as it is told"),
        }
    };
}

impl Sql {
    /// Connects.
    pub async fn open(database: &Database) -> Self {
        match database {
            Database::Sqlite(folder) => {
                let options = SqliteConnectOptions::new().filename(folder.file("tokenward.db"));
                Self::Sqlite(options.connect().await.expect("the file opens"))
            }
            Database::Postgres { url, .. } => {
                Self::Postgres(PgConnection::connect(url).await.expect("the database answers"))
            }
            Database::Mariadb { .. } => panic!("its dialect is not spoken here"),
        }
    }

    /// How many rows each table has.
    pub async fn rows(&mut self) -> BTreeMap<&'static str, i64> {
        let mut rows = BTreeMap::new();
        for table in TABLES {
            rows.insert(table, self.count(table).await);
        }
        rows
    }

    /// How many rows there are of what may follow FROM: a table, and a condition.
    pub async fn count(&mut self, from: &str) -> i64 {
        let query = AssertSqlSafe(format!("SELECT count(*) FROM {from}"));
        on_either!(self, connection => sqlx::query_scalar(query).fetch_one(connection))
    }

    /// Runs a statement.
    pub async fn run(&mut self, statement: &str) {
        let statement = AssertSqlSafe(statement.to_owned());
        on_either!(self, connection => async { sqlx::query(statement).execute(connection).await.map(drop) });
    }

    /// A ciphertext of a tenant's connection.
    pub async fn token(&mut self, tenant: &str, column: &str) -> Vec<u8> {
        let query = AssertSqlSafe(format!("SELECT {column} FROM connections WHERE tenant_id = $1"));
        on_either!(self, connection => sqlx::query_scalar(query).bind(tenant).fetch_one(connection))
    }

    /// Puts another in its place.
    pub async fn put_token(&mut self, tenant: &str, column: &str, bytes: &[u8]) {
        let query = AssertSqlSafe(format!("UPDATE connections SET {column} = $2 WHERE tenant_id = $1"));
        on_either!(self, connection => async {
            sqlx::query(query).bind(tenant).bind(bytes).execute(connection).await.map(drop)
        });
    }

    /// Both ciphertexts of a tenant's connection.
    pub async fn tokens(&mut self, tenant: &str) -> SealedTokens {
        (self.token(tenant, "access_token").await, self.token(tenant, "refresh_token").await)
    }

    /// Puts others in their place.
    pub async fn put_tokens(&mut self, tenant: &str, (access, refresh): &SealedTokens) {
        self.put_token(tenant, "access_token", access).await;
        self.put_token(tenant, "refresh_token", refresh).await;
    }

    /// Lets the time of every attempt to connect be over.
    pub async fn expire_attempts(&mut self) {
        self.run("UPDATE connect_attempts SET expires_at = created_at").await;
    }

    /// Puts one tenant's wrapped data key in the place of another's.
    pub async fn copy_data_key(&mut self, from: &str, to: &str) {
        let query = "UPDATE data_keys SET wrapped = (SELECT wrapped FROM data_keys WHERE scope = $1) WHERE scope = $2";
        on_either!(self, connection => async {
            sqlx::query(query).bind(from).bind(to).execute(connection).await.map(drop)
        });
    }

    /// Alters every client secret.
    pub async fn damage_client_secrets(&mut self) {
        let query = "SELECT sealed FROM client_secrets";
        let mut sealed: Vec<u8> =
            on_either!(&mut *self, connection => sqlx::query_scalar(query).fetch_one(connection));
        *sealed.last_mut().expect("it is not empty") ^= 1;
        let query = "UPDATE client_secrets SET sealed = $1";
        on_either!(self, connection => async {
            sqlx::query(query).bind(sealed).execute(connection).await.map(drop)
        });
    }

    /// The fence of the attempt that brought the stored tokens.
    pub async fn grant_fence(&mut self, tenant: &str) -> i64 {
        let query = "SELECT grant_fence FROM connections WHERE tenant_id = $1";
        on_either!(self, connection => sqlx::query_scalar(query).bind(tenant).fetch_one(connection))
    }
}
