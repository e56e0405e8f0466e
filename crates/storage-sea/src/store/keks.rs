//! Which key-encryption key wraps, and what it wraps.

use std::collections::HashMap;

use sea_orm::sea_query::{Expr, LockType, Query, SimpleExpr};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbBackend, EntityTrait, ExprTrait, PaginatorTrait, QueryFilter, QueryOrder,
    QuerySelect, Value,
};
use tokenward_storage::{
    Change, DataKeyRecord, Kek, KekState, KeyJobState, Result, RetireOutcome, Rewrap, SealedSwap,
    StorageError, StorageErrorKind,
};
use tokenward_types::{Sealed, Timestamp};

use super::batch::{Batch, Set, Sql, Type};
use super::keys::{ID, SCOPE, is_active, model, records};
use super::{SeaStorage, sealed};
use crate::convert::{Row, Word};
use crate::dialect;
use crate::entity::{connections, data_keys, keks, key_jobs};
use crate::error::Inconsistent;
use crate::session::Tx;

/// How often data keys are replaced anew because others replaced some of them meanwhile.
const MAX_TRIES: u32 = 10;
/// Who changes states of key-encryption keys, or begins a job, does it alone.
pub(super) const LOCK: &str = "keks";

impl TryFrom<keks::Model> for Kek {
    type Error = Inconsistent;

    fn try_from(row: keks::Model) -> Result<Self, Inconsistent> {
        let place = Row { table: "keks", key: &[&row.kek] };
        Ok(Self {
            state: place.word("state", &row.state)?,
            created_at: Timestamp::from_micros(row.created_at),
            activated_at: row.activated_at.map(Timestamp::from_micros),
            replaced_at: row.replaced_at.map(Timestamp::from_micros),
            unused_since: row.unused_since.map(Timestamp::from_micros),
            retired_at: row.retired_at.map(Timestamp::from_micros),
            kek: row.kek,
        })
    }
}

/// Keeps the active key-encryption key from being replaced until the transaction ends. An error if it is another one than
/// `kek`; as long as none is active, any will do.
pub(super) async fn hold_kek(tx: &Tx, kek: &str) -> Result<()> {
    let is_active = keks::Column::State.eq(KekState::Active.word());
    let active = keks::Entity::find().filter(is_active).lock(LockType::Share);
    let active: Option<Kek> = tx.one(active).await?;
    match active {
        Some(active) if active.kek != kek => {
            let detail = format!("{} is the active encryption key, not {kek}", active.kek);
            Err(tx.error(StorageErrorKind::KeyReplaced).detail(detail))
        }
        _ => Ok(()),
    }
}

/// Whether a data key is there, as a part of a statement.
pub(super) fn data_key_is_there(scope: &str, id: i32) -> SimpleExpr {
    use data_keys::Column;
    let select = Query::select()
        .expr(Expr::value(1))
        .from(data_keys::Entity)
        .and_where(Column::Scope.eq(scope))
        .and_where(Column::Id.eq(id))
        .to_owned();
    Expr::exists(select)
}

impl Tx {
    /// Keeps a scope's data keys from being deleted until the transaction ends, and makes sure that those are there which
    /// sealed what is about to be stored. Whoever has locked a connection and copies its ciphertext, or stores one there,
    /// need not: see [`SeaStorage::remove_unused`].
    pub(super) async fn hold_data_keys(&self, scope: &str, sealed: &[Option<&Sealed>]) -> Result<()> {
        use data_keys::Column;
        let lock = dialect::shared_lock(self.conn.get_database_backend());
        let held = data_keys::Entity::find()
            .select_only()
            .column(Column::Id)
            .filter(Column::Scope.eq(scope))
            .lock(lock)
            .into_tuple::<i32>();
        let held = self.check(held.all(&self.conn).await)?;
        let mut needed = sealed.iter().flatten().filter_map(|sealed| sealed.data_key());
        match needed.find(|id| !held.contains(id)) {
            Some(gone) => {
                let detail = format!("data key {gone} of {scope} is gone");
                Err(self.error(StorageErrorKind::KeyReplaced).detail(detail))
            }
            None => Ok(()),
        }
    }
}

