//! Which faults happen when: drawn before the run from a seed, so that a seed repeats them.

use std::time::Duration;

use serde_json::{Value, json};
use tokenward_bench::load::Random;

use crate::options::{Faults, Options, Rotation, Store};
use crate::proxy::Mode;

/// Nothing happens before, so that tokens are in memory when it begins.
const CALM: Duration = Duration::from_secs(3);
const TEN_MINUTES: Duration = Duration::from_secs(600);

/// Something bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A server is killed, and started again after a while.
    Kill {
        /// Whose.
        replica: usize,
        /// For how long it stays down.
        down: Duration,
    },
    /// A server loses the database, and is killed before it has it back: what it got meanwhile is in its journal alone.
    Strand {
        /// Whose.
        replica: usize,
        /// How its network to the database is cut.
        how: Mode,
        /// For how long it lives on.
        lives: Duration,
        /// For how long it stays down.
        down: Duration,
    },
    /// A server is asked to stop, and started again after a while.
    Terminate {
        /// Whose.
        replica: usize,
        /// For how long it stays down.
        down: Duration,
    },
    /// A server stands still, for longer than a lease, and goes on.
    Freeze {
        /// Whose.
        replica: usize,
        /// For how long.
        time: Duration,
    },
    /// The database crashes, and is started again after a while.
    CrashDatabase {
        /// For how long it stays down.
        down: Duration,
    },
    /// A server's network to the database is cut for a while.
    CutStorage {
        /// Whose.
        replica: usize,
        /// How.
        how: Mode,
        /// For how long.
        time: Duration,
    },
    /// A server's network to the vendor is cut for a while.
    CutVendor {
        /// Whose.
        replica: usize,
        /// How.
        how: Mode,
        /// For how long.
        time: Duration,
    },
}

/// The kinds, as they are counted.
pub const KINDS: [&str; 7] =
    ["kill", "strand", "terminate", "freeze", "crash_database", "cut_storage", "cut_vendor"];

impl Fault {
    /// Its kind.
    pub fn kind(self) -> &'static str {
        let [kill, strand, terminate, freeze, crash_database, cut_storage, cut_vendor] = KINDS;
        match self {
            Self::Kill { .. } => kill,
            Self::Strand { .. } => strand,
            Self::Terminate { .. } => terminate,
            Self::Freeze { .. } => freeze,
            Self::CrashDatabase { .. } => crash_database,
            Self::CutStorage { .. } => cut_storage,
            Self::CutVendor { .. } => cut_vendor,
        }
    }
}

/// A fault and when it happens, from the start of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// When.
    pub at: Duration,
    /// What.
    pub fault: Fault,
}

/// Draws durations and victims.
struct Dice<'a> {
    random: Random,
    options: &'a Options,
}

impl Dice<'_> {
    fn between(&mut self, least_ms: usize, most_ms: usize) -> Duration {
        let ms = least_ms + self.random.below(most_ms - least_ms + 1);
        Duration::from_millis(tokenward_bench::stats::count(ms))
    }

    fn replica(&mut self) -> usize {
        self.random.below(self.options.servers())
    }

    fn how(&mut self) -> Mode {
        if self.random.below(2) == 0 { Mode::Reset } else { Mode::Silence }
    }

    /// Longer than a lease.
    fn beyond_lease(&mut self) -> Duration {
        Duration::from_secs(self.options.lease_seconds) + self.between(500, 4_000)
    }

    fn fault(&mut self, kind: &str) -> Fault {
        let replica = self.replica();
        match kind {
            "kill" => Fault::Kill { replica, down: self.between(0, 2_000) },
            "strand" => {
                let (how, lives) = (self.how(), self.between(300, 1_500));
                Fault::Strand { replica, how, lives, down: self.between(0, 2_000) }
            }
            "terminate" => Fault::Terminate { replica, down: self.between(0, 2_000) },
            "freeze" => Fault::Freeze { replica, time: self.beyond_lease() },
            "crash_database" => Fault::CrashDatabase { down: self.between(200, 4_000) },
            "cut_storage" => {
                let how = self.how();
                let is_long = self.random.below(2) == 0;
                let time = if is_long { self.beyond_lease() } else { self.between(200, 2_000) };
                Fault::CutStorage { replica, how, time }
            }
            _ => Fault::CutVendor { replica, how: self.how(), time: self.between(200, 4_000) },
        }
    }
}

/// How often each kind happens in ten minutes.
fn rates(options: &Options) -> Vec<(&'static str, u32)> {
    if options.faults == Faults::None {
        return Vec::new();
    }
    // Faults of one server leave the others to answer: with fewer servers there are fewer.
    let share = |of_three: u32| of_three * u32::from(options.replicas.min(3)) / 3;
    let mut rates = vec![
        ("kill", share(150)),
        ("terminate", share(40)),
        ("freeze", share(40)),
        ("cut_vendor", share(40)),
    ];
    if options.store != Store::Sqlite && options.faults != Faults::NotDatabase {
        rates.extend([("strand", share(40)), ("cut_storage", share(50)), ("crash_database", 10)]);
    }
    rates
}

