use std::collections::BTreeSet;

use tokenward_storage::{
    Connection, ConnectionFilter, ConnectionKind, ConnectionState, Consent, PageRequest, StateChange,
    StorageErrorKind, TokenSet,
};

use crate::storage::StorageFixture;
use crate::storage::samples::{
    account, at, begin, client, client_id, connected, connection_id, consent, current, provider, tenant_id,
    tokens,
};
use crate::storage::tools::{MANY, at_once, furnished, kind};

fn change(connection: &Connection, state: ConnectionState) -> StateChange {
    StateChange { seen: connection.version, state, reason: "gründ".into(), now: at(60) }
}

fn names(connections: &[Connection]) -> Vec<String> {
    connections.iter().map(|connection| format!("{}/{}", connection.tenant, connection.id)).collect()
}

pub async fn an_absent_connection_is_none(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let (tenant, absent) = (tenant_id("a"), connection_id("con_0"));
    let seen = connected(&storage, "a", "con_1").await;
    assert_eq!(storage.get_connection(&tenant, &absent).await.unwrap(), None);
    let change = change(&seen, ConnectionState::Suspect);
    assert_eq!(storage.change_state(&tenant, &absent, &change).await.unwrap(), None);
    assert!(!storage.delete_connection(&tenant, &absent).await.unwrap());
}

pub async fn a_connection_is_found_by_its_grant(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let oauth = connected(&storage, "a", "con_1").await;
    let statik = Consent {
        connection: connection_id("con_2"),
        kind: ConnectionKind::Static,
        oauth_client: None,
        tokens: TokenSet { refresh_token: None, ..tokens("static") },
        ..consent("a", "con_1")
    };
    let statik = storage.save_consent(&statik).await.unwrap();
    let (hubspot, hub) = (provider("hubspot"), account("con_1"));
    let (client, other) = (client_id("client"), client_id("other"));
    let found = async |tenant, kind, client| {
        storage.find_connection(&tenant_id(tenant), &hubspot, kind, client, &hub).await.unwrap()
    };
    assert_eq!(found("a", ConnectionKind::OAuth, Some(&client)).await, Some(oauth));
    assert_eq!(found("a", ConnectionKind::Static, None).await, Some(statik));
    assert_eq!(found("a", ConnectionKind::OAuth, None).await, None);
    assert_eq!(found("a", ConnectionKind::OAuth, Some(&other)).await, None);
    assert_eq!(found("b", ConnectionKind::OAuth, Some(&client)).await, None);
    let a = tenant_id("a");
    let kind = ConnectionKind::OAuth;
    let other_provider = storage.find_connection(&a, &provider("x"), kind, Some(&client), &hub).await;
    assert_eq!(other_provider.unwrap(), None);
    let other_account = storage.find_connection(&a, &hubspot, kind, Some(&client), &account("x")).await;
    assert_eq!(other_account.unwrap(), None);
}

pub async fn connections_of_a_tenant_are_listed_in_order(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    for id in ["c", "B", "a-1", "a"] {
        connected(&storage, "a", id).await;
    }
    connected(&storage, "b", "b").await;
    let listed = storage.list_tenant_connections(&tenant_id("a")).await.unwrap();
    assert_eq!(names(&listed), ["a/B", "a/a", "a/a-1", "a/c"]);
}

pub async fn revoked_connections_of_a_tenant_are_left_out(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let mut left = Vec::new();
    for state in [ConnectionState::Active, ConnectionState::Suspect, ConnectionState::ReauthRequired] {
        let seen = connected(&storage, "a", &format!("c{}", left.len())).await;
        left.extend(storage.change_state(&seen.tenant, &seen.id, &change(&seen, state)).await.unwrap());
    }
    let gone = connected(&storage, "a", "c9").await;
    storage.disconnect(&gone.tenant, &gone.id, None, "", at(60)).await.unwrap();
    assert_eq!(storage.list_tenant_connections(&tenant_id("a")).await.unwrap(), left);
}

pub async fn connections_of_all_tenants_are_listed_in_pages(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    for (tenant, id) in [("b", "c1"), ("a", "c2"), ("b", "c0"), ("a", "c1"), ("a", "c3")] {
        connected(&storage, tenant, id).await;
    }
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = PageRequest { size: 2, after };
        let page = storage.list_connections(&ConnectionFilter::default(), &page).await.unwrap();
        seen.extend(names(&page.items));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, ["a/c1", "a/c2", "a/c3", "b/c0", "b/c1"]);
}

