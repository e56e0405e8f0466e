//! The storage contract, on each database; and what is one database's own.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test panics when something is not as it should be"
)]

mod configuration;
mod data;
mod fixtures;
mod mysql;
mod outages;
mod postgres;
mod proxy;
mod sqlite;
mod tls;

use fixtures::{mariadb_database, postgres_database, postgres18_database, sqlite_file, sqlite_in_memory};

tokenward_testkit::storage_conformance!(on_sqlite, sqlite_file);
tokenward_testkit::storage_conformance!(on_postgres, postgres_database);
tokenward_testkit::storage_conformance!(on_postgres18, postgres18_database);
tokenward_testkit::storage_conformance!(on_mysql, mariadb_database);

/// In memory there is nothing to reopen, so only a case that opens the database once fits: the rest is the same code.
#[tokio::test]
async fn a_database_in_memory_takes_the_schema_and_rows() {
    let fixture = sqlite_in_memory();
    tokenward_testkit::storage::cases::tenants::a_tenant_keeps_every_field(&fixture).await;
    tokenward_testkit::storage::cases::tenants::a_hundred_compare_and_swaps_lose_none(&sqlite_in_memory())
        .await;
    tokenward_testkit::storage::cases::atomicity::a_consent_that_is_dropped_midway_leaves_nothing_half_written(
        &sqlite_in_memory(),
    )
    .await;
}
