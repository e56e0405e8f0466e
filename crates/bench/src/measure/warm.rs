//! Calls that memory answers, beside a bare echo: in turn, so that whatever else the machine does hits all alike.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{HeaderValue, Uri};
use serde::Serialize;
use tokenward_api::v1::GetTokenResponse;
use tokio::process::Command;

use crate::child::Child;
use crate::echo::{ECHO_PATH, EchoRequest};
use crate::gateway::Gateway;
use crate::load::{Answered, Closed, Open, Random, Workload, closed_loop, each, open_loop};
use crate::options::Options;
use crate::requests::{Call, Expected, digest, first_field, text_length_for, unframe};
use crate::run::say;
use crate::setup::Filled;
use crate::stats::{count, float, median, micros_per_call, rate, round};

/// Percentiles of the open loop.
const P50: f64 = 50.0;
const P99: f64 = 99.0;

/// One server in a closed round.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    /// Calls per second.
    pub rps: f64,
    /// The server's processor time per call.
    pub cpu_us_per_call: f64,
    /// The load generator's.
    pub client_cpu_us_per_call: f64,
    /// Processors that something else kept busy meanwhile.
    pub other_load: f64,
    /// Latency at full load.
    pub p99_ms: f64,
}

/// One server in an open round.
#[derive(Clone, Debug, Serialize)]
pub struct Paced {
    /// Median latency.
    pub p50_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
}

/// The servers in the order in which they are named.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Rounds<T> {
    /// Tokenward.
    pub get_token: Vec<T>,
    /// The echo with the same runtimes, allocator and headers.
    pub echo_same: Vec<T>,
    /// The echo of tonic's documentation.
    pub echo_plain: Vec<T>,
}

impl<T> Rounds<T> {
    fn new() -> Self {
        Self { get_token: Vec::new(), echo_same: Vec::new(), echo_plain: Vec::new() }
    }

