//! How long replicas go on giving out what was forbidden on another one: a tenant that is suspended, a caller who is blocked.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use prost_types::FieldMask;
use tokenward_api::admin::v1::principal_service_client::PrincipalServiceClient;
use tokenward_api::admin::v1::tenant::State;
use tokenward_api::admin::v1::tenant_service_client::TenantServiceClient;
use tokenward_api::admin::v1::{BlockPrincipalRequest, Tenant, UnblockPrincipalRequest, UpdateTenantRequest};
use tokenward_bench::load::Random;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tonic::{Code, Status};

use crate::history::History;
use crate::people::{CANARY, Line, People, get_token, line};
use crate::replica::Replica;
use crate::time::now_ms;

/// Between two measurements.
const PAUSE: Duration = Duration::from_secs(3);
/// Between two rounds of questions.
const POLL: Duration = Duration::from_millis(25);
/// How long replicas are watched after a change, at the least and at the most.
const LEAST: Duration = Duration::from_secs(1);
const MOST: Duration = Duration::from_secs(12);
/// How long one call may take.
const CALL: Duration = Duration::from_secs(2);
const TRY: Duration = Duration::from_millis(500);

/// A token that was given out after it was forbidden.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// By whom.
    pub replica: usize,
    /// When that one was asked.
    pub asked_ms: i64,
    /// When the change had been answered.
    pub changed_ms: i64,
}

/// What was measured.
#[derive(Clone, Debug, Default)]
pub struct Watched {
    /// How often something was forbidden.
    pub changes: u64,
    /// What was given out all the same.
    pub sightings: Vec<Sighting>,
}

/// The longest time in milliseconds that a replica gave out what was forbidden: after the change, and after the replica could
/// reach the database again, whichever was later. Nothing is held against it while it cannot.
pub fn stale_ms_max(history: &History, sightings: &[Sighting]) -> i64 {
    let stale = sightings.iter().filter_map(|sighting| {
        let replica = history.replicas.get(sighting.replica)?;
        let (_, life) = history.life_at(sighting.replica, sighting.asked_ms)?;
        let reaching = history.reaching(replica, life).at(sighting.asked_ms)?;
        Some(sighting.asked_ms - sighting.changed_ms.max(reaching.from))
    });
    stale.max().unwrap_or(0)
}

/// Forbids and allows again, until told to stop.
pub struct Canary {
    admins: Vec<Line>,
    operators: Vec<Line>,
    services: Vec<Line>,
    tenant_id: String,
    random: Random,
}

impl Canary {
    /// A canary whose tenant nobody else asks for.
    ///
    /// # Errors
    /// When an address makes no URI.
    pub fn new(replicas: &[Arc<Replica>], people: &People, tenant_id: String, seed: u64) -> Result<Self> {
        let lines = |bearer, of: fn(&Replica) -> std::net::SocketAddr| {
            replicas.iter().map(|replica| line(of(replica), bearer)).collect::<Result<Vec<_>>>()
        };
        Ok(Self {
            admins: lines(&people.admin, |replica| replica.addresses.admin)?,
            operators: lines(&people.operator, |replica| replica.addresses.admin)?,
            services: lines(&people.canary, |replica| replica.addresses.service)?,
            tenant_id,
            random: Random::new(seed),
        })
    }

    /// Goes on until stopped; what it forbids, it allows again.
    pub async fn work(mut self, mut stopped: watch::Receiver<bool>) -> Watched {
        let mut watched = Watched::default();
        let mut is_tenant = false;
        while timeout(PAUSE, stopped.wait_for(|stopped| *stopped)).await.is_err() {
            is_tenant = !is_tenant;
            for service in &self.services {
                // So that there is something in memory that could be given out.
                let _ = get_token(service, self.tenant_id.clone(), TRY).await;
            }
            if let Some(changed_ms) = self.change(is_tenant, true, MOST).await {
                watched.changes += 1;
                self.watch(changed_ms, &mut watched.sightings).await;
            }
            // Also after a change that nobody answered: it may have been made.
            while self.change(is_tenant, false, MOST).await.is_none() && !*stopped.borrow() {}
        }
        watched
    }

