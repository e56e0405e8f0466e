//! The figures: JSON for programs, a table for people, and what is broken.

use std::fmt::Write;

use serde::Serialize;
use serde_json::{Map, Value, json};
use tokenward_bench::machine::Machine;
use tokenward_bench::stats::round;

use crate::inject::Tally;
use crate::judge::CallsVerdict;
use crate::options::{Options, Rotation, Scenario};

/// The most milliseconds that a suspended tenant's token may be given out for.
const STALE_MS: i64 = 2_000;

/// Below these figures a long run says little, in the order of the report.
const VOLUME: [(&str, u64); 7] = [
    ("refreshes", 5_000),
    ("kills", 100),
    ("kills_with_attempt_in_flight", 30),
    ("takeovers", 30),
    ("unknown_outcomes", 20),
    ("journal_replays", 10),
    ("rejected_commits", 10),
];
/// The same for crashes of a database that can crash.
const CRASHES: u64 = 5;

/// Grants that nobody could keep, by what took them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Unavoidable {
    /// The process that asked was killed.
    pub kill: u64,
    /// The reply was lost on the way.
    pub lost_reply: u64,
    /// The vendor took too long.
    pub timeout: u64,
    /// The process that asked stood still.
    pub stop: u64,
}

impl Unavoidable {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.kill + self.lost_reply + self.timeout + self.stop
    }
}

/// What the run came to.
#[derive(Clone, Debug)]
pub struct Report {
    /// How it was tried.
    pub options: Options,
    /// What the plan started from.
    pub seed: u64,
    /// Connections that must not be lost.
    pub connections: u64,
    /// Connections that were.
    pub grants_lost: u64,
    /// Of those, the ones that nobody could keep.
    pub unavoidable: Unavoidable,
    /// Some of the lost ones in words.
    pub lost: Vec<String>,
    /// Accounts without a living refresh token at the vendor.
    pub dead_at_vendor: u64,
    /// Spent tokens that came again where that is an alarm.
    pub reuse_detected: u64,
    /// Refreshes for an expiry that was seen to already.
    pub double_refreshes: u64,
    /// Refreshes that the vendor did during the run.
    pub refreshes: u64,
    /// What callers got.
    pub calls: CallsVerdict,
    /// Calls that the first replica did not answer, where all tokens are in memory and the database is away.
    pub not_at_once: Option<u64>,
    /// What happened.
    pub tally: Tally,
    /// Servers that ended without having been told to.
    pub ended_alone: u64,
    /// From the servers' metrics, by the report's names; what no server told is absent.
    pub told: Vec<(&'static str, Option<u64>)>,
    /// The 99th percentile from a reply's arrival until it was durable, as the servers tell it.
    pub durable_p99_ms: Option<f64>,
    /// How often something was forbidden.
    pub suspends: u64,
    /// How often a customer connected again.
    pub reconnects: u64,
    /// The longest time that it was given out all the same.
    pub stale_ms_max: i64,
}

impl Report {
    fn figures(&self) -> Map<String, Value> {
        let mut figures = Map::new();
        let mut add = |name: &str, value: Value| {
            figures.insert(name.to_owned(), value);
        };
        add("connections", json!(self.connections));
        add("grants_lost", json!(self.grants_lost));
        add("grants_lost_unavoidable", json!(self.unavoidable.total()));
        add("grants_lost_unavoidable_by", json!(self.unavoidable));
        add("reuse_detected", json!(self.reuse_detected));
        add("double_refreshes", json!(self.double_refreshes));
        add("refreshes", json!(self.refreshes));
        add("calls", json!(self.calls.calls));
        add("calls_failed", json!(self.calls.failed));
        add("kills", json!(self.tally.kills));
        add("kills_with_attempt_in_flight", json!(self.tally.kills_with_attempt_in_flight));
        for (name, value) in &self.told {
            add(name, json!(value));
        }
        add("db_crashes", json!(self.tally.db_crashes));
        add("rotation_to_durable_p99_ms", json!(self.durable_p99_ms.map(|ms| round(ms, 3))));
        add("stale_after_suspend_ms_max", json!(self.stale_ms_max));
        add("seed", json!(self.seed));
        add("calls_excused", json!(self.calls.excused));
        add("calls_not_at_once", json!(self.not_at_once));
        add("wrong_tokens", json!(self.calls.wrong));
        add("dead_tokens", json!(self.calls.dead));
        add("dead_at_vendor", json!(self.dead_at_vendor));
        add("ended_alone", json!(self.ended_alone));
        add("stuck", json!(self.tally.stuck));
        add("suspends", json!(self.suspends));
        add("reconnects", json!(self.reconnects));
        let seconds = self.options.time().as_secs_f64();
        let per_second = tokenward_bench::stats::float(self.refreshes) / seconds;
        add("refreshes_per_second", json!(round(per_second, 1)));
        figures
    }

