//! Which token a caller gets, and which it never gets.

use tokenward_broker::Reason;
use tokenward_storage::{ScopeGrant, TenantSelector, TenantState};
use tokenward_types::{AccessRuleId, Scopes};

use crate::world::{Ask, HUB, OTHER_HUB, READ, WRITE, World, actor, tenant};

fn only(scopes: &str) -> ScopeGrant {
    ScopeGrant::Only(Scopes::parse(scopes).unwrap())
}

async fn reason(world: &World, ask: Ask<'_>) -> Reason {
    world.ask(ask).await.unwrap_err().reason
}

#[tokio::test]
async fn without_a_rule_the_answer_is_the_same_whether_the_tenant_exists_or_not() {
    let world = World::start().await;
    world.connect("acme", HUB, &["oauth", READ]).await;
    let stranger = |tenant| Ask { principal: "builtin:stranger", tenant, scopes: &[READ], ..Ask::default() };
    let existing = world.ask(stranger("acme")).await.unwrap_err();
    let absent = world.ask(stranger("nobody")).await.unwrap_err();
    assert_eq!(existing.reason, Reason::AccessDenied);
    assert_eq!((existing.to_string(), existing.metadata), (absent.to_string(), absent.metadata));
}

#[tokio::test]
async fn a_rule_by_label_does_not_tell_whether_other_tenants_exist() {
    let world = World::start().await;
    world.broker.delete_access_rule(&actor(), &AccessRuleId::parse("read").unwrap(), None).await.unwrap();
    let labels = |value: &str| TenantSelector::Labels([("tier".to_owned(), value.to_owned())].into());
    world.add_rule_for("gold", labels("silver"), only(READ), false).await;
    world.connect("acme", HUB, &["oauth", READ]).await;
    let ask = |tenant| Ask { tenant, scopes: &[READ], ..Ask::default() };
    let existing = world.ask(ask("acme")).await.unwrap_err();
    let absent = world.ask(ask("nobody")).await.unwrap_err();
    assert_eq!(existing.reason, Reason::AccessDenied);
    assert_eq!(existing.to_string(), absent.to_string());
    world.add_rule_for("real", labels("gold"), only(READ), false).await;
    world.ask(ask("acme")).await.unwrap();
}

#[tokio::test]
async fn a_tenant_that_a_rule_names_and_that_is_not_there_is_not_found() {
    let world = World::start().await;
    assert_eq!(reason(&world, Ask { tenant: "nobody", ..Ask::default() }).await, Reason::NotFound);
    assert_eq!(reason(&world, Ask::default()).await, Reason::ConnectionRequired);
}

#[tokio::test]
async fn a_scope_that_no_rule_allows_is_denied_even_if_it_was_granted() {
    let world = World::start().await;
    world.connect("acme", HUB, &["oauth", READ, WRITE]).await;
    assert_eq!(reason(&world, Ask { scopes: &[WRITE], ..Ask::default() }).await, Reason::AccessDenied);
}

#[tokio::test]
async fn a_scope_that_was_not_granted_is_named() {
    let world = World::start().await;
    world.add_rule("write", only(WRITE), false).await;
    let connection = world.connect("acme", HUB, &["oauth", READ]).await;
    let error = world.token(&[READ, WRITE]).await.unwrap_err();
    assert_eq!(error.reason, Reason::ScopeNotGranted);
    assert_eq!(error.metadata["missing_scopes"], WRITE);
    assert_eq!(error.metadata["connection_id"], connection.id.as_str());
    assert_eq!(error.metadata["help_url"], "https://help.example.com/hubspot");
}

#[tokio::test]
async fn rules_add_up_over_scopes_but_a_broader_token_needs_a_rule_that_alone_covers_the_request() {
    let world = World::start().await;
    let third = "crm.objects.companies.read";
    world.connect("acme", HUB, &["oauth", READ, WRITE, third]).await;
    world.add_rule("write", only(WRITE), true).await;
    assert_eq!(reason(&world, Ask { scopes: &[READ, WRITE], ..Ask::default() }).await, Reason::TokenTooBroad);
    let token = world.token(&[WRITE]).await.unwrap();
    assert_eq!(token.live.scopes.len(), 4, "the answer tells what the token really carries");
    world.add_rule("third", only(third), false).await;
    world.token(&[READ, WRITE]).await.unwrap();
}

