//! SQLite (embedded), PostgreSQL, and MySQL or MariaDB storage: one code path by SeaORM's query builder, three ways to
//! open it.
//!
//! [`sqlite`], [`postgres`] and [`mysql`] are the kinds that a registry offers. Behind all is one [`SeaStorage`], which
//! implements the traits of `tokenward-storage`, a file per aggregate. What differs between the databases (the clock, a
//! lock that readers share, what lets one migration run at a time) is in `dialect` and `migration`; everything else is
//! built by sea-query, without `RETURNING` and other things that MySQL lacks.

mod config;
mod convert;
mod dialect;
#[expect(unreachable_pub, reason = "SeaORM's derives make public what goes with a model")]
mod entity;
mod error;
mod migration;
mod mysql;
mod network;
mod patience;
mod postgres;
mod session;
mod sqlite;
mod store;

pub use config::{ServerConfig, SqliteConfig};
pub use mysql::mysql;
pub use postgres::postgres;
pub use sqlite::sqlite;
pub use store::SeaStorage;
