//! A database of one's own for each test.

mod mysql;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use sea_orm::sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row, SqliteConnection};
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tokenward_plugin::{BackendDef, BuildError, Problems, Registry, Section};
use tokenward_storage::{Storage, StorageContext};
use tokenward_storage_sea::{postgres, sqlite};
use tokenward_testkit::parts::{postgres_url, postgres18_url};
use tokenward_testkit::storage::StorageFixture;
use tokenward_types::{Rng, SystemRng};

pub(crate) use mysql::{MysqlDatabase, mariadb_database};

/// A section of the configuration.
pub(crate) fn section(values: Value) -> Section {
    let Value::Object(values) = values else { panic!("a section is an object") };
    section_of(values)
}

fn section_of(values: Map<String, Value>) -> Section {
    Section { at: "storage".into(), name: "storage".into(), values }
}

type Def = BackendDef<Arc<dyn Storage>, StorageContext>;

/// Checks a section and opens what it describes.
pub(crate) async fn build(def: Def, values: Value, exclusive: bool) -> Result<Arc<dyn Storage>, BuildError> {
    let kind = def.kind();
    let registry = Registry::new("storage").with(def);
    let prepared = registry.prepare(kind, &section(values), &StorageContext { exclusive });
    prepared.unwrap_or_else(|problems| panic!("the section is right: {problems}")).build().await
}

/// Checks a section.
pub(crate) fn prepare(def: Def, values: Value) -> Result<(), Problems> {
    let kind = def.kind();
    let registry = Registry::new("storage").with(def);
    registry.prepare(kind, &section(values), &StorageContext { exclusive: true }).map(drop)
}

/// What is wrong with a section.
pub(crate) fn problems(def: Def, values: Value) -> Problems {
    prepare(def, values).expect_err("the section is wrong")
}

/// A SQLite file in a folder of its own.
pub(crate) struct SqliteFile {
    folder: TempDir,
}

impl SqliteFile {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a scratch folder") }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("tokenward.db")
    }

    pub(crate) async fn try_open(&self, exclusive: bool) -> Result<Arc<dyn Storage>, BuildError> {
        build(sqlite(), json!({"path": self.path()}), exclusive).await
    }

    /// Runs a statement past the storage.
    pub(crate) async fn execute(&self, sql: String) {
        let url = format!("sqlite:{}", self.path().display());
        let mut connection = SqliteConnection::connect(&url).await.expect("the file is there");
        connection.execute(AssertSqlSafe(sql)).await.expect("the statement is right");
        connection.close().await.expect("it closes");
    }
}

#[async_trait]
impl StorageFixture for SqliteFile {
    async fn open(&self) -> Arc<dyn Storage> {
        self.try_open(false).await.expect("the file opens")
    }

    async fn record_migration(&self, name: &str) {
        self.execute(format!("INSERT INTO seaql_migrations (version, applied_at) VALUES ('{name}', 1)"))
            .await;
    }
}

pub(crate) async fn sqlite_file(_test: &'static str) -> Option<SqliteFile> {
    Some(SqliteFile::new())
}

/// A SQLite database in memory: each opening is another one.
pub(crate) struct SqliteInMemory;

#[async_trait]
impl StorageFixture for SqliteInMemory {
    async fn open(&self) -> Arc<dyn Storage> {
        build(sqlite(), json!({"in_memory": true}), true).await.expect("memory opens")
    }

    async fn record_migration(&self, _name: &str) {
        unreachable!("nothing else can reach a database in memory");
    }
}

pub(crate) fn sqlite_in_memory() -> SqliteInMemory {
    SqliteInMemory
}

/// A database on a PostgreSQL server.
pub(crate) struct PostgresDatabase {
    server: String,
    name: String,
}

/// A collation that is not byte by byte, so that a column that relies on the default shows.
const BY_DICTIONARY: &str = "TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER icu ICU_LOCALE 'en-US'";

/// A name that no other test gives its database.
fn unique_name() -> String {
    let mut random = [0; 8];
    SystemRng.fill(&mut random);
    format!("tw_{:016x}", u64::from_le_bytes(random))
}

impl PostgresDatabase {
    async fn create(server: String, options: &str) -> Self {
        let name = unique_name();
        execute(&server, format!("CREATE DATABASE {name} {options}")).await;
        Self { server, name }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn url(&self) -> String {
        with_database(&self.server, &self.name)
    }

    pub(crate) async fn open_with(&self, more: Value) -> Arc<dyn Storage> {
        let mut values = json!({"url": self.url(), "acquire_timeout": "1m", "statement_timeout": "1m"});
        let Value::Object(more) = more else { panic!("options are an object") };
        values.as_object_mut().expect("an object").extend(more);
        build(postgres(), values, false).await.expect("the database opens")
    }

    /// Runs a statement in the database, past the storage.
    pub(crate) async fn execute(&self, sql: String) {
        execute(&self.url(), sql).await;
    }

    /// A setting of the server.
    pub(crate) async fn setting(&self, name: &str) -> String {
        let mut connection = PgConnection::connect(&self.url()).await.expect("the server is there");
        let row = connection.fetch_one(AssertSqlSafe(format!("SHOW {name}"))).await.expect("it is a setting");
        row.get(0)
    }

    /// Runs a statement beside the database.
    pub(crate) async fn execute_on_server(&self, sql: String) {
        execute(&self.server, sql).await;
    }
}

/// The URL of another database on the same server.
pub(crate) fn with_database(server: &str, name: &str) -> String {
    let (address, options) = server.split_once('?').map_or((server, ""), |(a, o)| (a, o));
    let scheme_end = address.find("://").map_or(0, |at| at + 3);
    let host_end = address[scheme_end..].find('/').map_or(address.len(), |at| scheme_end + at);
    let question = if options.is_empty() { "" } else { "?" };
    format!("{}/{name}{question}{options}", &address[..host_end])
}

async fn execute(url: &str, sql: String) {
    let mut connection = PgConnection::connect(url).await.expect("the server is there");
    connection.execute(AssertSqlSafe(sql)).await.expect("the statement is right");
    connection.close().await.expect("it closes");
}

/// Removes a database while a test's runtime, which cannot be blocked on, ends.
fn drop_database(name: &str, drop: impl Future<Output = ()> + Send + 'static) {
    let dropped = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(drop);
    });
    if dropped.join().is_err() {
        eprintln!("the database {name} was left behind");
    }
}

impl Drop for PostgresDatabase {
    fn drop(&mut self) {
        let server = self.server.clone();
        let drop = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        drop_database(&self.name, async move { execute(&server, drop).await });
    }
}

#[async_trait]
impl StorageFixture for PostgresDatabase {
    async fn open(&self) -> Arc<dyn Storage> {
        self.open_with(json!({})).await
    }

    async fn record_migration(&self, name: &str) {
        self.execute(format!("INSERT INTO seaql_migrations (version, applied_at) VALUES ('{name}', 1)"))
            .await;
    }
}

pub(crate) async fn postgres_database(test: &'static str) -> Option<PostgresDatabase> {
    let server = postgres_url(test)?;
    Some(PostgresDatabase::create(server, BY_DICTIONARY).await)
}

/// The server that the tests install knows no other collation than byte by byte.
pub(crate) async fn postgres18_database(test: &'static str) -> Option<PostgresDatabase> {
    let server = postgres18_url(test)?;
    Some(PostgresDatabase::create(server, "").await)
}
