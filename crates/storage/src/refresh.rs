use std::time::Duration;

use async_trait::async_trait;
use tokenward_types::{ConnectionId, ProviderName, Sealed, TenantId, Timestamp};

use crate::{Connection, Result, TokenSet};

/// How far fences move ahead when the database was put back to an earlier state.
pub const FENCE_JUMP: i64 = 1 << 32;

/// What is asked for when a refresh begins.
#[derive(Clone, Debug)]
pub struct BeginAttempt {
    /// The lease fence that was read; the attempt's fence is one higher.
    pub seen_lease_fence: i64,
    /// The consent epoch that was read.
    pub seen_consent_epoch: i64,
    /// The grant fence that was read: names the token that the attempt spends.
    pub seen_grant_fence: i64,
    /// Who asks.
    pub owner: String,
    /// How long the lease holds, by the database's clock.
    pub lease_for: Duration,
    /// The client-secret version that the attempt uses.
    pub secret_version: Option<i32>,
    /// Now.
    pub now: Timestamp,
}

/// A refresh that was started and whose outcome is not recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The tenant.
    pub tenant: TenantId,
    /// The connection.
    pub connection: ConnectionId,
    /// Its fence.
    pub fence: i64,
    /// The epoch under which it was started.
    pub consent_epoch: i64,
    /// The refresh token that it spends, as it was stored.
    pub refresh_token: Sealed,
    /// The fence that this token's ciphertext is bound to.
    pub token_fence: i64,
    /// The client-secret version that it uses.
    pub secret_version: Option<i32>,
    /// Who started it.
    pub owner: String,
    /// When it was started.
    pub started_at: Timestamp,
}

/// A refresh token that may still live, although another one is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spare {
    /// The refresh token, sealed as if it were the connection's.
    pub refresh_token: Sealed,
    /// The fence that its ciphertext is bound to.
    pub token_fence: i64,
    /// When it was put aside.
    pub kept_at: Timestamp,
}

/// The tokens that an attempt brought.
#[derive(Clone, Debug)]
pub struct RefreshCommit {
    /// The tenant.
    pub tenant: TenantId,
    /// The connection.
    pub connection: ConnectionId,
    /// The attempt's fence; the tokens are sealed for it.
    pub fence: i64,
    /// The epoch under which it was started.
    pub consent_epoch: i64,
    /// The fence of the token that the attempt spent.
    pub spent_token_fence: i64,
    /// The tokens, the refresh token always among them: the new one, or the old one sealed anew.
    pub tokens: TokenSet,
    /// Whether the answer brought a refresh token other than the one that was spent.
    pub rotated: bool,
    /// The account's name, where the answer told it.
    pub account_name: Option<String>,
    /// Now.
    pub now: Timestamp,
}

/// What became of a commit. The connection is as it stands after it.
#[derive(Clone, Debug)]
pub enum CommitOutcome {
    /// Its tokens are stored.
    Committed(Box<Connection>),
    /// A later attempt, a consent or a disconnect came first.
    Rejected(Box<Connection>),
    /// The connection does not exist any more.
    Gone,
}

/// The refresh protocol's rows: leases, attempts, fences, spares.
#[async_trait]
pub trait RefreshStore: Send + Sync {
    /// Takes the lease by one conditional update: lease fence, grant fence and epoch are those seen, the connection is
    /// not revoked, and no lease holds by the database's clock. In the same transaction the attempt becomes a row, with a
    /// copy of the stored refresh token. Attempts of former holders stay. The attempt's fence, or `None` when any condition
    /// fails, or there is no refresh token.
    async fn begin_attempt(
        &self,
        tenant: &TenantId,
        connection: &ConnectionId,
        begin: &BeginAttempt,
    ) -> Result<Option<i64>>;

    /// Stores an attempt's tokens where the stored grant fence is below the attempt's and the epoch is the attempt's; a
    /// lost lease alone never discards them. The attempt's row goes, the lease is released if it is the attempt's, and
    /// the state becomes active. Where the database was put back to an earlier state, the attempt's fence may be ahead of the
    /// lease fence, which then follows. A stored refresh token that is not the one that the attempt spent becomes a spare.
    ///
    /// Rejected: the attempt's row goes and, if the epoch is the attempt's and the answer rotated, its refresh token
    /// becomes a spare. The three spares with the highest token fences are kept. If the connection is revoked and the answer
    /// rotated, its refresh token is queued for revocation, unless another connection that is not revoked has the same
    /// client and account. Repeating a commit changes nothing and is `Committed` as long as its tokens are those stored.
    async fn commit_refresh(&self, commit: &RefreshCommit) -> Result<CommitOutcome>;

    /// Ends an attempt that brought no tokens: with `resolved` its row goes, without it the row stays as unresolved.
    /// The lease is released in both cases if it is the attempt's. `false`, and nothing changes, when there is no such
    /// attempt.
    async fn end_attempt(
        &self,
        tenant: &TenantId,
        connection: &ConnectionId,
        fence: i64,
        resolved: bool,
    ) -> Result<bool>;

    /// Releases every lease of an owner that is certainly gone; its attempts stay as unresolved. How many there were.
    async fn release_leases(&self, owner: &str) -> Result<u64>;

    /// After the database was put back to an earlier state: the provider's active connections become suspect for this
    /// reason; leases of its connections are released, and their lease fences and versions move ahead by [`FENCE_JUMP`], so that
    /// none that was given before is given again. How many connections became suspect.
    async fn distrust_grants(&self, provider: &ProviderName, reason: &str, now: Timestamp) -> Result<u64>;

    /// Unresolved attempts of one connection, newest first.
    async fn list_attempts(&self, tenant: &TenantId, connection: &ConnectionId) -> Result<Vec<Attempt>>;

    /// Attempts of all connections on which no lease holds by the database's clock, oldest first, at most `limit`.
    async fn list_unresolved_attempts(&self, limit: u32) -> Result<Vec<Attempt>>;

    /// Spares of one connection, the highest token fence first.
    async fn list_spares(&self, tenant: &TenantId, connection: &ConnectionId) -> Result<Vec<Spare>>;

    /// Removes a spare that turned out to be dead. Repeating it changes nothing.
    async fn remove_spare(
        &self,
        tenant: &TenantId,
        connection: &ConnectionId,
        token_fence: i64,
    ) -> Result<()>;
}
