//! How a server stops while a vendor takes its time.

use std::time::Duration;

use tokenward_hubspot_sim::{Fault, FaultKind, SettingsPatch};
use tokenward_tests::{Clients, Database, Ended, Signal, World, get_token};
use tonic::transport::Endpoint;
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

/// A token with less than that counts as expired from the moment in which it is issued.
const EXPIRED_FROM_THE_START: u32 = 4;

/// `acme` is connected, its token has expired, and the vendor takes `ms` for the next one.
async fn before_a_slow_refresh(database: Database, ms: u64, options: &[(&str, &str)]) -> World {
    let configure = |settings: &mut tokenward_tests::Settings| {
        for (option, value) in options {
            settings.set(option, *value);
        }
    };
    let configure_sim = |config: &mut tokenward_hubspot_sim::SimConfig| {
        config.settings.token_lifetime_secs = EXPIRED_FROM_THE_START;
    };
    let world = World::start_with(database, configure, configure_sim).await;
    world.set_up_tenant("acme").await;
    world.connect("acme", World::HUB_ID).await;
    let sim = world.sim.handle();
    sim.change_settings(SettingsPatch { token_lifetime_secs: Some(1800), ..SettingsPatch::default() });
    sim.add_fault(Fault::new(FaultKind::Latency { ms }).on_refresh());
    world
}

/// Asks for the token until `act` is done, which begins when the vendor has been asked.
async fn during_the_refresh<T>(
    world: &World,
    caller: &Clients,
    act: impl Future<Output = T>,
) -> (Result<String, tonic::Status>, T) {
    let (answer, outcome) = tokio::join!(get_token(caller, "acme"), async {
        assert!(world.wait_until(|| world.sim.handle().stats().refreshes > 0).await);
        act.await
    });
    (answer.map(|answer| answer.access_token), outcome)
}

async fn readiness(operations: &str) -> (u16, String) {
    let browser = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = browser.get(format!("{operations}/readyz")).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

async fn a_refresh_under_way_is_finished_and_stored_before_the_server_stops(database: Database) {
    let mut world = before_a_slow_refresh(database, 2500, &[("server.drain_delay", "1s")]).await;
    let caller = world.service();
    let (service, operations) = (world.server().service(), world.server().operations());
    let health = Endpoint::from_shared(service.clone()).unwrap().connect().await.unwrap();
    let mut health = HealthClient::new(health);
    let (token, ()) = during_the_refresh(&world, &caller, async {
        world.server().process.signal(Signal::Terminate);
        let not_serving = ServingStatus::NotServing as i32;
        let check = HealthCheckRequest::default;
        while health.check(check()).await.unwrap().into_inner().status != not_serving {
            tokio::task::yield_now().await;
        }
        let (status, body) = readiness(&operations).await;
        assert!(status == 503 && body.contains(r#""status":"draining""#), "{body}");
    })
    .await;
    let token = token.unwrap();
    assert!(world.sim.handle().is_access_token_live(&token));
    let ended = world.take_server().process.wait().await;
    assert!(ended.status.success(), "{}", ended.stderr);
    assert!(Endpoint::from_shared(service).unwrap().connect().await.is_err());

    // What the caller got is what the database has, and nothing holds the connection.
    world.sim.handle().clear_faults();
    world.restart().await;
    assert_eq!(world.get_token("acme").await.unwrap().access_token, token);
    assert_eq!(world.sim.handle().stats().refreshes, 1);
    let connection = world.connection("acme", World::HUB_ID).await;
    let refreshed = world.cli(&format!("connection refresh acme {connection}")).run().await;
    refreshed.ok();
    assert_eq!(world.sim.handle().stats().refreshes, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_under_way_is_finished_and_stored_before_the_server_stops_on_sqlite() {
    a_refresh_under_way_is_finished_and_stored_before_the_server_stops(Database::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_under_way_is_finished_and_stored_before_the_server_stops_on_postgresql() {
    let Some(database) = Database::postgres().await else { return };
    a_refresh_under_way_is_finished_and_stored_before_the_server_stops(database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_has_nothing_to_finish_stops_at_once_however_long_it_may_take() {
    let configure = |settings: &mut tokenward_tests::Settings| {
        settings.set("server.shutdown_grace", "1h");
    };
    let mut world = World::start_with(Database::sqlite(), configure, |_| {}).await;
    world.set_up_tenant("acme").await;
    world.connect("acme", World::HUB_ID).await;
    world.get_token("acme").await.unwrap();
    let ended = world.take_server().process.end(Signal::Terminate).await;
    assert!(ended.status.success(), "{}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_whose_caller_went_away_is_finished_too() {
    let mut world = before_a_slow_refresh(Database::sqlite(), 1500, &[]).await;
    let caller = world.service();
    let call = tokio::spawn(async move { get_token(&caller, "acme").await });
    assert!(world.wait_until(|| world.sim.handle().stats().refreshes > 0).await);
    call.abort();
    let ended = world.take_server().process.end(Signal::Terminate).await;
    assert!(ended.status.success(), "{}", ended.stderr);
    world.sim.handle().clear_faults();
    world.restart().await;
    let token = world.get_token("acme").await.unwrap().access_token;
    assert!(world.sim.handle().is_access_token_live(&token));
    assert_eq!(world.sim.handle().stats().refreshes, 1);
}

/// Ends a server in the middle of a refresh; the next one gets a token all the same.
async fn cut_short(options: &[(&str, &str)], signals: usize) -> (Ended, String) {
    let mut world = before_a_slow_refresh(Database::sqlite(), 20_000, options).await;
    let connection = world.connection("acme", World::HUB_ID).await;
    let caller = world.service();
    let call = tokio::spawn(async move { get_token(&caller, "acme").await });
    assert!(world.wait_until(|| world.sim.handle().stats().refreshes > 0).await);
    let server = world.take_server();
    server.process.signal(Signal::Terminate);
    server.process.stderr.wait_for_text("a second signal ends the process at once").await;
    for _ in 1..signals {
        server.process.signal(Signal::Terminate);
    }
    // Less than the vendor takes, and than the server gives it.
    let ended = tokio::time::timeout(Duration::from_secs(8), server.process.wait()).await.unwrap();
    assert!(call.await.unwrap().is_err());
    world.sim.handle().clear_faults();
    world.restart().await;
    world.get_token("acme").await.unwrap();
    (ended, format!("acme/{connection}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_the_server_at_once_and_names_what_is_under_way() {
    let (ended, connection) = cut_short(&[], 2).await;
    assert_eq!(ended.status.code(), Some(130), "{}", ended.stderr);
    let last = ended.stderr.lines().last().unwrap();
    assert!(last.contains("stopped at once by a second signal") && last.contains(&connection), "{last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_that_does_not_finish_in_time_is_named_and_the_stop_fails() {
    let options = [("server.shutdown_grace", "300ms")];
    let (ended, connection) = cut_short(&options, 1).await;
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    assert!(
        ended.stderr.contains(&format!("refreshes were still under way: {connection}")),
        "{}",
        ended.stderr
    );
}
