//! An answer that carries tokens is first made durable, then served; when the database is away it is served from memory and
//! stored as soon as it can be.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokenward_provider::{ExpiresIn, TokenAnswer};
use tokenward_storage::{CommitOutcome, Connection, ConnectionState, RefreshCommit, TokenSet};
use tokenward_types::{
    ConnectionId, ExposeSecret, Fingerprint, SecretString, TenantId, Timestamp, constant_time_eq,
};

use crate::broker::{Broker, state_name};
use crate::clients::ClientEntry;
use crate::directory::Entry;
use crate::token::LiveToken;
use crate::{Error, Place, Reason, audit};

/// How often a result is offered to a database that was away.
const RETRY: Duration = Duration::from_millis(500);

/// The same when the database answers with an error that is not an outage.
const RETRY_AFTER_ERROR: Duration = Duration::from_secs(10);

/// Tokens as the provider gave them, and what they cost.
pub(crate) struct Fresh {
    pub answer: TokenAnswer,
    /// The refresh token that was spent.
    pub spent: SecretString,
    /// The fence that it was stored under.
    pub spent_fence: i64,
    /// The attempt's fence.
    pub fence: i64,
}

/// Results that wait for the database.
#[derive(Default)]
pub(crate) struct Unsaved(Mutex<HashMap<(TenantId, ConnectionId), usize>>);

impl Unsaved {
    /// The connections, as `tenant/connection`.
    pub(crate) fn names(&self) -> Vec<String> {
        self.0.lock().keys().map(|(tenant, connection)| format!("{tenant}/{connection}")).collect()
    }

    /// Whether a result of this connection waits.
    pub(super) fn contains(&self, tenant: &TenantId, connection: &ConnectionId) -> bool {
        let unsaved = self.0.lock();
        !unsaved.is_empty() && unsaved.contains_key(&(tenant.clone(), connection.clone()))
    }

    /// Waits until there are none.
    pub(crate) async fn finished(&self) {
        while !self.0.lock().is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn add(&self, row: &Connection) {
        *self.0.lock().entry((row.tenant.clone(), row.id.clone())).or_default() += 1;
    }

    fn remove(&self, row: &Connection) {
        let mut unsaved = self.0.lock();
        let key = (row.tenant.clone(), row.id.clone());
        if let Some(count) = unsaved.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                unsaved.remove(&key);
            }
        }
    }
}

/// When a token that was requested at `requested_at` expires, and whether that had to be assumed.
pub(crate) fn expiry(answer: &TokenAnswer, default: Duration) -> (Timestamp, bool) {
    match answer.expires_in {
        ExpiresIn::Given(life) => (answer.requested_at + life, false),
        ExpiresIn::Missing | ExpiresIn::Invalid => (answer.requested_at + default, true),
    }
}

impl Broker {
    /// Stores the tokens of an attempt and serves them, or what won over them.
    pub(super) async fn record(
        &self,
        row: &Connection,
        client: &ClientEntry,
        fresh: Fresh,
    ) -> Result<Arc<LiveToken>, Error> {
        let (expires_at, lifetime_assumed) =
            expiry(&fresh.answer, client.provider.info().default_token_lifetime);
        if lifetime_assumed {
            tracing::warn!(tenant = %row.tenant, connection = %row.id, "the provider did not say how long the token lives");
        }
        let scopes = match (&fresh.answer.scopes, &row.tokens) {
            (Some(scopes), _) => scopes.clone(),
            (None, Some(tokens)) => tokens.scopes.clone(),
            (None, None) => tokenward_types::Scopes::default(),
        };
        let live = Arc::new(LiveToken {
            fingerprint: Fingerprint::of(&fresh.answer.access_token),
            access_token: fresh.answer.access_token.clone(),
            issued_at: fresh.answer.requested_at,
            expires_at: Some(expires_at),
            scopes: self.directory().interner.scopes(&scopes),
            connection: row.id.clone(),
            account: row.account.clone(),
            provider: row.provider.clone(),
            lifetime_assumed,
        });
        match self.store(row, &fresh, &live).await {
            Ok(outcome) => self.settle(row, outcome, live).await,
            Err(error) if error.reason == Reason::NotFound => Err(error),
            Err(error) => {
                if !is_outage(error.reason) {
                    self.metrics().alert("refreshed_token_unsaved", row.id.as_str());
                }
                tracing::error!(
                    tenant = %row.tenant,
                    connection = %row.id,
                    %error,
                    detail = error.log_detail(),
                    "a refreshed token cannot be stored yet; it is served from memory"
                );
                self.store_later(row.clone(), fresh, Arc::clone(&live));
                self.show_unsaved(row, &live);
                Ok(live)
            }
        }
    }

