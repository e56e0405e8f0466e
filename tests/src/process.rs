//! A running program whose output is kept, and that ends with the scenario.

use std::fmt;
use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::watch;

use crate::PATIENCE;

/// What a program has written so far to one of its outputs.
#[derive(Clone)]
pub struct Captured {
    bytes: Arc<Mutex<Vec<u8>>>,
    /// The count of bytes; the sender goes when the output ends.
    length: watch::Receiver<usize>,
}

impl Captured {
    fn new(mut source: impl Read + Send + 'static) -> (Self, JoinHandle<()>) {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let (sender, length) = watch::channel(0);
        let sink = Arc::clone(&bytes);
        let pump = std::thread::spawn(move || {
            let mut buffer = [0; 16 * 1024];
            while let Ok(count @ 1..) = source.read(&mut buffer) {
                let mut sink = sink.lock().unwrap_or_else(PoisonError::into_inner);
                sink.extend_from_slice(&buffer[..count]);
                sender.send_replace(sink.len());
            }
        });
        (Self { bytes, length }, pump)
    }

    /// The bytes so far.
    pub fn bytes(&self) -> Vec<u8> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The text so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }

    /// Waits until `find` finds something in the text so far.
    ///
    /// # Errors
    /// The output has ended, or patience has: what was written.
    pub async fn wait_for<T>(&self, mut find: impl FnMut(&str) -> Option<T>) -> Result<T, String> {
        let mut length = self.length.clone();
        let search = async {
            loop {
                length.borrow_and_update();
                if let Some(found) = find(&self.text()) {
                    return Some(found);
                }
                if length.changed().await.is_err() {
                    return find(&self.text());
                }
            }
        };
        let found = tokio::time::timeout(PATIENCE, search).await;
        found.ok().flatten().ok_or_else(|| self.text())
    }

    /// Waits until the text holds `needle`.
    pub async fn wait_for_text(&self, needle: &str) {
        let found = self.wait_for(|text| text.contains(needle).then_some(())).await;
        found.unwrap_or_else(|text| panic!("{needle:?} was never written:\n{text}"));
    }
}

/// What is sent to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: end in order.
    Terminate,
    /// SIGINT: as Ctrl-C.
    Interrupt,
    /// SIGKILL: end at once.
    Kill,
    /// SIGSTOP: stand still.
    Stop,
    /// SIGCONT: go on.
    Continue,
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Terminate => "TERM",
            Self::Interrupt => "INT",
            Self::Kill => "KILL",
            Self::Stop => "STOP",
            Self::Continue => "CONT",
        })
    }
}

/// How a process ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// All of its standard output.
    pub stdout: String,
    /// All of its standard error.
    pub stderr: String,
}

/// A running program; it is killed when this is dropped.
pub struct Process {
    child: Child,
    pumps: Vec<JoinHandle<()>>,
    /// Its standard output.
    pub stdout: Captured,
    /// Its standard error.
    pub stderr: Captured,
}

impl Process {
    /// Starts a program with its outputs captured and nothing to read.
    pub fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let (stdout, out) = Captured::new(child.stdout.take().expect("it is piped"));
        let (stderr, err) = Captured::new(child.stderr.take().expect("it is piped"));
        Self { child, pumps: vec![out, err], stdout, stderr }
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let number = self.id().to_string();
        let sent = Command::new("kill").args([&format!("-{signal}"), &number]).status();
        assert!(sent.is_ok_and(|status| status.success()), "cannot send {signal} to process {number}");
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until it ends by itself.
    pub async fn wait(mut self) -> Ended {
        let id = self.id();
        // Its outputs close when it ends.
        for output in [self.stdout.clone(), self.stderr.clone()] {
            let mut length = output.length.clone();
            let closed = async { while length.changed().await.is_ok() {} };
            if tokio::time::timeout(PATIENCE, closed).await.is_err() {
                let (out, err) = (self.stdout.text(), self.stderr.text());
                panic!("process {id} does not end; it wrote:\n{out}\n{err}");
            }
        }
        let status = self.child.wait().expect("a child can be waited for");
        self.join();
        Ended { status, stdout: self.stdout.text(), stderr: self.stderr.text() }
    }

    /// Sends a signal and waits for the end.
    pub async fn end(self, signal: Signal) -> Ended {
        self.signal(signal);
        self.wait().await
    }

    fn join(&mut self) {
        for pump in self.pumps.drain(..) {
            // A pump that panicked has said so.
            let _ = pump.join();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // An error means that it has just ended.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        self.join();
    }
}
