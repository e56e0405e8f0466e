//! What a provider's answer means for a grant, and how far an error reaches.

use std::time::Duration;

use tokenward_broker::{Reason, WarningReason};
use tokenward_hubspot_sim::{Fault, FaultKind, Overlap};
use tokenward_storage::{ConnectionFilter, ConnectionState, PageRequest};
use tokenward_types::{AccountId, ExposeSecret, SecretString};

use crate::world::{Ask, CLIENT_ID, HUB, OTHER_HUB, READ, World, actor, client_id, secs, tenant};

fn nth(n: u64) -> u64 {
    2_000_000 + n
}

#[tokio::test]
async fn a_dead_grant_is_a_suspect_first_and_dead_only_when_a_second_answer_agrees() {
    let world = World::start().await;
    let connection = world.connect("acme", HUB, &["oauth", READ]).await;
    world.token(&[READ]).await.unwrap();
    world.advance(secs(1750));
    world.handle().uninstall(HUB, None).unwrap();

    let living = world.token(&[READ]).await.unwrap();
    assert_eq!(living.warnings[0].reason, WarningReason::GrantSuspect);
    assert_eq!(world.row("acme", &connection.id).await.state, ConnectionState::Suspect);

    world.advance(secs(50));
    let error = world.token(&[READ]).await.unwrap_err();
    assert_eq!(error.reason, Reason::GrantSuspect);
    assert_eq!(error.retry_after, Some(secs(10)));
    assert_eq!(world.row("acme", &connection.id).await.state, ConnectionState::Suspect);

    world.advance(secs(10));
    let error = world.token(&[READ]).await.unwrap_err();
    assert_eq!(error.reason, Reason::ReauthorizationRequired);
    assert_eq!(error.metadata["help_url"], "https://help.example.com/hubspot");
    let row = world.row("acme", &connection.id).await;
    assert_eq!(row.state, ConnectionState::ReauthRequired);
    assert!(row.tokens.is_some(), "only an admin ever deletes a grant");

    let before = world.refreshes();
    world.token(&[READ]).await.unwrap_err();
    assert_eq!(world.refreshes(), before, "a dead grant costs the provider nothing");
}

#[tokio::test]
async fn a_suspect_that_was_wronged_is_active_again() {
    let world = World::start().await;
    let connection = world.connect("acme", HUB, &["oauth", READ]).await;
    world.advance(secs(1801));
    world.handle().add_fault(Fault::new(FaultKind::BadRefreshToken).on_refresh().times(1));
    assert_eq!(world.token(&[READ]).await.unwrap_err().reason, Reason::GrantSuspect);
    world.advance(secs(60));
    assert!(world.token(&[READ]).await.unwrap().warnings.is_empty());
    assert_eq!(world.row("acme", &connection.id).await.state, ConnectionState::Active);
}

#[tokio::test]
async fn a_deleted_account_is_a_dead_grant() {
    let world = World::start().await;
    world.connect("acme", HUB, &["oauth", READ]).await;
    world.handle().delete_portal(HUB).unwrap();
    world.advance(secs(1801));
    assert_eq!(world.token(&[READ]).await.unwrap_err().reason, Reason::GrantSuspect);
    world.advance(secs(61));
    assert_eq!(world.token(&[READ]).await.unwrap_err().reason, Reason::ReauthorizationRequired);
}

#[tokio::test]
async fn reconnecting_heals_a_dead_grant_and_keeps_the_connection() {
    let world = World::start().await;
    let connection = world.connect("acme", HUB, &["oauth", READ]).await;
    world.handle().uninstall(HUB, None).unwrap();
    world.advance(secs(1801));
    world.token(&[READ]).await.unwrap_err();
    world.advance(secs(61));
    world.token(&[READ]).await.unwrap_err();
    let again = world.connect("acme", HUB, &["oauth", READ]).await;
    assert_eq!(again.id, connection.id);
    assert!(again.consent_epoch > connection.consent_epoch);
    world.token(&[READ]).await.unwrap();
}

