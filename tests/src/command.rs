//! The binary, and commands that run to their end.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use serde_json::Value;
use tokio::io::AsyncWriteExt;

use crate::{PATIENCE, Process};

/// The checkout.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are in the workspace")
}

/// The binary: `TOKENWARD_TEST_BIN`, else the one that a plain build makes.
pub fn binary() -> PathBuf {
    let given = std::env::var_os("TOKENWARD_TEST_BIN").filter(|path| !path.is_empty());
    let path = given.map_or_else(|| workspace().join("target/debug/tokenward"), PathBuf::from);
    assert!(
        path.is_file(),
        "{} is missing: build it with `cargo build -p tokenward-cli`, or name another by TOKENWARD_TEST_BIN",
        path.display()
    );
    path
}

/// A call of the binary: arguments, environment, standard input. Nothing of the test's environment gets through.
#[derive(Clone, Debug, Default)]
pub struct Tokenward {
    arguments: Vec<OsString>,
    environment: Vec<(String, String)>,
    folder: Option<PathBuf>,
    stdin: Option<String>,
}

impl Tokenward {
    /// A call with these arguments, which are split at spaces.
    pub fn new(arguments: &str) -> Self {
        Self { arguments: arguments.split_whitespace().map(OsString::from).collect(), ..Self::default() }
    }

    /// Adds an argument as it is.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Runs it in this folder.
    #[must_use]
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// Gives it something to read.
    #[must_use]
    pub fn stdin(mut self, text: impl Into<String>) -> Self {
        self.stdin = Some(text.into());
        self
    }

    /// As a command of the standard library.
    pub fn command(&self) -> Command {
        let mut command = Command::new(binary());
        command.args(&self.arguments).env_clear();
        for name in ["PATH", "HOME", "TMPDIR", "LLVM_PROFILE_FILE"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        command
    }

    /// Starts it, for a program that runs until it is stopped.
    pub fn start(&self) -> Process {
        Process::start(&mut self.command())
    }

    /// Runs it to its end.
    pub async fn run(&self) -> Finished {
        let stdin = if self.stdin.is_some() { Stdio::piped() } else { Stdio::null() };
        let mut command = tokio::process::Command::from(self.command());
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("the binary can be started");
        if let Some(text) = &self.stdin {
            let mut pipe = child.stdin.take().expect("it is piped");
            // A program that does not read what it is given closes the pipe.
            let _ = pipe.write_all(text.as_bytes()).await;
        }
        let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
        let output = output.unwrap_or_else(|_| panic!("{:?} does not end", self.arguments)).expect("it runs");
        Finished {
            call: format!("{:?}", self.arguments),
            status: output.status,
            stdout: String::from_utf8(output.stdout).expect("it prints UTF-8"),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// A call that came to its end.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Its arguments.
    pub call: String,
    /// Its exit status.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Finished {
    /// The exit code.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Its standard output; it must have succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.status.success(), "{} failed:\n{}{}", self.call, self.stdout, self.stderr);
        self.stdout
    }

    /// Its standard output as JSON; it must have succeeded.
    #[track_caller]
    pub fn json(self) -> Value {
        let call = self.call.clone();
        let text = self.ok();
        serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{call} printed no JSON ({error}):\n{text}"))
    }

    /// Its standard error; it must have failed with this exit code.
    #[track_caller]
    pub fn fails(self, code: i32) -> String {
        assert_eq!(self.code(), Some(code), "{}:\n{}{}", self.call, self.stdout, self.stderr);
        self.stderr
    }
}
