//! `deploy/tokenward.full.toml` shows every option of every backend of this build.

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use tokenward_config::{Sources, load};
use tokenward_plugin::{Problems, Section};
use tokenward_provider::ProviderContext;
use tokenward_storage::StorageContext;
use tokenward_types::SystemClock;

use crate::builtins;

fn text() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/tokenward.full.toml");
    std::fs::read_to_string(path).expect("the reference configuration is there")
}

/// The options of each `[section]` in the file, commented ones included, by kind.
fn shown(section_prefix: &str, kind: &str) -> BTreeSet<String> {
    let mut found = Vec::new();
    let mut inside = false;
    for line in text().lines() {
        let line = line.strip_prefix('#').unwrap_or(line);
        if line.starts_with('[') {
            inside = line.starts_with(&format!("[{section_prefix}"));
            found.push(BTreeSet::new());
        } else if inside
            && let Some((key, value)) = line.split_once(" = ")
            && !key.contains(' ')
        {
            let options: &mut BTreeSet<String> = found.last_mut().expect("a header came before");
            options.insert(key.to_owned());
            if key == "kind" {
                options.insert(format!("kind:{}", value.split('"').nth(1).unwrap_or_default()));
            }
        }
    }
    let mark = format!("kind:{kind}");
    let mut options =
        found.into_iter().find(|options| options.contains(&mark)).expect("the kind has a section");
    options.retain(|option| !option.starts_with("kind"));
    options
}

/// The options that a backend knows: its answer to an unknown one lists them.
fn known(problems: &Problems) -> BTreeSet<String> {
    let text = problems.to_string();
    let list = text.split(", expected ").nth(1).expect("the message lists the options");
    list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn unknown_option() -> Section {
    let values = Map::from_iter([("no_such_option".to_owned(), Value::Null)]);
    Section { at: "x".into(), name: "x".into(), values }
}

#[test]
fn every_option_of_every_backend_is_shown() {
    for def in builtins::storage().iter() {
        let context = StorageContext { exclusive: false };
        let problems = builtins::storage().prepare(def.kind(), &unknown_option(), &context).err().unwrap();
        assert_eq!(shown("storage", def.kind()), known(&problems), "{}", def.kind());
    }
    for def in builtins::encryption().iter().filter(|def| def.is_compiled_in()) {
        let problems = builtins::encryption().prepare(def.kind(), &unknown_option(), &()).err().unwrap();
        assert_eq!(shown("encryption", def.kind()), known(&problems), "{}", def.kind());
    }
    for def in builtins::providers().iter() {
        let context = ProviderContext { clock: std::sync::Arc::new(SystemClock) };
        let problems = builtins::providers().prepare(def.kind(), &unknown_option(), &context).err().unwrap();
        assert_eq!(shown("providers.", def.kind()), known(&problems), "{}", def.kind());
    }
}

#[tokio::test]
async fn it_is_valid_for_the_backends_too() {
    crate::runtime::install_crypto();
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("tokenward.key");
    crate::commands::write_new_key(&key, &builtins::generate_key(1)).unwrap();
    let file = folder.path().join("full.toml");
    std::fs::write(&file, text()).unwrap();
    let key = (std::ffi::OsString::from("TOKENWARD__ENCRYPTION__KEY_FILE"), key.into_os_string());
    let sources = Sources { file: Some(file), environment: vec![key], ..Sources::default() };
    let (config, problems) = load(&sources).unwrap();
    let checked = crate::local::check(config, problems, crate::local::Access::Shared).await;
    assert!(checked.is_ok(), "{}", checked.err().map(|problems| problems.to_string()).unwrap_or_default());
}

#[test]
fn the_defaults_of_the_broker_are_its_own() {
    let config = tokenward_config::Broker::default();
    let broker = tokenward_broker::Settings::new("http://localhost".parse().unwrap());
    assert_eq!(
        (config.default_min_ttl, config.min_refresh_age, config.expired_below, config.refresh_ahead_percent),
        (broker.default_min_ttl, broker.min_refresh_age, broker.expired_below, broker.refresh_ahead_percent)
    );
    assert_eq!(
        (config.connect_link_ttl, config.connect_link_max_ttl, config.state_ttl, config.lease),
        (broker.connect_link_ttl, broker.connect_link_max_ttl, broker.state_ttl, broker.lease)
    );
    assert_eq!(
        (config.suspect_confirm_after, config.backoff_base, config.backoff_max, config.report_interval),
        (broker.suspect_confirm_after, broker.backoff_base, broker.backoff_max, broker.report_interval)
    );
    assert_eq!(
        (config.allow_shared_accounts, config.max_cached_connections, config.max_cached_data_keys),
        (broker.allow_shared_accounts, broker.max_cached_connections, broker.max_cached_data_keys)
    );
    assert_eq!(
        (config.data_key_ttl, config.keep_replaced_data_keys, config.max_key_job_rate),
        (broker.data_key_ttl, broker.keep_replaced_data_keys, broker.max_key_job_rate)
    );
}
