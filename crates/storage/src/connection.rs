use std::time::Duration;

use async_trait::async_trait;
use tokenward_types::{
    AccountId, ConnectLinkId, ConnectionId, OAuthClientId, ProviderName, Scopes, Sealed, TenantId, Timestamp,
};

use crate::{Page, PageRequest, Result, Version};

/// How a connection came to its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnectionKind {
    /// By an OAuth grant that is refreshed.
    OAuth,
    /// By a token that an admin imported and that does not expire.
    Static,
}

/// What is known of a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnectionState {
    /// It works.
    Active,
    /// The provider called it dead once; not yet believed.
    Suspect,
    /// It is dead: only the customer can help.
    ReauthRequired,
    /// We disconnected it.
    Revoked,
}

/// Who refreshes a connection at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The server that holds it.
    pub owner: String,
    /// How long it still holds, by the database's clock; zero when it has lapsed.
    pub remaining: Duration,
}

/// The tokens of a grant, as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenSet {
    /// The access token.
    pub access_token: Sealed,
    /// The refresh token; a static connection has none.
    pub refresh_token: Option<Sealed>,
    /// When the access token was requested.
    pub issued_at: Timestamp,
    /// When the access token expires; `None` for never.
    pub expires_at: Option<Timestamp>,
    /// The scopes that the access token carries.
    pub scopes: Scopes,
}

/// One tenant's grant to one OAuth client for one external account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The tenant.
    pub tenant: TenantId,
    /// The identifier, unique within the tenant.
    pub id: ConnectionId,
    /// The provider.
    pub provider: ProviderName,
    /// How it came to its token.
    pub kind: ConnectionKind,
    /// The client that the grant was given to; `None` for a static connection.
    pub oauth_client: Option<OAuthClientId>,
    /// The account at the provider.
    pub account: AccountId,
    /// The account's name for people; may be empty.
    pub account_name: String,
    /// What is known of the grant.
    pub state: ConnectionState,
    /// Why it is in that state, for people; may be empty.
    pub state_reason: String,
    /// When it came into that state.
    pub state_since: Timestamp,
    /// The tokens. A revoked connection has none.
    pub tokens: Option<TokenSet>,
    /// The last lease given; the next attempt is one higher.
    pub lease_fence: i64,
    /// The attempt that produced the stored tokens; their ciphertexts are bound to it.
    pub grant_fence: i64,
    /// Bumped by re-consent and disconnect.
    pub consent_epoch: i64,
    /// The lease, if one was given and not released.
    pub lease: Option<Lease>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed, leases aside.
    pub updated_at: Timestamp,
    /// Counts its changes, leases included.
    pub version: Version,
}

/// What a consent is based on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsentBase {
    /// No connection of this tenant, client and account was seen.
    New,
    /// This one was; the epoch and fence are those that were read with it.
    Existing {
        /// The epoch that was read.
        consent_epoch: i64,
        /// The lease fence that was read.
        lease_fence: i64,
    },
}

/// A fresh grant: by the connect flow, or imported.
#[derive(Clone, Debug)]
pub struct Consent {
    /// The tenant.
    pub tenant: TenantId,
    /// The connection: a new identifier, or the existing one's.
    pub connection: ConnectionId,
    /// What it is based on.
    pub base: ConsentBase,
    /// The provider.
    pub provider: ProviderName,
    /// How it came to its token.
    pub kind: ConnectionKind,
    /// The client that the grant was given to.
    pub oauth_client: Option<OAuthClientId>,
    /// The account.
    pub account: AccountId,
    /// The account's name for people.
    pub account_name: String,
    /// The tokens, sealed for fence 1 where the base is new, for the seen lease fence + 1 where it exists.
    pub tokens: TokenSet,
    /// Whether another tenant's connection to the same account is refused.
    pub exclusive_account: bool,
    /// The link that is used up by it.
    pub link: Option<ConnectLinkId>,
    /// The pending grant that it settles.
    pub pending: Option<String>,
    /// Now.
    pub now: Timestamp,
}

/// A change of state that holds only if nothing else changed.
#[derive(Clone, Debug)]
pub struct StateChange {
    /// The version that was read.
    pub seen: Version,
    /// The new state, other than `Revoked`.
    pub state: ConnectionState,
    /// Why, for people.
    pub reason: String,
    /// Now.
    pub now: Timestamp,
}

/// Which connections a listing shows; `None` does not filter.
#[derive(Clone, Debug, Default)]
pub struct ConnectionFilter {
    /// Those of this tenant.
    pub tenant: Option<TenantId>,
    /// Those of this client.
    pub oauth_client: Option<OAuthClientId>,
    /// Those of this provider.
    pub provider: Option<ProviderName>,
    /// Those in this state.
    pub state: Option<ConnectionState>,
}

/// Where a connection to an account was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountRef {
    /// The tenant that holds it.
    pub tenant: TenantId,
    /// The connection.
    pub connection: ConnectionId,
    /// The client.
    pub oauth_client: Option<OAuthClientId>,
    /// Its state.
    pub state: ConnectionState,
}