#[tokio::test]
async fn base_scopes_never_count_as_excess_and_may_be_asked_for() {
    let world = World::start().await;
    world.connect("acme", HUB, &["oauth", READ]).await;
    world.token(&["oauth", READ]).await.unwrap();
}

#[tokio::test]
async fn no_scopes_means_all_that_rule_and_connection_share() {
    let world = World::start().await;
    world.connect("acme", HUB, &["oauth", READ]).await;
    world.token(&[]).await.unwrap();

    world.broker.delete_access_rule(&actor(), &AccessRuleId::parse("read").unwrap(), None).await.unwrap();
    world.add_rule("write", only(WRITE), true).await;
    assert_eq!(reason(&world, Ask::default()).await, Reason::AccessDenied, "nothing is shared");
    world.add_rule("all", ScopeGrant::All, false).await;
    world.token(&[]).await.unwrap();
}

#[tokio::test]
async fn a_token_that_is_too_broad_is_refused_with_both_ways_out() {
    let world = World::start().await;
    world.connect("acme", HUB, &["oauth", READ, WRITE]).await;
    let error = world.token(&[READ]).await.unwrap_err();
    assert_eq!(error.reason, Reason::TokenTooBroad);
    assert!(
        error.message.contains("fewer scopes") && error.message.contains("allow_broader"),
        "{}",
        error.message
    );
    world.add_rule("broad", only(READ), true).await;
    world.token(&[READ]).await.unwrap();
}

#[tokio::test]
async fn of_two_accounts_none_is_chosen_silently() {
    let world = World::start().await;
    let first = world.connect("acme", HUB, &["oauth", READ]).await;
    let second = world.connect("acme", OTHER_HUB, &["oauth", READ]).await;
    let error = world.token(&[READ]).await.unwrap_err();
    assert_eq!(error.reason, Reason::ConnectionAmbiguous);
    assert!(error.metadata["connections"].contains(first.id.as_str()));
    assert!(error.metadata["connections"].contains(second.id.as_str()));

    let account = OTHER_HUB.to_string();
    let by_account = Ask { account: &account, scopes: &[READ], ..Ask::default() };
    assert_eq!(world.ask(by_account).await.unwrap().live.connection, second.id);
    let by_id = Ask { connection: first.id.as_str(), scopes: &[READ], ..Ask::default() };
    assert_eq!(world.ask(by_id).await.unwrap().live.connection, first.id);
    let by_provider = Ask { provider: "hubspot", scopes: &[READ], ..Ask::default() };
    assert_eq!(reason(&world, by_provider).await, Reason::ConnectionAmbiguous);
}

#[tokio::test]
async fn unknown_provider_account_or_connection_is_a_missing_connection() {
    let world = World::start().await;
    world.connect("acme", HUB, &["oauth", READ]).await;
    for ask in [
        Ask { provider: "salesforce", ..Ask::default() },
        Ask { account: "1", ..Ask::default() },
        Ask { connection: "con_1", ..Ask::default() },
    ] {
        assert_eq!(reason(&world, ask).await, Reason::ConnectionRequired);
    }
}

#[tokio::test]
async fn changes_of_rules_and_tenants_hold_at_once() {
    let world = World::start().await;
    world.connect("acme", HUB, &["oauth", READ]).await;
    world.token(&[READ]).await.unwrap();

    let change = |state| tokenward_broker::admin::TenantChange { state: Some(state), ..Default::default() };
    let acme = tenant("acme");
    world.broker.update_tenant(&actor(), &acme, None, change(TenantState::Suspended)).await.unwrap();
    assert_eq!(reason(&world, Ask { scopes: &[READ], ..Ask::default() }).await, Reason::TenantSuspended);
    world.broker.update_tenant(&actor(), &acme, None, change(TenantState::Active)).await.unwrap();
    world.token(&[READ]).await.unwrap();

    world.broker.delete_access_rule(&actor(), &AccessRuleId::parse("read").unwrap(), None).await.unwrap();
    assert_eq!(reason(&world, Ask { scopes: &[READ], ..Ask::default() }).await, Reason::AccessDenied);
}

#[tokio::test]
async fn another_tenants_connection_is_out_of_reach() {
    let world = World::start().await;
    world.add_tenant("other").await;
    let theirs = world.connect("other", OTHER_HUB, &["oauth", READ]).await;
    let ask = Ask { connection: theirs.id.as_str(), scopes: &[READ], ..Ask::default() };
    assert_eq!(reason(&world, ask).await, Reason::ConnectionRequired);
}
