//! Where ciphertexts are kept, once for all: reading, counting and replacing them goes by this list.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use sea_orm::{ConnectionTrait, DbBackend, DbErr, QueryResult, Value};
use tokenward_storage::{Result, SealedColumn, SealedField, SealedSwap, StorageErrorKind};
use tokenward_types::Sealed;

use super::batch::{Batch, Column, Set, Sql, Type};
use crate::dialect;
use crate::session::{Session, Tx};

/// The scope of what belongs to no tenant.
const INSTALLATION: &str = "_installation";
/// How many scopes one statement names.
const SCOPES: usize = 500;
/// How many scopes that are not asked for a range may have.
const STRANGERS: usize = 50;
/// The ciphertexts of a row that is read: no table has more columns of them.
const CIPHERTEXTS: [&str; 2] = ["sealed0", "sealed1"];
/// What is shorter names no data key, and is no ciphertext.
const MIN_LENGTH: usize = 5;

/// A column of ciphertexts, and the columns that name a row.
#[derive(Clone, Copy)]
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

    /// A retired secret has none.
    fn is_there(&self) -> String {
        format!("{column} IS NOT NULL AND length({column}) >= {MIN_LENGTH}", column = self.column)
    }

    /// The number of the data key, as the bytes that a ciphertext has of it.
    fn header(&self) -> String {
        format!("substr({}, 2, 4)", self.column)
    }

    /// What names a row, and the fence that its ciphertexts are bound to.
    fn keys(&self) -> Vec<Column> {
        let tenant = self.is_tenants.then_some(("tenant_id", Type::Text));
        let record = (self.record, if self.is_hash { Type::Bytes } else { Type::Text });
        let number = self.number.map(|number| (number, Type::Big));
        let fence = self.fence.filter(|fence| Some(*fence) != self.number).map(|fence| (fence, Type::Big));
        tenant.into_iter().chain([record]).chain(number).chain(fence).collect()
    }
}

/// The columns of [`SealedColumn::ALL`], one slice for each table.
fn tables() -> impl Iterator<Item = (Place, &'static [SealedColumn])> {
    const ALL: &[SealedColumn] = &SealedColumn::ALL;
    let tables = ALL.chunk_by(|one, next| place(*one).table == place(*next).table);
    tables.filter_map(|columns| columns.first().map(|first| (place(*first), columns)))
}

/// Which scopes a query is about.
#[derive(Clone, Copy)]
enum About<'a> {
    All,
    These(&'a [String]),
    /// Tenants from one to another, and whether the installation's own.
    Range(&'a str, &'a str, bool),
}

impl<'a> From<Option<&'a [String]>> for About<'a> {
    fn from(scopes: Option<&'a [String]>) -> Self {
        scopes.map_or(Self::All, Self::These)
    }
}

impl About<'_> {
    fn has(self, place: &Place) -> bool {
        match self {
            Self::All => true,
            Self::These(scopes) => place.is_tenants || scopes.iter().any(|scope| scope == INSTALLATION),
            Self::Range(.., installation) => place.is_tenants || installation,
        }
    }

    fn push(self, sql: &mut Sql) {
        match self {
            Self::All => {}
            Self::These(scopes) => {
                sql.push(" AND ");
                sql.among("tenant_id", scopes);
            }
            Self::Range(first, last, _) => {
                sql.push(" AND tenant_id BETWEEN ");
                sql.bind(first.into());
                sql.push(" AND ");
                sql.bind(last.into());
            }
        }
    }
}

/// A query over one table: all up to its conditions, and what follows them.
struct Part {
    place: Place,
    select: String,
    rest: String,
}

