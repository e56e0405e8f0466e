//! The change log. A reader must not skip a change whose transaction began early and ends late. PostgreSQL tells which
//! transactions a reading saw, so a reading brings those that the one before did not see. Elsewhere a counter is bumped last in a
//! transaction, and its row stays locked until the commit: its values follow the order of commits.

use std::time::Duration;

use async_trait::async_trait;
use sea_orm::sea_query::{Expr, Query};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbBackend, EntityTrait, ExprTrait, FromQueryResult, QueryFilter,
    QueryOrder, QueryResult, QuerySelect, QueryTrait, Statement,
};
use tokenward_storage::{
    Change, ChangeCursor, ChangeStore, Changes, ConnectionMark, MAX_CHANGES, Page, PageRequest, Result,
    StorageErrorKind,
};

use super::SeaStorage;
use crate::convert::Row;
use crate::dialect::{self, micros};
use crate::entity::connections::{self, Column};
use crate::entity::{change_log, changes};
use crate::error::Inconsistent;
use crate::session::{Tx, cursor, cut, page_size};

/// Where the single row of the log is.
const SLOT: i32 = 1;

/// What a change is about as columns: its kind, and up to two identifiers.
fn columns(change: &Change) -> (&'static str, &str, &str) {
    match change {
        Change::Tenant(tenant) => ("tenant", tenant.as_str(), ""),
        Change::Connection(tenant, connection) => ("connection", tenant.as_str(), connection.as_str()),
        Change::OAuthClient(client) => ("oauth_client", client.as_str(), ""),
        Change::AccessRules => ("access_rules", "", ""),
        Change::Principals => ("principals", "", ""),
        Change::IssuerKeys => ("issuer_keys", "", ""),
        Change::Keys => ("keys", "", ""),
        Change::DataKeys(first, last) => ("data_keys", first, last),
    }
}

/// A row of the log as it was read.
#[derive(FromQueryResult)]
struct Logged {
    kind: String,
    subject: String,
    part: String,
}

impl TryFrom<Logged> for Change {
    type Error = Inconsistent;

    fn try_from(row: Logged) -> Result<Self, Inconsistent> {
        let place = Row { table: "changes", key: &[&row.subject, &row.part] };
        match &*row.kind {
            "tenant" => Ok(Self::Tenant(place.parse("subject", &row.subject)?)),
            "connection" => {
                Ok(Self::Connection(place.parse("subject", &row.subject)?, place.parse("part", &row.part)?))
            }
            "oauth_client" => Ok(Self::OAuthClient(place.parse("subject", &row.subject)?)),
            "access_rules" => Ok(Self::AccessRules),
            "principals" => Ok(Self::Principals),
            "issuer_keys" => Ok(Self::IssuerKeys),
            "keys" => Ok(Self::Keys),
            "data_keys" => Ok(Self::DataKeys(row.subject, row.part)),
            _ => Err(place.wrong("kind")),
        }
    }
}

/// The columns of [`ConnectionMark`].
#[derive(FromQueryResult)]
struct Mark {
    tenant_id: String,
    id: String,
    state: String,
    consent_epoch: i64,
}

impl TryFrom<Mark> for ConnectionMark {
    type Error = Inconsistent;

    fn try_from(row: Mark) -> Result<Self, Inconsistent> {
        let place = Row { table: "connections", key: &[&row.tenant_id, &row.id] };
        Ok(Self {
            tenant: place.parse("tenant_id", &row.tenant_id)?,
            connection: place.parse("id", &row.id)?,
            state: place.word("state", &row.state)?,
            consent_epoch: row.consent_epoch,
        })
    }
}

