//! A call whose future is dropped happened as a whole or not at all, wherever it was. Each case drops it after its first
//! poll, then after its second, and so on, until a call comes through. One that comes through before any was dropped met a busy
//! machine, where whoever is waited for was quicker each time, and shows nothing.

use std::sync::Arc;

use tokenward_storage::{
    Connection, ConnectionState, Consent, ConsentBase, DataKeyRecord, Result, SchemaStatus, Storage,
    StorageErrorKind,
};

use crate::storage::StorageFixture;
use crate::storage::samples::{
    at, begin, begun, commit, connected, consent, current, data_key, link, link_id, pending, tenant_id,
    with_spare,
};
use crate::storage::tools::{dropped_after, furnished, kind};

/// More polls than any call takes.
const ENOUGH: usize = 10_000;

/// Whether calls were dropped so far.
#[derive(Default)]
struct Drops(bool);

impl Drops {
    /// Whether a call came through, which must have happened then, after another one was dropped.
    fn suffice<T>(&mut self, finished: Option<Result<T>>, happened: bool) -> bool {
        let came_through =
            finished.map(|result| result.expect("a call that came through succeeded")).is_some();
        assert!(happened || !came_through);
        self.0 |= !came_through;
        came_through && self.0
    }
}

/// Waits until what a dropped call left behind is over: a consent on a connection that does not exist takes its turn
/// behind all others to the same account, and changes nothing.
async fn settled(storage: &Arc<dyn Storage>, like: &Consent) {
    let base = ConsentBase::Existing { consent_epoch: -1, lease_fence: -1 };
    let probe = Consent { base, link: None, pending: None, ..like.clone() };
    assert_eq!(kind(storage.save_consent(&probe).await), StorageErrorKind::Conflict);
}

pub async fn a_consent_that_is_dropped_midway_leaves_nothing_half_written(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let mut drops = Drops::default();
    for polls in 1..ENOUGH {
        let id = format!("c{polls}");
        storage.create_connect_link(&link("a", &id)).await.unwrap();
        storage.save_pending_grant(&pending("a", &id)).await.unwrap();
        let consent = Consent { link: Some(link_id(&id)), pending: Some(id.clone()), ..consent("a", &id) };
        let finished = dropped_after(polls, storage.save_consent(&consent)).await;
        settled(&storage, &consent).await;
        let saved = storage.get_connection(&consent.tenant, &consent.connection).await.unwrap().is_some();
        let link = storage.get_connect_link(&consent.tenant, &link_id(&id)).await.unwrap().unwrap();
        let pending = storage.list_pending_grants(ENOUGH.try_into().unwrap()).await.unwrap();
        let pending = pending.iter().any(|grant| grant.id == id);
        assert_eq!((link.used_at.is_some(), !pending), (saved, saved), "after {polls} polls");
        if drops.suffice(finished, saved) {
            return;
        }
    }
    panic!("no call came through");
}

pub async fn a_disconnect_that_is_dropped_midway_leaves_nothing_half_written(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let mut drops = Drops::default();
    for polls in 1..ENOUGH {
        let id = format!("c{polls}");
        let seen = connected(&storage, "a", &id).await;
        with_spare(&storage, &seen).await;
        begun(&storage, &seen).await;
        let finished =
            dropped_after(polls, storage.disconnect(&seen.tenant, &seen.id, None, "", at(60))).await;
        settled(&storage, &consent("a", &id)).await;
        let revoked = current(&storage, &seen).await.state == ConnectionState::Revoked;
        let queued = storage.list_revocations(at(100), ENOUGH.try_into().unwrap()).await.unwrap();
        let queued = queued.iter().any(|revocation| revocation.connection == seen.id);
        let attempts = storage.list_attempts(&seen.tenant, &seen.id).await.unwrap().len();
        let spares = storage.list_spares(&seen.tenant, &seen.id).await.unwrap().len();
        let left = usize::from(!revoked);
        assert_eq!((queued, attempts, spares), (revoked, left, left), "after {polls} polls");
        if drops.suffice(finished, revoked) {
            return;
        }
    }
    panic!("no call came through");
}

