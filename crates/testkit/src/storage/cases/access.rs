use tokenward_storage::{
    AccessRule, BlockedPrincipal, IssuerKey, PageRequest, ScopeGrant, StorageErrorKind, TenantSelector,
};
use tokenward_types::{AccessRuleId, Principal};

use crate::storage::StorageFixture;
use crate::storage::samples::{at, provider, scopes, sealed, tenant_id};
use crate::storage::tools::{MANY, at_once, kind, ready};

fn rule_id(id: &str) -> AccessRuleId {
    AccessRuleId::parse(id).unwrap()
}

pub(super) fn rule(id: &str) -> AccessRule {
    AccessRule {
        id: rule_id(id),
        principal: "corp:team-größe-*".into(),
        tenants: TenantSelector::Ids([tenant_id("acme"), tenant_id("Zebra:1")].into()),
        provider: Some(provider("hubspot")),
        scopes: ScopeGrant::Only(scopes("crm.objects.contacts.read oauth")),
        allow_broader: true,
        description: "ä".repeat(32 * 1024),
        created_at: at(13),
        updated_at: at(14),
        version: 77,
    }
}

pub(super) fn blocked(principal: &str) -> BlockedPrincipal {
    BlockedPrincipal {
        principal: Principal::parse(principal).unwrap(),
        reason: "verloren 🦀".into(),
        blocked_by: "builtin:admin".into(),
        blocked_at: at(15),
    }
}

pub(super) fn issuer_key(kid: &str) -> IssuerKey {
    IssuerKey {
        kid: kid.into(),
        sealed: sealed("private"),
        public_key: (0..32).collect(),
        created_at: at(16),
    }
}

pub async fn a_rule_keeps_every_field(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    let created = storage.create_access_rule(&rule("rule.1")).await.unwrap();
    assert_eq!(created, AccessRule { version: 1, ..rule("rule.1") });
    assert_eq!(storage.get_access_rule(&created.id).await.unwrap(), Some(created));
}

pub async fn every_kind_of_selector_is_kept(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    let labels = [("region", "eu"), ("schlüssel", "größe \"1\"")].map(|(k, v)| (k.into(), v.into()));
    let selectors = [
        TenantSelector::All,
        TenantSelector::Ids([tenant_id("a")].into()),
        TenantSelector::Labels(labels.into()),
        TenantSelector::Labels([].into()),
    ];
    let grants = [ScopeGrant::All, ScopeGrant::Only(scopes("a b")), ScopeGrant::Only(scopes(""))];
    for (number, tenants) in selectors.into_iter().enumerate() {
        for (letter, scopes) in ["a", "b", "c"].into_iter().zip(grants.clone()) {
            let provider = (number == 0).then(|| provider("hubspot"));
            let id = rule_id(&format!("r{number}{letter}"));
            let written = AccessRule {
                id,
                tenants: tenants.clone(),
                scopes,
                provider,
                allow_broader: false,
                description: String::new(),
                ..rule("r")
            };
            let created = storage.create_access_rule(&written).await.unwrap();
            assert_eq!(storage.get_access_rule(&written.id).await.unwrap(), Some(created.clone()));
            assert_eq!(created, AccessRule { version: 1, ..written });
        }
    }
}

pub async fn a_taken_rule_identifier_is_refused(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    let first = storage.create_access_rule(&rule("r")).await.unwrap();
    let second = AccessRule { description: "other".into(), ..rule("r") };
    assert_eq!(kind(storage.create_access_rule(&second).await), StorageErrorKind::AlreadyExists);
    assert_eq!(storage.get_access_rule(&rule_id("r")).await.unwrap(), Some(first));
}

pub async fn an_absent_rule_is_none(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    assert_eq!(storage.get_access_rule(&rule_id("absent")).await.unwrap(), None);
    assert_eq!(storage.update_access_rule(&rule("absent")).await.unwrap(), None);
}

pub async fn rules_are_listed_in_order_of_their_identifiers(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    for id in ["b", "a-1", "A", "a"] {
        storage.create_access_rule(&rule(id)).await.unwrap();
    }
    let first = storage.list_access_rules(&PageRequest { size: 3, after: None }).await.unwrap();
    let rest = storage.list_access_rules(&PageRequest { size: 3, after: first.next.clone() }).await.unwrap();
    assert_eq!((first.next.is_some(), rest.next), (true, None));
    let listed: Vec<_> = first.items.into_iter().chain(rest.items).map(|rule| rule.id).collect();
    assert_eq!(listed, ["A", "a", "a-1", "b"].map(rule_id));
}

pub async fn an_update_of_a_rule_writes_everything_but_its_origin(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    let created = storage.create_access_rule(&rule("r")).await.unwrap();
    let other = storage.create_access_rule(&rule("other")).await.unwrap();
    let change = AccessRule {
        principal: "corp:other".into(),
        tenants: TenantSelector::All,
        provider: None,
        scopes: ScopeGrant::All,
        allow_broader: false,
        description: "neu".into(),
        created_at: at(999),
        updated_at: at(100),
        ..created.clone()
    };
    let expected = AccessRule { created_at: created.created_at, version: 2, ..change.clone() };
    assert_eq!(storage.update_access_rule(&change).await.unwrap(), Some(expected.clone()));
    assert_eq!(storage.get_access_rule(&created.id).await.unwrap(), Some(expected));
    assert_eq!(storage.get_access_rule(&other.id).await.unwrap(), Some(other));
}

