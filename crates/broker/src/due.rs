//! What is to be done at some time: refreshes ahead of expiry, second looks at suspects.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use parking_lot::Mutex;
use tokenward_types::{ConnectionId, TenantId, Timestamp};

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
pub(crate) struct Schedule(Mutex<BinaryHeap<Item>>);

impl Schedule {
    /// Adds something.
    pub(crate) fn push(&self, at: Timestamp, tenant: TenantId, connection: ConnectionId, due: Due) {
        self.0.lock().push(Reverse((at, tenant, connection, due)));
    }

    fn pop(&self, now: Timestamp) -> Option<(TenantId, ConnectionId, Due)> {
        let mut items = self.0.lock();
        if items.peek().is_some_and(|Reverse((at, ..))| *at <= now) {
            return items.pop().map(|Reverse((_, tenant, connection, due))| (tenant, connection, due));
        }
        None
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
}
