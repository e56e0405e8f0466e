//! From a driver's error to the closed kinds that callers act on.

use sea_orm::sqlx::error::{DatabaseError, ErrorKind};
use sea_orm::sqlx::mysql::MySqlDatabaseError;
use sea_orm::sqlx::postgres::PgDatabaseError;
use sea_orm::sqlx::sqlite::SqliteError;
use sea_orm::{DbErr, RuntimeErr, sqlx};
use tokenward_storage::{StorageError, StorageErrorKind};

/// Our own data is wrong: a value that no version of this program wrote.
#[derive(Debug, thiserror::Error)]
#[error("{table}.{column} of {row}")]
pub struct Inconsistent {
    /// The table.
    pub(crate) table: &'static str,
    /// The column.
    pub(crate) column: &'static str,
    /// The row's key; the wrong value is left out.
    pub(crate) row: String,
}

impl Inconsistent {
    pub(crate) fn in_operation(self, operation: &'static str) -> StorageError {
        StorageError::new(StorageErrorKind::Inconsistent, operation).detail(self.to_string())
    }
}

/// The error of a statement: the transaction around it was not committed, so nothing happened.
pub(crate) fn of_statement(operation: &'static str, error: DbErr) -> StorageError {
    StorageError::new(kind(&error), operation).source(error)
}

/// The error of a commit: unless the database itself refused it, nobody knows whether it happened.
pub(crate) fn of_commit(operation: &'static str, error: DbErr) -> StorageError {
    let refused = sqlx_error(&error)
        .and_then(sqlx::Error::as_database_error)
        .is_some_and(|error| rolled_back(error) || error.kind() != ErrorKind::Other);
    let kind = if refused { kind(&error) } else { StorageErrorKind::OutcomeUnknown };
    StorageError::new(kind, operation).source(error)
}

/// The other side closed the connection: this statement was not done, and another connection may do it.
pub(crate) fn is_closed(error: &DbErr) -> bool {
    match sqlx_error(error) {
        Some(sqlx::Error::Io(_)) => true,
        Some(sqlx::Error::Database(error)) => {
            // Shut down by an administrator, after a crash, or for its database's sake.
            matches!(postgres_code(&**error).as_deref(), Some("57P01" | "57P02" | "57P04" | "57P05"))
                || matches!(mysql_number(&**error), Some(1053 | 1080 | 1152..=1161 | 1184 | 1927 | 4031))
        }
        _ => false,
    }
}

fn sqlx_error(error: &DbErr) -> Option<&sqlx::Error> {
    match error {
        DbErr::Conn(RuntimeErr::SqlxError(error))
        | DbErr::Exec(RuntimeErr::SqlxError(error))
        | DbErr::Query(RuntimeErr::SqlxError(error)) => Some(error),
        _ => None,
    }
}

fn kind(error: &DbErr) -> StorageErrorKind {
    match error {
        DbErr::ConnectionAcquire(_) => StorageErrorKind::Unavailable,
        DbErr::Type(_) | DbErr::TryIntoErr { .. } | DbErr::Json(_) => StorageErrorKind::Inconsistent,
        error => sqlx_error(error).map_or(StorageErrorKind::Internal, sqlx_kind),
    }
}

fn sqlx_kind(error: &sqlx::Error) -> StorageErrorKind {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => StorageErrorKind::Unavailable,
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => StorageErrorKind::Inconsistent,
        sqlx::Error::Database(error) => match error.kind() {
            ErrorKind::UniqueViolation => StorageErrorKind::AlreadyExists,
            // What the row belongs to is gone, or was never there.
            ErrorKind::ForeignKeyViolation => StorageErrorKind::Conflict,
            _ if rolled_back(&**error) || is_outage(&**error) => StorageErrorKind::Unavailable,
            _ if is_damage(&**error) => StorageErrorKind::Inconsistent,
            _ => StorageErrorKind::Internal,
        },
        _ => StorageErrorKind::Internal,
    }
}

/// The SQLSTATE of an error of PostgreSQL.
fn postgres_code(error: &dyn DatabaseError) -> Option<String> {
    error.try_downcast_ref::<PgDatabaseError>().map(|error| error.code().to_owned())
}

/// Its class: the first two characters.
fn postgres_class(error: &dyn DatabaseError) -> Option<String> {
    postgres_code(error)?.get(..2).map(str::to_owned)
}

/// SQLite's primary result code, <https://www.sqlite.org/rescode.html>.
fn sqlite_code(error: &dyn DatabaseError) -> Option<u32> {
    let error = error.try_downcast_ref::<SqliteError>()?;
    error.code()?.parse::<u32>().ok().map(|code| code & 0xff)
}

/// The number of an error of MySQL or MariaDB, <https://mariadb.com/kb/en/mariadb-error-code-reference/>.
fn mysql_number(error: &dyn DatabaseError) -> Option<u16> {
    error.try_downcast_ref::<MySqlDatabaseError>().map(MySqlDatabaseError::number)
}

/// The transaction lost against another one, and certainly did not happen: serialization failure, deadlock, busy, locked;
/// MySQL's full table of locks, and a row that changed since the transaction's snapshot.
fn rolled_back(error: &dyn DatabaseError) -> bool {
    postgres_class(error).is_some_and(|class| class == "40")
        || matches!(sqlite_code(error), Some(5 | 6))
        || matches!(mysql_number(error), Some(1020 | 1206 | 1213))
}

/// The database is there but cannot do it now: connection, resource, operator and system errors of PostgreSQL, a lock that
/// took too long, a standby that only reads; SQLite's full disk, failed I/O, file that cannot be opened or written.
fn is_outage(error: &dyn DatabaseError) -> bool {
    let postgres =
        postgres_class(error).is_some_and(|class| matches!(&*class, "08" | "53" | "55" | "57" | "58" | "25"));
    postgres
        || matches!(sqlite_code(error), Some(7..=10 | 13 | 14))
        || mysql_number(error).is_some_and(is_mysql_outage)
}

fn is_mysql_outage(number: u16) -> bool {
    // A lock or a statement that took too long, or was killed.
    let too_long = matches!(number, 1205 | 1317 | 1907 | 1969 | 3024);
    let too_many = matches!(number, 1040 | 1129 | 1203 | 1226);
    // The server shuts down, or ended the connection; a cluster's node is not ready.
    let ending = matches!(number, 1047 | 1053 | 1077..=1080 | 1927 | 3169 | 4031);
    let read_only = matches!(number, 1036 | 1290 | 1792 | 1836);
    // Out of disk, memory, files or threads.
    let exhausted = matches!(number, 1021 | 1037 | 1038 | 1041 | 1114 | 1135 | 1180);
    let network = matches!(number, 1042 | 1043 | 1152..=1161 | 1184 | 1189 | 1190);
    too_long || too_many || ending || read_only || exhausted || network
}

/// The file or the table is damaged, or is no database at all.
fn is_damage(error: &dyn DatabaseError) -> bool {
    matches!(sqlite_code(error), Some(11 | 26))
        || postgres_class(error).is_some_and(|class| class == "XX")
        || matches!(mysql_number(error), Some(1034 | 1035 | 1194 | 1195 | 1712 | 1812))
}