impl Tx {
    /// Logs a change. Comes last in a transaction: where a counter gives the order, others that log wait from here on until
    /// the commit, and no lock may follow.
    pub(super) async fn log(&self, change: &Change) -> Result<()> {
        let (kind, subject, part) = columns(change);
        let backend = self.conn.get_database_backend();
        let now = dialect::now_micros(backend);
        let mut insert = Query::insert();
        insert.into_table(changes::Entity);
        if backend == DbBackend::Postgres {
            use changes::Column as Of;
            let transaction = Expr::cust("CAST(CAST(pg_current_xact_id() AS text) AS bigint)");
            insert.columns([Of::Position, Of::Kind, Of::Subject, Of::Part, Of::LoggedAt]).values_panic([
                transaction,
                kind.into(),
                subject.into(),
                part.into(),
                now,
            ]);
        } else {
            use changes::Column as Of;
            let bump = change_log::Entity::update_many()
                .col_expr(change_log::Column::Counter, Expr::col(change_log::Column::Counter).add(1_i64))
                .filter(change_log::Column::Slot.eq(SLOT));
            if self.update(bump).await? != 1 {
                return Err(self.error(StorageErrorKind::Inconsistent).detail("change_log has lost its row"));
            }
            let counter = || Expr::col(change_log::Column::Counter);
            let row = Query::select()
                .exprs([counter(), counter(), kind.into(), subject.into(), part.into(), now])
                .from(change_log::Entity)
                .and_where(change_log::Column::Slot.eq(SLOT))
                .to_owned();
            let insert =
                insert.columns([Of::Id, Of::Position, Of::Kind, Of::Subject, Of::Part, Of::LoggedAt]);
            if insert.select_from(row).is_err() {
                return Err(self.error(StorageErrorKind::Internal).detail("columns and values differ"));
            }
        }
        self.execute(&insert).await.map(drop)
    }
}

/// The log after a snapshot, in one statement: only what one statement sees is one state of the database. A transaction that is
/// newer than the statement's own snapshot comes from a copy of another server's database, and is none of this one's.
const AFTER_SNAPSHOT: &str = "\
    WITH seen AS (SELECT CAST($1 AS text)::pg_snapshot AS snapshot) \
    SELECT pg_current_snapshot()::text AS next_cursor, \
      (l.pruned_position >= pg_snapshot_xmin(seen.snapshot)::text::bigint \
        AND l.pruned_position < pg_snapshot_xmax(pg_current_snapshot())::text::bigint \
        OR pg_snapshot_xmax(seen.snapshot) > pg_snapshot_xmax(pg_current_snapshot())) AS lost, \
      c.kind, c.subject, c.part \
    FROM change_log AS l CROSS JOIN seen LEFT JOIN changes AS c \
      ON c.position >= (SELECT pg_snapshot_xmin(snapshot)::text::bigint FROM seen) \
      AND NOT pg_visible_in_snapshot(c.position::text::xid8, seen.snapshot) \
      AND pg_visible_in_snapshot(c.position::text::xid8, pg_current_snapshot()) \
    WHERE l.slot = 1 ORDER BY c.position, c.id LIMIT $2";

/// The log after a value of the counter.
const AFTER_COUNTER: &str = "\
    SELECT l.counter AS next_cursor, l.pruned_position, c.kind, c.subject, c.part \
    FROM change_log AS l LEFT JOIN changes AS c ON c.id > ? \
    WHERE l.slot = 1 ORDER BY c.id LIMIT ?";

/// The end of the log in a database of this kind.
fn end_of_log(backend: DbBackend) -> &'static str {
    match backend {
        DbBackend::Postgres => "SELECT pg_current_snapshot()::text AS next_cursor",
        _ => "SELECT counter AS next_cursor FROM change_log WHERE slot = 1",
    }
}

impl SeaStorage {
    /// A cursor from the column `next`.
    fn next_cursor(backend: DbBackend, row: &QueryResult) -> Result<ChangeCursor, sea_orm::DbErr> {
        Ok(match backend {
            DbBackend::Postgres => ChangeCursor::new(row.try_get::<String>("", "next_cursor")?),
            _ => ChangeCursor::new(row.try_get::<i64>("", "next_cursor")?.to_string()),
        })
    }
}

#[async_trait]
impl ChangeStore for SeaStorage {
    #[tracing::instrument(name = "db.change.end", level = "debug", skip_all)]
    async fn end_of_changes(&self) -> Result<ChangeCursor> {
        let db = self.db.read("change.end");
        let backend = db.conn.get_database_backend();
        let statement = Statement::from_string(backend, end_of_log(backend));
        let row = db.check(db.conn.query_one_raw(statement).await)?;
        let row = row
            .ok_or_else(|| db.error(StorageErrorKind::Inconsistent).detail("change_log has lost its row"))?;
        db.check(Self::next_cursor(backend, &row))
    }

