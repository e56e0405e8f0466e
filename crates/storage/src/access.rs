use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use tokenward_types::{AccessRuleId, Principal, ProviderName, Scopes, Sealed, TenantId, Timestamp};

use crate::{Page, PageRequest, Result, Version};

/// Which tenants a rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TenantSelector {
    /// Every tenant.
    All,
    /// These.
    Ids(BTreeSet<TenantId>),
    /// Those that carry all these labels.
    Labels(BTreeMap<String, String>),
}

/// Which scopes a rule allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScopeGrant {
    /// Whatever a connection carries.
    All,
    /// These.
    Only(Scopes),
}

/// What callers may have: principals × tenants × provider × scopes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessRule {
    /// The identifier.
    pub id: AccessRuleId,
    /// Which principals: one, or a pattern in which `*` stands for any run of characters.
    pub principal: String,
    /// Which tenants.
    pub tenants: TenantSelector,
    /// Which provider; `None` for every one.
    pub provider: Option<ProviderName>,
    /// Which scopes.
    pub scopes: ScopeGrant,
    /// Whether a token that carries more scopes than allowed may be given out.
    pub allow_broader: bool,
    /// Why the rule is there, for people; may be empty.
    pub description: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// Counts its changes.
    pub version: Version,
}

/// Access rules.
#[async_trait]
pub trait AccessRuleStore: Send + Sync {
    /// Inserts a rule with version 1 and returns it.
    ///
    /// # Errors
    /// `AlreadyExists` when the identifier is taken.
    async fn create_access_rule(&self, rule: &AccessRule) -> Result<AccessRule>;

    /// The rule, with every field as it was written.
    async fn get_access_rule(&self, rule: &AccessRuleId) -> Result<Option<AccessRule>>;

    /// Rules in order of their identifiers.
    async fn list_access_rules(&self, page: &PageRequest) -> Result<Page<AccessRule>>;

    /// Writes everything but identifier and creation time where the stored version is `rule.version`; the result carries
    /// the next version. `None` when there is no such rule.
    ///
    /// # Errors
    /// `Conflict` when the stored version is another.
    async fn update_access_rule(&self, rule: &AccessRule) -> Result<Option<AccessRule>>;

    /// Deletes a rule. `false` when there is none.
    async fn delete_access_rule(&self, rule: &AccessRuleId) -> Result<bool>;
}

/// A principal whose calls are refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockedPrincipal {
    /// Who.
    pub principal: Principal,
    /// Why, for people; may be empty.
    pub reason: String,
    /// By whom.
    pub blocked_by: String,
    /// Since when.
    pub blocked_at: Timestamp,
}

/// A signing key of the built-in issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerKey {
    /// The `kid` of tokens that it signs (RFC 7515, section 4.1.4).
    pub kid: String,
    /// The private key, PKCS #8.
    pub sealed: Sealed,
    /// The public key: 32 bytes of Ed25519.
    pub public_key: Vec<u8>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Principals and the keys of the built-in issuer.
#[async_trait]
pub trait PrincipalStore: Send + Sync {
    /// Blocks a principal. Repeating it keeps the first record.
    async fn block_principal(&self, blocked: &BlockedPrincipal) -> Result<()>;

    /// Unblocks a principal. `false` when it was not blocked.
    async fn unblock_principal(&self, principal: &Principal) -> Result<bool>;

    /// Blocked principals in order of their names.
    async fn list_blocked_principals(&self, page: &PageRequest) -> Result<Page<BlockedPrincipal>>;

    /// Inserts the first issuer key: of many at once one gets through. `false` when there is one already.
    async fn create_first_issuer_key(&self, key: &IssuerKey) -> Result<bool>;

    /// Stores another key, beside those that there are.
    ///
    /// # Errors
    /// `AlreadyExists` when there is one with this identifier.
    async fn add_issuer_key(&self, key: &IssuerKey) -> Result<()>;

    /// Issuer keys, newest first.
    async fn list_issuer_keys(&self) -> Result<Vec<IssuerKey>>;
}
