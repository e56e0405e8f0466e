use tokenward_storage::{PendingGrant, StorageErrorKind};

use crate::storage::StorageFixture;
use crate::storage::samples::{at, pending, sealed, tenant_id};
use crate::storage::tools::{furnished, kind};

pub async fn a_pending_grant_keeps_every_field(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let full = pending("a", "pending-ä");
    assert!(full.details.len() > 64 * 1024);
    let sparse = PendingGrant { link: None, refresh_token: None, issued_at: at(9), ..pending("a", "2") };
    for grant in [&full, &sparse] {
        storage.save_pending_grant(grant).await.unwrap();
    }
    assert_eq!(storage.list_pending_grants(10).await.unwrap(), [full, sparse]);
}

pub async fn a_taken_pending_grant_is_refused(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    storage.save_pending_grant(&pending("a", "p")).await.unwrap();
    let other = PendingGrant { access_token: sealed("other"), ..pending("a", "p") };
    assert_eq!(kind(storage.save_pending_grant(&other).await), StorageErrorKind::AlreadyExists);
    storage.save_pending_grant(&pending("b", "p")).await.expect("another tenant may use the identifier");
    assert_eq!(storage.list_pending_grants(10).await.unwrap(), [pending("a", "p"), pending("b", "p")]);
}

pub async fn a_refused_grant_is_kept_but_not_listed(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    for tenant in ["a", "b"] {
        storage.save_pending_grant(&pending(tenant, "p")).await.unwrap();
    }
    let reason = "ä".repeat(32 * 1024);
    assert!(storage.refuse_pending_grant(&tenant_id("a"), "p", &reason).await.unwrap());
    assert_eq!(storage.list_pending_grants(10).await.unwrap(), [pending("b", "p")]);
    let again = storage.save_pending_grant(&pending("a", "p")).await;
    assert_eq!(kind(again), StorageErrorKind::AlreadyExists, "it is still there");
}

pub async fn an_absent_grant_cannot_be_refused(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    storage.save_pending_grant(&pending("a", "p")).await.unwrap();
    assert!(!storage.refuse_pending_grant(&tenant_id("a"), "q", "").await.unwrap());
    assert!(!storage.refuse_pending_grant(&tenant_id("b"), "p", "").await.unwrap());
    assert_eq!(storage.list_pending_grants(10).await.unwrap().len(), 1);
}

pub async fn pending_grants_of_all_tenants_are_listed_up_to_a_limit(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    for (tenant, id, issued) in [("a", "p1", 12), ("b", "p2", 10), ("a", "p3", 11)] {
        let grant = PendingGrant { issued_at: at(issued), ..pending(tenant, id) };
        storage.save_pending_grant(&grant).await.unwrap();
    }
    let listed = async |limit| -> Vec<String> {
        let grants = storage.list_pending_grants(limit).await.unwrap();
        grants.into_iter().map(|grant| grant.id).collect()
    };
    assert_eq!(listed(10).await, ["p2", "p3", "p1"], "oldest first");
    assert_eq!(listed(2).await, ["p2", "p3"]);
}

pub async fn a_pending_grant_of_an_unknown_tenant_is_a_conflict(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let result = storage.save_pending_grant(&pending("unknown", "p")).await;
    assert_eq!(kind(result), StorageErrorKind::Conflict);
}
