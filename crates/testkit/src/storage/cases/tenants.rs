use std::collections::BTreeSet;
use std::sync::Arc;

use tokenward_storage::{
    ConnectionFilter, ConnectionState, MAX_PAGE_SIZE, PageRequest, StateChange, Storage, StorageErrorKind,
    Tenant, TenantState,
};
use tokenward_types::Timestamp;

use crate::storage::StorageFixture;
use crate::storage::samples::{
    at, begin, connect_attempt, connected, consent, consent_again, data_key, link, link_id, pending, tenant,
    tenant_id, with_spare,
};
use crate::storage::tools::{MANY, at_once, furnished, kind, ready};

async fn ids(storage: &Arc<dyn Storage>) -> Vec<String> {
    let page = storage.list_tenants(&PageRequest::first()).await.unwrap();
    page.items.iter().map(|tenant| tenant.id.to_string()).collect()
}

pub async fn a_tenant_keeps_every_field(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    let mut active = tenant("active");
    active.state = TenantState::Active;
    for written in [tenant("Acme.eu:prod_1-x"), active] {
        let created = storage.create_tenant(&written).await.unwrap();
        assert_eq!(created, Tenant { version: 1, ..written });
        assert_eq!(storage.get_tenant(&created.id).await.unwrap(), Some(created));
    }
}

pub async fn extreme_times_and_large_texts_are_kept(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    let written = Tenant {
        display_name: "ä🦀".repeat(11_000),
        created_at: Timestamp::from_micros(i64::MIN),
        updated_at: Timestamp::from_micros(i64::MAX),
        ..tenant("extreme")
    };
    assert!(written.display_name.len() > 64 * 1024);
    let created = storage.create_tenant(&written).await.unwrap();
    assert_eq!(storage.get_tenant(&written.id).await.unwrap(), Some(created));
}

pub async fn a_new_tenant_has_version_one(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    let created = storage.create_tenant(&Tenant { version: 9, ..tenant("new") }).await.unwrap();
    assert_eq!(created.version, 1);
    assert_eq!(storage.get_tenant(&tenant_id("new")).await.unwrap().unwrap().version, 1);
}

pub async fn a_taken_tenant_identifier_is_refused(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    let first = storage.create_tenant(&tenant("a")).await.unwrap();
    let second = Tenant { display_name: "other".into(), ..tenant("a") };
    assert_eq!(kind(storage.create_tenant(&second).await), StorageErrorKind::AlreadyExists);
    assert_eq!(storage.get_tenant(&tenant_id("a")).await.unwrap(), Some(first));
}

pub async fn an_absent_tenant_is_none(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    assert_eq!(storage.get_tenant(&tenant_id("absent")).await.unwrap(), None);
    assert_eq!(storage.update_tenant(&tenant("absent")).await.unwrap(), None);
    assert!(!storage.delete_tenant(&tenant_id("absent"), false).await.unwrap());
}

pub async fn tenants_differ_by_case(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    storage.create_tenant(&Tenant { display_name: "upper".into(), ..tenant("Acme") }).await.unwrap();
    assert_eq!(storage.get_tenant(&tenant_id("acme")).await.unwrap(), None);
    storage.create_tenant(&Tenant { display_name: "lower".into(), ..tenant("acme") }).await.unwrap();
    assert!(storage.delete_tenant(&tenant_id("acme"), false).await.unwrap());
    assert_eq!(storage.get_tenant(&tenant_id("Acme")).await.unwrap().unwrap().display_name, "upper");
}

pub async fn tenants_are_listed_in_order_of_their_identifiers(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    for id in ["b", "a-1", "A", "a", "a.1", "a_1", "a:1", "10", "9", "B"] {
        storage.create_tenant(&tenant(id)).await.unwrap();
    }
    assert_eq!(ids(&storage).await, ["10", "9", "A", "B", "a", "a-1", "a.1", "a:1", "a_1", "b"]);
}

pub async fn pages_neither_repeat_nor_hide_when_rows_come_and_go(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    let original: BTreeSet<_> = (0..10).map(|number| format!("t{number}5")).collect();
    for id in &original {
        storage.create_tenant(&tenant(id)).await.unwrap();
    }
    let (mut seen, mut after, mut round) = (Vec::new(), None, 0);
    loop {
        let page = storage.list_tenants(&PageRequest { size: 3, after }).await.unwrap();
        assert!(page.items.len() <= 3);
        seen.extend(page.items.iter().map(|tenant| tenant.id.to_string()));
        after = page.next;
        if after.is_none() {
            break;
        }
        // Behind the cursor and before it, and one that was listed goes.
        storage.create_tenant(&tenant(&format!("t0{round}"))).await.unwrap();
        storage.create_tenant(&tenant(&format!("t9{round}"))).await.unwrap();
        storage.delete_tenant(&page.items[0].id, false).await.unwrap();
        round += 1;
    }
    let unique: BTreeSet<_> = seen.iter().cloned().collect();
    assert_eq!(unique.len(), seen.len(), "no row is repeated: {seen:?}");
    assert!(unique.is_superset(&original), "no row is hidden: {seen:?}");
}

