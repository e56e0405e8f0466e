//! What the run came to, by the vendor's log and by what this harness did: pure functions of both.

use std::collections::HashMap;
use std::fmt::Write;

use serde::Serialize;

use crate::callers::{Answer, Calls, Failure, Try};
use crate::history::{End, History};
use crate::setup::Connection;
use crate::spans::{Span, Spans};
use crate::truth::{Issue, Truth};

/// What servers are told to take for expired.
pub const EXPIRED_BELOW_MS: i64 = 1_000;
/// A living token that somebody could give out for so long without a break is no excuse for no answer: connecting anew,
/// and one caller's try of a server that stands still, fit in.
const AT_HAND_MS: i64 = 2_000;
/// A token is in memory and in the database so long after it was delivered, if nothing is in the way.
const SETTLED_MS: i64 = 1_500;
/// A reply must be durable so long after it was delivered. Who is killed later had the time.
const DURABLE_MS: i64 = 500;

/// What callers got.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CallsVerdict {
    /// All calls.
    pub calls: u64,
    /// Those that nobody answered although a living token was at hand.
    pub failed: u64,
    /// Those that nobody answered, and nobody could have.
    pub excused: u64,
    /// Answers with a token of another account, or of none.
    pub wrong: u64,
    /// Answers with a token that was dead.
    pub dead: u64,
    /// Some of the failed calls in words.
    pub examples: Vec<String>,
}

/// Failed calls that are told in words.
const EXAMPLES: usize = 10;

/// Judges every call. Where a customer connects again, the living token of the former grant is given up on purpose, and nobody
/// outside can tell when: those connections' calls may go unanswered, as `is_excused` says by their numbers.
pub fn calls(
    truth: &Truth,
    history: &History,
    connections: &[Connection],
    calls: &Calls,
    is_excused: impl Fn(usize) -> bool,
) -> CallsVerdict {
    let count = tokenward_bench::stats::count;
    let mut verdict =
        CallsVerdict { calls: count(calls.answers.len() + calls.failures.len()), ..CallsVerdict::default() };
    for answer in &calls.answers {
        match truth.of_access_token(answer.token) {
            Some(issue) if issue.hub_id == connections[answer.connection].hub_id => {
                // What was alive when it was asked for has at least that second left.
                verdict.dead += u64::from(issue.expires_ms <= answer.asked_ms);
            }
            _ => verdict.wrong += 1,
        }
    }
    let shown = shown_by(truth, history, &calls.answers);
    for failure in &calls.failures {
        let connection = &connections[failure.connection];
        let at_hand = || at_hand(truth, history, &shown, failure, connection.hub_id);
        match (!is_excused(failure.connection)).then(at_hand).flatten() {
            None => verdict.excused += 1,
            Some(where_it_was) => {
                verdict.failed += 1;
                if verdict.examples.len() < EXAMPLES {
                    verdict.examples.push(in_words(&connection.tenant_id, failure, &where_it_was));
                }
            }
        }
    }
    verdict
}

/// Tries of one failed call that are told in words.
const TOLD_TRIES: usize = 20;

fn in_words(tenant: &str, failure: &Failure, where_it_was: &str) -> String {
    let Failure { from_ms, to_ms, tries, .. } = failure;
    let mut words = format!("{tenant} from {from_ms} to {to_ms}, {where_it_was}; asked:");
    for Try { replica, from_ms: at, to_ms: until, said } in tries.iter().take(TOLD_TRIES) {
        let (after, long) = (at - from_ms, until - at);
        // A text takes every write.
        write!(words, " replica {replica} after {after} ms for {long} ms: {said};").unwrap_or_default();
    }
    words
}

/// A process by its replica and its number.
type Holder = (usize, usize);

/// Who gave out which issue first, and when.
fn shown_by(truth: &Truth, history: &History, answers: &[Answer]) -> HashMap<u64, HashMap<Holder, i64>> {
    let mut shown: HashMap<u64, HashMap<Holder, i64>> = HashMap::new();
    for answer in answers {
        let Some(issue) = truth.of_access_token(answer.token) else { continue };
        let Some((life, _)) = history.life_at(answer.replica, answer.answered_ms) else { continue };
        let since = shown.entry(issue.seq).or_default().entry((answer.replica, life)).or_insert(i64::MAX);
        *since = answer.answered_ms.min(*since);
    }
    shown
}

