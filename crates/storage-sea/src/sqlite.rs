//! Opens SQLite.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sea_orm::error::ConnAcquireErr;
use sea_orm::sqlx::error::DatabaseError;
use sea_orm::sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sea_orm::sqlx::{ConnectOptions, Error, SqlitePool};
use sea_orm::{DbErr, SqlxSqliteConnector};
use tokenward_plugin::{BackendDef, BuildError, Prepared};
use tokenward_storage::{Storage, StorageContext, StorageError, StorageErrorKind};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::config::SqliteConfig;
use crate::patience::Patience;
use crate::session::Database;
use crate::store::SeaStorage;

const KIND: &str = "sqlite";

/// How long a call waits until the writes before it are done.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(30);

/// The kind `sqlite`: a database in one file, or in memory, inside this process.
pub fn sqlite() -> BackendDef<Arc<dyn Storage>, StorageContext> {
    let summary = "an embedded database: one file, no server";
    BackendDef::new(KIND, summary, |section, context: &StorageContext| {
        let config = SqliteConfig::read(section)?;
        let exclusive = context.exclusive;
        Ok(Prepared::new(move || async move {
            let storage: Arc<dyn Storage> = Arc::new(open(config, exclusive).await?);
            Ok(storage)
        }))
    })
}

/// What each reader caches of the file, in KiB when negative (sqlite.org/pragma.html#pragma_cache_size). The operating system
/// has the file in memory already; the default of 2 MB each would be a quarter of an idle server.
const READ_CACHE: &str = "-256";

/// How many rows SQLite's thread reads ahead of who takes them: each time that one of them waits for the other costs more than
/// a row.
const ROWS_AHEAD: usize = 1000;

/// How many operations SQLite does between two offers of its processor: some 20 microseconds.
const OPERATIONS: i32 = 500;

/// After how many pages in the log work in the background carries them over into the database file
/// (sqlite.org/pragma.html#pragma_wal_autocheckpoint). SQLite offers its processor to nobody meanwhile; for the thousand pages
/// that it waits for by itself, that took 3 milliseconds.
const CHECKPOINT_PAGES: &str = "150";

async fn open(config: SqliteConfig, exclusive: bool) -> Result<SeaStorage, BuildError> {
    let Some(path) = config.path else { return open_in_memory().await };
    let path = create_private(&path)?;
    let lock = if exclusive { Some(lock(&path)?) } else { None };
    let options = SqliteConnectOptions::new()
        .filename(&path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        // What a statement puts aside is no larger than what it changes; files for it cost more than the change itself.
        .pragma("temp_store", "MEMORY")
        .row_buffer_size(ROWS_AHEAD)
        .busy_timeout(config.busy_timeout);
    let file = SqliteFile { options, turns: Arc::default() };
    let database = file.open(config.max_connections).await.map_err(|error| describe(&path, error))?;
    Ok(SeaStorage::new(database, Some(file), lock))
}

async fn open_in_memory() -> Result<SeaStorage, BuildError> {
    let describe = |error| describe(Path::new(":memory:"), error);
    // This form gets a name that is unique in the process, and lives as long as its one connection.
    let options = SqliteConnectOptions::from_str("sqlite::memory:").map_err(describe)?;
    let pool = pool(options, 1, Manners::Plain).await.map_err(describe)?;
    Ok(SeaStorage::new(database(pool.clone(), pool, None), None, None))
}

/// A database file that is open, and can be opened once more.
#[derive(Clone, Debug)]
pub(crate) struct SqliteFile {
    options: SqliteConnectOptions,
    /// SQLite lets one write at a time; who finds it taken would ask again and again, in no order.
    turns: Arc<Mutex<()>>,
}

impl SqliteFile {
    /// Opens it once more, with a thread that the caller's thread begins. The lock file stays with the first. It reads and
    /// writes on one connection, which has in memory what it read, and goes on knowing it after it wrote.
    pub(crate) async fn reopen(&self) -> Result<SeaStorage, StorageError> {
        let options = self.options.clone().pragma("wal_autocheckpoint", CHECKPOINT_PAGES);
        let options = options.thread_name(|number| format!("sqlite-jobs-{number}"));
        let pool = pool(options, 1, Manners::Yields).await.map_err(|error| {
            StorageError::new(StorageErrorKind::Unavailable, "installation.in_background").source(error)
        })?;
        Ok(SeaStorage::new(database(pool.clone(), pool, Some(self.turns.clone())), Some(self.clone()), None))
    }

    async fn open(&self, readers: u32) -> Result<Database, Error> {
        let write = pool(self.options.clone(), 1, Manners::Plain).await?;
        let options = self.options.clone().pragma("cache_size", READ_CACHE);
        let read = pool(options, readers, Manners::Plain).await?;
        Ok(database(read, write, Some(self.turns.clone())))
    }
}

/// A turn to write, unless those before take too long.
pub(crate) async fn turn(turns: &Arc<Mutex<()>>) -> Result<OwnedMutexGuard<()>, DbErr> {
    let turn = tokio::time::timeout(ACQUIRE_TIMEOUT, turns.clone().lock_owned()).await;
    turn.map_err(|_| DbErr::ConnectionAcquire(ConnAcquireErr::Timeout))
}

fn database(read: SqlitePool, write: SqlitePool, turns: Option<Arc<Mutex<()>>>) -> Database {
    Database {
        read: SqlxSqliteConnector::from_sqlx_sqlite_pool(read),
        write: SqlxSqliteConnector::from_sqlx_sqlite_pool(write),
        patience: Patience::endless(),
        beginnings: Database::beginnings(1),
        turns,
        migrations: None,
    }
}

/// How a connection's thread treats others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manners {
    Plain,
    /// It offers its processor to whoever waits for one, in the midst of a statement: the kernel may let even a thread of the
    /// lowest priority run to the end of its slice of some milliseconds.
    Yields,
}

