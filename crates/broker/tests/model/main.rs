//! The refresh protocol under every interleaving that chance finds: real brokers on one real database, in front of a vendor
//! that rotates refresh tokens. A gate decides when each step of each broker goes on, so that a run repeats from its seed.
//!
//! `TOKENWARD_MODEL_SEED=N` repeats the run with that seed alone; `TOKENWARD_MODEL_RUNS=N` makes so many of each kind.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test whose helpers fail by panicking too")]

mod gate;
mod outage;
mod run;
mod storage;
mod vendor;
mod world;

use run::{Outcome, search};
use storage::Cheat;
use vendor::Mode;

/// Runs of each mode.
const RUNS: u64 = 100;
/// Within so many runs a broken storage must be found out.
const CONTROL_RUNS: u64 = 300;

fn holds(mode: Mode) {
    let Outcome { runs, lost, unavoidable } = search(mode, Cheat::None, RUNS);
    if let Some(lost) = lost {
        panic!("{mode:?}: a grant was lost\n{lost}");
    }
    assert!(runs > 0, "something was tried");
    assert!(mode == Mode::Strict || unavoidable == 0, "only a strict vendor leaves no way out");
}

fn is_found_out(mode: Mode, cheat: Cheat) {
    let Outcome { runs, lost, .. } = search(mode, cheat, CONTROL_RUNS);
    assert!(lost.is_some(), "{cheat:?} cost no grant in {runs} runs: the search is too weak");
}

#[test]
fn no_grant_is_lost_at_a_vendor_that_lets_siblings_live() {
    holds(Mode::Sibling);
}

#[test]
fn no_grant_is_lost_at_a_vendor_whose_newest_token_ends_its_siblings() {
    holds(Mode::Supersede);
}

#[test]
fn no_grant_is_lost_needlessly_at_a_strict_vendor() {
    holds(Mode::Strict);
}

#[test]
fn without_the_tokens_of_unresolved_attempts_grants_are_lost() {
    is_found_out(Mode::Supersede, Cheat::HideAttempts);
}

#[test]
fn without_spares_grants_are_lost() {
    is_found_out(Mode::Supersede, Cheat::HideSpares);
}

#[test]
fn without_the_check_of_the_epoch_a_new_consent_is_overwritten() {
    is_found_out(Mode::Sibling, Cheat::IgnoreEpoch);
}
