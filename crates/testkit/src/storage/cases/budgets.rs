use std::sync::Arc;
use std::time::Duration;

use tokenward_storage::{BeginPause, PauseCause, ReserveCalls, Reserved, Storage};

use crate::storage::StorageFixture;
use crate::storage::samples::{client, client_id};
use crate::storage::tools::{MANY, at_once, furnished};

const HOUR: Duration = Duration::from_hours(1);

/// One call an hour, so that nothing comes back while a case runs.
fn ask(calls: u32, burst: u32) -> ReserveCalls {
    ReserveCalls { calls, interval: HOUR, burst }
}

fn pause(cause: PauseCause, length: Duration) -> BeginPause {
    BeginPause { cause, length, refusals: 3 }
}

async fn reserved(storage: &Arc<dyn Storage>, ask: ReserveCalls) -> Reserved {
    storage.reserve_calls(&client_id("client"), &ask).await.unwrap()
}

/// Begins a pause; its number.
async fn paused(storage: &Arc<dyn Storage>, length: Duration) -> i64 {
    let pause = pause(PauseCause::RateLimited, length);
    storage.pause_calls(&client_id("client"), &pause).await.unwrap().unwrap().number
}

async fn probed(storage: &Arc<dyn Storage>, number: i64, hold: Duration) -> bool {
    storage.claim_probe(&client_id("client"), number, hold).await.unwrap()
}

pub async fn calls_are_reserved_up_to_the_burst(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    for _ in 0..3 {
        let Reserved { calls, wait, pause } = reserved(&storage, ask(2, 6)).await;
        assert_eq!((calls, wait, pause), (2, Duration::ZERO, None));
    }
    assert_eq!(reserved(&storage, ask(1, 6)).await.calls, 0);
}

pub async fn fewer_calls_are_reserved_where_there_is_no_room_for_all(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    assert_eq!(reserved(&storage, ask(50, 4)).await.calls, 4);
    assert_eq!(reserved(&storage, ask(3, 6)).await.calls, 2);
    assert_eq!(reserved(&storage, ask(3, 6)).await.calls, 0);
}

pub async fn without_room_a_reservation_says_how_long_to_wait(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    reserved(&storage, ask(2, 2)).await;
    let refused = reserved(&storage, ask(1, 2)).await;
    assert_eq!(refused.calls, 0);
    assert!(refused.wait > HOUR / 2 && refused.wait <= HOUR, "{:?}", refused.wait);
}

pub async fn room_comes_back_by_the_databases_clock(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let ask = ReserveCalls { calls: 1, interval: Duration::from_millis(20), burst: 1 };
    let mut refusals = 0;
    for _ in 0..20 {
        let answer = reserved(&storage, ask).await;
        if answer.calls == 0 {
            refusals += 1;
            assert!(answer.wait <= ask.interval, "{:?}", answer.wait);
            tokio::time::sleep(answer.wait).await;
            assert_eq!(reserved(&storage, ask).await.calls, 1, "it said when there is room");
        }
    }
    assert!(refusals > 0, "a call takes up its time");
}

pub async fn of_a_hundred_reservations_at_once_the_burst_gets_through(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let got = at_once(MANY, &storage, |_, storage| async move {
        storage.reserve_calls(&client_id("client"), &ask(2, 31)).await.unwrap().calls
    })
    .await;
    assert_eq!(got.iter().sum::<u32>(), 31);
}

pub async fn clients_have_room_of_their_own(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    storage.create_oauth_client(&client("other")).await.unwrap();
    assert_eq!(reserved(&storage, ask(5, 5)).await.calls, 5);
    assert_eq!(storage.reserve_calls(&client_id("other"), &ask(5, 5)).await.unwrap().calls, 5);
}

pub async fn an_absent_client_has_no_room(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let refused = storage.reserve_calls(&client_id("absent"), &ask(1, 5)).await.unwrap();
    assert_eq!(refused, Reserved { calls: 0, wait: HOUR, pause: None });
}

pub async fn a_reservation_tells_the_pause(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let number = paused(&storage, HOUR).await;
    let with_room = reserved(&storage, ask(1, 1)).await;
    assert_eq!((with_room.calls, with_room.pause.unwrap().number), (1, number));
    let without = reserved(&storage, ask(1, 1)).await;
    assert_eq!((without.calls, without.pause.unwrap().number), (0, number));
}

pub async fn a_pause_keeps_every_field(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    for cause in [PauseCause::RateLimited, PauseCause::Credentials, PauseCause::Unexpected] {
        let begun = storage.pause_calls(&client_id("client"), &pause(cause, HOUR)).await.unwrap().unwrap();
        assert_eq!((&begun.oauth_client, begun.cause, begun.refusals), (&client_id("client"), cause, 3));
        assert!(begun.remaining > HOUR / 2 && begun.remaining <= HOUR, "{:?}", begun.remaining);
        let listed = storage.list_pauses().await.unwrap();
        assert_eq!((listed.len(), listed[0].number, listed[0].cause), (1, begun.number, cause));
    }
}