impl SeaStorage {
    pub(super) async fn insert_kek(&self, kek: &str) -> Result<()> {
        use keks::Column;
        let known = keks::Entity::find_by_id(kek);
        if self.db.read("kek.note").exists(known).await? {
            return Ok(());
        }
        let tx = self.db.begin("kek.note").await?;
        tx.lock(LOCK).await?;
        if tx.exists(keks::Entity::find_by_id(kek)).await? {
            return Ok(());
        }
        let insert = Query::insert()
            .into_table(keks::Entity)
            .columns([Column::Kek, Column::State, Column::CreatedAt])
            .values_panic([
                Expr::value(kek),
                Expr::value(KekState::DecryptOnly.word()),
                dialect::now_micros(tx.conn.get_database_backend()),
            ])
            .to_owned();
        tx.execute(&insert).await?;
        tx.commit().await
    }

    pub(super) async fn make_active(&self, kek: &str, former: Option<&str>) -> Result<bool> {
        use keks::Column;
        let tx = self.db.begin("kek.activate").await?;
        tx.lock(LOCK).await?;
        let active = keks::Entity::find().filter(Column::State.eq(KekState::Active.word()));
        let active: Option<Kek> = tx.one(active).await?;
        if active.as_ref().map(|active| &*active.kek) != former {
            return Ok(false);
        }
        let now = dialect::now_micros(tx.conn.get_database_backend());
        let replace = keks::Entity::update_many()
            .col_expr(Column::State, Expr::value(KekState::DecryptOnly.word()))
            .col_expr(Column::ReplacedAt, now.clone())
            .filter(Column::State.eq(KekState::Active.word()));
        tx.update(replace).await?;
        let activate = keks::Entity::update_many()
            .col_expr(Column::State, Expr::value(KekState::Active.word()))
            // Backups since the first time may need it.
            .col_expr(Column::ActivatedAt, Expr::col(Column::ActivatedAt).if_null(now))
            .col_expr(Column::ReplacedAt, Expr::value(None::<i64>))
            .col_expr(Column::UnusedSince, Expr::value(None::<i64>))
            .filter(Column::Kek.eq(kek))
            .filter(Column::State.eq(KekState::DecryptOnly.word()));
        if tx.update(activate).await? != 1 {
            return Ok(false);
        }
        // The first one is no news to anybody, and a server of the version before could not read it.
        if former.is_some() {
            tx.log(&Change::Keys).await?;
        }
        tx.commit().await?;
        Ok(true)
    }

    pub(super) async fn make_retired(&self, kek: &str) -> Result<RetireOutcome> {
        use keks::Column;
        let tx = self.db.begin("kek.retire").await?;
        tx.lock(LOCK).await?;
        let stored: Option<Kek> = tx.one(keks::Entity::find_by_id(kek)).await?;
        let Some(stored) = stored else { return Ok(RetireOutcome::Unknown) };
        if stored.state == KekState::Retired {
            return Ok(RetireOutcome::Retired);
        }
        let wrapped = data_keys::Entity::find().filter(data_keys::Column::Kek.eq(kek));
        let data_keys = tx.check(wrapped.count(&tx.conn).await)?;
        let job = key_jobs::Entity::find()
            .filter(key_jobs::Column::Kek.eq(kek))
            .filter(key_jobs::Column::State.eq(KeyJobState::Running.word()));
        let job = tx.check(job.one(&tx.conn).await)?.map(|job| job.id);
        let active = stored.state == KekState::Active;
        if active || data_keys > 0 || job.is_some() {
            return Ok(RetireOutcome::InUse { active, data_keys, job });
        }
        let now = dialect::now_micros(tx.conn.get_database_backend());
        let retire = keks::Entity::update_many()
            .col_expr(Column::State, Expr::value(KekState::Retired.word()))
            .col_expr(Column::RetiredAt, now)
            .filter(Column::Kek.eq(kek));
        tx.update(retire).await?;
        tx.log(&Change::Keys).await?;
        tx.commit().await?;
        Ok(RetireOutcome::Retired)
    }

    pub(super) async fn mark_unused(&self) -> Result<()> {
        use keks::Column;
        let tx = self.db.begin("kek.note_unused").await?;
        tx.lock(LOCK).await?;
        let now = dialect::now_micros(tx.conn.get_database_backend());
        let wrapped = || {
            let key = (data_keys::Entity, data_keys::Column::Kek);
            Query::select()
                .expr(Expr::value(1))
                .from(data_keys::Entity)
                .and_where(Expr::col(key).equals((keks::Entity, Column::Kek)))
                .to_owned()
        };
        let unused = keks::Entity::update_many()
            .col_expr(Column::UnusedSince, now)
            .filter(Column::UnusedSince.is_null())
            .filter(Column::State.ne(KekState::Active.word()))
            .filter(Expr::exists(wrapped()).not());
        tx.update(unused).await?;
        let used = keks::Entity::update_many()
            .col_expr(Column::UnusedSince, Expr::value(None::<i64>))
            .filter(Column::UnusedSince.is_not_null())
            .filter(Expr::exists(wrapped()));
        tx.update(used).await?;
        tx.commit().await
    }

