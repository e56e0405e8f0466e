//! A database that goes away, at the start or while the server runs.

use std::path::Path;

use tokenward_api::admin::v1::{CreateTenantRequest, ListTenantsRequest, RefreshConnectionRequest, Tenant};
use tokenward_api::v1::GetTokenResponse;
use tokenward_hubspot_sim::{Fault, FaultKind, SettingsPatch};
use tokenward_tests::{Database, Scratch, Serve, Settings, Sql, World};
use tonic::Code;

use crate::http::get;
use crate::proxy::Proxy;
use crate::refusal::{MARKER, refused};

/// Two connected tenants on PostgreSQL behind a proxy; a restarted server has only `warm` in memory.
async fn behind_a_proxy() -> Option<(World, Proxy)> {
    let database = Database::postgres().await?;
    let Database::Postgres { url, .. } = &database else { return None };
    let proxy = Proxy::before(url).await;
    let through = proxy.url(url);
    let configure = |settings: &mut Settings| {
        settings.set("storage.url", through).set("storage.acquire_timeout", "2s");
    };
    let mut world = World::start_with(database, configure, |_| {}).await;
    for (tenant, hub_id) in [("warm", World::HUB_ID), ("cold", World::OTHER_HUB_ID)] {
        world.set_up_tenant(tenant).await;
        world.connect(tenant, hub_id).await;
    }
    world.restart().await;
    world.get_token("warm").await.unwrap();
    Some((world, proxy))
}

