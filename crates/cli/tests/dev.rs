//! `tokenward dev` from the outside: one command, and a token that opens the stand-in's door.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

fn tokenward(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tokenward"));
    command.current_dir(folder).stdin(Stdio::null());
    for (name, _) in std::env::vars() {
        if name.starts_with("TOKENWARD") {
            command.env_remove(name);
        }
    }
    command
}

/// A development run; killed if a test fails.
struct Dev {
    child: Child,
    banner: String,
    ready: Value,
}

impl Dev {
    fn start(folder: &Path, arguments: &[&str]) -> Self {
        let mut command = tokenward(folder);
        command.args(["dev", "--ready-file", "ready.json"]).args(arguments);
        let log = folder.join("log");
        command.stdout(Stdio::piped()).stderr(std::fs::File::create(&log).unwrap());
        let mut child = command.spawn().unwrap();
        let mut banner = String::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            banner.push_str(&line);
            banner.push('\n');
            if line.starts_with("Stop with") {
                break;
            }
        }
        let ready = std::fs::read_to_string(folder.join("ready.json"));
        let ready = ready.unwrap_or_else(|_| panic!("{}", std::fs::read_to_string(log).unwrap()));
        Self { child, banner, ready: serde_json::from_str(&ready).unwrap() }
    }

    fn get(&self, key: &str) -> &str {
        self.ready[key].as_str().unwrap()
    }

    /// Stops it as Ctrl-C does.
    fn stop(mut self) -> Option<i32> {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn get_token(folder: &Path, dev: &Dev) -> Value {
    std::fs::write(folder.join("caller-token"), dev.get("caller_token")).unwrap();
    let address = format!("http://{}", dev.get("grpc"));
    let scope = dev.ready["scopes"][0].as_str().unwrap();
    let output = tokenward(folder)
        .args(["token", "get", dev.get("tenant_id"), "--scope", scope, "--service-addr", &address])
        .args(["--token-file", "caller-token", "--output", "json", "--show-token"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn one_command_gives_a_tenant_with_a_token_that_works() {
    let folder = tempfile::tempdir().unwrap();
    let dev = Dev::start(folder.path(), &[]);
    let mode = std::fs::metadata(folder.path().join("ready.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    for key in ["grpc", "admin_grpc", "hubspot", "connect_link"] {
        assert!(dev.banner.contains(dev.get(key)), "{key} in:\n{}", dev.banner);
    }

    let token = get_token(folder.path(), &dev);
    assert_eq!(token["connection_id"], dev.ready["connection_id"]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let contacts = format!("{}/crm/v3/objects/contacts", dev.get("hubspot"));
    let bearer = token["access_token"].as_str().unwrap();
    let status = runtime.block_on(async {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        client.get(contacts).bearer_auth(bearer).send().await.unwrap().status()
    });
    assert_eq!(status, 200);

    assert_eq!(dev.stop(), Some(0));
    assert!(!folder.path().join("ready.json").exists(), "what it says is not true any more");
}

#[test]
fn a_kept_folder_goes_on_with_the_same_connection_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let first = Dev::start(folder.path(), &["--data-dir", "data"]);
    let connection = first.get("connection_id").to_owned();
    assert_eq!(first.stop(), Some(0));
    let second = Dev::start(folder.path(), &["--data-dir", "data"]);
    assert_eq!(second.get("connection_id"), connection);
    assert_eq!(get_token(folder.path(), &second)["connection_id"], connection.as_str());
    assert_eq!(second.stop(), Some(0));
}

#[test]
fn a_server_that_was_killed_leaves_nothing_that_keeps_the_next_one_from_starting() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = Dev::start(folder.path(), &["--data-dir", "data"]);
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    drop(first);
    let second = Dev::start(folder.path(), &["--data-dir", "data"]);
    assert_eq!(second.stop(), Some(0));
}

#[test]
fn a_second_server_on_the_same_database_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let first = Dev::start(folder.path(), &["--data-dir", "data"]);
    let second = tokenward(folder.path()).args(["dev", "--data-dir", "data"]).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let errors = String::from_utf8(second.stderr).unwrap();
    assert!(errors.contains("in use by another process"), "{errors}");
    assert_eq!(first.stop(), Some(0));
}
