//! `tokenward dev`: everything on this machine, with a stand-in HubSpot and a tenant that is connected through the real
//! connect flow. Secrets are printed on purpose; nothing of this is for production.

mod banner;
mod demo;
mod flow;
mod home;
mod ready;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::{Map, Value, json};
use tokenward_config::{Backend, Config, Log};
use tokenward_hubspot_sim::{HubspotSim, RunningSim, SimConfig};
use tokenward_plugin::Problems;
use tokio::net::TcpSocket;

use crate::compose::compose;
use crate::failure::Failure;
use crate::local::{self, Access};
use crate::output;
use crate::signals::Signals;
use crate::telemetry;
use demo::{Demo, Server};
use home::Home;

/// How to run for development.
///
/// Nothing else is needed: data is kept in memory (or in --data-dir), keys are made, HubSpot is a stand-in on this machine.
/// The tokens and links that are printed are secrets of this run alone. Never use this for production.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tokenward dev
  tokenward dev --data-dir ./dev-data --ready-file ./ready.json --listen-grpc 127.0.0.1:7601")]
pub(crate) struct DevArgs {
    /// Keep data and keys in this folder, so that a restart goes on with them.
    #[arg(long, value_name = "PATH")]
    data_dir: Option<PathBuf>,
    /// Write addresses and tokens to this file as JSON once everything runs; only its owner can read it.
    #[arg(long, value_name = "PATH")]
    ready_file: Option<PathBuf>,
    /// Address of the service API; port 0 picks a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0", value_parser = loopback)]
    listen_grpc: SocketAddr,
    /// Address of the admin API.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0", value_parser = loopback)]
    listen_admin: SocketAddr,
    /// Address of the connect pages.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0", value_parser = loopback)]
    listen_http: SocketAddr,
    /// Address of health checks and metrics.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0", value_parser = loopback)]
    listen_operations: SocketAddr,
    /// Address of the stand-in HubSpot.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0", value_parser = loopback)]
    listen_hubspot: SocketAddr,
    /// How long the stand-in's access tokens live.
    #[arg(long, value_name = "DURATION", default_value = "30m", value_parser = lifetime)]
    access_token_lifetime: Duration,
    /// Makes the stand-in's tokens repeatable; keys and caller tokens never are.
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// What is logged to standard error.
    #[arg(long, value_name = "FILTER", default_value = "info")]
    log: String,
}

fn loopback(text: &str) -> Result<SocketAddr, String> {
    match text.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_loopback() => Ok(address),
        Ok(_) => Err("must be an address of this machine such as 127.0.0.1:7601".to_owned()),
        Err(_) => Err("must be an IP address and a port such as 127.0.0.1:7601".to_owned()),
    }
}

fn lifetime(text: &str) -> Result<Duration, String> {
    let lifetime =
        humantime::parse_duration(text).map_err(|_| "must be a duration such as 30m".to_owned())?;
    let permitted = Duration::from_secs(1)..=Duration::from_hours(24);
    if permitted.contains(&lifetime) { Ok(lifetime) } else { Err("must be 1s to 24h".to_owned()) }
}

pub(crate) async fn run(args: &DevArgs) -> Result<(), Failure> {
    let signals = Signals::listen()?;
    let log = Log { filter: args.log.clone(), ..Log::default() };
    telemetry::install(&log);

    // 1. A folder for the keys and token files of this run.
    let home = Home::open(args.data_dir.as_deref())?;

    // 2. The stand-in HubSpot. It accepts http redirects to localhost only, so the port must be known before.
    let (listen_http, reserved) = reserve(args.listen_http)?;
    let public_url = format!("http://localhost:{}", listen_http.port());
    let sim = start_sim(args, &public_url).await?;

    // 3. The server, put together as `serve` does it.
    let config = config(args, log, &home, listen_http, &public_url, &sim);
    let checked = local::check(config, Problems::new(), Access::Exclusive).await?;
    let composed = compose(checked).await?;
    drop(reserved);
    let tokens =
        demo::issue_tokens(composed.issuer.as_deref(), composed.broker.clock(), composed.broker.rng())?;
    home.write_tokens(&tokens)?;
    let server =
        Server { addresses: composed.server.addresses(), public_url, hubspot: sim.base_url(), tokens };
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let broker = composed.broker.clone();
    let mut serving = tokio::spawn(composed.serve(async move {
        // An error means that the sender is gone: stop as well.
        let _ = stopped.await;
    }));

    // 4. A tenant, connected through the real flow, and whatever else there is to try.
    let result = tokio::select! {
        ended = &mut serving => return ended.map_err(|error| Failure::new(error.to_string()))?,
        result = announce(args, &home, &server) => result,
    };

    // 5. Until somebody stops it.
    if result.is_ok() {
        tokio::select! {
            ended = &mut serving => return ended.map_err(|error| Failure::new(error.to_string()))?,
            () = signals.first(broker) => {}
        }
    }
    let _ = stop.send(());
    let end = serving.await.map_err(|error| Failure::new(error.to_string()))?;
    sim.shutdown().await;
    if let Some(path) = &args.ready_file {
        // What it says is not true any more.
        let _ = std::fs::remove_file(path);
    }
    result.and(end)
}

