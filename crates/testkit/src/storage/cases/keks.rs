use std::sync::Arc;
use std::time::Duration;

use tokenward_storage::{
    DataKeyRecord, KekState, KeyJobKind, NewKeyJob, PageRequest, RetireOutcome, Rewrap, Storage,
    StorageErrorKind,
};

use crate::storage::StorageFixture;
use crate::storage::samples::{at, data_key};
use crate::storage::tools::{MANY, at_once, furnished, kind};

async fn state(storage: &Arc<dyn Storage>, kek: &str) -> Option<KekState> {
    let keks = storage.list_keks().await.unwrap();
    keks.iter().find(|known| known.kek == kek).map(|known| known.state)
}

fn key(scope: &str, id: i32, kek: &str) -> DataKeyRecord {
    DataKeyRecord { kek: kek.into(), seals: 0, ..data_key(scope, id) }
}

fn rotation(kek: &str) -> NewKeyJob {
    NewKeyJob {
        id: format!("job_{kek}"),
        kind: KeyJobKind::Rotate,
        kek: kek.into(),
        scope: String::new(),
        created_by: "builtin:admin".into(),
    }
}

pub async fn a_kek_is_noted_once_and_opens_only(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    assert_eq!(storage.list_keks().await.unwrap(), []);
    storage.note_kek("local:ключ/1").await.unwrap();
    let noted = storage.list_keks().await.unwrap();
    assert_eq!((&*noted[0].kek, noted[0].state), ("local:ключ/1", KekState::DecryptOnly));
    assert_eq!((noted[0].activated_at, noted[0].unused_since, noted[0].retired_at), (None, None, None));
    storage.note_kek("local:ключ/1").await.unwrap();
    assert_eq!(storage.list_keks().await.unwrap(), noted);
}

pub async fn a_kek_becomes_active_where_the_former_one_still_is(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    for kek in ["one", "two"] {
        storage.note_kek(kek).await.unwrap();
    }
    assert!(!storage.activate_kek("one", Some("two")).await.unwrap(), "none is active yet");
    assert!(storage.activate_kek("one", None).await.unwrap());
    assert!(!storage.activate_kek("two", None).await.unwrap(), "one is");
    assert!(storage.activate_kek("two", Some("one")).await.unwrap());
    assert_eq!(state(&storage, "one").await, Some(KekState::DecryptOnly));
    assert_eq!(state(&storage, "two").await, Some(KekState::Active));
    let keks = storage.list_keks().await.unwrap();
    assert!(keks[0].activated_at.is_some() && keks[0].replaced_at.is_some());
    assert!(keks[1].activated_at.is_some() && keks[1].replaced_at.is_none());
    // Backups since the first time need it, those among them that were made while another one was active.
    assert!(storage.activate_kek("one", Some("two")).await.unwrap());
    let again = storage.list_keks().await.unwrap();
    assert_eq!((again[0].activated_at, again[0].replaced_at), (keks[0].activated_at, None));
}

pub async fn of_many_activations_at_once_one_gets_through(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    for number in 0..MANY {
        storage.note_kek(&format!("kek-{number}")).await.unwrap();
    }
    let activated = at_once(MANY, &storage, |number, storage| async move {
        storage.activate_kek(&format!("kek-{number}"), None).await.unwrap()
    })
    .await;
    assert_eq!(activated.iter().filter(|activated| **activated).count(), 1);
    let keks = storage.list_keks().await.unwrap();
    assert_eq!(keks.iter().filter(|kek| kek.state == KekState::Active).count(), 1);
}

pub async fn an_unknown_or_retired_kek_is_not_activated(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    for kek in ["one", "two"] {
        storage.note_kek(kek).await.unwrap();
    }
    assert!(storage.activate_kek("one", None).await.unwrap());
    assert_eq!(storage.retire_kek("two").await.unwrap(), RetireOutcome::Retired);
    assert!(!storage.activate_kek("two", Some("one")).await.unwrap());
    assert!(!storage.activate_kek("unknown", Some("one")).await.unwrap());
    assert_eq!(state(&storage, "one").await, Some(KekState::Active), "nothing changed");
}

