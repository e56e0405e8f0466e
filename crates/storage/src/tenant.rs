use std::collections::BTreeMap;

use async_trait::async_trait;
use tokenward_types::{TenantId, Timestamp};

use crate::{Page, PageRequest, Result, Version};

/// Whether a tenant's tokens are given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TenantState {
    /// They are.
    Active,
    /// They are not, until the tenant is active again; its grants are kept alive.
    Suspended,
}

/// A customer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// The identifier.
    pub id: TenantId,
    /// A name for people; may be empty.
    pub display_name: String,
    /// Labels that access rules can select by.
    pub labels: BTreeMap<String, String>,
    /// Whether its tokens are given out.
    pub state: TenantState,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// Counts its changes.
    pub version: Version,
}

/// Tenants.
#[async_trait]
pub trait TenantStore: Send + Sync {
    /// Inserts a tenant with version 1, whatever its `version` says, and returns it.
    ///
    /// # Errors
    /// `AlreadyExists` when the identifier is taken.
    async fn create_tenant(&self, tenant: &Tenant) -> Result<Tenant>;

    /// The tenant, with every field as it was written.
    async fn get_tenant(&self, tenant: &TenantId) -> Result<Option<Tenant>>;

    /// Tenants in order of their identifiers.
    async fn list_tenants(&self, page: &PageRequest) -> Result<Page<Tenant>>;

    /// Writes display name, labels, state and `updated_at` where the stored version is `tenant.version`; the result
    /// carries the next version. `None` when there is no such tenant.
    ///
    /// # Errors
    /// `Conflict` when the stored version is another.
    async fn update_tenant(&self, tenant: &Tenant) -> Result<Option<Tenant>>;

    /// Deletes the tenant with all that belongs to it: connections, attempts, spares, revocations, links, pending
    /// grants and data keys. `false` when there is none.
    ///
    /// # Errors
    /// `InUse`, without `force`, while it has a connection that is not revoked, a pending grant that was not refused, or a
    /// queued revocation; of a deletion and a consent at once one wins.
    async fn delete_tenant(&self, tenant: &TenantId, force: bool) -> Result<bool>;
}
