//! The command line, which is also the list of parameters in the report.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use serde::Serialize;

/// Measures tokenward over loopback and prints the figures.
#[derive(Clone, Debug, Parser, Serialize)]
#[command(name = "tokenward-bench")]
pub struct Options {
    /// Print one JSON object instead of a table.
    #[arg(long)]
    #[serde(skip)]
    pub json: bool,
    /// Run everything at a small scale, to see whether it runs: the figures mean nothing.
    #[arg(long)]
    pub quick: bool,
    /// Measure only these.
    #[arg(long, value_enum, num_args = 1.., value_name = "PART")]
    pub only: Vec<Part>,

    /// Rounds; each measures every server once, in changing order.
    #[arg(long, default_value_t = 7)]
    pub rounds: usize,
    /// Measured seconds of each server in a round.
    #[arg(long, default_value_t = 5.0)]
    pub seconds_per_round: f64,
    /// Seconds before counting starts.
    #[arg(long, default_value_t = 1.0)]
    pub warmup_seconds: f64,
    /// Connections of the load generator.
    #[arg(long, default_value_t = 4)]
    pub connections: usize,
    /// Calls in flight on each connection, where the rate is not fixed.
    #[arg(long, default_value_t = 16)]
    pub streams: usize,

    /// Tenants, with one connection each.
    #[arg(long, default_value_t = 10_000)]
    pub tenants: usize,
    /// Callers, with one token each.
    #[arg(long, default_value_t = 100)]
    pub callers: usize,
    /// Access rules, spread over the callers.
    #[arg(long, default_value_t = 1_000)]
    pub rules: usize,
    /// Different calls of GetToken, made of a random caller, one of its tenants and some of its scopes.
    #[arg(long, default_value_t = 20_000)]
    pub distinct_calls: usize,
    /// Length of access tokens in characters.
    #[arg(long, default_value_t = 512)]
    pub token_length: usize,
    /// Scopes of each connection.
    #[arg(long, default_value_t = 10)]
    pub scopes: usize,
    /// What random picks start from.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,

    /// Calls that refresh, one after the other.
    #[arg(long, default_value_t = 1_000)]
    pub cold_calls: usize,
    /// Callers that ask for one expired connection at once.
    #[arg(long, default_value_t = 1_000)]
    pub concurrent_callers: usize,
    /// Connections for the figures of memory and start.
    #[arg(long, default_value_t = 100_000)]
    pub many_connections: usize,
    /// Starts, of which the median counts.
    #[arg(long, default_value_t = 5)]
    pub starts: usize,
    /// Admin calls in flight while things are set up.
    #[arg(long, default_value_t = 64)]
    pub setup_concurrency: usize,

    /// Calls a second beside jobs of the part `keys`, instead of half of the most that is bearable, which is looked for.
    #[arg(long, value_name = "RATE", value_parser = clap::value_parser!(u32).range(1..))]
    pub calls_per_second: Option<u32>,

    /// An empty database of PostgreSQL for the part `keys`, instead of SQLite.
    #[arg(long, value_name = "URL")]
    #[serde(skip)]
    pub postgres_url: Option<String>,
    /// Where the programs are; by default beside this one.
    #[arg(long, value_name = "FOLDER")]
    #[serde(skip)]
    pub programs: Option<PathBuf>,
    /// Where the databases are put; by default in the folder for temporary files.
    #[arg(long, value_name = "FOLDER")]
    #[serde(skip)]
    pub scratch: Option<PathBuf>,
    /// What is measured, for the report.
    #[arg(long, default_value = "unknown")]
    #[serde(skip)]
    pub commit: String,
}

/// What can be measured on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Memory of a server that has nothing to do.
    Idle,
    /// Calls that memory answers, beside the echo servers.
    Warm,
    /// Calls that refresh.
    Cold,
    /// Many callers of one expired connection.
    Flight,
    /// Memory and start with many connections.
    Many,
    /// Replacing keys.
    Keys,
}

impl Options {
    /// What is measured: with `--quick` a small version of what was asked for.
    #[must_use]
    pub fn effective(mut self) -> Self {
        if self.quick {
            self.rounds = self.rounds.min(3);
            self.seconds_per_round = self.seconds_per_round.min(1.0);
            self.warmup_seconds = self.warmup_seconds.min(0.3);
            self.tenants = self.tenants.min(300);
            self.callers = self.callers.min(10);
            self.rules = self.rules.min(100);
            self.distinct_calls = self.distinct_calls.min(500);
            self.cold_calls = self.cold_calls.min(100);
            self.many_connections = self.many_connections.min(1_000);
            self.starts = self.starts.min(2);
        }
        self
    }

    /// Whether a part is to be measured.
    pub fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    /// Measured time of each server in a round.
    pub fn round_time(&self) -> Duration {
        Duration::from_secs_f64(self.seconds_per_round)
    }

    /// Time before counting starts.
    pub fn warmup(&self) -> Duration {
        Duration::from_secs_f64(self.warmup_seconds)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_by_default_full_scale() {
        Options::command().debug_assert();
        let options = Options::parse_from(["x"]).effective();
        assert_eq!((options.rounds, options.tenants, options.cold_calls), (7, 10_000, 1_000));
        assert!(options.wants(Part::Cold));
    }

    #[test]
    fn quick_makes_it_small_and_only_picks() {
        let options =
            Options::parse_from(["x", "--quick", "--only", "warm", "many", "--tenants", "5"]).effective();
        assert_eq!((options.rounds, options.tenants, options.many_connections), (3, 5, 1_000));
        assert!(options.wants(Part::Many) && !options.wants(Part::Cold));
    }
}