    /// What must not be, in words.
    pub fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        let mut none = |count: u64, what: &str| {
            if count > 0 {
                broken.push(format!("{count} {what}"));
            }
        };
        none(self.grants_lost - self.unavoidable.total(), "grants lost that could have been kept");
        none(self.calls.failed, "calls failed although a living token was at hand");
        none(self.calls.wrong, "answers with the token of another account or of none");
        none(self.calls.dead, "answers with a dead token");
        none(self.ended_alone, "servers ended by themselves");
        none(self.tally.stuck, "servers did not stop when asked to");
        if self.options.rotation != Rotation::Strict {
            none(self.reuse_detected, "spent refresh tokens used again");
        }
        if self.options.faults == crate::options::Faults::None {
            none(self.double_refreshes, "refreshes for an expiry that was seen to already");
        }
        if self.options.scenario == Scenario::DatabaseAway {
            none(self.not_at_once.unwrap_or(0), "calls for a token in memory that were not answered at once");
        }
        if self.stale_ms_max > STALE_MS {
            broken.push(format!("what was forbidden was given out for {} ms", self.stale_ms_max));
        }
        broken
    }

    /// Which figures are too small for a long run to say much.
    pub fn thin(&self) -> Vec<String> {
        let figures = self.figures();
        let can_crash = self.options.store != crate::options::Store::Sqlite;
        let crashes = can_crash.then_some(("db_crashes", CRASHES));
        let thin = VOLUME.into_iter().chain(crashes).filter_map(|(name, least)| {
            let value = figures.get(name).and_then(Value::as_f64);
            let is_enough = value.is_some_and(|value| value >= tokenward_bench::stats::float(least));
            (!is_enough).then(|| format!("{name} below {least}"))
        });
        thin.collect()
    }

