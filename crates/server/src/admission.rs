//! Who may wait. Answers from memory never come here: places are for what takes a database, a vendor or a signature.
//!
//! Places are dealt out by dynamic thresholds: whoever holds fewer places than are free gets another one. So one principal
//! alone has at most half of them, *n* that flood have an equal part each, and a part of the same size stays free for
//! whoever comes next. No queue and no bookkeeping of rates: who floods is turned away, who is quiet gets in at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use tokenward_broker::{Error, Metrics, Reason};

/// The shortest wait that somebody who was turned away is told.
const WAIT_LEAST_MS: u64 = 250;
/// Waits are spread over so much, so that those who were turned away together do not come back together.
const WAIT_SPREAD_MS: u64 = 501;
/// Has no divisor in common with the spread, so that waits in a row are far apart and all different.
const WAIT_STEP_MS: u64 = 197;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Labels {
    /// What is waited for.
    work: &'static str,
}

/// How many places are taken, by what is waited for.
#[derive(Clone, Default)]
pub(crate) struct Waiting(Family<Labels, Gauge>);

impl Waiting {
    /// Registers the metric.
    pub(crate) fn register(&self, metrics: &Metrics) {
        let waiting = self.0.clone();
        metrics.register(|registry| {
            registry.register(
                "waiting",
                "Calls and requests that wait for a database, a vendor or a signature",
                waiting,
            );
        });
    }
}

/// A number of places. Clones share them.
#[derive(Clone)]
pub(crate) struct Admission(Arc<Inner>);

struct Inner {
    limit: usize,
    /// What callers are told there is too much of.
    what: &'static str,
    waiting: Gauge,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    taken: usize,
    turned_away: u64,
    holders: HashMap<Box<str>, Holder>,
}

/// What one principal holds.
#[derive(Default)]
struct Holder {
    taken: usize,
    by_subject: HashMap<Box<str>, usize>,
}

impl State {
    /// Whether `holder` may take another place for `subject`: a principal shares with others what is free, and what is
    /// left of its own part is shared in the same way by what it asks about, so that one slow tenant does not keep it from
    /// the others.
    fn has_room(&self, limit: usize, holder: &str, subject: Option<&str>) -> bool {
        let free = limit.saturating_sub(self.taken);
        let Some(held) = self.holders.get(holder) else { return free > 0 };
        let own = free.saturating_sub(held.taken);
        let about = subject.and_then(|subject| held.by_subject.get(subject)).copied().unwrap_or_default();
        own > 0 && about < own
    }
}

impl Admission {
    /// So many places. `work` is the metric's label, `what` stands in the refusal.
    pub(crate) fn new(limit: usize, work: &'static str, what: &'static str, waiting: &Waiting) -> Self {
        let waiting = waiting.0.get_or_create_owned(&Labels { work });
        Self(Arc::new(Inner { limit, what, waiting, state: Mutex::default() }))
    }

    /// A place for `holder`, about `subject`, given back when it is dropped.
    ///
    /// # Errors
    /// `Overloaded`, with a wait.
    pub(crate) fn enter(&self, holder: &str, subject: Option<&str>) -> Result<Place, Error> {
        let mut state = self.0.state.lock();
        if !state.has_room(self.0.limit, holder, subject) {
            state.turned_away = state.turned_away.wrapping_add(1);
            let spread = state.turned_away.wrapping_mul(WAIT_STEP_MS) % WAIT_SPREAD_MS;
            let wait = Duration::from_millis(WAIT_LEAST_MS + spread);
            return Err(Error::new(Reason::Overloaded, self.0.what).retry_after(wait));
        }
        state.taken += 1;
        let held = state.holders.entry(holder.into()).or_default();
        held.taken += 1;
        if let Some(subject) = subject {
            *held.by_subject.entry(subject.into()).or_default() += 1;
        }
        self.0.waiting.inc();
        let (admission, holder, subject) = (self.clone(), holder.into(), subject.map(Into::into));
        Ok(Place { admission, holder, subject })
    }
}