/// A refresh token that waits to be revoked at the provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// The tenant.
    pub tenant: TenantId,
    /// The connection that was disconnected.
    pub connection: ConnectionId,
    /// The client.
    pub oauth_client: OAuthClientId,
    /// The account.
    pub account: AccountId,
    /// The refresh token, sealed as the connection's.
    pub refresh_token: Sealed,
    /// The fence that its ciphertext is bound to.
    pub grant_fence: i64,
    /// How often it was tried.
    pub tries: i32,
    /// When to try next.
    pub due_at: Timestamp,
}

/// Connections.
#[async_trait]
pub trait ConnectionStore: Send + Sync {
    /// Writes a fresh grant. New: inserts the connection as active with epoch 1 and both fences 1. Existing: replaces
    /// tokens, account name and state (active), adds one to the epoch, sets both fences to the seen lease fence + 1,
    /// releases the lease, and drops attempts and spares; `state_since` moves only if the state differs. In the same
    /// transaction the link is marked used, the pending grant is removed, and queued revocations of the same client and
    /// account, of whichever tenant, are taken off the queue: revoking an older token of a grant can end the whole grant.
    ///
    /// # Errors
    /// `LinkUsed` when the link was used before or does not exist any more; of two consents by one link at once one wins.
    /// `AlreadyExists` when the base is new and the tenant has a connection with the same provider, kind, client and
    /// account. `Conflict` when epoch or fence are no longer those seen, or the connection, the tenant or the client is gone
    /// (or the connection is one of another grant). `AccountTaken` when
    /// `exclusive_account` is set and another tenant has a connection to the account at that provider that is not
    /// revoked; of two tenants at once one wins.
    async fn save_consent(&self, consent: &Consent) -> Result<Connection>;

    /// The connection, with every field as it was written.
    async fn get_connection(
        &self,
        tenant: &TenantId,
        connection: &ConnectionId,
    ) -> Result<Option<Connection>>;

    /// The tenant's connection with this provider, kind, client and account.
    async fn find_connection(
        &self,
        tenant: &TenantId,
        provider: &ProviderName,
        kind: ConnectionKind,
        oauth_client: Option<&OAuthClientId>,
        account: &AccountId,
    ) -> Result<Option<Connection>>;

    /// All connections of one tenant that are not revoked, in order of their identifiers, at most 1,000. A row that no version
    /// of this program wrote, such as one with an unknown state, is reported and left out.
    async fn list_tenant_connections(&self, tenant: &TenantId) -> Result<Vec<Connection>>;

    /// Connections that pass the filter, in order of tenant and identifier. A row that no version of this program wrote is
    /// reported and left out.
    async fn list_connections(
        &self,
        filter: &ConnectionFilter,
        page: &PageRequest,
    ) -> Result<Page<Connection>>;

    /// Every connection of whichever tenant to one account, at most 100.
    async fn find_account(&self, provider: &ProviderName, account: &AccountId) -> Result<Vec<AccountRef>>;

    /// How many connections there are in each state; states without any may be missing.
    async fn count_connections(&self) -> Result<Vec<(ProviderName, ConnectionState, u64)>>;

    /// Changes the state where the stored version is the seen one; `state_since` moves only if the state differs.
    /// `None` when there is no such connection.
    ///
    /// # Errors
    /// `Conflict` when the stored version is another, the connection is revoked (a consent revives it) or would become so
    /// (a disconnect revokes it).
    async fn change_state(
        &self,
        tenant: &TenantId,
        connection: &ConnectionId,
        change: &StateChange,
    ) -> Result<Option<Connection>>;

    /// Disconnects: state revoked, epoch + 1, tokens, lease, attempts and spares gone; its refresh token, if it had one, is
    /// queued for revocation in the same transaction, unless another connection that is not revoked has the same
    /// client and account; of two that share a grant and are disconnected at once, one queues it. Repeating it changes
    /// nothing. `None` when there is no such connection.
    ///
    /// # Errors
    /// `Conflict` when `seen` is given and the stored version is another, that of an earlier disconnect included; or while a
    /// lease holds by the database's clock: the attempt in flight may bring a token that has to be revoked too.
    async fn disconnect(
        &self,
        tenant: &TenantId,
        connection: &ConnectionId,
        seen: Option<Version>,
        reason: &str,
        now: Timestamp,
    ) -> Result<Option<Connection>>;

    /// Deletes a revoked connection; a queued revocation stays. `false` when there is none.
    ///
    /// # Errors
    /// `InUse` when it is not revoked.
    async fn delete_connection(&self, tenant: &TenantId, connection: &ConnectionId) -> Result<bool>;

    /// Queued revocations that are due, oldest first, at most `limit`.
    async fn list_revocations(&self, now: Timestamp, limit: u32) -> Result<Vec<Revocation>>;

    /// Counts a try and puts the revocation off until `due_at`.
    async fn postpone_revocation(
        &self,
        tenant: &TenantId,
        connection: &ConnectionId,
        grant_fence: i64,
        due_at: Timestamp,
    ) -> Result<()>;

    /// Takes a revocation off the queue. Repeating it changes nothing.
    async fn finish_revocation(
        &self,
        tenant: &TenantId,
        connection: &ConnectionId,
        grant_fence: i64,
    ) -> Result<()>;
}