/// Runs queries over several tables as one, for some scopes, in pieces, or for all there are: a round trip for each would take
/// most of the time, and each time that a connection comes back to its pool is another one.
async fn each<C: ConnectionTrait>(
    db: &Session<C>,
    about: About<'_>,
    parts: &[Part],
    mut take: impl FnMut(&QueryResult) -> Result<(), DbErr>,
) -> Result<()> {
    let pieces: Vec<About<'_>> = match about {
        About::These(scopes) => scopes.chunks(SCOPES).map(About::These).collect(),
        about => vec![about],
    };
    for piece in pieces {
        let mut sql = Sql::new(db.conn.get_database_backend(), String::new());
        for (index, part) in parts.iter().filter(|part| piece.has(&part.place)).enumerate() {
            sql.push(if index == 0 { "" } else { " UNION ALL " });
            sql.push(&part.select);
            if part.place.is_tenants {
                piece.push(&mut sql);
            }
            sql.push(&part.rest);
        }
        for row in db.check(db.conn.query_all_raw(sql.statement()).await)? {
            db.check(take(&row))?;
        }
    }
    Ok(())
}

/// The first and the last tenant of these scopes where hardly any others are between them, as while a job goes through all.
/// Each table costs SQLite some work for each name that a statement lists, and a range spares it that. Others know lists that
/// cost less, and may order names otherwise than by their bytes.
async fn range<'a, C: ConnectionTrait>(db: &Session<C>, scopes: &'a [String]) -> Result<Option<About<'a>>> {
    let backend = db.conn.get_database_backend();
    let tenants = || scopes.iter().map(String::as_str).filter(|scope| *scope != INSTALLATION);
    let (Some(first), Some(last)) = (tenants().min(), tenants().max()) else { return Ok(None) };
    if backend != DbBackend::Sqlite {
        return Ok(None);
    }
    let installation = scopes.iter().any(|scope| scope == INSTALLATION);
    let most = scopes.len() + STRANGERS;
    let text = "SELECT COUNT(*) AS keys FROM (SELECT 1 FROM data_keys WHERE active = TRUE AND scope BETWEEN ";
    let mut sql = Sql::new(backend, text.to_owned());
    sql.bind(first.into());
    sql.push(" AND ");
    sql.bind(last.into());
    sql.push(&format!(" LIMIT {})", most + 1));
    let counted = db.check(db.conn.query_one_raw(sql.statement()).await)?;
    let keys: Option<i64> = counted.map(|row| db.check(row.try_get("", "keys"))).transpose()?;
    let is_dense = keys.is_some_and(|keys| usize::try_from(keys).is_ok_and(|keys| keys <= most));
    Ok(is_dense.then_some(About::Range(first, last, installation)))
}

/// How many fields each data key has sealed, of some scopes or of all.
pub(super) async fn count<C: ConnectionTrait>(
    db: &Session<C>,
    scopes: Option<&[String]>,
) -> Result<Vec<(String, i32, u64)>> {
    let part = |column| {
        let place = place(column);
        let (scope, header, is_there) = (place.scope(), place.header(), place.is_there());
        let group = if place.is_tenants { "tenant_id, " } else { "" };
        Part {
            select: format!(
                "SELECT {scope} AS scope, {header} AS header, COUNT(*) AS fields FROM {} WHERE {is_there}",
                place.table
            ),
            rest: format!(" GROUP BY {group}{header}"),
            place,
        }
    };
    let mut counts: BTreeMap<(String, i32), u64> = BTreeMap::new();
    each(db, scopes.into(), &SealedColumn::ALL.map(part), |row| {
        let fields: i64 = row.try_get("", "fields")?;
        if let Some(key) = named(row)? {
            *counts.entry(key).or_default() += fields.unsigned_abs();
        }
        Ok(())
    })
    .await?;
    Ok(counts.into_iter().map(|((scope, id), fields)| (scope, id, fields)).collect())
}

