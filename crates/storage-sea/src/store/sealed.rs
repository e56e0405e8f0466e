//! Where ciphertexts are kept, once for all: reading, counting and replacing them goes by this list.

use std::collections::BTreeMap;
use std::fmt::Write;

use sea_orm::{ConnectionTrait, DbBackend, DbErr, QueryResult, Statement, Value};
use tokenward_storage::{Result, SealedColumn, SealedField, SealedSwap, StorageErrorKind};
use tokenward_types::Sealed;

use crate::session::{Session, Tx};

/// The scope of what belongs to no tenant.
const INSTALLATION: &str = "_installation";
/// How many scopes one statement names.
const SCOPES: usize = 500;
/// How many rows one statement changes.
const ROWS: usize = 500;

/// A column of ciphertexts, and the columns that name a row.
struct Place {
    table: &'static str,
    column: &'static str,
    /// Belongs to a tenant, and not to the installation.
    is_tenants: bool,
    record: &'static str,
    /// The record is a hash.
    is_hash: bool,
    number: Option<&'static str>,
    fence: Option<&'static str>,
}

const fn tenants(table: &'static str, column: &'static str, record: &'static str) -> Place {
    Place { table, column, is_tenants: true, record, is_hash: false, number: None, fence: None }
}

const fn place(column: SealedColumn) -> Place {
    let token = "refresh_token";
    match column {
        SealedColumn::ConnectionAccessToken => {
            Place { fence: Some("grant_fence"), ..tenants("connections", "access_token", "id") }
        }
        SealedColumn::ConnectionRefreshToken => {
            Place { fence: Some("grant_fence"), ..tenants("connections", token, "id") }
        }
        SealedColumn::AttemptRefreshToken => Place {
            number: Some("fence"),
            fence: Some("token_fence"),
            ..tenants("attempts", token, "connection_id")
        },
        SealedColumn::SpareRefreshToken => Place {
            number: Some("token_fence"),
            fence: Some("token_fence"),
            ..tenants("spares", token, "connection_id")
        },
        SealedColumn::RevocationRefreshToken => Place {
            number: Some("grant_fence"),
            fence: Some("grant_fence"),
            ..tenants("revocations", token, "connection_id")
        },
        SealedColumn::PendingAccessToken => tenants("pending_grants", "access_token", "id"),
        SealedColumn::PendingRefreshToken => tenants("pending_grants", token, "id"),
        SealedColumn::PkceVerifier => {
            Place { is_hash: true, ..tenants("connect_attempts", "pkce_verifier", "state_hash") }
        }
        SealedColumn::ClientSecret => Place {
            is_tenants: false,
            number: Some("secret_version"),
            ..tenants("client_secrets", "sealed", "oauth_client_id")
        },
        SealedColumn::IssuerKey => Place { is_tenants: false, ..tenants("issuer_keys", "sealed", "kid") },
    }
}

impl Place {
    fn scope(&self) -> String {
        if self.is_tenants { "tenant_id".to_owned() } else { format!("'{INSTALLATION}'") }
    }

    /// No ciphertext is that short; a retired secret has none.
    fn is_there(&self) -> String {
        format!("{column} IS NOT NULL AND length({column}) > 4", column = self.column)
    }
}

/// A statement with its values.
struct Sql {
    backend: DbBackend,
    text: String,
    values: Vec<Value>,
}

impl Sql {
    fn new(backend: DbBackend, text: String) -> Self {
        Self { backend, text, values: Vec::new() }
    }

    fn push(&mut self, text: &str) {
        self.text.push_str(text);
    }

    fn bind(&mut self, value: Value) {
        self.values.push(value);
        let number = self.values.len();
        match self.backend {
            // A text takes every write.
            DbBackend::Postgres => write!(self.text, "${number}").unwrap_or_default(),
            _ => self.text.push('?'),
        }
    }

    fn bind_all(&mut self, values: impl IntoIterator<Item = Value>) {
        for (index, value) in values.into_iter().enumerate() {
            if index > 0 {
                self.push(", ");
            }
            self.bind(value);
        }
    }

    fn statement(self) -> Statement {
        Statement::from_sql_and_values(self.backend, self.text, self.values)
    }
}

