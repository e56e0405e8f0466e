//! Callers who ask for random tenants without a break, of one replica after the other until one answers.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use parking_lot::Mutex;
use tokenward_bench::load::Random;
use tokenward_types::sha256;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::people::{Bearer, Line, get_token, line};
use crate::replica::Replica;
use crate::setup::Connection;
use crate::time::now_ms;

/// How long a caller goes on asking for one token.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// How long one replica may take to answer before the next one is asked.
pub const TRY: Duration = Duration::from_secs(1);
/// After all replicas were asked in vain.
const ROUND: Duration = Duration::from_millis(50);
/// Connections to each replica that callers share.
const LINES: usize = 4;
/// Failures that are told in words.
const TOLD: usize = 50;

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The connection's number.
    pub connection: usize,
    /// Who answered.
    pub replica: usize,
    /// When that one was asked.
    pub asked_ms: i64,
    /// When it had answered.
    pub answered_ms: i64,
    /// The token, by its fingerprint.
    pub token: u64,
    /// Whether the replica that was asked first answered.
    pub at_once: bool,
}

/// A call that nobody answered in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The connection's number.
    pub connection: usize,
    /// When it began.
    pub from_ms: i64,
    /// When the caller gave up.
    pub to_ms: i64,
    /// Whom it asked, in order.
    pub tries: Vec<Try>,
}

/// One replica that was asked and did not answer with a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Try {
    /// Which one.
    pub replica: usize,
    /// When it was asked.
    pub from_ms: i64,
    /// When it had refused, or was given up.
    pub to_ms: i64,
    /// What it said; nothing where that is not told.
    pub said: String,
}

/// What came of all calls.
#[derive(Clone, Debug, Default)]
pub struct Calls {
    /// Those that were answered.
    pub answers: Vec<Answer>,
    /// Those that were not.
    pub failures: Vec<Failure>,
}

/// Callers that are at work.
pub struct Callers {
    tasks: JoinSet<()>,
    calls: Arc<Mutex<Calls>>,
    stop: tokio::sync::watch::Sender<bool>,
}

/// Who asks, for what, how often.
pub struct Load<'a> {
    /// Whom.
    pub replicas: &'a [Arc<Replica>],
    /// As whom.
    pub bearer: &'a Bearer,
    /// For what.
    pub connections: &'a Arc<[Connection]>,
    /// Callers at a time.
    pub callers: usize,
    /// How long each waits between two calls; without it they ask for one connection after the other, as fast as they can.
    pub pause: Option<Duration>,
    /// What random picks start from.
    pub seed: u64,
}

impl Callers {
    /// Starts them.
    ///
    /// # Errors
    /// When an address makes no URI.
    pub fn start(load: &Load<'_>) -> Result<Self> {
        let mut lines = Vec::new();
        for _ in 0..LINES {
            let to_each = load.replicas.iter().map(|replica| line(replica.addresses.service, load.bearer));
            lines.push(to_each.collect::<Result<Vec<Line>>>()?);
        }
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let calls = Arc::default();
        let mut tasks = JoinSet::new();
        for number in 0..load.callers {
            let caller = Caller {
                lines: lines[number % LINES].clone(),
                connections: Arc::clone(load.connections),
                calls: Arc::clone(&calls),
                random: Random::new(load.seed.wrapping_add(tokenward_bench::stats::count(number))),
                next: number,
                step: load.callers,
                pause: load.pause,
            };
            tasks.spawn(caller.work(stopped.clone()));
        }
        Ok(Self { tasks, calls, stop })
    }

    /// How many calls were answered and how many failed so far.
    pub fn so_far(&self) -> (usize, usize) {
        let calls = self.calls.lock();
        (calls.answers.len(), calls.failures.len())
    }

    /// Lets them finish what they are at and go.
    pub async fn stop(mut self) -> Calls {
        self.stop.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
        std::mem::take(&mut *self.calls.lock())
    }
}

struct Caller {
    lines: Vec<Line>,
    connections: Arc<[Connection]>,
    calls: Arc<Mutex<Calls>>,
    random: Random,
    next: usize,
    step: usize,
    pause: Option<Duration>,
}

impl Caller {
    async fn work(mut self, stopped: tokio::sync::watch::Receiver<bool>) {
        while !*stopped.borrow() {
            let connection = if let Some(pause) = self.pause {
                // Between half of it and one and a half.
                let share = u32::try_from(self.random.below(1001)).unwrap_or(0) + 500;
                tokio::time::sleep(pause * share / 1000).await;
                self.random.below(self.connections.len())
            } else {
                self.next += self.step;
                self.next % self.connections.len()
            };
            let first = self.random.below(self.lines.len());
            let outcome = self.ask(connection, first).await;
            let mut calls = self.calls.lock();
            match outcome {
                Ok(answer) => calls.answers.push(answer),
                Err(mut failure) => {
                    if calls.failures.len() >= TOLD {
                        failure.tries.iter_mut().for_each(|tried| tried.said.clear());
                    }
                    calls.failures.push(failure);
                }
            }
        }
    }

    async fn ask(&self, connection: usize, first: usize) -> Result<Answer, Failure> {
        let (begun, from_ms) = (Instant::now(), now_ms());
        let mut tries = Vec::new();
        loop {
            for offset in 0..self.lines.len() {
                let replica = (first + offset) % self.lines.len();
                let left = PATIENCE.saturating_sub(begun.elapsed());
                if left.is_zero() {
                    return Err(Failure { connection, from_ms, to_ms: now_ms(), tries });
                }
                let tenant = self.connections[connection].tenant_id.clone();
                let asked_ms = now_ms();
                match get_token(&self.lines[replica], tenant, left.min(TRY)).await {
                    Ok(answer) => {
                        return Ok(Answer {
                            connection,
                            replica,
                            asked_ms,
                            answered_ms: now_ms(),
                            token: fingerprint(&answer.access_token),
                            at_once: tries.is_empty(),
                        });
                    }
                    Err(status) => {
                        let said = format!("{:?}: {}", status.code(), status.message());
                        tries.push(Try { replica, from_ms: asked_ms, to_ms: now_ms(), said });
                    }
                }
            }
            tokio::time::sleep(ROUND).await;
        }
    }
}

/// As the stand-in's log names a token: the first 64 bits of its SHA-256.
pub fn fingerprint(token: &str) -> u64 {
    let hash = sha256(token.as_bytes());
    hash[..8].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}
