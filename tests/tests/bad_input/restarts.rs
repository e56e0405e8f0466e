//! Servers that are stopped, killed, or started twice.

use tokenward_api::admin::v1::RefreshConnectionRequest;
use tokenward_hubspot_sim::{Fault, FaultKind, SettingsPatch, SimConfig};
use tokenward_tests::{Clients, Database, Serve, Settings, Signal, Sql, World, get_token};
use tonic::{Code, Status};

use crate::http::get;

/// A connected tenant whose token counts as expired at once: the next call refreshes it.
async fn expired(database: Database) -> World {
    let sim = |config: &mut SimConfig| config.settings.token_lifetime_secs = 5;
    let world = World::start_with(database, |_| {}, sim).await;
    world.set_up_tenant("acme").await;
    world.connect("acme", World::HUB_ID).await;
    let patch = SettingsPatch { token_lifetime_secs: Some(1800), ..SettingsPatch::default() };
    world.sim.handle().change_settings(patch);
    world
}

/// Starts a refresh that the vendor answers late, and waits until the vendor has the request.
async fn begin_refresh(world: &World, ms: u64) -> tokio::task::JoinHandle<Result<String, Status>> {
    world.sim.handle().add_fault(Fault::new(FaultKind::Latency { ms }).on_refresh());
    let asked = world.sim.handle().stats().refreshes;
    let caller: Clients = world.service();
    let call = tokio::spawn(async move { get_token(&caller, "acme").await.map(|token| token.access_token) });
    assert!(world.wait_until(|| world.sim.handle().stats().refreshes > asked).await);
    call
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_calls_in_flight_finish_and_takes_no_new_ones() {
    let mut world = expired(Database::sqlite()).await;
    let (address, operations) = (world.server().service(), world.server().operations());
    let call = begin_refresh(&world, 2000).await;
    let server = world.take_server();
    server.process.signal(Signal::Terminate);
    server.process.stderr.wait_for_text("stopping").await;

    // Whoever asks now is turned away: no connection, or a listener that says that it drains.
    let ready = get(format!("{operations}/readyz")).await;
    assert!(ready.map_or(true, |answer| answer.status() == 503), "it still wants traffic");
    let token = call.await.unwrap().unwrap();
    assert!(world.sim.handle().is_access_token_live(&token));
    let ended = server.process.wait().await;
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    let late = get_token(&Clients::new(&address, &world.service_token), "acme").await.unwrap_err();
    assert_eq!(late.code(), Code::Unavailable);

    world.sim.handle().clear_faults();
    world.restart().await;
    assert_eq!(world.get_token("acme").await.unwrap().access_token, token, "it was stored before the end");
}

async fn a_server_that_is_killed_while_it_refreshes_loses_no_connection(database: Database) {
    let configure = |settings: &mut Settings| {
        // The lease that it leaves behind holds for so long.
        settings.set("broker.lease", "5s").set("providers.hubspot.timeout", "3s");
    };
    let sim = |config: &mut SimConfig| config.settings.token_lifetime_secs = 5;
    let mut world = World::start_with(database, configure, sim).await;
    world.set_up_tenant("acme").await;
    let connection = world.connect("acme", World::HUB_ID).await;
    let patch = SettingsPatch { token_lifetime_secs: Some(1800), ..SettingsPatch::default() };
    world.sim.handle().change_settings(patch);
    let mut sql = Sql::open(&world.database).await;
    let fence = sql.grant_fence("acme").await;

    let call = begin_refresh(&world, 60_000).await;
    world.take_server().crash().await;
    assert!(call.await.unwrap().is_err(), "nobody could answer it");
    assert_eq!((sql.grant_fence("acme").await, sql.count("attempts").await), (fence, 1));

    world.sim.handle().clear_faults();
    world.restart().await;
    // The first call waits for the lease that was left behind, no longer.
    let token = world.get_token("acme").await.unwrap();
    assert_eq!(token.connection_id, connection);
    assert!(world.sim.handle().is_access_token_live(&token.access_token));
    assert!(sql.grant_fence("acme").await > fence);
    let request = RefreshConnectionRequest { tenant_id: "acme".into(), connection_id: connection };
    world.operator().connections().refresh_connection(request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_while_it_refreshes_loses_no_connection_on_sqlite() {
    a_server_that_is_killed_while_it_refreshes_loses_no_connection(Database::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_while_it_refreshes_loses_no_connection_on_postgresql() {
    let Some(database) = Database::postgres().await else { return };
    a_server_that_is_killed_while_it_refreshes_loses_no_connection(database).await;
}

/// A second server on the database of a running one, and how it is refused.
async fn second_server(world: &World) -> String {
    let folder = tokenward_tests::Scratch::new();
    let mut settings = Settings::new(&folder, &world.database).await;
    settings.set("encryption.key_file", world.folder.file("tokenward.key").display().to_string());
    let said = Serve::call(&settings).run().await.fails(1);
    world.get_token("acme").await.unwrap();
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_is_refused_on_sqlite_and_a_killed_ones_place_is_free_at_once() {
    let mut world = expired(Database::sqlite()).await;
    let said = second_server(&world).await;
    assert!(said.contains("is in use by another process"), "{said}");
    world.take_server().crash().await;
    world.restart().await;
    world.get_token("acme").await.unwrap();
}