pub async fn pages_of_connections_are_stable_when_rows_come_and_go(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let mut original = BTreeSet::new();
    for (tenant, id) in [("a", "c1"), ("a", "c3"), ("a", "c5"), ("b", "c2"), ("b", "c4")] {
        original.extend(names(&[connected(&storage, tenant, id).await]));
    }
    let (mut seen, mut after, mut round) = (Vec::new(), None, 0);
    loop {
        let page = PageRequest { size: 2, after };
        let page = storage.list_connections(&ConnectionFilter::default(), &page).await.unwrap();
        seen.extend(names(&page.items));
        after = page.next;
        if after.is_none() {
            break;
        }
        connected(&storage, "a", &format!("c0{round}")).await;
        connected(&storage, "b", &format!("c9{round}")).await;
        let gone = &page.items[0];
        storage.disconnect(&gone.tenant, &gone.id, None, "", at(60)).await.unwrap();
        storage.delete_connection(&gone.tenant, &gone.id).await.unwrap();
        round += 1;
    }
    let unique: BTreeSet<_> = seen.iter().cloned().collect();
    assert_eq!(unique.len(), seen.len(), "no row is repeated: {seen:?}");
    assert!(unique.is_superset(&original), "no row is hidden: {seen:?}");
}

pub async fn every_filter_narrows_the_listing(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    storage.create_oauth_client(&client("other")).await.unwrap();
    connected(&storage, "a", "c1").await;
    let suspect = connected(&storage, "b", "c2").await;
    let suspicion = change(&suspect, ConnectionState::Suspect);
    storage.change_state(&suspect.tenant, &suspect.id, &suspicion).await.unwrap();
    let elsewhere =
        Consent { provider: provider("other"), oauth_client: Some(client_id("other")), ..consent("b", "c3") };
    storage.save_consent(&elsewhere).await.unwrap();
    let list = async |filter: ConnectionFilter| {
        names(&storage.list_connections(&filter, &PageRequest::first()).await.unwrap().items)
    };
    let all = ConnectionFilter::default();
    assert_eq!(list(all.clone()).await, ["a/c1", "b/c2", "b/c3"]);
    let by_tenant = ConnectionFilter { tenant: Some(tenant_id("b")), ..all.clone() };
    assert_eq!(list(by_tenant.clone()).await, ["b/c2", "b/c3"]);
    let by_client = ConnectionFilter { oauth_client: Some(client_id("client")), ..all.clone() };
    assert_eq!(list(by_client).await, ["a/c1", "b/c2"]);
    let by_provider = ConnectionFilter { provider: Some(provider("other")), ..all.clone() };
    assert_eq!(list(by_provider).await, ["b/c3"]);
    let by_state = ConnectionFilter { state: Some(ConnectionState::Active), ..all };
    assert_eq!(list(by_state).await, ["a/c1", "b/c3"]);
    let by_both = ConnectionFilter { state: Some(ConnectionState::Suspect), ..by_tenant };
    assert_eq!(list(by_both).await, ["b/c2"]);
}

pub async fn an_account_is_found_at_every_tenant(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let gone = connected(&storage, "a", "c1").await;
    storage.disconnect(&gone.tenant, &gone.id, None, "", at(60)).await.unwrap();
    connected(&storage, "a", "c2").await;
    let same = Consent { account: account("c1"), ..consent("b", "c9") };
    storage.save_consent(&same).await.unwrap();
    let found = storage.find_account(&provider("hubspot"), &account("c1")).await.unwrap();
    let found: Vec<_> =
        found.iter().map(|found| (found.tenant.as_str(), found.connection.as_str(), found.state)).collect();
    assert_eq!(found, [("a", "c1", ConnectionState::Revoked), ("b", "c9", ConnectionState::Active)]);
    let elsewhere = storage.find_account(&provider("other"), &account("c1")).await.unwrap();
    assert_eq!(elsewhere, []);
}

pub async fn connections_are_counted_by_provider_and_state(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    assert_eq!(storage.count_connections().await.unwrap(), []);
    for (tenant, id) in [("a", "c1"), ("a", "c2"), ("b", "c3")] {
        connected(&storage, tenant, id).await;
    }
    storage.disconnect(&tenant_id("a"), &connection_id("c1"), None, "", at(60)).await.unwrap();
    let elsewhere = Consent { provider: provider("other"), ..consent("b", "c4") };
    storage.save_consent(&elsewhere).await.unwrap();
    let mut counts: Vec<_> = storage.count_connections().await.unwrap();
    counts.retain(|(_, _, count)| *count > 0);
    counts.sort_by_key(|(provider, state, _)| (provider.clone(), *state != ConnectionState::Active));
    let expected = [
        (provider("hubspot"), ConnectionState::Active, 2),
        (provider("hubspot"), ConnectionState::Revoked, 1),
        (provider("other"), ConnectionState::Active, 1),
    ];
    assert_eq!(counts, expected);
}

pub async fn a_change_of_state_is_written(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let mut seen = connected(&storage, "a", "c1").await;
    let other = connected(&storage, "a", "c2").await;
    for (offset, state) in
        [(1, ConnectionState::Suspect), (2, ConnectionState::ReauthRequired), (3, ConnectionState::Active)]
    {
        let now = at(60 + offset);
        let change = StateChange { reason: "ä".repeat(32 * 1024), now, ..change(&seen, state) };
        let changed = storage.change_state(&seen.tenant, &seen.id, &change).await.unwrap().unwrap();
        let expected = Connection {
            state,
            state_reason: change.reason,
            state_since: now,
            updated_at: now,
            version: seen.version + 1,
            ..seen
        };
        assert_eq!(changed, expected);
        assert_eq!(current(&storage, &changed).await, expected);
        seen = changed;
    }
    assert_eq!(current(&storage, &other).await, other);
}