/// The faults of a run, in order.
pub fn plan(options: &Options, seed: u64) -> Vec<Planned> {
    let mut dice = Dice { random: Random::new(seed), options };
    let mut plan = Vec::new();
    let room = options.time().saturating_sub(CALM);
    for (kind, rate) in rates(options) {
        let count = (room * rate).div_duration_f64(TEN_MINUTES).round().max(1.0);
        // Spread evenly, each somewhere in its part: so many happen, whatever the seed.
        let part = room.div_f64(count);
        let mut begin = CALM;
        while begin + part / 2 < options.time() {
            let permille = u32::try_from(dice.random.below(1000)).unwrap_or(0);
            plan.push(Planned { at: begin + part * permille / 1000, fault: dice.fault(kind) });
            begin += part;
        }
    }
    plan.sort_by_key(|planned| planned.at);
    plan
}

/// What the vendor does wrong all the time, each with some probability, and how long it takes when it does nothing wrong.
pub fn vendor_faults(options: &Options) -> Vec<Value> {
    let refreshes = |fault: Value| {
        let mut fault = fault;
        fault["endpoint"] = json!("token");
        fault["grant_type"] = json!("refresh_token");
        fault
    };
    let mut faults = Vec::new();
    if let Some(ms) = options.vendor_ms.filter(|ms| *ms > 0) {
        faults.push(json!({"kind": "latency", "ms": ms / 2}));
        faults.push(json!({"kind": "latency", "ms": ms - ms / 2, "after_issue": true}));
    }
    if options.faults == Faults::None {
        return faults.into_iter().map(refreshes).collect();
    }
    // Each of the first five costs a grant at a strict vendor, whatever anybody does: there, so few that most are left.
    let share = if options.rotation == Rotation::Strict { 0.02 } else { 1.0 };
    let slow = options.timeout_seconds * 1000 + 1000;
    let of = |fault: Value, percent: f64| {
        let mut fault = fault;
        fault["probability"] = json!(percent / 100.0);
        fault
    };
    faults.extend([
        of(json!({"kind": "drop_reply_after_issue"}), 1.0 * share),
        of(json!({"kind": "truncated_body"}), 1.0 * share),
        of(json!({"kind": "html", "after_issue": true}), 0.5 * share),
        of(json!({"kind": "latency", "ms": slow, "after_issue": true}), 1.0 * share),
        of(json!({"kind": "latency", "ms": slow}), 0.5 * share),
        of(json!({"kind": "hang_up_before"}), 0.5 * share),
        of(json!({"kind": "status", "status": 500}), 1.0),
        of(json!({"kind": "status", "status": 503, "retry_after": 1}), 0.5),
        of(json!({"kind": "rate_limited", "retry_after": 1}), 0.05),
    ]);
    faults.into_iter().map(refreshes).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn options(line: &str) -> Options {
        Options::parse_from(line.split(' ')).effective().unwrap()
    }

    fn count(plan: &[Planned], kinds: &[&str]) -> usize {
        plan.iter().filter(|planned| kinds.contains(&planned.fault.kind())).count()
    }

    #[test]
    fn a_seed_repeats_its_plan() {
        let options = options("x");
        assert_eq!(plan(&options, 7), plan(&options, 7));
        assert_ne!(plan(&options, 7), plan(&options, 8));
    }

    #[test]
    fn ten_minutes_hold_more_faults_than_are_demanded_and_every_kind() {
        let plan = plan(&options("x --seconds 600"), 1);
        assert!(count(&plan, &["kill", "strand"]) >= 150, "100 kills, and some meet a server that is down");
        assert!(count(&plan, &["crash_database"]) >= 8);
        assert!(KINDS.iter().all(|kind| count(&plan, &[kind]) > 0));
        assert!(plan.iter().all(|planned| planned.at >= CALM && planned.at < Duration::from_secs(600)));
        assert!(plan.is_sorted_by_key(|planned| planned.at));
        assert!(plan.iter().any(|planned| matches!(planned.fault, Fault::Freeze { replica: 2, .. })));
    }

    #[test]
    fn a_frozen_server_stands_still_for_longer_than_a_lease() {
        let plan = plan(&options("x --seconds 600 --lease-seconds 7"), 1);
        let shortest = plan.iter().filter_map(|planned| match planned.fault {
            Fault::Freeze { time, .. } => Some(time),
            _ => None,
        });
        assert!(shortest.min().unwrap() > Duration::from_secs(7));
    }

    #[test]
    fn a_minute_has_a_crash_and_a_file_has_none() {
        assert_eq!(count(&plan(&options("x --seconds 60"), 1), &["crash_database"]), 1);
        let sqlite = plan(&options("x --seconds 600 --store sqlite --replicas 1"), 1);
        assert_eq!(count(&sqlite, &["crash_database", "cut_storage", "strand"]), 0);
        assert!(count(&sqlite, &["kill"]) >= 40);
        assert_eq!(plan(&options("x --faults none"), 1), []);
    }

    #[test]
    fn a_strict_vendor_loses_few_replies_and_one_without_faults_none() {
        let lost = |line: &str| -> f64 {
            let faults = vendor_faults(&options(line));
            let of_kind = |fault: &&Value| fault["kind"] == "drop_reply_after_issue";
            faults.iter().filter(of_kind).filter_map(|fault| fault["probability"].as_f64()).sum()
        };
        assert!(lost("x") > 10.0 * lost("x --rotation strict"));
        let calm = vendor_faults(&options("x --faults none"));
        assert!(calm.iter().all(|fault| fault["kind"] == "latency") && calm.len() == 2);
    }
}
