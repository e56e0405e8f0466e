//! After the run: whatever is in the way goes, everything settles, and every connection must refresh once more.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, stream};
use tokenward_api::admin::v1::RefreshConnectionRequest;
use tokenward_api::admin::v1::connection_service_client::ConnectionServiceClient;
use tokio::time::{Instant, timeout};

use crate::callers::{TRY, fingerprint};
use crate::people::{Line, People, get_token, line};
use crate::replica::Replica;
use crate::run::say;
use crate::scrape;
use crate::setup::Connection;
use crate::sim::Sim;

/// How long servers may take to be ready, and to store what they hold.
const READY: Duration = Duration::from_secs(60);
/// How long a connection may take to come back: suspects are looked at again after four leases.
const BACK: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(200);
const ROUND: Duration = Duration::from_secs(2);
const CALL: Duration = Duration::from_secs(10);
/// Connections that are checked at a time.
const CONCURRENCY: usize = 16;

/// What a connection came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It refreshed, and gave out this token, by its fingerprint.
    Kept(u64),
    /// It did not; what the server said last.
    Lost(String),
}

/// What all of them came to.
#[derive(Clone, Debug)]
pub struct Checked {
    /// By the connections' numbers.
    pub fates: Vec<Fate>,
    /// Spent tokens that came again where that is an alarm.
    pub reuse_detected: u64,
    /// Accounts without a living refresh token.
    pub dead_at_vendor: u64,
}

/// Waits until every server runs, says that it is ready, and holds nothing that is not stored, and until every lease is over.
///
/// # Errors
/// When that does not come.
pub async fn settle(replicas: &[Arc<Replica>], lease: Duration) -> Result<()> {
    let settled = timeout(READY, async {
        loop {
            let mut all = true;
            for replica in replicas {
                replica.look_after().await?;
                replica.scrape().await;
                let newest = replica.scraped.all().pop().unwrap_or_default();
                let unsaved = scrape::sum(&[newest], "tokenward_unsaved_results").unwrap_or(0.0);
                all &= unsaved == 0.0 && replica.is_ready().await;
            }
            if all {
                return anyhow::Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
    });
    settled.await.context("the servers do not settle")??;
    // Others' leases are taken over up to 5 s after a database has come back.
    tokio::time::sleep(lease + Duration::from_secs(6)).await;
    for replica in replicas {
        replica.must_run().await?;
    }
    Ok(())
}

/// Forces a refresh of every connection, and compares with the vendor's books.
///
/// # Errors
/// When the vendor does not answer.
pub async fn check(
    replicas: &[Arc<Replica>],
    people: &People,
    sim: &Sim,
    connections: &[Connection],
) -> Result<Checked> {
    let lines: Vec<(Line, Line)> = replicas
        .iter()
        .map(|replica| {
            let admin = line(replica.addresses.admin, &people.operator)?;
            Ok((admin, line(replica.addresses.service, &people.service)?))
        })
        .collect::<Result<_>>()?;
    ensure!(!lines.is_empty(), "there are no replicas");
    let begun = Instant::now();
    let mut fates = vec![Fate::Lost(String::new()); connections.len()];
    let mut left: Vec<usize> = (0..connections.len()).collect();
    for round in 0.. {
        let tries = left.iter().map(|number| {
            // Another replica each time.
            let (admin, service) = &lines[(number + round) % lines.len()];
            async move { (*number, refresh(admin, service, &connections[*number]).await) }
        });
        let done: Vec<(usize, Fate)> = stream::iter(tries).buffer_unordered(CONCURRENCY).collect().await;
        left.clear();
        for (number, fate) in done {
            if matches!(fate, Fate::Lost(_)) {
                left.push(number);
            }
            fates[number] = fate;
        }
        left = still_alive(sim, connections, left).await?;
        if left.is_empty() || begun.elapsed() > BACK {
            break;
        }
        say(&format!("  {} connections are not back yet", left.len()));
        tokio::time::sleep(ROUND).await;
    }
    let (mut reuse_detected, mut dead_at_vendor) = (0, 0);
    for connection in connections {
        let families = sim.families(connection.hub_id).await?;
        reuse_detected += families.iter().map(|family| family.reuse_detected).sum::<u64>();
        dead_at_vendor += u64::from(!families.iter().any(|family| family.alive));
    }
    Ok(Checked { fates, reuse_detected, dead_at_vendor })
}

/// Those that can still come back, as the vendor sees it.
async fn still_alive(sim: &Sim, connections: &[Connection], numbers: Vec<usize>) -> Result<Vec<usize>> {
    let mut alive = Vec::new();
    for number in numbers {
        let families = sim.families(connections[number].hub_id).await?;
        if families.iter().any(|family| family.alive) {
            alive.push(number);
        }
    }
    Ok(alive)
}

async fn refresh(admin: &Line, service: &Line, connection: &Connection) -> Fate {
    let request = RefreshConnectionRequest {
        tenant_id: connection.tenant_id.clone(),
        connection_id: connection.connection_id.clone(),
    };
    let mut client = ConnectionServiceClient::new(admin.clone());
    match timeout(CALL, client.refresh_connection(request)).await {
        Ok(Ok(_)) => {}
        Ok(Err(status)) => return Fate::Lost(format!("{:?}: {}", status.code(), status.message())),
        Err(_) => return Fate::Lost("no answer in time".to_owned()),
    }
    match get_token(service, connection.tenant_id.clone(), TRY).await {
        Ok(answer) => Fate::Kept(fingerprint(&answer.access_token)),
        Err(status) => Fate::Lost(format!("{:?}: {}", status.code(), status.message())),
    }
}
