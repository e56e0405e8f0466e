//! Work that leaves the processors to callers.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::thread;

use tokenward_storage::Storage;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tracing::Instrument;

use crate::broker::Broker;

/// How many pieces of work a thread does between two offers of its processor: some 50 microseconds, where each is a data key or a
/// field.
const PIECES: u32 = 16;

thread_local! {
    /// Pieces of work until the next offer. `None` on threads that have the priority of callers.
    static UNTIL_OFFER: Cell<Option<u32>> = const { Cell::new(None) };
}

impl Broker {
    /// Does work that callers come ahead of, with a storage whose threads, if it has any, are as low in priority; see [`run`].
    /// `None` when that came to nothing, which the log tells.
    pub(crate) async fn in_background<T, F>(
        &self,
        name: &str,
        work: impl FnOnce(Self, Arc<dyn Storage>) -> F + Send + 'static,
    ) -> Option<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let broker = self.clone();
        let work = async move {
            let storage = match broker.storage().in_background().await {
                Ok(Some(storage)) => storage,
                Ok(None) => broker.storage().clone(),
                Err(error) => {
                    tracing::warn!(%error, "work in the background reads and writes at the priority of callers");
                    broker.storage().clone()
                }
            };
            work(broker, storage).await
        };
        let done = run(name, work).await;
        done.inspect_err(|error| tracing::error!(name, %error, "work in the background was not done")).ok()
    }
}

/// Runs work on a thread of its own, which gets a processor when nobody else wants it: Linux's `SCHED_IDLE` (sched(7)). Threads that
/// the work itself starts are alike; tasks that it spawns, timers and sockets are the caller's runtime's, as ever.
///
/// # Errors
/// There can be no other thread, or the work panicked.
async fn run<T: Send + 'static>(name: &str, work: impl Future<Output = T> + Send + 'static) -> io::Result<T> {
    let (done, outcome) = oneshot::channel();
    let runtime = Handle::current();
    let work = work.in_current_span();
    let begin = move || {
        come_last();
        UNTIL_OFFER.set(Some(PIECES));
        // Nobody may wait for it any more.
        let _ = done.send(runtime.block_on(work));
    };
    thread::Builder::new().name(name.to_owned()).spawn(begin)?;
    outcome.await.map_err(|_| io::Error::other("the thread ended early"))
}

/// Comes before a piece of work: every [`PIECES`] of them the processor is offered to whoever waits for one. Linux lets even a
/// thread of the lowest priority run on for milliseconds while those that wait had more than their share shortly before;
/// threads of callers just go on.
pub(crate) fn offer() {
    if is_time_to_offer() {
        thread::yield_now();
    }
}

fn is_time_to_offer() -> bool {
    let Some(left) = UNTIL_OFFER.get() else { return false };
    let is_time = left <= 1;
    UNTIL_OFFER.set(Some(if is_time { PIECES } else { left - 1 }));
    is_time
}

/// Lowers this thread's priority for good: without privileges there is no way back.
fn come_last() {
    #[cfg(target_os = "linux")]
    {
        use thread_priority::{
            NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy,
            thread_native_id,
        };
        let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
        if let Err(error) = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, idle) {
            tracing::debug!(
                ?error,
                "work in the background has the priority of callers: the system refuses a lower one"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_runs_on_a_thread_of_its_own_and_its_outcome_comes_back() {
        let here = thread::current().id();
        let there = run("test", async {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            (thread::current().id(), thread::current().name().map(str::to_owned))
        });
        let (there, name) = there.await.expect("it runs");
        assert_ne!(there, here);
        assert_eq!(name.as_deref(), Some("test"));
    }

    #[tokio::test]
    async fn a_panic_is_an_error() {
        let panicked = run("test", async { panic!("planned") });
        let panicked: io::Result<()> = panicked.await;
        assert_eq!(panicked.expect_err("it panicked").to_string(), "the thread ended early");
    }

    #[tokio::test]
    async fn only_threads_in_the_background_offer_their_processor_and_do_so_at_intervals() {
        let offers = || (0..=3 * PIECES).filter(|_| is_time_to_offer()).count();
        assert_eq!(run("test", async move { offers() }).await.expect("it runs"), 3);
        assert_eq!(offers(), 0);
    }

    /// The 41st field (proc_pid_stat(5)): 5 is SCHED_IDLE.
    #[cfg(target_os = "linux")]
    fn policy_of(stat: impl AsRef<std::path::Path>) -> Option<u32> {
        let stat = std::fs::read_to_string(stat).ok()?;
        let (_, fields) = stat.rsplit_once(") ")?;
        fields.split(' ').nth(38)?.parse().ok()
    }

    /// The policies of this process's threads of such a name.
    #[cfg(target_os = "linux")]
    fn policies_of_threads(name: &str) -> Vec<u32> {
        let threads = std::fs::read_dir("/proc/self/task").expect("Linux has it");
        let folders = threads.map(|thread| thread.expect("a thread").path());
        let is_such = |folder: &std::path::PathBuf| {
            // A thread may have ended meanwhile.
            std::fs::read_to_string(folder.join("comm")).is_ok_and(|comm| comm.starts_with(name))
        };
        folders.filter(is_such).filter_map(|folder| policy_of(folder.join("stat"))).collect()
    }

    #[cfg(target_os = "linux")]
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_database_in_this_process_works_on_a_thread_as_low_in_priority() {
        let folder = tempfile::tempdir().expect("a folder");
        let section = tokenward_plugin::Section {
            at: "storage".to_owned(),
            name: "storage".to_owned(),
            values: std::iter::once(("path".to_owned(), folder.path().join("tokenward.db").to_str().into()))
                .collect(),
        };
        let registry = tokenward_plugin::Registry::new("storage").with(tokenward_storage_sea::sqlite());
        let context = tokenward_storage::StorageContext { exclusive: true };
        let storage = registry.prepare("sqlite", &section, &context).expect("a section").build().await;
        let storage = storage.expect("it opens");
        // A task of the runtime that opened it instead would not always be first.
        for _ in 0..20 {
            let storage = storage.clone();
            let policies = run("test", async move {
                let opened = storage.in_background().await.expect("it opens").expect("once more");
                let policies = policies_of_threads("sqlite-jobs");
                opened.close().await;
                policies
            });
            assert_eq!(policies.await.expect("it runs"), [5]);
        }
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn it_and_threads_that_it_starts_are_idle_and_tasks_that_it_spawns_are_not() {
        fn policy() -> u32 {
            policy_of("/proc/thread-self/stat").expect("Linux has it")
        }
        let policies = run("test", async {
            let task = tokio::spawn(async { policy() });
            let started = thread::spawn(policy).join().expect("it ends");
            (policy(), started, task.await.expect("it ends"))
        });
        assert_eq!(policies.await.expect("it runs"), (5, 5, 0));
    }
}