#[tokio::test]
async fn a_dead_account_makes_the_choice_ambiguous_rather_than_silently_another() {
    let world = World::start().await;
    world.connect("acme", HUB, &["oauth", READ]).await;
    world.connect("acme", OTHER_HUB, &["oauth", READ]).await;
    world.handle().uninstall(HUB, None).unwrap();
    world.advance(secs(1801));
    let hub = HUB.to_string();
    let ask = || Ask { account: &hub, scopes: &[READ], ..Ask::default() };
    world.ask(ask()).await.unwrap_err();
    world.advance(secs(61));
    assert_eq!(world.ask(ask()).await.unwrap_err().reason, Reason::ReauthorizationRequired);
    assert_eq!(world.token(&[READ]).await.unwrap_err().reason, Reason::ConnectionAmbiguous);
}

#[tokio::test]
async fn a_wrong_client_secret_marks_no_grant_dead() {
    let world = World::start().await;
    let connections: Vec<_> =
        futures::future::join_all((0..5).map(|n| world.connect("acme", nth(n), &["oauth", READ]))).await;
    world.handle().set_client_secret(CLIENT_ID, "another", Overlap::None).unwrap();
    world.advance(secs(1801));
    let before = world.refreshes();
    for connection in &connections {
        let ask = Ask { connection: connection.id.as_str(), scopes: &[READ], ..Ask::default() };
        assert_eq!(world.ask(ask).await.unwrap_err().reason, Reason::OAuthClientMisconfigured);
    }
    assert_eq!(world.refreshes() - before, 1, "the breaker stopped the others");
    world.let_pause_pass().await;
    world.advance(secs(3600));
    for connection in &connections {
        let ask = Ask { connection: connection.id.as_str(), scopes: &[READ], ..Ask::default() };
        world.ask(ask).await.unwrap_err();
        assert_eq!(world.row("acme", &connection.id).await.state, ConnectionState::Active);
    }
    world
        .broker
        .add_client_secret(&actor(), &client_id(), &SecretString::from("another"), true)
        .await
        .unwrap();
    for connection in &connections {
        let ask = Ask { connection: connection.id.as_str(), scopes: &[READ], ..Ask::default() };
        world.ask(ask).await.unwrap();
    }
}

#[tokio::test]
async fn rotating_a_client_secret_loses_no_call() {
    let world = World::start().await;
    world.connect("acme", HUB, &["oauth", READ]).await;
    let broker = &world.broker;
    broker.add_client_secret(&actor(), &client_id(), &SecretString::from("new-secret"), false).await.unwrap();
    world.advance(secs(1801));
    world.token(&[READ]).await.unwrap();

    world.handle().set_client_secret(CLIENT_ID, "new-secret", Overlap::None).unwrap();
    world.advance(secs(1801));
    world.token(&[READ]).await.unwrap();

    broker.activate_client_secret(&actor(), &client_id(), 2).await.unwrap();
    broker.retire_client_secret(&actor(), &client_id(), 1).await.unwrap();
    world.advance(secs(1801));
    let before = world.refreshes();
    world.token(&[READ]).await.unwrap();
    assert_eq!(world.refreshes() - before, 1, "the retired one is not tried");
}

#[tokio::test]
async fn another_secret_is_never_tried_after_an_unknown_outcome() {
    let world = World::start().await;
    world.connect("acme", HUB, &["oauth", READ]).await;
    world
        .broker
        .add_client_secret(&actor(), &client_id(), &SecretString::from("second"), false)
        .await
        .unwrap();
    for kind in [FaultKind::DropReplyAfterIssue, FaultKind::Html { status: None }, FaultKind::TruncatedBody] {
        world.advance(secs(3600));
        world.handle().add_fault(Fault::new(kind).on_refresh().times(1));
        let before = world.refreshes();
        assert_eq!(world.token(&[READ]).await.unwrap_err().reason, Reason::ProviderUnavailable);
        assert_eq!(world.refreshes() - before, 1);
    }
}

