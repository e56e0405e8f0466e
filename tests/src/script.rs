//! Programs in other languages: they are clients that share no code with the gateway.

use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;

use crate::{Finished, PATIENCE, workspace};

/// A call of a script in `tests/`. It gets one JSON value as its standard input, and answers with one.
pub struct Script {
    command: tokio::process::Command,
    name: String,
}

impl Script {
    /// `tests/python/<name>`, which finds the API's definitions in the folder that `PROTO` names.
    pub fn python(python: &Path, name: &str) -> Self {
        Self::new(python, &format!("python/{name}"))
    }

    /// `tests/node/<name>`, which finds its packages below `folder`.
    pub fn node(folder: &Path, name: &str) -> Self {
        let mut script = Self::new(Path::new("node"), &format!("node/{name}"));
        script.command.env("NODE_PATH", folder.join("node_modules"));
        script
    }

    /// Any program, called by its arguments.
    pub fn program(program: &Path, arguments: &[&str]) -> Self {
        let mut command = tokio::process::Command::new(program);
        command.args(arguments.iter().map(OsString::from)).env_clear();
        for name in ["PATH", "HOME", "TMPDIR"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        Self { command, name: program.display().to_string() }
    }

    fn new(interpreter: &Path, name: &str) -> Self {
        let path = workspace().join("tests").join(name).display().to_string();
        let mut script = Self::program(interpreter, &[&path]);
        script.command.env("PROTO", workspace().join("proto")).env("PYTHONDONTWRITEBYTECODE", "1");
        name.clone_into(&mut script.name);
        script
    }

    /// Runs it to its end.
    pub async fn finish(mut self, input: &Value) -> Finished {
        use tokio::io::AsyncWriteExt;
        let mut child =
            self.command.spawn().unwrap_or_else(|error| panic!("cannot run {}: {error}", self.name));
        let mut pipe = child.stdin.take().expect("it is piped");
        // A program that does not read what it is given closes the pipe.
        let _ = pipe.write_all(input.to_string().as_bytes()).await;
        drop(pipe);
        let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
        let output = output.unwrap_or_else(|_| panic!("{} does not end", self.name)).expect("it runs");
        Finished {
            call: self.name,
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs it to its end, which must be good; gives its answer.
    pub async fn run(self, input: &Value) -> Value {
        self.finish(input).await.json()
    }
}
