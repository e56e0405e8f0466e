use tokenward_storage::{ConnectAttempt, ConnectLink, ConsumeOutcome, PageRequest, StorageErrorKind};

use crate::storage::StorageFixture;
use crate::storage::samples::{at, client_id, connect_attempt, link, link_id, tenant_id};
use crate::storage::tools::{MANY, at_once, furnished, kind};

const COOKIE: [u8; 32] = [99; 32];

pub async fn a_link_keeps_every_field(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let full = ConnectLink { used_at: Some(at(9)), ..link("a", "lnk_1") };
    let sparse = ConnectLink { account: None, return_url: None, ..link("a", "lnk_2") };
    for written in [full, sparse] {
        storage.create_connect_link(&written).await.unwrap();
        let read = storage.get_connect_link(&written.tenant, &written.id).await.unwrap();
        assert_eq!(read, Some(written));
    }
}

pub async fn a_taken_link_is_refused(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    storage.create_connect_link(&link("a", "lnk_1")).await.unwrap();
    let same_id = ConnectLink { secret_hash: [1; 32], ..link("a", "lnk_1") };
    let same_secret = ConnectLink { id: link_id("lnk_2"), ..link("a", "lnk_1") };
    let same_secret_elsewhere = link("b", "lnk_1");
    for link in [same_id, same_secret, same_secret_elsewhere] {
        assert_eq!(kind(storage.create_connect_link(&link).await), StorageErrorKind::AlreadyExists);
    }
}

pub async fn a_link_is_found_by_its_secret_though_used_or_expired(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let used = ConnectLink { used_at: Some(at(9)), ..link("a", "lnk_1") };
    let expired = ConnectLink { expires_at: at(-1_000_000), ..link("b", "lnk_2") };
    for link in [used, expired] {
        storage.create_connect_link(&link).await.unwrap();
        assert_eq!(storage.find_connect_link(&link.secret_hash).await.unwrap(), Some(link));
    }
}

pub async fn an_absent_link_is_none(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    storage.create_connect_link(&link("a", "lnk_1")).await.unwrap();
    assert_eq!(storage.find_connect_link(&[0; 32]).await.unwrap(), None);
    assert_eq!(storage.get_connect_link(&tenant_id("a"), &link_id("lnk_2")).await.unwrap(), None);
    assert_eq!(storage.get_connect_link(&tenant_id("b"), &link_id("lnk_1")).await.unwrap(), None);
}

pub async fn links_are_listed_in_order_of_their_identifiers(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    for id in ["c", "B", "a"] {
        storage.create_connect_link(&link("a", id)).await.unwrap();
    }
    storage.create_connect_link(&link("b", "b")).await.unwrap();
    let a = tenant_id("a");
    let first = storage.list_connect_links(&a, &PageRequest { size: 2, after: None }).await.unwrap();
    let rest = storage.list_connect_links(&a, &PageRequest { size: 2, after: first.next.clone() }).await;
    let rest = rest.unwrap();
    assert_eq!((first.next.is_some(), rest.next), (true, None));
    let listed: Vec<_> = first.items.into_iter().chain(rest.items).collect();
    assert_eq!(listed, [link("a", "B"), link("a", "a"), link("a", "c")]);
}

pub async fn deleting_a_link_twice_is_no_error(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    storage.create_connect_link(&link("a", "lnk_1")).await.unwrap();
    storage.create_connect_link(&link("a", "lnk_2")).await.unwrap();
    assert!(storage.delete_connect_link(&tenant_id("a"), &link_id("lnk_1")).await.unwrap());
    assert!(!storage.delete_connect_link(&tenant_id("a"), &link_id("lnk_1")).await.unwrap());
    assert!(storage.get_connect_link(&tenant_id("a"), &link_id("lnk_2")).await.unwrap().is_some());
}