#[tokio::test]
async fn throttling_pauses_the_client_and_one_probe_ends_it() {
    let world = World::start().await;
    let (first, second) = (
        world.connect("acme", nth(1), &["oauth", READ]).await,
        world.connect("acme", nth(2), &["oauth", READ]).await,
    );
    world.advance(secs(1801));
    let fault = FaultKind::RateLimited { retry_after: Some(20), policy_name: None };
    world.handle().add_fault(Fault::new(fault).on_refresh().times(1));
    let before = world.refreshes();
    for connection in [&first, &second] {
        let ask = Ask { connection: connection.id.as_str(), scopes: &[READ], ..Ask::default() };
        let error = world.ask(ask).await.unwrap_err();
        assert_eq!(error.reason, Reason::ProviderRateLimited);
        assert_eq!(error.retry_after, Some(secs(20)));
    }
    assert_eq!(world.refreshes() - before, 1);
    world.let_pause_pass().await;
    world.advance(secs(20));
    for connection in [&first, &second] {
        let ask = Ask { connection: connection.id.as_str(), scopes: &[READ], ..Ask::default() };
        world.ask(ask).await.unwrap();
    }
}

#[tokio::test]
async fn a_locked_account_pauses_that_connection_only() {
    let world = World::start().await;
    let (first, second) = (
        world.connect("acme", nth(1), &["oauth", READ]).await,
        world.connect("acme", nth(2), &["oauth", READ]).await,
    );
    world.advance(secs(1801));
    let fault = FaultKind::Status { status: 423, body: None, content_type: None, retry_after: Some(7200) };
    world.handle().add_fault(Fault::new(fault).on_refresh().for_hub(nth(1)).times(1));
    let ask = |id| Ask { connection: id, scopes: &[READ], ..Ask::default() };
    let error = world.ask(ask(first.id.as_str())).await.unwrap_err();
    assert_eq!((error.reason, error.retry_after), (Reason::ProviderUnavailable, Some(secs(7200))));
    world.ask(ask(second.id.as_str())).await.unwrap();
    world.advance(secs(7200));
    world.ask(ask(first.id.as_str())).await.unwrap();
}

#[tokio::test]
async fn when_too_many_grants_die_at_once_none_is_marked_dead() {
    let world = World::start().await;
    let connections: Vec<_> =
        futures::future::join_all((0..7).map(|n| world.connect("acme", nth(n), &["oauth", READ]))).await;
    world.advance(secs(1801));
    world.handle().add_fault(Fault::new(FaultKind::BadRefreshToken).on_refresh());
    for wait in [0, 61, 61] {
        world.advance(secs(wait));
        for connection in &connections {
            let ask = Ask { connection: connection.id.as_str(), scopes: &[READ], ..Ask::default() };
            assert_eq!(world.ask(ask).await.unwrap_err().reason, Reason::GrantSuspect);
        }
    }
    let filter = ConnectionFilter { state: Some(ConnectionState::ReauthRequired), ..Default::default() };
    assert!(world.storage.list_connections(&filter, &PageRequest::first()).await.unwrap().items.is_empty());
    assert!(world.broker.metrics().encode().contains("alert=\"mass_death\""));

    world.handle().clear_faults();
    world.advance(secs(61));
    for connection in &connections {
        let ask = Ask { connection: connection.id.as_str(), scopes: &[READ], ..Ask::default() };
        world.ask(ask).await.unwrap();
    }
}

#[tokio::test]
async fn a_lost_reply_of_a_rotating_provider_costs_nothing_within_its_grace() {
    let rotating = serde_json::json!({"rotation": "grace", "grace_period": "30s"});
    let world = World::with(rotating, |_| {}).await;
    let rotation =
        serde_json::from_value(serde_json::json!({"mode": "grace", "style": "sibling", "window_secs": 30}))
            .unwrap();
    world.handle().change_settings(tokenward_hubspot_sim::SettingsPatch {
        rotation: Some(rotation),
        ..Default::default()
    });
    world.connect("acme", HUB, &["oauth", READ]).await;
    world.advance(secs(1801));
    world.handle().add_fault(Fault::new(FaultKind::DropReplyAfterIssue).on_refresh().times(1));
    world.token(&[READ]).await.unwrap_err();
    world.advance(secs(2));
    let token = world.token(&[READ]).await.unwrap();
    assert!(world.handle().is_access_token_live(token.live.access_token().expose_secret()));
    assert_eq!(world.handle().stats().reuse_detected, 0);
    for _ in 0..3 {
        world.advance(secs(1801));
        world.token(&[READ]).await.unwrap();
    }
}

