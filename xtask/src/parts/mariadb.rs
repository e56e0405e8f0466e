//! A throwaway MariaDB server.

use anyhow::{Context, Result, bail};

use super::server::{Server, as_server_user, folder, free_port, log, make_certificates};
use super::{Part, Ready, Setup, apt};
use crate::shell;
use crate::workspace::Workspace;

/// The URL of a user who may do everything; each test makes a database of its own. The server knows TLS, which the URL leaves
/// out because it takes time, and shows its certificate authority as `ssl_ca`.
pub(crate) const PART: Part = Part { name: "mariadb", variable: "TOKENWARD_TEST_MARIADB_URL", set_up };

/// Enough for every test process of a run to keep a pool open.
const MAX_CONNECTIONS: u16 = 400;

fn set_up(_: &Workspace, _: &Setup) -> Result<Ready> {
    if find("mariadbd").is_none() {
        apt::install("mariadb-server")?;
    }
    let server = find("mariadbd").context("apt-get installed mariadb-server, but there is no mariadbd")?;
    let install = find("mariadb-install-db").context("there is no mariadb-install-db beside mariadbd")?;
    let admin = find("mariadb-admin").context("there is no mariadb-admin beside mariadbd")?;
    if shell::is_root() && shell::output(shell::command("id").arg("postgres")).is_err() {
        // Servers run as the user that this package makes.
        apt::install("postgresql")?;
    }
    let folder = folder("mariadb")?;
    let data = format!("--datadir={folder}/data");
    shell::output(
        as_server_user(install)
            .args(["--no-defaults", "--auth-root-authentication-method=normal"])
            .arg(&data),
    )?;
    make_certificates(&folder)?;
    let certificates = ["ca", "cert", "key"].map(|name| format!("--ssl-{name}={folder}/{name}.pem"));
    let port = free_port()?;
    let (port_option, socket) = (format!("--port={port}"), format!("--socket={folder}/socket"));
    let connections = format!("--max-connections={MAX_CONNECTIONS}");
    let [ca, cert, key] = &certificates;
    let server = server.to_string_lossy();
    let program = [
        &*server,
        "--no-defaults",
        "--bind-address=127.0.0.1",
        &port_option,
        &socket,
        &data,
        &connections,
        ca,
        cert,
        key,
    ];
    let guard = Server::run("MariaDB", &folder, &program)?;
    let ready = shell::output(
        shell::command(admin)
            .args(["--no-defaults", "--user=root", "--host=127.0.0.1", "--wait=60", "ping"])
            .arg(&port_option),
    );
    if let Err(error) = ready {
        bail!("{error:#}\n{}", log(&folder));
    }
    Ok(Ready::started(format!("mysql://root@127.0.0.1:{port}/mysql?ssl-mode=DISABLED"), guard))
}

/// Debian keeps servers in a folder that only root's `PATH` has.
fn find(program: &str) -> Option<std::path::PathBuf> {
    shell::find(program).or_else(|| {
        let path = std::path::Path::new("/usr/sbin").join(program);
        path.is_file().then_some(path)
    })
}
