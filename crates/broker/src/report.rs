//! A caller's API call was answered 401: is the token dead?

use std::time::Duration;

use moka::sync::Cache;
use tokenward_provider::TokenHint;
use tokenward_storage::{ConnectionKind, ConnectionState};
use tokenward_types::{ConnectionId, Fingerprint, Principal, TenantId};

use crate::Error;
use crate::broker::Broker;
use crate::callers::PATIENCE;
use crate::line::Turn;
use crate::refresh::Want;
use crate::select::denied;

/// What became of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportOutcome {
    /// The token is not the current one any more.
    Superseded,
    /// The provider says that it lives.
    Alive,
    /// It was dead and has been replaced.
    Replaced,
    /// It could not be verified or replaced now.
    Unverified,
}

/// The latest report of each connection, so that reports are coalesced and cost the provider little.
pub(crate) struct Reports(Cache<(TenantId, ConnectionId), Slot>);

type Slot =
    std::sync::Arc<tokio::sync::Mutex<Option<(tokenward_types::Monotonic, Fingerprint, ReportOutcome)>>>;

impl Default for Reports {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(100_000).time_to_idle(Duration::from_secs(600)).build())
    }
}

impl Broker {
    /// Verifies a token that a provider's API refused, and replaces it if it is dead.
    ///
    /// # Errors
    /// `InvalidRequest`; `AccessDenied` without a rule for the connection, or when there is none.
    pub async fn report_rejected(
        &self,
        principal: &Principal,
        tenant: &str,
        connection: &str,
        fingerprint: &str,
    ) -> Result<ReportOutcome, Error> {
        let tenant = TenantId::parse(tenant).map_err(|error| Error::invalid_id(&error))?;
        let connection = ConnectionId::parse(connection).map_err(|error| Error::invalid_id(&error))?;
        let fingerprint = Fingerprint::parse(fingerprint)
            .ok_or_else(|| Error::invalid("fingerprint", "is not one that GetToken gave"))?;
        let rules = self.rules().of(principal);
        if !rules.may_concern(tenant.as_str()) {
            return Err(denied(principal));
        }
        let tenant_entry = self.tenant(&tenant).await?.ok_or_else(|| denied(principal))?;
        let entry = tenant_entry.connection(connection.as_str()).ok_or_else(|| denied(principal))?;
        let labels = &*tenant_entry.labels;
        if rules.matching(tenant.as_str(), labels, &entry.provider).next().is_none() {
            return Err(denied(principal));
        }

        let slot = self.reports().0.get_with((tenant.clone(), connection.clone()), Slot::default);
        // Reports of one connection wait for each other; the second finds what the first found.
        let mut latest = slot.lock().await;
        let now = self.clock().monotonic();
        if let Some((at, known, outcome)) = &*latest {
            if *known == fingerprint && now.since(*at) < self.settings().report_interval {
                return Ok(*outcome);
            }
            if now.since(*at) < self.settings().report_interval {
                return Ok(ReportOutcome::Unverified);
            }
        }
        let outcome = self.verify(&tenant, &connection, &fingerprint).await;
        *latest = Some((now, fingerprint, outcome));
        Ok(outcome)
    }

    async fn verify(
        &self,
        tenant: &TenantId,
        connection: &ConnectionId,
        fingerprint: &Fingerprint,
    ) -> ReportOutcome {
        // The stored token counts, which another server may have replaced.
        let Ok(Some(row)) = self.storage().get_connection(tenant, connection).await else {
            return ReportOutcome::Unverified;
        };
        if !matches!(row.state, ConnectionState::Active | ConnectionState::Suspect) {
            return ReportOutcome::Superseded;
        }
        let Some(entry) = self.directory().connection(tenant, connection) else {
            return ReportOutcome::Superseded;
        };
        let known = entry.snapshot().live.clone();
        let live = if let Some(live) = known {
            live
        } else {
            let refresh = self.refresh(tenant, connection, Want::Ttl(Duration::ZERO));
            match self.patiently(tenant, connection, row.oauth_client.as_ref(), refresh).await {
                Ok(live) => live,
                Err(_) => return ReportOutcome::Unverified,
            }
        };
        if live.fingerprint != *fingerprint {
            return ReportOutcome::Superseded;
        }
        if row.kind == ConnectionKind::Static {
            return ReportOutcome::Unverified;
        }
        let Some(client) = &row.oauth_client else { return ReportOutcome::Unverified };
        let Ok(client) = self.client(client).await else { return ReportOutcome::Unverified };
        if client.provider.info().introspection {
            let Ok(credentials) = client.first_credentials() else { return ReportOutcome::Unverified };
            // Whoever reports waits, but so may anybody who reports for nothing: callers who want a token come first.
            let admitted = self.admit(&client, tenant, connection, Turn::Doubt);
            let Ok(Ok(permit)) = tokio::time::timeout(PATIENCE, admitted).await else {
                return ReportOutcome::Unverified;
            };
            match client.provider.introspect(&credentials, &live.access_token(), TokenHint::AccessToken).await
            {
                Ok(answer) => {
                    permit.neutral();
                    if answer.active {
                        return ReportOutcome::Alive;
                    }
                    entry.update(|snapshot| {
                        // Known to be dead: nobody gets it any more, even if refreshing fails.
                        if snapshot.live.as_ref().is_some_and(|known| known.fingerprint == live.fingerprint) {
                            snapshot.live = None;
                        }
                    });
                }
                Err(error) => {
                    permit.unanswered(self.now());
                    tracing::warn!(tenant = %tenant, connection = %connection, class = error.class.as_str(), "cannot verify a reported token");
                    return ReportOutcome::Unverified;
                }
            }
        }
        let refresh = self.refresh_surely(tenant, connection, Want::NewerThan(live.issued_at));
        match self.patiently(tenant, connection, row.oauth_client.as_ref(), refresh).await {
            Ok(_) => ReportOutcome::Replaced,
            Err(_) => ReportOutcome::Unverified,
        }
    }
}
