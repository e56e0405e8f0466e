//! The shortest path: where this fails, other scenarios' failures say little.

use tokenward_tests::{Database, World};

async fn a_connected_tenants_token_opens_the_vendors_api(database: Database) {
    let mut world = World::start(database).await;
    world.set_up_tenant("acme").await;
    world.connect("acme", World::HUB_ID).await;
    let token = world.get_token("acme").await.unwrap();
    assert_eq!(token.account_id, World::HUB_ID.to_string());
    assert!(world.sim.handle().is_access_token_live(&token.access_token));

    world.restart().await;
    let again = world.get_token("acme").await.unwrap();
    assert_eq!(again.access_token, token.access_token, "a restart keeps the token");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connected_tenants_token_opens_the_vendors_api_on_sqlite() {
    a_connected_tenants_token_opens_the_vendors_api(Database::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connected_tenants_token_opens_the_vendors_api_on_postgresql() {
    let Some(database) = Database::postgres().await else { return };
    a_connected_tenants_token_opens_the_vendors_api(database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connected_tenants_token_opens_the_vendors_api_on_mariadb() {
    let Some(database) = Database::mariadb().await else { return };
    a_connected_tenants_token_opens_the_vendors_api(database).await;
}