async fn announce(args: &DevArgs, home: &Home, server: &Server) -> Result<(), Failure> {
    let demo = Demo::set_up(server).await?;
    if let Some(path) = &args.ready_file {
        ready::write(path, server, &demo)?;
    }
    output::print(&banner::text(home, server, &demo))
}

/// Chooses a free port where none is given. The socket keeps it from being chosen for others, and being bound but not
/// listening, it lets the listener that asks for this very port have it.
fn reserve(address: SocketAddr) -> Result<(SocketAddr, TcpSocket), Failure> {
    let bind = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok((socket.local_addr()?, socket))
    };
    bind().map_err(|error: std::io::Error| Failure::new(format!("cannot listen on {address}: {error}")))
}

async fn start_sim(args: &DevArgs, public_url: &str) -> Result<RunningSim, Failure> {
    let mut config = SimConfig::demo([format!("{public_url}/oauth/{}/callback", demo::OAUTH_CLIENT)]);
    config.listen = args.listen_hubspot;
    config.seed = args.seed;
    config.settings.token_lifetime_secs =
        u32::try_from(args.access_token_lifetime.as_secs()).unwrap_or(u32::MAX);
    let started = HubspotSim::start(config).await;
    started.map_err(|error| Failure::new(format!("the stand-in HubSpot {error}")))
}

fn config(
    args: &DevArgs,
    log: Log,
    home: &Home,
    listen_http: SocketAddr,
    public_url: &str,
    sim: &RunningSim,
) -> Config {
    let storage = match home.database() {
        Some(path) => json!({ "path": path }),
        None => json!({ "in_memory": true }),
    };
    let hubspot = json!({
        "api_base_url": sim.base_url(),
        "authorize_url": sim.authorize_url(),
        "allow_http": true,
        "allow_private_addresses": true,
    });
    let mut config = Config {
        storage: backend(storage),
        encryption: backend(json!({ "key_file": home.key_file() })),
        providers: [("hubspot".to_owned(), backend(hubspot))].into(),
        log,
        ..Config::default()
    };
    config.listen.service.address = args.listen_grpc.to_string();
    config.listen.admin.address = args.listen_admin.to_string();
    config.listen.public.address = listen_http.to_string();
    config.listen.operations.address = args.listen_operations.to_string();
    config.public.url = Some(public_url.to_owned());
    config.server.shutdown_grace = Duration::from_secs(5);
    config
}

fn backend(options: Value) -> Backend {
    Backend::new(match options {
        Value::Object(map) => map,
        _ => Map::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_can_reach_it() {
        assert!(loopback("127.0.0.1:0").is_ok() && loopback("[::1]:7601").is_ok());
        assert!(loopback("0.0.0.0:7601").is_err() && loopback("localhost:1").is_err());
    }

    #[tokio::test]
    async fn a_reserved_port_is_given_to_nobody_but_its_listener() {
        let any = "127.0.0.1:0".parse().unwrap();
        let (address, _reserved) = reserve(any).unwrap();
        let others: Vec<_> = (0..200).map(|_| std::net::TcpListener::bind(any).unwrap()).collect();
        assert!(others.iter().all(|other| other.local_addr().unwrap() != address));
        tokio::net::TcpListener::bind(address).await.expect("it is ours");
    }
}
