//! The judge is judged: each verdict from a history that is written by hand.

use super::*;
use crate::history::{Life, ReplicaHistory};
use crate::sim::{IssuedTokens, LogEntry};

const HUB: u64 = 7;
const TIMEOUT: i64 = 2_000;

/// An answer to replica 0 at `at` whose tokens are called by the number, alive for ten seconds.
fn entry(seq: u64, at: i64, fault: &str) -> LogEntry {
    LogEntry {
        seq,
        at_ms: at,
        peer: Some(crate::replica::source(0)),
        endpoint: "token".to_owned(),
        grant_type: Some("refresh_token".to_owned()),
        hub_id: Some(HUB),
        token: None,
        tokens: Some(IssuedTokens {
            at_ms: at,
            expires_at_ms: at + 10_000,
            access_token: format!("{seq:016x}"),
            refresh_token: String::new(),
        }),
        faults: vec![fault.to_owned()],
        server_us: 10_000,
        delivered: fault != "drop_reply_after_issue",
    }
}

/// So many replicas that have been running since 0.
fn running(replicas: usize) -> History {
    let life = Life { born: 0, serving: Some(0), stopping: None, end: None, frozen: Spans::default() };
    let replica = ReplicaHistory { lives: vec![life], ..ReplicaHistory::default() };
    History { replicas: vec![replica; replicas], ..History::default() }
}

fn span(from: i64, to: i64) -> Spans {
    Spans::of(Span::new(from, to))
}

fn connection(hub_id: u64) -> Connection {
    Connection { tenant_id: format!("t{hub_id}"), connection_id: "c".to_owned(), hub_id }
}

fn answer(token: u64, asked_ms: i64) -> Answer {
    Answer { connection: 0, replica: 0, asked_ms, answered_ms: asked_ms + 5, token, at_once: true }
}

fn judged(log: &[LogEntry], history: &History, answers: &[Answer], failed_from: &[i64]) -> CallsVerdict {
    let failures = failed_from.iter().map(|from| Failure {
        connection: 0,
        from_ms: *from,
        to_ms: from + 5_000,
        tries: Vec::new(),
    });
    let all = Calls { answers: answers.to_vec(), failures: failures.collect() };
    calls(&Truth::of(log), history, &[connection(HUB)], &all, |_| false)
}

#[test]
fn a_token_of_another_account_or_of_nobody_and_a_dead_one_are_noticed() {
    let mut other = entry(2, 0, "latency");
    other.hub_id = Some(8);
    let log = [entry(1, 0, "latency"), other];
    let verdict = judged(&log, &running(1), &[answer(1, 9_999)], &[]);
    assert_eq!((verdict.calls, verdict.wrong, verdict.dead), (1, 0, 0));
    assert_eq!(judged(&log, &running(1), &[answer(1, 10_000)], &[]).dead, 1);
    assert_eq!(judged(&log, &running(1), &[answer(2, 1)], &[]).wrong, 1);
    assert_eq!(judged(&log, &running(1), &[answer(99, 1)], &[]).wrong, 1);
}

#[test]
fn no_answer_is_a_failure_while_a_replica_has_a_living_token_in_memory() {
    let log = [entry(1, 0, "latency")];
    let mut history = running(1);
    history.database_down = span(0, 99_000);
    assert_eq!(judged(&log, &history, &[], &[3_000]).failed, 1, "it was delivered to it");
    let spoilt = [entry(1, 0, "truncated_body")];
    assert_eq!(judged(&spoilt, &history, &[], &[3_000]).excused, 1, "nobody has it");
    assert_eq!(judged(&spoilt, &history, &[answer(1, 100)], &[3_000]).failed, 1, "it gave it out before");
    history.replicas[0].lives[0].frozen = span(3_000, 9_000);
    assert_eq!(judged(&log, &history, &[], &[3_000]).excused, 1, "it stood still");
}