    /// Asks every replica until each has refused.
    async fn watch(&self, changed_ms: i64, sightings: &mut Vec<Sighting>) {
        let begun = Instant::now();
        let mut has_refused = vec![false; self.services.len()];
        while begun.elapsed() < MOST && (begun.elapsed() < LEAST || has_refused.contains(&false)) {
            for (replica, service) in self.services.iter().enumerate() {
                let asked_ms = now_ms();
                match get_token(service, self.tenant_id.clone(), TRY).await {
                    Ok(_) => {
                        has_refused[replica] = false;
                        sightings.push(Sighting { replica, asked_ms, changed_ms });
                    }
                    Err(status) => has_refused[replica] |= is_refusal(&status),
                }
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Forbids or allows through one replica after the other; returns when it was answered.
    async fn change(&mut self, is_tenant: bool, forbid: bool, patience: Duration) -> Option<i64> {
        let begun = Instant::now();
        while begun.elapsed() < patience {
            let through = self.random.below(self.admins.len());
            let changed = if is_tenant {
                timeout(CALL, self.suspend(through, forbid)).await
            } else {
                timeout(CALL, self.block(through, forbid)).await
            };
            if matches!(changed, Ok(Ok(()))) {
                return Some(now_ms());
            }
            tokio::time::sleep(POLL).await;
        }
        None
    }

    async fn suspend(&self, through: usize, forbid: bool) -> Result<(), Status> {
        let state = if forbid { State::Suspended } else { State::Active };
        let tenant = Tenant { tenant_id: self.tenant_id.clone(), state: state.into(), ..Tenant::default() };
        let update_mask = Some(FieldMask { paths: vec!["state".to_owned()] });
        let request = UpdateTenantRequest { tenant: Some(tenant), update_mask };
        TenantServiceClient::new(self.operators[through].clone()).update_tenant(request).await.map(drop)
    }

    async fn block(&self, through: usize, forbid: bool) -> Result<(), Status> {
        let principal = format!("builtin:{CANARY}");
        let mut client = PrincipalServiceClient::new(self.admins[through].clone());
        if forbid {
            let request = BlockPrincipalRequest { principal, reason: "chaos".to_owned() };
            return client.block_principal(request).await.map(drop);
        }
        match client.unblock_principal(UnblockPrincipalRequest { principal }).await {
            Err(status) if status.code() != Code::NotFound => Err(status),
            _ => Ok(()),
        }
    }
}

/// Suspended, or blocked.
fn is_refusal(status: &Status) -> bool {
    matches!(status.code(), Code::FailedPrecondition | Code::PermissionDenied)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Life, ReplicaHistory};
    use crate::spans::{Span, Spans};

    #[test]
    fn a_replica_has_time_from_the_change_and_from_its_return() {
        let life = Life { born: 0, serving: Some(0), stopping: None, end: None, frozen: Spans::default() };
        let cut = Spans::of(Span::new(1_000, 5_000));
        let replica = ReplicaHistory { lives: vec![life], storage_cut: cut, ..ReplicaHistory::default() };
        let history = History { replicas: vec![replica], ..History::default() };
        let stale =
            |asked_ms, changed_ms| stale_ms_max(&history, &[Sighting { replica: 0, asked_ms, changed_ms }]);
        assert_eq!(stale(900, 400), 500, "from the change");
        assert_eq!(stale(4_900, 400), 0, "it cannot know");
        assert_eq!(stale(5_700, 400), 700, "from its return");
        assert_eq!(stale(9_000, 6_500), 2_500);
        assert_eq!(stale_ms_max(&history, &[]), 0);
    }
}
