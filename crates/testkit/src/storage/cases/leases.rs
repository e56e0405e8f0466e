use std::time::Duration;

use tokenward_storage::{
    Attempt, BeginAttempt, ConnectionKind, ConnectionState, Consent, StateChange, TokenSet,
};

use crate::storage::StorageFixture;
use crate::storage::samples::{
    at, begin, begun, commit, connected, connection_id, consent, consent_again, current, sealed, started,
    tenant_id, tokens,
};
use crate::storage::tools::{MANY, at_once, furnished};

pub async fn an_attempt_keeps_every_field(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let seen = connected(&storage, "a", "c1").await;
    let attempt = started(&storage, &seen, &begin(&seen)).await;
    let expected = Attempt {
        tenant: seen.tenant.clone(),
        connection: seen.id.clone(),
        fence: 2,
        consent_epoch: 1,
        refresh_token: sealed("refresh first"),
        token_fence: 1,
        secret_version: Some(3),
        owner: "server-ä".into(),
        started_at: at(30),
    };
    assert_eq!(attempt, expected);
    assert_eq!(storage.list_attempts(&seen.tenant, &seen.id).await.unwrap(), [expected]);
    let other = connected(&storage, "a", "c2").await;
    let public = BeginAttempt { secret_version: None, ..begin(&other) };
    let attempt = started(&storage, &other, &public).await;
    assert_eq!(attempt.secret_version, None);
}

pub async fn an_attempt_takes_the_lease_and_the_next_fence(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let seen = connected(&storage, "a", "c1").await;
    storage.begin_attempt(&seen.tenant, &seen.id, &begin(&seen)).await.unwrap().unwrap();
    let leased = current(&storage, &seen).await;
    let lease = leased.lease.as_ref().expect("the lease was given");
    assert_eq!(lease.owner, "server-ä");
    assert!(lease.remaining > Duration::from_mins(5) && lease.remaining <= Duration::from_mins(10));
    assert_eq!((leased.lease_fence, leased.grant_fence, leased.consent_epoch), (2, 1, 1));
    assert_eq!((leased.version, leased.updated_at), (seen.version + 1, seen.updated_at));
    assert_eq!((leased.tokens, leased.state), (seen.tokens, seen.state));
}

pub async fn while_a_lease_holds_nobody_else_begins(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let seen = connected(&storage, "a", "c1").await;
    storage.begin_attempt(&seen.tenant, &seen.id, &begin(&seen)).await.unwrap().unwrap();
    let leased = current(&storage, &seen).await;
    assert_eq!(storage.begin_attempt(&seen.tenant, &seen.id, &begin(&leased)).await.unwrap(), None);
    assert_eq!(storage.list_attempts(&seen.tenant, &seen.id).await.unwrap().len(), 1);
    assert_eq!(current(&storage, &seen).await.lease_fence, 2);
}

pub async fn a_lease_lapses_by_the_databases_clock(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let seen = connected(&storage, "a", "c1").await;
    let lapsed = begun(&storage, &seen).await;
    let after = current(&storage, &seen).await;
    let lease = after.lease.as_ref().expect("a lease that lapsed was not released");
    assert_eq!((&*lease.owner, lease.remaining), (&*lapsed.owner, Duration::ZERO));
    // The caller's time plays no part: its clock is far behind.
    let begin = BeginAttempt { now: at(-1_000_000), owner: "second".into(), ..begin(&after) };
    let attempt = started(&storage, &seen, &begin).await;
    assert_eq!(attempt.fence, 3);
    assert_eq!(current(&storage, &seen).await.lease.unwrap().owner, "second");
}

pub async fn attempts_of_former_holders_stand(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let seen = connected(&storage, "a", "c1").await;
    let first = begun(&storage, &seen).await;
    let second = begun(&storage, &seen).await;
    assert_eq!(storage.list_attempts(&seen.tenant, &seen.id).await.unwrap(), [second, first]);
}

pub async fn an_attempt_on_a_stale_fence_does_not_begin(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let seen = connected(&storage, "a", "c1").await;
    begun(&storage, &seen).await;
    assert_eq!(storage.begin_attempt(&seen.tenant, &seen.id, &begin(&seen)).await.unwrap(), None);
    assert_eq!(current(&storage, &seen).await.lease_fence, 2);
    assert_eq!(storage.list_attempts(&seen.tenant, &seen.id).await.unwrap().len(), 1);
}

