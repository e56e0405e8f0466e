//! A server that is cut off from the database while another one is not.

use std::time::Duration;

use tokenward_tests::{Database, Settings, World, get_token};
use tokio::time::Instant;

use crate::proxy::Proxy;
use crate::world::{HOLDS_WITHIN, Second, holds_within, outcome, two_servers};

/// Two servers, the second one behind a proxy.
async fn behind_a_proxy(configure: impl FnOnce(&mut Settings)) -> Option<(World, Second, Proxy)> {
    let (world, undisturbed) = two_servers().await?;
    drop(undisturbed);
    let Database::Postgres { url, .. } = &world.database else { return None };
    let proxy = Proxy::before(url).await;
    let through = proxy.url(url);
    let second = Second::start(&world, |settings| {
        settings.set("storage.url", through).set("storage.acquire_timeout", "2s");
        configure(settings);
    })
    .await;
    second.get_token(&world, "acme").await.unwrap();
    Some((world, second, proxy))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_cut_off_serves_warm_tokens_and_hears_of_a_suspension_when_it_returns() {
    let Some((world, second, proxy)) = behind_a_proxy(|_| {}).await else { return };
    proxy.cut();
    second.server.process.stderr.wait_for_text("the change log cannot be read").await;
    world.cli("tenant suspend acme").run().await.ok();
    for _ in 0..20 {
        assert_eq!(outcome(second.get_token(&world, "acme").await), "OK", "what it knows is served");
    }
    proxy.restore();
    let since = Instant::now();
    let ask = || async { outcome(second.get_token(&world, "acme").await) };
    holds_within(since, "TENANT_SUSPENDED", ask).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_warm_call_fails_when_the_database_goes_away() {
    let Some((world, second, proxy)) = behind_a_proxy(|_| {}).await else { return };
    let caller = second.service(&world);
    proxy.cut();
    let cut = Instant::now();
    let mut longest = Duration::ZERO;
    while cut.elapsed() < 2 * HOLDS_WITHIN {
        let began = Instant::now();
        get_token(&caller, "acme").await.unwrap();
        longest = longest.max(began.elapsed());
        tokio::task::yield_now().await;
    }
    assert!(longest < HOLDS_WITHIN, "a call took {longest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_max_stale_nothing_is_served_until_the_database_is_back() {
    let configure = |settings: &mut Settings| {
        settings.set("broker.max_stale", "0s");
    };
    let Some((world, second, proxy)) = behind_a_proxy(configure).await else { return };
    for _ in 0..20 {
        assert_eq!(outcome(second.get_token(&world, "acme").await), "OK", "it sees the log");
    }
    proxy.cut();
    let ask = || async { outcome(second.get_token(&world, "acme").await) };
    holds_within(Instant::now(), "STATE_STALE", ask).await;
    proxy.restore();
    holds_within(Instant::now(), "OK", ask).await;
}