    async fn store(&self, row: &Connection, fresh: &Fresh, live: &LiveToken) -> Result<CommitOutcome, Error> {
        let new = fresh.answer.refresh_token.as_ref();
        let rotated = new.is_some_and(|new| !is_same(new, &fresh.spent));
        let refresh_token = new.unwrap_or(&fresh.spent);
        let place = |field| Place::token(&row.tenant, row.id.as_str(), field, fresh.fence);
        let sealer = self.sealer();
        let access = sealer.seal(place("access_token"), live.access_token.expose_secret().as_bytes()).await?;
        let refresh = sealer.seal(place("refresh_token"), refresh_token.expose_secret().as_bytes()).await?;
        let commit = RefreshCommit {
            tenant: row.tenant.clone(),
            connection: row.id.clone(),
            fence: fresh.fence,
            consent_epoch: row.consent_epoch,
            spent_token_fence: fresh.spent_fence,
            tokens: TokenSet {
                access_token: access,
                refresh_token: Some(refresh),
                issued_at: live.issued_at,
                expires_at: live.expires_at,
                scopes: live.scopes.clone(),
            },
            rotated,
            account_name: fresh.answer.account_name.clone(),
            now: self.now(),
        };
        Ok(self.storage().commit_refresh(&commit).await?)
    }

    async fn settle(
        &self,
        row: &Connection,
        outcome: CommitOutcome,
        live: Arc<LiveToken>,
    ) -> Result<Arc<LiveToken>, Error> {
        match outcome {
            CommitOutcome::Committed(stored) => {
                if row.state != stored.state {
                    let (from, to) = (state_name(row.state), state_name(stored.state));
                    audit::state_change(&row.tenant, &row.id, from, to, "refreshed");
                }
                self.resolve_older(&stored).await;
                self.show(&stored, Some(&live));
                Ok(live)
            }
            CommitOutcome::Rejected(stored) => {
                tracing::info!(tenant = %row.tenant, connection = %row.id, "a newer grant won over a refresh");
                let usable = Self::is_usable(stored.state);
                let (Some(tokens), true) = (&stored.tokens, usable) else {
                    self.forget_tenant(&row.tenant);
                    return Err(Error::new(Reason::ConnectionRequired, "the connection was disconnected")
                        .with("connection_id", row.id.as_str()));
                };
                let place =
                    Place::token(&stored.tenant, stored.id.as_str(), "access_token", stored.grant_fence);
                let token = self.sealer().open_text(place, &tokens.access_token).await?;
                let winner = Arc::new(self.live_token(&stored, token, false));
                self.show(&stored, Some(&winner));
                Ok(winner)
            }
            CommitOutcome::Gone => {
                self.forget_tenant(&row.tenant);
                Err(Error::not_found("connection", &row.id))
            }
        }
    }

    /// Attempts from before this one that are old enough to be over: their tokens no longer matter.
    async fn resolve_older(&self, stored: &Connection) {
        let over = self.now() - self.settings().lease * 4;
        let Ok(attempts) = self.storage().list_attempts(&stored.tenant, &stored.id).await else { return };
        for attempt in attempts {
            if attempt.fence < stored.grant_fence && attempt.started_at < over {
                self.end_attempt(stored, attempt.fence, true).await;
            }
        }
    }