pub async fn an_attempt_on_a_stale_grant_does_not_begin(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let seen = connected(&storage, "a", "c1").await;
    let attempt = begun(&storage, &seen).await;
    let before = current(&storage, &seen).await;
    storage.commit_refresh(&commit(&attempt)).await.unwrap();
    assert_eq!(storage.begin_attempt(&seen.tenant, &seen.id, &begin(&before)).await.unwrap(), None);
}

pub async fn an_attempt_on_a_stale_epoch_does_not_begin(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let seen = connected(&storage, "a", "c1").await;
    let again = storage.save_consent(&consent_again(&seen)).await.unwrap();
    let stale = BeginAttempt { seen_consent_epoch: 1, ..begin(&again) };
    assert_eq!(storage.begin_attempt(&seen.tenant, &seen.id, &stale).await.unwrap(), None);
    assert_eq!(current(&storage, &seen).await, again);
}

pub async fn an_attempt_on_a_revoked_connection_does_not_begin(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let seen = connected(&storage, "a", "c1").await;
    let revoked = storage.disconnect(&seen.tenant, &seen.id, None, "", at(60)).await.unwrap().unwrap();
    assert_eq!(storage.begin_attempt(&seen.tenant, &seen.id, &begin(&revoked)).await.unwrap(), None);
    assert_eq!(current(&storage, &seen).await, revoked);
}

pub async fn an_attempt_without_a_refresh_token_does_not_begin(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let consent = Consent {
        kind: ConnectionKind::Static,
        oauth_client: None,
        tokens: TokenSet { refresh_token: None, ..tokens("static") },
        ..consent("a", "c1")
    };
    let seen = storage.save_consent(&consent).await.unwrap();
    assert_eq!(storage.begin_attempt(&seen.tenant, &seen.id, &begin(&seen)).await.unwrap(), None);
    assert_eq!(current(&storage, &seen).await, seen);
}

pub async fn an_attempt_on_an_absent_connection_does_not_begin(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let seen = connected(&storage, "a", "c1").await;
    let absent = connection_id("c0");
    assert_eq!(storage.begin_attempt(&seen.tenant, &absent, &begin(&seen)).await.unwrap(), None);
    assert_eq!(storage.begin_attempt(&tenant_id("b"), &seen.id, &begin(&seen)).await.unwrap(), None);
}

pub async fn a_suspect_connection_is_refreshed(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let seen = connected(&storage, "a", "c1").await;
    for state in [ConnectionState::Suspect, ConnectionState::ReauthRequired] {
        let seen = current(&storage, &seen).await;
        let change = StateChange { seen: seen.version, state, reason: String::new(), now: at(60) };
        storage.change_state(&seen.tenant, &seen.id, &change).await.unwrap().unwrap();
        begun(&storage, &seen).await;
    }
}

pub async fn of_a_hundred_attempts_at_once_one_begins(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let seen = connected(&storage, "a", "c1").await;
    // A lease of no length: the fence alone must let only one through.
    for lease_for in [Duration::ZERO, Duration::from_mins(10)] {
        let seen = current(&storage, &seen).await;
        let results = at_once(MANY, &storage, |number, storage| {
            let begin = BeginAttempt { owner: format!("server-{number}"), lease_for, ..begin(&seen) };
            async move {
                let fence = storage.begin_attempt(&tenant_id("a"), &connection_id("c1"), &begin).await;
                fence.unwrap().map(|_| begin.owner)
            }
        })
        .await;
        let winners: Vec<_> = results.into_iter().flatten().collect();
        assert_eq!(winners.len(), 1);
        assert_eq!(current(&storage, &seen).await.lease.unwrap().owner, winners[0]);
    }
    assert_eq!(storage.list_attempts(&seen.tenant, &seen.id).await.unwrap().len(), 2);
}

pub async fn a_resolved_attempt_goes_and_releases_the_lease(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let seen = connected(&storage, "a", "c1").await;
    storage.begin_attempt(&seen.tenant, &seen.id, &begin(&seen)).await.unwrap().unwrap();
    let leased = current(&storage, &seen).await;
    assert!(storage.end_attempt(&seen.tenant, &seen.id, 2, true).await.unwrap());
    assert_eq!(storage.list_attempts(&seen.tenant, &seen.id).await.unwrap(), []);
    let ended = current(&storage, &seen).await;
    assert_eq!((ended.lease, ended.lease_fence, ended.version), (None, 2, leased.version + 1));
    assert_eq!(begun(&storage, &seen).await.fence, 3);
}

