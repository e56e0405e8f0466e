use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokenward_storage::{
    DataKeyRecord, IssuerKey, KekState, KeyJobKind, NewKeyJob, PageRequest, RetireOutcome, Rewrap,
    SealedColumn, SealedField, SealedSwap, Storage, StorageErrorKind,
};
use tokenward_types::Sealed;

use super::client_secrets::secret;
use crate::storage::StorageFixture;
use crate::storage::samples::{
    at, begin, begun, commit, connect_attempt, connected, connection_id, consent, data_key, link, pending,
    tenant_id, with_spare,
};
use crate::storage::tools::{MANY, at_once, furnished, kind};

/// How often a refresh and removals are let loose on one data key.
const ROUNDS: i32 = 40;
/// Removals beside one refresh, so that one of them meets it: a single one comes too late every time.
const REMOVALS: usize = 3;

/// What looks like a ciphertext under a data key, as far as storage can tell.
fn under(data_key: i32, text: &str) -> Sealed {
    Sealed::from([&[1][..], &data_key.to_be_bytes(), b"nonce nonce!", text.as_bytes(), &[7; 16]].concat())
}

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
        kind(storage.replace_data_keys(None, &[key("a", 2, "two")]).await),
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
    storage.replace_data_keys(None, &new).await.unwrap();
    let active = async |scope| -> Vec<_> {
        let keys = storage.list_data_keys(scope).await.unwrap();
        keys.into_iter().filter(|key| key.active).map(|key| key.id).collect()
    };
    assert_eq!(
        (active("a").await, active("b").await),
        (vec![3], vec![1]),
        "one that does not follow is left out"
    );
    storage.replace_data_keys(None, &new).await.unwrap();
    assert_eq!(storage.list_data_keys("a").await.unwrap().len(), 3, "once");
    assert_eq!(storage.replaced_data_keys(Duration::from_hours(1), 10).await.unwrap(), []);
    let replaced = storage.replaced_data_keys(Duration::ZERO, 10).await.unwrap();
    assert_eq!(replaced, [("a".to_owned(), 1), ("a".to_owned(), 2)]);
    assert_eq!(storage.replaced_data_keys(Duration::ZERO, 1).await.unwrap().len(), 1);
}

