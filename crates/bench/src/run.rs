//! The run from start to end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

use crate::gateway::{Gateway, Site};
use crate::machine::Machine;
use crate::measure::{cold, flight, keys, many, warm};
use crate::options::{Options, Part};
use crate::report::Report;
use crate::setup::{self, Filled};
use crate::sim::{LONG_LIFE_SECS, Sim};
use crate::world::World;

/// Numbers of accounts, apart for each server.
const FIRST_HUB_ID: u64 = 1_000_000;
const FIRST_HUB_ID_OF_MANY: u64 = 100_000_000;
const FIRST_HUB_ID_OF_KEYS: u64 = 200_000_000;
/// Where files are kept in memory, on Linux.
const MEMORY: &str = "/dev/shm";
/// Life of tokens that are to expire soon. Less than 5 s left counts as expired.
const SHORT_LIFE_SECS: u32 = 8;
const SHORT_LIFE_WAIT: Duration = Duration::from_secs(4);

/// Tells a person how far things are.
#[expect(clippy::print_stderr, reason = "progress, apart from the report")]
pub fn say(text: &str) {
    eprintln!("{text}");
}

/// Waits for SIGINT or SIGTERM.
///
/// # Errors
/// When signals cannot be listened for.
pub async fn stop_signal() -> Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

/// Measures and prints. Every process and file goes when this ends or is dropped.
///
/// # Errors
/// When anything fails: then there are no figures.
#[expect(clippy::print_stdout, reason = "the report")]
pub async fn run(options: Options) -> Result<()> {
    let options = options.effective();
    let programs = programs(&options)?;
    let folder = match &options.scratch {
        Some(parent) => tempfile::tempdir_in(parent),
        None => tempfile::tempdir(),
    };
    let folder = folder.context("cannot create a folder")?;
    let report = measure(&options, &programs, folder.path()).await?;
    if options.json {
        println!("{}", report.json());
    } else {
        print!("{}", report.table());
    }
    Ok(())
}

fn programs(options: &Options) -> Result<PathBuf> {
    if let Some(folder) = &options.programs {
        return Ok(folder.clone());
    }
    let own = std::env::current_exe().context("cannot tell where the programs are")?;
    Ok(own.parent().context("cannot tell where the programs are")?.to_owned())
}

async fn measure(options: &Options, programs: &Path, folder: &Path) -> Result<Report> {
    let mut report = Report::new(options.clone(), Machine::this());
    let world =
        Arc::new(World::new(options.tenants, options.callers, options.rules, options.scopes, options.seed)?);
    let mut sim =
        Sim::start(&programs.join("hubspot-sim"), folder, &world.granted(), options.token_length).await?;
    let tokenward = programs.join("tokenward");
    let main = [Part::Idle, Part::Warm, Part::Cold, Part::Flight];
    // Tenants by the thousand are created in memory where that is possible: a disk would take a commit at a time.
    let quick = tempfile::tempdir_in(MEMORY).or_else(|_| tempfile::tempdir_in(folder));
    let quick = quick.context("cannot create a folder")?;
    if main.iter().any(|part| options.wants(*part)) {
        let site = Site::create(&tokenward, &quick.path().join("main"), &sim).await?;
        main_server(site, &sim, Arc::clone(&world), options, programs, folder, &mut report).await?;
    }
    if options.wants(Part::Many) {
        let site = Site::create(&tokenward, &quick.path().join("many"), &sim).await?;
        report.many = Some(many_connections(site, &sim, options, folder).await?);
    }
    if options.wants(Part::Keys) {
        let postgres = options.postgres_url.clone();
        let site = Site::create_on(&tokenward, &quick.path().join("keys"), &sim, postgres).await?;
        report.keys = Some(replaced_keys(site, &sim, world, options, folder).await?);
    }
    sim.must_run()?;
    Ok(report)
}

