use std::time::Duration;

use async_trait::async_trait;
use sea_orm::sea_query::{Expr, Query};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, EntityTrait, ExprTrait, IdenStatic, PaginatorTrait, QueryFilter,
    QueryOrder, QuerySelect, QueryTrait,
};
use tokenward_storage::{
    Change, Claim, KeyFinding, KeyJob, KeyJobKind, KeyJobState, KeyJobStep, KeyJobStore, NewKeyJob, Page,
    PageRequest, Result, StorageErrorKind,
};
use tokenward_types::Timestamp;

use super::SeaStorage;
use super::batch::{Batch, Set, Type};
use super::keks::LOCK;
use super::keys::{ID, SCOPE, is_active, is_after, records};
use crate::convert::{Row, Word};
use crate::dialect::{self, micros};
use crate::entity::key_jobs::{self, Column};
use crate::entity::{data_keys, key_findings};
use crate::error::Inconsistent;
use crate::session::{Tx, cursor};

/// How many jobs one transaction deletes.
const FORGOTTEN_AT_ONCE: u64 = 500;

fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

impl TryFrom<key_jobs::Model> for KeyJob {
    type Error = Inconsistent;

    fn try_from(row: key_jobs::Model) -> Result<Self, Inconsistent> {
        let place = Row { table: "key_jobs", key: &[&row.id] };
        Ok(Self {
            kind: place.word("kind", &row.kind)?,
            state: place.word("state", &row.state)?,
            step: place.word("step", &row.step)?,
            created_at: Timestamp::from_micros(row.created_at),
            updated_at: Timestamp::from_micros(row.updated_at),
            finished_at: row.finished_at.map(Timestamp::from_micros),
            total: count(row.total),
            done: count(row.done),
            skipped: count(row.skipped),
            id: row.id,
            kek: row.kek,
            scope: row.scope,
            created_by: row.created_by,
            message: row.message,
        })
    }
}

impl TryFrom<key_findings::Model> for KeyFinding {
    type Error = Inconsistent;

    fn try_from(row: key_findings::Model) -> Result<Self, Inconsistent> {
        Ok(Self { scope: row.scope, place: row.place, problem: row.problem })
    }
}

/// Whether a running job keeps another from beginning.
fn gets_in_the_way(running: KeyJobKind, new: KeyJobKind) -> bool {
    running == new || (running != KeyJobKind::Verify && new != KeyJobKind::Verify)
}

/// The data keys that a job has to go through.
fn of_job(job: &key_jobs::Model) -> Condition {
    use data_keys::Column as Of;
    let mut keys = Condition::all();
    if job.kind == KeyJobKind::Rotate.word() {
        keys = keys.add(Of::Kek.ne(&*job.kek));
    } else if !job.scope.is_empty() {
        keys = keys.add(Of::Scope.eq(&*job.scope));
    }
    if job.kind == KeyJobKind::RotateData.word() {
        // What others sealed is sealed anew together with what these sealed.
        keys = keys.add(is_active());
    }
    keys
}

/// The column that says which job of a kind was last through with a data key: a verification runs beside others.
fn mark(job: &key_jobs::Model) -> data_keys::Column {
    if job.kind == KeyJobKind::Verify.word() {
        data_keys::Column::CheckedJob
    } else {
        data_keys::Column::SettledJob
    }
}

/// A job is not through with these.
fn is_open(job: &key_jobs::Model) -> Condition {
    Condition::any().add(mark(job).is_null()).add(mark(job).ne(&*job.id))
}

/// The data keys that it has to go through and is not through with.
fn left(job: &key_jobs::Model) -> Condition {
    of_job(job).add(is_open(job))
}

fn is_running(id: &str) -> Condition {
    Condition::all().add(Column::Id.eq(id)).add(Column::State.eq(KeyJobState::Running.word()))
}

async fn running(tx: &Tx) -> Result<Vec<KeyJob>> {
    let running = key_jobs::Entity::find()
        .filter(Column::State.eq(KeyJobState::Running.word()))
        .order_by_asc(Column::Id);
    tx.all(running).await
}

