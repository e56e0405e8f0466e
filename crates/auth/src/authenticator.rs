//! Every issuer together, and the cache of verdicts.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use moka::Expiry;
use moka::sync::Cache;
use tokenward_types::{Clock, Principal};

use crate::builtin::BuiltinIssuerKeys;
use crate::error::Foreign;
use crate::source::{Keys, Refetched};
use crate::verify::{Issuer, MAX_TOKEN_BYTES, Token, Verified};
use crate::{AuthError, AuthErrorReason, Caller, IssuerConfig, SetupError};

/// Sizes of the authenticator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthSettings {
    /// The most verified tokens to remember.
    pub cache_capacity: u64,
}

impl Default for AuthSettings {
    fn default() -> Self {
        Self { cache_capacity: 100_000 }
    }
}

/// The SHA-256 of a token: the cache keeps no token.
type TokenHash = [u8; 32];

fn hash(bearer: &str) -> TokenHash {
    let mut hash = [0; 32];
    hash.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bearer.as_bytes()).as_ref());
    hash
}

/// A token that was verified, and by whose keys.
struct Verdict {
    verified: Verified,
    issuer: Arc<Issuer>,
    /// How long it may be remembered, seen from when it was given.
    remaining: Duration,
}

/// Frees the memory of expired verdicts by the process's own clock; whether one still holds is decided by ours.
struct DropExpired;

impl Expiry<TokenHash, Arc<Verdict>> for DropExpired {
    fn expire_after_create(&self, _: &TokenHash, verdict: &Arc<Verdict>, _: Instant) -> Option<Duration> {
        Some(verdict.remaining)
    }
}

/// Tells who is calling. Cheap to share behind an `Arc`; no lock is held while anything waits.
pub struct Authenticator {
    by_iss: HashMap<String, Arc<Issuer>>,
    names: HashSet<String>,
    blocked: ArcSwap<HashSet<Principal>>,
    verdicts: Cache<TokenHash, Arc<Verdict>>,
    clock: Arc<dyn Clock>,
}

impl Authenticator {
    /// An authenticator for `issuers` and the built-in issuer, if there is one. JWKS files are read here; URLs are fetched
    /// by [`Authenticator::preload`], or when a token first needs them.
    ///
    /// # Errors
    /// [`SetupError`] lists every problem: those of [`IssuerConfig::validate`], names or `iss` used twice, unreadable files.
    pub fn new(
        issuers: Vec<IssuerConfig>,
        builtin: Option<BuiltinIssuerKeys>,
        clock: Arc<dyn Clock>,
        settings: AuthSettings,
    ) -> Result<Self, SetupError> {
        let mut problems = Vec::new();
        let mut by_iss = HashMap::new();
        let mut names = HashSet::new();
        if let Some(builtin) = builtin {
            let (iss, issuer) = builtin.into_issuer(Arc::clone(&clock));
            by_iss.insert(iss, Arc::new(issuer));
        }
        for config in issuers {
            let found = config.validate();
            if !found.is_empty() {
                problems.extend(found);
                continue;
            }
            if !names.insert(config.name.clone()) {
                problems.push(format!("issuer {:?}: there is another of this name", config.name));
            }
            if by_iss.contains_key(&config.iss) {
                problems.push(format!("issuer {:?}: another issuer has the same iss", config.name));
            }
            let name: Arc<str> = config.name.as_str().into();
            match Keys::configured(Arc::clone(&name), &config, Arc::clone(&clock)) {
                Ok(keys) => {
                    let issuer = Issuer::new(&config, name, keys);
                    by_iss.insert(config.iss, Arc::new(issuer));
                }
                Err(problem) => problems.push(format!("issuer {:?}: {problem}", config.name)),
            }
        }
        if !problems.is_empty() {
            return Err(SetupError { problems });
        }
        let verdicts = Cache::builder()
            .name("verified callers")
            .max_capacity(settings.cache_capacity)
            .expire_after(DropExpired)
            .build();
        Ok(Self { by_iss, names, blocked: ArcSwap::default(), verdicts, clock })
    }

    /// The caller, if this very token was verified before and the verdict still holds. Waits for nothing and allocates
    /// nothing.
    pub fn cached(&self, bearer: &str) -> Option<Arc<Caller>> {
        if bearer.len() > MAX_TOKEN_BYTES {
            return None;
        }
        let verdict = self.remembered(&hash(bearer))?;
        let caller = &verdict.verified.caller;
        (!self.is_blocked(&caller.principal)).then(|| Arc::clone(caller))
    }

