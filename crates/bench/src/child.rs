//! The processes that are measured: started with their output in a file, ended when they are dropped.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

/// How long a process may take to come up, or to stop.
const PATIENCE: Duration = Duration::from_secs(60);
/// How much of a log is shown when something fails.
const SHOWN_LINES: usize = 20;

/// A running process.
pub struct Child {
    name: String,
    process: tokio::process::Child,
    pid: u32,
    log: PathBuf,
}

impl Child {
    /// Starts a program. What it prints goes to `NAME.log` in `folder`, its standard output to us if `piped`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(name: &str, folder: &Path, command: &mut Command, piped: bool) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log);
        let file = file.with_context(|| format!("cannot write {}", log.display()))?;
        let output = if piped { Stdio::piped() } else { Stdio::from(file.try_clone()?) };
        command.stdin(Stdio::null()).stdout(output).stderr(Stdio::from(file)).kill_on_drop(true);
        let process = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let pid = process.id().context("it ended at once")?;
        Ok(Self { name: name.to_owned(), process, pid, log })
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Lines that it has logged so far.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn log_lines(&self) -> Result<u64> {
        Ok(crate::stats::count(std::fs::read_to_string(&self.log)?.lines().count()))
    }

    /// The first line that it prints, where its output is piped: where it listens.
    ///
    /// # Errors
    /// When it ends without a word.
    pub async fn first_line(&mut self) -> Result<String> {
        let output = self.process.stdout.take().context("its output is not piped")?;
        match timeout(PATIENCE, BufReader::new(output).lines().next_line()).await {
            Ok(Ok(Some(line))) => Ok(line),
            _ => bail!("{} did not come up:\n{}", self.name, self.end_of_log()),
        }
    }

    /// Fails if it has ended.
    ///
    /// # Errors
    /// With the end of its log.
    pub fn must_run(&mut self) -> Result<()> {
        match self.process.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended ({status}):\n{}", self.name, self.end_of_log()),
        }
    }

    /// Waits until it listens at an address.
    ///
    /// # Errors
    /// When it ends, or takes too long.
    pub async fn listens(&mut self, address: SocketAddr) -> Result<()> {
        let up = timeout(PATIENCE, async {
            while tokio::net::TcpStream::connect(address).await.is_err() {
                self.must_run()?;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            anyhow::Ok(())
        });
        match up.await {
            Ok(outcome) => outcome,
            Err(_) => bail!("{} does not listen on {address}:\n{}", self.name, self.end_of_log()),
        }
    }

    /// Asks it to stop and waits until it has.
    ///
    /// # Errors
    /// When it does not stop in time; then it is killed.
    pub async fn stop(mut self) -> Result<()> {
        // The standard library can only kill.
        let told = Command::new("kill").args(["-TERM", &self.pid.to_string()]).status().await;
        if told.is_ok_and(|status| status.success()) && timeout(PATIENCE, self.process.wait()).await.is_ok() {
            return Ok(());
        }
        self.process.kill().await.with_context(|| format!("cannot stop {}", self.name))
    }

    fn end_of_log(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
    }
}

/// Runs a program to its end and returns what it printed.
///
/// # Errors
/// When it fails, with what it said.
pub async fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await?;
    if !output.status.success() {
        bail!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Addresses on loopback that nobody listens on.
///
/// # Errors
/// When there are none.
pub fn free_addresses<const N: usize>() -> Result<[SocketAddr; N]> {
    // All are held until all are known, so that they differ.
    let mut held = Vec::new();
    let mut addresses = [SocketAddr::from(([127, 0, 0, 1], 0)); N];
    for address in &mut addresses {
        let listener = std::net::TcpListener::bind(*address)?;
        *address = listener.local_addr()?;
        held.push(listener);
    }
    Ok(addresses)
}
