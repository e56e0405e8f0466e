//! The sections and their defaults. `deploy/tokenward.full.toml` shows every option.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokenward_plugin::{Section, duration};
use url::Url;

use crate::process::{Log, Server};
use crate::{Address, InvalidAddress};

/// The sections of further encryption backends, below `[encryption]`.
const FURTHER_ENCRYPTION: [&str; 2] = ["next", "previous"];

/// The whole configuration. Serialized it shows everything but the backends' sections, which may hold secrets.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where data is stored.
    #[serde(skip_serializing)]
    pub storage: Backend,
    /// What encrypts the keys that encrypt tokens and secrets.
    #[serde(skip_serializing)]
    pub encryption: Backend,
    /// The vendors, by name.
    #[serde(skip_serializing)]
    pub providers: BTreeMap<String, Backend>,
    /// Where callers, browsers and monitoring are listened to.
    pub listen: Listen,
    /// How browsers reach the connect flow.
    pub public: Public,
    /// Whose caller tokens are accepted, besides the built-in issuer's.
    pub issuers: Vec<Issuer>,
    /// The built-in issuer of caller tokens.
    pub builtin_issuer: BuiltinIssuer,
    /// How tokens are kept fresh.
    pub broker: Broker,
    /// What is logged, and how.
    pub log: Log,
    /// The process.
    pub server: Server,
}

impl Config {
    /// The storage backend's kind and section.
    pub fn storage(&self) -> (String, Section) {
        let (kind, mut section) = self.storage.section("storage", "storage", "sqlite");
        let names_a_place = ["path", "in_memory"].iter().any(|key| section.values.contains_key(*key));
        if kind == "sqlite" && !names_a_place {
            section.values.insert("path".into(), "tokenward.db".into());
        }
        (kind, section)
    }

    /// Where refreshed tokens wait while the database is away: `broker.journal_dir`, else a folder beside the SQLite file or
    /// in the working directory. `None` for a database in memory, which no restart brings back.
    pub fn journal_dir(&self) -> Option<PathBuf> {
        if let Some(folder) = &self.broker.journal_dir {
            return Some(folder.clone());
        }
        let (kind, section) = self.storage();
        if kind != "sqlite" {
            return Some("tokenward-journal".into());
        }
        if section
            .values
            .get("in_memory")
            .is_some_and(|value| matches!(value, Value::Bool(true)) || value == "true")
        {
            return None;
        }
        let path = PathBuf::from(section.values.get("path")?.as_str()?);
        let mut name = path.file_stem()?.to_owned();
        name.push("-journal");
        Some(path.with_file_name(name))
    }

    /// The encryption backend's kind and section.
    pub fn encryption(&self) -> (String, Section) {
        let (kind, mut section) = self.encryption.section("encryption", "encryption", "local");
        for name in FURTHER_ENCRYPTION {
            section.values.remove(name);
        }
        (kind, section)
    }

    /// The kinds and sections of further encryption backends that are open, `[encryption.next]` and `[encryption.previous]`:
    /// where keys are about to move to, and where they came from.
    pub fn further_encryption(&self) -> Vec<(String, Section)> {
        let further = FURTHER_ENCRYPTION.iter().filter_map(|name| {
            let at = format!("encryption.{name}");
            match self.encryption.0.get(*name)? {
                Value::Object(values) => Some(Backend(values.clone()).section(&at, "encryption", "local")),
                // What is no section has no kind that there is.
                _ => Some((
                    "(not a section)".to_owned(),
                    Section { at, name: (*name).to_owned(), values: Map::new() },
                )),
            }
        });
        further.collect()
    }

    /// The providers' kinds and sections; `hubspot` when none is configured.
    pub fn providers(&self) -> Vec<(String, Section)> {
        if self.providers.is_empty() {
            return vec![Backend::default().section("providers.hubspot", "hubspot", "hubspot")];
        }
        let named = self.providers.iter();
        named.map(|(name, backend)| backend.section(&format!("providers.{name}"), name, name)).collect()
    }

    /// Where browsers reach the connect flow: `public.url`, else the public listener where it is local.
    ///
    /// # Errors
    /// How to mend it.
    pub fn public_url(&self) -> Result<Url, &'static str> {
        if let Some(url) = &self.public.url {
            return crate::urls::browser_url(url);
        }
        match self.listen.public.address() {
            Ok(Address::Tcp(address)) if address.ip().is_loopback() && address.port() != 0 => {
                let scheme = if self.listen.public.cert_file.is_some() { "https" } else { "http" };
                Url::parse(&format!("{scheme}://localhost:{}", address.port())).map_err(|_| "cannot be made")
            }
            _ => Err("is missing: name the address by which browsers reach the public listener, such as \
                      \"https://connect.example.com\""),
        }
    }
}

