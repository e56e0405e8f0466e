//! The program, before it has started anything.

#![expect(clippy::unwrap_used, reason = "a test whose helpers fail by panicking too")]

use std::process::{Command, Output};

fn chaos(options: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tokenward-chaos")).args(options.split(' ')).output().unwrap()
}

#[test]
fn a_run_that_cannot_be_made_is_told_from_one_that_broke_something() {
    let several_on_a_file = chaos("--store sqlite --replicas 3");
    assert_eq!(several_on_a_file.status.code(), Some(2));
    assert!(several_on_a_file.stdout.is_empty());
    let said = String::from_utf8(several_on_a_file.stderr).unwrap();
    assert!(said.contains("--replicas 1"), "{said}");

    let nowhere = chaos("--seed 7 --programs /nonexistent");
    assert_eq!(nowhere.status.code(), Some(2));
    let said = String::from_utf8(nowhere.stderr).unwrap();
    assert!(said.contains("seed 7") && said.contains("cannot start hubspot-sim"), "{said}");
}
