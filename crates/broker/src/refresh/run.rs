//! One run: read, lease, call, classify.

use std::sync::Arc;
use std::time::Duration;

use tokenward_provider::{ClientCredentials, ErrorClass, ProviderError, Rotation, TokenAnswer};
use tokenward_storage::{BeginAttempt, Connection, ConnectionKind, ConnectionState};
use tokenward_types::{ConnectionId, Monotonic, SecretString, TenantId};

use super::Want;
use super::record::Fresh;
use super::restored::is_restored;
use crate::backoff::backoff;
use crate::broker::Broker;
use crate::clients::ClientEntry;
use crate::guard::Permit;
use crate::line::Turn;
use crate::metrics::RefreshLabels;
use crate::select::reauthorization_required_of;
use crate::token::LiveToken;
use crate::{Error, Place, Reason};

/// How often a run starts over because the row moved under it.
const MAX_ROUNDS: usize = 5;
/// How often a lease that somebody else holds is looked at again.
const LEASE_POLL: Duration = Duration::from_millis(50);

/// A lease that was got, and when.
pub(super) struct Held {
    pub fence: i64,
    pub since: Monotonic,
}

/// What one call to the provider led to.
pub(super) enum Called {
    Tokens(TokenAnswer),
    Failed(ProviderError),
    /// Somebody else changed the row or holds the lease.
    Contended,
}

impl Broker {
    pub(super) async fn run_refresh(
        &self,
        tenant: &TenantId,
        id: &ConnectionId,
        want: Want,
        turn: Turn,
    ) -> Result<Arc<LiveToken>, Error> {
        // As long as a lease may be held by a process that died.
        let patience = self.settings().lease + Duration::from_secs(2);
        let mut started = self.clock().monotonic();
        let mut rounds = 0;
        loop {
            while self.unsaved().contains(tenant, id) && self.clock().monotonic().since(started) < patience {
                // What this process has in hand is newer than the row.
                self.timer().sleep(LEASE_POLL).await;
            }
            let row = self.read_usable(tenant, id, want).await?;
            if let Some(live) = self.stored_token(&row, want).await? {
                return Ok(live);
            }
            self.check_patience(&row, want)?;
            if self.is_left_alone(&row) && self.clock().monotonic().since(started) < patience {
                self.timer().sleep(LEASE_POLL).await;
                continue;
            }
            let client = self.client_of(&row).await?;
            let asked = self.clock().monotonic();
            let permit = self.admit(&client, tenant, id, turn).await?;
            // Standing in line costs no patience.
            started = started + self.clock().monotonic().since(asked);
            if let Some(result) = self.try_secrets(&row, &client, &permit).await? {
                return Ok(result);
            }
            drop(permit);
            rounds += 1;
            let lease_held = row.lease.as_ref().is_some_and(|lease| !lease.remaining.is_zero());
            let waited = self.clock().monotonic().since(started);
            if waited > patience || (!lease_held && rounds >= MAX_ROUNDS) {
                return Err(Error::new(
                    Reason::ProviderUnavailable,
                    "another server is refreshing this connection and has not finished",
                )
                .retry_after(Duration::from_secs(1)));
            }
            if lease_held {
                self.timer().sleep(LEASE_POLL).await;
            }
        }
    }

    /// Whether another server's lease lapsed only because the database was away: it may be about to store its result.
    fn is_left_alone(&self, row: &Connection) -> bool {
        let is_others = row.lease.as_ref().is_some_and(|lease| lease.owner != self.settings().server_id);
        is_others && self.outage().is_settling(self.clock().monotonic())
    }

    async fn read_usable(
        &self,
        tenant: &TenantId,
        id: &ConnectionId,
        want: Want,
    ) -> Result<Connection, Error> {
        let Some(row) = self.storage().get_connection(tenant, id).await? else {
            self.forget_tenant(tenant);
            return Err(Error::not_found("connection", id));
        };
        match row.state {
            ConnectionState::Revoked => {
                self.forget_tenant(tenant);
                Err(Error::new(Reason::ConnectionRequired, "the connection was disconnected")
                    .with("connection_id", id.as_str()))
            }
            ConnectionState::ReauthRequired if want != Want::Now => {
                let client = match &row.oauth_client {
                    Some(client) => Some(self.client(client).await?),
                    None => None,
                };
                Err(reauthorization_required_of(
                    &row,
                    client.as_ref().and_then(|c| c.client.help_url.as_deref()),
                ))
            }
            _ => Ok(row),
        }
    }