pub async fn an_attempt_comes_back_with_every_field(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let plain = ConnectAttempt { pkce_verifier: None, ..connect_attempt("b", 2) };
    for attempt in [connect_attempt("a", 1), plain] {
        storage.start_connect_attempt(&attempt).await.unwrap();
        let consumed = storage.consume_connect_attempt(&attempt.state_hash, &COOKIE, at(8)).await.unwrap();
        assert_eq!(consumed, ConsumeOutcome::Consumed(Box::new(attempt)));
    }
}

pub async fn a_taken_state_is_refused(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    storage.start_connect_attempt(&connect_attempt("a", 1)).await.unwrap();
    for tenant in ["a", "b"] {
        let again = storage.start_connect_attempt(&connect_attempt(tenant, 1)).await;
        assert_eq!(kind(again), StorageErrorKind::AlreadyExists);
    }
}

pub async fn at_most_twenty_attempts_of_a_link_are_open(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    for state in 1..=20 {
        storage.start_connect_attempt(&connect_attempt("a", state)).await.unwrap();
    }
    let one_more = connect_attempt("a", 21);
    assert_eq!(kind(storage.start_connect_attempt(&one_more).await), StorageErrorKind::InUse);
    let unknown = storage.consume_connect_attempt(&[21; 32], &COOKIE, at(8)).await.unwrap();
    assert_eq!(unknown, ConsumeOutcome::Unknown);
    let other_link = ConnectAttempt { link: link_id("other"), ..connect_attempt("a", 31) };
    for other in [other_link, connect_attempt("b", 32)] {
        storage.start_connect_attempt(&other).await.expect("each link counts its own");
    }
    let consumed = storage.consume_connect_attempt(&[1; 32], &COOKIE, at(8)).await.unwrap();
    assert!(matches!(consumed, ConsumeOutcome::Consumed(_)));
    storage.start_connect_attempt(&one_more).await.expect("one is consumed");
    let before = ConnectAttempt { created_at: at(606), ..connect_attempt("a", 22) };
    assert_eq!(kind(storage.start_connect_attempt(&before).await), StorageErrorKind::InUse);
    let after = ConnectAttempt { created_at: at(607), expires_at: at(1207), ..before };
    storage.start_connect_attempt(&after).await.expect("the others are expired");
}

pub async fn of_a_hundred_attempts_of_a_link_at_once_twenty_start(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let results = at_once(MANY, &storage, |number, storage| async move {
        storage.start_connect_attempt(&connect_attempt("a", number.try_into().unwrap())).await
    })
    .await;
    let (started, refused): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!(started.len(), 20);
    assert!(refused.into_iter().all(|refused| kind(refused) == StorageErrorKind::InUse));
}

pub async fn an_unknown_state_is_unknown(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    storage.start_connect_attempt(&connect_attempt("a", 1)).await.unwrap();
    let outcome = storage.consume_connect_attempt(&[2; 32], &COOKIE, at(8)).await.unwrap();
    assert_eq!(outcome, ConsumeOutcome::Unknown);
}

pub async fn another_browser_does_not_use_up_a_state(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    storage.start_connect_attempt(&connect_attempt("a", 1)).await.unwrap();
    let other = storage.consume_connect_attempt(&[1; 32], &[0; 32], at(8)).await.unwrap();
    assert_eq!(other, ConsumeOutcome::OtherBrowser);
    let own = storage.consume_connect_attempt(&[1; 32], &COOKIE, at(8)).await.unwrap();
    assert!(matches!(own, ConsumeOutcome::Consumed(_)));
}

pub async fn a_state_that_was_used_is_used(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    storage.start_connect_attempt(&connect_attempt("a", 1)).await.unwrap();
    storage.consume_connect_attempt(&[1; 32], &COOKIE, at(8)).await.unwrap();
    let again = storage.consume_connect_attempt(&[1; 32], &COOKIE, at(8)).await.unwrap();
    assert_eq!(again, ConsumeOutcome::AlreadyUsed);
}

