//! Sources, their order, and what is said about mistakes.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::ffi::OsString;
use std::path::PathBuf;

use tokenward_config::{Config, LogFormat, Sources, load};

struct Given {
    folder: tempfile::TempDir,
    sources: Sources,
}

fn given(file: &str, environment: &[(&str, &str)]) -> Given {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenward.toml");
    std::fs::write(&path, file).unwrap();
    let environment = environment.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let sources = Sources { file: Some(path), environment: environment.collect(), overrides: Vec::new() };
    Given { folder, sources }
}

impl Given {
    fn config(&self) -> Config {
        let (config, problems) = load(&self.sources).expect("it can be read");
        assert_eq!(problems.to_string(), "");
        config
    }

    fn problems(&self) -> String {
        match load(&self.sources) {
            Ok((_, problems)) | Err(problems) => problems.to_string(),
        }
    }
}

#[test]
fn without_any_source_everything_has_its_default() {
    let (config, problems) = load(&Sources::default()).unwrap();
    assert!(problems.is_empty(), "{problems}");
    assert_eq!(serde_json::to_value(&config).unwrap(), serde_json::to_value(Config::default()).unwrap());
    assert_eq!(config.storage().0, "sqlite");
    assert_eq!(config.storage().1.values["path"], "tokenward.db");
    assert_eq!(config.encryption().0, "local");
    assert_eq!(config.providers()[0].0, "hubspot");
    assert_eq!(config.public_url().unwrap().as_str(), "http://localhost:7603/");
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let mut given = given(
        "[log]\nfilter = \"file\"\n[broker]\nlease = \"20s\"\n[builtin_issuer]\niss = \"file\"",
        &[("TOKENWARD__LOG__FILTER", "environment"), ("TOKENWARD__BROKER__LEASE", "30s")],
    );
    given.sources.overrides = vec![("log.filter".into(), "flag".into())];
    let config = given.config();
    assert_eq!(config.log.filter, "flag");
    assert_eq!(config.broker.lease.as_secs(), 30);
    assert_eq!(config.builtin_issuer.iss, "file");
}

#[test]
fn the_environment_gives_numbers_switches_lists_and_tables_in_lists() {
    let config = given(
        "",
        &[
            ("TOKENWARD__BROKER__REFRESH_AHEAD_PERCENT", "60"),
            ("TOKENWARD__BROKER__ALLOW_SHARED_ACCOUNTS", "true"),
            ("TOKENWARD__PUBLIC__RETURN_URLS", "https://a.example, https://b.example/x"),
            ("TOKENWARD__LOG__FORMAT", "json"),
            ("TOKENWARD__ISSUERS[0]__NAME", "corp"),
            ("TOKENWARD__ISSUERS[0]__ISS", "https://id.example.com"),
            ("TOKENWARD__ISSUERS[0]__JWKS_URL", "https://id.example.com/jwks"),
            ("TOKENWARD_ADDR", "http://elsewhere"),
        ],
    )
    .config();
    assert_eq!(config.broker.refresh_ahead_percent, 60);
    assert!(config.broker.allow_shared_accounts);
    assert_eq!(config.public.return_urls, ["https://a.example", "https://b.example/x"]);
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.issuers[0].name, "corp");
}

#[test]
fn a_secret_in_the_environment_stays_as_it_is() {
    let config =
        given("", &[("TOKENWARD__ENCRYPTION__KEY", "000123"), ("TOKENWARD__STORAGE__URL", "1e5")]).config();
    assert_eq!(config.encryption().1.values["key"], "000123");
    assert_eq!(config.storage().1.values["url"], "1e5");
}

