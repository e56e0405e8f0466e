//! One replica: a real `tokenward serve` with a configuration and folders of its own, behind proxies of its own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::process::Command;
use tokio::sync::Mutex;

use crate::database;
use crate::history::{Chronicle, End};
use crate::options::{Options, Rotation, Scenario};
use crate::ports::free_address;
use crate::process::{Process, Signal, end_of};
use crate::proxy::Proxy;
use crate::scrape::{Scraped, scrape};

/// The key that all replicas share.
pub const KEY: &str = "key";
/// How often it is looked whether a server answers.
const POLL: Duration = Duration::from_millis(20);
/// How long a server may take to come up before it is started anew.
const PATIENCE: Duration = Duration::from_secs(30);
/// After a start that failed, such as for want of the database.
const PAUSE: Duration = Duration::from_millis(300);
/// How long a server may take to stop in order.
const DRAIN: Duration = Duration::from_secs(20);

/// Where a replica listens.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// gRPC for services.
    pub service: SocketAddr,
    /// gRPC for operators and admins.
    pub admin: SocketAddr,
    /// Health and metrics.
    pub operations: SocketAddr,
}

/// One replica.
pub struct Replica {
    /// Its number.
    pub index: usize,
    /// Where it listens.
    pub addresses: Addresses,
    /// Between it and the database, where that is a server and faults are wanted.
    pub storage: Option<Proxy>,
    /// Between it and the vendor, where faults are wanted.
    pub vendor: Option<Proxy>,
    /// What its processes told of themselves.
    pub scraped: Scraped,
    /// Its process. Whoever holds this decides over its life.
    pub hands: Mutex<Hands>,
    program: PathBuf,
    folder: PathBuf,
    set: Vec<String>,
    chronicle: Chronicle,
    http: reqwest::Client,
    is_over: AtomicBool,
}

/// The process of a replica, if there is one.
#[derive(Default)]
pub struct Hands(Option<Process>);

/// What replicas are made from.
pub struct Plant<'a> {
    /// The server's program.
    pub program: &'a Path,
    /// Where each gets a folder.
    pub folder: &'a Path,
    /// How it is tried.
    pub options: &'a Options,
    /// Where the database listens, if it does.
    pub database: Option<SocketAddr>,
    /// Where the vendor listens.
    pub vendor: SocketAddr,
    /// What is written down about them.
    pub chronicle: &'a Chronicle,
}

/// The address from which the vendor sees a replica.
pub fn source(index: usize) -> IpAddr {
    let last = u8::try_from(index).unwrap_or(u8::MAX).saturating_add(11);
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, last))
}

/// The replica that an address belongs to.
pub fn replica_of(source: IpAddr) -> Option<usize> {
    let IpAddr::V4(address) = source else { return None };
    usize::from(address.octets()[3]).checked_sub(11)
}

impl Replica {
    /// Writes a configuration and starts the proxies; the server is not started.
    ///
    /// # Errors
    /// When that cannot be done.
    pub async fn create(plant: &Plant<'_>, index: usize) -> Result<Self> {
        let folder = plant.folder.join(format!("replica-{index}"));
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let addresses =
            Addresses { service: free_address()?, admin: free_address()?, operations: free_address()? };
        // What is only measured is measured without detours.
        let is_direct = plant.options.scenario == Scenario::Throughput;
        let (mut storage, mut vendor) = (None, None);
        if !is_direct {
            vendor = Some(Proxy::start(plant.vendor, source(index)).await?);
            if let Some(database) = plant.database {
                // Databases trust the loopback address alone.
                storage = Some(Proxy::start(database, Ipv4Addr::LOCALHOST.into()).await?);
            }
        }
        let database = storage.as_ref().map(Proxy::address).or(plant.database);
        let replica = Self {
            index,
            addresses,
            scraped: Scraped::default(),
            hands: Mutex::default(),
            program: plant.program.to_owned(),
            set: plant.options.set.clone(),
            chronicle: plant.chronicle.clone(),
            http: reqwest::Client::builder().no_proxy().timeout(Duration::from_millis(500)).build()?,
            is_over: AtomicBool::new(false),
            folder,
            storage,
            vendor,
        };
        let vendor = replica.vendor.as_ref().map_or(plant.vendor, Proxy::address);
        let config = replica.config(plant, database, vendor, free_address()?);
        std::fs::write(replica.config_file(), config).context("cannot write a configuration")?;
        Ok(replica)
    }

