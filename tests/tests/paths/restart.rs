//! What a restart keeps, and that a SQLite file has one server.

use tokenward_api::admin::v1::ListAccessRulesRequest;
use tokenward_api::v1::GetTokenRequest;
use tokenward_tests::{Consent, Database, Scratch, Serve, Settings, Walk, World};

async fn a_restart_and_a_crash_keep_everything(database: Database) {
    let mut world = World::start(database).await;
    world.set_up_tenant("acme").await;
    let connection = world.connect("acme", World::HUB_ID).await;
    let before = world.get_token("acme").await.unwrap();
    let link = world.connect_link("acme").await;

    world.restart().await;
    assert_eq!(world.get_token("acme").await.unwrap().access_token, before.access_token);

    world.take_server().crash().await;
    world.restart().await;
    assert_eq!(world.get_token("acme").await.unwrap().access_token, before.access_token);
    assert_eq!(world.connection("acme", World::HUB_ID).await, connection);
    let rules = world.operator().rules().list_access_rules(ListAccessRulesRequest::default()).await.unwrap();
    assert_eq!(rules.into_inner().access_rules.len(), 1);
    // An open link works on, and the client secret can still be read: the code is exchanged with it.
    let walk = Walk::start(&link).await;
    let callback = walk.decide(Consent::Grant(World::OTHER_HUB_ID)).await;
    assert!(walk.finish(callback).await.status.is_success());
    let request = GetTokenRequest {
        tenant_id: "acme".to_owned(),
        account_id: World::OTHER_HUB_ID.to_string(),
        ..GetTokenRequest::default()
    };
    world.service().tokens().get_token(request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_and_a_crash_keep_everything_on_sqlite() {
    a_restart_and_a_crash_keep_everything(Database::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_and_a_crash_keep_everything_on_postgresql() {
    let Some(database) = Database::postgres().await else { return };
    a_restart_and_a_crash_keep_everything(database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_on_the_same_file_is_refused() {
    let world = World::start(Database::sqlite()).await;
    world.set_up_tenant("acme").await;
    world.connect("acme", World::HUB_ID).await;

    let folder = Scratch::new();
    let mut second = Settings::new(&folder, &world.database).await;
    let key = world.folder.file("tokenward.key").display().to_string();
    second.hubspot(&world.sim.base_url()).set("encryption.key_file", key);
    let said = Serve::call(&second).run().await.fails(1);
    world.get_token("acme").await.unwrap();
    assert!(said.contains("tokenward.db is in use by another process"), "{said}");
}
