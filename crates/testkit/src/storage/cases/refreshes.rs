use std::sync::Arc;

use tokenward_storage::{
    CommitOutcome, Connection, ConnectionState, FENCE_JUMP, RefreshCommit, Revocation, Spare, StateChange,
    Storage, TokenSet,
};
use tokenward_types::Timestamp;

use crate::storage::StorageFixture;
use crate::storage::samples::{
    at, begin, begun, commit, connected, consent_again, current, scopes, sealed, started, tokens, with_spare,
};
use crate::storage::tools::{MANY, at_once, furnished};

/// No attempt is left.
const NONE: [i64; 0] = [];

async fn committed(storage: &Arc<dyn Storage>, commit: &RefreshCommit) -> Connection {
    match storage.commit_refresh(commit).await.unwrap() {
        CommitOutcome::Committed(connection) => {
            // What is left of another's lease runs down.
            let row = |row: &Connection| Connection { lease: None, ..row.clone() };
            assert_eq!(row(&connection), row(&current(storage, &connection).await), "as it is stored");
            *connection
        }
        other => panic!("it must be committed: {other:?}"),
    }
}

async fn rejected(storage: &Arc<dyn Storage>, commit: &RefreshCommit) -> Connection {
    match storage.commit_refresh(commit).await.unwrap() {
        CommitOutcome::Rejected(connection) => *connection,
        other => panic!("it must be rejected: {other:?}"),
    }
}

async fn spares(storage: &Arc<dyn Storage>, connection: &Connection) -> Vec<Spare> {
    storage.list_spares(&connection.tenant, &connection.id).await.unwrap()
}

async fn attempts(storage: &Arc<dyn Storage>, connection: &Connection) -> Vec<i64> {
    let attempts = storage.list_attempts(&connection.tenant, &connection.id).await.unwrap();
    attempts.iter().map(|attempt| attempt.fence).collect()
}

async fn suspected(storage: &Arc<dyn Storage>, connection: &Connection) {
    let change = StateChange {
        seen: current(storage, connection).await.version,
        state: ConnectionState::Suspect,
        reason: "invalid_grant".into(),
        now: at(35),
    };
    storage.change_state(&connection.tenant, &connection.id, &change).await.unwrap().unwrap();
}

pub async fn a_commit_stores_tokens_and_ends_the_attempt(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let seen = connected(&storage, "a", "c1").await;
    let other = connected(&storage, "a", "c2").await;
    let attempt = started(&storage, &seen, &begin(&seen)).await;
    let leased = current(&storage, &seen).await;
    let after = committed(&storage, &commit(&attempt)).await;
    let expected = Connection {
        tokens: Some(tokens("2")),
        lease_fence: 2,
        grant_fence: 2,
        lease: None,
        updated_at: at(50),
        version: leased.version + 1,
        ..seen
    };
    assert_eq!(after, expected);
    assert_eq!(current(&storage, &expected).await, expected);
    assert_eq!(attempts(&storage, &expected).await, NONE);
    assert_eq!(current(&storage, &other).await, other);
}

pub async fn a_commit_keeps_every_field_of_its_tokens(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let seen = connected(&storage, "a", "c1").await;
    let attempt = begun(&storage, &seen).await;
    let tokens = TokenSet {
        access_token: sealed(&"ä".repeat(32 * 1024)),
        refresh_token: Some(sealed("new")),
        issued_at: Timestamp::from_micros(i64::MIN),
        expires_at: Some(Timestamp::from_micros(i64::MAX)),
        scopes: scopes("tickets oauth e-commerce"),
    };
    let commit = RefreshCommit {
        tokens: tokens.clone(),
        account_name: Some("Neuer Name 🦀".into()),
        ..commit(&attempt)
    };
    let after = committed(&storage, &commit).await;
    assert_eq!((after.tokens.as_ref(), &*after.account_name), (Some(&tokens), "Neuer Name 🦀"));
    assert_eq!(current(&storage, &seen).await, after);
    let again = begun(&storage, &seen).await;
    assert_eq!(again.refresh_token, sealed("new"), "the next attempt spends it");
}

pub async fn a_commit_heals_a_suspect_connection(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let seen = connected(&storage, "a", "c1").await;
    let attempt = begun(&storage, &seen).await;
    suspected(&storage, &seen).await;
    let after = committed(&storage, &commit(&attempt)).await;
    assert_eq!((after.state, &*after.state_reason, after.state_since), (ConnectionState::Active, "", at(50)));
}

pub async fn a_commit_of_an_active_connection_keeps_its_time_of_state(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let seen = connected(&storage, "a", "c1").await;
    let attempt = begun(&storage, &seen).await;
    let after = committed(&storage, &commit(&attempt)).await;
    assert_eq!(after.state_since, seen.state_since);
}

