//! PostgreSQL, as Debian packages it.

use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use anyhow::{Context, Result, bail};
use tokio::process::Command;

use super::NAME;
use crate::ports::free_address;
use crate::process::output;

/// Enough for every server's pool.
const MAX_CONNECTIONS: u16 = 200;

/// A server that stops, and whose folder goes, when this is dropped or when this process ends in any way.
pub struct Postgres {
    programs: PathBuf,
    folder: String,
    address: SocketAddr,
    guard: Child,
}

impl Postgres {
    /// Starts a new one.
    ///
    /// # Errors
    /// When there is no PostgreSQL, or it does not come up.
    pub(super) async fn start() -> Result<Self> {
        let programs = programs().context(
            "PostgreSQL's programs are not in /usr/lib/postgresql: apt-get install --no-install-recommends postgresql",
        )?;
        // Under /tmp, since other folders may be closed to the user that the server runs as.
        let folder =
            output(&mut as_server_user("mktemp", &["-d", "/tmp/tokenward-chaos.XXXXXX"]).await).await?;
        let folder = folder.trim().to_owned();
        let guard = guard(&programs, &folder).await?;
        let server = Self { programs, folder, address: free_address()?, guard };
        let data = format!("{}/data", server.folder);
        server
            .run("initdb", &["-A", "trust", "-E", "UTF8", "--locale=C", "-U", "postgres", "-D", &data])
            .await?;
        server.up().await?;
        let port = server.address.port().to_string();
        server.run("createdb", &["-h", "127.0.0.1", "-p", &port, "-U", "postgres", NAME]).await?;
        Ok(server)
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) async fn up(&self) -> Result<()> {
        let port = self.address.port();
        let settings = format!(
            "-p {port} -k {} -c listen_addresses=127.0.0.1 -c max_connections={MAX_CONNECTIONS}",
            self.folder
        );
        let (data, log) = (format!("{}/data", self.folder), format!("{}/log", self.folder));
        let started = self.run("pg_ctl", &["-w", "-D", &data, "-l", &log, "-o", &settings, "start"]).await;
        if let Err(error) = started {
            let log = std::fs::read_to_string(log).unwrap_or_default();
            bail!("{error:#}\n{}", log.trim_end());
        }
        Ok(())
    }

    pub(super) async fn crash(&self) -> Result<()> {
        let data = format!("{}/data", self.folder);
        self.run("pg_ctl", &["-D", &data, "-m", "immediate", "stop"]).await
    }

    async fn run(&self, program: &str, arguments: &[&str]) -> Result<()> {
        let path = self.programs.join(program).display().to_string();
        let done = output(&mut as_server_user(&path, arguments).await).await;
        done.map(drop).with_context(|| format!("{program} failed"))
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        // The guard has said why, if it could not stop it.
        let _ = self.guard.wait();
    }
}

/// The folder of the newest version's programs, which Debian keeps out of `PATH`.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    let found = versions.filter_map(|entry| {
        let version = entry.file_name().to_str()?.parse::<u32>().ok()?;
        let folder = entry.path().join("bin");
        folder.join("initdb").is_file().then_some((version, folder))
    });
    found.max().map(|(_, folder)| folder)
}

/// A shell that waits for its standard input to close, which the end of this process does whatever ends it, and then stops
/// the server and removes its folder. It is in a process group of its own, where Ctrl-C does not reach.
async fn guard(programs: &Path, folder: &str) -> Result<Child> {
    let script = r#"trap '' HUP INT TERM
        cat >/dev/null
        [ ! -f "$2/data/postmaster.pid" ] || "$1/pg_ctl" -D "$2/data" -m immediate stop >/dev/null 2>&1
        rm -rf "$2""#;
    let programs = programs.display().to_string();
    let mut shell = as_server_user("sh", &["-c", script, "sh", &programs, folder]).await.into_std();
    shell.stdin(Stdio::piped()).stdout(Stdio::null()).process_group(0);
    shell.spawn().context("cannot run sh")
}

/// PostgreSQL refuses to run as root, who therefore becomes the user that Debian's package makes.
async fn as_server_user(program: &str, arguments: &[&str]) -> Command {
    let is_root = output(Command::new("id").arg("-u")).await.is_ok_and(|id| id.trim() == "0");
    let mut command = if is_root {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--", program]);
        command
    } else {
        Command::new(program)
    };
    command.args(arguments).current_dir("/");
    command
}