pub async fn a_state_that_stays_keeps_its_time(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let seen = connected(&storage, "a", "c1").await;
    let change = change(&seen, ConnectionState::Active);
    let changed = storage.change_state(&seen.tenant, &seen.id, &change).await.unwrap().unwrap();
    assert_eq!((changed.state_since, changed.updated_at), (seen.state_since, at(60)));
    assert_eq!(changed.state_reason, "gründ");
}

pub async fn a_stale_change_of_state_is_a_conflict(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let seen = connected(&storage, "a", "c1").await;
    let suspicion = change(&seen, ConnectionState::Suspect);
    let changed = storage.change_state(&seen.tenant, &seen.id, &suspicion).await.unwrap().unwrap();
    let stale = change(&seen, ConnectionState::ReauthRequired);
    let result = storage.change_state(&seen.tenant, &seen.id, &stale).await;
    assert_eq!(kind(result), StorageErrorKind::Conflict);
    assert_eq!(current(&storage, &seen).await, changed);
}

pub async fn a_lease_makes_an_earlier_reading_stale(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let seen = connected(&storage, "a", "c1").await;
    storage.begin_attempt(&seen.tenant, &seen.id, &begin(&seen)).await.unwrap().unwrap();
    let stale = change(&seen, ConnectionState::Suspect);
    let result = storage.change_state(&seen.tenant, &seen.id, &stale).await;
    assert_eq!(kind(result), StorageErrorKind::Conflict);
    let read_again = change(&current(&storage, &seen).await, ConnectionState::Suspect);
    let changed = storage.change_state(&seen.tenant, &seen.id, &read_again).await.unwrap().unwrap();
    assert!(changed.lease.is_some(), "a change of state leaves the lease");
}

pub async fn a_revoked_connection_changes_state_only_by_consent(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let seen = connected(&storage, "a", "c1").await;
    let revoking = change(&seen, ConnectionState::Revoked);
    let result = storage.change_state(&seen.tenant, &seen.id, &revoking).await;
    assert_eq!(kind(result), StorageErrorKind::Conflict);
    assert_eq!(current(&storage, &seen).await, seen, "revoking takes a disconnect");
    let revoked = storage.disconnect(&seen.tenant, &seen.id, None, "", at(60)).await.unwrap().unwrap();
    let reviving = change(&revoked, ConnectionState::Active);
    let result = storage.change_state(&seen.tenant, &seen.id, &reviving).await;
    assert_eq!(kind(result), StorageErrorKind::Conflict);
    assert_eq!(current(&storage, &seen).await, revoked);
}

pub async fn of_a_hundred_changes_of_state_one_wins(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let seen = connected(&storage, "a", "c1").await;
    let results = at_once(MANY, &storage, |number, storage| {
        let suspicion = StateChange { reason: number.to_string(), ..change(&seen, ConnectionState::Suspect) };
        async move { storage.change_state(&tenant_id("a"), &connection_id("c1"), &suspicion).await }
    })
    .await;
    let (winners, losers): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!(winners.len(), 1);
    assert!(losers.into_iter().all(|loser| kind(loser) == StorageErrorKind::Conflict));
    assert_eq!(Some(current(&storage, &seen).await), *winners[0].as_ref().unwrap());
}

pub async fn a_connection_is_deleted_only_when_it_is_revoked(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let seen = connected(&storage, "a", "c1").await;
    let delete = async || storage.delete_connection(&seen.tenant, &seen.id).await;
    assert_eq!(kind(delete().await), StorageErrorKind::InUse);
    let dead = change(&seen, ConnectionState::ReauthRequired);
    storage.change_state(&seen.tenant, &seen.id, &dead).await.unwrap();
    assert_eq!(kind(delete().await), StorageErrorKind::InUse);
    storage.disconnect(&seen.tenant, &seen.id, None, "", at(60)).await.unwrap();
    assert!(delete().await.unwrap());
    assert_eq!(storage.get_connection(&seen.tenant, &seen.id).await.unwrap(), None);
}

pub async fn deleting_a_connection_twice_is_no_error(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let seen = connected(&storage, "a", "c1").await;
    let other = connected(&storage, "a", "c2").await;
    storage.disconnect(&seen.tenant, &seen.id, None, "", at(60)).await.unwrap();
    assert!(storage.delete_connection(&seen.tenant, &seen.id).await.unwrap());
    assert!(!storage.delete_connection(&seen.tenant, &seen.id).await.unwrap());
    assert_eq!(storage.list_tenant_connections(&seen.tenant).await.unwrap(), [other]);
}