    fn config(
        &self,
        plant: &Plant<'_>,
        database: Option<SocketAddr>,
        vendor: SocketAddr,
        public: SocketAddr,
    ) -> String {
        let options = plant.options;
        let quoted = |path: &Path| serde_json::Value::from(path.display().to_string()).to_string();
        let rotation = match options.rotation {
            Rotation::None => "rotation = \"none\"".to_owned(),
            Rotation::Strict => "rotation = \"strict\"".to_owned(),
            Rotation::Grace => {
                format!("rotation = \"grace\"\ngrace_period = \"{}s\"", options.grace_seconds)
            }
        };
        let Addresses { service, admin, operations } = self.addresses;
        format!(
            "[storage]\n{storage}\n\
             [encryption]\nkind = \"local\"\nkey_file = {key}\n\n\
             [providers.hubspot]\napi_base_url = \"http://{vendor}\"\n\
             authorize_url = \"http://{vendor}/oauth/authorize\"\nallow_http = true\n\
             allow_private_addresses = true\ntimeout = \"{timeout}s\"\nconnect_timeout = \"1s\"\n{rotation}\n\n\
             [listen.service]\naddress = \"{service}\"\n\n[listen.admin]\naddress = \"{admin}\"\n\n\
             [listen.public]\naddress = \"{public}\"\n\n[listen.operations]\naddress = \"{operations}\"\n\n\
             [broker]\nlease = \"{lease}s\"\nexpired_below = \"1s\"\ndefault_min_ttl = \"2s\"\n\
             min_refresh_age = \"0s\"\nsuspect_confirm_after = \"{confirm}s\"\nbackoff_base = \"200ms\"\n\
             backoff_max = \"2s\"\n\n\
             [server]\nshutdown_grace = \"5s\"\n\n[log]\nformat = \"json\"\n",
            storage = database::section(options.store, database, plant.folder),
            key = quoted(&plant.folder.join(KEY)),
            timeout = options.timeout_seconds,
            lease = options.lease_seconds,
            // As the defaults have it: four leases.
            confirm = 4 * options.lease_seconds,
        )
    }

    fn config_file(&self) -> PathBuf {
        self.folder.join("tokenward.toml")
    }