/// The data keys other than the active ones that something is sealed under, of some scopes or of all.
pub(super) async fn former<C: ConnectionTrait>(
    db: &Session<C>,
    scopes: Option<&[String]>,
) -> Result<Vec<(String, i32)>> {
    let backend = db.conn.get_database_backend();
    let part = |column| {
        let place = place(column);
        let (scope, header) = (place.scope(), place.header());
        // Its own data keys have a column of this name as well.
        let qualified = if place.is_tenants { format!("{}.{scope}", place.table) } else { scope.clone() };
        let select = format!(
            "SELECT {scope} AS scope, {header} AS header FROM {} WHERE {} AND {} <> (SELECT {} FROM data_keys AS k WHERE \
             k.active = TRUE AND k.scope = {qualified})",
            place.table,
            place.is_there(),
            dialect::hex_of_bytes(backend, &header),
            dialect::hex_of_int(backend, "k.id"),
        );
        Part { place, select, rest: String::new() }
    };
    let mut keys = BTreeSet::new();
    each(db, scopes.into(), &SealedColumn::ALL.map(part), |row| {
        keys.extend(named(row)?);
        Ok(())
    })
    .await?;
    Ok(keys.into_iter().collect())
}

/// The data key that a row's `scope` and `header` name.
fn named(row: &QueryResult) -> Result<Option<(String, i32)>, DbErr> {
    let header: Vec<u8> = row.try_get("", "header")?;
    let Ok(id) = <[u8; 4]>::try_from(&*header) else { return Ok(None) };
    Ok(Some((row.try_get("", "scope")?, i32::from_be_bytes(id))))
}

/// Every field of these scopes.
pub(super) async fn read<C: ConnectionTrait>(db: &Session<C>, scopes: &[String]) -> Result<Vec<SealedField>> {
    let about = range(db, scopes).await?.unwrap_or(About::These(scopes));
    let backend = db.conn.get_database_backend();
    let tables: Vec<_> = tables().collect();
    let part = |(table, (place, columns)): (usize, &(Place, &[SealedColumn]))| {
        let columns: Vec<_> = columns.iter().map(|column| self::place(*column)).collect();
        let are_there: Vec<_> = columns.iter().map(Place::is_there).collect();
        let sealed = CIPHERTEXTS
            .iter()
            .enumerate()
            .map(|(at, name)| format!("{} AS {name}", columns.get(at).map_or("NULL", |place| place.column)));
        let record = if place.is_hash {
            format!("lower({})", dialect::hex_of_bytes(backend, place.record))
        } else {
            place.record.to_owned()
        };
        let select = format!(
            "SELECT {table} AS place, {} AS scope, {record} AS record, {} AS number, {} AS fence, {} FROM {} WHERE ({})",
            place.scope(),
            place.number.unwrap_or("0"),
            place.fence.unwrap_or("0"),
            sealed.collect::<Vec<_>>().join(", "),
            place.table,
            are_there.join(" OR "),
        );
        Part { place: *place, select, rest: String::new() }
    };
    let parts: Vec<_> = tables.iter().enumerate().map(part).collect();
    let wanted: HashSet<&str> = scopes.iter().map(String::as_str).collect();
    let mut fields = Vec::new();
    each(db, about, &parts, |row| {
        // By their places, as they are selected above: each name would be looked up in each row.
        let scope: String = row.try_get_by_index(1)?;
        let table = usize::try_from(integer(row, 0)?).ok().and_then(|table| tables.get(table));
        let Some((place, columns)) = table.filter(|_| wanted.contains(&*scope)) else { return Ok(()) };
        let (record, number): (String, i64) = (row.try_get_by_index(2)?, integer(row, 3)?);
        let fence = place.fence.map(|_| integer(row, 4)).transpose()?;
        for (column, at) in columns.iter().zip(5..) {
            let sealed: Option<Vec<u8>> = row.try_get_by_index(at)?;
            let Some(sealed) = sealed.filter(|sealed| sealed.len() >= MIN_LENGTH) else { continue };
            fields.push(SealedField {
                column: *column,
                scope: scope.clone(),
                record: record.clone(),
                number,
                fence,
                sealed: Sealed::from(sealed),
            });
        }
        Ok(())
    })
    .await?;
    Ok(fields)
}

