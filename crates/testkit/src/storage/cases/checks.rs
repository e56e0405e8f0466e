use std::sync::Arc;
use std::time::Duration;

use tokenward_storage::{
    CheckClaim, ConnectionKind, ConnectionState, Consent, DueCheck, StateChange, Storage, TokenSet,
};

use crate::storage::StorageFixture;
use crate::storage::samples::{at, connected, connection_id, consent, current, tenant_id, tokens};
use crate::storage::tools::{MANY, at_once, furnished};

const DAY: Duration = Duration::from_hours(24);

fn names(due: &[DueCheck]) -> Vec<String> {
    due.iter().map(|due| format!("{}/{}", due.connection.tenant, due.connection.id)).collect()
}

async fn plan(storage: &Arc<dyn Storage>, tenant: &str, connection: &str, next: Duration) {
    storage.plan_check(&tenant_id(tenant), &connection_id(connection), next).await.unwrap();
}

fn claim(tenant: &str, connection: &str, due: Option<i64>, next: Duration) -> CheckClaim {
    CheckClaim { tenant: tenant_id(tenant), connection: connection_id(connection), due, next }
}

pub async fn connections_without_a_plan_are_due_first_then_the_longest_due(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    for (tenant, id) in [("a", "c1"), ("b", "c2"), ("a", "c3")] {
        connected(&storage, tenant, id).await;
    }
    plan(&storage, "b", "c2", Duration::ZERO).await;
    // A database's clock may show the same millisecond twice.
    let due = loop {
        plan(&storage, "a", "c1", Duration::ZERO).await;
        let due = storage.list_due_checks(10).await.unwrap();
        if due[1].due != due[2].due {
            break due;
        }
    };
    assert_eq!(names(&due), ["a/c3", "b/c2", "a/c1"]);
    assert_eq!((due[0].due, due[1].due.is_some(), due[2].due > due[1].due), (None, true, true));
    assert_eq!(due[0].connection, current(&storage, &due[0].connection).await);
    assert_eq!(names(&storage.list_due_checks(2).await.unwrap()), ["a/c3", "b/c2"]);
}

pub async fn a_check_is_due_by_the_databases_clock(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    connected(&storage, "a", "c1").await;
    plan(&storage, "a", "c1", DAY).await;
    assert_eq!(storage.list_due_checks(10).await.unwrap(), []);
    plan(&storage, "a", "c1", Duration::ZERO).await;
    assert_eq!(storage.list_due_checks(10).await.unwrap().len(), 1);
}

pub async fn only_active_connections_by_oauth_are_due(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let imported = Consent {
        kind: ConnectionKind::Static,
        oauth_client: None,
        tokens: TokenSet { refresh_token: None, expires_at: None, ..tokens("static") },
        ..consent("a", "static")
    };
    storage.save_consent(&imported).await.unwrap();
    for (id, state) in [("c1", ConnectionState::Suspect), ("c2", ConnectionState::ReauthRequired)] {
        let seen = connected(&storage, "a", id).await;
        let change = StateChange { seen: seen.version, state, reason: String::new(), now: at(60) };
        storage.change_state(&seen.tenant, &seen.id, &change).await.unwrap();
    }
    let gone = connected(&storage, "a", "c3").await;
    storage.disconnect(&gone.tenant, &gone.id, None, "", at(60)).await.unwrap();
    assert_eq!(storage.list_due_checks(10).await.unwrap(), []);
    connected(&storage, "a", "c4").await;
    assert_eq!(names(&storage.list_due_checks(10).await.unwrap()), ["a/c4"]);
}

pub async fn a_check_on_a_stale_plan_is_not_claimed(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    connected(&storage, "a", "c1").await;
    let claims = async |due, next| storage.claim_checks(&[claim("a", "c1", due, next)]).await.unwrap();
    assert_eq!(claims(None, Duration::ZERO).await, [true]);
    assert_eq!(claims(None, DAY).await, [false]);
    let due = storage.list_due_checks(1).await.unwrap()[0].due;
    assert_eq!(claims(due, DAY).await, [true]);
    assert_eq!(claims(due, DAY).await, [false]);
    assert_eq!(storage.list_due_checks(1).await.unwrap(), []);
}

pub async fn many_checks_are_claimed_at_once_and_each_tells_whether(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    for (tenant, id) in [("a", "c1"), ("b", "c2"), ("a", "c3"), ("b", "c4")] {
        connected(&storage, tenant, id).await;
    }
    plan(&storage, "a", "c3", Duration::ZERO).await;
    let planned = storage.list_due_checks(10).await.unwrap().last().and_then(|due| due.due);
    let claims = [
        claim("b", "c2", None, DAY),
        claim("b", "c4", planned, DAY),
        claim("a", "c3", planned, DAY),
        claim("a", "absent", None, DAY),
        claim("a", "c1", None, Duration::ZERO),
    ];
    assert_eq!(storage.claim_checks(&claims).await.unwrap(), [true, false, true, false, true]);
    assert_eq!(names(&storage.list_due_checks(10).await.unwrap()), ["b/c4", "a/c1"]);
    assert_eq!(storage.claim_checks(&[]).await.unwrap(), [false; 0]);
}

pub async fn of_a_hundred_claims_of_a_check_at_once_one_wins(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    connected(&storage, "a", "c1").await;
    plan(&storage, "a", "c1", Duration::ZERO).await;
    for due in [storage.list_due_checks(1).await.unwrap()[0].due, None] {
        let claims = at_once(MANY, &storage, |_, storage| async move {
            storage.claim_checks(&[claim("a", "c1", due, DAY)]).await.unwrap()
        })
        .await;
        let expected = usize::from(due.is_some());
        assert_eq!(claims.into_iter().filter(|claimed| *claimed == [true]).count(), expected, "{due:?}");
    }
}

pub async fn a_plan_leaves_the_connection_as_it_is(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let before = connected(&storage, "a", "c1").await;
    assert_eq!(storage.claim_checks(&[claim("a", "c1", None, DAY)]).await.unwrap(), [true]);
    plan(&storage, "a", "c1", Duration::ZERO).await;
    assert_eq!(current(&storage, &before).await, before);
}

pub async fn checks_of_absent_connections_change_nothing(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    connected(&storage, "a", "c1").await;
    for (tenant, id) in [("b", "c1"), ("a", "c2"), ("absent", "c1")] {
        assert_eq!(storage.claim_checks(&[claim(tenant, id, None, DAY)]).await.unwrap(), [false]);
        plan(&storage, tenant, id, DAY).await;
    }
    assert_eq!(storage.list_due_checks(10).await.unwrap()[0].due, None);
}
