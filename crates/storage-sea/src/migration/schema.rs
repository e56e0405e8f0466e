//! Words to write tables in. Each can be said again: on MySQL a migration that was interrupted starts anew, and finds a
//! part of its work done.

use sea_orm::sea_query::{
    ColumnDef, ColumnType, ConditionalStatement, Expr, ExprTrait, ForeignKey, ForeignKeyAction,
    ForeignKeyCreateStatement, Index, IndexCreateStatement, InsertStatement, OnConflict, Table,
    TableCreateStatement,
};
use sea_orm::{ConnectionTrait, DbBackend, DbErr};
use sea_orm_migration::SchemaManager;

/// Compares byte by byte, trailing blanks included. MariaDB and MySQL have each a name of its own for that, and each
/// runs only the comment that is meant for it.
const MYSQL_CHARACTERS: &str = "DEFAULT CHARACTER SET utf8mb4 /*M! COLLATE utf8mb4_nopad_bin */ \
                                /*!80017 COLLATE utf8mb4_0900_bin */ ROW_FORMAT = DYNAMIC";

/// Creates tables in one dialect.
pub(super) struct Schema<'a> {
    pub(super) manager: &'a SchemaManager<'a>,
}

impl Schema<'_> {
    fn is_mysql(&self) -> bool {
        self.manager.get_database_backend() == DbBackend::MySql
    }

    /// A short text that is compared byte by byte: identifiers, words, names. SQLite compares so by default, and in
    /// MySQL all of a table does.
    pub(super) fn key(&self, name: &'static str, length: u32) -> ColumnDef {
        let mut column = ColumnDef::new(name);
        column.string_len(length);
        if self.manager.get_database_backend() == DbBackend::Postgres {
            column.extra("COLLATE \"C\"");
        }
        column
    }

    /// A SHA-256, which may be part of a key: MySQL takes no column without a length into one.
    pub(super) fn hash(&self, name: &'static str) -> ColumnDef {
        if self.is_mysql() { ColumnDef::new(name).var_binary(32).to_owned() } else { bytes(name) }
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
        if self.is_mysql() {
            table.if_not_exists().engine("InnoDB").extra(MYSQL_CHARACTERS);
        }
        for column in columns {
            table.col(if self.is_mysql() { long(column) } else { column });
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
        self.create_index(name, table, index(name, table, columns)).await
    }

    /// Creates an index of the rows that have something in `column`. MySQL has no such indexes: there it is one of all rows.
    pub(super) async fn index_of_set(
        &self,
        name: &'static str,
        table: &'static str,
        column: &'static str,
    ) -> Result<(), DbErr> {
        let mut index = index(name, table, &[column]);
        if !self.is_mysql() {
            index.and_where(Expr::col(column).is_not_null());
        }
        self.create_index(name, table, index).await
    }

    /// Creates an index of the rows in which `flag` is true. MySQL has no such indexes: there the flag comes first.
    pub(super) async fn index_of_true(
        &self,
        name: &'static str,
        table: &'static str,
        flag: &'static str,
        columns: &[&'static str],
    ) -> Result<(), DbErr> {
        let index = if self.is_mysql() {
            index(name, table, &[&[flag], columns].concat())
        } else {
            index(name, table, columns).and_where(Expr::col(flag).eq(true)).to_owned()
        };
        self.create_index(name, table, index).await
    }

    /// Creates an index that lets each combination of values occur once.
    pub(super) async fn unique(
        &self,
        name: &'static str,
        table: &'static str,
        columns: &[&'static str],
    ) -> Result<(), DbErr> {
        self.create_index(name, table, index(name, table, columns).unique().to_owned()).await
    }

    async fn create_index(&self, name: &str, table: &str, index: IndexCreateStatement) -> Result<(), DbErr> {
        // MySQL has no `IF NOT EXISTS` for indexes.
        if self.is_mysql() && self.manager.has_index(table, name).await? {
            return Ok(());
        }
        self.manager.create_index(index).await
    }

    /// Inserts rows that a table has from the start, those that are missing. `key` is the table's primary key.
    pub(super) async fn rows(&self, mut insert: InsertStatement, key: &'static str) -> Result<(), DbErr> {
        insert.on_conflict(OnConflict::column(key).do_nothing_on([key]).to_owned());
        self.manager.get_connection().execute(&insert).await.map(drop)
    }
}

/// The same column without MySQL's limit of 64 KiB.
fn long(mut column: ColumnDef) -> ColumnDef {
    match column.get_column_type() {
        Some(ColumnType::Text) => column.custom("mediumtext").to_owned(),
        Some(ColumnType::Blob) => column.custom("longblob").to_owned(),
        _ => column,
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
