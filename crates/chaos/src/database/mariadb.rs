//! MariaDB, as Debian packages it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::process::Command;

use super::NAME;
use crate::ports::free_address;
use crate::process::{Process, output};

/// How long it may take to come up; recovery included.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
/// Enough for every server's pool.
const MAX_CONNECTIONS: &str = "--max-connections=200";

/// A server that stops when this is dropped.
pub struct Mariadb {
    folder: PathBuf,
    address: SocketAddr,
    process: Option<Process>,
}

impl Mariadb {
    /// Starts a new one.
    ///
    /// # Errors
    /// When there is no MariaDB, or it does not come up.
    pub(super) async fn start(folder: &Path) -> Result<Self> {
        let folder = folder.join("mariadb");
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let mut install = Command::new("mariadb-install-db");
        install.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
        install.arg(format!("--datadir={}/data", folder.display())).args(as_root().await);
        output(&mut install).await.context(
            "MariaDB cannot be set up; where it is missing: apt-get install --no-install-recommends mariadb-server",
        )?;
        let mut server = Self { folder, address: free_address()?, process: None };
        server.up().await?;
        let statements = format!(
            "CREATE DATABASE {NAME} CHARACTER SET utf8mb4; CREATE USER {NAME}@localhost IDENTIFIED BY '{NAME}'; \
             CREATE USER {NAME}@'127.0.0.1' IDENTIFIED BY '{NAME}'; GRANT ALL ON {NAME}.* TO {NAME}@localhost; \
             GRANT ALL ON {NAME}.* TO {NAME}@'127.0.0.1'"
        );
        server.client(&statements).await?;
        Ok(server)
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) async fn up(&mut self) -> Result<()> {
        let mut command = Command::new("mariadbd");
        command.args(["--no-defaults", "--bind-address=127.0.0.1", "--innodb-buffer-pool-size=64M"]);
        command.args([MAX_CONNECTIONS, &format!("--port={}", self.address.port())]);
        command.arg(format!("--datadir={}/data", self.folder.display()));
        command.arg(format!("--socket={}", self.socket())).args(as_root().await);
        let mut process = Process::start("mariadbd", &self.folder, &mut command, false)?;
        let up = tokio::time::timeout(PATIENCE, async {
            while self.client("SELECT 1").await.is_err() {
                if let Some(status) = process.ended() {
                    bail!("MariaDB ended ({status}):\n{}", process.end_of_log());
                }
                tokio::time::sleep(POLL).await;
            }
            Ok(())
        });
        let Ok(up) = up.await else { bail!("MariaDB does not come up:\n{}", process.end_of_log()) };
        up?;
        self.process = Some(process);
        Ok(())
    }

    pub(super) async fn crash(&mut self) -> Result<()> {
        match &mut self.process {
            Some(process) => process.kill().await,
            None => Ok(()),
        }
    }

    fn socket(&self) -> String {
        self.folder.join("socket").display().to_string()
    }

    async fn client(&self, statements: &str) -> Result<String> {
        let mut client = Command::new("mariadb");
        client.args(["--no-defaults", "--user=root", "--socket", &self.socket(), "--execute", statements]);
        output(&mut client).await
    }
}

/// MariaDB wants to be told when it is to run as root.
async fn as_root() -> Option<&'static str> {
    let id = output(Command::new("id").arg("-u")).await;
    id.is_ok_and(|id| id.trim() == "0").then_some("--user=root")
}