    fn of(&mut self, server: usize) -> &mut Vec<T> {
        match server {
            0 => &mut self.get_token,
            1 => &mut self.echo_same,
            _ => &mut self.echo_plain,
        }
    }
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Warm {
    /// As fast as they go.
    pub closed: Rounds<Sample>,
    /// At half the plain echo's rate.
    pub open: Rounds<Paced>,
    /// That rate.
    pub open_rate: f64,
    /// Size of the average GetToken request in bytes.
    pub request_bytes: f64,
    /// Size of the median GetToken answer in bytes.
    pub answer_bytes: f64,
    /// Lines that the server logged during all rounds.
    pub log_lines: u64,
}

impl Warm {
    /// The most processors that something else kept busy during a closed round.
    pub fn other_load(&self) -> f64 {
        let Rounds { get_token, echo_same, echo_plain } = &self.closed;
        let all = get_token.iter().chain(echo_same).chain(echo_plain);
        all.map(|sample| sample.other_load).fold(0.0, f64::max)
    }
}

/// The median of something over rounds.
///
/// # Errors
/// When there were none.
pub fn median_of<T>(rounds: &[T], value: impl Fn(&T) -> f64) -> Result<f64> {
    median(&rounds.iter().map(value).collect::<Vec<_>>()).context("there were no rounds")
}

/// Runs all rounds.
///
/// # Errors
/// When anything fails, an answer is wrong, or the server logs successful calls.
pub async fn measure(
    gateway: &mut Gateway,
    filled: &Filled,
    programs: &Path,
    folder: &Path,
    options: &Options,
) -> Result<Warm> {
    say("reading every tenant's token once");
    let calls = get_token_calls(gateway, filled, options).await?;
    // The first time that a caller gets a token is logged: that is over before anything is timed.
    let answers = each(gateway.site.service, calls.clone(), options.connections, 64).await?;
    let sizes: Vec<f64> = answers.iter().map(|answered| float(count(answered.answer.len()))).collect();
    let answer_bytes = median(&sizes).context("no answers")?;
    let text = answers.iter().map(|answered| answered.answer.len()).max().unwrap_or(0).saturating_sub(5);
    let text = text_length_for(text);

    let mut plain = echo(programs, folder, "bench-echo-plain", text)?;
    let mut same = echo(programs, folder, "bench-echo-same", text)?;
    let bearers: Vec<HeaderValue> = calls.iter().filter_map(|call| call.bearer().cloned()).collect();
    let servers = [
        (Workload::new(gateway.site.service, calls.clone()).await?, gateway.child.pid()),
        (echo_workload(&mut same, &calls, &bearers, options).await?, same.pid()),
        (echo_workload(&mut plain, &calls, &[], options).await?, plain.pid()),
    ];

    let logged = gateway.child.log_lines()?;
    let mut closed = Rounds::new();
    for number in 0..options.rounds {
        for server in order(number) {
            let sample = closed_round(&servers[server], number, options).await?;
            say(&format!(
                "round {}: {:<10} {:>7.0} calls/s, {:.1} us of server CPU a call, {:.1} us of the load generator's, {:.2} \
                 processors busy with something else",
                number + 1,
                NAMES[server],
                sample.rps,
                sample.cpu_us_per_call,
                sample.client_cpu_us_per_call,
                sample.other_load
            ));
            closed.of(server).push(sample);
        }
    }
    let open_rate = median_of(&closed.echo_plain, |sample| sample.rps)? / 2.0;
    let mut open = Rounds::new();
    for number in 0..options.rounds {
        for server in order(number) {
            let paced = open_round(&servers[server].0, number, open_rate, options).await?;
            say(&format!(
                "paced round {}: {:<10} p50 {:.3} ms, p99 {:.3} ms at {open_rate:.0} calls/s",
                number + 1,
                NAMES[server],
                paced.p50_ms,
                paced.p99_ms
            ));
            open.of(server).push(paced);
        }
    }
    gateway.child.must_run()?;
    let log_lines = gateway.child.log_lines()? - logged;
    check_books(gateway, &closed, log_lines, options).await?;
    let request_bytes =
        float(calls.iter().map(|call| count(call.body.len())).sum()) / float(count(calls.len()));
    Ok(Warm { closed, open, open_rate, request_bytes, answer_bytes, log_lines })
}

const NAMES: [&str; 3] = ["get_token", "echo_same", "echo_plain"];

/// The servers of a round, each as often first, second and last.
fn order(round: usize) -> [usize; 3] {
    [round % 3, (round + 1) % 3, (round + 2) % 3]
}

/// Random calls, each with the token that it must bring.
///
/// # Errors
/// When a tenant's token cannot be read, or is not what was promised.
pub async fn get_token_calls(gateway: &Gateway, filled: &Filled, options: &Options) -> Result<Arc<[Call]>> {
    let Filled { world, bearers, first_hub_id } = filled;
    let reads: Result<Vec<Call>> = (0..world.tenants())
        .map(|tenant| gateway.site.call(&world.read(tenant), filled.reader()?, Expected::Anything))
        .collect();
    let answers = each(gateway.site.service, reads?.into(), options.connections, 64).await?;
    let tokens: Result<Vec<u64>> = answers
        .iter()
        .zip(*first_hub_id..)
        .map(|(answered, hub_id)| token(answered, hub_id, options))
        .collect();
    let tokens = tokens?;
    let mut random = Random::new(options.seed);
    (0..options.distinct_calls)
        .map(|_| {
            let ask = world.ask(&mut random);
            gateway.site.call(&ask, &bearers[ask.caller], Expected::Digest(tokens[ask.tenant]))
        })
        .collect()
}

/// The digest of an answer's token, if the answer is all that was promised.
fn token(answered: &Answered, hub_id: u64, options: &Options) -> Result<u64> {
    let message: GetTokenResponse = unframe(&answered.answer)?;
    ensure!(message.account_id == hub_id.to_string(), "the token of another account: {}", message.account_id);
    ensure!(message.scopes.len() == options.scopes, "the token carries {} scopes", message.scopes.len());
    ensure!(message.warnings.is_empty(), "there are warnings: {:?}", message.warnings);
    let token = first_field(&answered.answer).context("no token")?;
    ensure!(token.len() == options.token_length, "the token has {} characters", token.len());
    Ok(digest(token))
}

fn echo(programs: &Path, folder: &Path, name: &str, text: usize) -> Result<Child> {
    let mut command = Command::new(programs.join(name));
    command.arg("--answer-bytes").arg(text.to_string());
    Child::start(name, folder, &mut command, true)
}

async fn echo_workload(
    server: &mut Child,
    calls: &[Call],
    bearers: &[HeaderValue],
    options: &Options,
) -> Result<Workload> {
    let address = server.first_line().await?.parse()?;
    let calls: Arc<[Call]> = echoes(address, calls, bearers, options.seed)?.into();
    each(address, calls.clone(), options.connections, 64).await?;
    Workload::new(address, calls).await
}

/// For each call of GetToken an echo of the same size; with its caller token where there are any.
fn echoes(address: SocketAddr, calls: &[Call], bearers: &[HeaderValue], seed: u64) -> Result<Vec<Call>> {
    let uri =
        Uri::builder().scheme("http").authority(address.to_string()).path_and_query(ECHO_PATH).build()?;
    let mut random = Random::new(seed);
    let calls = calls.iter().enumerate().map(|(index, call)| {
        let length = text_length_for(call.message_bytes());
        let mut message = String::with_capacity(length + 16);
        while message.len() < length {
            // Writing to a text cannot fail.
            let _ = write!(message, "{:016x}", random.number());
        }
        message.truncate(length);
        let expected = Expected::StartsWith(Bytes::from(message.clone()));
        Call::new(&uri, bearers.get(index), &EchoRequest { message }, expected)
    });
    Ok(calls.collect())
}

async fn closed_round(server: &(Workload, u32), number: usize, options: &Options) -> Result<Sample> {
    let plan = Closed {
        connections: options.connections,
        streams: options.streams,
        warmup: options.warmup(),
        time: options.round_time(),
        seed: options.seed.wrapping_add(count(number)),
    };
    let run = closed_loop(&server.0, plan, server.1).await?;
    let outcome = run.outcome.all_right("closed round")?;
    Ok(Sample {
        rps: rate(outcome.calls, options.round_time()),
        cpu_us_per_call: micros_per_call(run.server_cpu, outcome.calls),
        client_cpu_us_per_call: micros_per_call(run.client_cpu, outcome.calls),
        other_load: run.other_cpu.as_secs_f64() / run.time.as_secs_f64(),
        p99_ms: outcome.latency_ms(P99),
    })
}

async fn open_round(workload: &Workload, number: usize, rate: f64, options: &Options) -> Result<Paced> {
    let plan = Open {
        connections: options.connections,
        rate,
        warmup: options.warmup(),
        time: options.round_time(),
        seed: options.seed.wrapping_add(count(number)),
    };
    let outcome = open_loop(workload, plan).await?.all_right("paced round")?;
    Ok(Paced { p50_ms: outcome.latency_ms(P50), p99_ms: outcome.latency_ms(P99) })
}

/// The figures are of a server that counts every call and logs none of them.
async fn check_books(
    gateway: &Gateway,
    closed: &Rounds<Sample>,
    log_lines: u64,
    options: &Options,
) -> Result<()> {
    let calls: f64 = closed.get_token.iter().map(|sample| sample.rps * options.seconds_per_round).sum();
    let logged = float(log_lines);
    ensure!(
        logged * 100.0 < calls.max(1.0),
        "{log_lines} lines were logged during about {} calls",
        round(calls, 0)
    );
    let metrics = gateway.metrics().await.context("no metrics")?;
    let counted = metrics
        .lines()
        .filter(|line| line.contains("GetToken"))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .fold(0.0, f64::max);
    ensure!(counted >= calls, "metrics tell of {counted} calls, but at least {} were made", round(calls, 0));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_server_comes_first_second_and_last_as_often() {
        for place in 0..3 {
            let mut seen: Vec<usize> = (0..3).map(|round| order(round)[place]).collect();
            seen.sort_unstable();
            assert_eq!(seen, [0, 1, 2]);
        }
    }

    #[test]
    fn echoes_have_the_size_of_the_calls_that_they_stand_for() {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let uri = Uri::from_static("http://x/y");
        let bearer = HeaderValue::from_static("Bearer x");
        let calls: Vec<Call> = [40, 200, 900]
            .map(|length| {
                Call::new(
                    &uri,
                    Some(&bearer),
                    &EchoRequest { message: "m".repeat(length) },
                    Expected::Anything,
                )
            })
            .into();
        let same = echoes(address, &calls, &vec![bearer; 3], 1).unwrap();
        let plain = echoes(address, &calls, &[], 1).unwrap();
        for ((call, same), plain) in calls.iter().zip(&same).zip(&plain) {
            assert_eq!(call.body.len(), same.body.len());
            assert_eq!(call.body.len(), plain.body.len());
            assert!(same.bearer().is_some() && plain.bearer().is_none());
        }
    }
}
