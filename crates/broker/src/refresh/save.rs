//! Results that the database has not taken yet: offered again until it does.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokenward_storage::{CommitOutcome, Connection, RefreshCommit};
use tokenward_types::{ConnectionId, TenantId};
use tokio::task::JoinHandle;

use super::record::{Fresh, is_outage};
use crate::broker::Broker;
use crate::token::LiveToken;
use crate::{Error, Reason};

/// How often a result is offered to a database that was away.
const RETRY: Duration = Duration::from_millis(500);
/// The same when the database answers with an error that is not an outage.
const RETRY_AFTER_ERROR: Duration = Duration::from_secs(10);
/// How often a shutdown looks whether everything is stored.
const LOOK: Duration = Duration::from_millis(50);
/// How often it looks when the journal has what is left: for a database that is just coming back.
const LOOKS_AT_JOURNALED: u32 = 40;

type Key = (TenantId, ConnectionId);

/// Where a result is that is not in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// In memory alone: it goes with the process.
    InMemory,
    /// In the journal.
    InJournal,
}

/// Results that wait for the database, by connection and fence.
#[derive(Default)]
pub(crate) struct Unsaved(Mutex<HashMap<Key, BTreeMap<i64, Kept>>>);

impl Unsaved {
    /// The connections with results that are kept so, as `tenant/connection`, in order.
    pub(crate) fn names(&self, kept: Kept) -> Vec<String> {
        let unsaved = self.0.lock();
        let having = unsaved.iter().filter(|(_, results)| results.values().any(|other| *other == kept));
        let mut names: Vec<_> =
            having.map(|((tenant, connection), _)| format!("{tenant}/{connection}")).collect();
        names.sort();
        names
    }

    /// Whether a result of this connection waits.
    pub(crate) fn contains(&self, tenant: &TenantId, connection: &ConnectionId) -> bool {
        let unsaved = self.0.lock();
        !unsaved.is_empty() && unsaved.contains_key(&(tenant.clone(), connection.clone()))
    }

    /// Waits until there are none, or for a moment if the journal has them all.
    pub(crate) async fn finished(&self) {
        let mut looks = 0;
        loop {
            let is_empty = self.0.lock().is_empty();
            if is_empty || (looks >= LOOKS_AT_JOURNALED && self.names(Kept::InMemory).is_empty()) {
                return;
            }
            looks += 1;
            tokio::time::sleep(LOOK).await;
        }
    }

    pub(super) fn put(&self, key: Key, fence: i64, kept: Kept) {
        self.0.lock().entry(key).or_default().insert(fence, kept);
    }

    pub(super) fn remove(&self, key: &Key, fence: i64) {
        let mut unsaved = self.0.lock();
        if let Some(results) = unsaved.get_mut(key) {
            results.remove(&fence);
            if results.is_empty() {
                unsaved.remove(key);
            }
        }
    }
}

/// A result that waits for the database.
pub(super) struct Waiting {
    row: Connection,
    fresh: Fresh,
    live: Arc<LiveToken>,
    /// `None` while it cannot be sealed.
    commit: Option<Arc<RefreshCommit>>,
    /// Its name in the journal.
    entry: Option<String>,
    /// The first try, if it goes on.
    under_way: Option<JoinHandle<Result<CommitOutcome, Error>>>,
}

impl Waiting {
    /// One that is not sealed yet, and so in memory alone.
    pub(super) fn unsealed(row: Connection, fresh: Fresh, live: Arc<LiveToken>) -> Self {
        Self { row, fresh, live, commit: None, entry: None, under_way: None }
    }

    /// One that only the database is missing for.
    pub(super) fn sealed(
        row: Connection,
        fresh: Fresh,
        live: Arc<LiveToken>,
        commit: Arc<RefreshCommit>,
        entry: Option<String>,
        under_way: Option<JoinHandle<Result<CommitOutcome, Error>>>,
    ) -> Self {
        Self { row, fresh, live, commit: Some(commit), entry, under_way }
    }

    fn kept(&self) -> Kept {
        if self.entry.is_some() { Kept::InJournal } else { Kept::InMemory }
    }

    async fn try_once(&mut self, broker: &Broker) -> Result<CommitOutcome, Error> {
        if let Some(under_way) = self.under_way.take() {
            return under_way
                .await
                .unwrap_or_else(|error| Err(Error::new(Reason::Internal, "internal error").internal(error)));
        }
        let commit = match &self.commit {
            Some(commit) => Arc::clone(commit),
            None => Arc::new(broker.seal_commit(&self.row, &self.fresh, &self.live).await?),
        };
        self.commit = Some(Arc::clone(&commit));
        match broker.start_commit(&commit).await {
            Ok(Ok(outcome)) => Ok(outcome),
            Ok(Err(error)) if error.reason == Reason::KeyNotReady => {
                // The data key that sealed it is gone: the plain tokens are sealed under the one that took its place.
                broker.sealer().forget(self.row.tenant.as_str());
                self.commit = None;
                Err(error)
            }
            Ok(Err(error)) => {
                if self.entry.is_none() {
                    self.entry = broker.journal_commit(&commit).await;
                }
                Err(error)
            }
            Err(error) => Err(Error::new(Reason::Internal, "internal error").internal(error)),
        }
    }
}

impl Broker {
    /// Offers a result to the database until it takes it.
    pub(super) fn save_later(&self, mut waiting: Waiting) {
        let key = (waiting.row.tenant.clone(), waiting.row.id.clone());
        let fence = waiting.fresh.fence;
        self.unsaved().put(key.clone(), fence, waiting.kept());
        self.metrics().unsaved.inc();
        let broker = self.clone();
        self.spawn(async move {
            let mut was_refused = false;
            let outcome = loop {
                let result = waiting.try_once(&broker).await;
                broker.unsaved().put(key.clone(), fence, waiting.kept());
                match result {
                    Ok(outcome) => break Some(outcome),
                    Err(error) if error.reason == Reason::NotFound => {
                        tracing::warn!(tenant = %key.0, connection = %key.1, "the tenant of a refreshed token is gone");
                        break None;
                    }
                    Err(error) => {
                        was_refused = true;
                        broker.wait_to_save(&key, &error).await;
                    }
                }
            };
            if let Some(entry) = &waiting.entry {
                // A commit that was only slow needed no journal in the end.
                if was_refused && outcome.is_some() {
                    broker.metrics().journal_replays.inc();
                }
                broker.remove_entry(entry).await;
            }
            if let Some(outcome) = outcome {
                tracing::info!(tenant = %key.0, connection = %key.1, "a refreshed token is stored at last");
                let _ = broker.settle(&waiting.row, outcome, waiting.live).await;
            }
            broker.metrics().unsaved.dec();
            broker.unsaved().remove(&key, fence);
        });
    }

    /// Waits until another try makes sense.
    pub(super) async fn wait_to_save(&self, (tenant, connection): &Key, error: &Error) {
        if is_outage(error.reason) {
            self.outage().begin();
            self.timer().sleep(RETRY).await;
        } else {
            tracing::error!(%tenant, %connection, %error, detail = error.log_detail(), "a refreshed token cannot be stored");
            self.timer().sleep(RETRY_AFTER_ERROR).await;
        }
    }
}
