use tokenward_storage::{DataKeyRecord, KekCheck, StorageErrorKind};

use crate::storage::StorageFixture;
use crate::storage::samples::{at, data_key};
use crate::storage::tools::{MANY, at_once, furnished, kind};

fn check(kek: &str, wrapped: &[u8]) -> KekCheck {
    KekCheck { kek: kek.into(), wrapped: wrapped.to_vec(), created_at: at(9) }
}

pub async fn a_data_key_keeps_every_field(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let keys = [data_key("a", 1), DataKeyRecord { active: false, ..data_key("a", 2) }];
    for key in &keys {
        storage.create_data_key(key).await.unwrap();
    }
    let [first, second] = keys;
    assert_eq!(storage.list_data_keys("a").await.unwrap(), [second, first]);
}

pub async fn a_taken_data_key_identifier_is_refused(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    storage.create_data_key(&data_key("a", 1)).await.unwrap();
    assert_eq!(kind(storage.create_data_key(&data_key("a", 1)).await), StorageErrorKind::AlreadyExists);
    storage.create_data_key(&data_key("b", 1)).await.expect("the identifier is free in another scope");
}

pub async fn a_data_key_of_an_unknown_tenant_is_a_conflict(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    assert_eq!(kind(storage.create_data_key(&data_key("unknown", 1)).await), StorageErrorKind::Conflict);
    assert_eq!(storage.list_data_keys("unknown").await.unwrap(), []);
}

pub async fn the_installation_has_data_keys_without_being_a_tenant(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let key = data_key("_installation", 1);
    storage.create_data_key(&key).await.unwrap();
    assert_eq!(storage.list_data_keys("_installation").await.unwrap(), [key]);
}

pub async fn an_active_data_key_replaces_the_former_active_one(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    for key in [data_key("a", 1), data_key("b", 1), data_key("a", 2)] {
        storage.create_data_key(&key).await.unwrap();
    }
    let active = |keys: Vec<DataKeyRecord>| -> Vec<_> {
        keys.into_iter().filter(|key| key.active).map(|key| key.id).collect()
    };
    assert_eq!(active(storage.list_data_keys("a").await.unwrap()), [2]);
    assert_eq!(active(storage.list_data_keys("b").await.unwrap()), [1], "another scope is left alone");
    storage.create_data_key(&DataKeyRecord { active: false, ..data_key("a", 3) }).await.unwrap();
    assert_eq!(active(storage.list_data_keys("a").await.unwrap()), [2], "an inactive key replaces none");
}

pub async fn a_refused_data_key_leaves_the_former_active_one(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    storage.create_data_key(&data_key("a", 1)).await.unwrap();
    storage.create_data_key(&data_key("a", 1)).await.unwrap_err();
    assert!(storage.list_data_keys("a").await.unwrap()[0].active);
}

pub async fn data_keys_are_listed_newest_first(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    for id in [2, 10, 1] {
        storage.create_data_key(&data_key("a", id)).await.unwrap();
    }
    let ids: Vec<_> = storage.list_data_keys("a").await.unwrap().iter().map(|key| key.id).collect();
    assert_eq!(ids, [10, 2, 1]);
}

pub async fn data_keys_are_counted_by_the_key_that_wraps_them(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    assert_eq!(storage.count_data_keys().await.unwrap(), []);
    for (scope, id, kek) in [("a", 1, "old"), ("a", 2, "new"), ("b", 1, "new")] {
        storage.create_data_key(&DataKeyRecord { kek: kek.into(), ..data_key(scope, id) }).await.unwrap();
    }
    let mut counts = storage.count_data_keys().await.unwrap();
    counts.sort();
    assert_eq!(counts, [("new".to_owned(), 2), ("old".to_owned(), 1)]);
}

pub async fn of_many_data_keys_with_one_identifier_one_gets_through(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let results = at_once(MANY, &storage, |number, storage| async move {
        let wrapped = number.to_be_bytes().to_vec();
        storage.create_data_key(&DataKeyRecord { wrapped: wrapped.clone(), ..data_key("a", 1) }).await?;
        Ok::<_, tokenward_storage::StorageError>(wrapped)
    })
    .await;
    let (winners, losers): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!(winners.len(), 1);
    assert!(losers.into_iter().all(|loser| kind(loser) == StorageErrorKind::AlreadyExists));
    let stored = storage.list_data_keys("a").await.unwrap();
    assert_eq!(&stored[0].wrapped, winners[0].as_ref().unwrap(), "the winner's key is the stored one");
}

