use serde_json::json;
use tokenward_plugin::parse_section;
use tokenward_storage_sea::{ServerConfig, SqliteConfig, mysql, postgres, sqlite};

use crate::fixtures::{prepare, problems, section};

#[test]
fn an_unknown_key_is_refused() {
    let sqlite = problems(sqlite(), json!({"path": "x.db", "pth": "y.db"})).to_string();
    assert!(sqlite.contains("unknown field `pth`"), "{sqlite}");
    let postgres = problems(postgres(), json!({"url": "postgres://localhost/x", "pool": 3})).to_string();
    assert!(postgres.contains("unknown field `pool`"), "{postgres}");
}

#[test]
fn sqlite_needs_a_path_or_memory_and_not_both() {
    let neither = problems(sqlite(), json!({})).to_string();
    assert!(neither.starts_with("storage.path: is missing"), "{neither}");
    let both = problems(sqlite(), json!({"path": "x.db", "in_memory": true})).to_string();
    assert_eq!(both, "storage.path: give path or in_memory = true, not both");
}

#[test]
fn all_problems_are_told_at_once() {
    let values = json!({"max_connections": 0, "busy_timeout": "2h"});
    let sqlite = problems(sqlite(), values).to_string();
    assert_eq!(sqlite.lines().count(), 3, "{sqlite}");
    let values = json!({
        "url": "mysql://localhost/x",
        "max_connections": 100_000,
        "acquire_timeout": "0s",
        "connect_timeout": "0s",
        "statement_timeout": "0s",
    });
    let postgres = problems(postgres(), values).to_string();
    assert_eq!(postgres.lines().count(), 5, "{postgres}");
}

#[test]
fn a_url_is_given_as_value_or_file() {
    let both = json!({"url": "postgres://localhost/x", "url_file": "/nonexistent"});
    assert!(problems(postgres(), both).to_string().contains("not both"));
    let neither = problems(postgres(), json!({})).to_string();
    assert!(neither.contains("storage.url: is missing: give url or url_file"), "{neither}");
    let absent = problems(postgres(), json!({"url_file": "/nonexistent"})).to_string();
    assert!(absent.starts_with("storage.url_file: cannot read /nonexistent"), "{absent}");
}

#[test]
fn a_wrong_url_is_not_repeated() {
    for url in ["postgres//user:hunter2@host/db", "postgres://user:hunter2@host:port/db", "hunter2"] {
        let told = problems(postgres(), json!({"url": url})).to_string();
        assert!(told.contains("storage.url: must be a URL") && !told.contains("hunter2"), "{told}");
    }
}

#[test]
fn a_root_certificate_needs_a_mode_that_checks_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, "-----BEGIN CERTIFICATE-----\n").unwrap();
    let values = json!({"url": "postgres://localhost/x", "root_cert_file": file});
    let told = problems(postgres(), values).to_string();
    assert!(told.contains("root_cert_file: has no effect unless"), "{told}");
    let url = "postgres://localhost/x?sslmode=verify-full";
    let told = problems(postgres(), json!({"url": url, "root_cert_file": "/nonexistent"})).to_string();
    assert_eq!(told.lines().count(), 1, "{told}");
    assert!(told.contains("cannot read /nonexistent"), "{told}");
}

#[test]
fn a_mysql_url_names_a_database_and_says_nothing_that_the_store_depends_on() {
    let url = "mysql://user:hunter2@host:3306/vault?ssl-mode=VERIFY_IDENTITY";
    prepare(mysql(), json!({"url": url})).expect("it is right");
    for (url, expected) in [
        ("postgres://user:hunter2@host/vault", "must be a URL such as mysql://"),
        ("mysql://user:hunter2@host:port/vault", "must be a URL such as mysql://"),
        ("mysql://user:hunter2@host", "names no database"),
        ("mysql://user:hunter2@host/vault?sslMode=VERIFY_IDENTITY", "has a parameter other than ssl-mode"),
        ("mysql://user:hunter2@host/vault?charset=latin1", "has a parameter other than ssl-mode"),
        ("mysql://user:hunter2@host/vault?ssl-mode=HARD", "must be a URL such as mysql://"),
    ] {
        let told = problems(mysql(), json!({"url": url})).to_string();
        assert!(told.starts_with("storage.url: ") && told.contains(expected), "{told}");
        assert!(!told.contains("hunter2"), "{told}");
    }
}

#[test]
fn a_root_certificate_of_mysql_needs_a_mode_that_checks_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, "-----BEGIN CERTIFICATE-----\n").unwrap();
    for mode in ["", "?ssl-mode=REQUIRED"] {
        let values = json!({"url": format!("mysql://localhost/x{mode}"), "root_cert_file": file});
        let told = problems(mysql(), values).to_string();
        assert!(told.contains("root_cert_file: has no effect unless the URL says ssl-mode"), "{told}");
    }
}

#[test]
fn debug_shows_no_secret() {
    let values = json!({"url": "postgres://user:hunter2@host/db", "max_connections": 7});
    let config: ServerConfig = parse_section(&section(values)).unwrap();
    let shown = format!("{config:?}");
    assert!(!shown.contains("hunter2") && !shown.contains("user"), "{shown}");
    assert!(shown.contains('7'), "the rest is shown: {shown}");
    let config: SqliteConfig = parse_section(&section(json!({"path": "x.db"}))).unwrap();
    assert!(format!("{config:?}").contains("x.db"));
}
