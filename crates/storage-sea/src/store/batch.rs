//! One change of many rows, each by its key, in one statement: a round trip for each, be it to a thread, would take most of the
//! time. PostgreSQL takes the rows as arrays, so that the statement is the same however many there are, and SQLite as a table of
//! values. MySQL has no `UPDATE … FROM`, and is given one row after the other.

use std::fmt::Write;

use sea_orm::sea_query::ArrayType;
use sea_orm::{ConnectionTrait, DbBackend, Statement, Value};
use tokenward_storage::Result;

use crate::session::Tx;

/// How many rows one statement changes.
const ROWS: usize = 500;

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Text,
    Bytes,
    Int,
    Big,
}

impl Type {
    const fn name(self) -> &'static str {
        match self {
            Self::Text => "text[]",
            Self::Bytes => "bytea[]",
            Self::Int => "int[]",
            Self::Big => "bigint[]",
        }
    }

    fn array(self, values: Vec<Value>) -> Value {
        let of = match self {
            Self::Text => ArrayType::String,
            Self::Bytes => ArrayType::Bytes,
            Self::Int => ArrayType::Int,
            Self::Big => ArrayType::BigInt,
        };
        Value::Array(of, Some(Box::new(values)))
    }
}

/// A column and its type.
pub(super) type Column = (&'static str, Type);

/// What becomes of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Set {
    /// It is the row's value.
    To,
    /// The row's value is added.
    Plus,
}

/// A statement with its values.
pub(super) struct Sql {
    backend: DbBackend,
    text: String,
    values: Vec<Value>,
}

impl Sql {
    pub(super) fn new(backend: DbBackend, text: String) -> Self {
        Self { backend, text, values: Vec::new() }
    }

    pub(super) fn push(&mut self, text: &str) {
        self.text.push_str(text);
    }

    pub(super) fn bind(&mut self, value: Value) {
        self.values.push(value);
        let number = self.values.len();
        match self.backend {
            // A text takes every write.
            DbBackend::Postgres => write!(self.text, "${number}").unwrap_or_default(),
            _ => self.text.push('?'),
        }
    }

    /// `column` is one of these texts.
    pub(super) fn among(&mut self, column: &str, texts: &[String]) {
        let values = texts.iter().map(|text| Value::from(text.clone()));
        self.push(column);
        if self.backend == DbBackend::Postgres {
            self.push(" = ANY(");
            self.bind(Type::Text.array(values.collect()));
        } else {
            self.push(" IN (");
            for (index, value) in values.enumerate() {
                if index > 0 {
                    self.push(", ");
                }
                self.bind(value);
            }
        }
        self.push(")");
    }

    /// Rows as a table with the columns `c0`, `c1` and so on.
    pub(super) fn rows(&mut self, alias: &str, types: &[Type], rows: Vec<Vec<Value>>) {
        if self.backend == DbBackend::Postgres {
            self.arrays(alias, types, rows);
        } else {
            self.values(alias, types.len(), rows);
        }
    }

    fn values(&mut self, alias: &str, columns: usize, rows: Vec<Vec<Value>>) {
        let names: Vec<_> = (0..columns).map(|at| format!("column{} AS c{at}", at + 1)).collect();
        self.push(&format!("(SELECT {} FROM (VALUES ", names.join(", ")));
        for (number, row) in rows.into_iter().enumerate() {
            self.push(if number == 0 { "(" } else { ", (" });
            for (at, value) in row.into_iter().enumerate() {
                self.push(if at == 0 { "" } else { ", " });
                self.bind(value);
            }
            self.push(")");
        }
        self.push(&format!(")) AS {alias}"));
    }

    fn arrays(&mut self, alias: &str, types: &[Type], rows: Vec<Vec<Value>>) {
        let mut columns: Vec<Vec<Value>> = types.iter().map(|_| Vec::with_capacity(rows.len())).collect();
        for row in rows {
            for (column, value) in columns.iter_mut().zip(row) {
                column.push(value);
            }
        }
        self.push("UNNEST(");
        for (index, (column, of)) in columns.into_iter().zip(types).enumerate() {
            self.push(if index == 0 { "CAST(" } else { ", CAST(" });
            self.bind(of.array(column));
            self.push(" AS ");
            self.push(of.name());
            self.push(")");
        }
        let names: Vec<_> = (0..types.len()).map(|at| format!("c{at}")).collect();
        self.push(&format!(") AS {alias}({})", names.join(", ")));
    }

    pub(super) fn statement(self) -> Statement {
        Statement::from_sql_and_values(self.backend, self.text, self.values)
    }
}