pub async fn of_many_active_data_keys_at_once_one_stays_active(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let results = at_once(MANY, &storage, |number, storage| async move {
        storage.create_data_key(&data_key("a", i32::try_from(number).unwrap() + 1)).await
    })
    .await;
    assert!(results.iter().all(Result::is_ok));
    let keys = storage.list_data_keys("a").await.unwrap();
    let active = keys.iter().filter(|key| key.active).count();
    assert_eq!((keys.len(), active), (MANY, 1));
}

pub async fn a_hundred_counts_of_seals_lose_none(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    storage.create_data_key(&DataKeyRecord { seals: 0, ..data_key("a", 1) }).await.unwrap();
    storage.create_data_key(&DataKeyRecord { seals: 0, ..data_key("a", 2) }).await.unwrap();
    let mut counts = at_once(MANY, &storage, |_, storage| async move {
        let made = [("a".to_owned(), 2, 1), ("a".to_owned(), 1, 1000)];
        let counts = storage.add_seals(&made).await.unwrap();
        assert_eq!((counts.len(), &*counts[0].0, counts[0].1, counts[1].1), (2, "a", 1, 2));
        counts[0].2
    })
    .await;
    counts.sort_unstable();
    let expected: Vec<i64> = (1..=100).map(|count| count * 1000).collect();
    assert_eq!(counts, expected, "each call returns the count after its own");
    let stored: Vec<_> = storage.list_data_keys("a").await.unwrap().iter().map(|key| key.seals).collect();
    assert_eq!(stored, [100, 100_000]);
}

pub async fn seals_of_an_absent_data_key_are_none(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    storage.create_data_key(&data_key("a", 1)).await.unwrap();
    let seals = storage.list_data_keys("a").await.unwrap()[0].seals;
    let made = [("a".to_owned(), 2, 1), ("b".to_owned(), 1, 1), ("a".to_owned(), 1, 1)];
    assert_eq!(storage.add_seals(&made).await.unwrap(), [("a".to_owned(), 1, seals + 1)]);
    assert_eq!(storage.add_seals(&[]).await.unwrap(), []);
}

pub async fn a_check_record_is_created_once(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let first = check("local:ключ-7/3", b"\x00\xfffirst");
    assert!(storage.create_kek_check(&first, 0).await.unwrap());
    assert!(!storage.create_kek_check(&check("local:ключ-7/3", b"second"), 1).await.unwrap());
    assert_eq!(storage.list_kek_checks().await.unwrap(), [first]);
}

pub async fn a_check_record_is_created_only_on_what_was_seen(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    assert!(!storage.create_kek_check(&check("one", b"x"), 1).await.unwrap());
    assert!(storage.create_kek_check(&check("one", b"x"), 0).await.unwrap());
    assert!(!storage.create_kek_check(&check("two", b"x"), 0).await.unwrap());
    assert!(storage.create_kek_check(&check("two", b"x"), 1).await.unwrap());
}

pub async fn of_many_first_check_records_for_different_keys_one_gets_through(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let created = at_once(MANY, &storage, |number, storage| async move {
        storage.create_kek_check(&check(&format!("kek-{number}"), b"x"), 0).await.unwrap()
    })
    .await;
    assert_eq!(created.iter().filter(|created| **created).count(), 1);
    assert_eq!(storage.list_kek_checks().await.unwrap().len(), 1);
}

pub async fn of_many_check_records_at_once_one_gets_through(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let created = at_once(MANY, &storage, |number, storage| async move {
        storage.create_kek_check(&check("kek", &number.to_be_bytes()), 0).await.unwrap()
    })
    .await;
    let winners: Vec<_> = (0..MANY).filter(|number| created[*number]).collect();
    assert_eq!(winners.len(), 1);
    assert_eq!(storage.list_kek_checks().await.unwrap(), [check("kek", &winners[0].to_be_bytes())]);
}

pub async fn check_records_are_listed_in_order_of_their_keys(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    for (seen, kek) in ["b", "a", "B", "A"].iter().enumerate() {
        assert!(storage.create_kek_check(&check(kek, b"x"), seen).await.unwrap());
    }
    let checks = storage.list_kek_checks().await.unwrap();
    let keks: Vec<_> = checks.iter().map(|check| &*check.kek).collect();
    assert_eq!(keks, ["A", "B", "a", "b"], "byte by byte");
}
