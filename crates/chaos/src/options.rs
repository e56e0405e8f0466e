//! The command line, which is also the list of parameters in the report.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use serde::Serialize;

/// Breaks everything around real servers for a while, and counts what was lost.
#[derive(Clone, Debug, Parser, Serialize)]
#[command(name = "tokenward-chaos")]
pub struct Options {
    /// Print one JSON object instead of a table.
    #[arg(long)]
    #[serde(skip)]
    pub json: bool,
    /// What is tried.
    #[arg(long, value_enum, default_value_t = Scenario::Chaos)]
    pub scenario: Scenario,
    /// Servers on one database.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=8))]
    pub replicas: u8,
    /// Tenants with one connection each.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub tenants: u32,
    /// How long it is tried, without setting up and checking afterwards.
    #[arg(long, default_value_t = 120)]
    pub seconds: u64,
    /// The database.
    #[arg(long, value_enum, default_value_t = Store::Postgres)]
    pub store: Store,
    /// What using a refresh token does to it at the vendor.
    #[arg(long, value_enum, default_value_t = Rotation::Grace)]
    pub rotation: Rotation,
    /// Which faults there are.
    #[arg(long, value_enum, default_value_t = Faults::All)]
    pub faults: Faults,
    /// What the plan of faults and the vendor's own start from; a random number by default.
    #[arg(long)]
    pub seed: Option<u64>,

    /// Seconds that a spent refresh token still answers, with `--rotation grace`.
    #[arg(long, default_value_t = 30)]
    pub grace_seconds: u64,
    /// Seconds that an access token lives; short, so that refreshes are always in flight.
    #[arg(long)]
    pub token_seconds: Option<u32>,
    /// Milliseconds that the vendor takes for a refresh when nothing is wrong.
    #[arg(long)]
    pub vendor_ms: Option<u64>,
    /// The servers' provider timeout in seconds.
    #[arg(long, default_value_t = 2)]
    pub timeout_seconds: u64,
    /// The servers' lease in seconds.
    #[arg(long, default_value_t = 5)]
    pub lease_seconds: u64,
    /// Callers that ask at a time.
    #[arg(long)]
    pub callers: Option<usize>,
    /// Calls a second of all callers together.
    #[arg(long, default_value_t = 200)]
    pub calls_per_second: u32,
    /// A further option of every server, as `tokenward serve --set` takes it; may be repeated.
    #[arg(long = "set", value_name = "OPTION=VALUE")]
    pub set: Vec<String>,
    /// How often a minute a customer connects again, whose former grant is then worth nothing; those of one in ten tenants do.
    #[arg(long, default_value_t = 0, value_name = "COUNT")]
    pub reconnects_per_minute: u32,
    /// End one grant at the vendor behind the servers' backs, to see that a run can turn red.
    #[arg(long)]
    pub sabotage: bool,

    /// Where the programs are; by default beside this one.
    #[arg(long, value_name = "FOLDER")]
    #[serde(skip)]
    pub programs: Option<PathBuf>,
    /// Keep configurations and logs in this folder instead of removing them.
    #[arg(long, value_name = "FOLDER")]
    #[serde(skip)]
    pub keep: Option<PathBuf>,
    /// What is tried, for the report.
    #[arg(long, default_value = "unknown")]
    #[serde(skip)]
    pub commit: String,
}

/// What is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// Callers ask without a break while faults happen.
    Chaos,
    /// The database is away the whole time, and every token is in the servers' memories.
    DatabaseAway,
    /// Tokens expire faster than they can be refreshed: how many refreshes a second are done.
    Throughput,
}

/// A database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Store {
    /// PostgreSQL.
    Postgres,
    /// MariaDB.
    Mariadb,
    /// A file; one server only.
    Sqlite,
}

/// What using a refresh token does to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Rotation {
    /// A new one replaces it, and it answers for some seconds more.
    Grace,
    /// A new one replaces it, and using it again ends the grant.
    Strict,
    /// Nothing.
    None,
}

/// Which faults there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Faults {
    /// Every kind.
    All,
    /// Only those of servers and vendor: the database works all the time.
    NotDatabase,
    /// None.
    None,
}

impl Options {
    /// What is tried, with every default filled in.
    ///
    /// # Errors
    /// When options do not go together.
    pub fn effective(mut self) -> anyhow::Result<Self> {
        if self.store == Store::Sqlite {
            anyhow::ensure!(self.replicas == 1, "SQLite is for one server: add --replicas 1");
            anyhow::ensure!(self.scenario != Scenario::DatabaseAway, "a file does not go away");
        }
        anyhow::ensure!(
            self.timeout_seconds < self.lease_seconds,
            "a lease must last longer than a call: --lease-seconds above --timeout-seconds"
        );
        if self.scenario != Scenario::Chaos {
            self.faults = Faults::None;
        }
        let (token_seconds, callers) = match self.scenario {
            Scenario::Chaos => (10, 16),
            // They have to outlive the outage.
            Scenario::DatabaseAway => (u32::try_from(2 * self.seconds)?.saturating_add(600), 16),
            Scenario::Throughput => (3, 64),
        };
        // With a strict vendor every refresh that a kill interrupts is a grant less.
        let vendor_ms = match (self.scenario, self.rotation) {
            (Scenario::Throughput, _) => 0,
            (_, Rotation::Strict) => 30,
            _ => 200,
        };
        self.token_seconds = self.token_seconds.or(Some(token_seconds));
        self.callers = self.callers.or(Some(callers));
        self.vendor_ms = self.vendor_ms.or(Some(vendor_ms));
        Ok(self)
    }

    /// How many servers.
    pub fn servers(&self) -> usize {
        usize::from(self.replicas)
    }

    /// How long it is tried.
    pub fn time(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    /// How long customers wait before one connects again, if they do at all.
    pub fn reconnect_pause(&self) -> Option<Duration> {
        Duration::from_mins(1).checked_div(self.reconnects_per_minute)
    }

    /// Life of an access token.
    pub fn token_life(&self) -> Duration {
        Duration::from_secs(self.token_seconds.unwrap_or(10).into())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn effective(line: &str) -> anyhow::Result<Options> {
        Options::parse_from(line.split(' ')).effective()
    }

    #[test]
    fn the_command_line_is_consistent_and_its_defaults_are_the_documented_ones() {
        Options::command().debug_assert();
        let options = effective("x").unwrap();
        assert_eq!((options.replicas, options.tenants, options.seconds), (3, 500, 120));
        assert_eq!((options.store, options.rotation), (Store::Postgres, Rotation::Grace));
        assert_eq!(options.token_life(), Duration::from_secs(10));
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        assert!(effective("x --store sqlite").is_err());
        assert!(effective("x --store sqlite --replicas 1").is_ok());
        assert!(effective("x --store sqlite --replicas 1 --scenario database-away").is_err());
        assert!(effective("x --timeout-seconds 5").is_err());
    }

    #[test]
    fn scenarios_have_their_own_defaults() {
        let away = effective("x --scenario database-away --seconds 60").unwrap();
        assert_eq!((away.faults, away.token_seconds), (Faults::None, Some(720)));
        assert_eq!(effective("x --rotation strict").unwrap().vendor_ms, Some(30));
        assert_eq!(effective("x --rotation strict --vendor-ms 5").unwrap().vendor_ms, Some(5));
    }
}