async fn main_server(
    site: Site,
    sim: &Sim,
    world: Arc<World>,
    options: &Options,
    programs: &Path,
    folder: &Path,
    report: &mut Report,
) -> Result<()> {
    let site = if options.wants(Part::Idle) {
        // The first start sets up the database: a server that has just started is the second one.
        site.serve().await?.child.stop().await?;
        let mut gateway = site.serve().await?;
        report.idle_rss_mb = Some(many::idle(&mut gateway).await?);
        gateway.child.stop().await?;
        gateway.site
    } else {
        site
    };
    if ![Part::Warm, Part::Cold, Part::Flight].iter().any(|part| options.wants(*part)) {
        return Ok(());
    }
    let tenants = if options.wants(Part::Warm) { options.tenants } else { 0 };
    let (site, filled) = fill(site, sim, world, tenants, FIRST_HUB_ID, options, &folder.join("main")).await?;
    let mut gateway = site.serve().await?;
    if options.wants(Part::Warm) {
        report.warm = Some(warm::measure(&mut gateway, &filled, programs, folder, options).await?);
    }
    if options.wants(Part::Cold) || options.wants(Part::Flight) {
        say("connections whose tokens expire at once");
        let (first, last) = (options.tenants, options.tenants + options.cold_calls);
        let people = gateway.people().await?;
        sim.set_token_lifetime(SHORT_LIFE_SECS).await?;
        let numbers = first..last + 1;
        setup::tenants(&people, sim, &filled.world, numbers, FIRST_HUB_ID, options.setup_concurrency).await?;
        sim.set_token_lifetime(LONG_LIFE_SECS).await?;
        tokio::time::sleep(SHORT_LIFE_WAIT).await;
        if options.wants(Part::Cold) {
            report.cold = Some(cold::measure(&gateway, &filled, sim, first..last).await?);
        }
        if options.wants(Part::Flight) {
            let calls = flight::measure(&gateway, &filled, sim, last, options.concurrent_callers).await?;
            report.provider_calls = Some(calls);
        }
    }
    gateway.child.must_run()?;
    gateway.child.stop().await
}

async fn many_connections(site: Site, sim: &Sim, options: &Options, folder: &Path) -> Result<many::Many> {
    let tenants = options.many_connections;
    let world = World::new(tenants, options.callers, options.rules, options.scopes, options.seed)?;
    let folder = folder.join("many");
    let filled = fill(site, sim, Arc::new(world), tenants, FIRST_HUB_ID_OF_MANY, options, &folder).await;
    let (site, filled) = filled?;
    many::measure(&site, &filled, options).await
}

async fn replaced_keys(
    site: Site,
    sim: &Sim,
    world: Arc<World>,
    options: &Options,
    folder: &Path,
) -> Result<keys::Keys> {
    let gateway = site.serve().await?;
    let filled = filled(&gateway, sim, world, options.tenants, FIRST_HUB_ID_OF_KEYS, options).await?;
    gateway.child.stop().await?;
    keys::measure(&gateway.site, &folder.join("keys"), &filled, options).await
}

/// Creates everything, stops the server, and moves its files to `folder`: what is measured has its data on disk.
async fn fill(
    site: Site,
    sim: &Sim,
    world: Arc<World>,
    tenants: usize,
    first_hub_id: u64,
    options: &Options,
    folder: &Path,
) -> Result<(Site, Filled)> {
    let gateway = site.serve().await?;
    let filled = filled(&gateway, sim, world, tenants, first_hub_id, options).await?;
    gateway.child.stop().await?;
    let copied = site.copy_to(folder)?;
    site.remove()?;
    Ok((copied, filled))
}

/// Creates everything.
async fn filled(
    gateway: &Gateway,
    sim: &Sim,
    world: Arc<World>,
    tenants: usize,
    first_hub_id: u64,
    options: &Options,
) -> Result<Filled> {
    let people = gateway.people().await?;
    say("creating an OAuth client, rules and callers");
    setup::oauth_client(&people, &world).await?;
    let bearers = setup::callers(&people, &world, options.setup_concurrency).await?;
    setup::tenants(&people, sim, &world, 0..tenants, first_hub_id, options.setup_concurrency).await?;
    Ok(Filled { world, bearers, first_hub_id })
}
