//! Checks of the options that every provider backend has.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use tokenward_plugin::{Problems, Section, read_secret_bytes};
use tokenward_types::{ProviderName, Scopes};
use url::Url;

use crate::answer::MAX_LIFETIME;
use crate::http::{DEFAULT_CONNECT_TIMEOUT, DEFAULT_TIMEOUT, HttpSettings};
use crate::provider::{CallRate, Rotation};

/// The highest rate that can be told from no limit at all.
const MAX_CALLS: u32 = 100_000;
/// A refresh token that dies sooner when it is not used cannot be kept alive by looking after it once in a while.
const MIN_IDLE_LIFETIME: Duration = Duration::from_mins(10);
/// The longest call timeout that makes sense for a token endpoint.
const MAX_TIMEOUT: Duration = Duration::from_mins(1);

/// Serde's default for `connect_timeout`.
pub fn default_connect_timeout() -> Duration {
    DEFAULT_CONNECT_TIMEOUT
}

/// Serde's default for `timeout`.
pub fn default_timeout() -> Duration {
    DEFAULT_TIMEOUT
}

/// The option `rotation`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RotationMode {
    /// A refresh token stays good.
    #[default]
    None,
    /// A new one replaces it, with a period of grace.
    Grace,
    /// A new one replaces it at once.
    Strict,
}

/// The options `connect_timeout`, `timeout`, `allow_http`, `allow_private_addresses` and `ca_file`.
#[derive(Clone, Debug)]
pub struct HttpOptions<'a> {
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long a call may take.
    pub timeout: Duration,
    /// Whether plaintext HTTP is permitted.
    pub allow_http: bool,
    /// Whether private addresses are permitted.
    pub allow_private_addresses: bool,
    /// Certificate authorities to trust beside the system's, in PEM.
    pub ca_file: Option<&'a PathBuf>,
}

/// Checks options of one section and collects what is wrong.
pub struct Checker<'a> {
    section: &'a Section,
    problems: Problems,
}

impl<'a> Checker<'a> {
    /// A checker of `section`.
    pub fn new(section: &'a Section) -> Self {
        Self { section, problems: Problems::new() }
    }

    /// Adds a problem of the option `key`.
    pub fn problem(&mut self, key: &str, message: impl Into<String>) {
        self.problems.add(self.section.option(key), message);
    }

    /// Whether nothing was found so far.
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    /// What was found.
    pub fn into_problems(self) -> Problems {
        self.problems
    }

    /// The provider's name: that of its section.
    pub fn name(&mut self) -> Option<ProviderName> {
        let name = ProviderName::parse(&self.section.name);
        name.map_err(|error| self.problems.add(&self.section.at, error.to_string())).ok()
    }

    /// Timeouts, certificate authorities and permissions.
    pub fn http(&mut self, options: &HttpOptions<'_>) -> HttpSettings {
        if options.timeout.is_zero() || options.timeout > MAX_TIMEOUT {
            self.problem("timeout", "must be more than 0s and at most 60s");
        }
        if options.connect_timeout.is_zero() || options.connect_timeout > options.timeout {
            self.problem("connect_timeout", "must be more than 0s and at most timeout");
        }
        let certificates = options.ca_file.map(|path| self.certificates(path)).unwrap_or_default();
        HttpSettings {
            connect_timeout: options.connect_timeout,
            timeout: options.timeout,
            allow_http: options.allow_http,
            allow_private_addresses: options.allow_private_addresses,
            certificates,
        }
    }

    fn certificates(&mut self, path: &Path) -> Vec<reqwest::Certificate> {
        let read = read_secret_bytes(path).and_then(|pem| {
            let found = reqwest::Certificate::from_pem_bundle(&pem).unwrap_or_default();
            if found.is_empty() {
                Err(format!("{} holds no PEM certificate", path.display()))
            } else {
                Ok(found)
            }
        });
        read.map_err(|message| self.problem("ca_file", message)).unwrap_or_default()
    }

    /// An endpoint that the server calls.
    pub fn endpoint(&mut self, key: &str, text: &str, http: &HttpSettings) -> Option<Url> {
        let url = self.url(key, text)?;
        match http.permits(&url) {
            Ok(()) => Some(url),
            Err(reason) => {
                self.problem(key, reason);
                None
            }
        }
    }

    /// A page that the customer's browser is sent to; where the browser may go is not the server's affair.
    pub fn page(&mut self, key: &str, text: &str, http: &HttpSettings) -> Option<Url> {
        let anywhere = HttpSettings { allow_private_addresses: true, ..http.clone() };
        self.endpoint(key, text, &anywhere)
    }

    fn url(&mut self, key: &str, text: &str) -> Option<Url> {
        let Ok(url) = Url::parse(text) else {
            self.problem(key, "is not a URL such as \"https://vendor.example/oauth/token\"");
            return None;
        };
        if !url.username().is_empty() || url.password().is_some() {
            self.problem(key, "must not hold a user name or password");
            return None;
        }
        if url.fragment().is_some() {
            self.problem(key, "must not have a fragment (#…)");
            return None;
        }
        Some(url)
    }

    /// `rotation` and its `grace_period`.
    pub fn rotation(&mut self, mode: RotationMode, grace_period: Option<Duration>) -> Rotation {
        match (mode, grace_period) {
            (RotationMode::Grace, Some(grace)) if !grace.is_zero() => return Rotation::Grace(grace),
            (RotationMode::Grace, _) => {
                self.problem("grace_period", "is missing: rotation = \"grace\" needs one above 0s");
            }
            (RotationMode::None | RotationMode::Strict, Some(_)) => {
                self.problem("grace_period", "only goes with rotation = \"grace\"");
            }
            (RotationMode::None | RotationMode::Strict, None) => {}
        }
        if mode == RotationMode::Strict { Rotation::Strict } else { Rotation::None }
    }

    /// `calls_per_second` and `call_burst`: 0 for no limit, and for a second's worth.
    pub fn call_rate(&mut self, per_second: u32, burst: u32) -> Option<CallRate> {
        if per_second > MAX_CALLS {
            self.problem("calls_per_second", "must be 0 (no limit) to 100000");
        }
        if burst > MAX_CALLS {
            self.problem("call_burst", "must be 0 (as many as calls_per_second) to 100000");
        }
        if per_second == 0 && burst > 0 {
            self.problem("call_burst", "only goes with calls_per_second");
        }
        let burst = if burst == 0 { per_second } else { burst };
        (per_second > 0).then_some(CallRate { per_second, burst })
    }

    /// `refresh_token_idle_lifetime`.
    pub fn idle_lifetime(&mut self, lifetime: Option<Duration>) -> Option<Duration> {
        if lifetime.is_some_and(|lifetime| lifetime < MIN_IDLE_LIFETIME || lifetime > MAX_LIFETIME) {
            self.problem("refresh_token_idle_lifetime", "must be at least 10m and at most 10 years");
        }
        lifetime
    }

    /// `default_token_lifetime`.
    pub fn token_lifetime(&mut self, lifetime: Duration) -> Duration {
        if lifetime < Duration::from_mins(1) || lifetime > MAX_LIFETIME {
            self.problem("default_token_lifetime", "must be at least 1m and at most 10 years");
        }
        lifetime
    }

    /// A list of scopes.
    pub fn scopes(&mut self, key: &str, list: &[String]) -> Scopes {
        Scopes::new(list).map_err(|error| self.problem(key, error.to_string())).unwrap_or_default()
    }
}
