//! Connections that nobody asks for.

use serde_json::json;
use tokenward_broker::Broker;
use tokenward_storage::{Connection, ConnectionState};

use crate::world::{HUB, READ, World, secs};

const DAY: u64 = 24 * 3600;

/// Makes a connection due, as if its time had come.
async fn make_due(world: &World, connection: &Connection) {
    world.storage.plan_check(&connection.tenant, &connection.id, secs(0)).await.unwrap();
}

fn questions(world: &World) -> u64 {
    let asked = world.handle().stats().requests.get("introspect").copied();
    asked.unwrap_or_default()
}

fn counted(broker: &Broker, outcome: &str) -> u64 {
    let name = format!("tokenward_idle_checks_total{{outcome=\"{outcome}\"}} ");
    let text = broker.metrics().encode();
    text.lines().find_map(|line| line.strip_prefix(&name)).map_or(0, |count| count.parse().unwrap())
}

#[tokio::test]
async fn a_connection_is_asked_about_once_a_day_by_one_server_and_not_refreshed() {
    let world = World::start().await;
    let other = world.another_server(|_| {}).await;
    let connection = world.connect("acme", HUB, &["oauth", READ]).await;
    world.advance(secs(DAY));
    world.broker.run_checks().await;
    while !world.storage.list_due_checks(10).await.unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    let (asked, refreshed) = (questions(&world), world.refreshes());
    assert!(
        world.storage.list_due_checks(10).await.unwrap().is_empty(),
        "the first look is some time in the day"
    );

    make_due(&world, &connection).await;
    // Both read that it is due before either claims it: the database's one connection goes round in turn.
    futures::join!(world.broker.run_checks(), other.run_checks());
    let seen = |outcome| counted(&world.broker, outcome) + counted(&other, outcome);
    while seen("alive") + seen("elsewhere") < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(questions(&world) - asked, 1, "one of the servers asks");
    assert_eq!(world.refreshes(), refreshed);
    let row = world.row("acme", &connection.id).await;
    assert_eq!((row.version, row.state), (connection.version, ConnectionState::Active));
    assert_eq!(world.storage.list_due_checks(10).await.unwrap(), [], "its next look is planned");
}

#[tokio::test]
async fn a_grant_that_died_while_nobody_asked_is_a_suspect() {
    let world = World::start().await;
    let connection = world.connect("acme", HUB, &["oauth", READ]).await;
    world.advance(secs(DAY));
    world.handle().uninstall(HUB, None).unwrap();
    make_due(&world, &connection).await;
    world.broker.run_checks().await;
    while counted(&world.broker, "dead") == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.row("acme", &connection.id).await.state, ConnectionState::Suspect);
}

#[tokio::test]
async fn a_connection_in_use_costs_no_question() {
    let world = World::start().await;
    let connection = world.connect("acme", HUB, &["oauth", READ]).await;
    world.advance(secs(DAY));
    world.token(&[READ]).await.unwrap();
    let asked = questions(&world);
    make_due(&world, &connection).await;
    world.broker.run_checks().await;
    while !world.storage.list_due_checks(10).await.unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(questions(&world), asked);
}

#[tokio::test]
async fn a_refresh_token_that_dies_unused_is_used_at_half_of_its_life() {
    let idle = json!({"refresh_token_idle_lifetime": "20days", "rotation": "strict"});
    let world = World::with(idle, |_| {}).await;
    let connection = world.connect("acme", HUB, &["oauth", READ]).await;
    let before = world.refreshes();
    world.advance(secs(8 * DAY));
    make_due(&world, &connection).await;
    world.broker.run_checks().await;
    while !world.storage.list_due_checks(10).await.unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.refreshes(), before, "where tokens rotate, nothing is asked or spent early");
    world.advance(secs(2 * DAY));
    make_due(&world, &connection).await;
    world.broker.run_checks().await;
    while counted(&world.broker, "refreshed") == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.refreshes() - before, 1);
    let (was, is) = (connection.tokens.unwrap(), world.row("acme", &connection.id).await.tokens.unwrap());
    assert!(is.issued_at.since(was.issued_at) >= secs(10 * DAY));
}

#[tokio::test]
async fn nothing_is_looked_at_where_that_is_off() {
    let world = World::with(json!({}), |settings| settings.idle_check_interval = secs(0)).await;
    let connection = world.connect("acme", HUB, &["oauth", READ]).await;
    make_due(&world, &connection).await;
    world.broker.run_checks().await;
    assert_eq!(world.storage.list_due_checks(10).await.unwrap().len(), 1);
}