/// A provider that gets to a call after whoever made it gave up and asked again, and ends the token that he has by then.
#[tokio::test]
async fn a_call_that_the_provider_gets_to_late_costs_nothing_within_its_grace() {
    let rotating = serde_json::json!({
        "rotation": "grace", "grace_period": "30s", "timeout": "200ms", "connect_timeout": "200ms",
    });
    let world = World::with(rotating, |_| {}).await;
    let rotation = serde_json::from_value(serde_json::json!({
        "mode": "grace", "style": "supersede", "window_secs": 30, "after_window": "kill_family",
    }));
    world.handle().change_settings(tokenward_hubspot_sim::SettingsPatch {
        rotation: Some(rotation.unwrap()),
        ..Default::default()
    });
    let connection = world.connect("acme", HUB, &["oauth", READ]).await;
    world.advance(secs(1801));
    let issued = world.handle().stats().issued;
    world.handle().add_fault(Fault::new(FaultKind::Latency { ms: 4000 }).on_refresh().times(1));
    world.token(&[READ]).await.unwrap_err();
    world.advance(secs(2));
    let token = world.token(&[READ]).await.unwrap();
    assert_eq!(world.handle().stats().issued, issued + 1, "the first call is not answered yet");
    while world.handle().stats().issued == issued + 1 {
        tokio::task::yield_now().await;
    }
    // Nobody asks for the token, and the token that it was got with answers for half a minute.
    world.broker.resolve_attempts().await.unwrap();
    world.advance(secs(15));
    world.broker.resolve_attempts().await.unwrap();
    while world.row("acme", &connection.id).await.tokens.unwrap().issued_at <= token.live.issued_at {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.row("acme", &connection.id).await.state, ConnectionState::Active);
    for _ in 0..3 {
        world.advance(secs(1801));
        world.token(&[READ]).await.unwrap();
    }
    assert_eq!(world.handle().stats().reuse_detected, 0);
}

#[tokio::test]
async fn disconnecting_wipes_the_tokens_and_revokes_the_grant_at_the_provider() {
    let world = World::start().await;
    let connection = world.connect("acme", HUB, &["oauth", READ]).await;
    world.token(&[READ]).await.unwrap();
    let acme = tenant("acme");
    let gone =
        world.broker.disconnect(&actor(), &acme, &connection.id, None, "contract ended").await.unwrap();
    assert_eq!(gone.state, ConnectionState::Revoked);
    assert!(gone.tokens.is_none());
    assert_eq!(world.token(&[READ]).await.unwrap_err().reason, Reason::ConnectionRequired);
    while !world.storage.list_revocations(world_end(), 10).await.unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(world.handle().grants(HUB).iter().all(|family| !family.alive));
    world.broker.delete_connection(&actor(), &acme, &connection.id).await.unwrap();
    assert_eq!(
        world.broker.get_connection(&acme, &connection.id).await.unwrap_err().reason,
        Reason::NotFound
    );
}

fn world_end() -> tokenward_types::Timestamp {
    tokenward_types::Timestamp::from_micros(i64::MAX)
}

#[tokio::test]
async fn an_account_of_another_tenant_is_refused_unless_that_is_allowed() {
    let world = World::start().await;
    world.add_tenant("other").await;
    world.connect("acme", HUB, &["oauth", READ]).await;
    let token = world.grant(HUB, &["oauth", READ]);
    let result =
        world.broker.import_refresh_token(&actor(), &tenant("other"), &client_id(), token, None).await;
    assert_eq!(result.unwrap_err().reason, Reason::AccountTaken);

    let world = World::with(serde_json::json!({}), |settings| settings.allow_shared_accounts = true).await;
    world.add_tenant("other").await;
    world.connect("acme", HUB, &["oauth", READ]).await;
    world.connect("other", HUB, &["oauth", READ]).await;
}

