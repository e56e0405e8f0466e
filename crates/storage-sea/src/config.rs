//! The sections and their rules.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;
use serde::Deserialize;
use tokenward_plugin::{Problems, Section, parse_section, read_secret};

use crate::patience::Patience;

/// The most connections that a pool may have.
const MAX_CONNECTIONS: u32 = 1000;

/// The section of the kind `sqlite`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SqliteConfig {
    /// The database file; it is created when it is missing. Exactly one of `path` and `in_memory` is needed.
    #[serde(default)]
    pub path: Option<PathBuf>,
    /// Keeps everything in memory, and loses it with the process.
    #[serde(default)]
    pub in_memory: bool,
    /// How long a statement waits for another process that holds the file.
    #[serde(default = "five_seconds", with = "tokenward_plugin::duration")]
    pub busy_timeout: Duration,
    /// How many connections read at a time; one more writes.
    #[serde(default = "four")]
    pub max_connections: u32,
}

/// The section of the kinds `postgres` and `mysql`.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerConfig {
    /// `postgres://user:password@host:port/database?sslmode=verify-full`, or
    /// `mysql://user:password@host:port/database?ssl-mode=VERIFY_IDENTITY`. Exactly one of `url` and `url_file` is needed.
    #[serde(default)]
    pub url: Option<SecretString>,
    /// A file that holds the URL.
    #[serde(default)]
    pub url_file: Option<PathBuf>,
    /// How many connections are open at the most.
    #[serde(default = "ten")]
    pub max_connections: u32,
    /// How long a call waits for a free connection, a new one to an absent database included.
    #[serde(default = "five_seconds", with = "tokenward_plugin::duration")]
    pub acquire_timeout: Duration,
    /// How long the start waits for the first connection.
    #[serde(default = "five_seconds", with = "tokenward_plugin::duration")]
    pub connect_timeout: Duration,
    /// How long the database may work on one statement.
    #[serde(default = "ten_seconds", with = "tokenward_plugin::duration")]
    pub statement_timeout: Duration,
    /// The certificate authority of the database, PEM; needs a URL that says to verify by it.
    #[serde(default)]
    pub root_cert_file: Option<PathBuf>,
}

impl fmt::Debug for ServerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerConfig")
            .field("url_file", &self.url_file)
            .field("max_connections", &self.max_connections)
            .field("acquire_timeout", &self.acquire_timeout)
            .field("connect_timeout", &self.connect_timeout)
            .field("statement_timeout", &self.statement_timeout)
            .field("root_cert_file", &self.root_cert_file)
            .finish_non_exhaustive()
    }
}

fn four() -> u32 {
    4
}

fn ten() -> u32 {
    10
}

fn five_seconds() -> Duration {
    Duration::from_secs(5)
}

fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}

fn check_connections(section: &Section, count: u32, problems: &mut Problems) {
    if count == 0 || count > MAX_CONNECTIONS {
        problems.add(section.option("max_connections"), format!("must be 1 to {MAX_CONNECTIONS}"));
    }
}

fn check_timeout(section: &Section, option: &str, timeout: Duration, problems: &mut Problems) {
    if timeout < Duration::from_millis(1) || timeout > Duration::from_hours(1) {
        problems.add(section.option(option), "must be 1 ms to 1 h");
    }
}

impl SqliteConfig {
    /// Reads and checks the section.
    pub(crate) fn read(section: &Section) -> Result<Self, Problems> {
        let config: Self = parse_section(section)?;
        let mut problems = Problems::new();
        let path = section.option("path");
        match (&config.path, config.in_memory) {
            (Some(_), true) => problems.add(path, "give path or in_memory = true, not both"),
            (None, false) => {
                problems.add(path, "is missing: name the database file, or set in_memory = true");
            }
            (Some(file), false) if file.as_os_str().is_empty() => problems.add(path, "must not be empty"),
            _ => {}
        }
        check_connections(section, config.max_connections, &mut problems);
        check_timeout(section, "busy_timeout", config.busy_timeout, &mut problems);
        problems.into_result(config)
    }
}

impl ServerConfig {
    /// How long an answer is waited for: longer than the server may take for it.
    pub(crate) fn patience(&self) -> Patience {
        Patience::of(self.acquire_timeout + self.statement_timeout)
    }

    /// Reads and checks the section, and the files that it names. `target` makes of the URL what a driver connects to.
    pub(crate) fn read<T>(
        section: &Section,
        target: impl FnOnce(&Section, &SecretString) -> Result<T, Problems>,
        with_root_certificate: impl FnOnce(T, &Path) -> Result<T, &'static str>,
    ) -> Result<(Self, T), Problems> {
        let config: Self = parse_section(section)?;
        let mut problems = Problems::new();
        let url = read_secret(section, "url", config.url.clone(), config.url_file.as_ref());
        let mut found = problems.check(url).and_then(|url| problems.check(target(section, &url)));
        if let Some(file) = &config.root_cert_file {
            let at = section.option("root_cert_file");
            if let Err(message) = tokenward_plugin::read_secret_bytes(file) {
                problems.add(&at, message);
            }
            found = found.and_then(|target| {
                let target = with_root_certificate(target, file);
                target.map_err(|message| problems.add(at, message)).ok()
            });
        }
        check_connections(section, config.max_connections, &mut problems);
        check_timeout(section, "acquire_timeout", config.acquire_timeout, &mut problems);
        check_timeout(section, "connect_timeout", config.connect_timeout, &mut problems);
        check_timeout(section, "statement_timeout", config.statement_timeout, &mut problems);
        match found {
            Some(target) => problems.into_result((config, target)),
            None => Err(problems),
        }
    }
}
