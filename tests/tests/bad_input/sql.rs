//! A look into the server's database behind its back, and a hand in it.

use std::collections::BTreeMap;

use sqlx::postgres::PgConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};
use tokenward_tests::Database;

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
pub(crate) type SealedTokens = (Vec<u8>, Vec<u8>);

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

    /// How many rows each table has.
    pub(crate) async fn rows(&mut self) -> BTreeMap<&'static str, i64> {
        let mut rows = BTreeMap::new();
        for table in TABLES {
            rows.insert(table, self.count(table).await);
        }
        rows
    }

    /// How many rows one table has.
    pub(crate) async fn count(&mut self, table: &str) -> i64 {
        let query = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
        on_either!(self, connection => sqlx::query_scalar(query).fetch_one(connection))
    }

    pub(crate) async fn tokens(&mut self, tenant: &str) -> SealedTokens {
        let query = "SELECT access_token, refresh_token FROM connections WHERE tenant_id = $1";
        on_either!(self, connection => sqlx::query_as(query).bind(tenant).fetch_one(connection))
    }

    pub(crate) async fn put_tokens(&mut self, tenant: &str, (access, refresh): &SealedTokens) {
        let query = "UPDATE connections SET access_token = $2, refresh_token = $3 WHERE tenant_id = $1";
        on_either!(self, connection => async {
            let query = sqlx::query(query).bind(tenant).bind(access).bind(refresh);
            query.execute(connection).await.map(|_| ())
        });
    }

    /// Lets the time of every attempt to connect be over.
    pub(crate) async fn expire_attempts(&mut self) {
        let query = "UPDATE connect_attempts SET expires_at = created_at";
        on_either!(self, connection => async { sqlx::query(query).execute(connection).await.map(|_| ()) });
    }

    /// Puts one tenant's wrapped data key in the place of another's.
    pub(crate) async fn copy_data_key(&mut self, from: &str, to: &str) {
        let query = "UPDATE data_keys SET wrapped = (SELECT wrapped FROM data_keys WHERE scope = $1) WHERE scope = $2";
        on_either!(self, connection => async {
            sqlx::query(query).bind(from).bind(to).execute(connection).await.map(|_| ())
        });
    }

    /// Alters every client secret.
    pub(crate) async fn damage_client_secrets(&mut self) {
        let query = "SELECT sealed FROM client_secrets";
        let mut sealed: Vec<u8> =
            on_either!(&mut *self, connection => sqlx::query_scalar(query).fetch_one(connection));
        *sealed.last_mut().unwrap() ^= 1;
        let query = "UPDATE client_secrets SET sealed = $1";
        on_either!(self, connection => async {
            sqlx::query(query).bind(sealed).execute(connection).await.map(|_| ())
        });
    }

    /// The fence of the attempt that brought the stored tokens.
    pub(crate) async fn grant_fence(&mut self, tenant: &str) -> i64 {
        let query = "SELECT grant_fence FROM connections WHERE tenant_id = $1";
        on_either!(self, connection => sqlx::query_scalar(query).bind(tenant).fetch_one(connection))
    }
}
