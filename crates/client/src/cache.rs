//! Tokens that were got already, and calls that are under way.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::error::Error;
use crate::request::TokenRequest;
use crate::token::AccessToken;

/// A call that several callers wait for.
type SharedCall = Shared<BoxFuture<'static, Result<AccessToken, Error>>>;
type Calls =
    Arc<Mutex<HashMap<TokenRequest, (u64, WeakShared<BoxFuture<'static, Result<AccessToken, Error>>>)>>>;

/// A token with less life than that counts as expired, as it does for the server.
const EXPIRED_BELOW: Duration = Duration::from_secs(5);

/// How long tokens are served from memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Freshness {
    /// A token with less life than this is not served from memory, unless the request asks for another `min_ttl`.
    pub(crate) margin: Duration,
    /// No token is served from memory for longer than this while the servers can be asked.
    pub(crate) max_age: Duration,
}

#[derive(Clone)]
struct Entry {
    token: AccessToken,
    got_at: Instant,
}

impl Entry {
    fn lives(&self, needed: Duration, now: Instant) -> bool {
        self.token.expires_at().is_none_or(|expiry| expiry.saturating_duration_since(now) > needed)
    }
}

pub(crate) struct TokenCache {
    entries: moka::sync::Cache<TokenRequest, Entry>,
    freshness: Freshness,
    calls: Calls,
    next_call: AtomicU64,
}

impl TokenCache {
    pub(crate) fn new(capacity: u64, freshness: Freshness) -> Self {
        // Entries check their own expiry; idle ones leave so that secrets do not linger.
        let entries =
            moka::sync::Cache::builder().max_capacity(capacity).time_to_idle(Duration::from_hours(1)).build();
        Self { entries, freshness, calls: Calls::default(), next_call: AtomicU64::new(0) }
    }

    /// A token that may be served without asking.
    pub(crate) fn fresh(&self, request: &TokenRequest, now: Instant) -> Option<AccessToken> {
        let entry = self.entries.get(request)?;
        let young = now.duration_since(entry.got_at) < self.freshness.max_age;
        let needed = request.min_ttl.unwrap_or(self.freshness.margin);
        (young && entry.lives(needed, now)).then_some(entry.token)
    }

    /// A token that may be served when no server can be asked: until it expires, unless the request says otherwise.
    pub(crate) fn living(&self, request: &TokenRequest, now: Instant) -> Option<AccessToken> {
        let entry = self.entries.get(request)?;
        entry.lives(request.min_ttl.unwrap_or(EXPIRED_BELOW), now).then_some(entry.token)
    }

    pub(crate) fn insert(&self, request: &TokenRequest, token: AccessToken, got_at: Instant) {
        self.entries.insert(request.clone(), Entry { token, got_at });
    }

    /// Forgets a token under every request that it answered.
    pub(crate) fn forget(&self, token: &AccessToken) {
        for (request, entry) in &self.entries {
            let same = entry.token.connection_id() == token.connection_id()
                && entry.token.fingerprint() == token.fingerprint();
            if same {
                self.entries.invalidate(&*request);
            }
        }
    }

    /// Joins the call for `request` that is under way, or starts one. It lasts as long as somebody waits for it.
    pub(crate) fn join<F>(&self, request: &TokenRequest, start: impl FnOnce() -> F) -> SharedCall
    where
        F: Future<Output = Result<AccessToken, Error>> + Send + 'static,
    {
        let mut calls = self.calls.lock();
        if let Some(call) = calls.get(request).and_then(|(_, call)| call.upgrade()) {
            return call;
        }
        let number = self.next_call.fetch_add(1, Ordering::Relaxed);
        let done = Done { calls: Arc::clone(&self.calls), request: request.clone(), number };
        let work = start();
        let call = async move {
            let _done = done;
            work.await
        }
        .boxed()
        .shared();
        if let Some(weak) = call.downgrade() {
            calls.insert(request.clone(), (number, weak));
        }
        call
    }
}

/// Removes a call from the list when it ends, or when nobody waits for it any more.
struct Done {
    calls: Calls,
    request: TokenRequest,
    number: u64,
}

impl Drop for Done {
    fn drop(&mut self) {
        let mut calls = self.calls.lock();
        if calls.get(&self.request).is_some_and(|(number, _)| *number == self.number) {
            calls.remove(&self.request);
        }
    }
}
