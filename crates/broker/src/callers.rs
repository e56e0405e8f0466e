//! Callers who wait for a refresh. As long as there are any, it goes ahead of refreshes that nobody waits for; and who would
//! have to wait for too long is told so at once.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokenward_types::{ConnectionId, OAuthClientId, TenantId};
use tokio::sync::watch;

use crate::broker::Broker;
use crate::line::Key;
use crate::{Error, Reason};

/// How long a caller waits for the turn of a refresh.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// The connections that callers wait for.
#[derive(Default)]
pub(crate) struct Callers(Mutex<HashMap<Key, Waited>>);

struct Waited {
    callers: usize,
    /// How long until the turn of its refresh, while it stands in line.
    turn: watch::Sender<Option<Duration>>,
}

/// A caller who waits, until it is dropped.
struct Caller<'a> {
    callers: &'a Callers,
    key: Key,
    turn: watch::Receiver<Option<Duration>>,
}

impl Callers {
    /// Whether anybody waits for a connection.
    pub(crate) fn contain(&self, key: &Key) -> bool {
        self.0.lock().contains_key(key)
    }

    /// Tells those who wait for a connection when its turn is; `None` when it does not stand in line any more.
    pub(crate) fn tell(&self, key: &Key, turn: Option<Duration>) {
        if let Some(waited) = self.0.lock().get(key) {
            waited.turn.send_replace(turn);
        }
    }

    fn enter(&self, key: Key) -> Caller<'_> {
        let mut waited = self.0.lock();
        let entry = waited
            .entry(key.clone())
            .or_insert_with(|| Waited { callers: 0, turn: watch::Sender::new(None) });
        entry.callers += 1;
        Caller { callers: self, turn: entry.turn.subscribe(), key }
    }
}

impl Drop for Caller<'_> {
    fn drop(&mut self) {
        let mut waited = self.callers.0.lock();
        if let Some(entry) = waited.get_mut(&self.key) {
            entry.callers -= 1;
            if entry.callers == 0 {
                waited.remove(&self.key);
            }
        }
    }
}

impl Caller<'_> {
    /// Ends when the refresh will not have its turn in time, or did not have it; gives the time that is left until then.
    async fn impatient(&mut self, patience: Duration) -> Duration {
        loop {
            let turn = *self.turn.borrow_and_update();
            if let Some(wait) = turn.filter(|wait| *wait > patience) {
                return wait;
            }
            let changed = tokio::select! {
                changed = self.turn.changed() => changed,
                wait = late(turn, patience) => return wait,
            };
            if changed.is_err() {
                // Nobody tells any more.
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Ends with the time that was told, if a turn that was to come in time does not.
async fn late(turn: Option<Duration>, patience: Duration) -> Duration {
    match turn {
        Some(wait) => {
            tokio::time::sleep(patience).await;
            wait
        }
        None => std::future::pending().await,
    }
}

impl Broker {
    /// Waits for a refresh on a caller's behalf: it goes ahead of those that nobody waits for.
    ///
    /// # Errors
    /// Those of the refresh; `ProviderRateLimited` with the time to wait when its turn does not come in time. It keeps
    /// its place then: who asks again joins it.
    pub(crate) async fn patiently<T>(
        &self,
        tenant: &TenantId,
        connection: &ConnectionId,
        client: Option<&OAuthClientId>,
        refresh: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let key = (tenant.clone(), connection.clone());
        let mut caller = self.callers().enter(key);
        if let Some(client) = client {
            self.hurry(client, &caller.key);
        }
        tokio::select! {
            biased;
            result = refresh => result,
            wait = caller.impatient(PATIENCE) => Err(Error::new(
                Reason::ProviderRateLimited,
                "the token is refreshed when its turn comes: more have to be than the provider may be asked for",
            )
            .with("connection_id", connection.as_str())
            .retry_after(wait.clamp(Duration::from_secs(1), Duration::from_secs(300)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn key() -> Key {
        (TenantId::parse("acme").unwrap(), ConnectionId::parse("con_1").unwrap())
    }

    #[tokio::test]
    async fn who_would_wait_for_too_long_is_told_at_once() {
        let callers = Callers::default();
        let mut caller = callers.enter(key());
        callers.tell(&key(), Some(PATIENCE * 3));
        assert_eq!(caller.impatient(PATIENCE).now_or_never(), Some(PATIENCE * 3));
    }

    #[tokio::test]
    async fn who_waited_for_too_long_is_told_then() {
        let callers = Callers::default();
        let mut caller = callers.enter(key());
        let (patience, wait) = (Duration::from_millis(20), Duration::from_millis(15));
        callers.tell(&key(), Some(wait));
        let started = tokio::time::Instant::now();
        assert_eq!(caller.impatient(patience).await, wait);
        assert!(started.elapsed() >= patience);
    }

    #[tokio::test]
    async fn whose_turn_has_come_waits_for_the_answer() {
        let callers = Callers::default();
        let mut caller = callers.enter(key());
        callers.tell(&key(), Some(PATIENCE * 3));
        callers.tell(&key(), None);
        assert_eq!(caller.impatient(PATIENCE).now_or_never(), None);
    }

    #[test]
    fn a_connection_is_waited_for_until_the_last_caller_has_gone() {
        let callers = Callers::default();
        let (one, two) = (callers.enter(key()), callers.enter(key()));
        drop(one);
        assert!(callers.contain(&key()));
        drop(two);
        assert!(!callers.contain(&key()));
    }
}