pub async fn a_page_has_at_least_one_row_and_at_most_a_thousand(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    let count = usize::try_from(MAX_PAGE_SIZE).unwrap() + 1;
    let created = at_once(count, &storage, |number, storage| async move {
        storage.create_tenant(&tenant(&format!("t{number}"))).await
    })
    .await;
    assert!(created.iter().all(Result::is_ok));
    let page = storage.list_tenants(&PageRequest { size: u32::MAX, after: None }).await.unwrap();
    assert_eq!((page.items.len(), page.next.is_some()), (count - 1, true));
    let rest = storage.list_tenants(&PageRequest { size: u32::MAX, after: page.next }).await.unwrap();
    assert_eq!((rest.items.len(), rest.next), (1, None));
    let least = storage.list_tenants(&PageRequest { size: 0, after: None }).await.unwrap();
    assert_eq!((least.items.len(), least.next.is_some()), (1, true));
}

pub async fn a_cursor_that_no_page_gave_is_no_error(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    connected(&storage, "a", "con_1").await;
    for after in ["", "a/b/c", "\0", "a\0", "🦀", "'; DROP TABLE tenants; --"] {
        let page = PageRequest { size: 10, after: Some(after.into()) };
        storage.list_tenants(&page).await.unwrap();
        storage.list_connections(&tokenward_storage::ConnectionFilter::default(), &page).await.unwrap();
    }
    assert_eq!(ids(&storage).await, ["a", "b"]);
}

pub async fn an_update_writes_name_labels_state_and_time(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    let created = storage.create_tenant(&tenant("a")).await.unwrap();
    storage.create_tenant(&tenant("b")).await.unwrap();
    let change = Tenant {
        display_name: "neu".into(),
        labels: [("k".to_owned(), "v".to_owned())].into(),
        state: TenantState::Active,
        created_at: at(999),
        updated_at: at(100),
        ..created.clone()
    };
    let expected = Tenant { created_at: created.created_at, version: 2, ..change.clone() };
    assert_eq!(storage.update_tenant(&change).await.unwrap(), Some(expected.clone()));
    assert_eq!(storage.get_tenant(&created.id).await.unwrap(), Some(expected));
    let other = storage.get_tenant(&tenant_id("b")).await.unwrap().unwrap();
    assert_eq!(other, Tenant { version: 1, ..tenant("b") });
}

pub async fn a_stale_version_is_a_conflict_and_changes_nothing(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    let created = storage.create_tenant(&tenant("a")).await.unwrap();
    let updated = storage.update_tenant(&created).await.unwrap().unwrap();
    for version in [created.version, updated.version + 1, 0] {
        let stale = Tenant { version, display_name: "stale".into(), ..created.clone() };
        assert_eq!(kind(storage.update_tenant(&stale).await), StorageErrorKind::Conflict);
    }
    assert_eq!(storage.get_tenant(&created.id).await.unwrap(), Some(updated));
}

pub async fn of_a_hundred_updates_of_one_version_one_wins(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    storage.create_tenant(&tenant("a")).await.unwrap();
    let results = at_once(MANY, &storage, |number, storage| async move {
        let display_name = format!("writer {number}");
        storage.update_tenant(&Tenant { display_name, version: 1, ..tenant("a") }).await
    })
    .await;
    let winners: Vec<_> = results.iter().filter_map(|result| result.as_ref().ok()).collect();
    assert_eq!(winners.len(), 1);
    assert_eq!(storage.get_tenant(&tenant_id("a")).await.unwrap(), *winners[0]);
}

pub async fn a_hundred_compare_and_swaps_lose_none(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    storage.create_tenant(&Tenant { display_name: "0".into(), ..tenant("a") }).await.unwrap();
    at_once(MANY, &storage, |_, storage| async move {
        loop {
            let mut seen = storage.get_tenant(&tenant_id("a")).await.unwrap().unwrap();
            seen.display_name = (seen.display_name.parse::<usize>().unwrap() + 1).to_string();
            match storage.update_tenant(&seen).await {
                Ok(updated) => return updated,
                Err(error) => assert_eq!(error.kind(), StorageErrorKind::Conflict),
            }
        }
    })
    .await;
    let end = storage.get_tenant(&tenant_id("a")).await.unwrap().unwrap();
    assert_eq!((&*end.display_name, end.version), ("100", 101));
}

pub async fn deleting_a_tenant_twice_is_no_error(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    assert!(storage.delete_tenant(&tenant_id("a"), false).await.unwrap());
    assert!(!storage.delete_tenant(&tenant_id("a"), false).await.unwrap());
    assert_eq!(ids(&storage).await, ["b"]);
}

