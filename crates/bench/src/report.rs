//! The figures: JSON for programs, a table for people.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use crate::machine::Machine;
use crate::measure::cold::Cold;
use crate::measure::keys::Keys;
use crate::measure::many::Many;
use crate::measure::warm::{Sample, Warm, median_of};
use crate::options::Options;
use crate::stats::{float, round};

/// Processors that may be busy with something else: the kernel's own threads, mostly.
const QUIET: f64 = 0.2;

/// Everything that was measured; what was not is absent.
#[derive(Clone, Debug)]
pub struct Report {
    options: Options,
    machine: Machine,
    /// Memory of a server that has nothing to do.
    pub idle_rss_mb: Option<f64>,
    /// Calls that memory answers.
    pub warm: Option<Warm>,
    /// Calls that refresh.
    pub cold: Option<Cold>,
    /// Refreshes for many callers at once.
    pub provider_calls: Option<u64>,
    /// Memory and start with many connections.
    pub many: Option<Many>,
    /// Replacing keys.
    pub keys: Option<Keys>,
}

/// A figure with what it should be.
struct Target {
    name: &'static str,
    value: Option<f64>,
    /// The bound in words.
    bound: String,
    is_met: bool,
}

impl Report {
    /// Nothing yet.
    pub fn new(options: Options, machine: Machine) -> Self {
        Self {
            options,
            machine,
            idle_rss_mb: None,
            warm: None,
            cold: None,
            provider_calls: None,
            many: None,
            keys: None,
        }
    }

    /// Every figure by its name; null where it was not measured.
    fn figures(&self) -> Map<String, Value> {
        let warm = |value: &dyn Fn(&Warm) -> anyhow::Result<f64>| {
            self.warm.as_ref().and_then(|warm| value(warm).ok())
        };
        let rps = |samples: &[Sample]| median_of(samples, |sample| sample.rps);
        let cpu = |samples: &[Sample]| median_of(samples, |sample| sample.cpu_us_per_call);
        let to = |value: Option<f64>, decimals| json!(value.map(|value| round(value, decimals)));
        let get_token = warm(&|warm| rps(&warm.closed.get_token));
        let echo_same = warm(&|warm| rps(&warm.closed.echo_same));
        let echo_plain = warm(&|warm| rps(&warm.closed.echo_plain));
        let ratio = |of: Option<f64>| to(get_token.zip(of).map(|(ours, other)| ours / other), 3);
        let cold = self.cold.as_ref();
        let many = self.many.as_ref();
        let keys = self.keys.as_ref();
        let figures = json!({
            "get_token_rps": to(get_token, 0),
            "echo_same_rps": to(echo_same, 0),
            "echo_plain_rps": to(echo_plain, 0),
            "ratio_same_runtime": ratio(echo_same),
            "ratio_plain_echo": ratio(echo_plain),
            "cpu_us_per_call": {
                "get_token": to(warm(&|warm| cpu(&warm.closed.get_token)), 1),
                "echo_same": to(warm(&|warm| cpu(&warm.closed.echo_same)), 1),
                "echo_plain": to(warm(&|warm| cpu(&warm.closed.echo_plain)), 1),
                "load_generator": to(
                    warm(&|warm| median_of(&warm.closed.get_token, |sample| sample.client_cpu_us_per_call)),
                    1
                ),
            },
            "get_token_p99_ms": to(warm(&|warm| median_of(&warm.open.get_token, |paced| paced.p99_ms)), 3),
            "echo_plain_p99_ms": to(warm(&|warm| median_of(&warm.open.echo_plain, |paced| paced.p99_ms)), 3),
            "cold_overhead_p50_ms": to(cold.map(|cold| cold.overhead_p50_ms), 3),
            "cold_overhead_p99_ms": to(cold.map(|cold| cold.overhead_p99_ms), 3),
            "idle_rss_mb": to(self.idle_rss_mb, 1),
            "rss_mb_100k_connections": to(many.map(|many| many.rss_mb), 1),
            "start_ms_100k_connections": to(many.map(|many| many.start_ms), 1),
            "provider_calls_for_1000_concurrent_callers": self.provider_calls,
            "key_rotate_seconds": to(keys.map(|keys| keys.rotate_seconds), 2),
            "key_rotate_data_rows_per_second": to(keys.map(|keys| keys.beside_rows_per_second), 0),
            "key_rotate_data_p99_ratio": to(keys.and_then(Keys::p99_ratio), 2),
        });
        match figures {
            Value::Object(figures) => figures,
            _ => Map::new(),
        }
    }

    /// One object on one line: figures, parameters, machine, and what the medians were taken of.
    pub fn json(&self) -> String {
        let mut report = self.figures();
        let mut parameters = json!(self.options);
        if let (Some(warm), Value::Object(parameters)) = (&self.warm, &mut parameters) {
            parameters.insert("open_loop_rps".to_owned(), json!(round(warm.open_rate, 0)));
            parameters.insert("request_bytes_mean".to_owned(), json!(round(warm.request_bytes, 0)));
            parameters.insert("answer_bytes_median".to_owned(), json!(warm.answer_bytes));
            parameters.insert("other_load_max".to_owned(), json!(round(warm.other_load(), 2)));
            parameters.insert("log_lines_during_rounds".to_owned(), json!(warm.log_lines));
        }
        report.insert("parameters".to_owned(), parameters);
        report.insert("machine".to_owned(), json!(self.machine));
        report.insert("commit".to_owned(), json!(self.options.commit));
        let details = json!({
            "closed_rounds": self.warm.as_ref().map(|warm| &warm.closed),
            "open_rounds": self.warm.as_ref().map(|warm| &warm.open),
            "cold": self.cold,
            "many": self.many,
            "keys": self.keys,
        });
        report.insert("details".to_owned(), details);
        Value::Object(report).to_string()
    }

