//! What is to be done at some time: refreshes ahead of expiry, second looks at suspects.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokenward_types::{ConnectionId, Rng, TenantId, Timestamp};

use tokenward_storage::{ConnectionFilter, ConnectionState, PageRequest};

use crate::Error;
use crate::backoff::upto;
use crate::broker::Broker;
use crate::directory::Entry;
use crate::refresh::Want;
use crate::token::LiveToken;

/// A token that comes to its last quarter. Every connection in memory has one of these, so it is small; it is void when
/// memory lost the connection.
struct Ahead {
    at: Timestamp,
    entry: Weak<Entry>,
}

impl PartialEq for Ahead {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Ahead {}

impl PartialOrd for Ahead {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ahead {
    fn cmp(&self, other: &Self) -> Ordering {
        self.at.cmp(&other.at)
    }
}

/// What is due, earliest first.
#[derive(Default)]
pub(crate) struct Schedule {
    ahead: Mutex<BinaryHeap<Reverse<Ahead>>>,
    looks: Mutex<Looks>,
}

/// Grants that were called dead once and can be asked about again.
#[derive(Default)]
struct Looks {
    heap: BinaryHeap<Reverse<(Timestamp, TenantId, ConnectionId)>>,
    /// Those that will be looked at: once is enough.
    planned: HashSet<(TenantId, ConnectionId)>,
}

impl Schedule {
    /// Plans a refresh ahead of expiry.
    pub(crate) fn push_ahead(&self, at: Timestamp, entry: &Arc<Entry>) {
        self.ahead.lock().push(Reverse(Ahead { at, entry: Arc::downgrade(entry) }));
    }

    /// Plans a look at a suspect, unless one is planned.
    pub(crate) fn push_look(&self, at: Timestamp, tenant: &TenantId, connection: &ConnectionId) {
        let mut looks = self.looks.lock();
        if looks.planned.insert((tenant.clone(), connection.clone())) {
            looks.heap.push(Reverse((at, tenant.clone(), connection.clone())));
        }
    }

    fn pop_ahead(&self, now: Timestamp) -> Option<Arc<Entry>> {
        let mut ahead = self.ahead.lock();
        while ahead.peek().is_some_and(|Reverse(next)| next.at <= now) {
            let next = ahead.pop().and_then(|Reverse(next)| next.entry.upgrade());
            if next.is_some() {
                return next;
            }
        }
        None
    }

    fn pop_look(&self, now: Timestamp) -> Option<(TenantId, ConnectionId)> {
        let mut looks = self.looks.lock();
        if looks.heap.peek().is_none_or(|Reverse((at, ..))| *at > now) {
            return None;
        }
        let Reverse((_, tenant, connection)) = looks.heap.pop()?;
        let suspect = (tenant, connection);
        looks.planned.remove(&suspect);
        Some(suspect)
    }
}

/// When in its life a token is refreshed ahead of expiry: at the percentage, less up to a tenth of its life at random.
fn ahead(lifetime: Duration, percent: u32, rng: &dyn Rng) -> Duration {
    (lifetime * percent / 100).saturating_sub(upto(lifetime / 10, rng))
}

impl Broker {
    /// Plans the refresh of a token ahead of its expiry, with jitter, so that tokens that were got together are not
    /// refreshed together.
    pub(crate) fn plan_ahead(&self, entry: &Arc<Entry>, live: &LiveToken) {
        let Some(lifetime) = live.life() else { return };
        let at = live.issued_at + ahead(lifetime, self.settings().refresh_ahead_percent, self.rng());
        self.schedule().push_ahead(at, entry);
    }

    /// Starts what is due. Connections that nobody asked for within the last token life are left alone.
    pub(crate) fn run_due(&self) {
        let now = self.now();
        while let Some((tenant, connection)) = self.schedule().pop_look(now) {
            drop(self.refresh(&tenant, &connection, Want::Confirm));
        }
        while let Some(entry) = self.schedule().pop_ahead(now) {
            self.refresh_ahead(&entry, now);
        }
    }

    fn refresh_ahead(&self, entry: &Arc<Entry>, now: Timestamp) {
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
            self.schedule().push_ahead(failing.until, entry);
            return;
        }
        drop(self.refresh(&entry.tenant, &entry.id, Want::NewerThan(live.issued_at)));
    }