/// A number of whatever width the column has.
fn integer(row: &QueryResult, column: usize) -> Result<i64, DbErr> {
    row.try_get_by_index::<i64>(column).or_else(|_| row.try_get_by_index::<i32>(column).map(i64::from))
}

/// What replaces the ciphertexts of one row.
type RowSwaps<'a> = Vec<&'a SealedSwap>;

/// Replaces ciphertexts that are still those which were read: a row's together, so that each row is written once.
pub(super) async fn swap<'a>(tx: &Tx, swaps: impl Iterator<Item = &'a SealedSwap>) -> Result<u64> {
    let mut rows: BTreeMap<_, RowSwaps<'_>> = BTreeMap::new();
    for swap in swaps {
        let former = &swap.former;
        let table = tables().position(|(_, columns)| columns.contains(&former.column));
        let row = (table, &*former.scope, &*former.record, former.number, former.fence);
        rows.entry(row).or_default().push(swap);
    }
    // Rows with the same columns, in the order of tables.
    let mut alike: BTreeMap<_, Vec<RowSwaps<'_>>> = BTreeMap::new();
    for ((table, ..), row) in rows {
        let columns: Vec<_> = row.iter().map(|swap| place(swap.former.column).column).collect();
        alike.entry((table, columns)).or_default().push(row);
    }
    let mut swapped = 0;
    for rows in alike.into_values() {
        let Some(columns) = rows.first().map(|row| row.iter().map(|swap| place(swap.former.column))) else {
            continue;
        };
        let columns: Vec<_> = columns.collect();
        let Some(first) = columns.first() else { continue };
        let ciphertexts: Vec<Column> = columns.iter().map(|place| (place.column, Type::Bytes)).collect();
        let sets: Vec<_> = ciphertexts.iter().map(|column| (*column, Set::To)).collect();
        let keys: Vec<_> = first.keys().into_iter().chain(ciphertexts).collect();
        let rows: Result<Vec<_>> = rows.iter().map(|row| values(tx, first, row)).collect();
        let batch = Batch { ordered: true, ..Batch::new(first.table, &sets, &keys) };
        let updated = batch.update(tx, rows?).await?;
        swapped += updated * u64::try_from(columns.len()).unwrap_or_default();
    }
    Ok(swapped)
}

/// A row of ciphertexts for [`Batch`]: what they become, the row's key, and what they are.
fn values(tx: &Tx, place: &Place, swaps: &[&SealedSwap]) -> Result<Vec<Value>> {
    let mut values: Vec<Value> = swaps.iter().map(|swap| swap.sealed.as_bytes().to_vec().into()).collect();
    if let Some(SealedSwap { former, .. }) = swaps.first() {
        if place.is_tenants {
            values.push(former.scope.clone().into());
        }
        if place.is_hash {
            let malformed = || tx.error(StorageErrorKind::Internal).detail("a record is no hash");
            values.push(unhex(&former.record).ok_or_else(malformed)?.into());
        } else {
            values.push(former.record.clone().into());
        }
        if place.number.is_some() {
            values.push(former.number.into());
        }
        if place.fence.is_some() && place.fence != place.number {
            values.push(former.fence.unwrap_or_default().into());
        }
    }
    values.extend(swaps.iter().map(|swap| Value::from(swap.former.sealed.as_bytes().to_vec())));
    Ok(values)
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
        assert!(
            tables().all(|(_, columns)| columns.len() <= CIPHERTEXTS.len()),
            "a row has more ciphertexts"
        );
        assert_eq!(found, known, "a new column of ciphertexts must come into SealedColumn");
    }

    #[test]
    fn hexadecimal_digits_are_bytes() {
        assert_eq!(unhex("000fff"), Some(vec![0, 0x0f, 0xff]));
        assert_eq!(unhex("0g"), None);
    }
}
