//! Where an issuer's keys come from, and when they are fetched again.
//!
//! A token with an unknown key asks for a refetch, at most one per [`REFETCH_INTERVAL`]; nobody with a known key waits for it.
//! Keys are kept while their source is away.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use reqwest::{Client, StatusCode, redirect};
use tokenward_types::{Clock, Monotonic};
use tokio::io::AsyncReadExt;
use tokio::sync::{Mutex, OwnedMutexGuard};
use url::Url;

use crate::address::{AddressPolicy, PolicyResolver, names_loopback};
use crate::jwks::KeySet;
use crate::{IssuerConfig, JwksSource};

/// The shortest time between two fetches of one issuer's JWKS URL.
pub const REFETCH_INTERVAL: Duration = Duration::from_secs(30);

/// How often [`Authenticator::refresh_keys`](crate::Authenticator::refresh_keys) should be called: how long a key that its
/// issuer withdrew may still be accepted.
pub const REFRESH_PERIOD: Duration = Duration::from_mins(5);

/// The shortest time between two reads of one issuer's JWKS file, which cost nobody else anything.
const REREAD_INTERVAL: Duration = Duration::from_secs(1);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_BYTES: usize = 256 * 1024;

/// Tokens with unknown keys that may wait for the keys of one issuer at a time: anybody can make such tokens, and they must
/// not take the places of those that can be verified at once.
pub(crate) const MAX_WAITING: usize = 256;

enum Source {
    Fixed,
    File(PathBuf),
    Url { url: Url, client: Client },
}

/// The keys of one issuer.
pub(crate) struct Keys {
    issuer: Arc<str>,
    source: Source,
    current: ArcSwapOption<KeySet>,
    attempts: Arc<Mutex<Attempts>>,
    waiting: AtomicUsize,
    clock: Arc<dyn Clock>,
}

/// A token that waits; leaves when it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct Attempts {
    last: Option<Monotonic>,
    failed: bool,
}

/// How an attempt to have newer keys ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refetched {
    /// The keys are as new as they may be.
    Done,
    /// The source was away the last time that it was asked; the keys known before stay.
    SourceAway,
}

impl Keys {
    /// Keys that never change.
    pub(crate) fn fixed(issuer: Arc<str>, set: KeySet, clock: Arc<dyn Clock>) -> Self {
        Self::new(issuer, Source::Fixed, Some(set), clock)
    }

