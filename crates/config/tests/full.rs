//! `deploy/tokenward.full.toml` shows every option with its default.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use serde_json::Value;
use tokenward_config::{Config, Issuer, Sources, load};

fn text() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/tokenward.full.toml");
    std::fs::read_to_string(path).expect("the reference configuration is there")
}

/// Uncomments the options without defaults, all but the other `[storage]` and `[encryption]`.
fn uncommented() -> String {
    let text = text();
    let text = text.split("# ---- Instead of SQLite").next().unwrap();
    let is_option = |line: &str| {
        let name: &str = line.split([' ', ']']).next().unwrap_or_default();
        let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        line.starts_with('[') || (line.contains(" = ") && is_name)
    };
    let lines = text.lines().map(|line| match line.strip_prefix('#') {
        Some(rest) if is_option(rest) => rest,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn options(value: &Value, at: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                options(value, &format!("{at}.{key}"), found);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for item in items {
                options(item, at, found);
            }
        }
        _ => {
            found.insert(at.trim_start_matches('.').to_owned());
        }
    }
}

#[test]
fn it_is_valid_and_its_values_are_the_defaults() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("full.toml");
    std::fs::write(&path, text()).unwrap();
    let (config, problems) = load(&Sources { file: Some(path), ..Sources::default() }).unwrap();
    assert_eq!(problems.to_string(), "");
    assert_eq!(serde_json::to_value(&config).unwrap(), serde_json::to_value(Config::default()).unwrap());
    assert_eq!(config.storage().1.values["path"], Config::default().storage().1.values["path"]);
}

#[test]
fn it_shows_every_option() {
    let shown: Value = toml::from_str(&uncommented()).expect("the examples are TOML too");
    let mut in_file = BTreeSet::new();
    options(&shown, "", &mut in_file);
    in_file
        .retain(|option| !["storage", "encryption", "providers"].iter().any(|part| option.starts_with(part)));
    let config = Config { issuers: vec![Issuer::default()], ..Config::default() };
    let mut in_code = BTreeSet::new();
    options(&serde_json::to_value(config).unwrap(), "", &mut in_code);
    assert_eq!(in_file, in_code);
}

#[test]
fn every_option_has_a_line_that_explains_it() {
    for line in text().lines().filter(|line| line.contains(" = ") && !line.starts_with("# ")) {
        let explained = line.split(" # ").nth(1).is_some_and(|why| why.trim().len() > 10);
        assert!(explained || ["#kind = \"postgres\"", "#kind = \"mysql\""].contains(&line), "{line}");
    }
}