/// Runs a query over one column for all of the scopes that have it, in pieces; without scopes for all there are.
async fn each_piece<C: ConnectionTrait>(
    db: &Session<C>,
    place: &Place,
    scopes: &[String],
    (select, rest): (&str, &str),
    mut take: impl FnMut(&QueryResult) -> Result<(), DbErr>,
) -> Result<()> {
    let backend = db.conn.get_database_backend();
    let base = format!("{select} FROM {} WHERE {}", place.table, place.is_there());
    let pieces: Vec<&[String]> = match (scopes.is_empty(), place.is_tenants) {
        (true, _) => vec![&[]],
        (false, true) => scopes.chunks(SCOPES).collect(),
        (false, false) if scopes.iter().any(|scope| scope == INSTALLATION) => vec![&[]],
        (false, false) => return Ok(()),
    };
    for piece in pieces {
        let mut sql = Sql::new(backend, base.clone());
        if !piece.is_empty() {
            sql.push(" AND tenant_id IN (");
            sql.bind_all(piece.iter().map(|scope| scope.clone().into()));
            sql.push(")");
        }
        sql.push(rest);
        for row in db.check(db.conn.query_all_raw(sql.statement()).await)? {
            db.check(take(&row))?;
        }
    }
    Ok(())
}

/// How many fields each data key has sealed.
pub(super) async fn count<C: ConnectionTrait>(
    db: &Session<C>,
    scopes: &[String],
) -> Result<Vec<(String, i32, u64)>> {
    let mut counts: BTreeMap<(String, i32), u64> = BTreeMap::new();
    for column in SealedColumn::ALL {
        let place = place(column);
        let group = if place.is_tenants { "tenant_id, " } else { "" };
        let header = format!("substr({}, 2, 4)", place.column);
        let select = format!("SELECT {} AS scope, {header} AS header, COUNT(*) AS fields", place.scope());
        let rest = format!(" GROUP BY {group}{header}");
        each_piece(db, &place, scopes, (&select, &rest), |row| {
            let header: Vec<u8> = row.try_get("", "header")?;
            if let Ok(id) = <[u8; 4]>::try_from(&*header) {
                let fields: i64 = row.try_get("", "fields")?;
                let key = (row.try_get("", "scope")?, i32::from_be_bytes(id));
                *counts.entry(key).or_default() += fields.unsigned_abs();
            }
            Ok(())
        })
        .await?;
    }
    Ok(counts.into_iter().map(|((scope, id), fields)| (scope, id, fields)).collect())
}

/// Every field of these scopes.
pub(super) async fn read<C: ConnectionTrait>(db: &Session<C>, scopes: &[String]) -> Result<Vec<SealedField>> {
    let mut fields = Vec::new();
    for column in SealedColumn::ALL {
        let place = place(column);
        let select = format!(
            "SELECT {} AS scope, {} AS record, {} AS number, {} AS fence, {} AS sealed",
            place.scope(),
            place.record,
            place.number.unwrap_or("0"),
            place.fence.unwrap_or("0"),
            place.column,
        );
        each_piece(db, &place, scopes, (&select, ""), |row| {
            fields.push(SealedField {
                column,
                scope: row.try_get("", "scope")?,
                record: if place.is_hash {
                    hex(&row.try_get::<Vec<u8>>("", "record")?)
                } else {
                    row.try_get("", "record")?
                },
                number: integer(row, "number")?,
                fence: place.fence.map(|_| integer(row, "fence")).transpose()?,
                sealed: Sealed::from(row.try_get::<Vec<u8>>("", "sealed")?),
            });
            Ok(())
        })
        .await?;
    }
    Ok(fields)
}

/// A number of whatever width the column has.
fn integer(row: &QueryResult, column: &str) -> Result<i64, DbErr> {
    row.try_get::<i64>("", column).or_else(|_| row.try_get::<i32>("", column).map(i64::from))
}

/// Replaces ciphertexts that are still those which were read.
pub(super) async fn swap(tx: &Tx, swaps: &[SealedSwap]) -> Result<u64> {
    let mut swapped = 0;
    for column in SealedColumn::ALL {
        let place = place(column);
        let mut rows = Vec::new();
        for swap in swaps.iter().filter(|swap| swap.former.column == column) {
            let former = &swap.former;
            let mut row: Vec<Value> = vec![swap.sealed.as_bytes().to_vec().into()];
            if place.is_tenants {
                row.push(former.scope.clone().into());
            }
            if place.is_hash {
                let hash = unhex(&former.record);
                let malformed = || tx.error(StorageErrorKind::Internal).detail("a record is no hash");
                row.push(hash.ok_or_else(malformed)?.into());
            } else {
                row.push(former.record.clone().into());
            }
            if place.number.is_some() {
                row.push(former.number.into());
            }
            if place.fence.is_some() && place.fence != place.number {
                row.push(former.fence.unwrap_or_default().into());
            }
            row.push(former.sealed.as_bytes().to_vec().into());
            rows.push(row);
        }
        let mut keys = Vec::new();
        if place.is_tenants {
            keys.push(("tenant_id", "text"));
        }
        keys.push((place.record, if place.is_hash { "bytea" } else { "text" }));
        keys.extend(place.number.map(|number| (number, "bigint")));
        keys.extend(place.fence.filter(|fence| Some(*fence) != place.number).map(|fence| (fence, "bigint")));
        keys.push((place.column, "bytea"));
        let batch = Batch { table: place.table, sets: &[(place.column, "bytea")], keys: &keys };
        swapped += batch.update(tx, rows).await?;
    }
    Ok(swapped)
}