pub async fn a_lost_lease_still_commits(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let seen = connected(&storage, "a", "c1").await;
    let slow = begun(&storage, &seen).await;
    let taker = begun(&storage, &seen).await;
    let after = committed(&storage, &commit(&slow)).await;
    assert_eq!((after.grant_fence, after.tokens), (slow.fence, Some(tokens("2"))));
    assert_eq!(attempts(&storage, &seen).await, [taker.fence], "the other attempt stands");
}

pub async fn a_commit_leaves_the_lease_of_a_later_attempt(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let seen = connected(&storage, "a", "c1").await;
    let slow = begun(&storage, &seen).await;
    let now = current(&storage, &seen).await;
    storage.begin_attempt(&seen.tenant, &seen.id, &begin(&now)).await.unwrap().unwrap();
    let after = committed(&storage, &commit(&slow)).await;
    assert!(after.lease.is_some(), "the lease is the later attempt's");
    assert_eq!(after.lease_fence, 3);
}

pub async fn a_late_commit_of_an_older_attempt_is_rejected_and_kept_as_a_spare(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let seen = connected(&storage, "a", "c1").await;
    let late = begun(&storage, &seen).await;
    let early = begun(&storage, &seen).await;
    let winner = committed(&storage, &commit(&early)).await;
    let after = rejected(&storage, &RefreshCommit { now: at(51), ..commit(&late) }).await;
    assert_eq!(after, winner, "the newer tokens stay");
    assert_eq!(current(&storage, &seen).await, winner);
    let spare = Spare { refresh_token: sealed("refresh 2"), token_fence: 2, kept_at: at(51) };
    assert_eq!(spares(&storage, &seen).await, [spare]);
    assert_eq!(attempts(&storage, &seen).await, NONE, "both outcomes are recorded");
}

pub async fn a_rejected_commit_that_did_not_rotate_leaves_no_spare(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let seen = connected(&storage, "a", "c1").await;
    let late = begun(&storage, &seen).await;
    let early = begun(&storage, &seen).await;
    committed(&storage, &commit(&early)).await;
    rejected(&storage, &RefreshCommit { rotated: false, ..commit(&late) }).await;
    assert_eq!(spares(&storage, &seen).await, []);
    assert_eq!(attempts(&storage, &seen).await, NONE);
}

pub async fn a_commit_keeps_a_token_that_it_did_not_spend(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let seen = connected(&storage, "a", "c1").await;
    // Both spend the first token; the older one commits first, and the younger one overwrites what that brought.
    let older = begun(&storage, &seen).await;
    let younger = begun(&storage, &seen).await;
    committed(&storage, &commit(&older)).await;
    let after = committed(&storage, &RefreshCommit { now: at(51), ..commit(&younger) }).await;
    assert_eq!(after.tokens, Some(tokens("3")));
    let spare = Spare { refresh_token: sealed("refresh 2"), token_fence: 2, kept_at: at(51) };
    assert_eq!(spares(&storage, &seen).await, [spare]);
}

pub async fn a_commit_that_spent_the_stored_token_leaves_no_spare(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let seen = connected(&storage, "a", "c1").await;
    for _ in 0..3 {
        let attempt = begun(&storage, &seen).await;
        committed(&storage, &commit(&attempt)).await;
    }
    assert_eq!(spares(&storage, &seen).await, []);
}

pub async fn at_most_the_newest_three_spares_are_kept(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let seen = connected(&storage, "a", "c1").await;
    let other = connected(&storage, "a", "c2").await;
    with_spare(&storage, &other).await;
    let mut late = Vec::new();
    for _ in 0..5 {
        late.push(begun(&storage, &seen).await);
    }
    let winner = begun(&storage, &seen).await;
    committed(&storage, &commit(&winner)).await;
    // The oldest comes last: being late does not make it new.
    for attempt in [4, 1, 3, 2, 0].map(|number| &late[number]) {
        rejected(&storage, &commit(attempt)).await;
    }
    let kept: Vec<_> = spares(&storage, &seen).await.iter().map(|spare| spare.token_fence).collect();
    assert_eq!(kept, [6, 5, 4]);
    assert_eq!(spares(&storage, &other).await.len(), 1, "another connection's spares are left alone");
}

pub async fn a_commit_from_before_a_consent_is_rejected_without_a_spare(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let seen = connected(&storage, "a", "c1").await;
    let attempt = begun(&storage, &seen).await;
    let again = storage.save_consent(&consent_again(&current(&storage, &seen).await)).await.unwrap();
    assert_eq!(rejected(&storage, &commit(&attempt)).await, again);
    // Even a fence above the new grant's does not help a commit of the former epoch.
    rejected(&storage, &RefreshCommit { fence: 99, ..commit(&attempt) }).await;
    assert_eq!(current(&storage, &seen).await, again);
    assert_eq!(spares(&storage, &seen).await, []);
}

