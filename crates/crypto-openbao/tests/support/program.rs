//! A server of one's own, for tests that seal it, stop it, or speak TLS with it.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use super::Admin;

/// A server in memory; it ends with this.
pub(crate) struct OwnServer {
    process: Child,
    folder: tempfile::TempDir,
    pub(crate) admin: Admin,
    port: u16,
}

impl OwnServer {
    /// Starts one and waits until it is unsealed.
    pub(crate) async fn start(program: &str, more: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let output = std::fs::File::create(folder.path().join("output")).expect("the folder takes files");
        let port = TcpListener::bind(("127.0.0.1", 0)).and_then(|l| l.local_addr()).expect("a port").port();
        let mut command = Command::new(program);
        command.args(["server", "-dev", "-dev-root-token-id=root", "-dev-no-store-token"]);
        command.arg(format!("-dev-listen-address=127.0.0.1:{port}")).args(more);
        command.stdin(Stdio::null()).stdout(output).stderr(Stdio::null());
        let process = command.spawn().expect("the program runs");
        let server = Self { process, folder, admin: Admin::new(format!("http://127.0.0.1:{port}")), port };
        server.wait().await;
        server
    }

    async fn wait(&self) {
        for _ in 0..3000 {
            if tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_ok() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("the server does not listen after 30 s");
    }

    pub(crate) fn address(&self, scheme: &str) -> String {
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// What opens the seal: the server prints it once it has it.
    pub(crate) async fn unseal_key(&self) -> String {
        for _ in 0..3000 {
            let output = std::fs::read_to_string(self.folder.path().join("output")).unwrap_or_default();
            let key = output.split_once("Unseal Key: ").and_then(|(_, rest)| rest.split_once('\n'));
            if let Some((key, _)) = key {
                return key.trim().to_owned();
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("the server prints no key within 30 s");
    }

    pub(crate) fn stop(&mut self) {
        self.process.kill().expect("it runs");
        self.process.wait().expect("it ends");
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        // It has ended already where a test stopped it.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