    /// One object on one line.
    pub fn json(&self) -> String {
        let mut report = self.figures();
        report.insert("broken".to_owned(), json!(self.broken()));
        report.insert("thin".to_owned(), json!(self.thin()));
        report.insert("parameters".to_owned(), json!(self.options));
        report.insert("machine".to_owned(), json!(Machine::this()));
        report.insert("commit".to_owned(), json!(self.options.commit));
        report.insert("faults".to_owned(), json!(self.tally));
        report.insert("lost".to_owned(), json!(self.lost));
        report.insert("failed".to_owned(), json!(self.calls.examples));
        Value::Object(report).to_string()
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut out = String::new();
        let mut line = |text: String| {
            // Writing to a text cannot fail.
            let _ = writeln!(out, "{text}");
        };
        let Machine { cores, cpu_model, memory_mb, kernel, congestion_control: _, callers_go_first: _ } =
            Machine::this();
        line(format!(
            "commit {}, {cores} cores of {cpu_model}, {memory_mb} MB, Linux {kernel}",
            self.options.commit
        ));
        for (name, value) in self.figures() {
            match value {
                Value::Object(parts) => {
                    for (part, value) in parts {
                        line(format!("  {:<44} {value:>12}", format!("{name}.{part}")));
                    }
                }
                Value::Null => line(format!("  {name:<44} {:>12}", "-")),
                value => line(format!("  {name:<44} {value:>12}")),
            }
        }
        for (kind, count) in &self.tally.done {
            line(format!("  {:<44} {count:>12}", format!("faults.{kind}")));
        }
        for text in self.lost.iter().chain(&self.calls.examples) {
            line(format!("  {text}"));
        }
        if self.options.scenario == Scenario::Chaos {
            for text in self.thin() {
                line(format!("thin: {text}"));
            }
        }
        let broken = self.broken();
        for text in &broken {
            line(format!("BROKEN: {text}"));
        }
        if broken.is_empty() {
            line("nothing is broken".to_owned());
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn report(line: &str) -> Report {
        Report {
            options: Options::parse_from(line.split(' ')).effective().unwrap(),
            seed: 42,
            connections: 500,
            grants_lost: 0,
            unavoidable: Unavoidable::default(),
            lost: Vec::new(),
            dead_at_vendor: 0,
            reuse_detected: 0,
            double_refreshes: 0,
            refreshes: 6_000,
            calls: CallsVerdict { calls: 9, ..CallsVerdict::default() },
            not_at_once: None,
            tally: Tally::default(),
            ended_alone: 0,
            told: vec![("takeovers", Some(31)), ("unknown_outcomes", None)],
            durable_p99_ms: Some(5.0),
            suspends: 3,
            reconnects: 0,
            stale_ms_max: 120,
        }
    }

    #[test]
    fn the_json_has_every_figure_by_its_name() {
        let json: Value = serde_json::from_str(&report("x").json()).unwrap();
        for name in [
            "connections",
            "grants_lost",
            "grants_lost_unavoidable",
            "reuse_detected",
            "double_refreshes",
            "refreshes",
            "calls",
            "calls_failed",
            "kills",
            "kills_with_attempt_in_flight",
            "takeovers",
            "unknown_outcomes",
            "db_crashes",
            "rotation_to_durable_p99_ms",
            "stale_after_suspend_ms_max",
            "seed",
            "parameters",
            "commit",
        ] {
            assert!(json.get(name).is_some(), "{name}");
        }
        assert_eq!((&json["seed"], &json["takeovers"]), (&json!(42), &json!(31)));
        assert!(json["unknown_outcomes"].is_null(), "nobody told");
        assert_eq!(json["parameters"]["replicas"], 3);
    }

    #[test]
    fn a_run_is_red_for_each_thing_that_must_not_be() {
        let is_red = |line: &str, spoil: fn(&mut Report)| {
            let mut report = report(line);
            spoil(&mut report);
            !report.broken().is_empty()
        };
        assert!(!is_red("x", |_| {}));
        assert!(is_red("x", |report| report.grants_lost = 1));
        assert!(is_red("x", |report| report.reuse_detected = 1));
        assert!(is_red("x", |report| report.calls.failed = 1));
        assert!(is_red("x", |report| report.calls.wrong = 1));
        assert!(is_red("x", |report| report.calls.dead = 1));
        assert!(is_red("x", |report| report.ended_alone = 1));
        assert!(is_red("x", |report| report.tally.stuck = 1));
        assert!(is_red("x", |report| report.stale_ms_max = 2_001));
        assert!(is_red("x --faults none", |report| report.double_refreshes = 1));
        assert!(!is_red("x", |report| report.double_refreshes = 1), "a takeover may look like one");
        assert!(is_red("x --scenario database-away", |report| report.not_at_once = Some(1)));
    }

    #[test]
    fn a_strict_vendor_may_take_what_nobody_could_keep_and_no_more() {
        let mut report = report("x --rotation strict");
        report.grants_lost = 3;
        report.unavoidable = Unavoidable { kill: 1, lost_reply: 2, ..Unavoidable::default() };
        assert_eq!(report.broken(), Vec::<String>::new());
        report.grants_lost = 4;
        assert_eq!(report.broken().len(), 1);
    }

    #[test]
    fn a_run_with_few_events_says_so() {
        let thin = report("x").thin();
        assert!(thin.contains(&"kills below 100".to_owned()));
        assert!(thin.contains(&"unknown_outcomes below 20".to_owned()), "nobody told");
        assert!(!thin.iter().any(|text| text.starts_with("refreshes") || text.starts_with("takeovers")));
    }
}