    /// Plans a look at every suspect that none is planned for: one that could not be had, or was left by a former process.
    pub(crate) async fn plan_suspects(&self) -> Result<(), Error> {
        let filter = ConnectionFilter { state: Some(ConnectionState::Suspect), ..Default::default() };
        let mut page = PageRequest::first();
        loop {
            let suspects = self.storage().list_connections(&filter, &page).await?;
            for suspect in suspects.items {
                let at = self.now() + self.next_look(&suspect);
                self.schedule().push_look(at, &suspect.tenant, &suspect.id);
            }
            match suspects.next {
                Some(next) => page.after = Some(next),
                None => return Ok(()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokenward_storage::{Connection, ConnectionKind, Tenant, TenantState};
    use tokenward_types::{AccountId, Clock, ManualClock, ProviderName, SeededRng};

    use super::*;
    use crate::directory::Directory;

    const START: Timestamp = Timestamp::from_secs(1_000_000);

    fn entries(count: u32) -> Vec<Arc<Entry>> {
        let tenant = Tenant {
            id: TenantId::parse("acme").unwrap(),
            display_name: String::new(),
            labels: std::collections::BTreeMap::new(),
            state: TenantState::Active,
            created_at: START,
            updated_at: START,
            version: 1,
        };
        let connection = |n: u32| Connection {
            tenant: tenant.id.clone(),
            id: ConnectionId::parse(&format!("con_{n}")).unwrap(),
            provider: ProviderName::parse("hubspot").unwrap(),
            kind: ConnectionKind::OAuth,
            oauth_client: None,
            account: AccountId::parse(&n.to_string()).unwrap(),
            account_name: String::new(),
            state: ConnectionState::Active,
            state_reason: String::new(),
            state_since: START,
            tokens: None,
            lease_fence: 0,
            grant_fence: 0,
            consent_epoch: 0,
            lease: None,
            created_at: START,
            updated_at: START,
            version: 1,
        };
        let connections: Vec<_> = (0..count).map(connection).collect();
        let directory = Directory::new(u64::from(count));
        directory.insert(directory.reading(), tenant, &connections).unwrap().connections.to_vec()
    }

    #[test]
    fn what_memory_lost_is_not_due() {
        let (schedule, mut entries) = (Schedule::default(), entries(2));
        for entry in &entries {
            schedule.push_ahead(START, entry);
        }
        let kept = entries.remove(1);
        drop(entries);
        assert!(Arc::ptr_eq(&schedule.pop_ahead(START).unwrap(), &kept));
        assert!(schedule.pop_ahead(START).is_none());
    }

    #[test]
    fn a_suspect_is_looked_at_once() {
        let schedule = Schedule::default();
        let suspect = (TenantId::parse("acme").unwrap(), ConnectionId::parse("con_1").unwrap());
        for wait in [5, 3] {
            schedule.push_look(START + Duration::from_secs(wait), &suspect.0, &suspect.1);
        }
        assert_eq!(schedule.pop_look(START + Duration::from_secs(4)), None, "the first plan stands");
        assert_eq!(schedule.pop_look(START + Duration::from_secs(5)), Some(suspect));
        assert_eq!(schedule.pop_look(START + Duration::from_secs(5)), None);
    }

    /// 10,000 connections whose tokens were issued in the same second, over ten generations: no second has more than a few
    /// times its share, the first generation included.
    #[test]
    fn tokens_that_were_issued_together_are_not_refreshed_together() {
        const CONNECTIONS: u32 = 10_000;
        let (rng, schedule) = (SeededRng::new(5), Schedule::default());
        let clock = ManualClock::new(START);
        let lifetime = Duration::from_secs(1800);
        let plan = |entry: &Arc<Entry>, now: Timestamp| {
            schedule.push_ahead(now + ahead(lifetime, 75, &rng), entry);
        };
        let entries = entries(CONNECTIONS);
        for entry in &entries {
            plan(entry, clock.now());
        }
        let (mut busiest, mut refreshes) = (0, 0);
        while refreshes < 10 * CONNECTIONS {
            clock.advance(Duration::from_secs(1));
            let mut in_this_second = 0;
            while let Some(entry) = schedule.pop_ahead(clock.now()) {
                in_this_second += 1;
                plan(&entry, clock.now());
            }
            busiest = busiest.max(in_this_second);
            refreshes += in_this_second;
        }
        // A tenth of the life is 180 seconds.
        assert!(busiest < 2 * CONNECTIONS / 180, "{busiest} in one second");
    }
}
