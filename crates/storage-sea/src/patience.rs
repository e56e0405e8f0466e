//! How long the answer of a server is waited for that may have gone without a word.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use sea_orm::sqlx::{self, Connection};
use sea_orm::{ConnAcquireErr, ConnectionTrait, DbBackend, DbErr, ExecResult, QueryResult, Statement};
use tokio::time::{Instant, timeout};

use crate::error;

/// How long a connection that may be dead has for a sign of life, before the pool closes it.
const SIGN_OF_LIFE: Duration = Duration::from_secs(2);

/// How long a connection that answered when it came back to the pool passes for alive.
const ALIVE_FOR: Duration = Duration::from_secs(1);

/// A limit for waiting. The server has a limit for its work, which does not help when a machine lost its power or a firewall
/// forgot the connection: then nothing comes, not even an error, for as long as anybody waits.
#[derive(Clone, Debug)]
pub(crate) struct Patience {
    /// `None` for as long as it takes: a database inside this process does not go away.
    limit: Option<Duration>,
    since: Instant,
    /// When an answer was last given up, in milliseconds since `since`; 0 for never.
    given_up: Arc<AtomicU64>,
    /// When a connection was last found closed by the other side, alike.
    closed: Arc<AtomicU64>,
}

impl Patience {
    /// Waits no longer than a limit.
    pub(crate) fn of(limit: Duration) -> Self {
        Self { limit: Some(limit), ..Self::endless() }
    }

    /// Waits for as long as it takes.
    pub(crate) fn endless() -> Self {
        Self { limit: None, since: Instant::now(), given_up: Arc::default(), closed: Arc::default() }
    }

    /// The answer, unless it takes too long.
    pub(crate) async fn wait<T>(&self, answer: impl Future<Output = Result<T, DbErr>>) -> Result<T, DbErr> {
        if self.limit.is_none() {
            return answer.await;
        }
        let answer = Answer { patience: self, future: Box::pin(answer), came: false };
        let answer = self.limited(answer).await.flatten();
        if answer.as_ref().is_err_and(error::is_closed) {
            self.closed.store(self.elapsed().max(1), Ordering::Relaxed);
        }
        answer
    }

    /// What comes of something, unless it takes too long.
    pub(crate) async fn limited<T>(&self, outcome: impl Future<Output = T>) -> Result<T, DbErr> {
        match self.limit {
            Some(limit) => {
                timeout(limit, outcome).await.map_err(|_| DbErr::ConnectionAcquire(ConnAcquireErr::Timeout))
            }
            None => Ok(outcome.await),
        }
    }

    /// The answer to what changes nothing: asked for once more, on another connection, if the first one turns out to be closed.
    pub(crate) async fn wait_twice<T, A>(&self, ask: impl Fn() -> A) -> Result<T, DbErr>
    where
        A: Future<Output = Result<T, DbErr>>,
    {
        match self.wait(ask()).await {
            Err(error) if error::is_closed(&error) => self.wait(ask()).await,
            answer => answer,
        }
    }

    /// For the pool, about a connection that it is about to give out. One that is in constant use is not asked each time: that
    /// would be one question more for every answer. When one was found closed, those that lay idle then may be, too.
    pub(crate) async fn check_idle(
        &self,
        connection: &mut impl Connection,
        idle_for: Duration,
    ) -> sqlx::Result<bool> {
        let idle = u64::try_from(idle_for.as_millis()).unwrap_or(u64::MAX);
        let closed = self.closed.load(Ordering::Relaxed);
        if idle_for >= ALIVE_FOR || self.elapsed().saturating_sub(idle) <= closed {
            connection.ping().await?;
        }
        Ok(true)
    }

    /// For the pool, about a connection that comes back to it: an error if it may be dead and gives no sign of life. The pool
    /// itself would wait for that for ever, and count the connection as one of those that it may open.
    pub(crate) async fn check(&self, connection: &mut impl Connection) -> sqlx::Result<bool> {
        if !self.is_wary() {
            return Ok(true);
        }
        let alive = timeout(SIGN_OF_LIFE, connection.ping()).await;
        alive.unwrap_or(Err(sqlx::Error::PoolTimedOut)).map(|()| true)
    }

    fn give_up(&self) {
        self.given_up.store(self.elapsed().max(1), Ordering::Relaxed);
    }

    /// Whether connections that come back now may be of those whose answer was given up.
    fn is_wary(&self) -> bool {
        let given_up = self.given_up.load(Ordering::Relaxed);
        let limit = self.limit.unwrap_or_default() + SIGN_OF_LIFE;
        given_up > 0 && u128::from(self.elapsed() - given_up.min(self.elapsed())) <= limit.as_millis()
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// An answer that is waited for. Whoever stops to wait, for whatever reason, leaves a connection that may be dead; that must
/// be known before the connection goes back to the pool, which is when the future is dropped.
struct Answer<'a, F> {
    patience: &'a Patience,
    future: Pin<Box<F>>,
    came: bool,
}

impl<F: Future> Future for Answer<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let polled = self.future.as_mut().poll(context);
        self.came = polled.is_ready();
        polled
    }
}

impl<F> Drop for Answer<'_, F> {
    fn drop(&mut self) {
        if !self.came {
            self.patience.give_up();
        }
    }
}

/// A connection or a transaction whose answers are waited for with patience.
#[derive(Debug)]
pub(crate) struct Patient<C> {
    pub(crate) inner: C,
    pub(crate) patience: Patience,
    /// Whether each statement stands by itself and only reads.
    pub(crate) only_reads: bool,
}

impl<C: ConnectionTrait> Patient<C> {
    async fn read<T, A>(&self, ask: impl Fn() -> A) -> Result<T, DbErr>
    where
        A: Future<Output = Result<T, DbErr>>,
    {
        if self.only_reads { self.patience.wait_twice(ask).await } else { self.patience.wait(ask()).await }
    }
}

#[async_trait]
impl<C: ConnectionTrait> ConnectionTrait for Patient<C> {
    fn get_database_backend(&self) -> DbBackend {
        self.inner.get_database_backend()
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        self.patience.wait(self.inner.execute_raw(statement)).await
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.patience.wait(self.inner.execute_unprepared(sql)).await
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        self.read(|| self.inner.query_one_raw(statement.clone())).await
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.read(|| self.inner.query_all_raw(statement.clone())).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_that_does_not_come_is_given_up_and_remembered() {
        let patience = Patience::of(Duration::from_millis(10));
        patience.wait(async { Ok(()) }).await.unwrap();
        assert!(!patience.is_wary());
        let error = patience.wait(std::future::pending::<Result<(), DbErr>>()).await.unwrap_err();
        assert!(matches!(error, DbErr::ConnectionAcquire(_)));
        assert!(patience.is_wary());
    }

    #[tokio::test]
    async fn a_caller_that_stops_to_wait_leaves_a_connection_that_may_be_dead() {
        let patience = Patience::of(Duration::from_secs(60));
        let mut call = Box::pin(patience.wait(std::future::pending::<Result<(), DbErr>>()));
        assert!(timeout(Duration::ZERO, &mut call).await.is_err());
        assert!(!patience.is_wary());
        drop(call);
        assert!(patience.is_wary());
    }
}