/// A backend's part: `kind`, and options that only the backend knows.
#[derive(Clone, Default, Deserialize)]
#[serde(transparent)]
pub struct Backend(pub(crate) Map<String, Value>);

impl Backend {
    /// A backend with these options, `kind` included.
    pub fn new(options: Map<String, Value>) -> Self {
        Self(options)
    }

    fn section(&self, at: &str, name: &str, default_kind: &str) -> (String, Section) {
        let mut values = self.0.clone();
        let kind = match values.remove("kind") {
            Some(Value::String(kind)) => kind,
            Some(_) => "(not a text)".to_owned(),
            None => default_kind.to_owned(),
        };
        (kind, Section { at: at.to_owned(), name: name.to_owned(), values })
    }
}

impl fmt::Debug for Backend {
    // Values may be secrets: only the keys are shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// The four listeners.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listen {
    /// gRPC for services.
    pub service: GrpcListener,
    /// gRPC for operators and admins.
    pub admin: GrpcListener,
    /// HTTP for customers' browsers: the connect flow.
    pub public: HttpListener,
    /// HTTP for monitoring: health and metrics.
    pub operations: HttpListener,
}

impl Default for Listen {
    fn default() -> Self {
        let grpc = |address: &str| GrpcListener { address: address.into(), ..GrpcListener::default() };
        let http = |address: &str| HttpListener { address: address.into(), ..HttpListener::default() };
        Self {
            service: grpc("127.0.0.1:7601"),
            admin: grpc("127.0.0.1:7602"),
            public: http("127.0.0.1:7603"),
            operations: http("127.0.0.1:7604"),
        }
    }
}

/// What every listener has.
#[derive(Clone, Copy, Debug)]
pub struct Transport<'a> {
    /// Where it listens.
    pub address: &'a str,
    /// Its certificate chain, PEM.
    pub cert_file: Option<&'a Path>,
    /// Its private key, PEM.
    pub key_file: Option<&'a Path>,
    /// Whether it may go without TLS where others can listen in.
    pub allow_plaintext: bool,
}

macro_rules! listener {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty),* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            /// `IP:port` or `unix:/path`.
            pub address: String,
            /// The certificate chain, PEM; with `key_file` it turns TLS on.
            pub cert_file: Option<PathBuf>,
            /// The private key, PEM.
            pub key_file: Option<PathBuf>,
            /// Whether it may go without TLS on an address that others can reach.
            pub allow_plaintext: bool,
            $($(#[$field_doc])* pub $field: $type,)*
        }

        impl $name {
            /// The parsed address.
            ///
            /// # Errors
            /// Those of [`Address`].
            pub fn address(&self) -> Result<Address, InvalidAddress> {
                self.address.parse()
            }

            /// What every listener has.
            pub fn transport(&self) -> Transport<'_> {
                Transport {
                    address: &self.address,
                    cert_file: self.cert_file.as_deref(),
                    key_file: self.key_file.as_deref(),
                    allow_plaintext: self.allow_plaintext,
                }
            }
        }
    };
}

listener!(
    /// A listener for gRPC.
    GrpcListener {
        /// Whether it tells its API by server reflection; by default where only this machine can ask.
        reflection: Option<bool>
    }
);
listener!(
    /// A listener for HTTP.
    HttpListener {}
);

impl GrpcListener {
    /// Whether reflection is on.
    pub fn reflects(&self) -> bool {
        self.reflection.unwrap_or_else(|| self.address().is_ok_and(|address| address.is_local()))
    }
}

/// How browsers reach the connect flow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Public {
    /// The address that browsers use; by default `http://localhost` with the public listener's port, where that is local.
    pub url: Option<String>,
    /// Where a result page may lead: same origin, and a path below.
    pub return_urls: Vec<String>,
}

/// An issuer of caller tokens. The rules are those of the authenticator, which checks them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Issuer {
    /// What its principals start with.
    pub name: String,
    /// The exact `iss` of its tokens.
    pub iss: String,
    /// What their `aud` must contain.
    pub audience: String,
    /// The accepted algorithms; empty for the usual ones.
    pub algorithms: Vec<String>,
    /// The JWK Set with its keys as a file.
    pub jwks_file: Option<PathBuf>,
    /// The JWK Set with its keys as a URL.
    pub jwks_url: Option<String>,
    /// The claim that names the principal.
    pub principal_claim: String,
    /// The claim that names the role; empty for none.
    pub role_claim: String,
    /// The roles that it may give.
    pub allowed_roles: Vec<String>,
    /// Whether its keys may be fetched from private addresses.
    pub allow_private_addresses: bool,
    /// Certificate authorities that alone are trusted for fetching its keys, PEM.
    pub ca_file: Option<PathBuf>,
}

