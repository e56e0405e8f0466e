//! The schema and its changes. A migration never changes once it was released; it uses names as texts, so that a later
//! change of an entity does not change it.
//!
//! Migrations only go forward, and older servers keep working beside them: *expand, then contract*. A version may add
//! tables, columns that are nullable or have a default, and indexes. What it does not need any more it leaves there; a
//! later version removes that, when no server can be running that knows it. A column is renamed by adding the new one,
//! writing both, and removing the old one two versions later.
//!
//! On SQLite and PostgreSQL a run of migrations is one transaction. MySQL commits at each change of the schema: there a
//! migration is a step that can be repeated, because the words of `schema` can, and is recorded when it is done.

mod m0001_initial;
mod m0002_changes;
mod m0003_budgets;
mod m0004_marks;
mod m0005_keys;
mod m0006_active_data_keys;
mod schema;

use std::collections::BTreeSet;

use sea_orm::sea_query::{Expr, ExprTrait, Query};
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbErr};
use sea_orm_migration::{MigrationTrait, MigratorTrait, SchemaManager};

use crate::dialect;

/// The migrations in order.
pub(crate) struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m0001_initial::Migration),
            Box::new(m0002_changes::Migration),
            Box::new(m0003_budgets::Migration),
            Box::new(m0004_marks::Migration),
            Box::new(m0005_keys::Migration),
            Box::new(m0006_active_data_keys::Migration),
        ]
    }
}

/// What the database lacks, and what it has that this program does not know.
pub(crate) struct Difference {
    pub(crate) missing: Vec<String>,
    pub(crate) unknown: Vec<String>,
}

/// Compares the migrations that were applied with those of this program, without changing anything.
pub(crate) async fn difference(conn: &impl ConnectionTrait, has_history: bool) -> Result<Difference, DbErr> {
    let mut applied = BTreeSet::new();
    if has_history {
        let history = Query::select().column("version").from(HISTORY).to_owned();
        for row in conn.query_all(&history).await? {
            applied.insert(row.try_get::<String>("", "version")?);
        }
    }
    let known: Vec<_> = Migrator::migrations().iter().map(|migration| migration.name().to_owned()).collect();
    let unknown = applied.iter().filter(|name| !known.contains(name)).cloned().collect();
    Ok(Difference { missing: known.into_iter().filter(|name| !applied.contains(name)).collect(), unknown })
}

/// Applies those of this program's migrations that are `missing`, in their order. The caller holds the lock of migrations.
pub(crate) async fn apply(conn: &DatabaseTransaction, missing: &[String]) -> Result<(), DbErr> {
    Migrator::install(conn).await?;
    let manager = SchemaManager::new(conn);
    let seconds = dialect::now_micros(conn.get_database_backend()).div(1_000_000);
    for migration in Migrator::migrations() {
        let name = migration.name();
        if missing.iter().any(|missing| missing == name) {
            migration.up(&manager).await?;
            let record = Query::insert()
                .into_table(HISTORY)
                .columns(["version", "applied_at"])
                .values_panic([Expr::value(name), seconds.clone()])
                .to_owned();
            conn.execute(&record).await?;
        }
    }
    Ok(())
}

/// Whether any migration was ever applied.
pub(crate) async fn has_history(manager: &SchemaManager<'_>) -> Result<bool, DbErr> {
    manager.has_table(HISTORY).await
}

/// The table in which sea-orm-migration keeps what was applied.
const HISTORY: &str = "seaql_migrations";
