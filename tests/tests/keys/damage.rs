//! Somebody who writes to the database: each damage stops its own connection alone, is found by `key verify`, and heals.

use tokenward_api::admin::v1::RefreshConnectionRequest;
use tokenward_api::v1::{GetTokenRequest, GetTokenResponse};
use tokenward_tests::{Database, Sql, World};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::world::{assert_everything_opens, finished, key, tenant, with_tenants};

/// The reason of the answer to a tenant's caller.
async fn answer(world: &World, tenant: &str) -> String {
    match world.get_token(tenant).await {
        Ok(_) => "OK".to_owned(),
        Err(status) => {
            let reason = status.get_error_details().error_info().map(|info| info.reason.clone());
            assert_eq!(status.code(), Code::DataLoss, "{status:?}");
            reason.unwrap_or_default()
        }
    }
}

async fn every_damage_is_refused_found_and_heals(database: Database) {
    let mut world = with_tenants(database, 9).await;
    let mut sql = Sql::open(&world.database).await;
    let columns = ["access_token", "refresh_token"];
    let mut kept = Vec::new();
    for number in 0..9 {
        let tenant = tenant(number);
        let (access, refresh) = (sql.token(&tenant, columns[0]).await, sql.token(&tenant, columns[1]).await);
        kept.push((tenant, access, refresh));
    }
    let text = |number: usize| kept[number].0.clone();
    // Two tenants' ciphertexts are swapped.
    sql.put_token(&text(0), "access_token", &kept[1].1).await;
    sql.put_token(&text(1), "access_token", &kept[0].1).await;
    // Two fields of a row are swapped.
    sql.put_token(&text(2), "access_token", &kept[2].2).await;
    // Truncation, to nothing and by a byte; a flipped bit in header, nonce and tag.
    sql.put_token(&text(3), "access_token", &kept[3].1[..10]).await;
    sql.put_token(&text(4), "access_token", &kept[4].1[..kept[4].1.len() - 1]).await;
    for (number, at) in [(5, 0), (6, 6), (7, kept[7].1.len() - 1)] {
        let mut altered = kept[number].1.clone();
        altered[at] ^= 1;
        sql.put_token(&text(number), "access_token", &altered).await;
    }
    // Memory knows better; a restarted server has to open what is stored.
    world.restart().await;
    for number in 0..8 {
        assert_eq!(answer(&world, &tenant(number)).await, "STORED_DATA_DAMAGED", "tenant {number}");
    }
    assert_eq!(answer(&world, &tenant(8)).await, "OK", "nothing else stops");
    let browser = reqwest::Client::builder().no_proxy().build().unwrap();
    let metrics = browser.get(format!("{}/metrics", world.server().operations())).send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    let counted = metrics.lines().find(|line| line.starts_with("tokenward_undecryptable_reads_total"));
    let counted: f64 = counted.unwrap().rsplit(' ').next().unwrap().parse().unwrap();
    assert!(counted >= 8.0, "{counted}");

    let report = key(&world, "verify").await;
    assert!(!report.status.success());
    let last: serde_json::Value = serde_json::from_str(report.stdout.lines().last().unwrap()).unwrap();
    let found: std::collections::BTreeSet<_> =
        last["findings"].as_array().unwrap().iter().map(|found| found["scope"].as_str().unwrap()).collect();
    let expected: Vec<_> = (0..8).map(tenant).collect();
    assert_eq!(found.into_iter().collect::<Vec<_>>(), expected);
    // New data keys do not lose what does not open.
    let report = key(&world, "rotate-data").await;
    assert!(!report.status.success() && report.stderr.contains("do not decrypt"), "{report:?}");

    for (tenant, access, _) in &kept[..8] {
        sql.put_token(tenant, "access_token", access).await;
    }
    for number in 0..8 {
        assert_eq!(answer(&world, &tenant(number)).await, "OK", "tenant {number} heals");
    }
    assert_everything_opens(&world).await;
    finished(key(&world, "rotate-data").await);
    assert_everything_opens(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_damage_is_refused_found_and_heals_on_sqlite() {
    every_damage_is_refused_found_and_heals(Database::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_damage_is_refused_found_and_heals_on_postgresql() {
    let Some(database) = Database::postgres().await else { return };
    every_damage_is_refused_found_and_heals(database).await;
}

/// Asks for a tenant's token of one account.
async fn of_account(world: &World, account: u64) -> Result<GetTokenResponse, Status> {
    let request = GetTokenRequest {
        tenant_id: tenant(0),
        account_id: account.to_string(),
        ..GetTokenRequest::default()
    };
    Ok(world.service().tokens().get_token(request).await?.into_inner())
}

/// One tenant's connections share a data key: what keeps their ciphertexts apart is the record that each is bound to.
#[tokio::test(flavor = "multi_thread")]
async fn ciphertexts_that_two_connections_of_one_tenant_exchange_open_nowhere() {
    let mut world = with_tenants(Database::sqlite(), 1).await;
    let accounts = [World::HUB_ID, World::OTHER_HUB_ID, 5_000_000];
    for account in &accounts[..2] {
        world.connect(&tenant(0), *account).await;
    }
    let mut sql = Sql::open(&world.database).await;
    let both = format!("account_id IN ('{}', '{}')", accounts[0], accounts[1]);
    let fences = format!("(SELECT DISTINCT grant_fence FROM connections WHERE {both}) AS fences");
    assert_eq!(sql.count(&fences).await, 1, "nothing but the record tells them apart");
    let keys = sql.count("data_keys WHERE scope = 'tenant-0'").await;
    assert_eq!(keys, 1, "they share their data key");
    let put = |whose: &str| {
        format!(
            "UPDATE connections SET access_token = (SELECT kept.access_token FROM kept \
             WHERE kept.account_id {whose} connections.account_id) WHERE {both}"
        )
    };
    let mut served = Vec::new();
    for account in accounts {
        served.push(of_account(&world, account).await.unwrap().access_token);
    }
    let keep = "CREATE TEMPORARY TABLE kept AS SELECT account_id, access_token FROM connections WHERE";
    sql.run(&format!("{keep} {both}")).await;
    sql.run(&put("<>")).await;
    // Memory knows better; a restarted server has to open what is stored.
    world.restart().await;
    for account in &accounts[..2] {
        let refused = of_account(&world, *account).await.unwrap_err();
        let reason = refused.get_error_details().error_info().map(|info| info.reason.clone());
        assert_eq!((refused.code(), reason.as_deref()), (Code::DataLoss, Some("STORED_DATA_DAMAGED")));
    }
    assert_eq!(of_account(&world, accounts[2]).await.unwrap().access_token, served[2], "nothing else stops");

    // The same ciphertexts open where they belong.
    sql.run(&put("=")).await;
    for (account, served) in accounts.into_iter().zip(served) {
        assert_eq!(of_account(&world, account).await.unwrap().access_token, served, "{account} heals");
    }
    assert_everything_opens(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_refresh_token_stops_refreshes_and_goes_to_no_vendor() {
    let mut world = with_tenants(Database::sqlite(), 1).await;
    let mut sql = Sql::open(&world.database).await;
    world.get_token(&tenant(0)).await.unwrap();
    let kept = sql.token(&tenant(0), "refresh_token").await;
    let mut altered = kept.clone();
    *altered.last_mut().unwrap() ^= 1;
    sql.put_token(&tenant(0), "refresh_token", &altered).await;
    world.restart().await;
    let connection_id = world.connection(&tenant(0), 5_000_000).await;
    let refresh = RefreshConnectionRequest { tenant_id: tenant(0), connection_id };
    let asked = world.sim.handle().stats().refreshes;
    let refused = world.operator().connections().refresh_connection(refresh.clone()).await.unwrap_err();
    let reason = refused.get_error_details().error_info().map(|info| info.reason.clone());
    assert_eq!((refused.code(), reason.as_deref()), (Code::DataLoss, Some("STORED_DATA_DAMAGED")));
    assert_eq!(world.sim.handle().stats().refreshes, asked, "nothing damaged was sent to the vendor");

    sql.put_token(&tenant(0), "refresh_token", &kept).await;
    world.operator().connections().refresh_connection(refresh).await.unwrap();
    assert_eq!(world.sim.handle().stats().refreshes, asked + 1, "a refresh that can be made is counted");
    assert_everything_opens(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_issuer_key_does_not_stop_the_start() {
    let mut world = with_tenants(Database::sqlite(), 1).await;
    let mut sql = Sql::open(&world.database).await;
    sql.run("UPDATE issuer_keys SET sealed = substr(sealed, 1, 20)").await;
    world.restart().await;
    let refused = world.get_token(&tenant(0)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "its tokens cannot be checked any more: {refused:?}");
    world.admin_token = world.bootstrap_admin().await;
    world.service_token = world.issue("billing", tokenward_api::admin::v1::Role::Service).await;
    world.get_token(&tenant(0)).await.unwrap();
    let report = key(&world, "verify").await;
    assert!(report.stdout.contains("issuer_key"), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_key_that_is_gone_is_found() {
    let mut world = with_tenants(Database::sqlite(), 2).await;
    let mut sql = Sql::open(&world.database).await;
    sql.run("UPDATE data_keys SET scope = 'nobody' WHERE scope = 'tenant-0'").await;
    world.restart().await;
    assert_eq!(answer(&world, &tenant(0)).await, "STORED_DATA_DAMAGED");
    assert_eq!(answer(&world, &tenant(1)).await, "OK");
    let report = key(&world, "verify").await;
    assert!(!report.status.success() && report.stdout.contains("data key 1"), "{report:?}");
    sql.run("UPDATE data_keys SET scope = 'tenant-0' WHERE scope = 'nobody'").await;
    assert_eq!(answer(&world, &tenant(0)).await, "OK");
}