    pub(super) async fn rewrap(&self, job: &str, rewraps: &[Rewrap]) -> Result<u64> {
        let Some(first) = rewraps.first() else { return Ok(0) };
        let tx = self.db.begin("data_key.rewrap").await?;
        hold_kek(&tx, &first.kek).await?;
        let rows = rewraps.iter().map(|rewrap| {
            let former = &rewrap.former;
            vec![
                rewrap.kek.clone().into(),
                rewrap.wrapped.clone().into(),
                job.into(),
                former.scope.clone().into(),
                former.id.into(),
                former.kek.clone().into(),
                former.wrapped.clone().into(),
            ]
        });
        let (kek, wrapped) = (("kek", Type::Text), ("wrapped", Type::Bytes));
        let sets = [(kek, Set::To), (wrapped, Set::To), (("settled_job", Type::Text), Set::To)];
        let keys = [SCOPE, ID, kek, wrapped];
        let done = Batch::new("data_keys", &sets, &keys).update(&tx, rows.collect()).await?;
        self.count_done(&tx, job, done, 0).await?;
        tx.commit().await?;
        Ok(done)
    }

    pub(super) async fn replace(
        &self,
        job: Option<&str>,
        keys: &[DataKeyRecord],
        swaps: &[SealedSwap],
    ) -> Result<Vec<String>> {
        let mut following: Vec<_> = keys.iter().collect();
        // All follow, as a rule. Where one does not, which ones do is read, and may have changed again by the time that it is tried.
        let mut tries = 1;
        while !self.replace_all(job, &following, swaps).await? {
            if tries == MAX_TRIES {
                let error = StorageError::new(StorageErrorKind::Conflict, "data_key.replace");
                return Err(error.detail("others replace the same data keys"));
            }
            tries += 1;
            let scopes: Vec<_> = keys.iter().map(|key| &*key.scope).collect();
            let active: HashMap<_, _> = self.active_of(&scopes).await?.into_iter().collect();
            let former = |key: &DataKeyRecord| active.get(&key.scope).copied();
            following.retain(|key| former(key).and_then(|former| former.checked_add(1)) == Some(key.id));
        }
        Ok(following.into_iter().map(|key| key.scope.clone()).collect())
    }

    async fn active_of(&self, scopes: &[&str]) -> Result<Vec<(String, i32)>> {
        use data_keys::Column;
        let db = self.db.read("data_key.replace");
        let active = data_keys::Entity::find()
            .select_only()
            .columns([Column::Scope, Column::Id])
            .filter(dialect::among(db.conn.get_database_backend(), Column::Scope, scopes))
            .filter(is_active())
            .into_tuple();
        db.check(active.all(&db.conn).await)
    }

    /// Replaces the active data keys of some scopes, and what they sealed; `false` where one does not follow, and nothing changes.
    async fn replace_all(
        &self,
        job: Option<&str>,
        keys: &[&DataKeyRecord],
        swaps: &[SealedSwap],
    ) -> Result<bool> {
        let Some(first) = keys.first() else { return Ok(true) };
        let tx = self.db.begin("data_key.replace").await?;
        let mut scopes: Vec<_> = keys.iter().map(|key| &*key.scope).collect();
        scopes.sort_unstable();
        // The order of locks: tenants, then connections, then data keys.
        tx.hold_tenants(&scopes).await?;
        hold_kek(&tx, &first.kek).await?;
        let is_theirs = |swap: &&SealedSwap| scopes.binary_search(&&*swap.former.scope).is_ok();
        sealed::swap(&tx, swaps.iter().filter(is_theirs)).await?;
        let now = dialect::now_micros_sql(tx.conn.get_database_backend());
        let also = format!("active = FALSE, replaced_at = {now}");
        let sets: &[_] = if job.is_some() { &[(("settled_job", Type::Text), Set::To)] } else { &[] };
        let formers = Batch {
            also: &also,
            only: "active",
            ordered: true,
            ..Batch::new("data_keys", sets, &[SCOPE, ID])
        };
        let former = |key: &&DataKeyRecord| {
            let name = [key.scope.clone().into(), key.id.saturating_sub(1).into()];
            job.map(Value::from).into_iter().chain(name).collect()
        };
        let replaced = formers.update(&tx, keys.iter().map(former).collect()).await?;
        if usize::try_from(replaced) != Ok(keys.len()) {
            return Ok(false);
        }
        insert(&tx, job, keys).await?;
        if let Some(job) = job {
            self.count_done(&tx, job, replaced, 0).await?;
        }
        if let (Some(first), Some(last)) = (scopes.first(), scopes.last()) {
            tx.log(&Change::DataKeys((*first).to_owned(), (*last).to_owned())).await?;
        }
        tx.commit().await?;
        Ok(true)
    }