/// One change of many rows, each by its key: columns with their types in PostgreSQL.
pub(super) struct Batch<'a> {
    pub(super) table: &'static str,
    pub(super) sets: &'a [(&'static str, &'static str)],
    pub(super) keys: &'a [(&'static str, &'static str)],
}

impl Batch<'_> {
    /// Rows are the values that are set, then those that a row must have. Returns how many rows matched.
    pub(super) async fn update(&self, tx: &Tx, rows: Vec<Vec<Value>>) -> Result<u64> {
        let backend = tx.conn.get_database_backend();
        let mut updated = 0;
        if backend == DbBackend::Postgres {
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
            updated +=
                tx.check(tx.conn.execute_raw(self.one(backend, row).statement()).await)?.rows_affected();
        }
        Ok(updated)
    }

    fn one(&self, backend: DbBackend, row: Vec<Value>) -> Sql {
        let mut sql = Sql::new(backend, format!("UPDATE {} SET ", self.table));
        for (index, ((column, _), value)) in self.sets.iter().chain(self.keys).zip(row).enumerate() {
            if index == self.sets.len() {
                sql.push(" WHERE ");
            } else if index > self.sets.len() {
                sql.push(" AND ");
            } else if index > 0 {
                sql.push(", ");
            }
            sql.push(column);
            sql.push(" = ");
            sql.bind(value);
        }
        sql
    }

    /// One statement, because a round trip for each row would take most of the time.
    fn many(&self, backend: DbBackend, rows: Vec<Vec<Value>>) -> Sql {
        let mut sql = Sql::new(backend, format!("UPDATE {} AS t SET ", self.table));
        let sets: Vec<_> = (0..self.sets.len()).map(|at| format!("{} = v.c{at}", self.sets[at].0)).collect();
        sql.push(&sets.join(", "));
        sql.push(" FROM (VALUES ");
        for (index, row) in rows.into_iter().enumerate() {
            sql.push(if index == 0 { "(" } else { ", (" });
            for (at, (value, (_, cast))) in row.into_iter().zip(self.sets.iter().chain(self.keys)).enumerate()
            {
                sql.push(if at == 0 { "CAST(" } else { ", CAST(" });
                sql.bind(value);
                sql.push(" AS ");
                sql.push(cast);
                sql.push(")");
            }
            sql.push(")");
        }
        let columns: Vec<_> = (0..self.sets.len() + self.keys.len()).map(|at| format!("c{at}")).collect();
        sql.push(&format!(") AS v({}) WHERE ", columns.join(", ")));
        let keys = self.keys.iter().enumerate();
        let keys: Vec<_> =
            keys.map(|(at, (column, _))| format!("t.{column} = v.c{}", at + self.sets.len())).collect();
        sql.push(&keys.join(" AND "));
        sql
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // A text takes every write.
        write!(text, "{byte:02x}").unwrap_or_default();
        text
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that are no ciphertexts: hashes, public keys, and keys that a backend wrapped.
    const OTHERS: [&str; 6] = [
        "data_keys.wrapped",
        "kek_checks.wrapped",
        "connect_links.secret_hash",
        "connect_attempts.state_hash",
        "connect_attempts.cookie_hash",
        "issuer_keys.public_key",
    ];

    #[test]
    fn every_column_of_bytes_is_in_the_list_or_is_no_ciphertext() {
        let mut found = Vec::new();
        let mut table = "";
        for line in include_str!("../entity.rs").lines() {
            if let Some(rest) = line.strip_prefix("entity!(") {
                table = rest.split(',').next().expect("a module");
            } else if line.contains("Vec<u8>") {
                found.push(format!("{table}.{}", line.trim().split(':').next().expect("a column")));
            }
        }
        let sealed = SealedColumn::ALL.map(place).map(|place| format!("{}.{}", place.table, place.column));
        let mut known: Vec<String> = sealed.into_iter().chain(OTHERS.map(str::to_owned)).collect();
        found.sort();
        known.sort();
        assert_eq!(found, known, "a new column of ciphertexts must come into SealedColumn");
    }

    #[test]
    fn hexadecimal_goes_there_and_back() {
        assert_eq!(hex(&[0, 0x0f, 0xff]), "000fff");
        assert_eq!(unhex("000fff"), Some(vec![0, 0x0f, 0xff]));
        assert_eq!(unhex("0g"), None);
    }
}
