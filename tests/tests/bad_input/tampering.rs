//! Somebody who can write to the database, but has no key.

use tokenward_api::admin::v1::RefreshConnectionRequest;
use tokenward_hubspot_sim::GrantRequest;
use tokenward_tests::{Database, SealedTokens, Sql, World};
use tonic::Code;

use crate::refusal::refused;

const TENANTS: [(&str, u64); 4] =
    [("altered", World::HUB_ID), ("rolled-back", World::OTHER_HUB_ID), ("moved", 9001), ("untouched", 9002)];

fn altered(tokens: &SealedTokens) -> SealedTokens {
    let mut altered = tokens.clone();
    *altered.0.last_mut().unwrap() ^= 1;
    altered
}

async fn damaged_ciphertexts_stop_their_own_connection_alone_and_heal_when_they_are_restored(
    database: Database,
) {
    let mut world = World::start(database).await;
    let app = World::app();
    let request =
        GrantRequest { client_id: app.client_id, hub_ids: vec![9001, 9002], ..GrantRequest::default() };
    world.sim.handle().create_grants(&request).unwrap();
    for (tenant, hub_id) in TENANTS {
        world.set_up_tenant(tenant).await;
        world.connect(tenant, hub_id).await;
    }
    let mut sql = Sql::open(&world.database).await;
    for (tenant, _) in TENANTS {
        world.get_token(tenant).await.unwrap();
    }
    let older = sql.tokens("rolled-back").await;
    let rolled_back = world.connection("rolled-back", World::OTHER_HUB_ID).await;
    let request = RefreshConnectionRequest { tenant_id: "rolled-back".into(), connection_id: rolled_back };
    world.operator().connections().refresh_connection(request).await.unwrap();

    let mut kept = Vec::new();
    for (tenant, _) in TENANTS {
        kept.push((tenant, sql.tokens(tenant).await));
    }
    sql.put_tokens("altered", &altered(&kept[0].1)).await;
    sql.put_tokens("rolled-back", &older).await;
    sql.put_tokens("moved", &kept[3].1).await;
    // Memory knows better; a restarted server has to open what is stored.
    for (tenant, _) in TENANTS {
        world.get_token(tenant).await.unwrap();
    }
    world.restart().await;

    for (tenant, hub_id) in &TENANTS[..3] {
        let connection = world.connection(tenant, *hub_id).await;
        let refused = refused(world.get_token(tenant).await);
        assert_eq!(refused.is(), (Code::DataLoss, "STORED_DATA_DAMAGED"), "{tenant}");
        assert_eq!(refused.metadata["connection_id"], connection);
        assert!(refused.message.contains(&connection) && refused.message.contains("restore"), "{refused:?}");
    }
    world.get_token("untouched").await.unwrap();
    assert_eq!(world.sim.handle().stats().refreshes, 1, "nothing damaged was sent to the vendor");

    for (tenant, tokens) in &kept {
        sql.put_tokens(tenant, tokens).await;
        world.get_token(tenant).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_ciphertexts_stop_their_own_connection_alone_on_sqlite() {
    damaged_ciphertexts_stop_their_own_connection_alone_and_heal_when_they_are_restored(Database::sqlite())
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_ciphertexts_stop_their_own_connection_alone_on_postgresql() {
    let Some(database) = Database::postgres().await else { return };
    damaged_ciphertexts_stop_their_own_connection_alone_and_heal_when_they_are_restored(database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_tenants_data_key_opens_nothing() {
    let mut world = World::start(Database::sqlite()).await;
    for (tenant, hub_id) in &TENANTS[..2] {
        world.set_up_tenant(tenant).await;
        world.connect(tenant, *hub_id).await;
    }
    let mut sql = Sql::open(&world.database).await;
    sql.copy_data_key("rolled-back", "altered").await;
    world.restart().await;
    assert_eq!(refused(world.get_token("altered").await).reason, "STORED_DATA_DAMAGED");
    world.get_token("rolled-back").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_client_secret_is_named_and_living_tokens_are_served() {
    let mut world = World::start(Database::sqlite()).await;
    world.set_up_tenant("acme").await;
    let connection_id = world.connect("acme", World::HUB_ID).await;
    let mut sql = Sql::open(&world.database).await;
    sql.damage_client_secrets().await;
    world.restart().await;
    world.get_token("acme").await.unwrap();
    let request = RefreshConnectionRequest { tenant_id: "acme".into(), connection_id };
    let refused = refused(world.operator().connections().refresh_connection(request).await);
    assert_eq!(refused.is(), (Code::DataLoss, "STORED_DATA_DAMAGED"));
    assert_eq!(refused.metadata["oauth_client_id"], World::OAUTH_CLIENT);
    assert!(refused.message.contains("add the secret again"), "{refused:?}");
}
