//! Servers that are started for a run of the tests, and that nothing outlives.

use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::apt;
use crate::shell;

/// A running server that stops, and whose folder goes, when this is dropped or when this process ends in any way.
pub(crate) struct Server {
    name: &'static str,
    guard: Child,
}

/// Runs `$2` and what follows, for [`KILL`] to end.
const RUN: &str = r#"folder=$1; shift; "$@" </dev/null >"$folder/log" 2>&1 & set -- "$folder""#;
const KILL: &str = "kill -9 $! 2>/dev/null; wait";

impl Server {
    /// A shell that waits for its standard input to close, which the end of this process does whatever ends it, and
    /// then runs `stop` and removes the folder. It is in a process group of its own, where Ctrl-C does not reach. In
    /// `start` and `stop`, `$1` is the folder and `$2` and what follows are `arguments`.
    pub(super) fn guard(
        name: &'static str,
        folder: &str,
        start: &str,
        stop: &str,
        arguments: &[&str],
    ) -> Result<Self> {
        Self::guard_in(as_server_user("sh"), name, folder, start, stop, arguments)
    }

    fn guard_in(
        mut shell: Command,
        name: &'static str,
        folder: &str,
        start: &str,
        stop: &str,
        arguments: &[&str],
    ) -> Result<Self> {
        let script = format!(
            "trap '' HUP INT TERM
            {start}
            cat >/dev/null
            {stop}
            rm -rf \"$1\""
        );
        shell.args(["-c", &script, "sh", folder]).args(arguments);
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).process_group(0);
        Ok(Self { name, guard: shell.spawn().context("cannot run sh")? })
    }

    /// Runs a program for as long as this lives, its output in the folder's `log`. Whether it is ready is another question.
    pub(super) fn run(name: &'static str, folder: &str, program: &[&str]) -> Result<Self> {
        Self::guard(name, folder, RUN, KILL, program)
    }

    /// Like [`Self::run`], but as the user who runs us: for programs of the checkout, which no other user may reach.
    pub(super) fn run_as_self(name: &'static str, folder: &str, program: &[&str]) -> Result<Self> {
        let mut shell = shell::command("sh");
        shell.current_dir("/");
        Self::guard_in(shell, name, folder, RUN, KILL, program)
    }
}

impl Server {
    /// Nothing but a folder that goes with this.
    pub(super) fn keep(name: &'static str, folder: &str) -> Result<Self> {
        Self::guard_in(shell::command("sh"), name, folder, "", "", &[])
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        if let Err(error) = self.guard.wait() {
            eprintln!("cannot tell whether {} stopped: {error}", self.name);
        }
    }
}

/// A folder under /tmp, since the checkout's parents may be closed to the user that the server runs as.
pub(super) fn folder(name: &str) -> Result<String> {
    shell::output(as_server_user("mktemp").args(["-d", &format!("/tmp/tokenward-{name}.XXXXXX")]))
}

/// Like [`folder`], but of the user who runs us.
pub(super) fn own_folder(name: &str) -> Result<String> {
    shell::output(shell::command("mktemp").args(["-d", &format!("/tmp/tokenward-{name}.XXXXXX")]))
}

/// PostgreSQL and pgbouncer refuse to run as root, who therefore becomes the user that Debian's package makes.
pub(super) fn as_server_user(program: impl AsRef<std::ffi::OsStr>) -> Command {
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

pub(super) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Waits until a server listens; what it logged is in the error if it does not.
pub(super) fn wait_for_port(port: u16, folder: &str) -> Result<()> {
    for _ in 0..300 {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    bail!("it does not listen after 30 s\n{}", log(folder))
}

/// What the server in a folder logged.
pub(super) fn log(folder: &str) -> String {
    std::fs::read_to_string(format!("{folder}/log")).unwrap_or_default().trim_end().to_owned()
}

/// Makes a certificate authority, and a certificate of it for the name `localhost`, in a folder: `ca.pem`, `cert.pem` and
/// `key.pem`. The address 127.0.0.1 is not in it, so that a client that checks names shows.
pub(super) fn make_certificates(folder: &str) -> Result<()> {
    if shell::find("openssl").is_none() {
        apt::install("openssl")?;
    }
    let file = |name: &str| format!("{folder}/{name}.pem");
    let (ca, ca_key) = (file("ca"), file("ca-key"));
    let make = |certificate: &str, key: &str, more: &[&str]| {
        let mut openssl = as_server_user("openssl");
        openssl.args(["req", "-x509", "-days", "2", "-nodes", "-newkey", "ec"]);
        openssl.args(["-pkeyopt", "ec_paramgen_curve:P-256", "-out", certificate, "-keyout", key]);
        shell::output(openssl.args(more))
    };
    make(&ca, &ca_key, &["-subj", "/CN=tests", "-addext", "keyUsage=keyCertSign"])?;
    let signed = ["-subj", "/CN=localhost", "-CA", &ca, "-CAkey", &ca_key];
    let names = ["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"];
    make(&file("cert"), &file("key"), &[&signed[..], &names[..]].concat()).map(drop)
}
