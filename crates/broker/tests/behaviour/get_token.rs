//! Getting a token: fresh ones from memory, stale ones through one refresh.

use std::time::Duration;

use crate::world::{Ask, HUB, READ, World, actor, secs, tenant};
use serde_json::json;
use tokenward_broker::{Reason, ReportOutcome, Token, WarningReason};
use tokenward_hubspot_sim::{Fault, FaultKind};
use tokenward_types::{ExposeSecret, Principal, SecretString};

#[tokio::test]
async fn a_token_works_at_the_provider_and_is_served_from_memory_afterwards() {
    let world = World::start().await;
    let connection = world.connect("acme", HUB, &["oauth", READ]).await;
    let before = world.refreshes();

    let token = world.token(&[READ]).await.unwrap();
    assert!(world.handle().is_access_token_live(token.live.access_token().expose_secret()));
    assert_eq!(token.live.connection, connection.id);
    assert_eq!(token.live.account.as_str(), HUB.to_string());
    assert_eq!(token.ttl, Some(secs(1800)));
    assert!(token.warnings.is_empty());

    for _ in 0..10 {
        let again = world.token(&[READ]).await.unwrap();
        assert_eq!(again.live.fingerprint, token.live.fingerprint);
    }
    assert_eq!(world.refreshes(), before, "the stored token was fresh");
}

#[tokio::test]
async fn a_thousand_callers_of_an_expired_token_cause_one_refresh() {
    let world = World::start().await;
    world.connect("acme", HUB, &["oauth", READ]).await;
    world.advance(secs(1801));
    let before = world.refreshes();
    let tokens = futures::future::join_all((0..1000).map(|_| world.token(&[READ]))).await;
    let first = tokens[0].as_ref().unwrap().live.fingerprint.clone();
    assert!(tokens.iter().all(|token| token.as_ref().unwrap().live.fingerprint == first));
    assert_eq!(world.refreshes() - before, 1);
}

#[tokio::test]
async fn a_caller_that_goes_away_cancels_nothing() {
    let world = World::start().await;
    world.connect("acme", HUB, &["oauth", READ]).await;
    world.advance(secs(1801));
    world.handle().add_fault(Fault::new(FaultKind::Latency { ms: 200 }).on_refresh().times(1));
    let before = world.refreshes();
    tokio::time::timeout(Duration::from_millis(20), world.token(&[READ])).await.unwrap_err();
    let token = world.token(&[READ]).await.unwrap();
    assert_eq!(token.ttl, Some(secs(1800)));
    assert_eq!(world.refreshes() - before, 1, "the second caller joined the first one's refresh");
}

#[tokio::test]
async fn min_ttl_refreshes_a_token_that_lives_too_shortly_unless_it_is_young() {
    let world = World::start().await;
    world.connect("acme", HUB, &["oauth", READ]).await;
    let ask = |min_ttl| Ask { scopes: &[READ], min_ttl: Some(secs(min_ttl)), ..Ask::default() };
    world.advance(secs(30));
    let young = world.ask(ask(1740)).await.unwrap();
    assert_eq!(young.ttl, Some(secs(1770)));

    world.advance(secs(600));
    let before = world.refreshes();
    let fresh = world.ask(ask(1500)).await.unwrap();
    assert_eq!(fresh.warnings, []);
    assert_eq!(fresh.ttl, Some(secs(1800)));
    assert_eq!(world.refreshes() - before, 1);
}

#[tokio::test]
async fn a_young_token_is_served_with_a_warning_rather_than_refreshed_again() {
    let world = World::start().await;
    world.handle().change_settings(tokenward_hubspot_sim::SettingsPatch {
        token_lifetime_secs: Some(70),
        ..Default::default()
    });
    world.connect("acme", HUB, &["oauth", READ]).await;
    assert!(world.token(&[READ]).await.unwrap().warnings.is_empty());
    let before = world.refreshes();
    world.advance(secs(55));
    let token = world.token(&[READ]).await.unwrap();
    assert_eq!(token.ttl, Some(secs(15)));
    assert_eq!(token.warnings[0].reason, WarningReason::MinTtlNotMet);
    assert_eq!(world.refreshes(), before);
    world.advance(secs(6));
    assert_eq!(world.token(&[READ]).await.unwrap().ttl, Some(secs(70)));
}

