use std::cmp::{max, min};
use std::time::Duration;

use async_trait::async_trait;
use sea_orm::sea_query::{CaseStatement, Expr, SimpleExpr};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, EntityTrait, ExprTrait, FromQueryResult, QueryFilter,
    QueryOrder, QuerySelect, QueryTrait, Select, UpdateMany,
};
use tokenward_storage::{
    BeginPause, BudgetStore, CallPause, ReserveCalls, Reserved, Result, StorageErrorKind,
};
use tokenward_types::OAuthClientId;

use super::SeaStorage;
use crate::convert::{Row, Word};
use crate::dialect::{self, micros, remaining};
use crate::entity::call_budgets::{self, Column};
use crate::error::Inconsistent;
use crate::session::{Session, Tx};

/// A client's row, and what the database's clock said when it was read.
struct BudgetRow {
    model: call_budgets::Model,
    db_now: i64,
}

impl TryFrom<BudgetRow> for Option<CallPause> {
    type Error = Inconsistent;

    fn try_from(BudgetRow { model: row, db_now }: BudgetRow) -> Result<Self, Inconsistent> {
        let place = Row { table: "call_budgets", key: &[&row.oauth_client_id] };
        let Some(cause) = &row.pause_cause else { return Ok(None) };
        Ok(Some(CallPause {
            oauth_client: place.parse("oauth_client_id", &row.oauth_client_id)?,
            cause: place.word("pause_cause", cause)?,
            number: row.pause_number,
            remaining: remaining(row.pause_until.unwrap_or_default(), db_now),
            refusals: u32::try_from(row.pause_refusals).map_err(|_| place.wrong("pause_refusals"))?,
        }))
    }
}

fn is(client: &OAuthClientId) -> Condition {
    Condition::all().add(Column::OauthClientId.eq(client.as_str()))
}

fn is_pause(client: &OAuthClientId, number: i64) -> Condition {
    is(client).add(Column::PauseNumber.eq(number)).add(Column::PauseCause.is_not_null())
}

/// The later of a column's time and another.
fn later(column: Column, other: SimpleExpr) -> SimpleExpr {
    CaseStatement::new().case(Expr::col(column).gt(other.clone()), Expr::col(column)).finally(other).into()
}

/// The time that so many calls take up, in microseconds.
fn span(calls: u32, interval: Duration) -> i64 {
    micros(interval.saturating_mul(calls))
}

/// How many calls have room, and how long until one has.
fn room(row: &BudgetRow, ask: &ReserveCalls) -> (u32, Duration) {
    let one = max(span(1, ask.interval), 1);
    let taken = max(row.model.spent_until.saturating_sub(row.db_now), 0);
    let free = span(max(ask.burst, 1), ask.interval).saturating_sub(taken);
    let wait = Duration::from_micros(u64::try_from(one.saturating_sub(free)).unwrap_or(0));
    (u32::try_from(max(free, 0) / one).unwrap_or(u32::MAX), wait)
}

impl<C: ConnectionTrait> Session<C> {
    async fn budgets(&self, select: Select<call_budgets::Entity>) -> Result<Vec<BudgetRow>> {
        let backend = self.conn.get_database_backend();
        let statement = select.expr_as(dialect::now_micros(backend), "db_now").build(backend);
        let rows = self.check(self.conn.query_all_raw(statement).await)?;
        let read = |row| {
            let model = self.check(call_budgets::Model::from_query_result(row, ""))?;
            Ok(BudgetRow { model, db_now: self.check(row.try_get("", "db_now"))? })
        };
        rows.iter().map(read).collect()
    }

    async fn budget(&self, client: &OAuthClientId) -> Result<Option<BudgetRow>> {
        Ok(self.budgets(call_budgets::Entity::find().filter(is(client))).await?.pop())
    }
}