impl SeaStorage {
    /// Adds to what a job has done.
    pub(super) async fn count_done(&self, tx: &Tx, id: &str, done: u64, skipped: u64) -> Result<()> {
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let now = dialect::now_micros(tx.conn.get_database_backend());
        let update = key_jobs::Entity::update_many()
            .col_expr(Column::Done, Expr::col(Column::Done).add(number(done)))
            .col_expr(Column::Skipped, Expr::col(Column::Skipped).add(number(skipped)))
            .col_expr(Column::UpdatedAt, now)
            .filter(Column::Id.eq(id));
        tx.update(update).await.map(drop)
    }

    async fn change_running(&self, id: &str, ends: bool, changes: Vec<(Column, Expr)>) -> Result<bool> {
        let tx = self.db.begin("key_job.change").await?;
        let now = dialect::now_micros(tx.conn.get_database_backend());
        let mut update = key_jobs::Entity::update_many().col_expr(Column::UpdatedAt, now.clone());
        if ends {
            update = update.col_expr(Column::FinishedAt, now);
        }
        for (column, value) in changes {
            update = update.col_expr(column, value);
        }
        let was_running = tx.update(update.filter(is_running(id))).await? == 1;
        tx.commit().await?;
        Ok(was_running)
    }
}

#[async_trait]
impl KeyJobStore for SeaStorage {
    #[tracing::instrument(name = "db.key_job.create", level = "debug", skip_all)]
    async fn create_key_job(&self, job: &NewKeyJob) -> Result<(KeyJob, bool)> {
        let tx = self.db.begin("key_job.create").await?;
        tx.lock(LOCK).await?;
        let in_the_way = running(&tx).await?.into_iter().find(|other| gets_in_the_way(other.kind, job.kind));
        if let Some(other) = in_the_way {
            return Ok((other, false));
        }
        let step = match job.kind {
            KeyJobKind::Rotate => KeyJobStep::Spreading,
            KeyJobKind::RotateData | KeyJobKind::Verify => KeyJobStep::Working,
        };
        let now = dialect::now_micros(tx.conn.get_database_backend());
        let insert = Query::insert()
            .into_table(key_jobs::Entity)
            .columns([
                Column::Id,
                Column::Kind,
                Column::State,
                Column::Step,
                Column::Kek,
                Column::Scope,
                Column::CreatedBy,
                Column::CreatedAt,
                Column::UpdatedAt,
                Column::Total,
                Column::Done,
                Column::Skipped,
                Column::CursorScope,
                Column::CursorId,
                Column::Message,
            ])
            .values_panic([
                Expr::value(&*job.id),
                Expr::value(job.kind.word()),
                Expr::value(KeyJobState::Running.word()),
                Expr::value(step.word()),
                Expr::value(&*job.kek),
                Expr::value(&*job.scope),
                Expr::value(&*job.created_by),
                now.clone(),
                now,
                Expr::value(0_i64),
                Expr::value(0_i64),
                Expr::value(0_i64),
                Expr::value(""),
                Expr::value(0),
                Expr::value(""),
            ])
            .to_owned();
        tx.execute(&insert).await?;
        let lost = || tx.error(StorageErrorKind::Internal).detail("the job is gone");
        let row = tx.check(key_jobs::Entity::find_by_id(&*job.id).one(&tx.conn).await)?.ok_or_else(lost)?;
        let total = tx.check(data_keys::Entity::find().filter(of_job(&row)).count(&tx.conn).await)?;
        let update = key_jobs::Entity::update_many()
            .col_expr(Column::Total, Expr::value(i64::try_from(total).unwrap_or(i64::MAX)))
            .filter(Column::Id.eq(&*job.id));
        tx.update(update).await?;
        let created = tx.one(key_jobs::Entity::find_by_id(&*job.id)).await?.ok_or_else(lost)?;
        tx.log(&Change::Keys).await?;
        tx.commit().await?;
        Ok((created, true))
    }

