use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseResult, TestRunner};
use tokenward_storage::{
    Change, ChangeCursor, ConnectionMark, ConnectionState, MAX_CHANGES, PageRequest, StateChange, Storage,
    StorageErrorKind, Tenant,
};

use super::access::{blocked, issuer_key, rule};
use super::client_secrets::secret;
use crate::storage::samples::{
    at, begin, begun, client, client_id, commit, connected, connection_id, consent, consent_again, current,
    data_key, started, tenant, tenant_id,
};
use crate::storage::tools::{MANY, at_once, furnished, kind, ready, soon};
use crate::storage::{HeldChange, StorageFixture};

/// Longer than any test runs.
const LONG: Duration = Duration::from_hours(1);

/// A reader of the log.
struct Reader {
    storage: Arc<dyn Storage>,
    cursor: ChangeCursor,
}

impl Reader {
    async fn at_the_end(storage: &Arc<dyn Storage>) -> Self {
        Self { cursor: storage.end_of_changes().await.unwrap(), storage: Arc::clone(storage) }
    }

    /// What came since; `None` when that is lost.
    async fn read(&mut self) -> Option<Vec<Change>> {
        let changes = self.storage.read_changes(&self.cursor).await.unwrap();
        self.cursor = changes.next;
        changes.since
    }

    #[track_caller]
    fn sees(&mut self, expected: Vec<Change>) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move { assert_eq!(self.read().await, Some(expected), "at {caller}") }
    }
}

fn of_tenant(id: &str) -> Change {
    Change::Tenant(tenant_id(id))
}

fn of_connection(tenant: &str, connection: &str) -> Change {
    Change::Connection(tenant_id(tenant), connection_id(connection))
}

pub async fn a_new_reader_sees_what_comes_later_and_nothing_else(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let mut reader = Reader::at_the_end(&storage).await;
    reader.sees(vec![]).await;
    storage.create_tenant(&tenant("new")).await.unwrap();
    reader.sees(vec![of_tenant("new")]).await;
    reader.sees(vec![]).await;
}

pub async fn what_is_read_is_read_by_others_too(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    let other = fixture.open().await;
    let (mut one, mut two) = (Reader::at_the_end(&storage).await, Reader::at_the_end(&other).await);
    storage.create_tenant(&tenant("new")).await.unwrap();
    one.sees(vec![of_tenant("new")]).await;
    two.sees(vec![of_tenant("new")]).await;
}

pub async fn every_change_of_a_tenant_is_logged(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    let mut reader = Reader::at_the_end(&storage).await;
    let created = storage.create_tenant(&tenant("a")).await.unwrap();
    storage.update_tenant(&Tenant { display_name: "renamed".into(), ..created }).await.unwrap();
    storage.delete_tenant(&tenant_id("a"), false).await.unwrap();
    reader.sees(vec![of_tenant("a"); 3]).await;
}

pub async fn every_change_of_a_connection_is_logged(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let mut reader = Reader::at_the_end(&storage).await;
    let new = connected(&storage, "a", "one").await;
    reader.sees(vec![of_connection("a", "one")]).await;
    storage.save_consent(&consent_again(&new)).await.unwrap();
    reader.sees(vec![of_connection("a", "one")]).await;
    let seen = current(&storage, &new).await.version;
    let suspect =
        StateChange { seen, state: ConnectionState::Suspect, reason: "refused".into(), now: at(60) };
    storage.change_state(&new.tenant, &new.id, &suspect).await.unwrap();
    reader.sees(vec![of_connection("a", "one")]).await;
    storage.disconnect(&new.tenant, &new.id, None, "bye", at(70)).await.unwrap();
    storage.delete_connection(&new.tenant, &new.id).await.unwrap();
    reader.sees(vec![of_connection("a", "one"); 2]).await;
}

pub async fn every_change_of_a_client_and_its_secrets_is_logged(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    let mut reader = Reader::at_the_end(&storage).await;
    let created = storage.create_oauth_client(&client("client")).await.unwrap();
    storage.update_oauth_client(&created).await.unwrap();
    reader.sees(vec![Change::OAuthClient(client_id("client")); 2]).await;
    for version in [1, 2] {
        storage.add_client_secret(&secret("client", version)).await.unwrap();
    }
    storage.activate_client_secret(&client_id("client"), 2, at(30)).await.unwrap();
    storage.retire_client_secret(&client_id("client"), 1, at(31)).await.unwrap();
    storage.delete_oauth_client(&client_id("client")).await.unwrap();
    reader.sees(vec![Change::OAuthClient(client_id("client")); 5]).await;
}