pub async fn a_kek_that_something_uses_is_not_retired(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    for kek in ["one", "two"] {
        storage.note_kek(kek).await.unwrap();
    }
    storage.activate_kek("one", None).await.unwrap();
    storage.create_data_key(&key("a", 1, "one")).await.unwrap();
    storage.create_data_key(&key("b", 1, "one")).await.unwrap();
    let used = |active, data_keys, job: Option<&str>| RetireOutcome::InUse {
        active,
        data_keys,
        job: job.map(str::to_owned),
    };
    assert_eq!(storage.retire_kek("one").await.unwrap(), used(true, 2, None));
    storage.create_key_job(&rotation("two")).await.unwrap();
    assert_eq!(storage.retire_kek("two").await.unwrap(), used(false, 0, Some("job_two")));
    storage.activate_kek("two", Some("one")).await.unwrap();
    assert_eq!(storage.retire_kek("one").await.unwrap(), used(false, 2, None));
    assert_eq!(state(&storage, "one").await, Some(KekState::DecryptOnly));
}

pub async fn an_unused_kek_is_retired_and_stays_so(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    assert_eq!(storage.retire_kek("one").await.unwrap(), RetireOutcome::Unknown);
    storage.note_kek("one").await.unwrap();
    assert_eq!(storage.retire_kek("one").await.unwrap(), RetireOutcome::Retired);
    let retired = storage.list_keks().await.unwrap();
    assert!(retired[0].retired_at.is_some());
    assert_eq!(storage.retire_kek("one").await.unwrap(), RetireOutcome::Retired);
    storage.note_kek("one").await.unwrap();
    assert_eq!(storage.list_keks().await.unwrap(), retired, "it stays retired");
}

pub async fn it_is_noted_since_when_a_kek_wraps_nothing(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    for kek in ["active", "idle", "used"] {
        storage.note_kek(kek).await.unwrap();
    }
    storage.create_data_key(&key("a", 1, "used")).await.unwrap();
    storage.activate_kek("active", None).await.unwrap();
    storage.note_unused_keks().await.unwrap();
    let unused = async || -> Vec<_> {
        let keks = storage.list_keks().await.unwrap();
        keks.into_iter()
            .filter(|kek| kek.unused_since.is_some())
            .map(|kek| (kek.kek, kek.unused_since))
            .collect()
    };
    let first = unused().await;
    assert_eq!(first.iter().map(|(kek, _)| &**kek).collect::<Vec<_>>(), ["idle"]);
    storage.note_unused_keks().await.unwrap();
    assert_eq!(unused().await, first, "since when does not change");
    let former = storage.list_data_keys("a").await.unwrap().remove(0);
    let rewrap = Rewrap { former, kek: "active".into(), wrapped: b"new".to_vec() };
    storage.rewrap_data_keys("job", &[rewrap]).await.unwrap();
    storage.note_unused_keks().await.unwrap();
    assert_eq!(unused().await.len(), 2);
}

pub async fn a_data_key_of_another_kek_than_the_active_one_is_refused(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    storage.note_kek("one").await.unwrap();
    storage.activate_kek("one", None).await.unwrap();
    storage.create_data_key(&key("a", 1, "one")).await.unwrap();
    assert_eq!(kind(storage.create_data_key(&key("b", 1, "two")).await), StorageErrorKind::KeyReplaced);
    assert_eq!(
        kind(storage.replace_data_keys(None, &[key("a", 2, "two")], &[]).await),
        StorageErrorKind::KeyReplaced
    );
    assert_eq!(storage.list_data_keys("b").await.unwrap(), []);
    assert_eq!(storage.list_data_keys("a").await.unwrap().len(), 1);
}