    #[tracing::instrument(name = "db.key_job.get", level = "debug", skip_all)]
    async fn get_key_job(&self, id: &str) -> Result<Option<KeyJob>> {
        self.db.read("key_job.get").one(key_jobs::Entity::find_by_id(id)).await
    }

    #[tracing::instrument(name = "db.key_job.list", level = "debug", skip_all)]
    async fn list_key_jobs(&self, page: &PageRequest) -> Result<Page<KeyJob>> {
        let select = key_jobs::Entity::find()
            .apply_if(cursor(page), |select, after| select.filter(Column::Id.gt(after)));
        self.db.read("key_job.list").page(select, Column::Id, page, |job: &KeyJob| &job.id).await
    }

    #[tracing::instrument(name = "db.key_job.list_running", level = "debug", skip_all)]
    async fn running_key_jobs(&self) -> Result<Vec<KeyJob>> {
        let running = key_jobs::Entity::find()
            .filter(Column::State.eq(KeyJobState::Running.word()))
            .order_by_asc(Column::Id);
        self.db.read("key_job.list_running").all(running).await
    }

    #[tracing::instrument(name = "db.key_job.start_working", level = "debug", skip_all)]
    async fn start_working(&self, id: &str) -> Result<bool> {
        let tx = self.db.begin("key_job.start_working").await?;
        let now = dialect::now_micros(tx.conn.get_database_backend());
        let update = key_jobs::Entity::update_many()
            .col_expr(Column::Step, Expr::value(KeyJobStep::Working.word()))
            .col_expr(Column::Message, Expr::value(""))
            .col_expr(Column::UpdatedAt, now)
            .filter(is_running(id))
            .filter(Column::Step.eq(KeyJobStep::Spreading.word()));
        let started = tx.update(update).await? == 1;
        tx.commit().await?;
        Ok(started)
    }

    #[tracing::instrument(name = "db.key_job.note", level = "debug", skip_all)]
    async fn note_key_job(&self, id: &str, message: &str) -> Result<()> {
        self.change_running(id, false, vec![(Column::Message, Expr::value(message))]).await.map(drop)
    }

    #[tracing::instrument(name = "db.key_job.finish", level = "debug", skip_all)]
    async fn finish_key_job(
        &self,
        id: &str,
        state: KeyJobState,
        message: &str,
        skipped: u64,
    ) -> Result<bool> {
        let skipped = i64::try_from(skipped).unwrap_or(i64::MAX);
        let changes = vec![
            (Column::State, Expr::value(state.word())),
            (Column::Message, Expr::value(message)),
            (Column::Skipped, Expr::col(Column::Skipped).add(skipped)),
        ];
        self.change_running(id, true, changes).await
    }

    #[tracing::instrument(name = "db.key_job.claim", level = "debug", skip_all)]
    async fn claim_data_keys(&self, id: &str, limit: u32) -> Result<Claim> {
        use data_keys::Column as Of;
        let tx = self.db.begin("key_job.claim").await?;
        let job = key_jobs::Entity::find().filter(is_running(id)).lock_exclusive();
        let Some(job) = tx.check(job.one(&tx.conn).await)? else {
            return Ok(Claim { keys: Vec::new(), remaining: 0 });
        };
        let open = || data_keys::Entity::find().filter(left(&job));
        let next = open()
            .filter(is_after(&job.cursor_scope, job.cursor_id))
            .order_by_asc(Of::Scope)
            .order_by_asc(Of::Id)
            .limit(u64::from(limit));
        let keys = records(&tx, next).await?;
        let (scope, number) = keys.last().map_or(("", 0), |key| (&*key.scope, key.id));
        let update = key_jobs::Entity::update_many()
            .col_expr(Column::CursorScope, Expr::value(scope))
            .col_expr(Column::CursorId, Expr::value(number))
            .filter(Column::Id.eq(id));
        tx.update(update).await?;
        tx.commit().await?;
        // They are counted once in a round, and by nobody who keeps others from writing, because that takes longer than all else.
        let is_border = keys.is_empty() || job.cursor_scope.is_empty();
        let remaining = if is_border {
            let db = self.db.read("key_job.count");
            db.check(open().count(&db.conn).await)?
        } else {
            let handed_out = u64::try_from(keys.len()).unwrap_or_default();
            Ord::max(count(job.total).saturating_sub(count(job.done)), handed_out)
        };
        let total = count(job.done).saturating_add(remaining);
        if total != count(job.total) {
            let total = Expr::value(i64::try_from(total).unwrap_or(i64::MAX));
            self.change_running(id, false, vec![(Column::Total, total)]).await?;
        }
        Ok(Claim { keys, remaining })
    }