    /// A command of the program with this replica's configuration.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).arg("--config").arg(self.config_file()).current_dir(&self.folder);
        command
    }

    /// Starts the server, as often as it takes, and waits until it answers; gives up when the run is over.
    ///
    /// # Errors
    /// When its program cannot be run.
    pub async fn bring_up(&self, hands: &mut Hands) -> Result<()> {
        while !self.is_over.load(Ordering::Relaxed) {
            let mut command = self.command(&["serve"]);
            for option in &self.set {
                command.arg("--set").arg(option);
            }
            let mut process = Process::start("tokenward", &self.folder, &mut command, false)?;
            let life = self.chronicle.born(self.index);
            if self.answers(&mut process).await {
                self.chronicle.serving(self.index);
                self.scraped.begin(life);
                hands.0 = Some(process);
                return Ok(());
            }
            process.kill().await?;
            self.chronicle.ended(self.index, End::Alone);
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Starts the server for the first time, when nothing stands in its way.
    ///
    /// # Errors
    /// When it does not come up, with the end of its log.
    pub async fn first_start(&self) -> Result<()> {
        let mut hands = self.hands.lock().await;
        if let Ok(started) = tokio::time::timeout(2 * PATIENCE, self.bring_up(&mut hands)).await {
            return started;
        }
        bail!("replica {} does not start:\n{}", self.index, end_of(&self.folder.join("tokenward.log")))
    }

    async fn answers(&self, process: &mut Process) -> bool {
        let url = format!("http://{}/livez", self.addresses.operations);
        let up = async {
            while process.ended().is_none() {
                let answer = self.http.get(&url).send().await;
                if answer.is_ok_and(|answer| answer.status().is_success()) {
                    return true;
                }
                tokio::time::sleep(POLL).await;
            }
            false
        };
        tokio::time::timeout(PATIENCE, up).await.unwrap_or(false)
    }

    /// Whether it says that it can work.
    pub async fn is_ready(&self) -> bool {
        let url = format!("http://{}/readyz", self.addresses.operations);
        self.http.get(&url).send().await.is_ok_and(|answer| answer.status().is_success())
    }

    /// Reads its metrics, if it tells them.
    pub async fn scrape(&self) {
        let url = format!("http://{}/metrics", self.addresses.operations);
        if let Some(values) = scrape(&self.http, &url).await {
            self.scraped.note(values);
        }
    }

    /// Kills it. Returns how many refreshes it had in flight at the vendor, or `None` when it did not run.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub async fn kill(&self, hands: &mut Hands) -> Result<Option<usize>> {
        let Some(mut process) = hands.0.take() else { return Ok(None) };
        self.scrape().await;
        // It stands still first, so that what is counted is what is interrupted.
        process.signal(Signal::Stop).await?;
        let in_flight = self.vendor.as_ref().map_or(0, Proxy::open_exchanges);
        process.kill().await?;
        self.chronicle.ended(self.index, End::Killed);
        Ok(Some(in_flight))
    }

    /// Asks it to stop and waits until it has. Returns whether it did so by itself, or `None` when it did not run.
    ///
    /// # Errors
    /// When it cannot be signalled.
    pub async fn terminate(&self, hands: &mut Hands) -> Result<Option<bool>> {
        let Some(mut process) = hands.0.take() else { return Ok(None) };
        self.scrape().await;
        self.chronicle.stopping(self.index);
        process.signal(Signal::Terminate).await?;
        let stopped = process.wait(DRAIN).await.is_some();
        if !stopped {
            process.kill().await?;
        }
        self.chronicle.ended(self.index, if stopped { End::Terminated } else { End::Killed });
        Ok(Some(stopped))
    }

    /// Lets it stand still for a while. Returns whether it ran.
    ///
    /// # Errors
    /// When it cannot be signalled.
    pub async fn freeze(&self, hands: &mut Hands, time: Duration) -> Result<bool> {
        let Some(process) = &hands.0 else { return Ok(false) };
        self.chronicle.frozen(self.index, true);
        process.signal(Signal::Stop).await?;
        tokio::time::sleep(time).await;
        process.signal(Signal::Continue).await?;
        self.chronicle.frozen(self.index, false);
        Ok(true)
    }

    /// Starts it again if it ended by itself, and notes that.
    ///
    /// # Errors
    /// When its program cannot be run.
    pub async fn look_after(&self) -> Result<()> {
        let Ok(mut hands) = self.hands.try_lock() else { return Ok(()) };
        let Some(status) = hands.0.as_mut().and_then(Process::ended) else { return Ok(()) };
        self.chronicle.ended(self.index, End::Alone);
        if let Some(process) = hands.0.take() {
            crate::run::say(&format!(
                "replica {} ended by itself ({status}):\n{}",
                self.index,
                process.end_of_log()
            ));
        }
        self.bring_up(&mut hands).await
    }

    /// Fails unless its server runs.
    ///
    /// # Errors
    /// When it could not be started.
    pub async fn must_run(&self) -> Result<()> {
        let mut hands = self.hands.lock().await;
        let runs = hands.0.as_mut().is_some_and(|process| process.ended().is_none());
        ensure!(runs, "replica {} does not run", self.index);
        Ok(())
    }

    /// From now on nothing is started again.
    pub fn over(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_is_known_by_the_address_that_it_comes_from() {
        assert_eq!(replica_of(source(0)), Some(0));
        assert_eq!(replica_of(source(7)), Some(7));
        assert_ne!(source(1), source(2));
        assert_eq!(replica_of("127.0.0.1".parse().unwrap()), None);
    }
}
