//! The journal, step by step: what is in it when, and who takes it up.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use tokenward_broker::Broker;
use tokenward_journal::Journal;
use tokenward_storage::ConnectionState;

use crate::gate::Pass;
use crate::storage::Cheat;
use crate::vendor::{Mode, Vendor};
use crate::world::{Stage, World};

/// Runs a scene on a thread of its own kind: one task at a time.
fn on_stage(mode: Mode, scene: impl AsyncFnOnce(&mut World<'_>)) {
    let stage = Stage::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut world = World::new(&stage, Vendor::new(mode), Cheat::None, 1).await;
        scene(&mut world).await;
    });
}

/// Lets everything go on until somebody comes to this step, which is left waiting.
async fn until(world: &World<'_>, step: &str) {
    let somebody_comes = tokio::time::timeout(Duration::from_mins(1), go_on_until(world, step));
    somebody_comes.await.expect("somebody comes to the step");
}

async fn go_on_until(world: &World<'_>, step: &str) {
    loop {
        world.gate.quiet().await;
        let parked = world.gate.parked();
        if parked.iter().any(|(_, name)| *name == step) {
            return;
        }
        match parked.iter().position(|(_, name)| *name != "wait") {
            Some(other) => world.gate.release(other, Pass::Go),
            // A journal on a disk writes on another thread.
            None => tokio::task::yield_now().await,
        }
    }
}

async fn release(world: &World<'_>, step: &str, pass: Pass) {
    let parked = world.gate.parked();
    let index = parked.iter().position(|(_, name)| *name == step).expect("somebody waits there");
    world.gate.release(index, pass);
    world.gate.quiet().await;
}

/// The first broker has an answer, and the database goes away for it before it can be stored.
async fn answered_in_an_outage(world: &mut World<'_>) {
    world.ask(0);
    until(world, "commit").await;
    world.cut(0, true);
    release(world, "commit", Pass::Away).await;
}

fn broker<'a>(world: &'a World<'_>, node: usize) -> &'a Broker {
    world.nodes[node].broker.as_ref().expect("it runs")
}

async fn stored_token_lives(world: &World<'_>) -> bool {
    let row = world.row().expect("the connection is there");
    let token = world.stored_token(&row).await.expect("it has a token");
    world.vendor.lives(&token)
}

#[test]
fn an_answer_that_the_database_cannot_take_is_stored_by_the_next_process() {
    on_stage(Mode::Strict, async |world| {
        answered_in_an_outage(world).await;
        assert_eq!(world.nodes[0].journal.files().len(), 1);
        assert!(!stored_token_lives(world).await);
        world.crash(0);
        world.restart(0).await;
        assert!(world.nodes[0].journal.files().is_empty(), "it is stored, so it goes");
        assert!(stored_token_lives(world).await);
        assert_eq!(broker(world, 0).metrics().journal_replays.get(), 1);
        assert_eq!(world.row().expect("it is there").lease, None);
    });
}

/// The first broker's answer is in its journal, and goes from there when the commit is let through.
async fn journaled_until_committed(world: &World<'_>) {
    assert_eq!(world.nodes[0].journal.files().len(), 1);
    assert!(!stored_token_lives(world).await);
    release(world, "commit", Pass::Go).await;
    assert!(stored_token_lives(world).await);
    assert!(world.nodes[0].journal.files().is_empty());
}

#[test]
fn an_answer_that_nothing_could_bring_back_is_journaled_before_it_is_committed() {
    on_stage(Mode::Strict, async |world| {
        world.ask(0);
        until(world, "commit").await;
        journaled_until_committed(world).await;
    });
}

#[test]
fn an_answer_whose_spent_token_still_answers_is_journaled_when_the_database_is_slow() {
    on_stage(Mode::Supersede, async |world| {
        world.ask(0);
        until(world, "commit").await;
        assert!(world.nodes[0].journal.files().is_empty());
        release(world, "wait", Pass::Go).await;
        journaled_until_committed(world).await;
    });
}

#[test]
fn a_process_that_ends_in_an_outage_names_what_is_in_its_journal() {
    on_stage(Mode::Strict, async |world| {
        answered_in_an_outage(world).await;
        let left = broker(world, 0).shutdown(std::time::Duration::ZERO).await;
        assert_eq!((left.unsaved.len(), left.journaled.as_slice()), (0, &["tenant-1/con_1".to_owned()][..]));
        assert!(left.journal.is_some());
    });
}

