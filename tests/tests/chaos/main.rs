//! A minute of the chaos harness on the built binary, and a run that must turn red. `cargo xtask chaos` makes long runs.

#![expect(clippy::unwrap_used, reason = "a test whose helpers fail by panicking too")]

use std::process::Command;

use serde_json::Value;
use tokenward_tests::{binary, parts};

/// The harness's exit code when something is broken that must not be.
const BROKEN: i32 = 1;

/// Runs the harness; `None`, said and noted, where there is no PostgreSQL.
fn run(options: &str) -> Option<(Option<i32>, Value)> {
    parts::postgres_url()?;
    let program = binary().with_file_name("tokenward-chaos");
    let built = "build it with `cargo build -p tokenward-chaos -p tokenward-hubspot-sim -p tokenward-cli`";
    assert!(program.is_file(), "{} is missing: {built}", program.display());
    let output = Command::new(program).arg("--json").args(options.split(' ')).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let report = serde_json::from_slice(&output.stdout);
    let report = report.unwrap_or_else(|error| panic!("no report ({error}), {}:\n{said}", output.status));
    // Shown if the test fails.
    println!("{report:#}\n{said}");
    Some((output.status.code(), report))
}

fn figure(report: &Value, name: &str) -> u64 {
    report[name].as_u64().unwrap_or_else(|| panic!("{name} is {}", report[name]))
}

#[test]
fn a_minute_of_kills_crashes_and_cuts_loses_no_grant_and_fails_no_call() {
    // The vendor takes so long that every server has a refresh under way nearly always: few kills would miss them all.
    let options = "--seconds 60 --replicas 3 --tenants 60 --calls-per-second 60 --callers 8 --seed 20261125 --vendor-ms 600";
    let Some((code, report)) = run(options) else { return };
    assert_eq!((code, &report["broken"]), (Some(0), &serde_json::json!([])), "broken");
    assert_eq!(figure(&report, "grants_lost"), 0);
    // It was no idyll.
    assert!(figure(&report, "kills") >= 8);
    assert!(figure(&report, "kills_with_attempt_in_flight") >= 1);
    assert!(figure(&report, "unknown_outcomes") >= 1);
    assert!(figure(&report, "refreshes") >= 200);
    assert_eq!(figure(&report, "db_crashes"), 1);
    assert!(figure(&report, "suspends") >= 3);
}

#[test]
fn a_grant_that_was_ended_behind_the_servers_backs_turns_a_run_red() {
    let options =
        "--seconds 5 --replicas 1 --tenants 5 --calls-per-second 20 --callers 2 --faults none --sabotage";
    let Some((code, report)) = run(options) else { return };
    assert_eq!(code, Some(BROKEN));
    assert_eq!((figure(&report, "grants_lost"), figure(&report, "dead_at_vendor")), (1, 1));
    let broken: Vec<String> = serde_json::from_value(report["broken"].clone()).unwrap();
    assert!(broken.iter().any(|text| text.contains("grants lost")), "{broken:?}");
}
