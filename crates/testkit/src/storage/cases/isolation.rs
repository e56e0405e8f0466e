//! Tenant `b` holds rows; tenant `a` asks for them by their identifiers, and for rows of its own with the same identifiers.

use std::sync::Arc;

use tokenward_storage::{
    CommitOutcome, Connection, ConnectionFilter, ConnectionState, PageRequest, RefreshCommit, StateChange,
    Storage, StorageErrorKind,
};

use crate::storage::StorageFixture;
use crate::storage::samples::{
    account, at, begin, begun, client_id, commit, connected, consent_again, current, data_key, link, link_id,
    pending, provider, tenant_id, tokens, with_spare,
};
use crate::storage::tools::{furnished, kind};

/// Gives tenant `b` a connection with an attempt and a spare, a link, a pending grant and a data key.
async fn rows_of_b(storage: &Arc<dyn Storage>) -> Connection {
    let connection = connected(storage, "b", "con_1").await;
    with_spare(storage, &connection).await;
    begun(storage, &connection).await;
    storage.create_connect_link(&link("b", "lnk_1")).await.unwrap();
    storage.save_pending_grant(&pending("b", "p")).await.unwrap();
    storage.create_data_key(&data_key("b", 1)).await.unwrap();
    current(storage, &connection).await
}

/// All that is known of tenant `b`, to see whether anything changed.
async fn picture_of_b(storage: &Arc<dyn Storage>, connection: &Connection) -> String {
    let (b, id) = (tenant_id("b"), &connection.id);
    format!(
        "{:?} {:?} {:?} {:?} {:?} {:?} {:?}",
        current(storage, connection).await,
        storage.list_attempts(&b, id).await.unwrap(),
        storage.list_spares(&b, id).await.unwrap(),
        storage.list_connect_links(&b, &PageRequest::first()).await.unwrap(),
        storage.list_pending_grants(10).await.unwrap(),
        storage.list_data_keys("b").await.unwrap(),
        storage.list_revocations(at(1000), 10).await.unwrap(),
    )
}

pub async fn a_tenant_cannot_read_the_rows_of_another(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let of_b = rows_of_b(&storage).await;
    let a = tenant_id("a");
    assert_eq!(storage.get_connection(&a, &of_b.id).await.unwrap(), None);
    let client = client_id("client");
    let found =
        storage.find_connection(&a, &provider("hubspot"), of_b.kind, Some(&client), &account("con_1")).await;
    assert_eq!(found.unwrap(), None);
    assert_eq!(storage.get_connect_link(&a, &link_id("lnk_1")).await.unwrap(), None);
    let own = connected(&storage, "a", "con_1").await;
    assert_eq!(current(&storage, &own).await, own, "the same identifier names the tenant's own row");
    assert_ne!(current(&storage, &of_b).await.grant_fence, own.grant_fence);
}

pub async fn a_tenant_cannot_list_the_rows_of_another(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let of_b = rows_of_b(&storage).await;
    let a = tenant_id("a");
    assert_eq!(storage.list_tenant_connections(&a).await.unwrap(), []);
    let filter = ConnectionFilter { tenant: Some(a.clone()), ..ConnectionFilter::default() };
    assert_eq!(storage.list_connections(&filter, &PageRequest::first()).await.unwrap().items, []);
    assert_eq!(storage.list_attempts(&a, &of_b.id).await.unwrap(), []);
    assert_eq!(storage.list_spares(&a, &of_b.id).await.unwrap(), []);
    assert_eq!(storage.list_connect_links(&a, &PageRequest::first()).await.unwrap().items, []);
    assert_eq!(storage.list_data_keys("a").await.unwrap(), []);
}

pub async fn a_tenant_cannot_change_the_rows_of_another(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let of_b = rows_of_b(&storage).await;
    let before = picture_of_b(&storage, &of_b).await;
    let (a, id) = (tenant_id("a"), &of_b.id);
    let attempt = &storage.list_attempts(&of_b.tenant, id).await.unwrap()[0];
    let commit = RefreshCommit { tenant: a.clone(), tokens: tokens("stolen"), ..commit(attempt) };
    let change = StateChange {
        seen: of_b.version,
        state: ConnectionState::Suspect,
        reason: String::new(),
        now: at(60),
    };
    let of_a = Connection { tenant: a.clone(), ..of_b.clone() };
    // Once while the tenant has no such rows, and once while it has rows of its own with the same identifiers.
    for own_rows in [false, true] {
        if own_rows {
            connected(&storage, "a", "con_1").await;
            storage.save_pending_grant(&pending("a", "p")).await.unwrap();
            assert!(storage.refuse_pending_grant(&a, "p", "own").await.unwrap());
        } else {
            assert_eq!(storage.change_state(&a, id, &change).await.unwrap(), None);
            assert_eq!(storage.disconnect(&a, id, None, "", at(60)).await.unwrap(), None);
            assert_eq!(kind(storage.save_consent(&consent_again(&of_a)).await), StorageErrorKind::Conflict);
            assert!(matches!(storage.commit_refresh(&commit).await.unwrap(), CommitOutcome::Gone));
            assert!(!storage.refuse_pending_grant(&a, "p", "").await.unwrap());
        }
        assert_eq!(storage.begin_attempt(&a, id, &begin(&of_b)).await.unwrap(), None);
        assert!(!storage.end_attempt(&a, id, attempt.fence, true).await.unwrap());
        storage.postpone_revocation(&a, id, of_b.grant_fence, at(999)).await.unwrap();
        assert_eq!(storage.add_seals(&[("a".to_owned(), 1, 1)]).await.unwrap(), []);
        assert_eq!(picture_of_b(&storage, &of_b).await, before, "own rows: {own_rows}");
    }
    let own = Connection { tenant: a, ..current(&storage, &of_a).await };
    storage.save_consent(&consent_again(&own)).await.unwrap();
    storage.disconnect(&own.tenant, &own.id, None, "", at(60)).await.unwrap();
    assert_eq!(picture_of_b(&storage, &of_b).await, before, "its own row is another one");
}

pub async fn a_tenant_cannot_delete_the_rows_of_another(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let of_b = rows_of_b(&storage).await;
    let before = picture_of_b(&storage, &of_b).await;
    let (a, id) = (tenant_id("a"), &of_b.id);
    assert!(!storage.delete_connection(&a, id).await.unwrap());
    assert!(!storage.delete_connect_link(&a, &link_id("lnk_1")).await.unwrap());
    storage.finish_revocation(&a, id, of_b.grant_fence).await.unwrap();
    for spare in storage.list_spares(&of_b.tenant, id).await.unwrap() {
        storage.remove_spare(&a, id, spare.token_fence).await.unwrap();
    }
    let own = connected(&storage, "a", "con_1").await;
    storage.disconnect(&own.tenant, &own.id, None, "", at(60)).await.unwrap();
    assert!(storage.delete_connection(&a, id).await.unwrap(), "its own row of that identifier");
    assert_eq!(picture_of_b(&storage, &of_b).await, before);
    assert!(storage.delete_tenant(&a, true).await.unwrap());
    assert_eq!(picture_of_b(&storage, &of_b).await, before);
}
