//! Getting a token: from memory if it is there and fresh, else through the connection's one refresh.

use std::sync::Arc;
use std::time::Duration;

use tokenward_storage::ConnectionState;
use tokenward_types::{AccountId, ConnectionId, Monotonic, ProviderName, Scopes, TenantId, Timestamp};

use crate::broker::Broker;
use crate::directory::{Entry, Snapshot, TenantEntry};
use crate::refresh::Want;
use crate::select::{denied, select};
use crate::token::{LiveToken, Token, TokenRequest, Warning, WarningReason};
use crate::{Error, Reason};

/// How often one call refreshes: another caller's refresh may bring a token that is fresh enough for it and not for us.
const MAX_REFRESHES: u32 = 3;

/// The share of the time there is that a call waits for a new token while another one lives: the rest is for giving it out.
const WAITED: f64 = 0.9;

/// What can be done with what is in memory.
enum Step {
    Answer(Token),
    Refresh(Want),
}

impl Broker {
    /// The warm path: answers from memory alone. `None` when memory does not suffice, or the answer is a refusal: ask
    /// [`Broker::token`], which validates the request first.
    pub fn token_from_memory(&self, request: &TokenRequest<'_>) -> Option<Token> {
        if !self.is_fresh() {
            return None;
        }
        let tenant = self.directory().get(request.tenant)?;
        let rules = self.rules().of(request.principal);
        let entry = select(&tenant, &rules, self, request).ok()?;
        let now = self.now();
        match self.step(entry, request.min_ttl, now) {
            Ok(Step::Answer(token)) => {
                entry.touch(now);
                self.metrics().cache_hits.inc();
                Some(token)
            }
            Ok(Step::Refresh(_)) | Err(_) => None,
        }
    }

    /// The whole path. The caller may go away at any time: what it started goes on.
    ///
    /// # Errors
    /// `InvalidRequest`; `StateStale`; those of the choice of a connection; `MinTtlTooLong`; then, when no living token is left,
    /// why there is no new one.
    pub async fn token(&self, request: &TokenRequest<'_>) -> Result<Token, Error> {
        let tenant = validate(request)?;
        let started = self.clock().monotonic();
        let mut left = MAX_REFRESHES;
        let mut brought: Option<Arc<LiveToken>> = None;
        let mut failed: Option<Error> = None;
        loop {
            // Asked anew after each refresh, which may have taken long: what was taken back meanwhile is not given out.
            self.ensure_fresh(request.principal).await?;
            let rules = self.rules().of(request.principal);
            if !rules.may_concern(request.tenant) {
                return Err(denied(request.principal));
            }
            let Some(tenant_entry) = self.tenant(&tenant).await? else {
                return Err(if rules.names(request.tenant) {
                    Error::not_found("tenant", &tenant)
                } else {
                    denied(request.principal)
                });
            };
            if let Some(live) = &brought {
                // Memory may have lost the connection meanwhile, and the token with it.
                let entry = tenant_entry.connection(live.connection.as_str());
                if let Some(entry) = entry.filter(|entry| entry.adopt(live)) {
                    self.plan_ahead(entry, live);
                }
            }
            // Chosen anew after each refresh: the new token may carry other scopes.
            let entry = match select(&tenant_entry, &rules, self, request) {
                Ok(entry) => entry,
                Err(error) => return Err(self.with_help(&tenant_entry, error).await),
            };
            let now = self.now();
            if let Some(error) = failed.take() {
                return self.living(entry, now).ok_or(error);
            }
            entry.touch(now);
            let want = match self.step(entry, request.min_ttl, now)? {
                Step::Answer(token) => return Ok(token),
                Step::Refresh(want) => want,
            };
            if left == 0 {
                return self.living(entry, now).ok_or_else(expires_at_once);
            }
            left -= 1;
            self.metrics().cache_misses.inc();
            let refresh = self.refresh(&entry.tenant, &entry.id, want);
            let client = entry.oauth_client.as_ref();
            let refresh = self.patiently(&entry.tenant, &entry.id, client, refresh);
            // Who can be given a token that still lives need not go away with nothing.
            let refreshed = match self.patience(entry, now, request.patience, started) {
                Some(patience) => tokio::select! {
                    biased;
                    refreshed = refresh => refreshed,
                    () = self.timer().sleep(patience) => Err(takes_too_long()),
                },
                None => refresh.await,
            };
            match refreshed {
                Ok(live) => brought = Some(live),
                Err(error) if is_about_refreshing(error.reason) => failed = Some(error),
                Err(error) => return Err(error),
            }
        }
    }

