//! What the databases do not have in common.

use std::time::Duration;

use sea_orm::sea_query::extension::postgres::PgFunc;
use sea_orm::sea_query::{ArrayType, Expr, LockType};
use sea_orm::{ColumnTrait, ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, Value};

/// The database's own clock in microseconds since the Unix epoch, read anew by each statement.
pub(crate) fn now_micros(backend: DbBackend) -> Expr {
    Expr::cust(now_micros_sql(backend))
}

/// The same in SQL.
pub(crate) const fn now_micros_sql(backend: DbBackend) -> &'static str {
    match backend {
        DbBackend::Sqlite => "CAST(unixepoch('subsec') * 1000000 AS INTEGER)",
        // `UTC_TIMESTAMP` would be of the statement's start, ahead of all that it waits for. The session's time zone is UTC.
        DbBackend::MySql => "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', SYSDATE(6))",
        // `now()` would stand still for the length of a transaction.
        _ => "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)",
    }
}

/// Microseconds of a duration, at most some thirty years, so that adding it to a time never overflows.
pub(crate) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX).min(1_000_000_000_000_000)
}

/// How long until a deadline, both in the database's microseconds; zero when it has passed.
pub(crate) fn remaining(deadline: i64, now: i64) -> Duration {
    Duration::from_micros(u64::try_from(deadline.saturating_sub(now)).unwrap_or(0))
}

/// A column of texts has one of these. PostgreSQL takes them as one array, so that it plans the statement once, however many
/// there are.
pub(crate) fn among(backend: DbBackend, column: impl ColumnTrait, texts: &[impl AsRef<str>]) -> Expr {
    let texts = texts.iter().map(|text| Value::from(text.as_ref()));
    if backend == DbBackend::Postgres {
        let array = Value::Array(ArrayType::String, Some(Box::new(texts.collect())));
        sea_orm::ExprTrait::eq(Expr::col(column), PgFunc::any(Expr::value(array)))
    } else {
        column.is_in(texts)
    }
}

/// Bytes as upper-case hexadecimal digits, in SQL.
pub(crate) fn hex_of_bytes(backend: DbBackend, bytes: &str) -> String {
    match backend {
        DbBackend::Postgres => format!("upper(encode({bytes}, 'hex'))"),
        _ => format!("hex({bytes})"),
    }
}

/// A number of 32 bits, not below zero, as eight upper-case hexadecimal digits, in SQL.
pub(crate) fn hex_of_int(backend: DbBackend, number: &str) -> String {
    match backend {
        DbBackend::Postgres => format!("upper(lpad(to_hex({number}), 8, '0'))"),
        DbBackend::MySql => format!("lpad(hex({number}), 8, '0')"),
        _ => format!("printf('%08X', {number})"),
    }
}

/// The lock that keeps a row from going while others may hold the same: MySQL knows no weaker one than that which keeps
/// it from changing.
pub(crate) fn shared_lock(backend: DbBackend) -> LockType {
    match backend {
        DbBackend::MySql => LockType::Share,
        _ => LockType::KeyShare,
    }
}

/// Lets one migration run at a time, until the transaction ends. It may take longer than other statements. On MySQL a
/// change of the schema ends the transaction, so that it takes its lock otherwise.
pub(crate) async fn lock_migrations(tx: &DatabaseTransaction) -> Result<(), DbErr> {
    if tx.get_database_backend() == DbBackend::Postgres {
        tx.execute_unprepared("SET LOCAL statement_timeout = 0").await?;
        // The key is an arbitrary constant; it only has to be the same in every version of this program.
        tx.execute_unprepared("SELECT pg_advisory_xact_lock(7526763420163305844)").await?;
    }
    // SQLite: BEGIN IMMEDIATE has locked the database already.
    Ok(())
}