    /// The stored token, if it will do: another server, or this one before it was restarted, has got it. In any case it is
    /// put into memory, so that it can be served while refreshing fails.
    async fn stored_token(&self, row: &Connection, want: Want) -> Result<Option<Arc<LiveToken>>, Error> {
        let now = self.now();
        let tokens = row
            .tokens
            .as_ref()
            .ok_or_else(|| Error::new(Reason::Internal, "a connection in use has no tokens"))?;
        let known = self.directory().connection(&row.tenant, &row.id);
        let known = known.and_then(|entry| entry.snapshot().live.clone());
        let known = known.filter(|live| live.issued_at >= tokens.issued_at);
        let is_unwanted = matches!(want, Want::NewerThan(than) if tokens.issued_at <= than);
        let live = if let Some(live) = known {
            live
        } else if is_unwanted {
            // It may be known to be dead: it does not come back into memory.
            return Ok(None);
        } else {
            let place = Place::token(&row.tenant, row.id.as_str(), "access_token", row.grant_fence);
            let access_token = match self.sealer().open_text(place, &tokens.access_token).await {
                // An admin may mend a damaged access token by getting a new one.
                Err(error) if error.reason == Reason::StoredDataDamaged && want == Want::Now => {
                    return Ok(None);
                }
                opened => opened?,
            };
            let live = Arc::new(self.live_token(row, &access_token, false));
            self.show(row, Some(&live));
            live
        };
        if row.kind == ConnectionKind::Static {
            return Ok(Some(live));
        }
        let ttl = live.ttl(now).unwrap_or(Duration::MAX);
        let lives = ttl > self.settings().expired_below;
        let is_young = now.since(live.issued_at) < self.settings().min_refresh_age;
        let will_do = match want {
            Want::Ttl(need) => lives && (ttl >= need || is_young),
            Want::NewerThan(than) => lives && live.issued_at > than,
            Want::Confirm => row.state != ConnectionState::Suspect,
            Want::Now => false,
        };
        Ok(will_do.then_some(live))
    }

    /// Refuses a try that comes too early after a failed one, or before a suspect may be asked about again.
    fn check_patience(&self, row: &Connection, want: Want) -> Result<(), Error> {
        let now = self.now();
        if matches!(want, Want::Now | Want::Confirm) {
            return Ok(());
        }
        if row.state == ConnectionState::Suspect && !is_restored(row) {
            let again = row.state_since + self.settings().suspect_confirm_after;
            if now < again {
                return Err(suspect(row).retry_after(again.until(now)));
            }
        }
        let entry = self.directory().connection(&row.tenant, &row.id);
        let failing = entry.and_then(|entry| entry.snapshot().failing.clone());
        match failing.filter(|failing| failing.until > now) {
            Some(failing) => Err(failing.error.clone().retry_after(failing.until.until(now))),
            None => Ok(()),
        }
    }

    async fn client_of(&self, row: &Connection) -> Result<Arc<ClientEntry>, Error> {
        let id = row
            .oauth_client
            .as_ref()
            .ok_or_else(|| Error::new(Reason::Internal, "a refreshable connection has no OAuth client"))?;
        self.client(id).await
    }