#[tokio::test]
async fn a_min_ttl_that_no_token_ever_has_is_refused_with_the_maximum() {
    let world = World::start().await;
    world.connect("acme", HUB, &["oauth", READ]).await;
    let ask = |min_ttl| Ask { scopes: &[READ], min_ttl: Some(secs(min_ttl)), ..Ask::default() };
    let error = world.ask(ask(1741)).await.unwrap_err();
    assert_eq!(error.reason, Reason::MinTtlTooLong);
    assert_eq!(error.metadata["max_min_ttl_seconds"], "1740");
    world.ask(ask(1740)).await.unwrap();
}

#[tokio::test]
async fn less_than_five_seconds_left_counts_as_expired() {
    let world = World::start().await;
    world.connect("acme", HUB, &["oauth", READ]).await;
    world.token(&[READ]).await.unwrap();
    let before = world.refreshes();
    let none = || Ask { scopes: &[READ], min_ttl: Some(Duration::ZERO), ..Ask::default() };
    world.advance(secs(1794));
    assert_eq!(world.ask(none()).await.unwrap().ttl, Some(secs(6)));
    assert_eq!(world.refreshes(), before);
    world.advance(secs(2));
    assert_eq!(world.ask(none()).await.unwrap().ttl, Some(secs(1800)));
    assert_eq!(world.refreshes() - before, 1);
}

#[tokio::test]
async fn a_living_token_is_served_with_a_warning_while_refreshing_fails() {
    let world = World::start().await;
    world.connect("acme", HUB, &["oauth", READ]).await;
    world.advance(secs(1770));
    world.handle().add_fault(Fault::new(FaultKind::Html { status: None }).on_refresh());
    let token = world.token(&[READ]).await.unwrap();
    assert_eq!(token.ttl, Some(secs(30)));
    assert_eq!(token.warnings[0].reason, WarningReason::RefreshFailing);

    world.advance(secs(30));
    let error = world.token(&[READ]).await.unwrap_err();
    assert_eq!(error.reason, Reason::ProviderUnavailable);
    assert!(error.retry_after.is_some());
}

async fn with_a_token_whose_refresh_hangs() -> (World, Token) {
    let world = World::with(json!({"timeout": "60s"}), |settings| settings.lease = secs(90)).await;
    world.connect("acme", HUB, &["oauth", READ]).await;
    let token = world.token(&[READ]).await.unwrap();
    world.handle().add_fault(Fault::new(FaultKind::Latency { ms: 600_000 }).on_refresh());
    (world, token)
}