    /// Deletes those of some data keys that have sealed nothing. Connections are locked first, in the order of locks, and not
    /// only their data keys: so a refresh needs no lock on a data key. Whoever copies a connection's ciphertext or replaces it
    /// has its row locked, and has committed by the time that fields are counted here, or waits, and then finds the key gone.
    pub(super) async fn remove_unused(&self, keys: &[(String, i32)]) -> Result<u64> {
        use data_keys::Column;
        let mut scopes: Vec<String> = keys.iter().map(|(scope, _)| scope.clone()).collect();
        scopes.sort();
        scopes.dedup();
        if scopes.is_empty() {
            return Ok(0);
        }
        let tx = self.db.begin("data_key.remove").await?;
        let backend = tx.conn.get_database_backend();
        let connections = connections::Entity::find()
            .select_only()
            .column(connections::Column::Id)
            .filter(dialect::among(backend, connections::Column::TenantId, &scopes))
            .order_by_asc(connections::Column::TenantId)
            .order_by_asc(connections::Column::Id)
            .lock_exclusive()
            .into_tuple::<String>();
        tx.check(connections.all(&tx.conn).await)?;
        let locked = data_keys::Entity::find()
            .filter(dialect::among(backend, Column::Scope, &scopes))
            .order_by_asc(Column::Scope)
            .order_by_asc(Column::Id)
            .lock_exclusive();
        let locked = records(&tx, locked).await?;
        // Read after the lock: whoever stores something under one of them has committed, or waits and then finds it gone.
        let used = sealed::count(&tx, Some(&scopes)).await?;
        let mut removed = 0;
        for key in locked.iter().filter(|key| !key.active) {
            let is_named = keys.iter().any(|(scope, id)| *scope == key.scope && *id == key.id);
            let is_used = used.iter().any(|(scope, id, _)| *scope == key.scope && *id == key.id);
            if is_named && !is_used {
                let delete = data_keys::Entity::delete_many()
                    .filter(Column::Scope.eq(&*key.scope))
                    .filter(Column::Id.eq(key.id));
                removed += tx.delete(delete).await?;
            }
        }
        tx.commit().await?;
        Ok(removed)
    }
}

/// Inserts active data keys. A job need not go through those that it made.
async fn insert(tx: &Tx, job: Option<&str>, keys: &[&DataKeyRecord]) -> Result<()> {
    let models =
        keys.iter().map(|key| data_keys::Model { settled_job: job.map(str::to_owned), ..model(key) });
    let backend = tx.conn.get_database_backend();
    if backend == DbBackend::MySql {
        let insert = data_keys::Entity::insert_many(models.map(sea_orm::IntoActiveModel::into_active_model));
        return tx.check(insert.exec_without_returning(&tx.conn).await).map(drop);
    }
    let rows = models.map(|row| {
        let tenant = row.tenant_id.unwrap_or_default();
        vec![
            row.scope.into(),
            row.id.into(),
            tenant.into(),
            row.kek.into(),
            row.wrapped.into(),
            row.created_at.into(),
            row.seals.into(),
        ]
    });
    let text = "INSERT INTO data_keys \
        (scope, id, tenant_id, kek, wrapped, created_at, seals, active, settled_job) \
        SELECT v.c0, v.c1, NULLIF(v.c2, ''), v.c3, v.c4, v.c5, v.c6, TRUE, CAST(";
    let mut sql = Sql::new(backend, text.to_owned());
    sql.bind(job.into());
    sql.push(" AS text) FROM ");
    let types = [Type::Text, Type::Int, Type::Text, Type::Text, Type::Bytes, Type::Big, Type::Big];
    sql.rows("v", &types, rows.collect());
    tx.check(tx.conn.execute_raw(sql.statement()).await).map(drop)
}
