//! The run from start to end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use parking_lot::Mutex;
use tokenward_types::{Rng, SystemRng};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::callers::{Callers, Calls, Load};
use crate::canary::{Canary, Watched};
use crate::check;
use crate::customers::Customers;
use crate::database::Database;
use crate::history::{Chronicle, History};
use crate::inject::Victims;
use crate::options::{Options, Scenario};
use crate::people::{People, get_token, line};
use crate::plan;
use crate::process::output;
use crate::replica::{KEY, Plant, Replica};
use crate::report::Report;
use crate::scrape::{self, Values};
use crate::setup::{self, Connection};
use crate::sim::{LogEntry, Sim};
use crate::verdict::{Evidence, report};

/// How often metrics are read and processes looked after.
const SCRAPE: Duration = Duration::from_millis(250);
/// How often a person is told how far things are.
const PROGRESS: Duration = Duration::from_secs(10);
/// Before anything is measured, so that tokens are in memory and pools are full.
const WARM_UP: Duration = Duration::from_secs(3);

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

/// Breaks, counts and prints. Every process and file goes when this ends or is dropped. Returns whether nothing was broken
/// that must not be.
///
/// # Errors
/// When the run could not be made: then there are no figures.
#[expect(clippy::print_stdout, reason = "the report")]
pub async fn run(options: Options) -> Result<bool> {
    let options = options.effective()?;
    let seed = options.seed.unwrap_or_else(|| SystemRng.below(1 << 32));
    say(&format!("seed {seed}"));
    let programs = programs(&options)?;
    let scratch = tempfile::tempdir().context("cannot create a folder")?;
    let folder = match &options.keep {
        Some(folder) => folder.clone(),
        None => scratch.path().to_owned(),
    };
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    // Servers run in folders of their own.
    let folder = std::path::absolute(&folder)?;
    let report = tried(&options, seed, &programs, &folder).await?;
    if options.json {
        println!("{}", report.json());
    } else {
        print!("{}", report.table());
    }
    let broken = report.broken();
    for text in &broken {
        say(&format!("BROKEN: {text}; seed {seed}"));
    }
    Ok(broken.is_empty())
}

fn programs(options: &Options) -> Result<PathBuf> {
    if let Some(folder) = &options.programs {
        return Ok(std::path::absolute(folder)?);
    }
    let own = std::env::current_exe().context("cannot tell where the programs are")?;
    Ok(own.parent().context("cannot tell where the programs are")?.to_owned())
}

async fn tried(options: &Options, seed: u64, programs: &Path, folder: &Path) -> Result<Report> {
    let mut sim = Sim::start(&programs.join("hubspot-sim"), folder, options, seed).await?;
    say("starting the database");
    let database = Database::start(options.store, folder).await?;
    let program = programs.join("tokenward");
    let mut generate = tokio::process::Command::new(&program);
    generate.args(["key", "generate", "--file"]).arg(folder.join(KEY));
    output(&mut generate).await.context("cannot make a key")?;

    let chronicle = Chronicle::new(options.servers());
    let plant = Plant {
        program: &program,
        folder,
        options,
        database: database.address(),
        vendor: sim.address(),
        chronicle: &chronicle,
    };
    let mut replicas = Vec::new();
    for index in 0..options.servers() {
        replicas.push(Arc::new(Replica::create(&plant, index).await?));
    }
    say(&format!("starting {} servers, creating {} tenants", options.replicas, options.tenants));
    for replica in &replicas {
        replica.first_start().await?;
    }
    let people = People::first(&replicas[0]).await?;
    // One more tenant than is counted: the canary's.
    let tenants = usize::try_from(options.tenants)?;
    let mut connections = setup::fill(&replicas[0], &people, &sim, tenants + 1).await?;
    let canary = connections.pop().context("there are no tenants")?;

    let victims = Victims {
        replicas,
        database: Arc::new(tokio::sync::Mutex::new(database)),
        chronicle,
        tally: Arc::new(Mutex::default()),
    };
    let run = Run { options, seed, folder, people, connections: connections.into(), canary, victims };
    let outcome = run.with(&sim).await;
    sim.must_run()?;
    outcome
}

