//! What this harness did to servers, database and networks, and when: what a failed call or a lost grant is judged by.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::spans::{Span, Spans};
use crate::time::now_ms;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By SIGKILL.
    Killed,
    /// After SIGTERM.
    Terminated,
    /// By itself, while it should have run.
    Alone,
}

/// One process of a replica, from its start to its end.
#[derive(Clone, Debug)]
pub struct Life {
    /// When it was started.
    pub born: i64,
    /// When it first answered.
    pub serving: Option<i64>,
    /// When it was told to stop: it finishes what it is at, and takes no more calls.
    pub stopping: Option<i64>,
    /// How it ended, and when.
    pub end: Option<(End, i64)>,
    /// While it stood still.
    pub frozen: Spans,
}

impl Life {
    /// While it could answer.
    pub fn running(&self) -> Spans {
        let Some(serving) = self.serving else { return Spans::default() };
        let end = self.end.map_or(i64::MAX, |(_, at)| at).min(self.stopping.unwrap_or(i64::MAX));
        Spans::of(Span::new(serving, end)).without(&self.frozen)
    }
}

/// One replica.
#[derive(Clone, Debug, Default)]
pub struct ReplicaHistory {
    /// Its processes, in order.
    pub lives: Vec<Life>,
    /// While its network to the database was cut.
    pub storage_cut: Spans,
    /// While its network to the vendor was cut.
    pub vendor_cut: Spans,
}

/// Everything.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// By replica.
    pub replicas: Vec<ReplicaHistory>,
    /// While the database was down.
    pub database_down: Spans,
}

impl History {
    /// While a process could answer and reach the database.
    pub fn reaching(&self, replica: &ReplicaHistory, life: &Life) -> Spans {
        life.running().without(&replica.storage_cut).without(&self.database_down)
    }

    /// The process of a replica that was there at a moment.
    pub fn life_at(&self, replica: usize, at: i64) -> Option<(usize, &Life)> {
        let lives = &self.replicas.get(replica)?.lives;
        lives.iter().enumerate().rfind(|(_, life)| life.born <= at)
    }

    /// How many processes ended without having been told to, once they served.
    pub fn ended_alone(&self) -> usize {
        let lives = self.replicas.iter().flat_map(|replica| &replica.lives);
        lives.filter(|life| life.serving.is_some() && matches!(life.end, Some((End::Alone, _)))).count()
    }
}

/// The history as it is written. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Chronicle(Arc<Mutex<History>>);

impl Chronicle {
    /// An empty one for so many replicas.
    pub fn new(replicas: usize) -> Self {
        let replicas = vec![ReplicaHistory::default(); replicas];
        Self(Arc::new(Mutex::new(History { replicas, ..History::default() })))
    }

    /// As far as it is written.
    pub fn so_far(&self) -> History {
        self.0.lock().clone()
    }

    fn replica<T>(&self, index: usize, write: impl FnOnce(&mut ReplicaHistory, i64) -> T) -> Option<T> {
        let now = now_ms();
        self.0.lock().replicas.get_mut(index).map(|replica| write(replica, now))
    }

    fn life(&self, index: usize, write: impl FnOnce(&mut Life, i64)) {
        self.replica(index, |replica, now| {
            if let Some(life) = replica.lives.last_mut() {
                write(life, now);
            }
        });
    }

    /// A process was started; returns its number among the replica's.
    pub fn born(&self, replica: usize) -> usize {
        let number = self.replica(replica, |replica, now| {
            replica.lives.push(Life {
                born: now,
                serving: None,
                stopping: None,
                end: None,
                frozen: Spans::default(),
            });
            replica.lives.len() - 1
        });
        number.unwrap_or(0)
    }

    /// The replica's process answers.
    pub fn serving(&self, replica: usize) {
        self.life(replica, |life, now| life.serving = Some(now));
    }

    /// The replica's process is about to be told to stop.
    pub fn stopping(&self, replica: usize) {
        self.life(replica, |life, now| life.stopping = Some(now));
    }

    /// The replica's process is gone.
    pub fn ended(&self, replica: usize, end: End) {
        self.life(replica, |life, now| life.end = Some((end, now)));
    }

    /// The replica's process is about to stand still, or goes on.
    pub fn frozen(&self, replica: usize, is_frozen: bool) {
        self.life(replica, |life, now| mark(&mut life.frozen, is_frozen, now));
    }

    /// The replica's network to the database is cut, or whole again.
    pub fn storage_cut(&self, replica: usize, is_cut: bool) {
        self.replica(replica, |replica, now| mark(&mut replica.storage_cut, is_cut, now));
    }

    /// The replica's network to the vendor is cut, or whole again.
    pub fn vendor_cut(&self, replica: usize, is_cut: bool) {
        self.replica(replica, |replica, now| mark(&mut replica.vendor_cut, is_cut, now));
    }

    /// The database is about to go down, or is up again.
    pub fn database_down(&self, is_down: bool) {
        let now = now_ms();
        mark(&mut self.0.lock().database_down, is_down, now);
    }
}

fn mark(spans: &mut Spans, holds: bool, now: i64) {
    if holds {
        spans.begin(now);
    } else {
        spans.end(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_reaches_the_database_while_nothing_is_in_between() {
        let span = |from, to| Spans::of(Span::new(from, to));
        let life = Life {
            born: 0,
            serving: Some(10),
            stopping: Some(90),
            end: Some((End::Terminated, 100)),
            frozen: span(20, 30),
        };
        let replica =
            ReplicaHistory { lives: vec![life.clone()], storage_cut: span(40, 50), ..Default::default() };
        let history = History { replicas: vec![replica.clone()], database_down: span(60, 70) };
        let reaching = history.reaching(&replica, &life);
        let at = |moment| reaching.at(moment).is_some();
        assert!(at(10) && at(35) && at(55) && at(89));
        assert!(!at(9) && !at(25) && !at(45) && !at(65) && !at(90));
        assert!(life.running().at(45).is_some(), "it answers from memory");
    }

    #[test]
    fn only_a_process_that_ended_by_itself_while_it_served_ended_alone() {
        let chronicle = Chronicle::new(1);
        for (serves, end) in [(true, End::Killed), (false, End::Alone), (true, End::Alone)] {
            chronicle.born(0);
            if serves {
                chronicle.serving(0);
            }
            chronicle.ended(0, end);
        }
        let history = chronicle.so_far();
        assert_eq!(history.ended_alone(), 1);
        assert_eq!(history.life_at(0, i64::MAX).unwrap().0, 2);
        assert!(history.life_at(0, 0).is_none());
    }
}
