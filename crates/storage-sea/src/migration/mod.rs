//! The schema and its changes. A migration never changes once it was released; it uses names as texts, so that a later
//! change of an entity does not change it.

mod m0001_initial;
mod m0003_budgets;
mod schema;

use std::collections::BTreeSet;

use sea_orm::sea_query::Query;
use sea_orm::{ConnectionTrait, DbErr};
use sea_orm_migration::{MigrationTrait, MigratorTrait, SchemaManager};

/// The migrations in order.
pub(crate) struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(m0001_initial::Migration), Box::new(m0003_budgets::Migration)]
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

/// Whether any migration was ever applied.
pub(crate) async fn has_history(manager: &SchemaManager<'_>) -> Result<bool, DbErr> {
    manager.has_table(HISTORY).await
}

/// The table in which sea-orm-migration keeps what was applied.
const HISTORY: &str = "seaql_migrations";
