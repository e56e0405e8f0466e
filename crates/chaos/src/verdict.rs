//! Puts the report together from everything that was seen.

use crate::callers::Calls;
use crate::canary::{Watched, stale_ms_max};
use crate::check::{Checked, Fate};
use crate::customers::is_restless;
use crate::history::History;
use crate::inject::Tally;
use crate::judge::{self, Cause};
use crate::options::{Options, Rotation, Scenario};
use crate::report::{Report, Unavoidable};
use crate::scrape::{self, Values};
use crate::setup::Connection;
use crate::sim::LogEntry;
use crate::truth::Truth;

/// Lost grants that are told in words.
const EXAMPLES: usize = 20;

/// What servers count, by the report's names.
const COUNTERS: [(&str, &str); 4] = [
    ("takeovers", "tokenward_refresh_takeovers_total"),
    ("unknown_outcomes", "tokenward_refresh_unknown_outcomes_total"),
    ("journal_replays", "tokenward_journal_replays_total"),
    ("rejected_commits", "tokenward_refresh_rejected_commits_total"),
];
/// From a reply's arrival until it was durable.
const DURABLE: &str = "tokenward_rotation_to_durable_seconds";

/// Everything that was seen.
pub struct Evidence<'a> {
    /// How it was tried.
    pub options: &'a Options,
    /// What the plan started from.
    pub seed: u64,
    /// Connections that must not be lost.
    pub connections: &'a [Connection],
    /// The vendor's whole log.
    pub log: Vec<LogEntry>,
    /// The numbers of the log's entries between which the run was.
    pub within: (u64, u64),
    /// What callers got.
    pub calls: Calls,
    /// What was given out although it was forbidden.
    pub watched: Watched,
    /// How often a customer connected again.
    pub reconnects: u64,
    /// What the connections came to.
    pub checked: Checked,
    /// What was done to servers, database and networks.
    pub history: History,
    /// How often.
    pub tally: Tally,
    /// What the servers told, by process.
    pub metrics: Vec<Values>,
    /// The same of the time under load alone: without setting up, and without the rush at the end.
    pub under_load: Vec<Values>,
}

/// Judges it.
pub fn report(evidence: Evidence<'_>) -> Report {
    let Evidence {
        options,
        seed,
        connections,
        log,
        within,
        calls,
        watched,
        reconnects,
        checked,
        history,
        tally,
        metrics,
        under_load,
    } = evidence;
    let count = tokenward_bench::stats::count;
    let truth = Truth::of(&log);
    let is_of_run = |entry: &&LogEntry| within.0 < entry.seq && entry.seq <= within.1;
    let refreshes = log.iter().filter(is_of_run).filter(|e| e.is_refresh() && e.tokens.is_some()).count();
    let not_at_once = (options.scenario == Scenario::DatabaseAway)
        .then(|| count(calls.failures.len() + calls.answers.iter().filter(|answer| !answer.at_once).count()));
    let losses = losses(options, &truth, &history, connections, &checked.fates);
    let counters = COUNTERS.map(|(name, metric)| (name, scrape::count(&metrics, metric)));
    Report {
        connections: count(connections.len()),
        grants_lost: losses.count,
        unavoidable: losses.unavoidable,
        lost: losses.examples,
        dead_at_vendor: checked.dead_at_vendor,
        reuse_detected: checked.reuse_detected,
        double_refreshes: judge::double_refreshes(&truth, connections, within),
        refreshes: count(refreshes),
        calls: judge::calls(&truth, &history, connections, &calls, |number| {
            options.reconnects_per_minute > 0 && is_restless(number)
        }),
        not_at_once,
        ended_alone: count(history.ended_alone()),
        told: counters.to_vec(),
        durable_p99_ms: scrape::quantile(&under_load, DURABLE, 0.99).map(|seconds| seconds * 1e3),
        suspends: watched.changes,
        reconnects,
        stale_ms_max: stale_ms_max(&history, &watched.sightings),
        options: options.clone(),
        seed,
        tally,
    }
}

#[derive(Debug, Default)]
struct Losses {
    count: u64,
    unavoidable: Unavoidable,
    examples: Vec<String>,
}