pub async fn every_change_of_rules_principals_and_issuer_keys_is_logged(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    let mut reader = Reader::at_the_end(&storage).await;
    let created = storage.create_access_rule(&rule("r")).await.unwrap();
    storage.update_access_rule(&created).await.unwrap();
    storage.delete_access_rule(&created.id).await.unwrap();
    reader.sees(vec![Change::AccessRules; 3]).await;
    let blocked = blocked("builtin:mallory");
    storage.block_principal(&blocked).await.unwrap();
    storage.unblock_principal(&blocked.principal).await.unwrap();
    reader.sees(vec![Change::Principals; 2]).await;
    assert!(storage.create_first_issuer_key(&issuer_key("kid")).await.unwrap());
    reader.sees(vec![Change::IssuerKeys]).await;
}

pub async fn every_change_of_keys_is_logged(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    for scope in ["_installation", "a", "b"] {
        storage.create_data_key(&data_key(scope, 1)).await.unwrap();
    }
    let mut reader = Reader::at_the_end(&storage).await;
    let new = ["b", "a", "_installation"].map(|scope| data_key(scope, 2));
    storage.replace_data_keys(None, &new, &[]).await.unwrap();
    reader.sees(vec![Change::DataKeys("_installation".into(), "b".into())]).await;
    storage.replace_data_keys(None, &new, &[]).await.unwrap();
    reader.sees(vec![]).await;
    for kek in ["one", "two"] {
        storage.note_kek(kek).await.unwrap();
    }
    assert!(storage.activate_kek("one", None).await.unwrap());
    assert!(storage.activate_kek("two", Some("one")).await.unwrap());
    reader.sees(vec![Change::Keys]).await;
}

pub async fn a_call_that_changes_nothing_logs_nothing(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let new = connected(&storage, "a", "one").await;
    storage.disconnect(&new.tenant, &new.id, None, "bye", at(70)).await.unwrap();
    storage.block_principal(&blocked("builtin:mallory")).await.unwrap();
    storage.create_first_issuer_key(&issuer_key("kid")).await.unwrap();
    let mut reader = Reader::at_the_end(&storage).await;

    assert_eq!(kind(storage.create_tenant(&tenant("a")).await), StorageErrorKind::AlreadyExists);
    let stale = Tenant { version: 9, ..tenant("a") };
    assert_eq!(kind(storage.update_tenant(&stale).await), StorageErrorKind::Conflict);
    assert_eq!(storage.update_tenant(&tenant("absent")).await.unwrap(), None);
    assert!(!storage.delete_tenant(&tenant_id("absent"), false).await.unwrap());
    storage.disconnect(&new.tenant, &new.id, None, "again", at(71)).await.unwrap();
    assert!(!storage.delete_connection(&new.tenant, &connection_id("absent")).await.unwrap());
    assert!(!storage.delete_access_rule(&rule("absent").id).await.unwrap());
    assert!(!storage.delete_oauth_client(&client_id("absent")).await.unwrap());
    storage.block_principal(&blocked("builtin:mallory")).await.unwrap();
    assert!(!storage.unblock_principal(&blocked("builtin:alice").principal).await.unwrap());
    assert!(!storage.create_first_issuer_key(&issuer_key("other")).await.unwrap());
    reader.sees(vec![]).await;
}

pub async fn leases_and_usual_refreshes_are_not_logged(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let connection = connected(&storage, "a", "one").await;
    let mut reader = Reader::at_the_end(&storage).await;
    let attempt = begun(&storage, &connection).await;
    storage.commit_refresh(&commit(&attempt)).await.unwrap();
    let begin = begin(&current(&storage, &connection).await);
    let attempt = started(&storage, &connection, &begin).await;
    storage.end_attempt(&connection.tenant, &connection.id, attempt.fence, true).await.unwrap();
    reader.sees(vec![]).await;
}

pub async fn a_refresh_that_heals_is_logged(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let connection = connected(&storage, "a", "one").await;
    let suspect = StateChange {
        seen: connection.version,
        state: ConnectionState::Suspect,
        reason: "refused".into(),
        now: at(60),
    };
    storage.change_state(&connection.tenant, &connection.id, &suspect).await.unwrap();
    let attempt = begun(&storage, &connection).await;
    let mut reader = Reader::at_the_end(&storage).await;
    storage.commit_refresh(&commit(&attempt)).await.unwrap();
    reader.sees(vec![of_connection("a", "one")]).await;
}