#[tokio::test]
async fn a_living_token_is_served_with_a_warning_before_the_caller_has_no_more_patience() {
    let (world, first) = with_a_token_whose_refresh_hangs().await;
    world.advance(secs(1750));
    let ask = Ask { patience: Some(Duration::from_millis(20)), ..Ask::default() };
    let token = world.ask(ask).await.unwrap();
    assert_eq!(token.live.fingerprint, first.live.fingerprint);
    assert_eq!(token.warnings[0].reason, WarningReason::MinTtlNotMet);
    while world.handle().faults()[0].hits == 0 {
        // The refresh goes on.
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_living_token_is_served_with_a_warning_before_it_expires_however_patient_the_caller_is() {
    let (world, first) = with_a_token_whose_refresh_hangs().await;
    // With five seconds left it counts as expired, which is in a moment.
    world.advance(Duration::from_millis(1_794_980));
    let token = world.ask(Ask { patience: Some(secs(300)), ..Ask::default() }).await.unwrap();
    assert_eq!(token.live.fingerprint, first.live.fingerprint);
    assert_eq!(token.warnings[0].reason, WarningReason::MinTtlNotMet);
}

#[tokio::test]
async fn failures_back_off_instead_of_asking_the_provider_for_every_caller() {
    let world = World::start().await;
    world.connect("acme", HUB, &["oauth", READ]).await;
    world.advance(secs(1801));
    world.handle().add_fault(Fault::new(FaultKind::Html { status: None }).on_refresh());
    let before = world.refreshes();
    for _ in 0..20 {
        world.token(&[READ]).await.unwrap_err();
    }
    assert_eq!(world.refreshes() - before, 1);
    world.handle().clear_faults();
    world.advance(secs(300));
    world.token(&[READ]).await.unwrap();
}

#[tokio::test]
async fn a_missing_lifetime_is_assumed_with_a_warning() {
    for kind in [FaultKind::NoExpiresIn, FaultKind::NegativeExpiresIn] {
        let world = World::start().await;
        world.connect("acme", HUB, &["oauth", READ]).await;
        world.advance(secs(1801));
        world.handle().add_fault(Fault::new(kind).on_refresh().times(1));
        let token = world.token(&[READ]).await.unwrap();
        assert_eq!(token.ttl, Some(secs(1800)));
        assert_eq!(token.warnings[0].reason, WarningReason::LifetimeAssumed);
    }
}

#[tokio::test]
async fn a_restart_serves_what_was_stored() {
    let mut world = World::start().await;
    world.connect("acme", HUB, &["oauth", READ]).await;
    let token = world.token(&[READ]).await.unwrap();
    let before = world.refreshes();
    world.restart().await;
    assert_eq!(world.token(&[READ]).await.unwrap().live.fingerprint, token.live.fingerprint);
    assert_eq!(world.refreshes(), before);
}

#[tokio::test]
async fn a_static_token_is_served_without_expiry() {
    let world = World::start().await;
    let token = world.handle().add_static_token(HUB, vec![READ.into()]).unwrap();
    let scopes = tokenward_types::Scopes::parse(READ).unwrap();
    let account = tokenward_types::AccountId::parse(&HUB.to_string()).unwrap();
    let provider = crate::world::provider_name();
    world
        .broker
        .import_static_token(
            &actor(),
            &tenant("acme"),
            &provider,
            SecretString::from(token.clone()),
            scopes,
            Some(account),
        )
        .await
        .unwrap();
    let answer = world.token(&[READ]).await.unwrap();
    assert_eq!(answer.ttl, None);
    assert_eq!(answer.live.access_token().expose_secret(), token);
    world.advance(secs(10 * 365 * 24 * 3600));
    assert_eq!(world.token(&[READ]).await.unwrap().ttl, None);
}

#[tokio::test]
async fn a_reported_token_is_verified_and_replaced_only_if_it_is_dead() {
    let world = World::start().await;
    let connection = world.connect("acme", HUB, &["oauth", READ]).await;
    let token = world.token(&[READ]).await.unwrap();
    let app = Principal::parse("builtin:app").unwrap();
    let report = |principal: Principal, fingerprint: String| {
        let (broker, id) = (world.broker.clone(), connection.id.clone());
        async move { broker.report_rejected(&principal, "acme", id.as_str(), &fingerprint).await }
    };
    let fingerprint = token.live.fingerprint.to_string();
    assert_eq!(report(app.clone(), fingerprint.clone()).await.unwrap(), ReportOutcome::Alive);

    let stranger = Principal::parse("builtin:stranger").unwrap();
    assert_eq!(report(stranger, fingerprint.clone()).await.unwrap_err().reason, Reason::AccessDenied);

    world.advance(secs(11));
    world.handle().invalidate_access_tokens(HUB).unwrap();
    let introspections = || world.handle().stats().requests.get("introspect").copied().unwrap_or(0);
    let before = introspections();
    let outcomes = futures::future::join_all((0..50).map(|_| report(app.clone(), fingerprint.clone()))).await;
    assert!(outcomes.iter().all(|outcome| *outcome.as_ref().unwrap() == ReportOutcome::Replaced));
    assert_eq!(introspections() - before, 1, "reports are coalesced");

    let fresh = world.token(&[READ]).await.unwrap();
    assert_ne!(fresh.live.fingerprint, token.live.fingerprint);
    assert!(world.handle().is_access_token_live(fresh.live.access_token().expose_secret()));
    world.advance(secs(11));
    assert_eq!(report(app, fingerprint).await.unwrap(), ReportOutcome::Superseded);
}

#[tokio::test]
async fn malformed_requests_name_the_field() {
    let world = World::start().await;
    for (ask, field) in [
        (Ask { tenant: "", ..Ask::default() }, "tenant_id"),
        (Ask { tenant: "a b", ..Ask::default() }, "tenant_id"),
        (Ask { provider: "hub spot", ..Ask::default() }, "provider"),
        (Ask { scopes: &["a b"], ..Ask::default() }, "scopes"),
        (Ask { scopes: &[""], ..Ask::default() }, "scopes"),
        (Ask { connection: "\n", ..Ask::default() }, "connection_id"),
        (Ask { account: " ", ..Ask::default() }, "account_id"),
    ] {
        let error = world.ask(ask).await.unwrap_err();
        assert_eq!((error.reason, error.metadata["field"].as_str()), (Reason::InvalidRequest, field));
    }
}