impl Tx {
    /// Makes the client's row, if the client is there.
    async fn insert_budget(&self, client: &OAuthClientId) -> Result<bool> {
        let row = call_budgets::Model {
            oauth_client_id: client.to_string(),
            spent_until: 0,
            pause_number: 0,
            pause_refusals: 0,
            pause_cause: None,
            pause_until: None,
            probe_until: None,
        };
        match self.insert_if_absent(row, [Column::OauthClientId]).await {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == StorageErrorKind::Conflict => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Takes up the time of so many calls, if there is room for all of them.
    async fn spend(&self, client: &OAuthClientId, calls: u32, ask: &ReserveCalls) -> Result<bool> {
        let now = dialect::now_micros(self.conn.get_database_backend());
        let taken = max(span(calls, ask.interval), 1);
        let spent = later(Column::SpentUntil, now.clone()).add(taken);
        let room = max(span(max(ask.burst, 1), ask.interval), 1);
        let update = call_budgets::Entity::update_many()
            .col_expr(Column::SpentUntil, spent.clone())
            .filter(is(client))
            .filter(spent.lte(now.add(room)));
        Ok(self.update(update).await? == 1)
    }
}

fn set_pause(pause: &BeginPause, now: SimpleExpr) -> UpdateMany<call_budgets::Entity> {
    call_budgets::Entity::update_many()
        .col_expr(Column::PauseUntil, later(Column::PauseUntil, now.add(micros(pause.length))))
        .col_expr(Column::PauseCause, Expr::value(pause.cause.word()))
        .col_expr(Column::PauseRefusals, Expr::value(i32::try_from(pause.refusals).unwrap_or(i32::MAX)))
        .col_expr(Column::PauseNumber, Expr::col(Column::PauseNumber).add(1))
        .col_expr(Column::ProbeUntil, Expr::value(None::<i64>))
}

#[async_trait]
impl BudgetStore for SeaStorage {
    #[tracing::instrument(name = "db.budget.reserve", level = "debug", skip_all)]
    async fn reserve_calls(&self, client: &OAuthClientId, ask: &ReserveCalls) -> Result<Reserved> {
        let tx = self.db.begin("budget.reserve").await?;
        let no_room = |wait| Reserved { calls: 0, wait, pause: None };
        let mut calls = ask.calls.clamp(1, max(ask.burst, 1));
        while !tx.spend(client, calls, ask).await? {
            let Some(row) = tx.budget(client).await? else {
                if tx.insert_budget(client).await? {
                    continue;
                }
                return Ok(no_room(ask.interval));
            };
            let (left, wait) = room(&row, ask);
            if left == 0 {
                return Ok(Reserved { pause: tx.convert(row)?, ..no_room(wait) });
            }
            // Others may take it meanwhile; each round asks for less than the one before.
            calls = min(left, calls - 1);
            if calls == 0 {
                return Ok(Reserved { pause: tx.convert(row)?, ..no_room(Duration::ZERO) });
            }
        }
        let pause = match tx.budget(client).await? {
            Some(row) => tx.convert(row)?,
            None => None,
        };
        tx.commit().await?;
        Ok(Reserved { calls, wait: Duration::ZERO, pause })
    }

    #[tracing::instrument(name = "db.budget.pause", level = "debug", skip_all)]
    async fn pause_calls(&self, client: &OAuthClientId, pause: &BeginPause) -> Result<Option<CallPause>> {
        let tx = self.db.begin("budget.pause").await?;
        if !tx.insert_budget(client).await? {
            return Ok(None);
        }
        let now = dialect::now_micros(tx.conn.get_database_backend());
        tx.update(set_pause(pause, now).filter(is(client))).await?;
        let begun = match tx.budget(client).await? {
            Some(row) => tx.convert(row)?,
            None => None,
        };
        tx.commit().await?;
        Ok(begun)
    }

    #[tracing::instrument(name = "db.budget.claim_probe", level = "debug", skip_all)]
    async fn claim_probe(&self, client: &OAuthClientId, number: i64, hold: Duration) -> Result<bool> {
        let tx = self.db.begin("budget.claim_probe").await?;
        let now = dialect::now_micros(tx.conn.get_database_backend());
        let is_free = Condition::any()
            .add(Column::ProbeUntil.is_null())
            .add(Expr::col(Column::ProbeUntil).lte(now.clone()));
        let claim = call_budgets::Entity::update_many()
            .col_expr(Column::ProbeUntil, now.clone().add(micros(hold)))
            .filter(is_pause(client, number))
            .filter(Expr::col(Column::PauseUntil).lte(now))
            .filter(is_free);
        let is_mine = tx.update(claim).await? == 1;
        tx.commit().await?;
        Ok(is_mine)
    }

    #[tracing::instrument(name = "db.budget.release_probe", level = "debug", skip_all)]
    async fn release_probe(&self, client: &OAuthClientId, number: i64) -> Result<()> {
        let tx = self.db.begin("budget.release_probe").await?;
        let release = call_budgets::Entity::update_many()
            .col_expr(Column::ProbeUntil, Expr::value(None::<i64>))
            .filter(is_pause(client, number));
        tx.update(release).await?;
        tx.commit().await
    }

    #[tracing::instrument(name = "db.budget.end_pause", level = "debug", skip_all)]
    async fn end_pause(&self, client: &OAuthClientId, number: i64) -> Result<()> {
        let tx = self.db.begin("budget.end_pause").await?;
        let end = call_budgets::Entity::update_many()
            .col_expr(Column::PauseCause, Expr::value(None::<String>))
            .col_expr(Column::PauseUntil, Expr::value(None::<i64>))
            .col_expr(Column::ProbeUntil, Expr::value(None::<i64>))
            .filter(is_pause(client, number));
        tx.update(end).await?;
        tx.commit().await
    }

    #[tracing::instrument(name = "db.budget.list_pauses", level = "debug", skip_all)]
    async fn list_pauses(&self) -> Result<Vec<CallPause>> {
        let db = self.db.read("budget.list_pauses");
        let select = call_budgets::Entity::find()
            .filter(Column::PauseCause.is_not_null())
            .order_by_asc(Column::OauthClientId);
        let rows = db.budgets(select).await?;
        let pauses: Result<Vec<Option<CallPause>>> = rows.into_iter().map(|row| db.convert(row)).collect();
        Ok(pauses?.into_iter().flatten().collect())
    }
}