pub async fn a_pause_that_goes_on_has_the_next_number_and_ends_no_earlier(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let first = paused(&storage, 2 * HOUR).await;
    let shorter = pause(PauseCause::Credentials, Duration::from_secs(1));
    let second = storage.pause_calls(&client_id("client"), &shorter).await.unwrap().unwrap();
    assert_eq!((second.number, second.cause), (first + 1, PauseCause::Credentials));
    assert!(second.remaining > HOUR, "{:?}", second.remaining);
    let longer = pause(PauseCause::Credentials, 4 * HOUR);
    let third = storage.pause_calls(&client_id("client"), &longer).await.unwrap().unwrap();
    assert!(third.remaining > 3 * HOUR, "{:?}", third.remaining);
}

pub async fn a_pause_of_an_absent_client_is_none(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let pause = pause(PauseCause::RateLimited, HOUR);
    assert_eq!(storage.pause_calls(&client_id("absent"), &pause).await.unwrap(), None);
}

pub async fn while_a_pause_lasts_no_probe_is_claimed(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let number = paused(&storage, HOUR).await;
    assert!(!probed(&storage, number, HOUR).await);
}

pub async fn of_a_hundred_probes_at_once_one_is_claimed(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let number = paused(&storage, Duration::ZERO).await;
    assert_eq!(storage.list_pauses().await.unwrap()[0].remaining, Duration::ZERO);
    let claims =
        at_once(MANY, &storage, |_, storage| async move { probed(&storage, number, HOUR).await }).await;
    assert_eq!(claims.into_iter().filter(|claimed| *claimed).count(), 1);
}

pub async fn a_claimed_probe_lapses_by_the_databases_clock(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let number = paused(&storage, Duration::ZERO).await;
    assert!(probed(&storage, number, Duration::ZERO).await);
    assert!(probed(&storage, number, HOUR).await);
    assert!(!probed(&storage, number, HOUR).await);
}

pub async fn a_released_probe_is_claimed_again(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let number = paused(&storage, Duration::ZERO).await;
    assert!(probed(&storage, number, HOUR).await);
    storage.release_probe(&client_id("client"), number - 1).await.unwrap();
    assert!(!probed(&storage, number, HOUR).await, "another pause's probe is none of its business");
    storage.release_probe(&client_id("client"), number).await.unwrap();
    assert!(probed(&storage, number, HOUR).await);
}

pub async fn a_pause_that_goes_on_has_a_probe_of_its_own(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let first = paused(&storage, Duration::ZERO).await;
    assert!(probed(&storage, first, HOUR).await);
    let second = paused(&storage, Duration::ZERO).await;
    assert!(!probed(&storage, first, HOUR).await);
    assert!(probed(&storage, second, HOUR).await);
}

pub async fn an_ended_pause_is_gone(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let number = paused(&storage, Duration::ZERO).await;
    storage.end_pause(&client_id("client"), number - 1).await.unwrap();
    assert_eq!(storage.list_pauses().await.unwrap().len(), 1, "another pause was meant");
    storage.end_pause(&client_id("client"), number).await.unwrap();
    storage.end_pause(&client_id("client"), number).await.unwrap();
    assert_eq!(storage.list_pauses().await.unwrap(), []);
    assert!(!probed(&storage, number, HOUR).await);
    assert_eq!(paused(&storage, HOUR).await, number + 1, "numbers go on where they were");
}

pub async fn pauses_are_listed_in_order_of_their_clients(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    for id in ["b", "a", "c"] {
        storage.create_oauth_client(&client(id)).await.unwrap();
        let pause = pause(PauseCause::Unexpected, HOUR);
        storage.pause_calls(&client_id(id), &pause).await.unwrap().unwrap();
    }
    reserved(&storage, ask(1, 1)).await;
    let listed = storage.list_pauses().await.unwrap();
    let clients: Vec<_> = listed.iter().map(|pause| pause.oauth_client.as_str()).collect();
    assert_eq!(clients, ["a", "b", "c"]);
}

pub async fn deleting_a_client_takes_its_budget(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    reserved(&storage, ask(1, 1)).await;
    paused(&storage, HOUR).await;
    storage.delete_oauth_client(&client_id("client")).await.unwrap();
    assert_eq!(storage.list_pauses().await.unwrap(), []);
    storage.create_oauth_client(&client("client")).await.unwrap();
    assert_eq!(reserved(&storage, ask(1, 1)).await.calls, 1);
}