pub async fn a_state_that_came_too_late_is_expired(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    storage.start_connect_attempt(&connect_attempt("a", 1)).await.unwrap();
    for late in [at(607), at(100_000)] {
        let outcome = storage.consume_connect_attempt(&[1; 32], &COOKIE, late).await.unwrap();
        assert_eq!(outcome, ConsumeOutcome::Expired);
    }
    let in_time = storage.consume_connect_attempt(&[1; 32], &COOKIE, at(606)).await.unwrap();
    assert!(matches!(in_time, ConsumeOutcome::Consumed(_)), "nothing changed before");
}

pub async fn the_first_condition_that_fails_is_the_answer(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    storage.start_connect_attempt(&connect_attempt("a", 1)).await.unwrap();
    storage.consume_connect_attempt(&[1; 32], &COOKIE, at(8)).await.unwrap();
    // Used and expired and another browser's: the browser comes first, then the use.
    let other = storage.consume_connect_attempt(&[1; 32], &[0; 32], at(100_000)).await.unwrap();
    assert_eq!(other, ConsumeOutcome::OtherBrowser);
    let own = storage.consume_connect_attempt(&[1; 32], &COOKIE, at(100_000)).await.unwrap();
    assert_eq!(own, ConsumeOutcome::AlreadyUsed);
}

pub async fn of_a_hundred_browsers_at_once_one_gets_the_state(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    storage.start_connect_attempt(&connect_attempt("a", 1)).await.unwrap();
    let outcomes = at_once(MANY, &storage, |_, storage| async move {
        storage.consume_connect_attempt(&[1; 32], &COOKIE, at(8)).await.unwrap()
    })
    .await;
    let (winners, losers): (Vec<_>, Vec<_>) =
        outcomes.into_iter().partition(|outcome| matches!(outcome, ConsumeOutcome::Consumed(_)));
    assert_eq!(winners.len(), 1);
    assert!(losers.iter().all(|loser| *loser == ConsumeOutcome::AlreadyUsed));
}

pub async fn expired_links_and_attempts_are_deleted(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    for (number, tenant, expires) in [(1, "a", 99), (2, "b", 98), (3, "a", 100), (4, "a", 101)] {
        let id = format!("lnk_{number}");
        let link = ConnectLink { expires_at: at(expires), ..link(tenant, &id) };
        storage.create_connect_link(&link).await.unwrap();
        let attempt = ConnectAttempt { expires_at: at(expires), ..connect_attempt(tenant, number) };
        storage.start_connect_attempt(&attempt).await.unwrap();
    }
    assert_eq!(storage.delete_expired(at(100)).await.unwrap(), 4);
    assert_eq!(storage.delete_expired(at(100)).await.unwrap(), 0);
    for (tenant, left) in [("a", vec!["lnk_3", "lnk_4"]), ("b", vec![])] {
        let page = storage.list_connect_links(&tenant_id(tenant), &PageRequest::first()).await.unwrap();
        let ids: Vec<_> = page.items.iter().map(|link| link.id.as_str()).collect();
        assert_eq!(ids, left);
    }
    for (state, known) in [(1, false), (2, false), (3, true), (4, true)] {
        let outcome = storage.consume_connect_attempt(&[state; 32], &COOKIE, at(8)).await.unwrap();
        assert_eq!(outcome != ConsumeOutcome::Unknown, known, "{state}");
    }
}

pub async fn links_and_attempts_of_an_unknown_tenant_or_client_are_conflicts(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let unknown = client_id("unknown");
    let links =
        [link("unknown", "lnk_1"), ConnectLink { oauth_client: unknown.clone(), ..link("a", "lnk_1") }];
    for link in links {
        assert_eq!(kind(storage.create_connect_link(&link).await), StorageErrorKind::Conflict);
        assert_eq!(storage.find_connect_link(&link.secret_hash).await.unwrap(), None);
    }
    let attempts =
        [connect_attempt("unknown", 1), ConnectAttempt { oauth_client: unknown, ..connect_attempt("a", 1) }];
    for attempt in attempts {
        assert_eq!(kind(storage.start_connect_attempt(&attempt).await), StorageErrorKind::Conflict);
    }
}