    #[tracing::instrument(name = "db.key_job.settle", level = "debug", skip_all)]
    async fn settle_data_keys(&self, id: &str, keys: &[(String, i32)], skipped: bool) -> Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        let tx = self.db.begin("key_job.settle").await?;
        let job = tx.check(key_jobs::Entity::find_by_id(id).one(&tx.conn).await)?;
        let Some(job) = job else { return Ok(()) };
        let rows = keys.iter().map(|(scope, number)| vec![id.into(), scope.clone().into(), (*number).into()]);
        let sets = [((mark(&job).as_str(), Type::Text), Set::To)];
        let batch = Batch { only_others: true, ..Batch::new("data_keys", &sets, &[SCOPE, ID]) };
        let settled = batch.update(&tx, rows.collect()).await?;
        self.count_done(&tx, id, settled, if skipped { settled } else { 0 }).await?;
        tx.commit().await
    }

    #[tracing::instrument(name = "db.key_job.add_findings", level = "debug", skip_all)]
    async fn add_key_findings(&self, id: &str, findings: &[KeyFinding]) -> Result<()> {
        use key_findings::Column as Of;
        let tx = self.db.begin("key_job.add_findings").await?;
        for finding in findings {
            let row = key_findings::Model {
                job_id: id.to_owned(),
                scope: finding.scope.clone(),
                place: finding.place.clone(),
                problem: finding.problem.clone(),
            };
            tx.insert_if_absent(row, [Of::JobId, Of::Scope, Of::Place]).await?;
        }
        tx.commit().await
    }

    #[tracing::instrument(name = "db.key_job.list_findings", level = "debug", skip_all)]
    async fn list_key_findings(&self, id: &str, limit: u32) -> Result<Vec<KeyFinding>> {
        use key_findings::Column as Of;
        let select = key_findings::Entity::find()
            .filter(Of::JobId.eq(id))
            .order_by_asc(Of::Scope)
            .order_by_asc(Of::Place)
            .limit(u64::from(limit));
        self.db.read("key_job.list_findings").all(select).await
    }

    #[tracing::instrument(name = "db.key_job.forget", level = "debug", skip_all)]
    async fn forget_key_jobs(&self, ago: Duration) -> Result<u64> {
        use key_findings::Column as Of;
        let tx = self.db.begin("key_job.forget").await?;
        let now = dialect::now_micros(tx.conn.get_database_backend());
        let old = key_jobs::Entity::find()
            .select_only()
            .column(Column::Id)
            .filter(Column::State.ne(KeyJobState::Running.word()))
            .filter(Expr::col(Column::FinishedAt).lte(now.sub(micros(ago))))
            .order_by_asc(Column::Id)
            .limit(FORGOTTEN_AT_ONCE)
            .into_tuple::<String>();
        let old = tx.check(old.all(&tx.conn).await)?;
        if old.is_empty() {
            return Ok(0);
        }
        tx.delete(key_findings::Entity::delete_many().filter(Of::JobId.is_in(&old))).await?;
        let forgotten = tx.delete(key_jobs::Entity::delete_many().filter(Column::Id.is_in(&old))).await?;
        tx.commit().await?;
        Ok(forgotten)
    }
}
