use std::time::Duration;

use tokenward_storage::{ClaimOutcome, SchemaStatus, ServerClaim, StorageErrorKind};

use tokenward_types::Timestamp;

use crate::storage::StorageFixture;
use crate::storage::samples::{at, tenant, tenant_id};
use crate::storage::tools::{MANY, at_once, furnished, kind, ready};

const LONG: Duration = Duration::from_hours(1);

fn claim(server: &str) -> ServerClaim {
    ServerClaim { server: server.into(), description: format!("{server} on Wärter-1, process 7") }
}

pub async fn migrating_brings_the_schema_up_to_date(fixture: &dyn StorageFixture) {
    let storage = fixture.open().await;
    let SchemaStatus::Behind(missing) = storage.schema_status().await.unwrap() else {
        panic!("an empty database is behind");
    };
    assert!(!missing.is_empty());
    assert_eq!(storage.migrate().await.unwrap(), missing);
    assert_eq!(storage.schema_status().await.unwrap(), SchemaStatus::Current);
}

pub async fn migrating_twice_changes_nothing(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    assert_eq!(storage.migrate().await.unwrap(), Vec::<String>::new());
    assert_eq!(storage.schema_status().await.unwrap(), SchemaStatus::Current);
    assert!(storage.get_tenant(&tenant_id("a")).await.unwrap().is_some());
}

pub async fn of_two_migrations_at_once_one_finds_nothing_to_do(fixture: &dyn StorageFixture) {
    let (one, two) = (fixture.open().await, fixture.open().await);
    let (first, second) = tokio::join!(one.migrate(), two.migrate());
    let (first, second) = (first.unwrap(), second.unwrap());
    assert!(first.is_empty() != second.is_empty(), "one of {first:?} and {second:?} did it all");
    assert_eq!(two.schema_status().await.unwrap(), SchemaStatus::Current);
}

pub async fn a_database_that_is_newer_is_refused_and_left_as_it_is(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    fixture.record_migration("m9999_from_the_future").await;
    let newer = SchemaStatus::Newer(vec!["m9999_from_the_future".into()]);
    assert_eq!(storage.schema_status().await.unwrap(), newer);
    let error = storage.migrate().await.unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::Inconsistent);
    assert!(error.to_string().contains("m9999_from_the_future"), "{error}");
    assert_eq!(storage.schema_status().await.unwrap(), newer);
    assert!(storage.get_tenant(&tenant_id("a")).await.unwrap().is_some());
}

pub async fn asking_for_the_schema_status_changes_nothing(fixture: &dyn StorageFixture) {
    let storage = fixture.open().await;
    let before = storage.schema_status().await.unwrap();
    assert_eq!(storage.schema_status().await.unwrap(), before);
    assert!(matches!(before, SchemaStatus::Behind(_)));
    assert!(storage.get_tenant(&tenant_id("a")).await.is_err(), "no table was made");
}

pub async fn reopening_keeps_data(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    let created = storage.create_tenant(&tenant("kept")).await.unwrap();
    storage.close().await;
    drop(storage);
    let reopened = fixture.open().await;
    assert_eq!(reopened.schema_status().await.unwrap(), SchemaStatus::Current);
    assert_eq!(reopened.get_tenant(&tenant_id("kept")).await.unwrap(), Some(created));
}

pub async fn a_health_check_writes_and_leaves_nothing(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    let checks = at_once(MANY, &storage, |_, storage| async move { storage.check_health().await }).await;
    for check in checks {
        check.unwrap();
    }
    storage.check_health().await.unwrap();
}

pub async fn the_installation_id_is_the_first_candidate(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    assert_eq!(storage.installation_id("först-🦀").await.unwrap(), "först-🦀");
    assert_eq!(storage.installation_id("second").await.unwrap(), "först-🦀");
    assert_eq!(fixture.open().await.installation_id("third").await.unwrap(), "först-🦀");
}

pub async fn of_many_candidates_at_once_all_get_the_same_installation_id(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    let ids = at_once(MANY, &storage, |number, storage| async move {
        storage.installation_id(&format!("candidate-{number}")).await.unwrap()
    })
    .await;
    assert!(ids.iter().all(|id| *id == ids[0] && id.starts_with("candidate-")), "{ids:?}");
}

