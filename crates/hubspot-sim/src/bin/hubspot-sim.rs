//! The stand-in HubSpot as a process, for tests in other languages and for benchmarks.

use std::{fs, net::SocketAddr, path::PathBuf};

use anyhow::Context;
use clap::Parser;
use serde_json::json;
use tokenward_hubspot_sim::{HubspotSim, SimConfig};

/// A stand-in HubSpot: OAuth, consent page, contacts, and faults on order under /_sim.
///
/// Example: hubspot-sim --listen 127.0.0.1:8089 --redirect-uri http://localhost:8080/connect/callback
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Address to listen on; port 0 picks a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Write {"base_url", "authorize_url", "apps", "portals"} to this file once listening.
    #[arg(long, value_name = "PATH")]
    ready_file: Option<PathBuf>,
    /// JSON file with apps, portals, settings, clock, seed; without it there is one demo app and two accounts.
    #[arg(long, value_name = "PATH")]
    config: Option<PathBuf>,
    /// Redirect URI of the demo app; may be repeated.
    #[arg(long, value_name = "URI", conflicts_with = "config")]
    redirect_uri: Vec<String>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut config = match &args.config {
        Some(path) => {
            let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
            serde_json::from_str(&text).with_context(|| format!("in {}", path.display()))?
        }
        None => SimConfig::demo(args.redirect_uri),
    };
    config.listen = args.listen;
    let ready = json!({"apps": config.apps, "portals": config.portals});
    let sim = HubspotSim::start(config).await?;
    if let Some(path) = &args.ready_file {
        let mut ready = ready;
        ready["base_url"] = json!(sim.base_url());
        ready["authorize_url"] = json!(sim.authorize_url());
        // Renamed into place, so that whoever waits for it never reads half of it.
        let partial = path.with_extension("partial");
        fs::write(&partial, ready.to_string()).with_context(|| format!("writing {}", partial.display()))?;
        fs::rename(&partial, path).with_context(|| format!("writing {}", path.display()))?;
    }
    println!("{}", sim.base_url());
    stop_signal().await?;
    sim.shutdown().await;
    Ok(())
}

async fn stop_signal() -> anyhow::Result<()> {
    #[cfg(unix)]
    {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            _ = terminate.recv() => {}
            result = tokio::signal::ctrl_c() => result?,
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await?;
    Ok(())
}