#[test]
fn no_answer_is_a_failure_while_the_database_has_a_living_token_that_a_replica_can_read() {
    let log = [entry(1, 0, "latency")];
    let mut history = running(2);
    history.replicas[0].lives[0].end = Some((End::Killed, 2_500));
    assert_eq!(judged(&log, &history, &[], &[3_000]).failed, 1);
    history.replicas[1].storage_cut = span(3_000, 9_000);
    assert_eq!(judged(&log, &history, &[], &[3_000]).excused, 1, "the other replica is cut off");
    history.replicas[1].storage_cut = span(3_000, 5_000);
    assert_eq!(judged(&log, &history, &[], &[3_000]).failed, 1, "it was back in time");
    history.replicas[0].lives[0].end = Some((End::Killed, 500));
    assert_eq!(judged(&log, &history, &[], &[3_000]).excused, 1, "it may not have been stored");
}

#[test]
fn no_answer_is_no_failure_when_every_token_was_dead() {
    let log = [entry(1, 0, "latency")];
    assert_eq!(judged(&log, &running(1), &[], &[8_000]).excused, 1);
    assert_eq!(judged(&log, &running(1), &[], &[6_000]).failed, 1);
}

#[test]
fn a_refresh_too_early_after_one_that_was_answered_is_a_double_one() {
    let doubles = |log: &[LogEntry], within| double_refreshes(&Truth::of(log), &[connection(HUB)], within);
    let log = [entry(1, 0, "latency"), entry(2, 4_000, "latency"), entry(3, 11_000, "latency")];
    assert_eq!(doubles(&log, (0, 9)), 1);
    assert_eq!(doubles(&log, (1, 9)), 0, "before the run");
    let lost = [entry(1, 0, "drop_reply_after_issue"), entry(2, 300, "latency")];
    assert_eq!(doubles(&lost, (0, 9)), 0, "the first one came to nothing");
}

#[test]
fn a_lost_grant_is_unavoidable_only_if_the_reply_could_not_be_durable() {
    let cause = |log: &LogEntry, history: &History| {
        unavoidable(&Truth::of(std::slice::from_ref(log)), history, HUB, TIMEOUT)
    };
    let reply = entry(1, 1_000, "latency");
    assert_eq!(cause(&reply, &running(1)), None, "it was delivered, and nothing happened to anybody");
    assert_eq!(cause(&entry(1, 1_000, "drop_reply_after_issue"), &running(1)), Some(Cause::LostReply));

    let mut history = running(1);
    history.replicas[0].vendor_cut = span(1_005, 1_006);
    assert_eq!(cause(&reply, &history), Some(Cause::LostReply));

    let killed = |at| {
        let mut history = running(1);
        history.replicas[0].lives[0].end = Some((End::Killed, at));
        history
    };
    assert_eq!(cause(&reply, &killed(1_300)), Some(Cause::Kill));
    assert_eq!(cause(&reply, &killed(1_600)), None, "it had the time");
    let mut alone = killed(1_300);
    alone.replicas[0].lives[0].end = Some((End::Alone, 1_300));
    assert_eq!(cause(&reply, &alone), None, "nobody killed it");

    let mut history = running(1);
    history.replicas[0].lives[0].frozen = span(1_100, 9_000);
    assert_eq!(cause(&reply, &history), Some(Cause::Stop));

    let mut slow = entry(1, 1_000, "latency");
    slow.server_us = 3_000_000;
    assert_eq!(cause(&slow, &running(1)), Some(Cause::Timeout));
}

#[test]
fn only_the_newest_token_decides_what_a_loss_was_due_to() {
    let log = [entry(1, 1_000, "drop_reply_after_issue"), entry(2, 8_000, "latency")];
    assert_eq!(unavoidable(&Truth::of(&log), &running(1), HUB, TIMEOUT), None);
}

#[test]
fn no_answer_is_excused_where_the_customer_connects_again() {
    let failure = Failure { connection: 0, from_ms: 2_000, to_ms: 7_000, tries: Vec::new() };
    let all = Calls { answers: vec![answer(1, 1_500)], failures: vec![failure] };
    let (truth, connections) = (Truth::of(&[entry(1, 0, "latency")]), [connection(HUB)]);
    let failed =
        |is_excused: fn(usize) -> bool| calls(&truth, &running(1), &connections, &all, is_excused).failed;
    assert_eq!((failed(|_| false), failed(crate::customers::is_restless)), (1, 0));
}