pub async fn a_commit_from_before_a_disconnect_is_rejected_without_a_spare(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let seen = connected(&storage, "a", "c1").await;
    let attempt = begun(&storage, &seen).await;
    let revoked = storage.disconnect(&seen.tenant, &seen.id, None, "", at(60)).await.unwrap().unwrap();
    assert_eq!(rejected(&storage, &commit(&attempt)).await, revoked);
    assert_eq!(current(&storage, &seen).await, revoked);
    assert_eq!(spares(&storage, &seen).await, []);
}

pub async fn a_token_that_a_disconnect_overtook_is_queued_for_revocation(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let seen = connected(&storage, "a", "c1").await;
    let (kept, rotated) = (begun(&storage, &seen).await, begun(&storage, &seen).await);
    let revoked = storage.disconnect(&seen.tenant, &seen.id, None, "", at(40)).await.unwrap().unwrap();
    rejected(&storage, &RefreshCommit { rotated: false, ..commit(&kept) }).await;
    assert_eq!(storage.list_revocations(at(100), 10).await.unwrap().len(), 1, "the disconnect's own");
    for _ in 0..2 {
        assert_eq!(rejected(&storage, &commit(&rotated)).await, revoked);
    }
    let expected = Revocation {
        tenant: seen.tenant,
        connection: seen.id,
        oauth_client: seen.oauth_client.unwrap(),
        account: seen.account,
        refresh_token: sealed("refresh 3"),
        grant_fence: 3,
        tries: 0,
        due_at: at(50),
    };
    let queued = storage.list_revocations(at(100), 10).await.unwrap();
    assert_eq!((queued.len(), queued[0].grant_fence, &queued[1]), (2, 1, &expected));
}

pub async fn a_token_of_a_shared_grant_is_not_queued_by_a_late_commit(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let seen = connected(&storage, "a", "c1").await;
    connected(&storage, "b", "c1").await;
    let attempt = begun(&storage, &seen).await;
    storage.disconnect(&seen.tenant, &seen.id, None, "", at(40)).await.unwrap();
    rejected(&storage, &commit(&attempt)).await;
    assert_eq!(storage.list_revocations(at(100), 10).await.unwrap(), [], "the other tenant lives by it");
}

pub async fn of_a_disconnect_and_a_commit_at_once_the_new_token_is_queued(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    for round in 0..20 {
        let seen = connected(&storage, "a", &format!("c{round}")).await;
        let commit = commit(&begun(&storage, &seen).await);
        let (revoked, _) =
            tokio::join!(storage.disconnect(&seen.tenant, &seen.id, None, "", at(60)), async {
                storage.commit_refresh(&commit).await.unwrap()
            },);
        assert_eq!(revoked.unwrap().unwrap().state, ConnectionState::Revoked);
        let queued = storage.list_revocations(at(100), 100).await.unwrap();
        let new = queued.iter().any(|queued| {
            queued.connection == seen.id
                && queued.grant_fence == 2
                && queued.refresh_token == sealed("refresh 2")
        });
        assert!(new, "round {round}: {queued:?}");
    }
}

pub async fn a_commit_to_a_connection_that_is_gone_says_so(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let seen = connected(&storage, "a", "c1").await;
    let attempt = begun(&storage, &seen).await;
    storage.disconnect(&seen.tenant, &seen.id, None, "", at(60)).await.unwrap();
    storage.delete_connection(&seen.tenant, &seen.id).await.unwrap();
    let outcome = storage.commit_refresh(&commit(&attempt)).await.unwrap();
    assert!(matches!(outcome, CommitOutcome::Gone), "{outcome:?}");
}

pub async fn repeating_a_commit_changes_nothing(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let seen = connected(&storage, "a", "c1").await;
    let attempt = begun(&storage, &seen).await;
    let once = committed(&storage, &commit(&attempt)).await;
    suspected(&storage, &seen).await;
    let later = begun(&storage, &seen).await;
    let before = current(&storage, &seen).await;
    let twice = committed(&storage, &commit(&attempt)).await;
    assert_eq!(twice.tokens, once.tokens);
    assert_eq!(current(&storage, &seen).await, before);
    assert_eq!(attempts(&storage, &seen).await, [later.fence]);
    assert_eq!(spares(&storage, &seen).await, []);
}

pub async fn repeating_a_rejected_commit_changes_nothing(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let seen = connected(&storage, "a", "c1").await;
    let late = begun(&storage, &seen).await;
    let early = begun(&storage, &seen).await;
    committed(&storage, &commit(&early)).await;
    let once = rejected(&storage, &commit(&late)).await;
    let kept = spares(&storage, &seen).await;
    let twice = rejected(&storage, &RefreshCommit { now: at(99), ..commit(&late) }).await;
    assert_eq!(once, twice);
    assert_eq!(spares(&storage, &seen).await, kept);
}