pub async fn a_change_that_was_rolled_back_never_comes(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    let mut reader = Reader::at_the_end(&storage).await;
    let held = fixture.hold_change("a").await;
    reader.sees(vec![]).await;
    held.end(false).await;
    reader.sees(vec![]).await;
    storage.create_tenant(&tenant("b")).await.unwrap();
    reader.sees(vec![of_tenant("b")]).await;
}

/// What a writer, or the reader, does next.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A transaction begins, logs a change and stays open.
    Open,
    /// One of the open transactions ends.
    End { which: usize, commits: bool },
    /// The reader reads.
    Read,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Open),
        3 => (any::<usize>(), prop::bool::weighted(0.8)).prop_map(|(which, commits)| Step::End { which, commits }),
        2 => Just(Step::Read),
    ]
}

/// A committed change: when its transaction began and ended.
#[derive(Clone, Copy, Debug)]
struct Span {
    began: usize,
    ended: usize,
}

fn check_reading(read: &[String], committed: &BTreeMap<String, Span>) -> TestCaseResult {
    let seen: BTreeSet<_> = read.iter().collect();
    prop_assert_eq!(seen.len(), read.len(), "a change came twice: {:?}", read);
    prop_assert!(seen.into_iter().eq(committed.keys()), "{:?} came, {:?} were committed", read, committed);
    for (place, earlier) in read.iter().enumerate() {
        for later in &read[place + 1..] {
            let swapped = committed[earlier].began > committed[later].ended;
            prop_assert!(!swapped, "{earlier} began after {later} had committed: {committed:?}");
        }
    }
    Ok(())
}

async fn walk(
    fixture: &dyn StorageFixture,
    reader: &mut Reader,
    run: usize,
    steps: &[Step],
) -> TestCaseResult {
    let most = fixture.held_at_once();
    let mut open: Vec<(String, usize, Box<dyn HeldChange>)> = Vec::new();
    let mut committed = BTreeMap::new();
    let end_all = std::iter::repeat_n(Step::End { which: 0, commits: true }, most);
    for (now, step) in steps.iter().copied().chain(end_all).chain([Step::Read, Step::Read]).enumerate() {
        match step {
            Step::Open if open.len() < most => {
                let name = format!("t{run}-{now}");
                let held = fixture.hold_change(&name).await;
                open.push((name, now, held));
            }
            Step::End { which, commits } if !open.is_empty() => {
                let (name, began, held) = open.remove(which % open.len());
                held.end(commits).await;
                if commits {
                    committed.insert(name, Span { began, ended: now });
                }
            }
            Step::Open | Step::End { .. } => {}
            Step::Read => {
                let read = reader.read().await;
                let read =
                    read.ok_or_else(|| TestCaseError::fail("the reader was told that it fell behind"))?;
                let names = read.iter().map(|change| match change {
                    Change::Tenant(tenant) => Ok(tenant.to_string()),
                    other => Err(TestCaseError::fail(format!("{other:?} was never logged"))),
                });
                check_reading(&names.collect::<Result<Vec<_>, _>>()?, &committed)?;
                committed.clear();
            }
        }
    }
    Ok(())
}

pub async fn each_committed_change_comes_once_and_in_the_order_of_commits(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    let mut runner = TestRunner::new(Config { cases: 48, failure_persistence: None, ..Config::default() });
    let run = std::sync::atomic::AtomicUsize::new(0);
    let outcome = runner.run(&prop::collection::vec(step(), 1..24), |steps| {
        let run = run.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                let mut reader = Reader::at_the_end(&storage).await;
                walk(fixture, &mut reader, run, &steps).await
            })
        })
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

pub async fn a_reading_waits_for_no_open_transaction(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    let mut reader = Reader::at_the_end(&storage).await;
    let held = fixture.hold_change("held").await;
    if fixture.held_at_once() > 1 {
        storage.create_tenant(&tenant("quick")).await.unwrap();
        reader.sees(vec![of_tenant("quick")]).await;
    } else {
        reader.sees(vec![]).await;
    }
    held.end(true).await;
    reader.sees(vec![of_tenant("held")]).await;
}

pub async fn of_a_hundred_writers_at_once_a_reader_misses_none(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let mut reader = Reader::at_the_end(&storage).await;
    let writing = {
        let storage = Arc::clone(&storage);
        tokio::spawn(async move {
            at_once(MANY, &storage, |number, storage| async move {
                let name = format!("t{number}");
                storage.create_tenant(&tenant(&name)).await.unwrap();
                storage.save_consent(&consent(&name, &name)).await.unwrap();
            })
            .await;
        })
    };
    let mut seen = Vec::new();
    while !writing.is_finished() {
        seen.extend(reader.read().await.expect("it keeps up"));
        tokio::task::yield_now().await;
    }
    writing.await.unwrap();
    seen.extend(reader.read().await.expect("it keeps up"));
    assert_eq!(seen.len(), 2 * MANY);
    for number in 0..MANY {
        let name = format!("t{number}");
        let place = |change: &Change| seen.iter().position(|seen| seen == change).expect("it comes");
        assert!(place(&of_tenant(&name)) < place(&of_connection(&name, &name)), "{name}");
    }
}