pub async fn of_many_replacements_of_a_data_key_at_once_one_gets_through(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    storage.create_data_key(&key("a", 1, "kek")).await.unwrap();
    at_once(MANY, &storage, |number, storage| async move {
        let wrapped = number.to_be_bytes().to_vec();
        storage.replace_data_keys(None, &[DataKeyRecord { wrapped, ..key("a", 2, "kek") }]).await.unwrap();
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

/// Something sealed in every column, of tenant `a` and the installation, under data key 1.
async fn everywhere(fixture: &dyn StorageFixture) -> Arc<dyn Storage> {
    let storage = furnished(fixture).await;
    for scope in ["a", "b", "_installation"] {
        storage.create_data_key(&data_key(scope, 1)).await.unwrap();
    }
    let mut seen = consent("a", "c1");
    seen.tokens.access_token = under(1, "access");
    seen.tokens.refresh_token = Some(under(1, "refresh"));
    let seen = storage.save_consent(&seen).await.unwrap();
    begun(&storage, &seen).await;
    let mut gone = consent("a", "c2");
    gone.tokens.refresh_token = Some(under(1, "revoked"));
    let gone = storage.save_consent(&gone).await.unwrap();
    storage.disconnect(&gone.tenant, &gone.id, None, "", at(60)).await.unwrap();
    let spared = connected(&storage, "a", "c3").await;
    with_spare(&storage, &spared).await;
    storage.create_connect_link(&link("a", "link")).await.unwrap();
    let mut attempt = connect_attempt("a", 0xa5);
    attempt.pkce_verifier = Some(under(1, "verifier"));
    storage.start_connect_attempt(&attempt).await.unwrap();
    storage.save_pending_grant(&pending("a", "p1")).await.unwrap();
    let mut client_secret = secret("client", 7);
    client_secret.sealed = under(1, "secret");
    storage.add_client_secret(&client_secret).await.unwrap();
    let issuer_key = IssuerKey {
        kid: "kid".into(),
        sealed: under(1, "private key"),
        public_key: vec![1; 32],
        created_at: at(9),
    };
    storage.create_first_issuer_key(&issuer_key).await.unwrap();
    connected(&storage, "b", "c1").await;
    storage
}

fn names() -> [String; 2] {
    ["a", "_installation"].map(str::to_owned)
}

pub async fn every_sealed_field_is_read_and_swapped(fixture: &dyn StorageFixture) {
    let storage = everywhere(fixture).await;
    let fields = storage.read_sealed(&names()).await.unwrap();
    let columns: BTreeSet<_> = fields.iter().map(|field| format!("{:?}", field.column)).collect();
    assert_eq!(columns, SealedColumn::ALL.iter().map(|column| format!("{column:?}")).collect());
    assert!(fields.iter().all(|field| field.scope != "b"), "another tenant's are left out");
    let of = |column: SealedColumn| {
        let mut found = fields.iter().filter(|field| field.column == column);
        let first = found.next().unwrap();
        (&*first.record, first.number, first.fence)
    };
    assert_eq!(of(SealedColumn::ConnectionAccessToken), ("c1", 0, Some(1)));
    assert_eq!(of(SealedColumn::AttemptRefreshToken), ("c1", 2, Some(1)));
    assert_eq!(of(SealedColumn::RevocationRefreshToken), ("c2", 1, Some(1)));
    assert_eq!(of(SealedColumn::PkceVerifier), (&*"a5".repeat(32), 0, None));
    assert_eq!(of(SealedColumn::ClientSecret), ("client", 7, None));
    assert_eq!(of(SealedColumn::IssuerKey), ("kid", 0, None));
    let before = storage.get_connection(&tenant_id("b"), &connection_id("c1")).await.unwrap();
    let swaps: Vec<_> = fields
        .iter()
        .enumerate()
        .map(|(index, former)| SealedSwap {
            former: former.clone(),
            sealed: under(2, &format!("new {index}")),
        })
        .collect();
    assert_eq!(storage.swap_sealed(&swaps).await.unwrap(), u64::try_from(swaps.len()).unwrap());
    let now = storage.read_sealed(&names()).await.unwrap();
    let expected: Vec<_> =
        swaps.iter().map(|swap| SealedField { sealed: swap.sealed.clone(), ..swap.former.clone() }).collect();
    let sorted = |fields: Vec<SealedField>| {
        let mut texts: Vec<_> =
            fields.iter().map(|field| format!("{field:?} {:?}", field.sealed.as_bytes())).collect();
        texts.sort();
        texts
    };
    assert_eq!(sorted(now), sorted(expected));
    let after = storage.get_connection(&tenant_id("b"), &connection_id("c1")).await.unwrap();
    assert_eq!(after, before, "another tenant's row is as it was");
}

pub async fn sealed_fields_are_counted_by_their_data_keys(fixture: &dyn StorageFixture) {
    let storage = everywhere(fixture).await;
    let one = |scope: &str, fields| (scope.to_owned(), 1, fields);
    let counted = async |scopes: Option<&[String]>| -> Vec<_> {
        let counts = storage.count_sealed(scopes).await.unwrap();
        counts.into_iter().filter(|(_, id, _)| *id == 1).collect()
    };
    // Access and refresh token, the attempt's copy, the queue of revocations, the verifier.
    assert_eq!(counted(Some(&["a".to_owned()])).await, [one("a", 5)]);
    assert_eq!(counted(None).await, [one("_installation", 2), one("a", 5)]);
    assert_eq!(counted(Some(&["unknown".to_owned()])).await, []);
}

pub async fn former_data_keys_are_in_use_until_all_is_sealed_anew(fixture: &dyn StorageFixture) {
    let storage = everywhere(fixture).await;
    for former in storage.read_sealed(&["a", "b", "_installation"].map(str::to_owned)).await.unwrap() {
        storage.swap_sealed(&[SealedSwap { former, sealed: under(1, "first") }]).await.unwrap();
    }
    let (a, b, none) = (["a".to_owned()], ["b".to_owned()], Vec::<(String, i32)>::new());
    let in_use = async |scopes: Option<&[String]>| storage.former_data_keys_in_use(scopes).await.unwrap();
    assert_eq!(in_use(None).await, none, "all is under active ones");
    storage.replace_data_keys(None, &[data_key("a", 2), data_key("_installation", 2)]).await.unwrap();
    let one = |scope: &str| (scope.to_owned(), 1);
    assert_eq!(in_use(None).await, [one("_installation"), one("a")]);
    assert_eq!(in_use(Some(&a)).await, [one("a")]);
    assert_eq!(in_use(Some(&b)).await, none);
    // One field after the other: the last one of a scope counts as much as the first.
    for scope in ["a", "_installation"] {
        for former in storage.read_sealed(&[scope.to_owned()]).await.unwrap() {
            assert!(in_use(None).await.contains(&one(scope)), "{former:?}");
            storage.swap_sealed(&[SealedSwap { former, sealed: under(2, "new") }]).await.unwrap();
        }
    }
    assert_eq!(in_use(None).await, none);
    // A number that needs all eight digits.
    for (id, text) in [(0x7abc_def0, "another"), (3, "nobody's")] {
        let former = storage.read_sealed(&a).await.unwrap().remove(0);
        storage.swap_sealed(&[SealedSwap { former, sealed: under(id, text) }]).await.unwrap();
        assert_eq!(in_use(Some(&a)).await, [("a".to_owned(), id)], "no data key has this number");
    }
    storage.create_data_key(&data_key("a", 0x7abc_def0)).await.unwrap();
    let in_use = in_use(Some(&a)).await;
    assert_eq!(in_use, [("a".to_owned(), 2), ("a".to_owned(), 3)]);
}

pub async fn a_swap_on_a_ciphertext_that_changed_changes_nothing(fixture: &dyn StorageFixture) {
    let storage = everywhere(fixture).await;
    let fields = storage.read_sealed(&names()).await.unwrap();
    let swap = |former: &SealedField, text| SealedSwap { former: former.clone(), sealed: under(2, text) };
    let first: Vec<_> = fields.iter().map(|former| swap(former, "first")).collect();
    storage.swap_sealed(&first).await.unwrap();
    let stored = storage.read_sealed(&names()).await.unwrap();
    let second: Vec<_> = fields.iter().map(|former| swap(former, "second")).collect();
    assert_eq!(storage.swap_sealed(&second).await.unwrap(), 0);
    assert_eq!(storage.read_sealed(&names()).await.unwrap(), stored);
}

pub async fn a_replaced_data_key_that_nothing_needs_is_removed(fixture: &dyn StorageFixture) {
    let storage = everywhere(fixture).await;
    storage.replace_data_keys(None, &[data_key("a", 2)]).await.unwrap();
    storage.replace_data_keys(None, &[data_key("b", 2)]).await.unwrap();
    let keys =
        [("a".to_owned(), 1), ("b".to_owned(), 1), ("_installation".to_owned(), 1), ("a".to_owned(), 2)];
    assert_eq!(storage.remove_data_keys(&keys).await.unwrap(), 1, "rows need one, and others are active");
    assert_eq!(storage.list_data_keys("b").await.unwrap().len(), 1);
    assert_eq!(storage.list_data_keys("a").await.unwrap().len(), 2);
    let fields = storage.read_sealed(&["a".to_owned()]).await.unwrap();
    let swaps: Vec<_> =
        fields.into_iter().map(|former| SealedSwap { former, sealed: under(2, "new") }).collect();
    storage.swap_sealed(&swaps).await.unwrap();
    assert_eq!(storage.remove_data_keys(&keys).await.unwrap(), 1);
    assert_eq!(storage.list_data_keys("a").await.unwrap().len(), 1);
    assert_eq!(storage.list_data_keys("_installation").await.unwrap().len(), 1);
}

pub async fn what_is_sealed_under_a_data_key_that_is_gone_is_refused(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    for scope in ["a", "_installation"] {
        storage.create_data_key(&data_key(scope, 2)).await.unwrap();
    }
    let mut seen = consent("a", "c1");
    seen.tokens.access_token = under(1, "access");
    assert_eq!(kind(storage.save_consent(&seen).await), StorageErrorKind::KeyReplaced);
    seen.tokens.access_token = under(2, "access");
    let seen = storage.save_consent(&seen).await.unwrap();
    let attempt = begun(&storage, &seen).await;
    let mut late = commit(&attempt);
    late.tokens.refresh_token = Some(under(1, "refresh"));
    assert_eq!(kind(storage.commit_refresh(&late).await), StorageErrorKind::KeyReplaced);
    let mut grant = pending("a", "p1");
    grant.access_token = under(1, "access");
    assert_eq!(kind(storage.save_pending_grant(&grant).await), StorageErrorKind::KeyReplaced);
    let mut client_secret = secret("client", 1);
    client_secret.sealed = under(1, "secret");
    assert_eq!(kind(storage.add_client_secret(&client_secret).await), StorageErrorKind::KeyReplaced);
    late.tokens.refresh_token = Some(under(2, "refresh"));
    storage.commit_refresh(&late).await.expect("sealed anew it is taken");
}

pub async fn of_a_removal_and_what_is_stored_at_once_one_wins(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    storage.create_data_key(&data_key("a", 1)).await.unwrap();
    storage.replace_data_keys(None, &[data_key("a", 2)]).await.unwrap();
    let stored = at_once(MANY, &storage, |number, storage| async move {
        if number % 2 == 0 {
            storage.remove_data_keys(&[("a".to_owned(), 1)]).await.unwrap();
            return None;
        }
        let mut seen = consent("a", &format!("c{number}"));
        seen.tokens.access_token = under(1, "access");
        Some(storage.save_consent(&seen).await.map(drop).map_err(|error| error.kind()))
    })
    .await;
    let stored: Vec<_> = stored.into_iter().flatten().collect();
    assert!(
        stored.iter().all(|stored| matches!(stored, Ok(()) | Err(StorageErrorKind::KeyReplaced))),
        "{stored:?}"
    );
    its_data_key_is_there_if_needed(&storage, 1).await;
}

/// A data key is there if and only if something names it.
async fn its_data_key_is_there_if_needed(storage: &Arc<dyn Storage>, id: i32) {
    let is_there = storage.list_data_keys("a").await.unwrap().iter().any(|key| key.id == id);
    let counted = storage.count_sealed(Some(&["a".to_owned()])).await.unwrap();
    assert_eq!(is_there, counted.iter().any(|(_, used, _)| *used == id), "data key {id}: {counted:?}");
}

pub async fn of_a_removal_and_a_refresh_at_once_one_wins(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    storage.create_data_key(&data_key("a", 1)).await.unwrap();
    // One refresh at a time: a second one would keep the data key for the first.
    for former in 1..=ROUNDS {
        storage.replace_data_keys(None, &[data_key("a", former + 1)]).await.unwrap();
        let mut seen = consent("a", &format!("c{former}"));
        seen.tokens.access_token = under(former + 1, "access");
        seen.tokens.refresh_token = Some(under(former + 1, "refresh"));
        let attempt = begun(&storage, &storage.save_consent(&seen).await.unwrap()).await;
        let mut late = commit(&attempt);
        late.tokens.access_token = under(former, "access");
        late.tokens.refresh_token = Some(under(former + 1, "refresh"));
        let late = &late;
        let kinds = at_once(REMOVALS + 1, &storage, |number, storage| {
            let late = late.clone();
            async move {
                if number < REMOVALS {
                    storage.remove_data_keys(&[("a".to_owned(), former)]).await.unwrap();
                    return None;
                }
                storage.commit_refresh(&late).await.err().map(|error| error.kind())
            }
        })
        .await;
        assert!(matches!(kinds[REMOVALS], None | Some(StorageErrorKind::KeyReplaced)), "{kinds:?}");
        its_data_key_is_there_if_needed(&storage, former).await;
    }
}

pub async fn a_copy_for_an_attempt_keeps_its_data_key(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    storage.create_data_key(&data_key("a", 1)).await.unwrap();
    for round in 0..ROUNDS {
        // No other connection may need it: that would keep it for this one.
        let (former, new) = (2 * round + 1, 2 * round + 2);
        storage.replace_data_keys(None, &[data_key("a", former)]).await.unwrap();
        let mut seen = consent("a", &format!("c{round}"));
        seen.tokens.access_token = under(former, "access");
        seen.tokens.refresh_token = Some(under(former, "refresh"));
        let connection = storage.save_consent(&seen).await.unwrap();
        storage.replace_data_keys(None, &[data_key("a", new)]).await.unwrap();
        let fields = storage.read_sealed(&["a".to_owned()]).await.unwrap();
        let its_own = fields.into_iter().filter(|field| connection.id.as_str() == field.record);
        let swaps: Vec<_> = its_own.map(|former| SealedSwap { former, sealed: under(new, "new") }).collect();
        at_once(REMOVALS + 2, &storage, |number, storage| {
            let (connection, swaps) = (connection.clone(), swaps.clone());
            async move {
                let begin = begin(&connection);
                match number {
                    0 => {
                        let fence = storage.begin_attempt(&connection.tenant, &connection.id, &begin).await;
                        assert!(fence.unwrap().is_some());
                    }
                    1 => drop(storage.swap_sealed(&swaps).await.unwrap()),
                    _ => drop(storage.remove_data_keys(&[("a".to_owned(), former)]).await.unwrap()),
                }
            }
        })
        .await;
        storage.remove_data_keys(&[("a".to_owned(), former)]).await.unwrap();
        its_data_key_is_there_if_needed(&storage, former).await;
    }
}
