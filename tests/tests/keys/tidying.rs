//! What becomes of data keys that were replaced.

use tokenward_tests::{Database, PATIENCE, Sql};

use crate::world::{finished, key, tenant, with_tenants};

#[tokio::test(flavor = "multi_thread")]
async fn every_replaced_data_key_is_deleted_in_time_but_those_that_something_damaged_names() {
    let mut world = with_tenants(Database::sqlite(), 2).await;
    let mut sql = Sql::open(&world.database).await;
    let (ours, (access, mut refresh)) = (sql.tokens(&tenant(0)).await, sql.tokens(&tenant(1)).await);
    finished(key(&world, "rotate-data").await);
    world.take_server().stop().await;

    // Both have something under a data key that was replaced: one of them is damaged, the other one to be sealed anew. More than
    // are looked at in one go were replaced between the two.
    *refresh.last_mut().unwrap() ^= 1;
    sql.put_tokens(&tenant(0), &ours).await;
    sql.put_tokens(&tenant(1), &(access, refresh)).await;
    sql.run("UPDATE data_keys SET replaced_at = 3 WHERE replaced_at IS NOT NULL").await;
    sql.run("UPDATE data_keys SET replaced_at = 1 WHERE replaced_at IS NOT NULL AND scope = 'tenant-1'")
        .await;
    sql.run(
        "WITH RECURSIVE many(number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM many WHERE number < 700) \
         INSERT INTO data_keys (scope, id, kek, wrapped, active, seals, created_at, tenant_id, replaced_at) \
         SELECT scope, 1000 + number, kek, wrapped, active, seals, created_at, tenant_id, 2 FROM data_keys, many \
         WHERE scope = 'tenant-0' AND replaced_at IS NOT NULL",
    )
    .await;
    assert!(sql.count("data_keys WHERE replaced_at IS NOT NULL").await > 700);

    world.restart().await;
    let tidied = async {
        while sql.count("data_keys WHERE replaced_at IS NOT NULL").await > 1 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, tidied).await.unwrap();
    assert_eq!(sql.count("data_keys WHERE scope = 'tenant-1' AND replaced_at = 1").await, 1);
    world.get_token(&tenant(0)).await.unwrap();
    assert_ne!(sql.tokens(&tenant(0)).await, ours, "they are sealed under the key that is there");
}