/// Everything that is there.
struct Run<'a> {
    options: &'a Options,
    seed: u64,
    folder: &'a Path,
    people: People,
    connections: Arc<[Connection]>,
    canary: Connection,
    victims: Victims,
}

/// What came of the time under load.
struct Loaded {
    calls: Calls,
    watched: Watched,
    /// How often a customer connected again.
    reconnects: u64,
    /// The numbers of the log's entries between which it was.
    log: (u64, u64),
}

/// What the servers' processes told last.
async fn told(replicas: &[Arc<Replica>]) -> Vec<Values> {
    for replica in replicas {
        replica.scrape().await;
    }
    replicas.iter().flat_map(|replica| replica.scraped.all()).collect()
}

/// Writes down what the vendor saw and what was done to whom, for whoever looks for the cause of a loss.
fn keep(folder: &Path, log: &[LogEntry], history: &History) -> Result<()> {
    let mut lines = String::new();
    for entry in log {
        lines.push_str(&serde_json::to_string(entry)?);
        lines.push('\n');
    }
    std::fs::write(folder.join("vendor.jsonl"), lines).context("cannot write down what the vendor saw")?;
    std::fs::write(folder.join("history.txt"), format!("{history:#?}\n")).context("cannot write the history")
}

impl Run<'_> {
    async fn with(self, sim: &Sim) -> Result<Report> {
        let replicas = &self.victims.replicas;
        let watchers = self.watchers();
        if self.options.scenario != Scenario::Throughput {
            self.remember().await?;
        }
        let before = told(replicas).await;
        let loaded = match self.options.scenario {
            Scenario::Chaos => self.chaos(sim).await?,
            Scenario::DatabaseAway => self.database_away(sim).await?,
            Scenario::Throughput => self.throughput(sim).await?,
        };
        let under_load = scrape::since(&before, told(replicas).await);
        say("faults are over; everything settles");
        sim.be_well().await?;
        check::settle(replicas, Duration::from_secs(self.options.lease_seconds)).await?;
        say("refreshing every connection");
        let checked = check::check(replicas, &self.people, sim, &self.connections).await?;
        let metrics = told(replicas).await;
        watchers.iter().for_each(JoinHandle::abort);
        for replica in replicas {
            replica.over();
        }
        let (log, history) = (sim.log().await?, self.victims.chronicle.so_far());
        keep(self.folder, &log, &history)?;
        let evidence = Evidence {
            options: self.options,
            seed: self.seed,
            connections: &self.connections,
            log,
            within: loaded.log,
            calls: loaded.calls,
            watched: loaded.watched,
            reconnects: loaded.reconnects,
            checked,
            history,
            tally: self.victims.tally.lock().clone(),
            metrics,
            under_load,
        };
        Ok(report(evidence))
    }

    /// Reads metrics, and starts again what ended by itself.
    fn watchers(&self) -> Vec<JoinHandle<()>> {
        let watch = |replica: &Arc<Replica>| {
            let replica = Arc::clone(replica);
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(SCRAPE).await;
                    replica.scrape().await;
                    if let Err(error) = replica.look_after().await {
                        say(&format!("replica {} cannot be started: {error:#}", replica.index));
                    }
                }
            })
        };
        self.victims.replicas.iter().map(watch).collect()
    }

    /// Has every replica take every token into memory.
    async fn remember(&self) -> Result<()> {
        for replica in &self.victims.replicas {
            let line = line(replica.addresses.service, &self.people.service)?;
            for connection in &*self.connections {
                // Whoever is asked first may have to refresh; the load shows what does not work.
                let _ = get_token(&line, connection.tenant_id.clone(), crate::callers::TRY).await;
            }
        }
        Ok(())
    }

    fn load(&self, pause: Option<Duration>) -> Result<Callers> {
        Callers::start(&Load {
            replicas: &self.victims.replicas,
            bearer: &self.people.service,
            connections: &self.connections,
            callers: self.options.callers.unwrap_or(1),
            pause,
            seed: self.seed,
        })
    }

    /// So that all callers together call so often.
    fn paced(&self) -> Result<Callers> {
        let callers = u32::try_from(self.options.callers.unwrap_or(1))?;
        self.load(Some(Duration::from_secs(1) * callers / self.options.calls_per_second.max(1)))
    }

    async fn chaos(&self, sim: &Sim) -> Result<Loaded> {
        sim.order(&plan::vendor_faults(self.options)).await?;
        let plan = plan::plan(self.options, self.seed);
        say(&format!(
            "{} s with {} faults of servers, database and networks",
            self.options.seconds,
            plan.len()
        ));
        let begin = sim.log_end().await?;
        let callers = self.paced()?;
        let canary =
            Canary::new(&self.victims.replicas, &self.people, self.canary.tenant_id.clone(), self.seed)?;
        let (stop, stopped) = watch::channel(false);
        let canary = tokio::spawn(canary.work(stopped.clone()));
        let vendor = Duration::from_millis(self.options.vendor_ms.unwrap_or(0));
        let (replicas, connections) = (&self.victims.replicas, &*self.connections);
        let customers = Customers::new(replicas, &self.people, sim, connections, vendor, self.seed)?;
        let start = Instant::now();
        let faults = tokio::spawn(self.victims.clone().suffer(plan, start));
        let until_over = async {
            self.progress(&callers, start).await;
            if self.options.sabotage {
                sim.uninstall(self.connections[0].hub_id).await?;
            }
            stop.send_replace(true);
            anyhow::Ok(())
        };
        let reconnecting = async {
            match self.options.reconnect_pause() {
                Some(pause) => customers.work(pause, stopped).await,
                None => Ok(0),
            }
        };
        let ((), reconnects) = futures::try_join!(until_over, reconnecting)?;
        let calls = callers.stop().await;
        let end = sim.log_end().await?;
        // What is down comes up again, what is cut is whole.
        faults.await??;
        Ok(Loaded { calls, watched: canary.await?, reconnects, log: (begin, end) })
    }

    async fn database_away(&self, sim: &Sim) -> Result<Loaded> {
        say(&format!("{} s without the database", self.options.seconds));
        let begin = sim.log_end().await?;
        let chronicle = &self.victims.chronicle;
        let mut database = self.victims.database.lock().await;
        chronicle.database_down(true);
        database.crash().await?;
        self.victims.tally.lock().db_crashes += 1;
        let callers = self.paced()?;
        self.progress(&callers, Instant::now()).await;
        let calls = callers.stop().await;
        database.recover().await?;
        chronicle.database_down(false);
        let log = (begin, sim.log_end().await?);
        Ok(Loaded { calls, watched: Watched::default(), reconnects: 0, log })
    }

    async fn throughput(&self, sim: &Sim) -> Result<Loaded> {
        sim.order(&plan::vendor_faults(self.options)).await?;
        let callers = self.load(None)?;
        tokio::time::sleep(WARM_UP).await;
        say(&format!("{} s of refreshes", self.options.seconds));
        let begin = sim.log_end().await?;
        self.progress(&callers, Instant::now()).await;
        let end = sim.log_end().await?;
        let calls = callers.stop().await;
        Ok(Loaded { calls, watched: Watched::default(), reconnects: 0, log: (begin, end) })
    }

    /// Waits until the time is over, and tells how it goes.
    async fn progress(&self, callers: &Callers, start: Instant) {
        let end = start + self.options.time();
        while Instant::now() < end {
            tokio::time::sleep_until(end.min(Instant::now() + PROGRESS)).await;
            let (answered, failed) = callers.so_far();
            let tally = self.victims.tally.lock().clone();
            say(&format!(
                "  {:>4} s: {answered} calls answered, {failed} not; {} kills, {} with a refresh in flight; {} crashes",
                start.elapsed().as_secs(),
                tally.kills,
                tally.kills_with_attempt_in_flight,
                tally.db_crashes
            ));
        }
    }
}