/// Where a living token was during a failed call, if it was anywhere for long enough.
fn at_hand(
    truth: &Truth,
    history: &History,
    shown: &HashMap<u64, HashMap<Holder, i64>>,
    failure: &Failure,
    hub_id: u64,
) -> Option<String> {
    let call = Spans::of(Span::new(failure.from_ms, failure.to_ms));
    let when = |spans: &Spans| spans.in_words(failure.from_ms);
    for issue in truth.of_hub(hub_id) {
        let alive = Spans::of(issue.life()).and(&call);
        if alive.longest() < AT_HAND_MS {
            continue;
        }
        let mut holders = shown.get(&issue.seq).cloned().unwrap_or_default();
        if let Some((holder, at)) = received(history, issue) {
            holders.entry(holder).or_insert(at);
        }
        for ((replica, life), since) in holders {
            let holding = history.replicas[replica].lives[life].running().and(&Spans::of(Span::since(since)));
            if holding.and(&alive).longest() >= AT_HAND_MS {
                return Some(format!("in the memory of replica {replica} {}", when(&holding.and(&alive))));
            }
        }
        let Some(stored_ms) = stored(history, issue) else { continue };
        let stored = Spans::of(Span::since(stored_ms)).and(&alive);
        for (index, replica) in history.replicas.iter().enumerate() {
            let can_read = |life| history.reaching(replica, life).and(&stored).longest() >= AT_HAND_MS;
            if replica.lives.iter().any(can_read) {
                return Some(format!("in the database, which replica {index} reached {}", when(&stored)));
            }
        }
    }
    None
}

/// The process that got an issue, and since when it must have it in memory.
fn received(history: &History, issue: &Issue) -> Option<(Holder, i64)> {
    let (replica, delivered) = (issue.replica?, issue.delivered_ms.filter(|_| !issue.is_spoilt)?);
    let (number, life) = history.life_at(replica, issue.asked_ms)?;
    let took_in = Span::new(issue.asked_ms, delivered + SETTLED_MS);
    let undisturbed =
        life.running().covers(took_in) && !history.replicas[replica].vendor_cut.touches(took_in);
    undisturbed.then_some(((replica, number), took_in.to))
}

/// Since when an issue must be in the database.
fn stored(history: &History, issue: &Issue) -> Option<i64> {
    let ((replica, number), at) = received(history, issue)?;
    let replica = &history.replicas[replica];
    let reaching = history.reaching(replica, &replica.lives[number]);
    reaching.covers(Span::new(issue.asked_ms, at)).then_some(at)
}

/// Refreshes of a connection while the token of the refresh before had more than half of its life left, and that refresh was
/// answered: two servers, or one twice, worked for the same expiry.
pub fn double_refreshes(truth: &Truth, connections: &[Connection], within: (u64, u64)) -> u64 {
    let is_within = |issue: &&Issue| within.0 < issue.seq && issue.seq <= within.1;
    let mut doubles = 0;
    for connection in connections {
        let of_run: Vec<&Issue> = truth.of_hub(connection.hub_id).filter(is_within).collect();
        for pair in of_run.windows(2) {
            let [former, next] = pair else { continue };
            let was_answered = former.delivered_ms.is_some() && !former.is_spoilt;
            let half = former.issued_ms.midpoint(former.expires_ms);
            doubles += u64::from(was_answered && next.asked_ms < half);
        }
    }
    doubles
}

/// Why a grant was lost that nobody could keep: the vendor is strict, and no living process ever had the reply's bytes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The reply, or the network that carried it, was lost on the way.
    LostReply,
    /// The process that asked stood still.
    Stop,
    /// The process that asked was killed before it can have stored the reply.
    Kill,
    /// The vendor took longer than the process that asked waits.
    Timeout,
}

/// Why the newest token of an account, which nobody has, was not to be kept at a strict vendor; `None` when it was.
pub fn unavoidable(truth: &Truth, history: &History, hub_id: u64, timeout_ms: i64) -> Option<Cause> {
    let newest = truth.of_hub(hub_id).next_back()?;
    if newest.is_spoilt {
        return Some(Cause::LostReply);
    }
    let replica = history.replicas.get(newest.replica?)?;
    let (_, life) = history.life_at(newest.replica?, newest.asked_ms)?;
    let sent = newest.delivered_ms.unwrap_or(newest.issued_ms + timeout_ms);
    let until_durable = Span::new(newest.asked_ms, sent + DURABLE_MS);
    if replica.vendor_cut.touches(Span::new(newest.asked_ms, sent)) {
        Some(Cause::LostReply)
    } else if life.frozen.touches(until_durable) {
        Some(Cause::Stop)
    } else if matches!(life.end, Some((End::Killed, at)) if until_durable.has(at)) {
        Some(Cause::Kill)
    } else if sent - newest.asked_ms >= timeout_ms {
        Some(Cause::Timeout)
    } else {
        None
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