async fn pool(
    options: SqliteConnectOptions,
    max_connections: u32,
    manners: Manners,
) -> Result<SqlitePool, Error> {
    SqlitePoolOptions::new()
        // The caller opens what it asks for. With a minimum a task of the runtime would open connections as well, and may be first:
        // then the connection's thread would have the priority of that task's.
        .min_connections(0)
        .max_connections(max_connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .idle_timeout(None)
        .max_lifetime(None)
        // A connection to a file does not die while nobody looks.
        .test_before_acquire(false)
        .after_connect(move |connection, _| {
            Box::pin(async move {
                if manners == Manners::Yields {
                    connection.lock_handle().await?.set_progress_handler(OPERATIONS, || {
                        std::thread::yield_now();
                        true
                    });
                }
                Ok(())
            })
        })
        .connect_with(options.foreign_keys(true).disable_statement_logging())
        .await
}

/// Creates the file readable for its owner only, and gives its one true name, so that a lock by two names is one lock.
/// SQLite gives the files beside it the same mode.
fn create_private(path: &Path) -> Result<PathBuf, BuildError> {
    let opened = private_file().open(path).and_then(|_| path.canonicalize());
    opened.map_err(|error| {
        BuildError::new(
            KIND,
            format!("cannot open {}: {error}; check that its folder exists and is writable", path.display()),
        )
        .source(error)
    })
}

fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Keeps a second process off the file, until the lock file is closed: at the latest when this process ends.
fn lock(path: &Path) -> Result<File, BuildError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let lock_path = PathBuf::from(name);
    let cannot_lock = |error: std::io::Error| {
        BuildError::new(KIND, format!("cannot lock {}: {error}", lock_path.display())).source(error)
    };
    let file = private_file().open(&lock_path).map_err(cannot_lock)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(BuildError::new(
            KIND,
            format!(
                "{} is in use by another process, which holds {}; stop that process first",
                path.display(),
                lock_path.display()
            ),
        )),
        Err(TryLockError::Error(error)) => Err(cannot_lock(error)),
    }
}

fn describe(path: &Path, error: Error) -> BuildError {
    let not_a_database =
        error.as_database_error().and_then(DatabaseError::code).is_some_and(|code| code == "26");
    let message = if not_a_database {
        format!("{} is not a SQLite database; name another file", path.display())
    } else {
        format!("cannot open {}: {error}", path.display())
    };
    BuildError::new(KIND, message).source(error)
}