/// A place among those who wait.
pub(crate) struct Place {
    admission: Admission,
    holder: Box<str>,
    subject: Option<Box<str>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let inner = &self.admission.0;
        inner.waiting.dec();
        let mut state = inner.state.lock();
        state.taken -= 1;
        let Some(held) = state.holders.get_mut(&self.holder) else { return };
        held.taken -= 1;
        if let Some(subject) = &self.subject
            && let Some(about) = held.by_subject.get_mut(subject)
        {
            *about -= 1;
            if *about == 0 {
                held.by_subject.remove(subject);
            }
        }
        if held.taken == 0 {
            state.holders.remove(&self.holder);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use tokenward_types::{Rng, SeededRng};

    use super::*;

    fn places(limit: usize) -> Admission {
        Admission::new(limit, "test", "too much", &Waiting::default())
    }

    /// Takes places until it is turned away.
    fn flood(admission: &Admission, holder: &str, subject: Option<&str>) -> Vec<Place> {
        std::iter::from_fn(|| admission.enter(holder, subject).ok()).collect()
    }

    #[test]
    fn whoever_is_turned_away_is_told_to_wait_and_each_for_another_time() {
        let admission = places(0);
        let mut waits: Vec<_> = (0..500)
            .map(|_| {
                let error = admission.enter("a", None).err().unwrap();
                assert_eq!((error.reason, error.message.as_str()), (Reason::Overloaded, "too much"));
                error.retry_after.unwrap()
            })
            .collect();
        assert!(waits.iter().all(|wait| (250..=750).contains(&wait.as_millis())));
        waits.sort_unstable();
        waits.dedup();
        assert_eq!(waits.len(), 500);
    }

    #[test]
    fn one_that_floods_leaves_half_and_another_gets_in_at_once() {
        let admission = places(100);
        let flood = flood(&admission, "flood", None);
        assert_eq!(flood.len(), 50);
        let quiet: Vec<_> = (0..25).map(|_| admission.enter("quiet", None).unwrap()).collect();
        assert!(admission.enter("flood", None).is_err());
        drop((flood, quiet));
        assert_eq!(admission.0.state.lock().taken, 0);
        assert!(admission.0.state.lock().holders.is_empty(), "nothing is kept of who holds nothing");
    }

    #[test]
    fn one_slow_tenant_leaves_places_for_the_principals_other_tenants() {
        let admission = places(90);
        let slow = flood(&admission, "app", Some("slow"));
        assert_eq!(slow.len(), 30);
        let other = flood(&admission, "app", Some("other"));
        assert!(other.len() >= 10, "{}", other.len());
        assert!(admission.enter("quiet", Some("slow")).is_ok(), "another principal is not concerned");
    }

    #[test]
    fn the_smallest_numbers_of_places_serve_somebody() {
        for limit in 1..4 {
            let admission = places(limit);
            let first = admission.enter("a", Some("x")).unwrap();
            assert!(limit == 1 || admission.enter("b", Some("x")).is_ok());
            drop(first);
            admission.enter("a", Some("x")).unwrap();
        }
    }

    /// Principals that ask at random rates and hold their places for random times. In every state: never more places than
    /// there are; whoever holds nothing gets in while one is free; nobody is turned away who holds fewer than are free.
    #[test]
    fn in_every_state_nobody_is_turned_away_who_holds_less_than_is_free() {
        for seed in 0..200 {
            let rng = SeededRng::new(seed);
            let limit = 1 + usize::try_from(rng.below(60)).unwrap();
            let admission = places(limit);
            let mut held: HashMap<String, VecDeque<Place>> = HashMap::new();
            for _ in 0..2000 {
                let name = format!("p{}", rng.below(8).min(rng.below(8)));
                let mine = held.entry(name.clone()).or_default();
                if rng.below(3) == 0 {
                    mine.pop_front();
                    continue;
                }
                let had = mine.len();
                let taken = admission.0.state.lock().taken;
                match admission.enter(&name, None) {
                    Ok(place) => mine.push_back(place),
                    Err(_) => assert!(
                        had >= limit - taken,
                        "seed {seed}: {name} holds {had} of {limit}, {taken} taken"
                    ),
                }
                let taken: usize = held.values().map(VecDeque::len).sum();
                assert!(taken <= limit, "seed {seed}");
                assert_eq!(taken, admission.0.state.lock().taken, "seed {seed}");
            }
        }
    }

    /// Whatever happened before: once the places of old have been given back, those who flood have equal parts, however often
    /// each of them asks, and a part stays free.
    #[test]
    fn principals_that_flood_come_to_equal_parts_and_leave_one_free() {
        for seed in 0..20 {
            let rng = SeededRng::new(seed);
            let flooders = 1 + usize::try_from(rng.below(9)).unwrap();
            let limit = 10 * (flooders + 1) + usize::try_from(rng.below(100)).unwrap();
            let admission = places(limit);
            let mut held: Vec<VecDeque<Place>> = (0..flooders).map(|_| VecDeque::new()).collect();
            // The first one has everything that one can have when the others begin, and asks before them, and more often.
            held[0].extend(flood(&admission, "p0", None));
            for _ in 0..8 * limit {
                // Calls take the same time for all: whoever holds more gives back more often.
                let ends = usize::try_from(rng.below(limit as u64)).unwrap();
                let mut counted = 0;
                let ending = held.iter_mut().find(|queue| {
                    counted += queue.len();
                    counted > ends
                });
                ending.and_then(VecDeque::pop_front);
                for who in [0, 0, 0].into_iter().chain(0..flooders) {
                    held[who].extend(admission.enter(&format!("p{who}"), None).ok());
                }
            }
            let part = limit / (flooders + 1);
            for (who, queue) in held.iter().enumerate() {
                let share = queue.len();
                assert!(
                    share.abs_diff(part) <= 2,
                    "seed {seed}: p{who} holds {share} of {limit} beside {flooders}: {part} is its part"
                );
            }
            let newcomer = flood(&admission, "newcomer", None);
            assert!(newcomer.len() >= part / 2, "seed {seed}: {} of {part}", newcomer.len());
        }
    }

    /// A principal whose calls take long and that asks without end, beside one that makes a call now and then: the quiet
    /// one is never turned away. A limit that tells nobody apart turns it away nearly always.
    #[test]
    fn a_flood_of_slow_calls_never_turns_a_quiet_principal_away() {
        let simulate = |fair: bool| {
            let rng = SeededRng::new(1);
            let admission = places(200);
            let mut under_way: VecDeque<(u64, Place)> = VecDeque::new();
            let mut refused = 0;
            for step in 0..20_000_u64 {
                while under_way.front().is_some_and(|(ends, _)| *ends <= step) {
                    under_way.pop_front();
                }
                for number in 0..5 {
                    // A limit that tells nobody apart takes each call for somebody new.
                    let flood = if fair { "flood".to_owned() } else { format!("{step}-{number}") };
                    if let Ok(place) = admission.enter(&flood, None) {
                        under_way.push_back((step + 900, place));
                    }
                }
                if rng.below(100) == 0 {
                    match admission.enter("quiet", None) {
                        Ok(place) => drop(place),
                        Err(_) => refused += 1,
                    }
                }
            }
            refused
        };
        assert_eq!(simulate(true), 0);
        assert!(simulate(false) > 100, "the positive control");
    }
}
