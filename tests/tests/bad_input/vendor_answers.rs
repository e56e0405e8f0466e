//! A vendor that answers a refresh with anything but tokens.

use std::time::Duration;

use tokenward_api::v1::GetTokenResponse;
use tokenward_api::v1::warning::Reason as WarningReason;
use tokenward_hubspot_sim::{Fault, FaultKind, SettingsPatch, SimConfig};
use tokenward_tests::{Database, Settings, Sql, World};
use tonic::{Code, Status};

use crate::refusal::{MARKER, refused};

/// Less than this is left of a token that counts as expired.
const EXPIRED: u32 = 5;

/// Two connected tenants, whose tokens count as expired from the first moment on.
async fn expired() -> World {
    let configure = |settings: &mut Settings| {
        settings.set("broker.backoff_base", "100ms").set("broker.backoff_max", "1s");
    };
    let sim = |config: &mut SimConfig| config.settings.token_lifetime_secs = EXPIRED;
    let world = World::start_with(Database::sqlite(), configure, sim).await;
    for (tenant, hub_id) in [("acme", World::HUB_ID), ("globex", World::OTHER_HUB_ID)] {
        world.set_up_tenant(tenant).await;
        world.connect(tenant, hub_id).await;
    }
    live_for(&world, 1800);
    world
}

fn live_for(world: &World, secs: u32) {
    let patch = SettingsPatch { token_lifetime_secs: Some(secs), ..SettingsPatch::default() };
    world.sim.handle().change_settings(patch);
}

/// Asks again as long, and as often, as the answers say.
async fn get_as_told(world: &World, tenant: &str) -> GetTokenResponse {
    loop {
        match world.get_token(tenant).await {
            Ok(token) => return token,
            result => tokio::time::sleep(refused(result).retry_after.unwrap()).await,
        }
    }
}

fn warnings(token: &GetTokenResponse) -> Vec<WarningReason> {
    token.warnings.iter().map(tokenward_api::v1::Warning::reason).collect()
}

fn leaky(status: u16) -> FaultKind {
    let body = Some(format!("{{\"message\":\"{MARKER}\",\"error\":\"{MARKER}\"}}"));
    FaultKind::Status { status, body, content_type: None, retry_after: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_tokens_is_an_outage_of_one_connection_that_heals() {
    let mut sql = None;
    for fault in [
        FaultKind::Html { status: None },
        FaultKind::Html { status: Some(200) },
        FaultKind::EmptyBody,
        FaultKind::HugeBody { bytes: Some(10 * 1024 * 1024) },
        FaultKind::TruncatedBody,
        FaultKind::DropReplyAfterIssue,
        FaultKind::HangUpBefore,
        leaky(500),
        leaky(418),
    ] {
        let world = expired().await;
        let sql = sql.insert(Sql::open(&world.database).await);
        let stored = sql.tokens("acme").await;
        let mut faulty = Fault::new(fault.clone()).on_refresh();
        faulty.hub_id = Some(World::HUB_ID);
        world.sim.handle().add_fault(faulty);

        let refused = refused(world.get_token("acme").await);
        assert_eq!(refused.is(), (Code::Unavailable, "PROVIDER_UNAVAILABLE"), "{fault:?}");
        assert_eq!(refused.metadata["account_id"], World::HUB_ID.to_string());
        assert!(refused.metadata.contains_key("connection_id"), "{refused:?}");
        world.get_token("globex").await.unwrap();
        assert_eq!(sql.tokens("acme").await, stored, "{fault:?}");

        world.sim.handle().clear_faults();
        let token = get_as_told(&world, "acme").await;
        assert!(world.sim.handle().is_access_token_live(&token.access_token), "{fault:?}");
        assert_eq!(warnings(&token), []);
        let log = world.server().process.stderr.text();
        assert!(!log.contains(MARKER), "{fault:?}: the vendor's words are in the log");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_without_a_life_are_kept_with_the_usual_one_and_a_warning() {
    for fault in [FaultKind::NoExpiresIn, FaultKind::NegativeExpiresIn] {
        let world = expired().await;
        world.sim.handle().add_fault(Fault::new(fault.clone()).on_refresh());
        let token = world.get_token("acme").await.unwrap();
        assert_eq!(warnings(&token), [WarningReason::LifetimeAssumed], "{fault:?}");
        let ttl = token.ttl.unwrap().seconds;
        assert!((1700..=1800).contains(&ttl), "{ttl} s are not HubSpot's usual half an hour");
        assert!(world.sim.handle().is_access_token_live(&token.access_token));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_lives_is_served_with_a_warning_while_refreshing_fails() {
    let world = expired().await;
    let token = world.get_token("acme").await.unwrap();
    world.sim.handle().add_fault(Fault::new(leaky(503)).on_refresh());
    let connection = world.connection("acme", World::HUB_ID).await;
    let refreshed = refresh(&world, &connection).await;
    assert_eq!(refused(refreshed).is(), (Code::Unavailable, "PROVIDER_UNAVAILABLE"));
    let served = world.get_token("acme").await.unwrap();
    assert_eq!(served.access_token, token.access_token);
    assert_eq!(warnings(&served), [WarningReason::RefreshFailing]);
    assert!(!format!("{:?}", served.warnings).contains(MARKER));
}

#[tokio::test(flavor = "multi_thread")]
async fn throttling_is_passed_on_with_the_vendors_wait() {
    let world = expired().await;
    let fault = FaultKind::RateLimited { retry_after: Some(20), policy_name: None };
    world.sim.handle().add_fault(Fault::new(fault).on_refresh());
    let refused = refused(world.get_token("acme").await);
    assert_eq!(refused.is(), (Code::Unavailable, "PROVIDER_RATE_LIMITED"));
    let wait = refused.retry_after.unwrap();
    assert!(wait > Duration::from_secs(15) && wait <= Duration::from_secs(20), "{wait:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_client_credentials_are_the_admins_to_correct_and_waiting_does_not_help() {
    let world = expired().await;
    world.sim.handle().add_fault(Fault::new(FaultKind::BadClientSecret).on_refresh());
    // `refused` checks that no RetryInfo promises otherwise.
    let refused = refused(world.get_token("acme").await);
    assert_eq!(refused.is(), (Code::FailedPrecondition, "OAUTH_CLIENT_MISCONFIGURED"));
    assert_eq!(refused.metadata["oauth_client_id"], World::OAUTH_CLIENT);
    assert!(!refused.message.contains(&World::app().client_secret));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_the_customer_removed_is_a_suspect_first_and_never_wiped() {
    let world = expired().await;
    let mut sql = Sql::open(&world.database).await;
    let stored = sql.tokens("acme").await;
    world.sim.handle().uninstall(World::HUB_ID, None).unwrap();
    let refused = refused(world.get_token("acme").await);
    assert_eq!(refused.is(), (Code::Unavailable, "GRANT_SUSPECT"));
    assert_eq!(sql.tokens("acme").await, stored);
    world.get_token("globex").await.unwrap();
}

async fn refresh(world: &World, connection: &str) -> Result<(), Status> {
    let request = tokenward_api::admin::v1::RefreshConnectionRequest {
        tenant_id: "acme".to_owned(),
        connection_id: connection.to_owned(),
    };
    world.operator().connections().refresh_connection(request).await.map(drop)
}
