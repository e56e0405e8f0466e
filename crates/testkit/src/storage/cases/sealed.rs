//! Sealed fields: where they are, and their data keys' removal beside what is stored under them.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokenward_storage::{
    DataKeyRecord, IssuerKey, SealedColumn, SealedField, SealedSwap, Storage, StorageErrorKind,
};
use tokenward_types::Sealed;

use super::client_secrets::secret;
use crate::storage::StorageFixture;
use crate::storage::samples::{
    at, begin, begun, commit, connect_attempt, connected, connection_id, consent, data_key, link, pending,
    tenant, tenant_id, with_spare,
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
    storage.replace_data_keys(None, &[data_key("a", 2), data_key("_installation", 2)], &[]).await.unwrap();
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

pub async fn fields_are_read_of_those_scopes_alone_that_were_named(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let all: Vec<_> = (0..100).map(|number| format!("t{number:02}")).collect();
    for scope in &all {
        storage.create_tenant(&tenant(scope)).await.unwrap();
        storage.create_data_key(&data_key(scope, 1)).await.unwrap();
        let mut seen = consent(scope, "c1");
        seen.tokens.access_token = under(1, "access");
        storage.save_consent(&seen).await.unwrap();
    }
    // All of a stretch, most of one, the ends of one, in whatever order.
    let every = |step| all[10..90].iter().step_by(step).cloned().collect::<Vec<_>>();
    let mut most = every(1);
    most.retain(|scope| !scope.ends_with('7'));
    most.reverse();
    for mut named in
        [every(1), most, every(79), vec![all[50].clone()], vec!["unknown".to_owned()], Vec::new()]
    {
        let fields = storage.read_sealed(&named).await.unwrap();
        let mut read: Vec<_> = fields.into_iter().map(|field| field.scope).collect();
        read.sort();
        // Of access and refresh token.
        read.dedup();
        named.retain(|scope| all.contains(scope));
        named.sort();
        assert_eq!(read, named);
    }
}

pub async fn data_keys_and_what_they_sealed_are_replaced_at_once(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    for scope in ["a", "b"] {
        storage.create_data_key(&data_key(scope, 1)).await.unwrap();
        let mut seen = consent(scope, "c1");
        seen.tokens.access_token = under(1, "access");
        storage.save_consent(&seen).await.unwrap();
    }
    let read = async || storage.read_sealed(&["a", "b"].map(str::to_owned)).await.unwrap();
    let stored = async || {
        let fields = read().await.into_iter();
        fields.map(|field| (field.scope, field.sealed.as_bytes().to_vec())).collect::<BTreeSet<_>>()
    };
    let fields = read().await;
    let swaps =
        fields.into_iter().map(|former| SealedSwap { former, sealed: under(2, "anew") }).collect::<Vec<_>>();
    let mut expected = stored().await;
    expected.retain(|(scope, _)| scope == "b");
    expected.insert(("a".to_owned(), under(2, "anew").as_bytes().to_vec()));
    let next = [data_key("a", 2), data_key("b", 3)];
    assert_eq!(storage.replace_data_keys(None, &next, &swaps).await.unwrap(), ["a"]);
    assert_eq!(stored().await, expected, "what a data key sealed that does not follow stays");
    storage.replace_data_keys(None, &[data_key("a", 3)], &swaps).await.unwrap();
    assert_eq!(stored().await, expected, "what changed since it was read stays");
    let next = data_key("b", 2);
    storage.note_kek(&next.kek).await.unwrap();
    storage.activate_kek(&next.kek, None).await.unwrap();
    let other = DataKeyRecord { kek: "local:other/1".into(), ..next };
    assert_eq!(kind(storage.replace_data_keys(None, &[other], &swaps).await), StorageErrorKind::KeyReplaced);
    assert_eq!(stored().await, expected, "nothing changes where a data key is refused");
}

pub async fn who_deletes_a_tenant_and_who_replaces_its_data_key_wait_for_one_another(
    fixture: &dyn StorageFixture,
) {
    let storage = furnished(fixture).await;
    for round in 0..ROUNDS {
        let name = format!("t{round}");
        storage.create_tenant(&tenant(&name)).await.unwrap();
        storage.create_data_key(&data_key(&name, 1)).await.unwrap();
        let mut seen = consent(&name, "c1");
        seen.tokens.access_token = under(1, "access");
        storage.save_consent(&seen).await.unwrap();
        let fields = storage.read_sealed(std::slice::from_ref(&name)).await.unwrap();
        let swaps: Vec<_> =
            fields.into_iter().map(|former| SealedSwap { former, sealed: under(2, "anew") }).collect();
        at_once(2, &storage, |number, storage| {
            let (name, swaps) = (name.clone(), swaps.clone());
            async move {
                if number == 0 {
                    assert!(storage.delete_tenant(&tenant_id(&name), true).await.unwrap());
                } else {
                    storage.replace_data_keys(None, &[data_key(&name, 2)], &swaps).await.unwrap();
                }
            }
        })
        .await;
        assert_eq!(storage.list_data_keys(&name).await.unwrap(), []);
    }
}

pub async fn a_replaced_data_key_that_nothing_needs_is_removed(fixture: &dyn StorageFixture) {
    let storage = everywhere(fixture).await;
    storage.replace_data_keys(None, &[data_key("a", 2)], &[]).await.unwrap();
    storage.replace_data_keys(None, &[data_key("b", 2)], &[]).await.unwrap();
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
    storage.replace_data_keys(None, &[data_key("a", 2)], &[]).await.unwrap();
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
        storage.replace_data_keys(None, &[data_key("a", former + 1)], &[]).await.unwrap();
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
        storage.replace_data_keys(None, &[data_key("a", former)], &[]).await.unwrap();
        let mut seen = consent("a", &format!("c{round}"));
        seen.tokens.access_token = under(former, "access");
        seen.tokens.refresh_token = Some(under(former, "refresh"));
        let connection = storage.save_consent(&seen).await.unwrap();
        storage.replace_data_keys(None, &[data_key("a", new)], &[]).await.unwrap();
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