    /// Where only the customer can help, adds where they are helped.
    async fn with_help(&self, tenant: &TenantEntry, error: Error) -> Error {
        let only_the_customer =
            matches!(error.reason, Reason::ReauthorizationRequired | Reason::ScopeNotGranted);
        let entry = error.metadata.get("connection_id").and_then(|id| tenant.connection(id));
        let client = entry.and_then(|entry| entry.oauth_client.as_ref()).filter(|_| only_the_customer);
        let Some(client) = client else { return error };
        match self.client(client).await {
            Ok(client) => match &client.client.help_url {
                Some(url) => error.with("help_url", url),
                None => error,
            },
            Err(_) => error,
        }
    }

    /// How long a call waits for a new token before it is given the one that still lives: neither the call nor that token may be
    /// over by then. `None` where no token lives.
    fn patience(
        &self,
        entry: &Entry,
        now: Timestamp,
        of_caller: Option<Duration>,
        started: Monotonic,
    ) -> Option<Duration> {
        let living = self.living(entry, now)?;
        let waited = self.clock().monotonic().since(started);
        let of_call = of_caller.map(|patience| patience.mul_f64(WAITED).saturating_sub(waited));
        let of_token =
            living.ttl.map(|ttl| ttl.saturating_sub(self.settings().expired_below).mul_f64(WAITED));
        of_call.into_iter().chain(of_token).min()
    }

    /// What a caller gets although refreshing fails: a token that still lives, with warnings.
    fn living(&self, entry: &Entry, now: Timestamp) -> Option<Token> {
        let snapshot = entry.snapshot();
        let live = snapshot.live.as_ref()?;
        let ttl = live.ttl(now);
        let is_allowed = matches!(snapshot.state, ConnectionState::Active | ConnectionState::Suspect);
        let lives = ttl.is_none_or(|ttl| ttl > self.settings().expired_below);
        (is_allowed && lives).then(|| {
            let mut warnings = warnings(&snapshot);
            if warnings.is_empty() {
                warnings.push(min_ttl_not_met(ttl.unwrap_or_default()));
            }
            Token { live: Arc::clone(live), ttl, warnings }
        })
    }

    fn step(&self, entry: &Entry, min_ttl: Option<Duration>, now: Timestamp) -> Result<Step, Error> {
        let settings = self.settings();
        let snapshot = entry.snapshot();
        let Some(live) = &snapshot.live else {
            // First what is stored comes into memory, if it lives: what is needed is judged by that.
            return Ok(Step::Refresh(Want::Ttl(Duration::ZERO)));
        };
        let answer = |warnings, ttl| Ok(Step::Answer(Token { live: Arc::clone(live), ttl, warnings }));
        let (Some(ttl), Some(lifetime)) = (live.ttl(now), live.life()) else {
            return answer(warnings(&snapshot), None);
        };
        let need = match min_ttl {
            Some(wanted) => checked_min_ttl(wanted, lifetime, settings.min_refresh_age)?,
            // Tokens that live for minutes only would otherwise never be fresh enough.
            None => settings.default_min_ttl.min(lifetime / 4),
        };
        let lives = ttl > settings.expired_below;
        if lives && ttl >= need {
            return answer(warnings(&snapshot), Some(ttl));
        }
        let is_young = now.since(live.issued_at) < settings.min_refresh_age;
        if lives && is_young {
            let mut warnings = warnings(&snapshot);
            warnings.push(min_ttl_not_met(ttl));
            return answer(warnings, Some(ttl));
        }
        if let Some(failing) = snapshot.failing.as_ref().filter(|failing| failing.until > now) {
            if lives {
                return answer(warnings(&snapshot), Some(ttl));
            }
            return Err(failing.error.clone().retry_after(failing.until.until(now)));
        }
        Ok(Step::Refresh(Want::Ttl(need)))
    }

