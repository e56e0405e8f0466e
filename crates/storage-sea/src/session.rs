//! The way to the database: reads see one statement's snapshot, writes are transactions that end in `commit`.

use std::sync::Arc;

use sea_orm::sea_query::OnConflict;
use sea_orm::{
    ActiveValue, ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, DeleteMany,
    EntityTrait, IntoActiveModel, ModelTrait, PaginatorTrait, QueryOrder, QuerySelect, Select,
    SqliteTransactionMode, StatementBuilder, TransactionOptions, TransactionTrait, UpdateMany,
};
use tokenward_storage::{MAX_PAGE_SIZE, Page, PageRequest, Result, StorageError, StorageErrorKind};
use tokenward_types::sha256;
use tokio::sync::{Mutex, OwnedMutexGuard, Semaphore, SemaphorePermit};

use crate::entity::locks;
use crate::error::{self, Inconsistent};
use crate::mysql;
use crate::patience::{Patience, Patient};
use crate::sqlite;

/// The pools of one database. SQLite has one connection that writes, and others that read meanwhile.
#[derive(Debug)]
pub(crate) struct Database {
    pub(crate) read: DatabaseConnection,
    pub(crate) write: DatabaseConnection,
    pub(crate) patience: Patience,
    /// Turns of those that begin an attempt.
    pub(crate) beginnings: Semaphore,
    /// Where one writes at a time: turns of transactions, which those of all pools of this process share.
    pub(crate) turns: Option<Arc<Mutex<()>>>,
    /// Where a migration cannot be one transaction: the server that it runs on, on a connection of its own.
    pub(crate) migrations: Option<mysql::Server>,
}

impl Database {
    /// Statements that only read; `operation` stands in their errors.
    pub(crate) fn read(&self, operation: &'static str) -> Session<DatabaseConnection> {
        let patience = self.patience.clone();
        let conn = Patient { inner: self.read.clone(), patience, only_reads: true };
        Session { conn, operation, turn: None }
    }

    /// For so many connections that write: half of them may be taken by attempts that begin, so that what attempts came to
    /// is stored at once, however many wait to begin.
    pub(crate) fn beginnings(connections: u32) -> Semaphore {
        Semaphore::new(usize::try_from(connections / 2).unwrap_or(usize::MAX).max(1))
    }

    /// A turn to begin an attempt.
    pub(crate) async fn turn_to_begin(&self, operation: &'static str) -> Result<SemaphorePermit<'_>> {
        let turn = self.patience.limited(self.beginnings.acquire()).await;
        turn.and_then(|turn| turn.map_err(|closed| DbErr::Custom(closed.to_string())))
            .map_err(|error| error::of_statement(operation, error))
    }

    /// A transaction; dropping it rolls it back.
    pub(crate) async fn begin(&self, operation: &'static str) -> Result<Tx> {
        let failed = |error| error::of_statement(operation, error);
        let turn = match &self.turns {
            Some(turns) => Some(sqlite::turn(turns).await.map_err(failed)?),
            None => None,
        };
        // A transaction that began by reading could not turn into a writing one while another writes.
        let begin = || {
            self.write.begin_with_options(TransactionOptions {
                sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
                ..TransactionOptions::default()
            })
        };
        let tx = self.patience.wait_twice(begin).await;
        let inner = tx.map_err(failed)?;
        let patience = self.patience.clone();
        Ok(Session { conn: Patient { inner, patience, only_reads: false }, operation, turn })
    }
}

/// Statements of one operation.
pub(crate) struct Session<C> {
    pub(crate) conn: Patient<C>,
    operation: &'static str,
    /// Lets the next transaction begin when it goes.
    turn: Option<OwnedMutexGuard<()>>,
}

/// Statements of one transaction.
pub(crate) type Tx = Session<DatabaseTransaction>;

impl<C: ConnectionTrait> Session<C> {
    /// An error of this operation.
    pub(crate) fn error(&self, kind: StorageErrorKind) -> StorageError {
        StorageError::new(kind, self.operation)
    }

    /// Puts the operation's name to a driver's error.
    pub(crate) fn check<T>(&self, result: Result<T, DbErr>) -> Result<T> {
        result.map_err(|error| error::of_statement(self.operation, error))
    }

    /// Turns a row into what it stands for.
    pub(crate) fn convert<M, T: TryFrom<M, Error = Inconsistent>>(&self, model: M) -> Result<T> {
        T::try_from(model).map_err(|inconsistent| inconsistent.in_operation(self.operation))
    }

    /// The row that a query finds.
    pub(crate) async fn one<E, T>(&self, select: Select<E>) -> Result<Option<T>>
    where
        E: EntityTrait,
        T: TryFrom<E::Model, Error = Inconsistent>,
    {
        let model = self.check(select.one(&self.conn).await)?;
        model.map(|model| self.convert(model)).transpose()
    }

    /// The rows that a query finds.
    pub(crate) async fn all<E, T>(&self, select: Select<E>) -> Result<Vec<T>>
    where
        E: EntityTrait,
        T: TryFrom<E::Model, Error = Inconsistent>,
    {
        let models = self.check(select.all(&self.conn).await)?;
        models.into_iter().map(|model| self.convert(model)).collect()
    }

    /// Whether a query finds anything.
    pub(crate) async fn exists<E>(&self, select: Select<E>) -> Result<bool>
    where
        E: EntityTrait,
        E::Model: Sync,
    {
        Ok(self.check(select.limit(1).count(&self.conn).await)? > 0)
    }