pub async fn more_changes_than_a_reading_holds_are_lost(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    let mut reader = Reader::at_the_end(&storage).await;
    at_once(MAX_CHANGES + 1, &storage, |number, storage| async move {
        storage.create_tenant(&tenant(&format!("t{number}"))).await.unwrap();
    })
    .await;
    assert_eq!(reader.read().await, None);
    reader.sees(vec![]).await;
    storage.create_tenant(&tenant("new")).await.unwrap();
    reader.sees(vec![of_tenant("new")]).await;
}

/// Prunes until the changes that are there are gone: those that are younger than a transaction that is still open on the
/// server, be it another test's, stay for a while.
async fn prune_all(storage: &Arc<dyn Storage>, expected: u64) {
    let mut pruned = 0;
    soon(async || {
        pruned += storage.prune_changes(Duration::ZERO).await.unwrap();
        pruned >= expected
    })
    .await;
    assert_eq!(pruned, expected);
}

pub async fn a_reader_behind_the_pruned_tail_is_told_so(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    let mut late = Reader::at_the_end(&storage).await;
    storage.create_tenant(&tenant("a")).await.unwrap();
    prune_all(&storage, 1).await;
    assert_eq!(late.read().await, None);
    let mut number = 0;
    // It is told again as long as a transaction is open, be it somebody else's, that was so when the tail was pruned.
    soon(async || {
        number += 1;
        let name = format!("t{number}");
        storage.create_tenant(&tenant(&name)).await.unwrap();
        late.read().await == Some(vec![of_tenant(&name)])
    })
    .await;
}

pub async fn pruning_leaves_what_is_young(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    let mut reader = Reader::at_the_end(&storage).await;
    storage.create_tenant(&tenant("a")).await.unwrap();
    assert_eq!(storage.prune_changes(LONG).await.unwrap(), 0);
    reader.sees(vec![of_tenant("a")]).await;
}

pub async fn pruning_does_not_disturb_a_reader_that_has_read(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    let mut reader = Reader::at_the_end(&storage).await;
    let mut number = 0;
    // Repeated for databases that cannot always tell, because somebody else's transaction is open.
    soon(async || {
        number += 1;
        storage.create_tenant(&tenant(&format!("t{number}"))).await.unwrap();
        reader.read().await;
        storage.prune_changes(Duration::ZERO).await.unwrap() > 0 && reader.read().await == Some(vec![])
    })
    .await;
}

pub async fn connection_marks_are_listed_in_pages(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    let mut expected = Vec::new();
    for (tenant, connection) in [("a", "A"), ("a", "b"), ("b", "a"), ("b", "c")] {
        let connection = connected(&storage, tenant, connection).await;
        expected.push(ConnectionMark {
            tenant: connection.tenant,
            connection: connection.id,
            state: connection.state,
            consent_epoch: connection.consent_epoch,
        });
    }
    storage.disconnect(&tenant_id("a"), &connection_id("b"), None, "bye", at(70)).await.unwrap();
    (expected[1].state, expected[1].consent_epoch) = (ConnectionState::Revoked, 2);
    let (mut listed, mut page) = (Vec::new(), PageRequest { size: 3, after: None });
    loop {
        let marks = storage.list_connection_marks(&page).await.unwrap();
        assert!(marks.items.len() <= 3);
        listed.extend(marks.items);
        page.after = marks.next;
        if page.after.is_none() {
            break;
        }
    }
    assert_eq!(listed, expected);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skipped_a_repeated_and_a_swapped_change_are_noticed() {
        let committed = [("a", Span { began: 1, ended: 2 }), ("b", Span { began: 3, ended: 4 })];
        let committed = committed.map(|(name, span)| (name.to_owned(), span)).into();
        let check = |read: &[&str]| {
            let read: Vec<String> = read.iter().map(|name| (*name).to_owned()).collect();
            check_reading(&read, &committed).is_ok()
        };
        assert!(check(&["a", "b"]));
        assert!(!check(&["b"]), "skipped");
        assert!(!check(&["a", "b", "b"]), "repeated");
        assert!(!check(&["b", "a"]), "swapped");
        assert!(!check(&["a", "b", "c"]), "rolled back");
    }
}