pub async fn a_stale_version_of_a_rule_is_a_conflict(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    let created = storage.create_access_rule(&rule("r")).await.unwrap();
    let updated = storage.update_access_rule(&created).await.unwrap();
    assert_eq!(kind(storage.update_access_rule(&created).await), StorageErrorKind::Conflict);
    assert_eq!(storage.get_access_rule(&created.id).await.unwrap(), updated);
}

pub async fn deleting_a_rule_twice_is_no_error(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    storage.create_access_rule(&rule("r")).await.unwrap();
    storage.create_access_rule(&rule("other")).await.unwrap();
    assert!(storage.delete_access_rule(&rule_id("r")).await.unwrap());
    assert!(!storage.delete_access_rule(&rule_id("r")).await.unwrap());
    assert!(storage.get_access_rule(&rule_id("other")).await.unwrap().is_some());
}

pub async fn a_blocked_principal_keeps_every_field(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    let written = blocked("corp:spiffe://corp/billing@x");
    storage.block_principal(&written).await.unwrap();
    let listed = storage.list_blocked_principals(&PageRequest::first()).await.unwrap();
    assert_eq!((listed.items, listed.next), (vec![written], None));
}

pub async fn blocking_twice_keeps_the_first_record(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    storage.block_principal(&blocked("corp:one")).await.unwrap();
    let second = BlockedPrincipal { reason: "second".into(), blocked_at: at(99), ..blocked("corp:one") };
    storage.block_principal(&second).await.unwrap();
    let listed = storage.list_blocked_principals(&PageRequest::first()).await.unwrap();
    assert_eq!(listed.items, [blocked("corp:one")]);
}

pub async fn unblocking_twice_is_no_error(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    storage.block_principal(&blocked("corp:one")).await.unwrap();
    storage.block_principal(&blocked("corp:One")).await.unwrap();
    let principal = blocked("corp:one").principal;
    assert!(storage.unblock_principal(&principal).await.unwrap());
    assert!(!storage.unblock_principal(&principal).await.unwrap());
    let listed = storage.list_blocked_principals(&PageRequest::first()).await.unwrap();
    assert_eq!(listed.items, [blocked("corp:One")]);
}

pub async fn blocked_principals_are_listed_in_order(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    for principal in ["x:c", "x:B", "x:a"] {
        storage.block_principal(&blocked(principal)).await.unwrap();
    }
    let first = storage.list_blocked_principals(&PageRequest { size: 2, after: None }).await.unwrap();
    let rest = PageRequest { size: 2, after: first.next.clone() };
    let rest = storage.list_blocked_principals(&rest).await.unwrap();
    assert_eq!((first.next.is_some(), rest.next), (true, None));
    let listed: Vec<_> = first.items.into_iter().chain(rest.items).collect();
    assert_eq!(listed, ["x:B", "x:a", "x:c"].map(blocked));
}

pub async fn an_issuer_key_keeps_every_field(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    assert_eq!(storage.list_issuer_keys().await.unwrap(), []);
    assert!(storage.create_first_issuer_key(&issuer_key("kid-ä")).await.unwrap());
    assert_eq!(storage.list_issuer_keys().await.unwrap(), [issuer_key("kid-ä")]);
}

pub async fn only_the_first_issuer_key_is_created(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    assert!(storage.create_first_issuer_key(&issuer_key("first")).await.unwrap());
    assert!(!storage.create_first_issuer_key(&issuer_key("second")).await.unwrap());
    assert!(!storage.create_first_issuer_key(&issuer_key("first")).await.unwrap());
    assert_eq!(storage.list_issuer_keys().await.unwrap(), [issuer_key("first")]);
}

pub async fn of_a_hundred_first_issuer_keys_one_gets_through(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    let created = at_once(MANY, &storage, |number, storage| async move {
        storage.create_first_issuer_key(&issuer_key(&format!("kid-{number}"))).await.unwrap()
    })
    .await;
    let winners: Vec<_> = (0..MANY).filter(|number| created[*number]).collect();
    assert_eq!(winners.len(), 1);
    assert_eq!(storage.list_issuer_keys().await.unwrap(), [issuer_key(&format!("kid-{}", winners[0]))]);
}

pub async fn another_issuer_key_is_stored_beside_the_others(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    storage.create_first_issuer_key(&issuer_key("first")).await.unwrap();
    storage.add_issuer_key(&issuer_key("second")).await.unwrap();
    assert_eq!(storage.list_issuer_keys().await.unwrap().len(), 2);
    assert_eq!(kind(storage.add_issuer_key(&issuer_key("second")).await), StorageErrorKind::AlreadyExists);
}