#[test]
fn every_problem_is_reported_at_once_with_its_option() {
    let problems = given(
        "[listen.service]\naddress = \"0.0.0.0:7601\"\ncert_file = \"absent.pem\"\n\
         [listen.admin]\naddress = \"0.0.0.0:7602\"\nport = 1\n\
         [listen.public]\naddress = \"somewhere\"\n\
         [lgo]\nlevel = 1\n\
         [broker]\nlease = \"soon\"\nrefresh_ahead_percent = 99\nmax_key_job_rate = 999\n\
         [public]\nreturn_urls = [\"http://example.com\"]\n\
         [builtin_issuer]\naudience = \"\"\n\
         [[issuers]]\nname = \"a\"\niss = \"tokenward\"\njwks_url = \"x\"\njwks_file = \"y\"\n\
         [[issuers]]\nname = \"a\"\niss = \"other\"\n",
        &[("TOKENWARD__SERVER__WORKER_THREADS", "many")],
    )
    .problems();
    for expected in [
        "listen.service.cert_file: cannot read absent.pem",
        "listen.service.key_file: is missing",
        "listen.admin: others can reach this address",
        "listen.admin.port: unknown field `port`, expected one of `address`",
        "listen.public.address: must be an IP address and a port",
        "lgo: unknown field `lgo`, expected one of `storage`",
        "broker.lease: must be a duration",
        "broker.refresh_ahead_percent: must be 10 to 95",
        "broker.max_key_job_rate: must be 0, for no limit, or at least 1000",
        "public.url: is missing",
        "public.return_urls[0]: must begin with https://",
        "builtin_issuer.audience: must not be empty",
        "issuers[0].jwks_url: give jwks_file or jwks_url, not both",
        "issuers[0].jwks_file: cannot read y",
        "issuers[0].iss: is the same as builtin_issuer.iss",
        "issuers[1].jwks_url: is missing",
        "issuers[1].name: is the same as issuers[0].name",
        "server.worker_threads: wrong type or value, expected usize",
    ] {
        assert!(problems.contains(expected), "{expected:?} in:\n{problems}");
    }
}

#[test]
fn no_problem_repeats_a_value() {
    let problems = given(
        "[broker]\nlease = \"hunter2\"\nmax_cached_connections = \"hunter2\"\n[log]\nformat = 7\n[server]\nmigrate_on_start = \"hunter2\"",
        &[("TOKENWARD__SERVER__MAX_CONNECTIONS", "hunter2")],
    )
    .problems();
    assert!(problems.lines().count() >= 5 && !problems.contains("hunter2"), "{problems}");
}

#[test]
fn a_file_that_is_not_toml_is_located_without_its_text() {
    let problems = given("[storage]\nurl = hunter2", &[]).problems();
    assert!(problems.contains("tokenward.toml") && problems.contains("line 2"), "{problems}");
    assert!(!problems.contains("hunter2"), "{problems}");
}

#[test]
fn a_file_that_is_absent_is_named() {
    let sources = Sources { file: Some(PathBuf::from("/nowhere/tokenward.toml")), ..Sources::default() };
    let problems = load(&sources).unwrap_err().to_string();
    assert!(problems.contains("cannot read /nowhere/tokenward.toml"), "{problems}");
}

#[cfg(unix)]
#[test]
fn an_environment_variable_that_is_not_text_is_named_without_its_value() {
    use std::os::unix::ffi::OsStringExt;
    let mut given = given("", &[]);
    given.sources.environment =
        vec![("TOKENWARD__LOG__FILTER".into(), OsString::from_vec(b"hunter2\xff".into()))];
    assert_eq!(given.problems(), "TOKENWARD__LOG__FILTER: is not UTF-8 text");
}

#[test]
fn plaintext_is_for_local_addresses_or_by_choice() {
    assert!(
        given("[listen.service]\naddress = \"0.0.0.0:1\"", &[]).problems().contains("allow_plaintext = true")
    );
    given("[listen.service]\naddress = \"0.0.0.0:1\"\nallow_plaintext = true", &[]).config();
    given("[listen.service]\naddress = \"unix:/run/tokenward.sock\"", &[]).config();
}

#[test]
fn two_listeners_cannot_share_an_address() {
    let problems = given("[listen.admin]\naddress = \"127.0.0.1:7601\"", &[]).problems();
    assert!(problems.contains("listen.admin.address: is the same as listen.service.address"), "{problems}");
}

#[test]
fn reflection_is_on_where_only_this_machine_can_ask() {
    let config = given(
        "[listen.service]\naddress = \"0.0.0.0:1\"\nallow_plaintext = true\n\
         [listen.admin]\naddress = \"127.0.0.1:2\"",
        &[],
    )
    .config();
    assert!(!config.listen.service.reflects() && config.listen.admin.reflects());
}

#[test]
fn debug_shows_no_backend_option() {
    let given = given("[encryption]\nkey = \"hunter2\"\n[providers.x]\nsecret = \"hunter2\"", &[]);
    assert!(!format!("{:?}", given.config()).contains("hunter2"));
    assert!(given.folder.path().exists());
}
