//! `tokenward dev` as a process.

use serde_json::Value;

use crate::{Process, Scratch, Tokenward};

/// A development run; it is killed when this is dropped.
pub struct Dev {
    /// The process.
    pub process: Process,
    /// What the ready file says.
    pub ready: Value,
    /// Where the ready file is.
    pub ready_file: std::path::PathBuf,
    _folder: Scratch,
}

impl Dev {
    /// Starts it and waits until it says that everything runs.
    pub async fn start() -> Self {
        let folder = Scratch::new();
        let ready_file = folder.file("ready.json");
        let process = Tokenward::new("dev --ready-file").arg(&ready_file).start();
        let stderr = process.stderr.clone();
        let started = process.stdout.wait_for(|text| text.contains("Stop with").then_some(())).await;
        started.unwrap_or_else(|out| panic!("it did not start:\n{out}\n{}", stderr.text()));
        let text = std::fs::read_to_string(&ready_file).expect("the ready file is there");
        let ready = serde_json::from_str(&text).expect("the ready file is JSON");
        Self { process, ready, ready_file, _folder: folder }
    }

    /// A text of the ready file.
    pub fn get(&self, key: &str) -> &str {
        self.ready[key].as_str().unwrap_or_else(|| panic!("the ready file has no {key}"))
    }
}
