//! What cases need besides the storage.

use std::fmt::Debug;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokenward_storage::{Result, Storage, StorageErrorKind};
use tokio::sync::Barrier;

use super::StorageFixture;
use super::samples::{client, tenant};

/// How many callers the third tier lets loose at once.
pub(super) const MANY: usize = 100;

/// Opens a database with the schema in it.
pub(super) async fn ready(fixture: &dyn StorageFixture) -> Arc<dyn Storage> {
    let storage = fixture.open().await;
    storage.migrate().await.expect("an empty database takes the schema");
    storage
}

/// Opens a database with the tenants `a` and `b` and the client `client`.
pub(super) async fn furnished(fixture: &dyn StorageFixture) -> Arc<dyn Storage> {
    let storage = ready(fixture).await;
    for id in ["a", "b"] {
        storage.create_tenant(&tenant(id)).await.expect("the tenant is new");
    }
    storage.create_oauth_client(&client("client")).await.expect("the client is new");
    storage
}

/// The kind of a call's failure.
pub(super) fn kind<T: Debug>(result: Result<T>) -> StorageErrorKind {
    result.expect_err("the call must fail").kind()
}

/// Calls `task` many times from tasks that all start together; the results in order of their numbers.
pub(super) async fn at_once<F, Fut>(count: usize, storage: &Arc<dyn Storage>, task: F) -> Vec<Fut::Output>
where
    F: Fn(usize, Arc<dyn Storage>) -> Fut,
    Fut: Future + Send + 'static,
    Fut::Output: Send + 'static,
{
    let barrier = Arc::new(Barrier::new(count));
    let tasks: Vec<_> = (0..count)
        .map(|number| {
            let barrier = Arc::clone(&barrier);
            let call = task(number, Arc::clone(storage));
            let storage = Arc::clone(storage);
            tokio::spawn(async move {
                // Opens the pool's connections, which would let the first few callers run ahead.
                storage.list_issuer_keys().await.expect("the database answers");
                barrier.wait().await;
                call.await
            })
        })
        .collect();
    let mut results = Vec::new();
    for task in tasks {
        results.push(task.await.expect("the task must not panic"));
    }
    results
}

/// Asks until something holds that time or others bring about.
pub(super) async fn soon(mut holds: impl AsyncFnMut() -> bool) {
    let asked = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), asked).await.expect("it comes about in time");
}

/// Polls a call `polls` times at the most and drops it then; its result if it finished.
pub(super) async fn dropped_after<F: Future>(polls: usize, call: F) -> Option<F::Output> {
    let mut call = pin!(call);
    let mut left = polls;
    std::future::poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        call.as_mut().poll(context).map(Some)
    })
    .await
}
