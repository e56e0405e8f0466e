//! pgbouncer in front of the PostgreSQL server, pooling in each of its three ways.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::server::{Server, as_server_user, folder, free_port, wait_for_port};
use super::{Part, Ready, Setup, apt, postgres};
use crate::shell;
use crate::workspace::Workspace;

/// A URL by way of pgbouncer. The users `session`, `transaction` and `statement` are pooled as their names say; who needs
/// one makes it at PostgreSQL.
pub(crate) const PART: Part = Part { name: "pgbouncer", variable: "TOKENWARD_TEST_PGBOUNCER_URL", set_up };

fn set_up(_: &Workspace, setup: &Setup) -> Result<Ready> {
    let behind = setup.value(postgres::PART.variable).context("needs the part postgres")?;
    let behind = behind.to_string_lossy().into_owned();
    let (host, port) = address(&behind).context("the URL of PostgreSQL names no host and port")?;
    if find().is_none() {
        apt::install("pgbouncer")?;
    }
    let program = find().context("apt-get installed pgbouncer, but it is not in /usr/sbin")?;
    let folder = folder("pgbouncer")?;
    let listen = free_port()?;
    let users: String =
        ["session", "transaction", "statement"].map(|mode| format!("{mode} = pool_mode={mode}\n")).concat();
    let settings = format!(
        "[databases]\n* = host={host} port={port}\n[users]\n{users}[pgbouncer]\n\
         listen_addr = 127.0.0.1\nlisten_port = {listen}\nunix_socket_dir =\nauth_type = trust\n\
         auth_file = {folder}/users\nmax_client_conn = 200\n"
    );
    write(&folder, "pgbouncer.ini", &settings)?;
    write(
        &folder,
        "users",
        "\"session\" \"\"\n\"transaction\" \"\"\n\"statement\" \"\"\n\"postgres\" \"\"\n",
    )?;
    let settings = format!("{folder}/pgbouncer.ini");
    let server = Server::run("pgbouncer", &folder, &[&program.to_string_lossy(), &settings])?;
    wait_for_port(listen, &folder)?;
    Ok(Ready::started(format!("postgres://session@127.0.0.1:{listen}/postgres"), server))
}

/// Writes a file that the server's user may read.
fn write(folder: &str, name: &str, text: &str) -> Result<()> {
    let path = Path::new(folder).join(name);
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    if shell::is_root() {
        shell::output(shell::command("chown").arg("postgres").arg(&path))?;
    }
    shell::output(as_server_user("test").arg("-r").arg(&path)).map(drop)
}

/// Debian keeps servers in a folder that only root's `PATH` has.
fn find() -> Option<PathBuf> {
    let debian = Path::new("/usr/sbin/pgbouncer");
    if debian.is_file() { Some(debian.to_owned()) } else { shell::find("pgbouncer") }
}

/// Host and port of a URL.
fn address(url: &str) -> Option<(&str, &str)> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?']).next()?;
    authority.rsplit('@').next()?.rsplit_once(':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_port_are_found_beside_a_user_and_a_database() {
        let found = Some(("127.0.0.1", "5433"));
        assert_eq!(address("postgres://postgres@127.0.0.1:5433/postgres"), found);
        assert_eq!(address("postgres://a:b@127.0.0.1:5433?sslmode=disable"), found);
        assert_eq!(address("postgres://localhost/x"), None);
    }
}
