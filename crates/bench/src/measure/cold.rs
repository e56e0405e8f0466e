//! What a refresh costs beside the vendor's own time.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::gateway::Gateway;
use crate::load::{Answered, each};
use crate::requests::Expected;
use crate::run::say;
use crate::setup::Filled;
use crate::sim::{LogEntry, Sim};
use crate::stats::{count, millis, percentile};

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Cold {
    /// Calls, each of which refreshed.
    pub calls: u64,
    /// Client time less the vendor's time, median.
    pub overhead_p50_ms: f64,
    /// 99th percentile.
    pub overhead_p99_ms: f64,
    /// Client time, median.
    pub client_p50_ms: f64,
    /// The vendor's time, median.
    pub vendor_p50_ms: f64,
}

/// Asks for each of these tenants' tokens once, one after the other; their tokens must have expired.
///
/// # Errors
/// When a call fails, or a call did not refresh exactly once.
pub async fn measure(
    gateway: &Gateway,
    filled: &Filled,
    sim: &Sim,
    tenants: std::ops::Range<usize>,
) -> Result<Cold> {
    say(&format!("{} calls that refresh, one after the other", tenants.len()));
    let from = sim.log_end().await?;
    let calls: Result<Vec<_>> = tenants
        .clone()
        .map(|tenant| gateway.site.call(&filled.world.read(tenant), filled.reader()?, Expected::Anything))
        .collect();
    let answers = each(gateway.site.service, calls?.into(), 1, 1).await?;
    let log = sim.log_since(from).await?;
    let hub_ids: Vec<u64> = tenants.map(|tenant| filled.first_hub_id + count(tenant)).collect();
    let pairs = matched(&answers, &hub_ids, &log)?;
    let all = |value: fn(&(Duration, Duration)) -> f64| pairs.iter().map(value).collect::<Vec<f64>>();
    let overheads = all(|(client, vendor)| millis(*client) - millis(*vendor));
    let of = |values: &[f64], percent| percentile(values, percent).context("no calls");
    Ok(Cold {
        calls: count(pairs.len()),
        overhead_p50_ms: of(&overheads, 50)?,
        overhead_p99_ms: of(&overheads, 99)?,
        client_p50_ms: of(&all(|(client, _)| millis(*client)), 50)?,
        vendor_p50_ms: of(&all(|(_, vendor)| millis(*vendor)), 50)?,
    })
}

/// The client's time of each call with the vendor's time of its refresh.
fn matched(answers: &[Answered], hub_ids: &[u64], log: &[LogEntry]) -> Result<Vec<(Duration, Duration)>> {
    let mut refreshes: HashMap<u64, Vec<&LogEntry>> = HashMap::new();
    for entry in log.iter().filter(|entry| entry.is_refresh()) {
        refreshes.entry(entry.hub_id.unwrap_or(0)).or_default().push(entry);
    }
    let pairs = answers.iter().zip(hub_ids).map(|(answered, hub_id)| {
        let of_hub = refreshes.get(hub_id).map_or(&[][..], Vec::as_slice);
        let [refresh] = of_hub else {
            anyhow::bail!("the call for account {hub_id} made {} refreshes", of_hub.len());
        };
        ensure!(refresh.delivered, "the answer to account {hub_id} was not sent");
        Ok((answered.latency, Duration::from_micros(refresh.server_us)))
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(ms: u64) -> Answered {
        Answered { answer: bytes::Bytes::new(), latency: Duration::from_millis(ms) }
    }

    fn entry(hub_id: u64, endpoint: &str, server_us: u64) -> LogEntry {
        LogEntry {
            seq: 1,
            endpoint: endpoint.to_owned(),
            grant_type: (endpoint == "token").then(|| "refresh_token".to_owned()),
            hub_id: Some(hub_id),
            server_us,
            delivered: true,
        }
    }

    #[test]
    fn each_call_meets_its_own_refresh_whatever_the_order() {
        let log = [entry(8, "token", 500), entry(7, "introspect", 9_000), entry(7, "token", 1_000)];
        let pairs = matched(&[answered(3), answered(4)], &[7, 8], &log).unwrap();
        let us = Duration::from_micros;
        assert_eq!(pairs, [(us(3_000), us(1_000)), (us(4_000), us(500))]);
    }

    #[test]
    fn a_call_that_did_not_refresh_or_did_so_twice_spoils_the_measurement() {
        assert!(matched(&[answered(3)], &[7], &[]).is_err());
        assert!(matched(&[answered(3)], &[7], &[entry(7, "token", 1), entry(7, "token", 1)]).is_err());
        let mut lost = entry(7, "token", 1);
        lost.delivered = false;
        assert!(matched(&[answered(3)], &[7], &[lost]).is_err());
    }
}
