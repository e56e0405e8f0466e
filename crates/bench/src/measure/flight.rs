//! Many callers of one expired connection: the provider must be asked once.

use anyhow::{Result, ensure};

use crate::gateway::Gateway;
use crate::load::each;
use crate::requests::{Expected, first_field};
use crate::run::say;
use crate::setup::Filled;
use crate::sim::Sim;
use crate::stats::count;

/// Connections that the callers share.
const CONNECTIONS: usize = 10;
/// The vendor takes this long, so that all callers are there before it has answered.
const VENDOR_MS: u64 = 500;

/// Asks `callers` times at once for the token of one tenant, which must have expired, and counts the refreshes.
///
/// # Errors
/// When a call fails, or callers got different tokens.
pub async fn measure(
    gateway: &Gateway,
    filled: &Filled,
    sim: &Sim,
    tenant: usize,
    callers: usize,
) -> Result<u64> {
    say(&format!("{callers} callers of one expired connection"));
    let hub_id = filled.first_hub_id + count(tenant);
    sim.delay_refreshes(hub_id, VENDOR_MS).await?;
    let from = sim.log_end().await?;
    let call = gateway.site.call(&filled.world.read(tenant), filled.reader()?, Expected::Anything)?;
    let answers = each(gateway.site.service, vec![call; callers].into(), CONNECTIONS, callers).await?;
    let first = answers.first().and_then(|answered| first_field(&answered.answer));
    ensure!(
        first.is_some() && answers.iter().all(|answered| first_field(&answered.answer) == first),
        "callers got different tokens"
    );
    let log = sim.log_since(from).await?;
    Ok(count(log.iter().filter(|entry| entry.is_refresh() && entry.hub_id == Some(hub_id)).count()))
}