    /// For people: every figure, and whether it is where it should be.
    pub fn table(&self) -> String {
        let mut out = String::new();
        let Machine { cores, cpu_model, kernel, memory_mb, congestion_control, callers_go_first } =
            &self.machine;
        let mut line = |text: String| {
            // Writing to a text cannot fail.
            let _ = writeln!(out, "{text}");
        };
        line(format!(
            "commit {}, {cores} cores of {cpu_model}, {memory_mb} MB, Linux {kernel}, TCP {congestion_control}",
            self.options.commit
        ));
        if self.options.quick {
            line("--quick: the figures mean nothing".to_owned());
        }
        if !callers_go_first {
            line(
                "latencies have what callers wait for a processor: only root may put them ahead of servers"
                    .to_owned(),
            );
        }
        if self.machine.stalls_connections() {
            line("TCP bbr holds connections up from time to time: `sysctl -w net.ipv4.tcp_congestion_control=cubic`".to_owned());
        }
        if let Some(load) = self.warm.as_ref().map(Warm::other_load).filter(|load| *load > QUIET) {
            line(format!("something else kept {load:.2} processors busy: repeat this on a quiet machine"));
        }
        let figures = self.figures();
        for (name, value) in &figures {
            match value {
                Value::Object(parts) => {
                    for (part, value) in parts {
                        line(format!("  {:<44} {:>12}", format!("{name}.{part}"), shown(value)));
                    }
                }
                _ => line(format!("  {name:<44} {:>12}", shown(value))),
            }
        }
        line("targets".to_owned());
        for Target { name, value, bound, is_met } in targets(&figures) {
            let verdict = match (value, is_met) {
                (None, _) => "not measured",
                (_, true) => "met",
                (_, false) => "MISSED",
            };
            line(format!("  {name:<44} {bound:>12}  {verdict}"));
        }
        out
    }
}

fn shown(value: &Value) -> String {
    if value.is_null() { "-".to_owned() } else { value.to_string() }
}

fn targets(figures: &Map<String, Value>) -> Vec<Target> {
    let value = |name: &str| figures.get(name).and_then(Value::as_f64);
    let at_least = |name, bound: f64| Target {
        name,
        value: value(name),
        bound: format!(">= {bound}"),
        is_met: value(name).is_some_and(|value| value >= bound),
    };
    let at_most = |name, bound: f64| Target {
        name,
        value: value(name),
        bound: format!("<= {}", round(bound, 3)),
        is_met: value(name).is_some_and(|value| value <= bound),
    };
    let calls = "provider_calls_for_1000_concurrent_callers";
    let is_one = figures.get(calls).and_then(Value::as_u64) == Some(1);
    vec![
        at_least("ratio_same_runtime", 0.85),
        at_least("ratio_plain_echo", 1.1),
        at_most("get_token_p99_ms", 1.2 * value("echo_plain_p99_ms").unwrap_or(0.0)),
        at_most("idle_rss_mb", 30.0),
        at_most("rss_mb_100k_connections", 150.0),
        at_most("start_ms_100k_connections", 500.0),
        Target { name: calls, value: value(calls), bound: format!("= {}", float(1)), is_met: is_one },
        at_most("cold_overhead_p50_ms", 4.0),
        at_most("key_rotate_seconds", 3.0),
        at_least("key_rotate_data_rows_per_second", 5_000.0),
        at_most("key_rotate_data_p99_ratio", 1.5),
    ]
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn report() -> Report {
        let options = Options::parse_from(["x", "--commit", "abc"]);
        let mut report = Report::new(options, Machine::this());
        report.idle_rss_mb = Some(31.26);
        report.provider_calls = Some(1);
        report
    }

    #[test]
    fn the_json_has_every_figure_even_if_it_was_not_measured() {
        let json: Value = serde_json::from_str(&report().json()).unwrap();
        for name in [
            "get_token_rps",
            "echo_same_rps",
            "echo_plain_rps",
            "ratio_same_runtime",
            "ratio_plain_echo",
            "cpu_us_per_call",
            "get_token_p99_ms",
            "echo_plain_p99_ms",
            "cold_overhead_p50_ms",
            "cold_overhead_p99_ms",
            "idle_rss_mb",
            "rss_mb_100k_connections",
            "start_ms_100k_connections",
            "provider_calls_for_1000_concurrent_callers",
            "parameters",
            "machine",
            "commit",
        ] {
            assert!(json.get(name).is_some(), "{name}");
        }
        assert_eq!(json["idle_rss_mb"], 31.3);
        assert!(json["get_token_rps"].is_null());
        assert_eq!(json["parameters"]["tenants"], 10_000);
    }

    #[test]
    fn the_table_tells_a_figure_that_is_missed_from_one_that_is_met() {
        let table = report().table();
        let verdict = |name: &str| table.lines().rfind(|line| line.contains(name)).unwrap().to_owned();
        assert!(verdict("idle_rss_mb").ends_with("MISSED"));
        assert!(verdict("provider_calls").ends_with("met"));
        assert!(verdict("ratio_plain_echo").ends_with("not measured"));
    }
}