pub async fn an_unresolved_attempt_stays_and_releases_the_lease(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let seen = connected(&storage, "a", "c1").await;
    let attempt = started(&storage, &seen, &begin(&seen)).await;
    assert!(storage.end_attempt(&seen.tenant, &seen.id, 2, false).await.unwrap());
    assert_eq!(storage.list_attempts(&seen.tenant, &seen.id).await.unwrap(), [attempt]);
    assert_eq!(current(&storage, &seen).await.lease, None);
}

pub async fn ending_an_attempt_leaves_a_lease_of_a_later_one(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let seen = connected(&storage, "a", "c1").await;
    begun(&storage, &seen).await;
    let now = current(&storage, &seen).await;
    storage.begin_attempt(&seen.tenant, &seen.id, &begin(&now)).await.unwrap().unwrap();
    for resolved in [false, true] {
        assert!(storage.end_attempt(&seen.tenant, &seen.id, 2, resolved).await.unwrap());
        assert!(current(&storage, &seen).await.lease.is_some());
    }
    assert_eq!(storage.list_attempts(&seen.tenant, &seen.id).await.unwrap()[0].fence, 3);
}

pub async fn ending_an_absent_attempt_is_false(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let seen = connected(&storage, "a", "c1").await;
    storage.begin_attempt(&seen.tenant, &seen.id, &begin(&seen)).await.unwrap().unwrap();
    for resolved in [false, true] {
        assert!(!storage.end_attempt(&seen.tenant, &seen.id, 1, resolved).await.unwrap());
        assert!(!storage.end_attempt(&seen.tenant, &connection_id("c0"), 2, resolved).await.unwrap());
        assert!(!storage.end_attempt(&tenant_id("b"), &seen.id, 2, resolved).await.unwrap());
    }
    assert!(current(&storage, &seen).await.lease.is_some());
    assert!(storage.end_attempt(&seen.tenant, &seen.id, 2, true).await.unwrap());
    assert!(!storage.end_attempt(&seen.tenant, &seen.id, 2, true).await.unwrap());
}

pub async fn attempts_are_listed_newest_first(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let seen = connected(&storage, "a", "c1").await;
    for _ in 0..10 {
        begun(&storage, &seen).await;
    }
    let attempts = storage.list_attempts(&seen.tenant, &seen.id).await.unwrap();
    let fences: Vec<_> = attempts.iter().map(|attempt| attempt.fence).collect();
    assert_eq!(fences, (2..=11).rev().collect::<Vec<_>>());
}

pub async fn unresolved_attempts_are_those_without_a_lease_oldest_first(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    for (tenant, id, lease_for, started) in [
        ("a", "c1", Duration::ZERO, 33),
        ("b", "c1", Duration::ZERO, 31),
        ("a", "c2", Duration::from_mins(10), 30),
        ("a", "c3", Duration::from_mins(10), 32),
    ] {
        let seen = connected(&storage, tenant, id).await;
        let begin = BeginAttempt { lease_for, now: at(started), ..begin(&seen) };
        storage.begin_attempt(&seen.tenant, &seen.id, &begin).await.unwrap().unwrap();
    }
    // Its outcome is unknown, and its holder says so.
    storage.end_attempt(&tenant_id("a"), &connection_id("c3"), 2, false).await.unwrap();
    let names = async |limit| -> Vec<String> {
        let attempts = storage.list_unresolved_attempts(limit).await.unwrap();
        attempts.iter().map(|attempt| format!("{}/{}", attempt.tenant, attempt.connection)).collect()
    };
    assert_eq!(names(10).await, ["b/c1", "a/c3", "a/c1"]);
    assert_eq!(names(2).await, ["b/c1", "a/c3"]);
}

pub async fn leases_of_an_owner_are_released_and_its_attempts_stay(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let mut versions = Vec::new();
    for (tenant, id, owner) in [("a", "c1", "gone"), ("b", "c1", "gone"), ("a", "c2", "there")] {
        let seen = connected(&storage, tenant, id).await;
        let begin = BeginAttempt { owner: owner.into(), ..begin(&seen) };
        storage.begin_attempt(&seen.tenant, &seen.id, &begin).await.unwrap().unwrap();
        versions.push(current(&storage, &seen).await);
    }
    assert_eq!(storage.release_leases("gone").await.unwrap(), 2);
    assert_eq!(storage.release_leases("gone").await.unwrap(), 0);
    for before in &versions[..2] {
        let after = current(&storage, before).await;
        assert_eq!((after.lease, after.version), (None, before.version + 1));
        assert_eq!(storage.list_attempts(&before.tenant, &before.id).await.unwrap().len(), 1);
    }
    assert!(current(&storage, &versions[2]).await.lease.is_some());
}
