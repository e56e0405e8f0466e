//! The safety net below the change log: everything in memory is compared with the database. That reads every tenant and
//! every connection, so it comes behind callers.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokenward_storage::{ConnectionState, PageRequest, Storage};
use tokenward_types::TenantId;

use crate::Error;
use crate::broker::Broker;
use crate::directory::TenantEntry;

/// The most connections of a tenant that are in memory.
const MAX_OF_TENANT: usize = 1000;

impl Broker {
    /// Compares what is in memory with the database, and drops what differs.
    pub(crate) async fn compare_memory(&self) {
        let work =
            |broker: Self, storage: Arc<dyn Storage>| async move { broker.compare_rows(&*storage).await };
        let compared = match self.compare_lists().await {
            Ok(()) => self.in_background("compare-memory", work).await.unwrap_or(Ok(())),
            Err(error) => Err(error),
        };
        if let Err(error) = compared {
            tracing::warn!(%error, detail = error.log_detail(), "cannot compare memory with the database");
        }
    }

    /// At the priority of callers: who reads the change log may wait for the same locks.
    async fn compare_lists(&self) -> Result<(), Error> {
        self.reload_rules().await?;
        self.reload_blocked().await?;
        self.reload_issuer_keys().await?;
        self.compare_oauth_clients().await
    }

    async fn compare_rows(&self, storage: &dyn Storage) -> Result<(), Error> {
        let mut known = self.directory().all();
        if known.is_empty() {
            return Ok(());
        }
        self.compare_tenants(storage, &mut known).await?;
        self.compare_connections(storage, &known).await
    }

    /// Drops tenants that changed or are gone, from memory and from `known`.
    async fn compare_tenants(
        &self,
        storage: &dyn Storage,
        known: &mut HashMap<TenantId, Arc<TenantEntry>>,
    ) -> Result<(), Error> {
        let mut same = HashSet::new();
        let mut page = PageRequest::first();
        loop {
            if self.is_stopping() {
                return Ok(());
            }
            let tenants = storage.list_tenants(&page).await?;
            for tenant in tenants.items {
                if known.get(&tenant.id).is_some_and(|entry| entry.shows(&tenant)) {
                    same.insert(tenant.id);
                }
            }
            match tenants.next {
                Some(next) => page.after = Some(next),
                None => break,
            }
        }
        known.retain(|tenant, _| {
            let is_same = same.contains(tenant);
            if !is_same {
                self.drop_tenant(tenant);
            }
            is_same
        });
        Ok(())
    }

    async fn compare_connections(
        &self,
        storage: &dyn Storage,
        known: &HashMap<TenantId, Arc<TenantEntry>>,
    ) -> Result<(), Error> {
        let mut listed: HashMap<TenantId, usize> = HashMap::new();
        let mut page = PageRequest::first();
        loop {
            if self.is_stopping() {
                return Ok(());
            }
            let marks = storage.list_connection_marks(&page).await?;
            for mark in marks.items {
                let Some(tenant) = known.get(&mark.tenant) else { continue };
                let entry = tenant.connection(mark.connection.as_str());
                let is_revoked = mark.state == ConnectionState::Revoked;
                let is_same = match entry {
                    None => is_revoked,
                    Some(entry) => {
                        entry.consent_epoch == mark.consent_epoch && entry.snapshot().state == mark.state
                    }
                };
                if !is_same {
                    self.follow_connection(&mark.tenant, &mark.connection).await?;
                }
                if !is_revoked {
                    *listed.entry(mark.tenant).or_default() += 1;
                }
            }
            match marks.next {
                Some(next) => page.after = Some(next),
                None => break,
            }
        }
        for (tenant, entry) in known {
            let count = entry.connections.len();
            if count < MAX_OF_TENANT && listed.get(tenant).copied().unwrap_or_default() != count {
                self.forget_tenant(tenant);
            }
        }
        Ok(())
    }
}
