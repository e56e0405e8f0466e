//! Tenants.

use std::collections::BTreeMap;

use tokenward_storage::{Page, PageRequest, StorageError, StorageErrorKind, Tenant, TenantState, Version};
use tokenward_types::TenantId;

use super::{MAX_TRIES, audited, check_seen, validate};
use crate::audit::Actor;
use crate::{Broker, Error};

/// A tenant to create.
#[derive(Clone, Debug)]
pub struct NewTenant {
    /// The identifier.
    pub id: TenantId,
    /// A name for people; may be empty.
    pub display_name: String,
    /// Labels that access rules can select by; 64 at the most.
    pub labels: BTreeMap<String, String>,
    /// Whether its tokens are given out.
    pub state: TenantState,
}

/// What to change about a tenant; `None` leaves a field as it is.
#[derive(Clone, Debug, Default)]
pub struct TenantChange {
    /// The new name.
    pub display_name: Option<String>,
    /// The new labels, all of them.
    pub labels: Option<BTreeMap<String, String>>,
    /// The new state.
    pub state: Option<TenantState>,
}

impl Broker {
    /// Creates a tenant.
    ///
    /// # Errors
    /// `InvalidRequest`, `AlreadyExists`.
    pub async fn create_tenant(&self, actor: &Actor, new: NewTenant) -> Result<Tenant, Error> {
        let id = new.id.clone();
        let outcome = self.try_create_tenant(new).await;
        audited(actor, "tenant.create", id.as_str(), outcome)
    }

    async fn try_create_tenant(&self, new: NewTenant) -> Result<Tenant, Error> {
        validate::display_name(&new.display_name)?;
        validate::labels(&new.labels)?;
        let now = self.clock().now();
        let tenant = Tenant {
            id: new.id,
            display_name: new.display_name,
            labels: new.labels,
            state: new.state,
            created_at: now,
            updated_at: now,
            version: 1,
        };
        let created = self.storage().create_tenant(&tenant).await;
        created.map_err(|error| Error::or_exists(error, "tenant", &tenant.id))
    }

    /// The tenant.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn get_tenant(&self, id: &TenantId) -> Result<Tenant, Error> {
        self.storage().get_tenant(id).await?.ok_or_else(|| Error::not_found("tenant", id))
    }

    /// Tenants in order of their identifiers.
    ///
    /// # Errors
    /// Those of storage.
    pub async fn list_tenants(&self, page: &PageRequest) -> Result<Page<Tenant>, Error> {
        Ok(self.storage().list_tenants(page).await?)
    }

    /// Changes a tenant, if it still is as it was `seen`; `None` for whichever.
    ///
    /// # Errors
    /// `InvalidRequest`, `NotFound`, `EtagMismatch`.
    pub async fn update_tenant(
        &self,
        actor: &Actor,
        id: &TenantId,
        seen: Option<Version>,
        change: TenantChange,
    ) -> Result<Tenant, Error> {
        let outcome = self.try_update_tenant(id, seen, change).await;
        // Also after an error: a commit whose outcome is unknown may have happened.
        self.forget_tenant(id);
        audited(actor, "tenant.update", id.as_str(), outcome)
    }

    async fn try_update_tenant(
        &self,
        id: &TenantId,
        seen: Option<Version>,
        change: TenantChange,
    ) -> Result<Tenant, Error> {
        change.display_name.as_deref().map_or(Ok(()), validate::display_name)?;
        change.labels.as_ref().map_or(Ok(()), validate::labels)?;
        let mut tries = 1;
        loop {
            let mut tenant = self.get_tenant(id).await?;
            check_seen(seen, tenant.version)?;
            let TenantChange { display_name, labels, state } = change.clone();
            tenant.display_name = display_name.unwrap_or(tenant.display_name);
            tenant.labels = labels.unwrap_or(tenant.labels);
            tenant.state = state.unwrap_or(tenant.state);
            tenant.updated_at = self.clock().now();
            match self.storage().update_tenant(&tenant).await {
                Ok(updated) => return updated.ok_or_else(|| Error::not_found("tenant", id)),
                Err(error) if error.kind() == StorageErrorKind::Conflict && tries < MAX_TRIES => tries += 1,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Deletes a tenant with its connections and data keys. Without `force` only one whose connections are all
    /// disconnected, and none of whose grants is still being stored or revoked.
    ///
    /// # Errors
    /// `NotFound`, `EtagMismatch`, `InUse`.
    pub async fn delete_tenant(
        &self,
        actor: &Actor,
        id: &TenantId,
        seen: Option<Version>,
        force: bool,
    ) -> Result<(), Error> {
        let outcome = self.try_delete_tenant(id, seen, force).await;
        self.forget_tenant(id);
        // A tenant that is created again under this name gets data keys of its own.
        self.sealer().forget(id.as_str());
        audited(actor, "tenant.delete", id.as_str(), outcome)
    }

    async fn try_delete_tenant(
        &self,
        id: &TenantId,
        seen: Option<Version>,
        force: bool,
    ) -> Result<(), Error> {
        let tenant = self.get_tenant(id).await?;
        check_seen(seen, tenant.version)?;
        match self.storage().delete_tenant(id, force).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::not_found("tenant", id)),
            Err(error) if error.kind() == StorageErrorKind::InUse => Err(self.still_in_use(id, error).await),
            Err(error) => Err(error.into()),
        }
    }

    /// Names what keeps a tenant from being deleted.
    async fn still_in_use(&self, id: &TenantId, error: StorageError) -> Error {
        let found = self.storage().list_tenant_connections(id).await.unwrap_or_default();
        let Some(connection) = found.first() else {
            return Error::from(error).saying(format!(
                "tenant {id} has a grant that is being stored or revoked: repeat this in a moment, or force the deletion"
            ));
        };
        Error::from(error)
            .saying(format!(
                "tenant {id} has connections, such as {}: disconnect them first, or force the deletion",
                connection.id
            ))
            .with("connection_id", connection.id.as_str())
    }
}