    /// Tries the client's secrets in order: the next one only on a definite answer that the one before is wrong.
    /// `None` when the row moved or its lease is held.
    async fn try_secrets(
        &self,
        row: &Connection,
        client: &ClientEntry,
        permit: &Permit<'_>,
    ) -> Result<Option<Arc<LiveToken>>, Error> {
        let mut row = row.clone();
        let mut refused = None;
        for (secret_version, credentials) in client.credentials() {
            if refused.is_some() {
                // The attempt before moved the fence.
                row = self.read_usable(&row.tenant, &row.id, Want::Now).await?;
            }
            let token = self.stored_refresh_token(&row).await?;
            if !self.may_be_spent(&row, client, &credentials, &token).await? {
                return self.judge_spent(&row, (client, &credentials), permit, &token, secret_version).await;
            }
            let Some(held) = self.lease(&row, secret_version).await? else { return Ok(None) };
            let called = self.call(client, &credentials, &token, &held).await;
            match called {
                Called::Contended => {
                    self.storage().end_attempt(&row.tenant, &row.id, held.fence, true).await?;
                    return Ok(None);
                }
                Called::Tokens(answer) => {
                    permit.succeeded(self.now());
                    let fresh =
                        Fresh { answer, spent: token, spent_fence: row.grant_fence, fence: held.fence };
                    return self.record(&row, client, fresh).await.map(Some);
                }
                Called::Failed(error) if error.class == ErrorClass::ClientConfig => {
                    self.end_attempt(&row, held.fence, true).await;
                    tracing::warn!(
                        oauth_client = %client.client.id,
                        secret_version,
                        code = error.code,
                        "the provider refused a client secret"
                    );
                    refused = Some(error);
                }
                Called::Failed(error) if error.class == ErrorClass::GrantDead => {
                    return self.judge_dead(&row, (client, &credentials), permit, &held, &token, error).await;
                }
                Called::Failed(error) => return Err(self.failed(&row, client, permit, &held, &error).await),
            }
        }
        let wait = permit.refused(self.now());
        self.metrics().alert("oauth_client_refused", client.client.id.as_str());
        let error = match refused {
            Some(error) => crate::clients::misconfigured(
                &client.client.id,
                "the provider refuses its client_id or every usable secret: check them and add the right one",
            )
            .internal(error),
            None => {
                client.first_credentials().err().unwrap_or_else(|| Error::new(Reason::Internal, "no secret"))
            }
        };
        Err(self.note_failure(&row, error.retry_after(wait), Some(wait)))
    }

    async fn stored_refresh_token(&self, row: &Connection) -> Result<SecretString, Error> {
        let sealed =
            row.tokens.as_ref().and_then(|tokens| tokens.refresh_token.as_ref()).ok_or_else(|| {
                Error::new(
                    Reason::ReauthorizationRequired,
                    "the provider gave no refresh token: the customer has to connect again",
                )
                .with("connection_id", row.id.as_str())
            })?;
        let place = Place::token(&row.tenant, row.id.as_str(), "refresh_token", row.grant_fence);
        self.sealer().open_text(place, sealed).await
    }

    /// Whether a refresh token may be spent. Where a spent one that comes again ends the grant, and this one may
    /// have been spent, it is asked about first, when the provider has had the time to get to the call that may have spent it;
    /// where nothing can be asked, it is replayed once, as the last resort, when whoever got an answer has had the time to
    /// store it. In a database that was put back, every token may have been spent, and long ago.
    async fn may_be_spent(
        &self,
        row: &Connection,
        client: &ClientEntry,
        credentials: &ClientCredentials,
        token: &SecretString,
    ) -> Result<bool, Error> {
        let info = client.provider.info();
        let is_restored = is_restored(row);
        if info.rotation == Rotation::None || (info.rotation != Rotation::Strict && !is_restored) {
            return Ok(true);
        }
        let attempts = self.storage().list_attempts(&row.tenant, &row.id).await?;
        let spender = attempts.iter().find(|attempt| attempt.token_fence == row.grant_fence);
        if spender.is_none() && row.state == ConnectionState::Active {
            return Ok(true);
        }
        let now = self.now();
        let lease = self.settings().lease;
        let over = match spender {
            Some(attempt) if info.introspection => attempt.started_at + lease,
            Some(attempt) => attempt.started_at + lease * 4,
            None if is_restored && !info.introspection => row.state_since + lease * 4,
            None => now,
        };
        if now < over {
            let answer = Error::new(Reason::ProviderUnavailable, "the outcome of a refresh is not known yet");
            return Err(self.note_failure(row, answer, Some(over.until(now))));
        }
        if info.introspection {
            return self.lives(row, (client, credentials), token).await;
        }
        Ok(true)
    }

    pub(super) async fn lease(&self, row: &Connection, secret_version: i32) -> Result<Option<Held>, Error> {
        let since = self.clock().monotonic();
        let begin = BeginAttempt {
            seen_lease_fence: row.lease_fence,
            seen_consent_epoch: row.consent_epoch,
            seen_grant_fence: row.grant_fence,
            owner: self.settings().server_id.clone(),
            lease_for: self.settings().lease,
            secret_version: Some(secret_version),
            now: self.now(),
        };
        let fence = self.storage().begin_attempt(&row.tenant, &row.id, &begin).await?;
        if fence.is_some() && row.lease.is_some() {
            // It was not released: its holder is gone, or takes longer than it may.
            self.metrics().refresh_takeovers.inc();
        }
        Ok(fence.map(|fence| Held { fence, since }))
    }

