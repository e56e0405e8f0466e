//! Memory and start with many connections.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use tokio::time::Instant;

use crate::gateway::{Gateway, Site};
use crate::load::{Peer, each};
use crate::machine;
use crate::options::Options;
use crate::requests::{Call, Expected};
use crate::run::say;
use crate::setup::Filled;
use crate::stats::{median, millis};

/// How long a start may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a server is left alone before its memory is read.
const SETTLE: Duration = Duration::from_secs(3);

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Many {
    /// Resident memory with all connections in the cache, in megabytes (10^6 bytes).
    pub rss_mb: f64,
    /// The most that was resident on the way there.
    pub peak_mb: f64,
    /// From the start of the process to the first answered GetToken, each start.
    pub each_start_ms: Vec<f64>,
    /// The median of those.
    pub start_ms: f64,
}

/// Resident memory of a server that has just started and has nothing to do, in megabytes.
///
/// # Errors
/// When it is gone.
pub async fn idle(gateway: &mut Gateway) -> Result<f64> {
    tokio::time::sleep(SETTLE).await;
    gateway.child.must_run()?;
    Ok(machine::memory(gateway.child.pid())?.rss_mb)
}

/// Starts the server several times, then asks it once for every tenant's token.
///
/// # Errors
/// When anything fails.
pub async fn measure(site: &Site, filled: &Filled, options: &Options) -> Result<Many> {
    let tenants = filled.world.tenants();
    let call = |tenant| site.call(&filled.world.read(tenant), filled.reader()?, Expected::Anything);
    let mut each_start_ms = Vec::new();
    for number in 0..options.starts {
        let begin = Instant::now();
        let mut gateway = site.start()?;
        first_answer(&mut gateway, &call(tenants * number / options.starts)?).await?;
        each_start_ms.push(millis(begin.elapsed()));
        say(&format!("start {}: first token after {:.1} ms", number + 1, millis(begin.elapsed())));
        gateway.child.stop().await?;
    }
    let mut gateway = site.serve().await?;
    say(&format!("asking for each of {tenants} tokens once"));
    let all: Result<Vec<Call>> = (0..tenants).map(call).collect();
    let all: Arc<[Call]> = all?.into();
    each(site.service, all.clone(), options.connections, 64).await?;
    tokio::time::sleep(SETTLE).await;
    gateway.child.must_run()?;
    let memory = machine::memory(gateway.child.pid())?;
    all_in_memory(&gateway, &all, options).await?;
    gateway.child.stop().await?;
    let start_ms = median(&each_start_ms).context("there were no starts")?;
    Ok(Many { rss_mb: memory.rss_mb, peak_mb: memory.peak_mb, each_start_ms, start_ms })
}

/// Tries until the server answers.
async fn first_answer(gateway: &mut Gateway, call: &Call) -> Result<()> {
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        if let Ok(mut peer) = Peer::connect(gateway.site.service).await {
            match peer.call(call).await {
                Ok(_) => return Ok(()),
                Err(error) => say(&format!("  not yet: {error}")),
            }
        }
        gateway.child.must_run()?;
        // Shorter than the runtime's timer can sleep; nothing else waits on this thread.
        std::thread::sleep(Duration::from_micros(200));
    }
    bail!("the server did not answer within {} s", PATIENCE.as_secs())
}

/// The figure is worth nothing if connections had been pushed out: a second pass must hit the cache every time.
async fn all_in_memory(gateway: &Gateway, calls: &Arc<[Call]>, options: &Options) -> Result<()> {
    let misses = |text: &str| {
        let line = text.lines().find(|line| line.contains("cache_misses") && !line.starts_with('#'));
        line.and_then(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            .context("metrics tell of no cache misses")
    };
    let before = misses(&gateway.metrics().await?)?;
    each(gateway.site.service, calls.clone(), options.connections, 64).await?;
    let absent = misses(&gateway.metrics().await?)? - before;
    ensure!(absent < 1.0, "{absent} of {} connections were not in the cache", calls.len());
    Ok(())
}
