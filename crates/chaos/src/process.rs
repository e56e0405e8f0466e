//! Processes: started with their output in a file, signalled, ended when they are dropped.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::process::{Child, Command};

/// How much of a log is shown when something fails.
const SHOWN_LINES: usize = 20;

/// What can be sent beside SIGKILL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// End in order.
    Terminate,
    /// Stand still.
    Stop,
    /// Go on.
    Continue,
}

impl Signal {
    fn option(self) -> &'static str {
        match self {
            Self::Terminate => "-TERM",
            Self::Stop => "-STOP",
            Self::Continue => "-CONT",
        }
    }
}

/// A running program.
pub struct Process {
    name: String,
    child: Child,
    pid: u32,
    log: PathBuf,
}

impl Process {
    /// Starts a program. What it prints is appended to `NAME.log` in `folder`, its standard output goes to us if `piped`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(name: &str, folder: &Path, command: &mut Command, piped: bool) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log);
        let file = file.with_context(|| format!("cannot write {}", log.display()))?;
        let output = if piped { Stdio::piped() } else { Stdio::from(file.try_clone()?) };
        command.stdin(Stdio::null()).stdout(output).stderr(Stdio::from(file)).kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let pid = child.id().with_context(|| format!("{name} ended at once"))?;
        Ok(Self { name: name.to_owned(), child, pid, log })
    }

    /// Its standard output, where it is piped; once.
    pub fn output(&mut self) -> Option<tokio::process::ChildStdout> {
        self.child.stdout.take()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When there is no such process any more.
    pub async fn signal(&self, signal: Signal) -> Result<()> {
        // The standard library can only kill.
        let sent = Command::new("kill").args([signal.option(), &self.pid.to_string()]).output().await?;
        if !sent.status.success() {
            bail!("cannot signal {}: {}", self.name, String::from_utf8_lossy(&sent.stderr).trim());
        }
        Ok(())
    }

    /// Ends it at once.
    ///
    /// # Errors
    /// When that cannot be done.
    pub async fn kill(&mut self) -> Result<()> {
        self.child.kill().await.with_context(|| format!("cannot kill {}", self.name))
    }

    /// Waits until it has ended; `None` if it does not in time.
    pub async fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        tokio::time::timeout(patience, self.child.wait()).await.ok()?.ok()
    }

    /// The end of what it wrote, for an error.
    pub fn end_of_log(&self) -> String {
        end_of(&self.log)
    }
}

/// The last lines of a log.
pub fn end_of(log: &Path) -> String {
    let log = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
}

/// Runs a program to its end and returns what it printed.
///
/// # Errors
/// When it fails, with what it said.
pub async fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await?;
    if !output.status.success() {
        let said = [&output.stdout[..], &output.stderr[..]].concat();
        bail!("{}: {}", output.status, String::from_utf8_lossy(&said).trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_stands_still_goes_on_and_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let mut sleeper = Command::new("sleep");
        let mut process = Process::start("sleeper", folder.path(), sleeper.arg("60"), false).unwrap();
        let state = |pid: u32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()
        };
        // A signal is delivered when the process runs next; one that never is shows as a test without an end.
        process.signal(Signal::Stop).await.unwrap();
        while state(process.pid) != 'T' {
            tokio::task::yield_now().await;
        }
        process.signal(Signal::Continue).await.unwrap();
        while state(process.pid) == 'T' {
            tokio::task::yield_now().await;
        }
        assert!(process.ended().is_none());
        process.kill().await.unwrap();
        assert!(process.ended().is_some());
    }

    #[tokio::test]
    async fn a_program_that_fails_is_an_error_with_what_it_said() {
        let error = output(Command::new("sh").args(["-c", "echo why >&2; exit 3"])).await.unwrap_err();
        assert!(error.to_string().contains("why"), "{error}");
        assert_eq!(output(Command::new("echo").arg("yes")).await.unwrap(), "yes\n");
    }
}
