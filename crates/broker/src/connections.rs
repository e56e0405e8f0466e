//! Connections as operators see and handle them, and the queue of grants to revoke.

use std::time::Duration;

use tokenward_provider::ErrorClass;
use tokenward_storage::{
    AccountRef, Connection, ConnectionFilter, ConnectionState, Page, PageRequest, Revocation,
    StorageErrorKind, Version,
};
use tokenward_types::{ConnectionId, TenantId};

use crate::backoff::backoff_after;
use crate::broker::{Broker, state_name};
use crate::line::Turn;
use crate::refresh::Want;
use crate::{Actor, Error, Place, Reason, audit};

/// How many revocations are taken off the queue at once.
const REVOCATIONS: u32 = 20;
/// The first wait after a failed revocation, and the longest.
const REVOCATION_BACKOFF: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(3600));
/// How often an attempt in flight is looked at again.
const ATTEMPT_POLL: Duration = Duration::from_millis(100);
/// After so many tries a revocation is given up: about two days.
const REVOCATION_TRIES: i32 = 50;

impl Broker {
    /// One connection.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn get_connection(&self, tenant: &TenantId, id: &ConnectionId) -> Result<Connection, Error> {
        let connection = self.storage().get_connection(tenant, id).await?;
        connection.ok_or_else(|| Error::not_found("connection", id))
    }

    /// A page of connections.
    ///
    /// # Errors
    /// `StorageUnavailable`.
    pub async fn list_connections(
        &self,
        filter: &ConnectionFilter,
        page: &PageRequest,
    ) -> Result<Page<Connection>, Error> {
        Ok(self.storage().list_connections(filter, page).await?)
    }

    /// Refreshes a connection's token now, whatever its age; one that was called dead gets another chance.
    ///
    /// # Errors
    /// `NotFound`, `ConnectionRequired` when it is disconnected, `InvalidRequest` for a static one, and what the provider's
    /// refusal means.
    pub async fn refresh_connection(
        &self,
        actor: &Actor,
        tenant: &TenantId,
        id: &ConnectionId,
    ) -> Result<Connection, Error> {
        let result = async {
            let connection = self.get_connection(tenant, id).await?;
            if connection.kind == tokenward_storage::ConnectionKind::Static {
                return Err(Error::invalid(
                    "connection_id",
                    "a static token cannot be refreshed: import a new one",
                ));
            }
            self.tenant(tenant).await?;
            let refresh = self.refresh_surely(tenant, id, Want::Now);
            self.patiently(tenant, id, connection.oauth_client.as_ref(), refresh).await?;
            self.get_connection(tenant, id).await
        }
        .await;
        audit::admin_result(actor, "connection.refresh", &format!("{tenant}/{id}"), result)
    }

    /// Disconnects: waits for a refresh in flight, wipes the tokens here and has the grant revoked at the provider, unless
    /// another connection shares it. Repeating it changes nothing.
    ///
    /// # Errors
    /// `NotFound`; `EtagMismatch` when `etag` is given and is not the current one.
    pub async fn disconnect(
        &self,
        actor: &Actor,
        tenant: &TenantId,
        id: &ConnectionId,
        etag: Option<Version>,
        reason: &str,
    ) -> Result<Connection, Error> {
        let reason = if reason.is_empty() { "disconnected" } else { reason };
        let result = async {
            let before = self.get_connection(tenant, id).await?;
            let after = self.disconnect_after_attempt(tenant, id, etag, reason).await;
            // Whatever the outcome: of one that is unknown, memory must not give out what the database took back.
            self.forget_tenant(tenant);
            let after = after?;
            if before.state != after.state {
                audit::state_change(tenant, id, state_name(before.state), state_name(after.state), reason);
            }
            let broker = self.clone();
            self.spawn(async move { broker.run_revocations().await });
            Ok(after)
        }
        .await;
        audit::admin_result(actor, "connection.disconnect", &format!("{tenant}/{id}"), result)
    }

    /// Disconnects when no attempt is in flight any more, so that the newest token is the one that is revoked.
    async fn disconnect_after_attempt(
        &self,
        tenant: &TenantId,
        id: &ConnectionId,
        etag: Option<Version>,
        reason: &str,
    ) -> Result<Connection, Error> {
        let patience = self.settings().lease + Duration::from_secs(2);
        let started = self.clock().monotonic();
        loop {
            self.flights().wait_for(tenant, id).await;
            let seen = self.get_connection(tenant, id).await?;
            if etag.is_some_and(|etag| etag != seen.version) {
                return Err(Error::new(Reason::EtagMismatch, "the connection changed since it was read")
                    .with("etag", seen.version.to_string()));
            }
            let disconnected =
                self.storage().disconnect(tenant, id, Some(seen.version), reason, self.now()).await;
            match disconnected {
                Ok(after) => return after.ok_or_else(|| Error::not_found("connection", id)),
                Err(error)
                    if error.kind() == StorageErrorKind::Conflict
                        && self.clock().monotonic().since(started) < patience =>
                {
                    tokio::time::sleep(ATTEMPT_POLL).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Deletes a disconnected connection's record.
    ///
    /// # Errors
    /// `NotFound`; `InUse` when it is not disconnected.
    pub async fn delete_connection(
        &self,
        actor: &Actor,
        tenant: &TenantId,
        id: &ConnectionId,
    ) -> Result<(), Error> {
        let result = match self.storage().delete_connection(tenant, id).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::not_found("connection", id)),
            Err(error) if error.kind() == StorageErrorKind::InUse => {
                Err(Error::new(Reason::InUse, "disconnect the connection first").internal(error))
            }
            Err(error) => Err(error.into()),
        };
        self.forget_tenant(tenant);
        audit::admin_result(actor, "connection.delete", &format!("{tenant}/{id}"), result)
    }

    /// Revokes what is queued and due. Failures stay on the queue.
    pub(crate) async fn run_revocations(&self) {
        let due = match self.storage().list_revocations(self.now(), REVOCATIONS).await {
            Ok(due) => due,
            Err(error) => {
                tracing::warn!(%error, "cannot read the queue of revocations");
                return;
            }
        };
        // All at once: one provider's slow answers delay no other's.
        let revoke = |revocation: Revocation| async move {
            if let Err(error) = self.revoke(&revocation).await {
                tracing::warn!(
                    tenant = %revocation.tenant,
                    connection = %revocation.connection,
                    tries = revocation.tries,
                    %error,
                    detail = error.log_detail(),
                    "a grant could not be revoked yet"
                );
            }
        };
        futures::future::join_all(due.into_iter().map(revoke)).await;
    }

    async fn revoke(&self, revocation: &Revocation) -> Result<(), Error> {
        let Revocation { tenant, connection, oauth_client, refresh_token, grant_fence, tries, .. } =
            revocation;
        // First put off, so that two servers do not work on it at once and a crash cannot make a tight loop.
        let (base, max) = REVOCATION_BACKOFF;
        let wait = backoff_after(base, max, u32::try_from(*tries).unwrap_or(0), self.rng());
        self.storage().postpone_revocation(tenant, connection, *grant_fence, self.now() + wait).await?;
        let finish = || self.storage().finish_revocation(tenant, connection, *grant_fence);
        if *tries >= REVOCATION_TRIES {
            self.metrics().alert("revocation_given_up", connection.as_str());
            return Ok(finish().await?);
        }
        let client = self.client(oauth_client).await?;
        if !client.provider.info().revocation {
            return Ok(finish().await?);
        }
        let sharers = self.storage().find_account(&client.client.provider, &revocation.account).await?;
        let is_shared = |other: &AccountRef| {
            other.oauth_client.as_ref() == Some(oauth_client) && other.state != ConnectionState::Revoked
        };
        if sharers.iter().any(is_shared) {
            // The customer connected again: revoking the old token might end the new grant.
            return Ok(finish().await?);
        }
        let place = Place::token(tenant, connection.as_str(), "refresh_token", *grant_fence);
        let token = self.sealer().open_text(place, refresh_token).await?;
        let permit = self.admit(&client, tenant, connection, Turn::Idle).await?;
        let revoked = client.provider.revoke(&client.first_credentials()?, &token).await;
        match &revoked {
            Err(error) if error.class == ErrorClass::RateLimited => {
                permit.rate_limited(error.retry_after, self.now());
            }
            Err(_) => permit.unanswered(self.now()),
            Ok(()) => permit.neutral(),
        }
        revoked.map_err(|error| {
            Error::new(Reason::ProviderUnavailable, "the provider did not revoke the grant").internal(error)
        })?;
        tracing::info!(tenant = %tenant, connection = %connection, "grant revoked at the provider");
        Ok(finish().await?)
    }

    /// Whether a state lets a connection be used.
    pub(crate) fn is_usable(state: ConnectionState) -> bool {
        matches!(state, ConnectionState::Active | ConnectionState::Suspect)
    }
}
