//! A throwaway PostgreSQL server.

use std::ffi::OsString;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use super::{Part, Ready, apt};
use crate::shell;
use crate::workspace::Workspace;

/// A superuser's URL of the server's `postgres` database; each test makes a database of its own.
pub(crate) const PART: Part = Part { name: "postgres", variable: "TOKENWARD_TEST_POSTGRES_URL", set_up };

/// Enough for every test process of a run to keep a pool open.
const MAX_CONNECTIONS: u16 = 200;

fn set_up(_: &Workspace) -> Result<Ready> {
    let programs = if let Some(found) = find() {
        found
    } else {
        apt::install("postgresql")?;
        find().context("apt-get installed postgresql, but initdb is not in /usr/lib/postgresql")?
    };
    let server = Server::start(&programs)?;
    Ok(Ready { value: OsString::from(&server.url), server: Some(server) })
}

/// The folder of the newest PostgreSQL's server programs, which Debian keeps out of `PATH`.
fn find() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions
        .filter(|entry| entry.path().join("bin/initdb").is_file())
        .filter_map(|entry| {
            Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path().join("bin")))
        })
        .max();
    match newest {
        Some((_, folder)) => Some(folder),
        None => Some(shell::find("initdb")?.canonicalize().ok()?.parent()?.to_owned()),
    }
}

/// A running server that stops, and whose folder goes, when this is dropped or when this process ends in any way.
pub(crate) struct Server {
    url: String,
    guard: Child,
}

impl Server {
    fn start(programs: &Path) -> Result<Self> {
        // A folder under /tmp, since the checkout's parents may be closed to the user that the server runs as.
        let folder = shell::output(as_server_user("mktemp").args(["-d", "/tmp/tokenward-postgres.XXXXXX"]))?;
        let guard = guard(programs, &folder)?;
        let port = free_port()?;
        let server = Self { url: format!("postgres://postgres@127.0.0.1:{port}/postgres"), guard };
        shell::output(
            as_server_user(programs.join("initdb"))
                .args(["-A", "trust", "-E", "UTF8", "--locale=C", "-U", "postgres", "-D"])
                .arg(format!("{folder}/data")),
        )?;
        let settings = format!(
            "-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c max_connections={MAX_CONNECTIONS}"
        );
        let started = shell::output(
            as_server_user(programs.join("pg_ctl"))
                .args([
                    "-w",
                    "-D",
                    &format!("{folder}/data"),
                    "-l",
                    &format!("{folder}/log"),
                    "-o",
                    &settings,
                ])
                .arg("start"),
        );
        if let Err(error) = started {
            let log = std::fs::read_to_string(format!("{folder}/log")).unwrap_or_default();
            bail!("{error:#}\n{}", log.trim_end());
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        if let Err(error) = self.guard.wait() {
            eprintln!("cannot tell whether PostgreSQL stopped: {error}");
        }
    }
}

/// A shell that waits for its standard input to close, which the end of this process does whatever ends it, and
/// then stops the server and removes its folder. It is in a process group of its own, where Ctrl-C does not reach.
fn guard(programs: &Path, folder: &str) -> Result<Child> {
    let script = r#"trap '' HUP INT TERM
        cat >/dev/null
        [ ! -f "$2/data/postmaster.pid" ] || "$1/pg_ctl" -D "$2/data" -m immediate stop >/dev/null 2>&1
        rm -rf "$2""#;
    let mut shell = as_server_user("sh");
    shell.args(["-c", script, "sh"]).arg(programs).arg(folder);
    shell.stdin(Stdio::piped()).stdout(Stdio::null()).process_group(0);
    shell.spawn().context("cannot run sh")
}

/// PostgreSQL refuses to run as root, who therefore becomes the user that Debian's package makes.
fn as_server_user(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = if shell::is_root() {
        let mut command = shell::command("runuser");
        command.args(["-u", "postgres", "--"]).arg(program);
        command
    } else {
        shell::command(program)
    };
    command.current_dir("/");
    command
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
