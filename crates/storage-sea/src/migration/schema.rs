//! Words to write tables in.

use sea_orm::sea_query::{
    ColumnDef, ForeignKey, ForeignKeyAction, ForeignKeyCreateStatement, Index, IndexCreateStatement, Table,
    TableCreateStatement,
};
use sea_orm::{DbBackend, DbErr};
use sea_orm_migration::SchemaManager;

/// Creates tables in one dialect.
pub(super) struct Schema<'a> {
    pub(super) manager: &'a SchemaManager<'a>,
}

impl Schema<'_> {
    /// A short text that is compared byte by byte: identifiers, words, names. SQLite compares so by default.
    pub(super) fn key(&self, name: &'static str, length: u32) -> ColumnDef {
        let mut column = ColumnDef::new(name);
        column.string_len(length);
        if self.manager.get_database_backend() == DbBackend::Postgres {
            column.extra("COLLATE \"C\"");
        }
        column
    }

    /// Creates a table: its columns, the columns of its primary key, and what it refers to.
    pub(super) async fn table(
        &self,
        name: &'static str,
        columns: Vec<ColumnDef>,
        primary_key: &[&'static str],
        references: Vec<ForeignKeyCreateStatement>,
    ) -> Result<(), DbErr> {
        let mut table: TableCreateStatement = Table::create();
        table.table(name);
        for column in columns {
            table.col(column);
        }
        let mut key = Index::create();
        for column in primary_key {
            key.col(*column);
        }
        table.primary_key(&mut key);
        for mut reference in references {
            table.foreign_key(reference.from_tbl(name));
        }
        self.manager.create_table(table).await
    }

    /// Creates an index.
    pub(super) async fn index(
        &self,
        name: &'static str,
        table: &'static str,
        columns: &[&'static str],
    ) -> Result<(), DbErr> {
        self.manager.create_index(index(name, table, columns)).await
    }

    /// Creates an index that lets each combination of values occur once.
    pub(super) async fn unique(
        &self,
        name: &'static str,
        table: &'static str,
        columns: &[&'static str],
    ) -> Result<(), DbErr> {
        self.manager.create_index(index(name, table, columns).unique().to_owned()).await
    }
}

fn index(name: &'static str, table: &'static str, columns: &[&'static str]) -> IndexCreateStatement {
    let mut index = Index::create();
    index.name(name).table(table);
    for column in columns {
        index.col(*column);
    }
    index
}

/// A text of any length.
pub(super) fn text(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).text().to_owned()
}

/// Bytes: ciphertexts, hashes, keys.
pub(super) fn bytes(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).blob().to_owned()
}

/// A count, a fence, or a time in microseconds since the Unix epoch.
pub(super) fn big(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).big_integer().to_owned()
}

/// A small number.
pub(super) fn int(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).integer().to_owned()
}

/// Yes or no.
pub(super) fn boolean(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).boolean().to_owned()
}

/// Columns that always have a value.
pub(super) fn required<const N: usize>(columns: [ColumnDef; N]) -> Vec<ColumnDef> {
    columns.into_iter().map(|mut column| column.not_null().to_owned()).collect()
}

/// Rows that go when what they refer to goes.
pub(super) fn owned_by(
    table: &'static str,
    columns: &[(&'static str, &'static str)],
) -> ForeignKeyCreateStatement {
    refers_to(table, columns).on_delete(ForeignKeyAction::Cascade).to_owned()
}

/// Rows that keep what they refer to from going: a list of (column here, column there).
pub(super) fn refers_to(
    table: &'static str,
    columns: &[(&'static str, &'static str)],
) -> ForeignKeyCreateStatement {
    let mut reference = ForeignKey::create();
    reference.to_tbl(table);
    for (from, to) in columns {
        reference.from_col(*from).to_col(*to);
    }
    reference
}
