//! What is to be done at some time: refreshes ahead of expiry, second looks at suspects.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::time::Duration;

use parking_lot::Mutex;
use tokenward_types::{ConnectionId, TenantId, Timestamp};

use tokenward_storage::{ConnectionFilter, ConnectionState, PageRequest};

use crate::Error;
use crate::broker::Broker;
use crate::directory::Entry;
use crate::refresh::Want;
use crate::token::LiveToken;

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Due {
    /// A token comes to its last quarter.
    Ahead,
    /// A grant that was called dead once can be asked about again.
    Confirm,
}

type Item = Reverse<(Timestamp, TenantId, ConnectionId, Due)>;

/// What is due, earliest first.
#[derive(Default)]
pub(crate) struct Schedule(Mutex<Items>);

#[derive(Default)]
struct Items {
    heap: BinaryHeap<Item>,
    /// Suspects that will be looked at: once is enough.
    confirming: HashSet<(TenantId, ConnectionId)>,
}

impl Schedule {
    /// Adds something.
    pub(crate) fn push(&self, at: Timestamp, tenant: TenantId, connection: ConnectionId, due: Due) {
        let mut items = self.0.lock();
        if due == Due::Ahead || items.confirming.insert((tenant.clone(), connection.clone())) {
            items.heap.push(Reverse((at, tenant, connection, due)));
        }
    }

    fn pop(&self, now: Timestamp) -> Option<(TenantId, ConnectionId, Due)> {
        let mut items = self.0.lock();
        if items.heap.peek().is_none_or(|Reverse((at, ..))| *at > now) {
            return None;
        }
        let Reverse((_, tenant, connection, due)) = items.heap.pop()?;
        if due == Due::Confirm {
            items.confirming.remove(&(tenant.clone(), connection.clone()));
        }
        Some((tenant, connection, due))
    }
}

impl Broker {
    /// Plans the refresh of a token ahead of its expiry, with jitter, so that tokens that were got together are not
    /// refreshed together.
    pub(crate) fn plan_ahead(&self, entry: &Entry, live: &LiveToken) {
        let Some(lifetime) = live.life() else { return };
        let ahead = lifetime * self.settings().refresh_ahead_percent / 100;
        let spread = u64::try_from((lifetime / 10).as_millis()).unwrap_or(0);
        let jitter = Duration::from_millis(self.rng().below(spread + 1));
        let at = live.issued_at + ahead.saturating_sub(jitter);
        self.schedule().push(at, entry.tenant.clone(), entry.id.clone(), Due::Ahead);
    }

    /// Starts what is due. Connections that nobody asked for within the last token life are left alone.
    pub(crate) fn run_due(&self) {
        let now = self.now();
        while let Some((tenant, connection, due)) = self.schedule().pop(now) {
            match due {
                Due::Confirm => drop(self.refresh(&tenant, &connection, Want::Confirm)),
                Due::Ahead => self.refresh_ahead(&tenant, &connection, now),
            }
        }
    }

    fn refresh_ahead(&self, tenant: &TenantId, connection: &ConnectionId, now: Timestamp) {
        let Some(entry) = self.directory().connection(tenant, connection) else { return };
        let snapshot = entry.snapshot().clone();
        let Some(live) = &snapshot.live else { return };
        let Some(lifetime) = live.life() else { return };
        let in_use = now.since(entry.last_asked()) < lifetime;
        // A plan for a token that was replaced meanwhile is void: the new one has its own.
        let is_early =
            now < live.issued_at + lifetime * self.settings().refresh_ahead_percent / 100 - lifetime / 10;
        if !in_use || is_early {
            return;
        }
        if let Some(failing) = snapshot.failing.as_ref().filter(|failing| failing.until > now) {
            self.schedule().push(failing.until, tenant.clone(), connection.clone(), Due::Ahead);
            return;
        }
        drop(self.refresh(tenant, connection, Want::NewerThan(live.issued_at)));
    }

    /// Plans a look at every suspect that none is planned for: one that could not be had, or was left by a former process.
    pub(crate) async fn plan_suspects(&self) -> Result<(), Error> {
        let filter = ConnectionFilter { state: Some(ConnectionState::Suspect), ..Default::default() };
        let mut page = PageRequest::first();
        loop {
            let suspects = self.storage().list_connections(&filter, &page).await?;
            for suspect in suspects.items {
                let at = self.now() + self.next_look(&suspect);
                self.schedule().push(at, suspect.tenant, suspect.id, Due::Confirm);
            }
            match suspects.next {
                Some(next) => page.after = Some(next),
                None => return Ok(()),
            }
        }
    }
}