fn losses(
    options: &Options,
    truth: &Truth,
    history: &History,
    connections: &[Connection],
    fates: &[Fate],
) -> Losses {
    let timeout_ms = i64::try_from(options.timeout_seconds * 1000).unwrap_or(i64::MAX);
    let mut losses = Losses::default();
    for (connection, fate) in connections.iter().zip(fates) {
        let what = match fate {
            Fate::Kept(token) => {
                let owner = truth.of_access_token(*token).map(|issue| issue.hub_id);
                if owner == Some(connection.hub_id) {
                    continue;
                }
                format!("its token belongs to {owner:?}")
            }
            Fate::Lost(what) => what.clone(),
        };
        losses.count += 1;
        let is_strict = options.rotation == Rotation::Strict;
        let cause = judge::unavoidable(truth, history, connection.hub_id, timeout_ms).filter(|_| is_strict);
        let Unavoidable { kill, lost_reply, timeout, stop } = &mut losses.unavoidable;
        match cause {
            Some(Cause::Kill) => *kill += 1,
            Some(Cause::LostReply) => *lost_reply += 1,
            Some(Cause::Timeout) => *timeout += 1,
            Some(Cause::Stop) => *stop += 1,
            None => {}
        }
        // Those that could have been kept come first.
        let text =
            format!("lost: {} (account {}), {cause:?}: {what}", connection.tenant_id, connection.hub_id);
        if cause.is_none() {
            losses.examples.insert(0, text);
        } else {
            losses.examples.push(text);
        }
    }
    losses.examples.truncate(EXAMPLES);
    losses
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::history::{Life, ReplicaHistory};
    use crate::sim::IssuedTokens;
    use crate::spans::Spans;

    /// A run in which account 7 got a token that was dropped on its way, and account 8 one that was not.
    fn evidence<'a>(options: &'a Options, connections: &'a [Connection], fates: &[Fate; 2]) -> Evidence<'a> {
        let entry = |seq: u64, hub_id, fault: &str| LogEntry {
            seq,
            at_ms: 1_000,
            peer: Some(crate::replica::source(0)),
            endpoint: "token".to_owned(),
            grant_type: Some("refresh_token".to_owned()),
            hub_id: Some(hub_id),
            token: None,
            tokens: Some(IssuedTokens {
                at_ms: 1_000,
                expires_at_ms: 11_000,
                access_token: format!("{seq:016x}"),
                refresh_token: String::new(),
            }),
            faults: vec![fault.to_owned()],
            server_us: 10_000,
            delivered: fault == "latency",
        };
        let life = Life { born: 0, serving: Some(0), stopping: None, end: None, frozen: Spans::default() };
        let replica = ReplicaHistory { lives: vec![life], ..ReplicaHistory::default() };
        Evidence {
            options,
            seed: 1,
            connections,
            log: vec![entry(1, 7, "drop_reply_after_issue"), entry(2, 8, "latency")],
            within: (0, 2),
            calls: Calls::default(),
            watched: Watched::default(),
            reconnects: 0,
            checked: Checked { fates: fates.to_vec(), reuse_detected: 0, dead_at_vendor: 0 },
            history: History { replicas: vec![replica], ..History::default() },
            tally: Tally::default(),
            metrics: Vec::new(),
            under_load: Vec::new(),
        }
    }

    fn of(line: &str, fates: &[Fate; 2]) -> Report {
        let options = Options::parse_from(line.split(' ')).effective().unwrap();
        let connection =
            |hub_id| Connection { tenant_id: format!("t{hub_id}"), connection_id: "c".to_owned(), hub_id };
        report(evidence(&options, &[connection(7), connection(8)], fates))
    }

    fn lost() -> Fate {
        Fate::Lost("REAUTHORIZATION_REQUIRED".to_owned())
    }

    #[test]
    fn with_grace_every_lost_grant_could_have_been_kept() {
        let report = of("x", &[lost(), Fate::Kept(2)]);
        assert_eq!((report.grants_lost, report.unavoidable.total(), report.refreshes), (1, 0, 2));
        assert_eq!(report.broken().len(), 1);
    }

    #[test]
    fn with_a_strict_vendor_a_reply_lost_on_its_way_is_nobodys_fault_and_one_that_came_is() {
        let excused = of("x --rotation strict", &[lost(), Fate::Kept(2)]);
        assert_eq!((excused.grants_lost, excused.unavoidable.lost_reply), (1, 1));
        assert_eq!(excused.broken(), Vec::<String>::new());
        let at_fault = of("x --rotation strict", &[lost(), lost()]);
        assert_eq!((at_fault.grants_lost, at_fault.unavoidable.total()), (2, 1));
        assert_eq!(at_fault.broken().len(), 1);
        assert!(at_fault.lost[0].contains("t8"), "those at fault come first: {:?}", at_fault.lost);
    }

    #[test]
    fn a_connection_that_gives_out_another_accounts_token_is_lost() {
        assert_eq!(of("x", &[Fate::Kept(2), Fate::Kept(2)]).grants_lost, 1);
    }
}
