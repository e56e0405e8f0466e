//! From a driver's error to the closed kinds that callers act on.

use sea_orm::sqlx::error::{DatabaseError, ErrorKind};
use sea_orm::sqlx::postgres::PgDatabaseError;
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

/// The class of a PostgreSQL error: the first two characters of its SQLSTATE.
fn postgres_class(error: &dyn DatabaseError) -> Option<String> {
    let error = error.try_downcast_ref::<PgDatabaseError>()?;
    error.code().get(..2).map(str::to_owned)
}

/// SQLite's primary result code, <https://www.sqlite.org/rescode.html>.
fn sqlite_code(error: &dyn DatabaseError) -> Option<u32> {
    if error.try_downcast_ref::<PgDatabaseError>().is_some() {
        return None;
    }
    error.code()?.parse::<u32>().ok().map(|code| code & 0xff)
}

/// The transaction lost against another one, and certainly did not happen: serialization failure, deadlock, busy, locked.
fn rolled_back(error: &dyn DatabaseError) -> bool {
    postgres_class(error).is_some_and(|class| class == "40") || matches!(sqlite_code(error), Some(5 | 6))
}

/// The database is there but cannot do it now: connection, resource, operator and system errors of PostgreSQL, a lock that
/// took too long, a standby that only reads; SQLite's full disk, failed I/O, file that cannot be opened or written.
fn is_outage(error: &dyn DatabaseError) -> bool {
    let postgres =
        postgres_class(error).is_some_and(|class| matches!(&*class, "08" | "53" | "55" | "57" | "58" | "25"));
    postgres || matches!(sqlite_code(error), Some(7..=10 | 13 | 14))
}

/// The file is damaged or is no database at all.
fn is_damage(error: &dyn DatabaseError) -> bool {
    matches!(sqlite_code(error), Some(11 | 26)) || postgres_class(error).is_some_and(|class| class == "XX")
}