pub async fn a_removed_spare_is_gone(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let seen = connected(&storage, "a", "c1").await;
    let spare = with_spare(&storage, &seen).await;
    storage.remove_spare(&seen.tenant, &seen.id, spare + 1).await.unwrap();
    assert_eq!(spares(&storage, &seen).await.len(), 1, "that was another one");
    storage.remove_spare(&seen.tenant, &seen.id, spare).await.unwrap();
    storage.remove_spare(&seen.tenant, &seen.id, spare).await.unwrap();
    assert_eq!(spares(&storage, &seen).await, []);
}

pub async fn of_a_hundred_commits_at_once_the_newest_stands(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let seen = connected(&storage, "a", "c1").await;
    let mut begun_attempts = Vec::new();
    for _ in 0..MANY {
        begun_attempts.push(begun(&storage, &seen).await);
    }
    let outcomes = at_once(MANY, &storage, |number, storage| {
        let commit = commit(&begun_attempts[number]);
        async move { storage.commit_refresh(&commit).await.unwrap() }
    })
    .await;
    assert!(outcomes.iter().all(|outcome| !matches!(outcome, CommitOutcome::Gone)));
    let after = current(&storage, &seen).await;
    assert_eq!((after.grant_fence, after.tokens), (101, Some(tokens("101"))));
    assert_eq!(attempts(&storage, &seen).await, NONE);
    // All spent the first token, so each of the others may be the one that lives: the newest three are kept.
    let kept: Vec<_> = spares(&storage, &seen).await.iter().map(|spare| spare.token_fence).collect();
    assert_eq!(kept, [100, 99, 98]);
}

pub async fn a_hundred_refreshes_in_turn_lose_none(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let seen = connected(&storage, "a", "c1").await;
    at_once(MANY, &storage, |_, storage| {
        let connection = seen.clone();
        async move {
            loop {
                let now = current(&storage, &connection).await;
                if storage.begin_attempt(&now.tenant, &now.id, &begin(&now)).await.unwrap().is_some() {
                    let newest = storage.list_attempts(&now.tenant, &now.id).await.unwrap().remove(0);
                    let outcome = storage.commit_refresh(&commit(&newest)).await.unwrap();
                    return assert!(matches!(outcome, CommitOutcome::Committed(_)), "{outcome:?}");
                }
            }
        }
    })
    .await;
    let after = current(&storage, &seen).await;
    assert_eq!((after.lease_fence, after.grant_fence), (101, 101), "every refresh followed the one before");
    assert_eq!((spares(&storage, &seen).await.len(), attempts(&storage, &seen).await.len()), (0, 0));
}

pub async fn a_commit_ahead_of_the_lease_fence_takes_it_along(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let seen = connected(&storage, "a", "c1").await;
    let attempt = begun(&storage, &seen).await;
    let ahead = RefreshCommit { fence: 40, ..commit(&attempt) };
    let after = committed(&storage, &ahead).await;
    assert_eq!((after.lease_fence, after.grant_fence), (40, 40));
    assert_eq!(begun(&storage, &seen).await.fence, 41, "the next attempt's result counts");
}

pub async fn distrusted_grants_are_suspect_and_no_fence_comes_again(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let active = connected(&storage, "a", "c1").await;
    let suspect = connected(&storage, "a", "c2").await;
    suspected(&storage, &suspect).await;
    let attempt = started(&storage, &active, &begin(&active)).await;
    let elsewhere = "elsewhere".parse().unwrap();
    assert_eq!(storage.distrust_grants(&elsewhere, "put back", at(60)).await.unwrap(), 0);
    let before = current(&storage, &active).await;
    assert_eq!(storage.distrust_grants(&active.provider, "put back", at(60)).await.unwrap(), 1);
    let after = current(&storage, &active).await;
    assert_eq!((after.state, &*after.state_reason), (ConnectionState::Suspect, "put back"));
    assert_eq!((after.state_since, after.tokens), (at(60), before.tokens));
    assert_eq!(after.lease, None);
    assert_eq!(after.lease_fence, before.lease_fence + FENCE_JUMP);
    assert_eq!(after.version, before.version + FENCE_JUMP);
    let other = current(&storage, &suspect).await;
    assert_eq!(
        (&*other.state_reason, other.lease_fence),
        ("invalid_grant", suspect.lease_fence + FENCE_JUMP)
    );
    let late = committed(&storage, &commit(&attempt)).await;
    assert_eq!((late.state, late.grant_fence), (ConnectionState::Active, attempt.fence), "it heals");
    assert!(begun(&storage, &active).await.fence > FENCE_JUMP);
}
