//! The built binary: exit codes, what goes to which stream, and that nothing is half done.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Command, Output};

fn tokenward(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tokenward"));
    command.args(arguments).current_dir(folder).stdin(std::process::Stdio::null());
    for (name, _) in std::env::vars() {
        if name.starts_with("TOKENWARD") {
            command.env_remove(name);
        }
    }
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let folder = folder();
    assert_eq!(tokenward(folder.path(), &["no-such-command"]).status.code(), Some(2));
    let secret = tokenward(folder.path(), &["serve", "--set", "encryption.key=1:hunter2"]);
    assert_eq!(secret.status.code(), Some(2));
}

#[test]
fn a_configuration_with_mistakes_is_exit_code_1_with_all_of_them() {
    let folder = folder();
    std::fs::write(folder.path().join("c.toml"), "[storage]\nkind = \"x\"\n[log]\nlevel = 1\n").unwrap();
    let output = tokenward(folder.path(), &["config", "check", "--config", "c.toml"]);
    assert_eq!(output.status.code(), Some(1));
    let errors = text(&output.stderr);
    for expected in
        ["error: the configuration is not valid", "storage.kind", "log.level", "encryption.key: is missing"]
    {
        assert!(errors.contains(expected), "{expected:?} in:\n{errors}");
    }
    assert_eq!(text(&output.stdout), "");
}

#[test]
fn a_key_is_all_that_a_configuration_needs() {
    let folder = folder();
    let made = tokenward(folder.path(), &["key", "generate", "--file", "tokenward.key"]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    assert_eq!((text(&made.stdout), text(&made.stderr)), ("", ""), "the key goes to the file alone");
    std::fs::write(folder.path().join("c.toml"), "[encryption]\nkey_file = \"tokenward.key\"\n").unwrap();
    let checked = tokenward(folder.path(), &["config", "check", "--config", "c.toml"]);
    assert!(checked.status.success(), "{}", text(&checked.stderr));
    assert_eq!(text(&checked.stdout), "the configuration is valid\n");
    assert!(!folder.path().join("tokenward.db").exists(), "a check opens nothing");
}

#[test]
fn a_migration_is_repeatable_and_the_first_admin_needs_no_server() {
    let folder = folder();
    tokenward(folder.path(), &["key", "generate", "--file", "tokenward.key"]);
    std::fs::write(folder.path().join("c.toml"), "[encryption]\nkey_file = \"tokenward.key\"\n").unwrap();
    let run = |arguments: &[&str]| tokenward(folder.path(), &[arguments, &["--config", "c.toml"]].concat());

    let early = run(&["principal", "bootstrap-admin"]);
    assert_eq!(early.status.code(), Some(1));
    assert!(text(&early.stderr).contains("tokenward migrate"), "{}", text(&early.stderr));
    assert_eq!(text(&early.stdout), "");

    assert_eq!(run(&["migrate", "--check"]).status.code(), Some(1));
    let first = run(&["migrate"]);
    assert!(text(&first.stdout).starts_with("applied: "), "{}", text(&first.stderr));
    assert_eq!(text(&run(&["migrate"]).stdout), "the schema is up to date\n");
    assert!(run(&["migrate", "--check"]).status.success());

    let admin = run(&["principal", "bootstrap-admin", "--subject", "ada"]);
    assert!(admin.status.success(), "{}", text(&admin.stderr));
    let token = text(&admin.stdout).trim();
    assert_eq!(token.split('.').count(), 3, "a JWT and nothing else");
    assert!(!text(&admin.stderr).contains(token));

    let too_long = run(&["principal", "bootstrap-admin", "--ttl", "25h"]);
    assert_eq!(too_long.status.code(), Some(1));
    assert!(text(&too_long.stderr).contains("24 hours"), "{}", text(&too_long.stderr));
}

#[test]
fn a_wrong_key_is_refused_and_named() {
    let folder = folder();
    std::fs::write(folder.path().join("c.toml"), "[encryption]\nkey_file = \"tokenward.key\"\n").unwrap();
    let run = |arguments: &[&str]| tokenward(folder.path(), arguments);
    run(&["key", "generate", "--file", "tokenward.key"]);
    run(&["migrate", "--config", "c.toml"]);
    assert!(run(&["principal", "bootstrap-admin", "--config", "c.toml"]).status.success());
    std::fs::remove_file(folder.path().join("tokenward.key")).unwrap();
    run(&["key", "generate", "--file", "tokenward.key"]);
    let refused = run(&["principal", "bootstrap-admin", "--config", "c.toml"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("local:1"), "{}", text(&refused.stderr));
    assert_eq!(text(&refused.stdout), "");
}

#[test]
fn a_server_that_is_away_is_exit_code_6_with_a_hint() {
    let folder = folder();
    std::fs::write(folder.path().join("token"), "a.b.c\n").unwrap();
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let address = format!("http://{unused}");
    let output = tokenward(folder.path(), &["tenant", "list", "--addr", &address, "--token-file", "token"]);
    assert_eq!(output.status.code(), Some(6), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("hint: "), "{}", text(&output.stderr));
}

#[test]
fn without_a_caller_token_nothing_is_called() {
    let folder = folder();
    let output = tokenward(folder.path(), &["tenant", "list"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("--token-file"));
}

#[test]
fn a_port_that_is_taken_is_named_and_the_database_stays_free() {
    let folder = folder();
    tokenward(folder.path(), &["key", "generate", "--file", "tokenward.key"]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    std::fs::write(
        folder.path().join("c.toml"),
        format!(
            "[encryption]\nkey_file = \"tokenward.key\"\n[listen.admin]\naddress = \"{address}\"\n\
             [listen.service]\naddress = \"127.0.0.1:0\"\n"
        ),
    )
    .unwrap();
    let serve = || tokenward(folder.path(), &["serve", "--config", "c.toml"]);
    for _ in 0..2 {
        let output = serve();
        assert_eq!(output.status.code(), Some(1));
        let errors = text(&output.stderr);
        assert!(errors.contains("listen.admin.address") && errors.contains("in use"), "{errors}");
        assert!(!errors.contains("another server"), "{errors}");
    }
}