pub async fn a_claim_keeps_other_servers_out(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    assert_eq!(storage.claim_server(&claim("one"), LONG).await.unwrap(), ClaimOutcome::Claimed);
    let ClaimOutcome::Held { description, remaining } =
        storage.claim_server(&claim("two"), LONG).await.unwrap()
    else {
        panic!("the claim holds");
    };
    assert_eq!(description, claim("one").description);
    assert!(remaining > Duration::ZERO && remaining <= LONG, "{remaining:?}");
}

pub async fn a_claim_lapses_by_the_databases_clock(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    storage.claim_server(&claim("one"), Duration::ZERO).await.unwrap();
    assert_eq!(storage.claim_server(&claim("two"), LONG).await.unwrap(), ClaimOutcome::Claimed);
    let held = storage.claim_server(&claim("one"), LONG).await.unwrap();
    assert!(matches!(held, ClaimOutcome::Held { .. }), "the claim is the second server's now");
}

pub async fn the_same_server_renews_its_claim(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    storage.claim_server(&claim("one"), LONG).await.unwrap();
    assert_eq!(storage.claim_server(&claim("one"), 3 * LONG).await.unwrap(), ClaimOutcome::Claimed);
    let ClaimOutcome::Held { remaining, .. } = storage.claim_server(&claim("two"), LONG).await.unwrap()
    else {
        panic!("the claim holds");
    };
    assert!(remaining > 2 * LONG, "the renewed claim holds longer: {remaining:?}");
}

pub async fn of_many_servers_at_once_one_claims_the_database(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    let outcomes = at_once(MANY, &storage, |number, storage| async move {
        storage.claim_server(&claim(&format!("server-{number}")), LONG).await.unwrap()
    })
    .await;
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == ClaimOutcome::Claimed).count(), 1);
}

pub async fn a_released_claim_is_free_for_another_server(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    storage.claim_server(&claim("one"), LONG).await.unwrap();
    storage.release_server("one").await.unwrap();
    storage.release_server("one").await.unwrap();
    assert_eq!(storage.claim_server(&claim("two"), LONG).await.unwrap(), ClaimOutcome::Claimed);
}

pub async fn releasing_does_not_touch_the_claim_of_another_server(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    storage.claim_server(&claim("one"), LONG).await.unwrap();
    storage.release_server("two").await.unwrap();
    let held = storage.claim_server(&claim("two"), LONG).await.unwrap();
    assert!(matches!(held, ClaimOutcome::Held { .. }));
}

pub async fn after_closing_calls_fail_as_unavailable(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    storage.close().await;
    assert_eq!(kind(storage.get_tenant(&tenant_id("a")).await), StorageErrorKind::Unavailable);
    assert_eq!(kind(storage.delete_expired(at(0)).await), StorageErrorKind::Unavailable);
}

pub async fn the_time_is_that_of_the_database(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    let first = storage.time().await.unwrap();
    assert!(first > Timestamp::from_secs(1_700_000_000), "{first}");
    let second = storage.time().await.unwrap();
    assert!(second >= first && second.since(first) < LONG, "{first} {second}");
}

pub async fn the_first_mark_is_now_and_a_later_one_is_beyond(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    let first = storage.advance_mark(at(5)).await.unwrap();
    assert_eq!((first.before, first.after), (0, at(5).as_micros()));
    let same = storage.advance_mark(at(5)).await.unwrap();
    assert_eq!((same.before, same.after), (first.after, first.after + 1));
    let earlier = storage.advance_mark(at(1)).await.unwrap();
    assert_eq!((earlier.before, earlier.after), (same.after, same.after + 1));
    assert_eq!(storage.advance_mark(at(9)).await.unwrap().after, at(9).as_micros());
}

pub async fn of_a_hundred_marks_at_once_each_is_another(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    let marks =
        at_once(MANY, &storage, |_, storage| async move { storage.advance_mark(at(5)).await.unwrap() }).await;
    let mut after: Vec<_> = marks.iter().map(|mark| mark.after).collect();
    after.sort_unstable();
    after.dedup();
    assert_eq!(after.len(), marks.len());
}
