//! SQLite (embedded) and PostgreSQL storage: one code path by SeaORM's query builder, two ways to open it.
//!
//! [`sqlite`] and [`postgres`] are the two kinds that a registry offers. Behind both is one [`SeaStorage`], which
//! implements the traits of `tokenward-storage`, a file per aggregate. What differs between the databases (the clock,
//! the lock of a migration) is in `dialect`; everything else is built by sea-query, without `RETURNING` and other things
//! that MariaDB lacks.

mod config;
mod convert;
mod dialect;
#[expect(unreachable_pub, reason = "SeaORM's derives make public what goes with a model")]
mod entity;
mod error;
mod migration;
mod postgres;
mod session;
mod sqlite;
mod store;

pub use config::{PostgresConfig, SqliteConfig};
pub use postgres::postgres;
pub use sqlite::sqlite;
pub use store::SeaStorage;
