use tokenward_storage::{
    Connection, ConnectionKind, ConnectionState, Consent, Revocation, StorageErrorKind, TokenSet,
};

use crate::storage::StorageFixture;
use crate::storage::samples::{
    account, at, begin, begun, commit, connected, connection_id, consent, current, sealed, started,
    tenant_id, tokens, with_spare,
};
use crate::storage::tools::{furnished, kind};

pub async fn disconnecting_removes_tokens_and_bumps_the_epoch(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let seen = connected(&storage, "a", "c1").await;
    let other = connected(&storage, "a", "c2").await;
    let revoked =
        storage.disconnect(&seen.tenant, &seen.id, Some(seen.version), "gekündigt", at(60)).await.unwrap();
    let expected = Connection {
        state: ConnectionState::Revoked,
        state_reason: "gekündigt".into(),
        state_since: at(60),
        tokens: None,
        consent_epoch: 2,
        updated_at: at(60),
        version: seen.version + 1,
        ..seen
    };
    assert_eq!(revoked.as_ref(), Some(&expected));
    assert_eq!(current(&storage, &expected).await, expected);
    assert_eq!(current(&storage, &other).await, other);
}

pub async fn disconnecting_drops_lease_attempts_and_spares(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let seen = connected(&storage, "a", "c1").await;
    with_spare(&storage, &seen).await;
    begun(&storage, &seen).await;
    let revoked = storage.disconnect(&seen.tenant, &seen.id, None, "", at(60)).await.unwrap().unwrap();
    assert_eq!(revoked.lease, None);
    assert_eq!(storage.list_attempts(&seen.tenant, &seen.id).await.unwrap(), []);
    assert_eq!(storage.list_spares(&seen.tenant, &seen.id).await.unwrap(), []);
}

pub async fn while_a_lease_holds_a_disconnect_is_a_conflict(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let seen = connected(&storage, "a", "c1").await;
    let attempt = started(&storage, &seen, &begin(&seen)).await;
    let leased = current(&storage, &seen).await;
    for version in [None, Some(leased.version)] {
        let result = storage.disconnect(&seen.tenant, &seen.id, version, "", at(60)).await;
        assert_eq!(kind(result), StorageErrorKind::Conflict);
    }
    let after = current(&storage, &seen).await;
    assert_eq!((after.state, after.version, &after.tokens), (leased.state, leased.version, &leased.tokens));
    assert_eq!(storage.list_attempts(&seen.tenant, &seen.id).await.unwrap(), std::slice::from_ref(&attempt));
    assert_eq!(storage.list_revocations(at(100), 10).await.unwrap(), []);
    storage.end_attempt(&seen.tenant, &seen.id, attempt.fence, false).await.unwrap();
    let revoked = storage.disconnect(&seen.tenant, &seen.id, None, "", at(60)).await.unwrap().unwrap();
    assert_eq!(revoked.state, ConnectionState::Revoked);
}

pub async fn disconnecting_queues_the_refresh_token(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let seen = connected(&storage, "a", "c1").await;
    let attempt = begun(&storage, &seen).await;
    storage.commit_refresh(&commit(&attempt)).await.unwrap();
    storage.disconnect(&seen.tenant, &seen.id, None, "", at(60)).await.unwrap();
    let expected = Revocation {
        tenant: seen.tenant,
        connection: seen.id,
        oauth_client: seen.oauth_client.unwrap(),
        account: seen.account,
        refresh_token: sealed("refresh 2"),
        grant_fence: 2,
        tries: 0,
        due_at: at(60),
    };
    assert_eq!(storage.list_revocations(at(60), 10).await.unwrap(), [expected]);
}

pub async fn disconnecting_twice_changes_nothing(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let seen = connected(&storage, "a", "c1").await;
    let once = storage.disconnect(&seen.tenant, &seen.id, None, "first", at(60)).await.unwrap();
    let twice = storage.disconnect(&seen.tenant, &seen.id, None, "second", at(61)).await.unwrap();
    assert_eq!(once, twice);
    assert_eq!(storage.list_revocations(at(100), 10).await.unwrap().len(), 1);
}

pub async fn disconnecting_a_stale_version_is_a_conflict(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let seen = connected(&storage, "a", "c1").await;
    begun(&storage, &seen).await;
    let now = current(&storage, &seen).await;
    let stale = storage.disconnect(&seen.tenant, &seen.id, Some(seen.version), "", at(60)).await;
    assert_eq!(kind(stale), StorageErrorKind::Conflict);
    assert_eq!(current(&storage, &seen).await.state, now.state);
    assert_eq!(storage.list_revocations(at(100), 10).await.unwrap(), []);
    let fresh = storage.disconnect(&seen.tenant, &seen.id, Some(now.version), "", at(60)).await.unwrap();
    assert_eq!(fresh.unwrap().state, ConnectionState::Revoked);
}

pub async fn disconnecting_an_absent_connection_is_none(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let absent = storage.disconnect(&tenant_id("a"), &connection_id("c0"), Some(1), "", at(60)).await;
    assert_eq!(absent.unwrap(), None);
}

