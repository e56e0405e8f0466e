//! How a client is set up.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;

use crate::address::{Addresses, Transport};
use crate::cache::{Freshness, TokenCache};
use crate::caller_token::{CallerToken, CallerTokenSource};
use crate::client::{Limits, Outage, Shared, TokenClient};
use crate::connect::{Lookup, system_lookup};
use crate::retry::Backoff;
use crate::time::{RuntimeTime, Time};

/// A client that cannot be set up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// No address was given.
    #[error("no address of a Tokenward server was given")]
    NoAddress,
    /// An address cannot be used.
    #[error("address {address}: {problem}")]
    Address {
        /// The address.
        address: String,
        /// What is wrong with it.
        problem: String,
    },
    /// No caller token was given, or it cannot be used. The message does not show it.
    #[error("caller token: {0}")]
    CallerToken(String),
    /// The file of the certificate authority cannot be read.
    #[error("CA file {path}: {problem}")]
    CaFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

/// Sets up a [`TokenClient`].
pub struct TokenClientBuilder {
    addresses: Vec<String>,
    caller: Option<CallerTokenSource>,
    ca_file: Option<PathBuf>,
    server_name: Option<String>,
    allow_plaintext: bool,
    connect_timeout: Duration,
    limits: Limits,
    freshness: Freshness,
    capacity: u64,
    time: Arc<dyn Time>,
    lookup: Lookup,
}

impl Default for TokenClientBuilder {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            caller: None,
            ca_file: None,
            server_name: None,
            allow_plaintext: false,
            connect_timeout: Duration::from_secs(2),
            limits: Limits {
                timeout: Duration::from_secs(20),
                attempt_timeout: Duration::from_secs(12),
                rounds: 4,
                backoff: Backoff { base: Duration::from_millis(100), max: Duration::from_secs(5) },
            },
            freshness: Freshness { margin: Duration::from_mins(1), max_age: Duration::from_mins(5) },
            capacity: 10_000,
            time: Arc::new(RuntimeTime),
            lookup: system_lookup(),
        }
    }
}

impl TokenClientBuilder {
    /// Adds a server: `https://host:port`, `unix:///path`, or `http://` on loopback. A name stands for all addresses behind it.
    #[must_use]
    pub fn address(mut self, address: impl Into<String>) -> Self {
        self.addresses.push(address.into());
        self
    }

    /// Adds several servers.
    #[must_use]
    pub fn addresses<S: Into<String>>(mut self, addresses: impl IntoIterator<Item = S>) -> Self {
        self.addresses.extend(addresses.into_iter().map(Into::into));
        self
    }

    /// Authenticates with a token that does not change.
    #[must_use]
    pub fn caller_token(mut self, token: SecretString) -> Self {
        self.caller = Some(CallerTokenSource::Fixed(token));
        self
    }

    /// Authenticates with the token in a file, such as a projected service-account token. It is read again when it
    /// changes, which is looked for every two seconds at the most, and when the server does not accept the token.
    #[must_use]
    pub fn caller_token_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.caller = Some(CallerTokenSource::File(path.into()));
        self
    }

    /// Trusts the certificates (PEM) in this file, instead of the system's.
    #[must_use]
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(path.into());
        self
    }

    /// The name that the servers' certificates carry, where it is not the address's.
    #[must_use]
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// Allows `http://` to other hosts. Whoever can see the network then sees every token: only for networks that
    /// encrypt by themselves.
    #[must_use]
    pub fn allow_plaintext(mut self, allow: bool) -> Self {
        self.allow_plaintext = allow;
        self
    }

    /// How long connecting may take. Default 2 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long a call may take, with all its tries. Default 20 s.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.limits.timeout = timeout;
        self
    }

    /// How long one try may take. Default 12 s, a little more than the server gives a provider. Where there are several servers,
    /// each gets its part of what is left of [`TokenClientBuilder::timeout`] at the most.
    #[must_use]
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.limits.attempt_timeout = timeout;
        self
    }

    /// How often all servers are tried, at least once. Default 4.
    #[must_use]
    pub fn max_tries(mut self, tries: u32) -> Self {
        self.limits.rounds = tries.max(1);
        self
    }

    /// How many tokens are kept in memory. Default 10,000; 0 keeps none.
    #[must_use]
    pub fn cache_capacity(mut self, tokens: u64) -> Self {
        self.capacity = tokens;
        self
    }

    /// A token with less life than this is not served from memory while a server can be asked, unless a request has its own
    /// `min_ttl`. Default 60 s.
    #[must_use]
    pub fn expiry_margin(mut self, margin: Duration) -> Self {
        self.freshness.margin = margin;
        self
    }

    /// How long a token is served from memory at the most while a server can be asked. Default 5 min. This bounds how
    /// long a suspension or a narrowed access rule goes unnoticed here.
    #[must_use]
    pub fn max_cache_age(mut self, age: Duration) -> Self {
        self.freshness.max_age = age;
        self
    }

    #[cfg(test)]
    pub(crate) fn time(mut self, time: Arc<dyn Time>) -> Self {
        self.time = time;
        self
    }

    #[cfg(test)]
    pub(crate) fn lookup(mut self, lookup: Lookup) -> Self {
        self.lookup = lookup;
        self
    }

    /// Makes the client. Reads the files; connects when the first token is asked for.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`BuildError`] says what is missing or cannot be used.
    pub async fn build(self) -> Result<TokenClient, BuildError> {
        let ca_pem = match self.ca_file {
            Some(path) => Some(
                tokio::fs::read(&path)
                    .await
                    .map_err(|error| BuildError::CaFile { path, problem: error.to_string() })?,
            ),
            None => None,
        };
        let transport = Transport {
            ca_pem,
            server_name: self.server_name,
            connect_timeout: self.connect_timeout,
            allow_plaintext: self.allow_plaintext,
            lookup: self.lookup,
        };
        let addresses = Addresses::new(&self.addresses, &transport, self.time.jitter())?;
        let source = self.caller.ok_or_else(|| BuildError::CallerToken("none was given".to_owned()))?;
        let caller = CallerToken::new(source, &*self.time).await.map_err(BuildError::CallerToken)?;
        let cache = TokenCache::new(self.capacity, self.freshness);
        Ok(TokenClient::from_shared(Shared {
            addresses,
            caller,
            cache,
            limits: self.limits,
            outage: Outage::default(),
            time: self.time,
        }))
    }
}

impl fmt::Debug for TokenClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenClientBuilder").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}