    fn store_later(&self, row: Connection, fresh: Fresh, live: Arc<LiveToken>) {
        self.unsaved().add(&row);
        self.metrics().unsaved.inc();
        let broker = self.clone();
        self.spawn(async move {
            loop {
                tokio::time::sleep(RETRY).await;
                match broker.store(&row, &fresh, &live).await {
                    Err(error) if error.reason == Reason::NotFound => {
                        tracing::warn!(tenant = %row.tenant, connection = %row.id, "the tenant of a refreshed token is gone");
                        break;
                    }
                    Err(error) if is_outage(error.reason) => {}
                    Err(error) => {
                        tracing::error!(tenant = %row.tenant, connection = %row.id, %error, detail = error.log_detail(), "a refreshed token cannot be stored");
                        tokio::time::sleep(RETRY_AFTER_ERROR).await;
                    }
                    Ok(outcome) => {
                        tracing::info!(tenant = %row.tenant, connection = %row.id, "a refreshed token is stored at last");
                        let _ = broker.settle(&row, outcome, live).await;
                        break;
                    }
                }
            }
            broker.metrics().unsaved.dec();
            broker.unsaved().remove(&row);
        });
    }

    /// A living token from a stored row.
    pub(crate) fn live_token(
        &self,
        row: &Connection,
        access_token: SecretString,
        lifetime_assumed: bool,
    ) -> LiveToken {
        let tokens = row.tokens.as_ref();
        LiveToken {
            fingerprint: Fingerprint::of(&access_token),
            access_token,
            issued_at: tokens.map_or(row.updated_at, |tokens| tokens.issued_at),
            expires_at: tokens.and_then(|tokens| tokens.expires_at),
            scopes: tokens.map(|tokens| self.directory().interner.scopes(&tokens.scopes)).unwrap_or_default(),
            connection: row.id.clone(),
            account: row.account.clone(),
            provider: row.provider.clone(),
            lifetime_assumed,
        }
    }

    /// Puts what a row says into memory, unless memory knows a newer row. Plans the token's refresh.
    pub(crate) fn show(&self, row: &Connection, live: Option<&Arc<LiveToken>>) {
        let Some(entry) = self.directory().connection(&row.tenant, &row.id) else { return };
        entry.update(|snapshot| {
            if snapshot.version > row.version {
                return;
            }
            snapshot.version = row.version;
            snapshot.state = row.state;
            snapshot.state_since = row.state_since;
            if let Some(live) = live {
                if row.state == ConnectionState::Active {
                    let is_new = snapshot.live.as_ref().is_none_or(|known| known.issued_at < live.issued_at);
                    if is_new {
                        snapshot.failing = None;
                    }
                }
                snapshot.scopes = live.scopes.clone();
                snapshot.live = Some(Arc::clone(live));
            }
        });
        if let Some(live) = live {
            self.plan_ahead(&entry, live);
        }
    }

    fn show_unsaved(&self, row: &Connection, live: &Arc<LiveToken>) {
        let Some(entry) = self.directory().connection(&row.tenant, &row.id) else { return };
        entry.update(|snapshot| {
            if snapshot.state != ConnectionState::Revoked && snapshot.version <= row.version {
                snapshot.live = Some(Arc::clone(live));
                snapshot.scopes = live.scopes.clone();
                snapshot.failing = None;
            }
        });
    }

    /// Plans another try for a connection in use.
    pub(super) fn plan_retry(&self, entry: &Entry, at: Timestamp) {
        self.schedule().push(at, entry.tenant.clone(), entry.id.clone(), crate::due::Due::Ahead);
    }
}

/// Whether two tokens are the same one.
pub(super) fn is_same(a: &SecretString, b: &SecretString) -> bool {
    constant_time_eq(a.expose_secret().as_bytes(), b.expose_secret().as_bytes())
}

fn is_outage(reason: Reason) -> bool {
    matches!(reason, Reason::StorageUnavailable | Reason::EncryptionUnavailable)
}