pub async fn deleting_a_tenant_takes_all_that_belongs_to_it(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    for tenant in ["a", "b"] {
        let connection = connected(&storage, tenant, "con_1").await;
        with_spare(&storage, &connection).await;
        let now = storage.get_connection(&connection.tenant, &connection.id).await.unwrap().unwrap();
        storage.begin_attempt(&now.tenant, &now.id, &begin(&now)).await.unwrap().unwrap();
        let lonely = storage.save_consent(&consent(tenant, &format!("con_{tenant}"))).await.unwrap();
        storage.disconnect(&lonely.tenant, &lonely.id, None, "", at(60)).await.unwrap();
        storage.create_connect_link(&link(tenant, &format!("lnk_{tenant}"))).await.unwrap();
        storage.start_connect_attempt(&connect_attempt(tenant, tenant.as_bytes()[0])).await.unwrap();
        storage.save_pending_grant(&pending(tenant, "p")).await.unwrap();
        storage.create_data_key(&data_key(tenant, 1)).await.unwrap();
    }
    assert!(storage.delete_tenant(&tenant_id("a"), true).await.unwrap());
    for (id, left) in [("a", 0), ("b", 1)] {
        let tenant = tenant_id(id);
        let connection = crate::storage::samples::connection_id("con_1");
        let filter = ConnectionFilter { tenant: Some(tenant.clone()), ..ConnectionFilter::default() };
        let connections = storage.list_connections(&filter, &PageRequest::first()).await.unwrap().items;
        assert_eq!(connections.len(), 2 * left, "{id}");
        assert_eq!(storage.list_attempts(&tenant, &connection).await.unwrap().len(), left, "{id}");
        assert_eq!(storage.list_spares(&tenant, &connection).await.unwrap().len(), left, "{id}");
        assert_eq!(storage.list_data_keys(id).await.unwrap().len(), left, "{id}");
        let found = storage.get_connect_link(&tenant, &link_id(&format!("lnk_{id}"))).await.unwrap();
        assert_eq!(found.is_some(), left == 1, "{id}");
    }
    let revocations = storage.list_revocations(at(1000), 10).await.unwrap();
    assert!(revocations.len() == 1 && revocations[0].tenant == tenant_id("b"));
    let grants = storage.list_pending_grants(10).await.unwrap();
    assert!(grants.len() == 1 && grants[0].tenant == tenant_id("b"));
    let gone = storage.consume_connect_attempt(&[b'a'; 32], &[99; 32], at(8)).await.unwrap();
    assert_eq!(gone, tokenward_storage::ConsumeOutcome::Unknown);
}

pub async fn a_tenant_with_a_grant_is_deleted_only_by_force(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    connected(&storage, "b", "con_2").await;
    let a = tenant_id("a");
    let delete = async || storage.delete_tenant(&tenant_id("a"), false).await;
    let seen = connected(&storage, "a", "con_1").await;
    assert_eq!(kind(delete().await), StorageErrorKind::InUse);
    let dead = StateChange {
        seen: seen.version,
        state: ConnectionState::ReauthRequired,
        reason: String::new(),
        now: at(35),
    };
    storage.change_state(&a, &seen.id, &dead).await.unwrap();
    assert_eq!(kind(delete().await), StorageErrorKind::InUse, "a dead grant is a connection too");
    storage.disconnect(&a, &seen.id, None, "", at(60)).await.unwrap();
    assert_eq!(kind(delete().await), StorageErrorKind::InUse, "its token is yet to be revoked");
    storage.finish_revocation(&a, &seen.id, seen.grant_fence).await.unwrap();
    storage.save_pending_grant(&pending("a", "p")).await.unwrap();
    assert_eq!(kind(delete().await), StorageErrorKind::InUse, "a grant is yet to be verified");
    assert!(storage.get_connection(&a, &seen.id).await.unwrap().is_some(), "nothing was deleted");
    storage.refuse_pending_grant(&a, "p", "another account").await.unwrap();
    assert!(delete().await.unwrap(), "a revoked connection and a refused grant keep nothing");
    assert!(storage.delete_tenant(&tenant_id("b"), true).await.unwrap());
    assert_eq!(ids(&storage).await, Vec::<String>::new());
}

pub async fn of_a_tenants_deletion_and_a_consent_at_once_one_wins(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    for round in 0..40 {
        let id = tenant_id(&format!("t{round}"));
        storage.create_tenant(&tenant(id.as_str())).await.unwrap();
        let first = consent(id.as_str(), "con_1");
        // A grant that is new, and one that revives a revoked connection, which refers to the tenant already.
        let consent = if round % 2 == 0 {
            first
        } else {
            let seen = storage.save_consent(&first).await.unwrap();
            let revoked = storage.disconnect(&id, &seen.id, None, "", at(35)).await.unwrap().unwrap();
            storage.finish_revocation(&id, &seen.id, seen.grant_fence).await.unwrap();
            consent_again(&revoked)
        };
        let (deleted, saved) =
            tokio::join!(storage.delete_tenant(&id, false), storage.save_consent(&consent));
        match (deleted, saved) {
            (Ok(true), Err(error)) => assert_eq!(error.kind(), StorageErrorKind::Conflict),
            (Err(error), Ok(_)) => assert_eq!(error.kind(), StorageErrorKind::InUse),
            both => panic!("exactly one wins: {both:?}"),
        }
        storage.delete_tenant(&id, true).await.unwrap();
    }
}
