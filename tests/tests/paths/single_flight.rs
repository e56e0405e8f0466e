//! Many callers, one refresh.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;
use tokenward_hubspot_sim::{Fault, FaultKind, SettingsPatch};
use tokenward_tests::{Clients, Database, World, get_token};

/// A token with less than that counts as expired from the moment in which it is issued.
const EXPIRED_FROM_THE_START: u32 = 4;
const CONNECTIONS: usize = 8;
const CALLS_EACH: usize = 125;

async fn a_thousand_callers_of_an_expired_token_cause_one_refresh(database: Database) {
    let configure_sim = |config: &mut tokenward_hubspot_sim::SimConfig| {
        config.settings.token_lifetime_secs = EXPIRED_FROM_THE_START;
    };
    let world = World::start_with(database, |_| {}, configure_sim).await;
    world.set_up_tenant("acme").await;
    world.connect("acme", World::HUB_ID).await;
    let sim = world.sim.handle();
    let longer = SettingsPatch { token_lifetime_secs: Some(1800), ..SettingsPatch::default() };
    sim.change_settings(longer);
    // Long enough for every call to arrive while the refresh is under way.
    sim.add_fault(Fault::new(FaultKind::Latency { ms: 1500 }).on_refresh());
    assert_eq!(sim.stats().refreshes, 0, "nobody has asked for a token yet");

    let callers: Vec<Clients> = (0..CONNECTIONS).map(|_| world.service()).collect();
    let calls = callers.iter().flat_map(|caller| (0..CALLS_EACH).map(move |_| get_token(caller, "acme")));
    let answers = tokio::time::timeout(Duration::from_secs(60), join_all(calls)).await.unwrap();

    let tokens: BTreeSet<String> = answers.into_iter().map(|answer| answer.unwrap().access_token).collect();
    assert_eq!(tokens.len(), 1, "everybody gets the same token");
    assert!(tokens.iter().all(|token| sim.is_access_token_live(token)));
    assert_eq!(sim.stats().refreshes, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_callers_of_an_expired_token_cause_one_refresh_on_sqlite() {
    a_thousand_callers_of_an_expired_token_cause_one_refresh(Database::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_callers_of_an_expired_token_cause_one_refresh_on_postgresql() {
    let Some(database) = Database::postgres().await else { return };
    a_thousand_callers_of_an_expired_token_cause_one_refresh(database).await;
}