    /// The caller, from the cache or by verifying the token; that may wait for its issuer's keys.
    ///
    /// # Errors
    /// [`AuthError`]; only [`AuthErrorReason::KeysUnavailable`] is worth a retry.
    pub async fn authenticate(&self, bearer: &str) -> Result<Arc<Caller>, AuthError> {
        check_length(bearer)?;
        let hash = hash(bearer);
        if let Some(verdict) = self.remembered(&hash) {
            return self.unless_blocked(&verdict.verified.caller);
        }
        let token = Token::parse(bearer)?;
        let issuer = self.issuer_of(&token)?;
        let now = self.clock.now();
        let verified = issuer.verify(&token, now, |name| self.names.contains(name)).await?;
        let caller = Arc::clone(&verified.caller);
        let remaining = verified.refused_from.until(now);
        self.verdicts.insert(hash, Arc::new(Verdict { verified, issuer: Arc::clone(issuer), remaining }));
        self.unless_blocked(&caller)
    }

    /// Whom a token names, nothing of it verified: only to tell apart those whose tokens wait for that.
    ///
    /// # Errors
    /// What [`Authenticator::authenticate`] would say of it without looking at a key: it is malformed, or of no issuer.
    pub fn claimed_principal(&self, bearer: &str) -> Result<String, AuthError> {
        check_length(bearer)?;
        let token = Token::parse(bearer)?;
        Ok(self.issuer_of(&token)?.claimed_principal(&token))
    }

    fn issuer_of(&self, token: &Token<'_>) -> Result<&Arc<Issuer>, AuthError> {
        let iss = token.iss()?;
        self.by_iss.get(iss).ok_or_else(|| {
            AuthError::new(AuthErrorReason::UnknownIssuer, format!("no issuer has iss {}", Foreign(iss)))
        })
    }

    /// The verdict on a token, unless it has expired or its issuer's keys have changed since.
    fn remembered(&self, hash: &TokenHash) -> Option<Arc<Verdict>> {
        let verdict = self.verdicts.get(hash)?;
        let holds = self.clock.now() < verdict.verified.refused_from
            && verdict.issuer.keys.is_current(&verdict.verified.keys);
        if !holds {
            self.verdicts.invalidate(hash);
            return None;
        }
        Some(verdict)
    }

    // Looked up at every call and not only when a verdict is given: a block cannot race with a verification in flight.
    fn is_blocked(&self, principal: &Principal) -> bool {
        let blocked = self.blocked.load();
        !blocked.is_empty() && blocked.contains(principal)
    }

    fn unless_blocked(&self, caller: &Arc<Caller>) -> Result<Arc<Caller>, AuthError> {
        if self.is_blocked(&caller.principal) {
            let detail = format!("{} is blocked", caller.principal);
            return Err(AuthError::new(AuthErrorReason::Blocked, detail).of(caller));
        }
        Ok(Arc::clone(caller))
    }

    /// Turns `principal` away from now on, whatever tokens it has.
    pub fn block(&self, principal: &Principal) {
        self.blocked.rcu(|blocked| {
            let mut blocked = HashSet::clone(blocked);
            blocked.insert(principal.clone());
            blocked
        });
    }

    /// Lets `principal` in again.
    pub fn unblock(&self, principal: &Principal) {
        self.blocked.rcu(|blocked| {
            let mut blocked = HashSet::clone(blocked);
            blocked.remove(principal);
            blocked
        });
    }

    /// Makes `all` the blocked principals: at start, and when the list is read again in full.
    pub fn set_blocked(&self, all: Vec<Principal>) {
        self.blocked.store(Arc::new(all.into_iter().collect()));
    }

    /// Fetches the keys of every issuer at start. One whose URL is away gets a warning in the log and is asked again when a
    /// token needs it.
    pub async fn preload(&self) {
        self.refresh_keys().await;
    }

    /// Fetches the keys of every issuer anew, so that a key that was withdrawn stops being accepted: to be called every
    /// [`REFRESH_PERIOD`](crate::REFRESH_PERIOD). Returns how many sources were away.
    pub async fn refresh_keys(&self) -> usize {
        let fetches: Vec<_> = self
            .by_iss
            .values()
            .map(|issuer| {
                let keys = Arc::clone(&issuer.keys);
                tokio::spawn(async move { keys.refetch().await })
            })
            .collect();
        let mut away = 0;
        for fetch in fetches {
            if fetch.await.unwrap_or(Refetched::SourceAway) == Refetched::SourceAway {
                away += 1;
            }
        }
        away
    }
}

fn check_length(bearer: &str) -> Result<(), AuthError> {
    if bearer.is_empty() {
        return Err(AuthError::missing());
    }
    if bearer.len() > MAX_TOKEN_BYTES {
        let detail = format!("{} bytes are too long for a token", bearer.len());
        return Err(AuthError::new(AuthErrorReason::Malformed, detail));
    }
    Ok(())
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut issuers: Vec<_> = self.by_iss.keys().collect();
        issuers.sort();
        f.debug_struct("Authenticator").field("issuers", &issuers).finish_non_exhaustive()
    }
}