#[tokio::test]
async fn an_import_is_tried_before_it_is_stored() {
    let world = World::start().await;
    let import = |token: &str, account| {
        let token = SecretString::from(token);
        let (broker, acme, client) = (world.broker.clone(), tenant("acme"), client_id());
        async move { broker.import_refresh_token(&actor(), &acme, &client, token, account).await }
    };
    assert_eq!(import("na1-wrong", None).await.unwrap_err().reason, Reason::GrantRefused);
    assert_eq!(import("has space", None).await.unwrap_err().reason, Reason::InvalidRequest);
    let good = world.grant(HUB, &["oauth", READ]);
    let other = AccountId::parse("42").unwrap();
    assert_eq!(import(good.expose_secret(), Some(other)).await.unwrap_err().reason, Reason::AccountMismatch);
    assert!(world.storage.list_tenant_connections(&tenant("acme")).await.unwrap().is_empty());
    assert!(
        world.handle().grants(HUB)[0].alive,
        "a mismatch is not revoked: it may be another tenant's grant"
    );
}

#[tokio::test]
async fn a_token_in_use_is_refreshed_ahead_and_an_idle_one_is_not() {
    let world = World::start().await;
    let used = world.connect("acme", nth(1), &["oauth", READ]).await;
    world.connect("acme", nth(2), &["oauth", READ]).await;
    let ask = || Ask { connection: used.id.as_str(), scopes: &[READ], ..Ask::default() };
    let first = world.ask(ask()).await.unwrap();
    let before = world.refreshes();
    world.advance(secs(1351));
    while world.refreshes() == before {
        // The maintenance looks once a second for what is due.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    while world.ask(ask()).await.unwrap().live.fingerprint == first.live.fingerprint {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.refreshes() - before, 1);
}

#[tokio::test]
async fn a_wrong_key_is_refused_at_start_by_name() {
    let world = World::start().await;
    world.connect("acme", HUB, &["oauth", READ]).await;
    let wrong = world.with_key("1:ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=").await.err().unwrap();
    assert_eq!(wrong.reason, Reason::StoredDataDamaged);
    assert!(wrong.message.contains("local:1"), "{}", wrong.message);
    let missing = world.with_key("2:ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=").await.err().unwrap();
    assert!(
        missing.message.contains("local:1") && missing.message.contains("local:2"),
        "{}",
        missing.message
    );
    assert_eq!(world.storage.list_kek_checks().await.unwrap().len(), 1, "nothing was written");
}

#[tokio::test]
async fn a_suspect_is_looked_at_ever_more_rarely() {
    let world = World::start().await;
    let connections: Vec<_> =
        futures::future::join_all((0..7).map(|n| world.connect("acme", nth(n), &["oauth", READ]))).await;
    world.advance(secs(1801));
    world.handle().add_fault(Fault::new(FaultKind::BadRefreshToken).on_refresh());
    let asks = |id: String| {
        let world = &world;
        async move {
            let ask = Ask { connection: &id, scopes: &[READ], ..Ask::default() };
            world.ask(ask).await.unwrap_err()
        }
    };
    let mut looks = Vec::new();
    for _ in 0..20 {
        let before = world.refreshes();
        for connection in &connections {
            let error = asks(connection.id.to_string()).await;
            assert_eq!(error.reason, Reason::GrantSuspect);
        }
        looks.push(world.refreshes() - before);
        world.advance(secs(60));
    }
    assert_eq!(looks[0], 7);
    let late: u64 = looks[10..].iter().sum();
    assert!(late <= 3 * 7, "mass death keeps them suspects, and they cost little: {looks:?}");
}

#[tokio::test]
async fn a_refreshed_token_that_lost_a_scope_is_not_given_to_who_needs_it() {
    let world = World::start().await;
    let rule = tokenward_storage::ScopeGrant::Only(
        tokenward_types::Scopes::parse("crm.objects.contacts.write").unwrap(),
    );
    world.add_rule("write", rule, false).await;
    let write = "crm.objects.contacts.write";
    world.connect("acme", HUB, &["oauth", READ, write]).await;
    world.token(&[READ, write]).await.unwrap();
    world.advance(secs(1801));
    let body = serde_json::json!({
        "token_type": "bearer", "access_token": "narrower", "refresh_token": "na1-next", "expires_in": 1800,
        "hub_id": HUB, "scopes": ["oauth", READ], "token_use": "access_token",
    });
    let fault = FaultKind::Status {
        status: 200,
        body: Some(body.to_string()),
        content_type: Some("application/json".into()),
        retry_after: None,
    };
    world.handle().add_fault(Fault::new(fault).on_refresh().times(1));
    let error = world.token(&[READ, write]).await.unwrap_err();
    assert_eq!((error.reason, error.metadata["missing_scopes"].as_str()), (Reason::ScopeNotGranted, write));
    assert_eq!(world.token(&[READ]).await.unwrap().live.access_token().expose_secret(), "narrower");
}

#[tokio::test]
async fn a_secret_that_the_provider_refuses_is_not_activated_and_the_last_good_one_not_retired() {
    let world = World::start().await;
    world.connect("acme", HUB, &["oauth", READ]).await;
    let broker = &world.broker;
    let wrong = broker.add_client_secret(&actor(), &client_id(), &SecretString::from("typo"), true).await;
    assert_eq!(wrong.unwrap_err().reason, Reason::OAuthClientMisconfigured);
    let secrets = broker.list_client_secrets(&client_id()).await.unwrap();
    assert_eq!(secrets.len(), 2, "it stays, to be tried when the active one is refused");

    world.handle().set_client_secret(CLIENT_ID, "typo", Overlap::None).unwrap();
    world.advance(secs(1801));
    world.token(&[READ]).await.unwrap();
    let kept = broker.retire_client_secret(&actor(), &client_id(), 2).await;
    assert_eq!(kept.unwrap_err().reason, Reason::InUse);
    broker.activate_client_secret(&actor(), &client_id(), 2).await.unwrap();
    broker.retire_client_secret(&actor(), &client_id(), 1).await.unwrap();
}

#[tokio::test]
async fn a_strict_providers_token_is_not_spent_again_while_its_outcome_is_unknown() {
    let world = World::with(serde_json::json!({"rotation": "strict"}), |_| {}).await;
    let strict = serde_json::from_value(serde_json::json!({"mode": "strict"})).unwrap();
    world.handle().change_settings(tokenward_hubspot_sim::SettingsPatch {
        rotation: Some(strict),
        ..Default::default()
    });
    let connection = world.connect("acme", HUB, &["oauth", READ]).await;
    world.advance(secs(1801));
    world.handle().add_fault(Fault::new(FaultKind::HangUpBefore).on_refresh().times(1));
    world.token(&[READ]).await.unwrap_err();
    let before = world.refreshes();
    world.advance(secs(2));
    world.token(&[READ]).await.unwrap_err();
    assert_eq!(world.refreshes(), before, "the provider may still get to the call");
    world.advance(secs(13));
    world.token(&[READ]).await.unwrap();
    assert_eq!(world.handle().stats().reuse_detected, 0, "introspection said that it lives");

    world.advance(secs(1801));
    world.handle().add_fault(Fault::new(FaultKind::DropReplyAfterIssue).on_refresh().times(1));
    world.token(&[READ]).await.unwrap_err();
    let before = world.refreshes();
    for wait in [2, 61, 61, 120] {
        world.advance(secs(wait));
        world.token(&[READ]).await.unwrap_err();
    }
    assert_eq!(world.refreshes(), before, "a spent token never went out again");
    assert_eq!(world.handle().stats().reuse_detected, 0);
    assert_eq!(world.row("acme", &connection.id).await.state, ConnectionState::ReauthRequired);
}

#[tokio::test]
async fn a_lost_reply_of_a_provider_that_does_not_rotate_costs_one_call_when_the_grant_dies_later() {
    let world = World::start().await;
    world.connect("acme", HUB, &["oauth", READ]).await;
    for _ in 0..3 {
        world.advance(secs(1801));
        world.handle().add_fault(Fault::new(FaultKind::DropReplyAfterIssue).on_refresh().times(1));
        world.token(&[READ]).await.unwrap_err();
        world.advance(secs(5));
        world.token(&[READ]).await.unwrap();
    }
    world.handle().uninstall(HUB, None).unwrap();
    world.advance(secs(1801));
    let before = world.refreshes();
    assert_eq!(world.token(&[READ]).await.unwrap_err().reason, Reason::GrantSuspect);
    assert_eq!(world.refreshes() - before, 1, "the same token is not spent again under another name");
}