pub async fn data_keys_are_rewrapped_where_they_are_as_they_were_read(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    for (scope, id) in [("a", 1), ("a", 2), ("b", 1), ("_installation", 1)] {
        storage.create_data_key(&key(scope, id, "old")).await.unwrap();
    }
    storage.note_kek("new").await.unwrap();
    storage.activate_kek("new", None).await.unwrap();
    let (job, _) = storage.create_key_job(&rotation("new")).await.unwrap();
    assert_eq!(job.total, 4);
    let scopes = ["a", "b", "_installation"].map(str::to_owned);
    let records = storage.list_data_keys_of(&scopes).await.unwrap();
    let order: Vec<_> = records.iter().map(|key| (&*key.scope, key.id)).collect();
    assert_eq!(order, [("_installation", 1), ("a", 1), ("a", 2), ("b", 1)]);
    let mut rewraps: Vec<_> = records
        .iter()
        .map(|former| Rewrap {
            former: former.clone(),
            kek: "new".into(),
            wrapped: [b"\x00new ", former.scope.as_bytes()].concat(),
        })
        .collect();
    rewraps[1].former.wrapped = b"as it was before".to_vec();
    assert_eq!(storage.rewrap_data_keys(&job.id, &rewraps).await.unwrap(), 3);
    let expected = |record: &DataKeyRecord| DataKeyRecord {
        kek: "new".into(),
        wrapped: [b"\x00new ", record.scope.as_bytes()].concat(),
        ..record.clone()
    };
    let now = storage.list_data_keys_of(&scopes).await.unwrap();
    assert_eq!(
        now,
        [expected(&records[0]), records[1].clone(), expected(&records[2]), expected(&records[3])]
    );
    assert_eq!(storage.rewrap_data_keys(&job.id, &rewraps).await.unwrap(), 0, "once for each");
    assert_eq!(storage.get_key_job(&job.id).await.unwrap().unwrap().done, 3);
}

pub async fn data_keys_are_replaced_by_those_that_follow(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    for (scope, id) in [("a", 1), ("a", 2), ("b", 1)] {
        storage.create_data_key(&key(scope, id, "kek")).await.unwrap();
    }
    let new = [key("a", 3, "kek"), key("b", 3, "kek"), key("unknown", 1, "kek")];
    storage.replace_data_keys(None, &new, &[]).await.unwrap();
    let active = async |scope| -> Vec<_> {
        let keys = storage.list_data_keys(scope).await.unwrap();
        keys.into_iter().filter(|key| key.active).map(|key| key.id).collect()
    };
    assert_eq!(
        (active("a").await, active("b").await),
        (vec![3], vec![1]),
        "one that does not follow is left out"
    );
    storage.replace_data_keys(None, &new, &[]).await.unwrap();
    assert_eq!(storage.list_data_keys("a").await.unwrap().len(), 3, "once");
    assert_eq!(storage.replaced_data_keys(Duration::from_hours(1), 0, 10).await.unwrap(), []);
    let replaced = storage.replaced_data_keys(Duration::ZERO, 0, 10).await.unwrap();
    assert_eq!(replaced, [("a".to_owned(), 1), ("a".to_owned(), 2)]);
    assert_eq!(storage.replaced_data_keys(Duration::ZERO, 0, 1).await.unwrap(), replaced[..1]);
    assert_eq!(storage.replaced_data_keys(Duration::ZERO, 1, 10).await.unwrap(), replaced[1..]);
}

pub async fn of_many_replacements_of_a_data_key_at_once_one_gets_through(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    storage.create_data_key(&key("a", 1, "kek")).await.unwrap();
    at_once(MANY, &storage, |number, storage| async move {
        let wrapped = number.to_be_bytes().to_vec();
        storage
            .replace_data_keys(None, &[DataKeyRecord { wrapped, ..key("a", 2, "kek") }], &[])
            .await
            .unwrap();
    })
    .await;
    let keys = storage.list_data_keys("a").await.unwrap();
    assert_eq!(keys.iter().map(|key| (key.id, key.active)).collect::<Vec<_>>(), [(2, true), (1, false)]);
}

pub async fn states_of_data_keys_are_listed_in_pages(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    for (scope, id) in [("b", 1), ("a", 10), ("a", 2), ("_installation", 1)] {
        storage.create_data_key(&data_key(scope, id)).await.unwrap();
    }
    let mut page = PageRequest { size: 1, after: None };
    let mut found = Vec::new();
    loop {
        let answer = storage.list_data_key_states(&page).await.unwrap();
        found.extend(answer.items.into_iter().map(|key| (key.scope, key.id, key.seals, key.created_at)));
        match answer.next {
            Some(next) => page.after = Some(next),
            None => break,
        }
    }
    let expected = [("_installation", 1), ("a", 2), ("a", 10), ("b", 1)];
    assert_eq!(found, expected.map(|(scope, id)| (scope.to_owned(), id, 41, at(5))));
}