/// One change of many rows. Rows are the values of `sets`, then those of `keys`, which a row must have.
pub(super) struct Batch<'a> {
    pub(super) table: &'static str,
    pub(super) sets: &'a [(Column, Set)],
    /// What else is set, to the same in each row: in SQL.
    pub(super) also: &'a str,
    pub(super) keys: &'a [Column],
    /// Leaves rows alone of which this does not hold: in SQL.
    pub(super) only: &'a str,
    /// Leaves rows alone whose first column is set already.
    pub(super) only_others: bool,
    /// Rows are locked in the order of their keys, so that of two who change the same rows neither waits for the other.
    pub(super) ordered: bool,
}

impl<'a> Batch<'a> {
    pub(super) const fn new(table: &'static str, sets: &'a [(Column, Set)], keys: &'a [Column]) -> Self {
        Self { table, sets, also: "", keys, only: "", only_others: false, ordered: false }
    }

    /// Returns how many rows matched.
    pub(super) async fn update(&self, tx: &Tx, rows: Vec<Vec<Value>>) -> Result<u64> {
        let backend = tx.conn.get_database_backend();
        let mut updated = 0;
        if backend != DbBackend::MySql {
            let mut rows = rows.into_iter();
            loop {
                let piece: Vec<_> = rows.by_ref().take(ROWS).collect();
                if piece.is_empty() {
                    return Ok(updated);
                }
                let statement = self.many(backend, piece).statement();
                updated += tx.check(tx.conn.execute_raw(statement).await)?.rows_affected();
            }
        }
        for row in rows {
            let statement = self.one(backend, row).statement();
            updated += tx.check(tx.conn.execute_raw(statement).await)?.rows_affected();
        }
        Ok(updated)
    }

    fn one(&self, backend: DbBackend, row: Vec<Value>) -> Sql {
        let mut sql = Sql::new(backend, format!("UPDATE {} SET ", self.table));
        let first = row.first().cloned();
        let mut row = row.into_iter();
        sql.push(self.also);
        for (index, (((column, _), set), value)) in self.sets.iter().zip(row.by_ref()).enumerate() {
            sql.push(if index == 0 && self.also.is_empty() { "" } else { ", " });
            sql.push(&match set {
                Set::To => format!("{column} = "),
                Set::Plus => format!("{column} = {column} + "),
            });
            sql.bind(value);
        }
        for (index, ((column, _), value)) in self.keys.iter().zip(row).enumerate() {
            sql.push(if index == 0 { " WHERE " } else { " AND " });
            sql.push(&format!("{column} = "));
            sql.bind(value);
        }
        if let (true, Some(first), Some(((column, _), _))) = (self.only_others, first, self.sets.first()) {
            sql.push(&format!(" AND ({column} IS NULL OR {column} <> "));
            sql.bind(first);
            sql.push(")");
        }
        self.push_only(&mut sql);
        sql
    }

    fn push_only(&self, sql: &mut Sql) {
        if !self.only.is_empty() {
            sql.push(" AND ");
            sql.push(self.only);
        }
    }

    fn many(&self, backend: DbBackend, rows: Vec<Vec<Value>>) -> Sql {
        let types: Vec<_> =
            self.sets.iter().map(|((_, of), _)| *of).chain(self.keys.iter().map(|(_, of)| *of)).collect();
        let mut sql = Sql::new(backend, format!("UPDATE {} AS t SET ", self.table));
        let set = |(at, ((column, _), set)): (usize, &(Column, Set))| match set {
            Set::To => format!("{column} = v.c{at}"),
            Set::Plus => format!("{column} = t.{column} + v.c{at}"),
        };
        let sets = self.sets.iter().enumerate().map(set);
        let also = (!self.also.is_empty()).then(|| self.also.to_owned());
        sql.push(&also.into_iter().chain(sets).collect::<Vec<_>>().join(", "));
        sql.push(" FROM ");
        let equals = |table: &str| {
            let keys = self.keys.iter().enumerate();
            let keys =
                keys.map(|(at, (column, _))| format!("{table}.{column} = v.c{}", at + self.sets.len()));
            keys.collect::<Vec<_>>().join(" AND ")
        };
        // SQLite has one who changes anything at a time, and no locks of rows.
        if self.ordered && backend == DbBackend::Postgres {
            sql.push("(SELECT v.* FROM ");
            sql.rows("v", &types, rows);
            let order: Vec<_> = self.keys.iter().map(|(column, _)| format!("l.{column}")).collect();
            let (table, order) = (self.table, order.join(", "));
            sql.push(&format!(
                " JOIN {table} AS l ON {} ORDER BY {order} FOR NO KEY UPDATE OF l) AS v",
                equals("l")
            ));
        } else {
            sql.rows("v", &types, rows);
        }
        sql.push(" WHERE ");
        sql.push(&equals("t"));
        if let (true, Some(((column, _), _))) = (self.only_others, self.sets.first()) {
            sql.push(&format!(" AND t.{column} IS DISTINCT FROM v.c0"));
        }
        self.push_only(&mut sql);
        sql
    }
}