    /// The keys of a configured issuer. A file is read at once, because it is there or will not be; a URL is not fetched.
    pub(crate) fn configured(
        issuer: Arc<str>,
        config: &IssuerConfig,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, String> {
        match &config.jwks {
            JwksSource::Url(url) => {
                let client = client(url, config)?;
                Ok(Self::new(issuer, Source::Url { url: url.clone(), client }, None, clock))
            }
            JwksSource::File(path) => {
                let unusable = |problem: String| format!("JWKS file {}: {problem}", path.display());
                let file = std::fs::File::open(path).map_err(|error| unusable(error.to_string()))?;
                let mut json = Vec::new();
                std::io::Read::read_to_end(&mut std::io::Read::take(file, MAX_BYTES as u64 + 1), &mut json)
                    .map_err(|error| unusable(error.to_string()))?;
                let set = parse(&json).map_err(unusable)?;
                if set.len() == 0 {
                    return Err(unusable("it has no usable public key".to_owned()));
                }
                Ok(Self::new(issuer, Source::File(path.clone()), Some(set), clock))
            }
        }
    }

    fn new(issuer: Arc<str>, source: Source, set: Option<KeySet>, clock: Arc<dyn Clock>) -> Self {
        let current = ArcSwapOption::from(set.map(Arc::new));
        Self { issuer, source, current, attempts: Arc::default(), waiting: AtomicUsize::new(0), clock }
    }

    /// The keys as they are known, if they ever were.
    pub(crate) fn current(&self) -> Option<Arc<KeySet>> {
        self.current.load_full()
    }

    /// Whether `set` is still what is known.
    pub(crate) fn is_current(&self, set: &Arc<KeySet>) -> bool {
        self.current.load().as_ref().is_some_and(|current| Arc::ptr_eq(current, set))
    }

    /// The same as [`Keys::refetch`] for a token with an unknown key. When too many wait, it is told that the source is away.
    pub(crate) async fn refetch_for_token(self: &Arc<Self>) -> Refetched {
        let waiting = Waiting(&self.waiting);
        if waiting.0.fetch_add(1, Ordering::Relaxed) >= MAX_WAITING {
            return Refetched::SourceAway;
        }
        self.refetch().await
    }

    /// Asks the source for newer keys, unless that was done just now.
    pub(crate) async fn refetch(self: &Arc<Self>) -> Refetched {
        let interval = match self.source {
            Source::Fixed => return Refetched::Done,
            Source::File(_) => REREAD_INTERVAL,
            Source::Url { .. } => REFETCH_INTERVAL,
        };
        let mut attempts = Arc::clone(&self.attempts).lock_owned().await;
        let now = self.clock.monotonic();
        if attempts.last.is_none_or(|last| now.since(last) >= interval) {
            attempts.last = Some(now);
            // A task of its own: a caller who hangs up must not spend the attempt for everybody.
            let attempt = tokio::spawn(Arc::clone(self).attempt(attempts));
            return attempt.await.unwrap_or(Refetched::SourceAway);
        }
        if attempts.failed { Refetched::SourceAway } else { Refetched::Done }
    }

    async fn attempt(self: Arc<Self>, mut attempts: OwnedMutexGuard<Attempts>) -> Refetched {
        let read = match &self.source {
            Source::Fixed => return Refetched::Done,
            Source::File(path) => read(path).await,
            Source::Url { url, client } => fetch(client, url).await,
        };
        let outcome = read.and_then(|json| parse(&json));
        attempts.failed = outcome.is_err();
        match outcome {
            Ok(set) => {
                self.replace(set);
                Refetched::Done
            }
            Err(problem) => {
                let known = self.current().map_or(0, |set| set.len());
                tracing::warn!(issuer = %self.issuer, %problem, known_keys = known, "caller keys could not be read");
                Refetched::SourceAway
            }
        }
    }

    fn replace(&self, set: KeySet) {
        // The same keys stay the same set, so that verdicts that they gave stay too.
        if self.current.load().as_deref() == Some(&set) {
            return;
        }
        let keys = set.len();
        if keys == 0 {
            tracing::warn!(issuer = %self.issuer, "the issuer publishes no usable key: none of its tokens is accepted");
        } else {
            tracing::info!(issuer = %self.issuer, keys, "caller keys changed");
        }
        self.current.store(Some(Arc::new(set)));
    }
}

fn parse(json: &[u8]) -> Result<KeySet, String> {
    if json.len() > MAX_BYTES {
        return Err(format!("the key set is larger than {} KiB", MAX_BYTES / 1024));
    }
    KeySet::parse(json)
}

async fn read(path: &PathBuf) -> Result<Vec<u8>, String> {
    let unreadable = |error: std::io::Error| format!("{}: {error}", path.display());
    let file = tokio::fs::File::open(path).await.map_err(unreadable)?;
    let mut json = Vec::new();
    file.take(MAX_BYTES as u64 + 1).read_to_end(&mut json).await.map_err(unreadable)?;
    Ok(json)
}

fn client(url: &Url, config: &IssuerConfig) -> Result<Client, String> {
    let policy = AddressPolicy::of(url, config.allow_private_addresses);
    let mut builder = Client::builder()
        .user_agent(concat!("tokenward/", env!("CARGO_PKG_VERSION")))
        .no_proxy()
        .redirect(redirect::Policy::none())
        .https_only(!names_loopback(url) && !config.allow_private_addresses)
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(FETCH_TIMEOUT)
        // Fetches are minutes apart: a kept connection would only be stale.
        .pool_max_idle_per_host(0)
        .dns_resolver(PolicyResolver(policy));
    if let Some(path) = &config.ca_file {
        let unusable = |problem: String| format!("ca_file {}: {problem}", path.display());
        let pem = std::fs::read(path).map_err(|error| unusable(error.to_string()))?;
        let certificates =
            reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| unusable(chain(&error)))?;
        if certificates.is_empty() {
            return Err(unusable("it has no PEM certificate".to_owned()));
        }
        builder = builder.tls_certs_only(certificates);
    }
    builder.build().map_err(|error| format!("the HTTP client cannot be made: {}", chain(&error)))
}

async fn fetch(client: &Client, url: &Url) -> Result<Vec<u8>, String> {
    let failed = |error: reqwest::Error| chain(&error.without_url());
    let mut response = client.get(url.clone()).send().await.map_err(failed)?;
    if response.status() != StatusCode::OK {
        return Err(format!("the JWKS URL answered {}", response.status()));
    }
    let mut json = Vec::new();
    // One chunk above the limit is enough to refuse it.
    while json.len() <= MAX_BYTES
        && let Some(chunk) = response.chunk().await.map_err(failed)?
    {
        json.extend_from_slice(&chunk);
    }
    Ok(json)
}

/// An error with its causes: the outermost text of an HTTP error says little.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}