pub async fn a_static_connection_has_nothing_to_revoke(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let consent = Consent {
        kind: ConnectionKind::Static,
        oauth_client: None,
        tokens: TokenSet { refresh_token: None, expires_at: None, ..tokens("static") },
        ..consent("a", "c1")
    };
    let seen = storage.save_consent(&consent).await.unwrap();
    let revoked = storage.disconnect(&seen.tenant, &seen.id, None, "", at(60)).await.unwrap().unwrap();
    assert_eq!((revoked.state, revoked.tokens), (ConnectionState::Revoked, None));
    assert_eq!(storage.list_revocations(at(100), 10).await.unwrap(), []);
}

pub async fn a_shared_grant_is_not_revoked_until_the_last_one_goes(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let one = connected(&storage, "a", "c1").await;
    let two = storage.save_consent(&Consent { account: account("c1"), ..consent("b", "c2") }).await.unwrap();
    connected(&storage, "b", "c3").await;
    storage.disconnect(&one.tenant, &one.id, None, "", at(60)).await.unwrap();
    assert_eq!(storage.list_revocations(at(100), 10).await.unwrap(), [], "the second lives by it");
    storage.disconnect(&two.tenant, &two.id, None, "", at(61)).await.unwrap();
    let queued = storage.list_revocations(at(100), 10).await.unwrap();
    assert!(queued.len() == 1 && queued[0].connection == two.id, "a revoked one does not share");
}

pub async fn of_two_disconnects_of_a_shared_grant_at_once_one_queues_it(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    for round in 0..20 {
        let id = format!("c{round}");
        let (one, two) = (connected(&storage, "a", &id).await, connected(&storage, "b", &id).await);
        let (first, second) = tokio::join!(
            storage.disconnect(&one.tenant, &one.id, None, "", at(60)),
            storage.disconnect(&two.tenant, &two.id, None, "", at(60)),
        );
        first.unwrap();
        second.unwrap();
        assert_eq!(storage.list_revocations(at(100), 100).await.unwrap().len(), round + 1);
    }
}

/// Disconnects three connections, due at three times, in another order than those of their names.
async fn queued(storage: &std::sync::Arc<dyn tokenward_storage::Storage>) {
    for (id, due) in [("c1", 72), ("c2", 70), ("c3", 71)] {
        let seen = connected(storage, "a", id).await;
        storage.disconnect(&seen.tenant, &seen.id, None, "", at(due)).await.unwrap();
    }
}

fn names(revocations: &[Revocation]) -> Vec<&str> {
    revocations.iter().map(|revocation| revocation.connection.as_str()).collect()
}

pub async fn due_revocations_are_listed_oldest_first(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    queued(&storage).await;
    assert_eq!(names(&storage.list_revocations(at(72), 10).await.unwrap()), ["c2", "c3", "c1"]);
    assert_eq!(names(&storage.list_revocations(at(71), 10).await.unwrap()), ["c2", "c3"]);
    assert_eq!(names(&storage.list_revocations(at(72), 1).await.unwrap()), ["c2"]);
    assert_eq!(names(&storage.list_revocations(at(69), 10).await.unwrap()), Vec::<&str>::new());
}

pub async fn a_postponed_revocation_counts_its_tries(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    queued(&storage).await;
    let (tenant, connection) = (tenant_id("a"), connection_id("c2"));
    for tries in [1, 2] {
        storage.postpone_revocation(&tenant, &connection, 1, at(80)).await.unwrap();
        let all = storage.list_revocations(at(100), 10).await.unwrap();
        assert_eq!(names(&all), ["c3", "c1", "c2"]);
        assert_eq!((all[2].tries, all[2].due_at, all[0].tries), (tries, at(80), 0));
    }
    storage.postpone_revocation(&tenant, &connection, 9, at(90)).await.unwrap();
    assert_eq!(storage.list_revocations(at(100), 10).await.unwrap()[2].due_at, at(80));
}

pub async fn a_finished_revocation_is_gone(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    queued(&storage).await;
    let (tenant, connection) = (tenant_id("a"), connection_id("c2"));
    storage.finish_revocation(&tenant, &connection, 9).await.unwrap();
    assert_eq!(storage.list_revocations(at(100), 10).await.unwrap().len(), 3, "that was another token");
    storage.finish_revocation(&tenant, &connection, 1).await.unwrap();
    storage.finish_revocation(&tenant, &connection, 1).await.unwrap();
    assert_eq!(names(&storage.list_revocations(at(100), 10).await.unwrap()), ["c3", "c1"]);
}

pub async fn a_queued_revocation_outlives_its_connection(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let seen = connected(&storage, "a", "c1").await;
    storage.disconnect(&seen.tenant, &seen.id, None, "", at(60)).await.unwrap();
    assert!(storage.delete_connection(&seen.tenant, &seen.id).await.unwrap());
    assert_eq!(names(&storage.list_revocations(at(100), 10).await.unwrap()), ["c1"]);
}