    /// One page of `select`, which filters by the request's cursor already, in order of `key`.
    pub(crate) async fn page<E, T>(
        &self,
        select: Select<E>,
        key: E::Column,
        request: &PageRequest,
        cursor: impl Fn(&T) -> &str,
    ) -> Result<Page<T>>
    where
        E: EntityTrait,
        T: TryFrom<E::Model, Error = Inconsistent>,
    {
        let size = page_size(request);
        let select = select.order_by_asc(key).limit(size + 1);
        Ok(cut(self.all(select).await?, size, |item| cursor(item).to_owned()))
    }

    /// Inserts a row.
    pub(crate) async fn insert<M>(&self, model: M) -> Result<()>
    where
        M: ModelTrait + IntoActiveModel<<M::Entity as EntityTrait>::ActiveModel>,
    {
        let insert = M::Entity::insert(model.into_active_model());
        self.check(insert.exec_without_returning(&self.conn).await).map(drop)
    }

    /// Inserts a row; `false` when its key is taken.
    pub(crate) async fn insert_new<M>(&self, model: M) -> Result<bool>
    where
        M: ModelTrait + IntoActiveModel<<M::Entity as EntityTrait>::ActiveModel>,
    {
        match self.insert(model).await {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == StorageErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Inserts a row unless one with these key columns is there.
    pub(crate) async fn insert_if_absent<M, K>(&self, model: M, key: K) -> Result<()>
    where
        M: ModelTrait + IntoActiveModel<<M::Entity as EntityTrait>::ActiveModel>,
        K: IntoIterator<Item = <M::Entity as EntityTrait>::Column> + Clone,
    {
        let conflict = OnConflict::columns(key.clone()).do_nothing_on(key).to_owned();
        let insert = M::Entity::insert(model.into_active_model()).on_conflict(conflict);
        self.check(insert.exec_without_returning(&self.conn).await).map(drop)
    }

    /// Updates rows; returns how many matched.
    pub(crate) async fn update<E: EntityTrait>(&self, update: UpdateMany<E>) -> Result<u64> {
        Ok(self.check(update.exec(&self.conn).await)?.rows_affected)
    }

    /// Deletes rows; returns how many.
    pub(crate) async fn delete<E: EntityTrait>(&self, delete: DeleteMany<E>) -> Result<u64> {
        Ok(self.check(delete.exec(&self.conn).await)?.rows_affected)
    }

    /// Runs any statement; returns how many rows it touched.
    pub(crate) async fn execute(&self, statement: &impl StatementBuilder) -> Result<u64> {
        let statement = self.conn.get_database_backend().build(statement);
        Ok(self.check(self.conn.execute_raw(statement).await)?.rows_affected())
    }

    /// The row after an update that was conditional on its version: `None` when there is none, `Conflict` when the row
    /// is there but was not updated.
    pub(crate) async fn updated<E, T>(&self, matched: u64, select: Select<E>) -> Result<Option<T>>
    where
        E: EntityTrait,
        T: TryFrom<E::Model, Error = Inconsistent>,
    {
        match self.one(select).await? {
            Some(_) if matched == 0 => Err(self.error(StorageErrorKind::Conflict)),
            row => Ok(row),
        }
    }
}

impl Tx {
    /// A transaction that may take as long as it takes.
    pub(crate) fn endless(inner: DatabaseTransaction, operation: &'static str) -> Self {
        Self {
            conn: Patient { inner, patience: Patience::endless(), only_reads: false },
            operation,
            turn: None,
        }
    }

    /// Makes everything since the beginning happen.
    pub(crate) async fn commit(self) -> Result<()> {
        let Self { conn: Patient { inner, patience, .. }, operation, turn } = self;
        let committed = patience.wait(inner.commit()).await;
        drop(turn);
        committed.map_err(|error| error::of_commit(operation, error))
    }

    /// Waits until no other transaction that locked the same name is open, and keeps others out until this one ends.
    /// Names share 256 rows by their hash: rows, unlike advisory locks, work on every database, and this many stay few.
    pub(crate) async fn lock(&self, name: &str) -> Result<()> {
        let slot = i32::from(sha256(name.as_bytes())[0]);
        if self.conn.get_database_backend() == DbBackend::MySql {
            // Two that insert a row which neither finds may lock each other up there: all rows were inserted by the schema.
            let row = self.check(locks::Entity::find_by_id(slot).lock_exclusive().one(&self.conn).await)?;
            let lost = || self.error(StorageErrorKind::Inconsistent).detail("locks has lost a row");
            return row.map(drop).ok_or_else(lost);
        }
        let slot = locks::ActiveModel { slot: ActiveValue::Set(slot) };
        let conflict = OnConflict::column(locks::Column::Slot).update_column(locks::Column::Slot).to_owned();
        let insert = locks::Entity::insert(slot).on_conflict(conflict);
        self.check(insert.exec_without_returning(&self.conn).await).map(drop)
    }
}

/// How many rows a page may have.
pub(crate) fn page_size(request: &PageRequest) -> u64 {
    request.size.clamp(1, MAX_PAGE_SIZE).into()
}

/// A cursor as it may be compared: what follows a NUL, which no key has and PostgreSQL refuses, is dropped.
pub(crate) fn cursor(request: &PageRequest) -> Option<&str> {
    request.after.as_deref().map(|after| after.split('\0').next().unwrap_or_default())
}

/// Makes a page of one row more than fits, if there are so many.
pub(crate) fn cut<T>(mut items: Vec<T>, size: u64, cursor: impl Fn(&T) -> String) -> Page<T> {
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    let more = items.len() > size;
    items.truncate(size);
    let next = if more { items.last().map(cursor) } else { None };
    Page { items, next }
}