    #[tracing::instrument(name = "db.change.read", level = "debug", skip_all)]
    async fn read_changes(&self, after: &ChangeCursor) -> Result<Changes> {
        let db = self.db.read("change.read");
        let backend = db.conn.get_database_backend();
        let limit = i64::try_from(MAX_CHANGES + 1).unwrap_or(i64::MAX);
        let counted = after.as_str().parse::<i64>().unwrap_or(i64::MAX);
        let statement = match backend {
            DbBackend::Postgres => {
                Statement::from_sql_and_values(backend, AFTER_SNAPSHOT, [after.as_str().into(), limit.into()])
            }
            _ => Statement::from_sql_and_values(backend, AFTER_COUNTER, [counted.into(), limit.into()]),
        };
        let rows = db.check(db.conn.query_all_raw(statement).await)?;
        let Some(first) = rows.first() else {
            return Err(db.error(StorageErrorKind::Inconsistent).detail("change_log has lost its row"));
        };
        let next = db.check(Self::next_cursor(backend, first))?;
        let is_lost = if backend == DbBackend::Postgres {
            db.check(first.try_get("", "lost"))?
        } else {
            let counter: i64 = db.check(first.try_get("", "next_cursor"))?;
            let pruned: i64 = db.check(first.try_get("", "pruned_position"))?;
            // A cursor from the future is one of a database that was replaced by a backup.
            pruned > counted || counter < counted
        };
        if is_lost || rows.len() > MAX_CHANGES {
            return Ok(Changes { since: None, next });
        }
        let mut since = Vec::new();
        for row in &rows {
            // Without changes there is one row, of the log alone.
            if db.check(row.try_get::<Option<String>>("", "kind"))?.is_some() {
                since.push(db.convert(db.check(Logged::from_query_result(row, ""))?)?);
            }
        }
        Ok(Changes { since: Some(since), next })
    }

    #[tracing::instrument(name = "db.change.prune", level = "debug", skip_all)]
    async fn prune_changes(&self, keep: Duration) -> Result<u64> {
        use changes::Column as Of;
        let db = self.db.read("change.prune");
        let backend = db.conn.get_database_backend();
        let is_old = || Expr::col(Of::LoggedAt).lt(dialect::now_micros(backend).sub(micros(keep)));
        let mut old = changes::Entity::find().filter(is_old());
        if backend == DbBackend::Postgres {
            // A transaction that is older than an open one may be news to a reader that has read newer ones.
            let settled = Expr::cust("CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text) AS bigint)");
            old = old.filter(Expr::col(Of::Position).lt(settled));
        }
        let newest = old.order_by_desc(Of::Position).limit(1);
        let Some(newest) = db.check(newest.one(&db.conn).await)? else { return Ok(0) };
        let tx = self.db.begin("change.prune").await?;
        let mark = change_log::Entity::update_many()
            .col_expr(change_log::Column::PrunedPosition, Expr::value(newest.position))
            .filter(change_log::Column::Slot.eq(SLOT))
            .filter(change_log::Column::PrunedPosition.lt(newest.position));
        tx.update(mark).await?;
        let old = changes::Entity::delete_many().filter(Of::Position.lte(newest.position)).filter(is_old());
        let pruned = tx.delete(old).await?;
        tx.commit().await?;
        Ok(pruned)
    }

    #[tracing::instrument(name = "db.connection.list_marks", level = "debug", skip_all)]
    async fn list_connection_marks(&self, page: &PageRequest) -> Result<Page<ConnectionMark>> {
        let db = self.db.read("connection.list_marks");
        let size = page_size(page);
        let select = connections::Entity::find()
            .select_only()
            .columns([Column::TenantId, Column::Id, Column::State, Column::ConsentEpoch])
            .apply_if(cursor(page), |select, after| {
                // Tenant identifiers have no slash.
                let (tenant, id) = after.split_once('/').unwrap_or((after, ""));
                let row = Expr::tuple([Expr::col(Column::TenantId), Expr::col(Column::Id)]);
                select.filter(row.gt(Expr::tuple([Expr::value(tenant), Expr::value(id)])))
            })
            .order_by_asc(Column::TenantId)
            .order_by_asc(Column::Id)
            .limit(size + 1)
            .into_model::<Mark>();
        let found = db.check(select.all(&db.conn).await)?;
        let page = cut(found, size, |mark: &Mark| format!("{}/{}", mark.tenant_id, mark.id));
        // A row that no version of this program wrote is reported where connections are listed.
        let items = page.items.into_iter().filter_map(|mark| db.convert(mark).ok()).collect();
        Ok(Page { items, next: page.next })
    }
}