/// As [`settled`], for a connection that exists: an attempt that does not is ended behind all who hold the row.
async fn row_settled(storage: &Arc<dyn Storage>, connection: &Connection) {
    assert!(!storage.end_attempt(&connection.tenant, &connection.id, -1, true).await.unwrap());
}

pub async fn an_attempt_that_is_dropped_midway_leaves_nothing_half_written(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let mut drops = Drops::default();
    for polls in 1..ENOUGH {
        let seen = connected(&storage, "a", &format!("c{polls}")).await;
        let begin = begin(&seen);
        let finished = dropped_after(polls, storage.begin_attempt(&seen.tenant, &seen.id, &begin)).await;
        row_settled(&storage, &seen).await;
        let after = current(&storage, &seen).await;
        let attempts = storage.list_attempts(&seen.tenant, &seen.id).await.unwrap();
        let leased = after.lease.is_some();
        assert_eq!(attempts.len(), usize::from(leased), "after {polls} polls");
        assert_eq!(after.lease_fence, 1 + i64::from(leased), "after {polls} polls");
        if drops.suffice(finished, leased) {
            return;
        }
    }
    panic!("no call came through");
}

pub async fn a_commit_that_is_dropped_midway_leaves_nothing_half_written(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let mut drops = Drops::default();
    for polls in 1..ENOUGH {
        let seen = connected(&storage, "a", &format!("c{polls}")).await;
        let older = begun(&storage, &seen).await;
        let younger = begun(&storage, &seen).await;
        storage.commit_refresh(&commit(&older)).await.unwrap();
        // It overwrites a token that it did not spend, so that a spare is written too.
        let finished = dropped_after(polls, storage.commit_refresh(&commit(&younger))).await;
        row_settled(&storage, &seen).await;
        let committed = current(&storage, &seen).await.grant_fence == younger.fence;
        let attempts = storage.list_attempts(&seen.tenant, &seen.id).await.unwrap().len();
        let spares = storage.list_spares(&seen.tenant, &seen.id).await.unwrap().len();
        assert_eq!((attempts == 0, spares == 1), (committed, committed), "after {polls} polls");
        if drops.suffice(finished, committed) {
            return;
        }
    }
    panic!("no call came through");
}

pub async fn a_data_key_that_is_dropped_midway_leaves_one_active(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    storage.create_data_key(&data_key("a", 1)).await.unwrap();
    let mut drops = Drops::default();
    for id in 2..i32::try_from(ENOUGH).unwrap() {
        let key = data_key("a", id);
        let polls = usize::try_from(id).unwrap() - 1;
        let finished = dropped_after(polls, storage.create_data_key(&key)).await;
        // Takes its turn behind all others of the scope.
        let taken = DataKeyRecord { active: false, ..data_key("a", 1) };
        assert_eq!(kind(storage.create_data_key(&taken).await), StorageErrorKind::AlreadyExists);
        let keys = storage.list_data_keys("a").await.unwrap();
        let active: Vec<_> = keys.iter().filter(|key| key.active).map(|key| key.id).collect();
        assert_eq!(active, [keys[0].id], "after {polls} polls the newest one is active");
        if drops.suffice(finished, keys[0].id == id) {
            return;
        }
    }
    panic!("no call came through");
}

pub async fn a_migration_that_is_dropped_midway_can_be_repeated(fixture: &dyn StorageFixture) {
    let storage = fixture.open().await;
    for polls in [1, 2, 5, 10, 20, 50] {
        if dropped_after(polls, storage.migrate()).await.is_some() {
            break;
        }
        // Beside whatever the dropped call left behind, a status is one of the two that there are.
        let status = storage.schema_status().await.unwrap();
        assert!(!matches!(status, SchemaStatus::Newer(_)), "{status:?}");
    }
    storage.migrate().await.unwrap();
    assert_eq!(storage.schema_status().await.unwrap(), SchemaStatus::Current);
    storage.check_health().await.unwrap();
    assert_eq!(storage.get_tenant(&tenant_id("a")).await.unwrap(), None);
}