impl Default for Issuer {
    fn default() -> Self {
        Self {
            name: String::new(),
            iss: String::new(),
            audience: "tokenward".into(),
            algorithms: ["RS256", "ES256", "EdDSA"].map(String::from).into(),
            jwks_file: None,
            jwks_url: None,
            principal_claim: "sub".into(),
            role_claim: "tokenward_role".into(),
            allowed_roles: vec!["service".into()],
            allow_private_addresses: false,
            ca_file: None,
        }
    }
}

/// The built-in issuer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BuiltinIssuer {
    /// Whether its tokens are accepted and issued.
    pub enabled: bool,
    /// The `iss` of its tokens.
    pub iss: String,
    /// Their `aud`.
    pub audience: String,
}

impl Default for BuiltinIssuer {
    fn default() -> Self {
        Self { enabled: true, iss: "tokenward".into(), audience: "tokenward".into() }
    }
}

/// How tokens are kept fresh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Broker {
    /// Whether two tenants may be connected to one account.
    pub allow_shared_accounts: bool,
    /// How long a token must still live when a caller does not say.
    #[serde(with = "duration")]
    pub default_min_ttl: Duration,
    /// A token younger than this is not refreshed for `min_ttl`.
    #[serde(with = "duration")]
    pub min_refresh_age: Duration,
    /// A token with less than this left counts as expired.
    #[serde(with = "duration")]
    pub expired_below: Duration,
    /// The part of its life, in percent, after which a token in use is refreshed.
    pub refresh_ahead_percent: u32,
    /// How long a connect link works when the operator does not say.
    #[serde(with = "duration")]
    pub connect_link_ttl: Duration,
    /// How long a connect link works at the most.
    #[serde(with = "duration")]
    pub connect_link_max_ttl: Duration,
    /// How long a customer may take at the vendor's page.
    #[serde(with = "duration")]
    pub state_ttl: Duration,
    /// How long a refresh lease holds.
    #[serde(with = "duration")]
    pub lease: Duration,
    /// How long tokens in memory are given out while the database is away.
    #[serde(with = "duration")]
    pub max_stale: Duration,
    /// How long after a first grant-dead answer a second one is believed.
    #[serde(with = "duration")]
    pub suspect_confirm_after: Duration,
    /// The first wait after a failed refresh; it doubles.
    #[serde(with = "duration")]
    pub backoff_base: Duration,
    /// The longest wait between failed refreshes.
    #[serde(with = "duration")]
    pub backoff_max: Duration,
    /// How many connections are kept in memory.
    pub max_cached_connections: u64,
    /// How many unwrapped data keys are kept in memory.
    pub max_cached_data_keys: u64,
    /// How long they are, and so served while the encryption backend is away.
    #[serde(with = "duration")]
    pub data_key_ttl: Duration,
    /// How long data keys that were replaced are kept for results that wait in a journal.
    #[serde(with = "duration")]
    pub keep_replaced_data_keys: Duration,
    /// How many stored ciphertexts key jobs seal anew or check a second, at the most; 0 for no limit.
    pub max_key_job_rate: u32,
    /// How often one connection's rejected token is looked into.
    #[serde(with = "duration")]
    pub report_interval: Duration,
    /// Where results wait while the database is away; see [`Config::journal_dir`].
    pub journal_dir: Option<PathBuf>,
    /// How often a connection that nobody asks for is looked at; zero for never.
    #[serde(with = "duration")]
    pub idle_check_interval: Duration,
}

impl Default for Broker {
    fn default() -> Self {
        Self {
            allow_shared_accounts: false,
            default_min_ttl: Duration::from_mins(1),
            min_refresh_age: Duration::from_mins(1),
            expired_below: Duration::from_secs(5),
            refresh_ahead_percent: 75,
            connect_link_ttl: Duration::from_hours(24),
            connect_link_max_ttl: Duration::from_hours(30 * 24),
            state_ttl: Duration::from_mins(10),
            lease: Duration::from_secs(15),
            max_stale: Duration::from_mins(10),
            suspect_confirm_after: Duration::from_mins(1),
            backoff_base: Duration::from_secs(1),
            backoff_max: Duration::from_mins(5),
            max_cached_connections: 200_000,
            max_cached_data_keys: 10_000,
            data_key_ttl: Duration::from_hours(1),
            keep_replaced_data_keys: Duration::from_hours(24),
            max_key_job_rate: 10_000,
            report_interval: Duration::from_secs(10),
            journal_dir: None,
            idle_check_interval: Duration::from_hours(24),
        }
    }
}