    /// Spends a refresh token, unless so much of the lease is gone that the call might outlive it.
    pub(super) async fn call(
        &self,
        client: &ClientEntry,
        credentials: &ClientCredentials,
        token: &SecretString,
        held: &Held,
    ) -> Called {
        let gone = self.clock().monotonic().since(held.since);
        if self.settings().lease.saturating_sub(gone) <= client.provider.call_timeout() {
            return Called::Contended;
        }
        let result = client.provider.refresh(credentials, token).await;
        if result.as_ref().is_err_and(|error| !error.outcome_is_certain()) {
            self.metrics().refresh_unknown_outcomes.inc();
        }
        let outcome = result.as_ref().map_or_else(|error| error.class.as_str(), |_| "ok");
        let provider = client.client.provider.to_string();
        self.metrics().refreshes.get_or_create(&RefreshLabels { provider, outcome }).inc();
        result.map_or_else(Called::Failed, Called::Tokens)
    }

    /// A failure that says nothing about the grant: how far it reaches, and when the next try makes sense.
    async fn failed(
        &self,
        row: &Connection,
        client: &ClientEntry,
        permit: &Permit<'_>,
        held: &Held,
        error: &ProviderError,
    ) -> Error {
        let now = self.now();
        self.end_attempt(row, held.fence, error.outcome_is_certain()).await;
        tracing::warn!(
            tenant = %row.tenant,
            connection = %row.id,
            class = error.class.as_str(),
            status = error.http_status,
            code = error.code,
            detail = error.detail,
            "refresh failed"
        );
        let (wait, answer) = match error.class {
            ErrorClass::RateLimited => {
                let wait = permit.rate_limited(error.retry_after, now);
                let answer =
                    Error::new(Reason::ProviderRateLimited, "the provider throttles this OAuth client");
                (Some(wait), answer)
            }
            ErrorClass::AccountUnavailable => {
                permit.neutral();
                let longest = Duration::from_secs(24 * 3600);
                let answer = Error::new(
                    Reason::ProviderUnavailable,
                    "the account is locked or being moved at the provider",
                );
                (error.retry_after.map(|wait| wait.min(longest)), answer)
            }
            ErrorClass::Unexpected | ErrorClass::ConnectAttempt => {
                self.metrics().alert("unexpected_refusal", row.id.as_str());
                if permit.unexpected(&row.tenant, &row.id, now) {
                    self.metrics().alert("oauth_client_paused", client.client.id.as_str());
                }
                let answer = Error::new(
                    Reason::ProviderUnavailable,
                    "the provider refused the refresh in a way that is not understood",
                );
                (None, answer)
            }
            _ => {
                permit.unanswered(now);
                (None, Error::new(Reason::ProviderUnavailable, "the provider does not answer as it should"))
            }
        };
        self.note_failure(row, answer.internal(error.clone()), wait)
    }

    /// Remembers a failure, so that the next caller does not run into it at once.
    pub(super) fn note_failure(&self, row: &Connection, error: Error, wait: Option<Duration>) -> Error {
        let settings = self.settings();
        let entry = self.directory().connection(&row.tenant, &row.id);
        let previous = entry
            .as_ref()
            .and_then(|entry| entry.snapshot().failing.as_ref().map(|failing| failing.wait))
            .unwrap_or_default();
        let wait = wait
            .unwrap_or_else(|| backoff(settings.backoff_base, settings.backoff_max, previous, self.rng()));
        let error = error
            .with("connection_id", row.id.as_str())
            .with("account_id", row.account.as_str())
            .retry_after(wait);
        if let Some(entry) = entry {
            let until = self.now() + wait;
            entry.update(|snapshot| {
                let error = error.clone();
                snapshot.failing = Some(Arc::new(crate::directory::Failing { error, until, wait }));
            });
            self.plan_retry(&entry, until);
        }
        error
    }

    /// Ends an attempt as far as the database can be reached; a row that stays behind is resolved by a later refresh.
    pub(super) async fn end_attempt(&self, row: &Connection, fence: i64, resolved: bool) {
        if let Err(error) = self.storage().end_attempt(&row.tenant, &row.id, fence, resolved).await {
            tracing::warn!(tenant = %row.tenant, connection = %row.id, fence, %error, "cannot end an attempt");
        }
    }
}

/// The provider called the grant dead once.
pub(super) fn suspect(row: &Connection) -> Error {
    Error::new(
        Reason::GrantSuspect,
        "the provider called this grant dead; that is verified before anybody has to connect again",
    )
    .with("connection_id", row.id.as_str())
    .with("account_id", row.account.as_str())
}
