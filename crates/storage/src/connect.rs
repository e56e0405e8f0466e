use async_trait::async_trait;
use tokenward_types::{AccountId, ConnectLinkId, OAuthClientId, Sealed, TenantId, Timestamp};

use crate::{Page, PageRequest, Result};

/// A link that lets a customer connect one tenant. Only the hash of its secret is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectLink {
    /// The tenant.
    pub tenant: TenantId,
    /// The identifier, which opens nothing.
    pub id: ConnectLinkId,
    /// SHA-256 of the link's secret.
    pub secret_hash: [u8; 32],
    /// The client that the customer consents to.
    pub oauth_client: OAuthClientId,
    /// The only account that is accepted, where the operator pinned one.
    pub account: Option<AccountId>,
    /// Where the browser may go on to afterwards.
    pub return_url: Option<String>,
    /// Who made it.
    pub created_by: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it stops working.
    pub expires_at: Timestamp,
    /// When a successful connection used it up.
    pub used_at: Option<Timestamp>,
}

/// One run from the link's page to the provider and back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectAttempt {
    /// SHA-256 of the `state` parameter (RFC 6749, section 10.12).
    pub state_hash: [u8; 32],
    /// SHA-256 of the cookie that ties it to one browser.
    pub cookie_hash: [u8; 32],
    /// The tenant.
    pub tenant: TenantId,
    /// The link that it was started from.
    pub link: ConnectLinkId,
    /// The client.
    pub oauth_client: OAuthClientId,
    /// The PKCE verifier (RFC 7636), where the provider takes it.
    pub pkce_verifier: Option<Sealed>,
    /// When it was started.
    pub created_at: Timestamp,
    /// When its state stops being accepted.
    pub expires_at: Timestamp,
}

/// What became of a state that came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsumeOutcome {
    /// It is this attempt's, and is used up now.
    Consumed(Box<ConnectAttempt>),
    /// No attempt has it.
    Unknown,
    /// The browser is not the one that started; the state stays usable.
    OtherBrowser,
    /// It came too late.
    Expired,
    /// It came before.
    AlreadyUsed,
}

/// Tokens of an exchange that are not verified yet, or were refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingGrant {
    /// The tenant.
    pub tenant: TenantId,
    /// The identifier, which the ciphertexts are bound to.
    pub id: String,
    /// The link that it came by; `None` for an import.
    pub link: Option<ConnectLinkId>,
    /// The client.
    pub oauth_client: OAuthClientId,
    /// The access token.
    pub access_token: Sealed,
    /// The refresh token.
    pub refresh_token: Option<Sealed>,
    /// What the answer told besides the tokens, as JSON without secrets.
    pub details: String,
    /// When the tokens were requested.
    pub issued_at: Timestamp,
    /// Why it was refused; such tokens are kept from use, and not revoked.
    pub refused: Option<String>,
}

/// How many attempts of one link may be open at once.
pub const MAX_OPEN_ATTEMPTS: u32 = 20;

/// The connect flow.
#[async_trait]
pub trait ConnectStore: Send + Sync {
    /// Inserts a link.
    ///
    /// # Errors
    /// `AlreadyExists` when identifier or secret hash are taken. `Conflict` when there is no such tenant or client.
    async fn create_connect_link(&self, link: &ConnectLink) -> Result<()>;

    /// The link with this secret hash, used or expired ones too.
    async fn find_connect_link(&self, secret_hash: &[u8; 32]) -> Result<Option<ConnectLink>>;

    /// The link with this identifier.
    async fn get_connect_link(&self, tenant: &TenantId, link: &ConnectLinkId) -> Result<Option<ConnectLink>>;

    /// Links of one tenant in order of their identifiers.
    async fn list_connect_links(&self, tenant: &TenantId, page: &PageRequest) -> Result<Page<ConnectLink>>;

    /// Deletes a link. `false` when there is none.
    async fn delete_connect_link(&self, tenant: &TenantId, link: &ConnectLinkId) -> Result<bool>;

    /// Inserts an attempt.
    ///
    /// # Errors
    /// `AlreadyExists` when the state hash is taken. `Conflict` when there is no such tenant or client. `InUse` when
    /// [`MAX_OPEN_ATTEMPTS`] of the link are neither consumed nor expired at the new one's `created_at`; of many at once no
    /// more get through.
    async fn start_connect_attempt(&self, attempt: &ConnectAttempt) -> Result<()>;

    /// Uses up a state by one conditional update: known, this browser's, not expired at `now`, not used before. Of many
    /// at once one gets it. Otherwise nothing changes, and the first condition that fails, in that order but with
    /// "used before" ahead of "expired", is the answer. A state that fails by what is stored waits for no write, so that
    /// strangers who guess hold up nobody.
    async fn consume_connect_attempt(
        &self,
        state_hash: &[u8; 32],
        cookie_hash: &[u8; 32],
        now: Timestamp,
    ) -> Result<ConsumeOutcome>;

    /// Inserts a pending grant.
    ///
    /// # Errors
    /// `AlreadyExists` when the tenant has one with this identifier. `Conflict` when there is no such tenant.
    async fn save_pending_grant(&self, grant: &PendingGrant) -> Result<()>;

    /// Marks a pending grant as refused; it stays, but is not listed. `false` when there is none.
    async fn refuse_pending_grant(&self, tenant: &TenantId, id: &str, reason: &str) -> Result<bool>;

    /// Pending grants of all tenants that were not refused, oldest first, at most `limit`.
    async fn list_pending_grants(&self, limit: u32) -> Result<Vec<PendingGrant>>;

    /// Deletes links and attempts that expired before `before`; returns how many.
    async fn delete_expired(&self, before: Timestamp) -> Result<u64>;
}
