//! Where every step of every broker waits until the run lets it go on.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use tokenward_broker::Timer;
use tokio::sync::oneshot;

use crate::world::Time;

/// How a step goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pass {
    /// It happens.
    Go,
    /// It does not happen: the other side is away.
    Away,
    /// It happens, and the answer is lost.
    Lost,
    /// It happens at some later time, when nobody waits for the answer any more.
    Late,
}

/// A step that waits.
pub(crate) struct Parked {
    pub(crate) actor: u64,
    pub(crate) step: &'static str,
    pass: oneshot::Sender<Pass>,
}

#[derive(Default)]
struct State {
    parked: Vec<Parked>,
    is_open: bool,
    dead: HashSet<u64>,
    /// Cut off from the database.
    cut: HashSet<u64>,
    /// Starts, and is not to be stopped meanwhile.
    exempt: Option<u64>,
    activity: u64,
}

/// The gate of a run. An actor is one life of one broker.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<Mutex<State>>);

impl Gate {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nothing panics while it holds the lock")
    }

    /// Waits for leave. The step of a broker that crashed never goes on.
    pub(crate) async fn pass(&self, actor: u64, step: &'static str) -> Pass {
        let waits = {
            let mut state = self.state();
            state.activity += 1;
            if state.dead.contains(&actor) {
                None
            } else if state.is_open || state.exempt == Some(actor) {
                return Pass::Go;
            } else {
                let (pass, waits) = oneshot::channel();
                state.parked.push(Parked { actor, step, pass });
                Some(waits)
            }
        };
        match waits {
            Some(waits) => waits.await.unwrap_or_else(|_| crash()),
            None => crash(),
        }
    }

    /// Steps that need no leave: whether the database is there.
    pub(crate) fn reaches_storage(&self, actor: u64) -> bool {
        let state = self.state();
        if state.dead.contains(&actor) {
            drop(state);
            crash();
        }
        !state.cut.contains(&actor)
    }

    /// What waits, in order of arrival. What nobody waits for any more does not count.
    pub(crate) fn parked(&self) -> Vec<(u64, &'static str)> {
        let mut state = self.state();
        state.parked.retain(|parked| !parked.pass.is_closed());
        state.parked.iter().map(|parked| (parked.actor, parked.step)).collect()
    }

    /// Lets one step go on.
    pub(crate) fn release(&self, index: usize, pass: Pass) {
        let parked = self.state().parked.remove(index);
        let _ = parked.pass.send(pass);
    }

    /// The actor's tasks end where they are.
    pub(crate) fn kill(&self, actor: u64) {
        let mut state = self.state();
        state.dead.insert(actor);
        state.parked.retain(|parked| parked.actor != actor);
    }

    pub(crate) fn cut(&self, actor: u64, is_cut: bool) {
        let mut state = self.state();
        if is_cut {
            state.cut.insert(actor);
        } else {
            state.cut.remove(&actor);
        }
    }

    pub(crate) fn exempt(&self, actor: Option<u64>) {
        self.state().exempt = actor;
    }

    /// Lets everything go on from now on.
    pub(crate) fn open(&self) {
        let mut state = self.state();
        state.is_open = true;
        state.cut.clear();
        for parked in state.parked.drain(..) {
            let _ = parked.pass.send(Pass::Go);
        }
    }

    fn activity(&self) -> u64 {
        self.state().activity
    }

    /// Waits until every task has come to the gate or to its end. All of them run on this thread.
    pub(crate) async fn quiet(&self) {
        let mut calm = 0;
        let mut seen = self.activity();
        while calm < 50 {
            tokio::task::yield_now().await;
            let activity = self.activity();
            calm = if activity == seen { calm + 1 } else { 0 };
            seen = activity;
        }
    }
}

/// Ends a task as the end of its process would: silently, and with nothing that runs after.
fn crash() -> ! {
    std::panic::resume_unwind(Box::new("crashed"))
}

/// Waiting is a step too; time passes when it is over.
pub(crate) struct GatedTimer {
    pub(crate) gate: Gate,
    pub(crate) actor: u64,
    pub(crate) time: Time,
}

#[async_trait]
impl Timer for GatedTimer {
    async fn sleep(&self, duration: Duration) {
        self.gate.pass(self.actor, "wait").await;
        self.time.advance(duration);
    }
}
