use tokenward_broker::admin::{NewAccessRule, NewTenant};
use tokenward_broker::{Actor, Reason};
use tokenward_storage::{PageRequest, ScopeGrant, TenantSelector, TenantState};
use tokenward_types::Principal;

use super::world::{World, actor, tenant};

#[tokio::test]
async fn only_a_principal_that_can_exist_and_is_somebody_else_can_be_blocked() {
    let world = World::start().await;
    let block = |actor: Actor, principal: &str| {
        let (broker, principal) = (world.broker.clone(), Principal::parse(principal).unwrap());
        async move { broker.block_principal(&actor, &principal, "").await }
    };
    for slip in ["billing", "builtin:"] {
        let refused = block(actor(), slip).await.unwrap_err();
        assert_eq!((refused.reason, &*refused.metadata["field"]), (Reason::InvalidRequest, "principal"));
    }
    let own = actor().principal;
    let refused = block(actor(), own.as_str()).await.unwrap_err();
    assert_eq!(refused.reason, Reason::InvalidRequest);
    assert!(refused.message.contains("your own"), "{refused}");
    assert_eq!(world.storage.list_blocked_principals(&PageRequest::first()).await.unwrap().items, []);

    let another = Actor { principal: Principal::parse("builtin:second-admin").unwrap(), ..actor() };
    block(another, own.as_str()).await.unwrap();
}

#[tokio::test]
async fn a_rule_for_nobody_is_a_slip_of_the_pen() {
    let world = World::start().await;
    let rule = |principal: &str| NewAccessRule {
        id: None,
        principal: principal.to_owned(),
        tenants: TenantSelector::All,
        provider: None,
        scopes: ScopeGrant::All,
        allow_broader: false,
        description: String::new(),
    };
    let refused = world.broker.create_access_rule(&actor(), rule("billing")).await.unwrap_err();
    assert_eq!((refused.reason, &*refused.metadata["field"]), (Reason::InvalidRequest, "principal"));
    for good in ["builtin:billing", "*", "corp*"] {
        world.broker.create_access_rule(&actor(), rule(good)).await.unwrap();
    }
}

#[tokio::test]
async fn what_exists_already_is_named() {
    let world = World::start().await;
    let again = NewTenant {
        id: tenant("acme"),
        display_name: String::new(),
        labels: std::collections::BTreeMap::new(),
        state: TenantState::Active,
    };
    let refused = world.broker.create_tenant(&actor(), again).await.unwrap_err();
    assert_eq!(refused.reason, Reason::AlreadyExists);
    assert!(refused.message.contains("tenant acme"), "{refused}");
}