async fn readiness(world: &World) -> (u16, String) {
    let answer = get(format!("{}/readyz", world.server().operations())).await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

/// Asks until the database is back, as the answers say.
async fn get_as_told(world: &World, tenant: &str) -> GetTokenResponse {
    loop {
        match world.get_token(tenant).await {
            Ok(token) => return token,
            result => tokio::time::sleep(refused(result).retry_after.unwrap()).await,
        }
    }
}

/// Gets a token from a vendor that answers so late that the database goes away between the question and the answer.
async fn get_while_the_database_goes_away(world: &World, proxy: &Proxy) -> GetTokenResponse {
    let lives_for = |secs| {
        let patch = SettingsPatch { token_lifetime_secs: Some(secs), ..SettingsPatch::default() };
        world.sim.handle().change_settings(patch);
    };
    // A token that counts as expired from the first moment on.
    lives_for(5);
    let connection_id = world.get_token("warm").await.unwrap().connection_id;
    let request = RefreshConnectionRequest { tenant_id: "warm".into(), connection_id };
    world.operator().connections().refresh_connection(request).await.unwrap();
    lives_for(1800);

    world.sim.handle().add_fault(Fault::new(FaultKind::Latency { ms: 1000 }).on_refresh());
    let asked = world.sim.handle().stats().refreshes;
    let (token, ()) = tokio::join!(world.get_token("warm"), async {
        assert!(world.wait_until(|| world.sim.handle().stats().refreshes > asked).await);
        proxy.cut();
    });
    world.sim.handle().clear_faults();
    token.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_database_is_away_warm_calls_go_on_and_others_are_told_to_wait() {
    let Some((world, proxy)) = behind_a_proxy().await else { return };
    let mut sql = Sql::open(&world.database).await;
    let before = sql.rows().await;
    assert_eq!(readiness(&world).await.0, 200);
    proxy.cut();

    world.get_token("warm").await.unwrap();
    let new = CreateTenantRequest { tenant: Some(Tenant { tenant_id: "new".into(), ..Tenant::default() }) };
    for refused in [
        refused(world.get_token("cold").await),
        refused(world.operator().tenants().list_tenants(ListTenantsRequest::default()).await),
        refused(world.operator().tenants().create_tenant(new).await),
    ] {
        assert_eq!(refused.is(), (Code::Unavailable, "STORAGE_UNAVAILABLE"));
    }
    let page = get(format!("{}/connect/abc", world.settings.public_url())).await.unwrap();
    assert_eq!(page.status(), 503);
    assert!(page.text().await.unwrap().contains("Wait a few minutes"));
    let (status, body) = readiness(&world).await;
    assert_eq!(status, 503);
    assert!(body.contains(r#""storage":"unavailable""#), "{body}");
    let live = get(format!("{}/livez", world.server().operations())).await.unwrap();
    assert_eq!(live.status(), 200);

    proxy.restore();
    get_as_told(&world, "cold").await;
    assert_eq!(readiness(&world).await.0, 200);
    assert_eq!(sql.rows().await, before, "the tenant that was refused is not there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_was_got_during_an_outage_is_served_and_stored_afterwards() {
    let Some((mut world, proxy)) = behind_a_proxy().await else { return };
    let mut sql = Sql::open(&world.database).await;
    let fence = sql.grant_fence("warm").await + 1;
    let served = get_while_the_database_goes_away(&world, &proxy).await;
    assert!(world.sim.handle().is_access_token_live(&served.access_token));
    assert_eq!(world.get_token("warm").await.unwrap().access_token, served.access_token);
    assert_eq!(sql.grant_fence("warm").await, fence, "it cannot be stored yet");

    proxy.restore();
    world.server().process.stderr.wait_for_text("a refreshed token is stored at last").await;
    assert!(sql.grant_fence("warm").await > fence);
    assert_eq!(sql.count("attempts").await, 0);
    world.take_server().crash().await;
    world.restart().await;
    assert_eq!(world.get_token("warm").await.unwrap().access_token, served.access_token);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_with_a_token_that_cannot_be_stored_fails_and_names_the_connection_and_the_journal() {
    let Some((mut world, proxy)) = behind_a_proxy().await else { return };
    world.settings.set("server.shutdown_grace", "1s");
    world.restart().await;
    let served = get_while_the_database_goes_away(&world, &proxy).await;
    let ended = world.take_server().process.end(tokenward_tests::Signal::Terminate).await;
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    let named = format!("{}: warm/{}", world.settings.journal_dir().display(), served.connection_id);
    assert!(ended.stderr.contains(&named), "{}", ended.stderr);

    proxy.restore();
    world.restart().await;
    assert_eq!(world.get_token("warm").await.unwrap().access_token, served.access_token);
}

/// How many entries a journal holds; what is free begins with zeros.
fn entries(journal: &Path) -> usize {
    let files = std::fs::read_dir(journal).unwrap().map(|file| file.unwrap().path());
    let slots = files.filter(|file| file.extension().is_some_and(|kind| kind == "slot"));
    slots.filter(|slot| !std::fs::read(slot).unwrap().starts_with(&[0; 4])).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_was_got_during_an_outage_outlives_the_death_of_the_server() {
    let Some((mut world, proxy)) = behind_a_proxy().await else { return };
    let mut sql = Sql::open(&world.database).await;
    let fence = sql.grant_fence("warm").await + 1;
    let served = get_while_the_database_goes_away(&world, &proxy).await;
    world.take_server().crash().await;
    assert_eq!(sql.grant_fence("warm").await, fence, "the database has not heard of it");
    assert_eq!(entries(world.settings.journal_dir()), 1);

    proxy.restore();
    world.restart().await;
    assert!(sql.grant_fence("warm").await > fence);
    assert_eq!(sql.count("attempts").await, 0);
    assert_eq!(world.get_token("warm").await.unwrap().access_token, served.access_token);
    assert_eq!(entries(world.settings.journal_dir()), 0, "what is stored is gone from the journal");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_at_the_start_is_named_without_its_password() {
    let folder = Scratch::new();
    let mut settings = Settings::new(&folder, &Database::sqlite()).await;
    settings.remove("storage.path");
    let url = format!("postgres://tokenward:{MARKER}@127.0.0.1:1/tokenward");
    settings.set("storage.kind", "postgres").set("storage.url", url);
    let said = Serve::call(&settings).run().await.fails(1);
    assert!(said.contains("cannot connect to database tokenward at 127.0.0.1:1"), "{said}");
    assert!(said.contains("check that the server runs"), "{said}");
    assert!(!said.contains(MARKER), "{said}");
}
