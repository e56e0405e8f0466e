//! An answer that carries tokens is first made durable, then served: by the database, or by the journal when the database is
//! away or slow. What nothing could bring back goes into both, the journal first.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokenward_provider::{ExpiresIn, Rotation, TokenAnswer};
use tokenward_storage::{CommitOutcome, Connection, ConnectionState, RefreshCommit, TokenSet};
use tokenward_types::{ExposeSecret, Monotonic, ProviderName, SecretString, Timestamp, constant_time_eq};
use tokio::task::{JoinError, JoinHandle};

use super::save::Waiting;
use crate::broker::{Broker, state_name};
use crate::clients::ClientEntry;
use crate::directory::Entry;
use crate::token::{LiveToken, TokenFacts};
use crate::{Error, Place, Reason, audit};

/// How long the journal goes ahead of the database, at most: a disk that is slow keeps no answer from the database.
const JOURNAL_LEAD: Duration = Duration::from_millis(5);
/// How long a caller waits for the database; the journal takes the answer then.
const COMMIT_PATIENCE: Duration = Duration::from_millis(150);

/// What came of a commit.
type Committed = Result<Result<CommitOutcome, Error>, JoinError>;

/// Where an answer is.
struct Offered {
    /// Its name in the journal.
    entry: Option<String>,
    /// What came of the commit, if it did in time.
    committed: Option<Committed>,
    /// The commit.
    under_way: JoinHandle<Result<CommitOutcome, Error>>,
}

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
        let (connection, account, provider) = self.directory().names(row);
        let facts = TokenFacts {
            issued_at: fresh.answer.requested_at,
            expires_at: Some(expires_at),
            scopes: self.directory().interner.scopes(&scopes),
            connection,
            account,
            provider,
            lifetime_assumed,
        };
        let live = Arc::new(LiveToken::new(&fresh.answer.access_token, facts));
        let answered = self.clock().monotonic();
        let commit = match self.seal_commit(row, &fresh, &live).await {
            Ok(commit) => Arc::new(commit),
            Err(error) if error.reason == Reason::NotFound => return Err(error),
            Err(error) => {
                self.report_unsaved(row, &error);
                self.save_later(Waiting::unsealed(row.clone(), fresh, Arc::clone(&live)));
                self.show_unsaved(row, &live);
                return Ok(live);
            }
        };
        let Offered { mut entry, committed, under_way } = self.offer(row, &commit, answered).await;
        let under_way = match committed {
            Some(Ok(Ok(outcome))) => {
                if let Some(entry) = entry {
                    self.remove_entry(&entry).await;
                }
                return self.settle(row, outcome, live).await;
            }
            Some(Ok(Err(error))) => {
                self.report_unsaved(row, &error);
                None
            }
            Some(Err(error)) => {
                self.report_unsaved(row, &Error::new(Reason::Internal, "internal error").internal(error));
                None
            }
            // The database takes its time, and goes on trying.
            None => Some(under_way),
        };
        if entry.is_none() {
            entry = self.journal_commit(&commit).await;
            if entry.is_some() {
                self.observe_durable(answered);
            }
        }
        self.save_later(Waiting::sealed(row.clone(), fresh, Arc::clone(&live), commit, entry, under_way));
        self.show_unsaved(row, &live);
        Ok(live)
    }

    /// Offers an answer to the database; where nothing could bring it back, to the journal first, which is quicker.
    async fn offer(&self, row: &Connection, commit: &Arc<RefreshCommit>, answered: Monotonic) -> Offered {
        let mut journaled = pin!(self.journal_irreplaceable(row, commit));
        let in_time = tokio::select! {
            biased;
            entry = &mut journaled => Some(entry),
            () = self.timer().sleep(JOURNAL_LEAD) => None,
        };
        let mut is_durable = matches!(in_time, Some(Some(_)));
        if is_durable {
            self.observe_durable(answered);
        }
        let mut under_way = self.start_commit(commit);
        let committed = tokio::select! {
            biased;
            committed = &mut under_way => Some(committed),
            () = self.timer().sleep(COMMIT_PATIENCE) => None,
        };
        if !is_durable && matches!(committed, Some(Ok(Ok(_)))) {
            self.observe_durable(answered);
            is_durable = true;
        }
        let entry = match in_time {
            Some(entry) => entry,
            None => journaled.await,
        };
        if !is_durable && entry.is_some() {
            self.observe_durable(answered);
        }
        Offered { entry, committed, under_way }
    }

    /// An entry's name, if a crash would cost the grant and there is one.
    async fn journal_irreplaceable(&self, row: &Connection, commit: &RefreshCommit) -> Option<String> {
        if self.is_irreplaceable(row, commit) { self.journal_commit(commit).await } else { None }
    }

    /// Whether a crash before an answer is durable would cost the grant.
    fn is_irreplaceable(&self, row: &Connection, commit: &RefreshCommit) -> bool {
        commit.rotated && self.answers_are_irreplaceable(&row.provider)
    }

    /// Whether a provider's spent tokens answer no more when another server takes over.
    pub(super) fn answers_are_irreplaceable(&self, provider: &ProviderName) -> bool {
        match self.rotation_of(provider) {
            Rotation::None => false,
            Rotation::Grace(grace) => grace < self.settings().lease * 2,
            Rotation::Strict => true,
        }
    }

    fn observe_durable(&self, answered: Monotonic) {
        let took = self.clock().monotonic().since(answered);
        self.metrics().rotation_to_durable.observe(took.as_secs_f64());
    }

    fn report_unsaved(&self, row: &Connection, error: &Error) {
        if !is_outage(error.reason) {
            self.metrics().alert("refreshed_token_unsaved", row.id.as_str());
        }
        tracing::error!(
            tenant = %row.tenant,
            connection = %row.id,
            %error,
            detail = error.log_detail(),
            "a refreshed token cannot be stored yet; it is served all the same"
        );
    }

    /// Offers a commit to the database, in a task that goes on when nobody waits for it any more.
    pub(super) fn start_commit(
        &self,
        commit: &Arc<RefreshCommit>,
    ) -> JoinHandle<Result<CommitOutcome, Error>> {
        let (broker, commit) = (self.clone(), Arc::clone(commit));
        self.spawn(async move { Ok(broker.storage().commit_refresh(&commit).await?) })
    }

    /// What is to be stored, with the tokens sealed for their row.
    pub(super) async fn seal_commit(
        &self,
        row: &Connection,
        fresh: &Fresh,
        live: &LiveToken,
    ) -> Result<RefreshCommit, Error> {
        let new = fresh.answer.refresh_token.as_ref();
        let rotated = new.is_some_and(|new| !is_same(new, &fresh.spent));
        let refresh_token = new.unwrap_or(&fresh.spent);
        let place = |field| Place::token(&row.tenant, row.id.as_str(), field, fresh.fence);
        let sealer = self.sealer();
        let access =
            sealer.seal(place("access_token"), live.access_token().expose_secret().as_bytes()).await?;
        let refresh = sealer.seal(place("refresh_token"), refresh_token.expose_secret().as_bytes()).await?;
        Ok(RefreshCommit {
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
        })
    }

    /// What a stored result means for memory and for who asked.
    pub(super) async fn settle(
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
                tracing::debug!(
                    tenant = %row.tenant,
                    connection = %row.id,
                    fence = stored.grant_fence,
                    "a refreshed token is stored"
                );
                self.show(&stored, Some(&live));
                Ok(live)
            }
            CommitOutcome::Rejected(stored) => {
                self.metrics().refresh_rejected_commits.inc();
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
                let winner = Arc::new(self.live_token(&stored, &token, false));
                self.show(&stored, Some(&winner));
                Ok(winner)
            }
            CommitOutcome::Gone => {
                self.forget_tenant(&row.tenant);
                Err(Error::not_found("connection", &row.id))
            }
        }
    }

    /// A living token from a stored row.
    pub(crate) fn live_token(
        &self,
        row: &Connection,
        access_token: &SecretString,
        lifetime_assumed: bool,
    ) -> LiveToken {
        let tokens = row.tokens.as_ref();
        let (connection, account, provider) = self.directory().names(row);
        let facts = TokenFacts {
            issued_at: tokens.map_or(row.updated_at, |tokens| tokens.issued_at),
            expires_at: tokens.and_then(|tokens| tokens.expires_at),
            scopes: tokens.map(|tokens| self.directory().interner.scopes(&tokens.scopes)).unwrap_or_default(),
            connection,
            account,
            provider,
            lifetime_assumed,
        };
        LiveToken::new(access_token, facts)
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
    pub(super) fn plan_retry(&self, entry: &Arc<Entry>, at: Timestamp) {
        self.schedule().push_ahead(at, entry);
    }
}

/// Whether two tokens are the same one.
pub(super) fn is_same(a: &SecretString, b: &SecretString) -> bool {
    constant_time_eq(a.expose_secret().as_bytes(), b.expose_secret().as_bytes())
}

/// Whether it helps to wait for what does not answer.
pub(super) fn is_outage(reason: Reason) -> bool {
    matches!(reason, Reason::StorageUnavailable | Reason::EncryptionUnavailable)
}