    /// The tenant with its connections, from memory or storage.
    pub(crate) async fn tenant(&self, tenant: &TenantId) -> Result<Option<Arc<TenantEntry>>, Error> {
        loop {
            if let Some(entry) = self.directory().get(tenant.as_str()) {
                return Ok(Some(entry));
            }
            let reading = self.directory().reading();
            let Some(row) = self.storage().get_tenant(tenant).await? else { return Ok(None) };
            let connections = self.storage().list_tenant_connections(tenant).await?;
            if let Some(entry) = self.directory().insert(reading, row, &connections) {
                return Ok(Some(entry));
            }
        }
    }
}

/// Whether a failure says only that there is no new token, so that the old one may do.
fn is_about_refreshing(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::GrantSuspect
            | Reason::ProviderUnavailable
            | Reason::ProviderRateLimited
            | Reason::OAuthClientMisconfigured
            | Reason::StorageUnavailable
            | Reason::EncryptionUnavailable
            | Reason::StoredDataDamaged
            | Reason::Internal
    )
}

fn takes_too_long() -> Error {
    Error::new(
        Reason::ProviderUnavailable,
        "the token is being refreshed, which takes longer than the call may",
    )
    .retry_after(Duration::from_secs(1))
}

fn expires_at_once() -> Error {
    Error::new(Reason::ProviderUnavailable, "the provider gave a token that expires at once")
        .retry_after(Duration::from_secs(1))
}

fn checked_min_ttl(wanted: Duration, lifetime: Duration, margin: Duration) -> Result<Duration, Error> {
    let longest = lifetime.saturating_sub(margin);
    if wanted <= longest {
        return Ok(wanted);
    }
    Err(Error::new(
        Reason::MinTtlTooLong,
        format!(
            "min_ttl is {} s, but tokens of this connection live for {} s in all: ask for {} s at the most",
            wanted.as_secs(),
            lifetime.as_secs(),
            longest.as_secs()
        ),
    )
    .with("field", "min_ttl")
    .with("max_min_ttl_seconds", longest.as_secs().to_string()))
}

fn min_ttl_not_met(ttl: Duration) -> Warning {
    Warning {
        reason: WarningReason::MinTtlNotMet,
        message: format!("the token lives for {} s only, and cannot be replaced now", ttl.as_secs()),
    }
}

fn warnings(snapshot: &Snapshot) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let mut warn = |reason, message: String| warnings.push(Warning { reason, message });
    if snapshot.state == ConnectionState::Suspect {
        warn(
            WarningReason::GrantSuspect,
            "the provider called the grant dead once; it is being verified".to_owned(),
        );
    } else if let Some(failing) = &snapshot.failing {
        warn(WarningReason::RefreshFailing, format!("refreshing fails: {}", failing.error.message));
    }
    if snapshot.live.as_ref().is_some_and(|live| live.lifetime_assumed) {
        warn(
            WarningReason::LifetimeAssumed,
            "the provider did not say how long the token lives; its usual lifetime is assumed".to_owned(),
        );
    }
    warnings
}

/// Checks what memory did not know.
fn validate(request: &TokenRequest<'_>) -> Result<TenantId, Error> {
    let tenant = TenantId::parse(request.tenant).map_err(|error| Error::invalid_id(&error))?;
    if !request.provider.is_empty() {
        ProviderName::parse(request.provider).map_err(|error| Error::invalid_id(&error))?;
    }
    if !request.connection.is_empty() {
        ConnectionId::parse(request.connection).map_err(|error| Error::invalid_id(&error))?;
    }
    if !request.account.is_empty() {
        AccountId::parse(request.account).map_err(|error| Error::invalid_id(&error))?;
    }
    Scopes::new(request.scopes).map_err(|error| Error::invalid("scopes", error))?;
    Ok(tenant)
}