#[test]
fn a_process_that_died_leaves_no_lease_for_its_successor_to_wait_for() {
    on_stage(Mode::Supersede, async |world| {
        world.ask(0);
        until(world, "reply").await;
        world.crash(0);
        assert!(world.row().expect("it is there").lease.is_some());
        world.restart(0).await;
        assert_eq!(world.row().expect("it is there").lease, None);
        assert_eq!(broker(world, 0).metrics().refresh_takeovers.get(), 1);
        world.gate.open();
        world.resolve(0);
        world.gate.quiet().await;
        assert!(stored_token_lives(world).await, "the unknown outcome is resolved at once");
    });
}

#[test]
fn a_database_that_was_put_back_makes_suspects_that_are_asked_about_first() {
    on_stage(Mode::Strict, async |world| {
        world.crash(0);
        let journal = Journal::in_memory(&world.nodes[0].journal, "former");
        journal.set_mark(i64::MAX / 2).unwrap();
        drop(journal);
        world.restart(0).await;
        let row = world.row().expect("it is there");
        assert_eq!((row.state, &*row.state_reason), (ConnectionState::Suspect, "database_restored"));
        world.ask(0);
        until(world, "introspect").await;
        world.gate.open();
        world.gate.quiet().await;
        let row = world.row().expect("it is there");
        assert_eq!(row.state, ConnectionState::Active, "it lives, so it is trusted again");
        assert!(stored_token_lives(world).await);
    });
}

#[test]
fn a_spent_token_of_a_database_that_was_put_back_is_never_used() {
    on_stage(Mode::Strict, async |world| {
        let row = world.row().expect("it is there");
        let spent = world.stored_token(&row).await.expect("it has a token");
        world.vendor.spend(&spent).expect("it lives");
        world.crash(0);
        let journal = Journal::in_memory(&world.nodes[0].journal, "former");
        journal.set_mark(i64::MAX / 2).unwrap();
        drop(journal);
        world.restart(0).await;
        world.gate.open();
        world.ask(0);
        world.gate.quiet().await;
        assert!(!world.vendor.saw_reuse());
        let row = world.row().expect("it is there");
        assert_eq!(row.state, ConnectionState::Suspect);
        assert_ne!(row.state_reason, "database_restored", "now the vendor has said so");
    });
}

/// The file of a slot that is not free, the entry's name, and the entry.
fn entry(folder: &tempfile::TempDir) -> Option<(PathBuf, String, Vec<u8>)> {
    let files = fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().path());
    let mut held = files.map(|path| (fs::read(&path).unwrap(), path));
    let (bytes, path) = held.find(|(bytes, _)| bytes.starts_with(b"TWJ1"))?;
    let name = 10 + usize::from(bytes[4]);
    let length = usize::from(u16::from_le_bytes([bytes[6], bytes[7]]));
    Some((path, String::from_utf8_lossy(&bytes[10..name]).into(), bytes[name..name + length].to_vec()))
}

#[test]
fn entries_that_cannot_be_read_are_refused_by_name_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    for place in [&folder, &elsewhere] {
        on_stage(Mode::Strict, async |world| {
            world.crash(0);
            let journal = Journal::open(place.path(), "first").unwrap();
            world.restart_with(0, journal).await;
            world.ask(0);
            until(world, "commit").await;
            world.cut(0, true);
            release(world, "commit", Pass::Away).await;
            world.crash(0);
        });
    }
    let (slot, _, good) = entry(&folder).expect("it was written");
    let mut altered = good.clone();
    altered[40] ^= 1;
    let path = |name: &str| folder.path().join(name);
    fs::remove_file(slot).unwrap();
    fs::write(path("truncated.entry"), &good[..good.len() / 2]).unwrap();
    fs::write(path("altered.entry"), &altered).unwrap();
    fs::write(path("renamed.entry"), &good).unwrap();
    fs::write(path("empty.entry"), b"").unwrap();
    fs::write(path("long.entry"), vec![1; tokenward_journal::MAX_ENTRY + 1]).unwrap();
    let (_, name, foreign) = entry(&elsewhere).expect("it was written");
    fs::write(path(&format!("{name}.entry")), foreign).unwrap();
    on_stage(Mode::Strict, async |world| {
        let before = world.row().expect("it is there");
        world.crash(0);
        let journal = Journal::open(folder.path(), "second").unwrap();
        world.restart_with(0, journal).await;
        assert_eq!(broker(world, 0).metrics().journal_refused.get(), 6);
        assert_eq!(broker(world, 0).metrics().journal_replays.get(), 0);
        let after = world.row().expect("it is there");
        assert_eq!(after.tokens, before.tokens);
    });
    let refused = fs::read_dir(folder.path())
        .unwrap()
        .filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|kind| kind == "refused"));
    assert_eq!(refused.count(), 6, "nothing is deleted");
    assert!(entry(&folder).is_none());
}
