//! Jobs, and waiting for them: a bar on a terminal, an event a line for programs.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokenward_api::admin::v1::key_job::{Kind, State};
use tokenward_api::admin::v1::key_service_client::KeyServiceClient;
use tokenward_api::admin::v1::{GetKeyJobRequest, KeyFinding, KeyJob, ListKeyFindingsRequest};
use tonic::Code;

use crate::failure::{Failure, printable};
use crate::output::{Output, Row, print, text, time};
use crate::remote::Client;

/// How often a job is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How many looks in a row may fail: a server that restarts is back by then, and jobs go on without it.
const PATIENCE: u32 = 150;
/// How wide the bar is, in characters.
const BAR: usize = 30;

/// Whether to wait.
#[derive(Clone, Debug, Args)]
pub(super) struct Wait {
    /// Return as soon as the job has begun; `tokenward key job` shows it later.
    #[arg(long)]
    no_wait: bool,
}

/// A job as it is printed.
#[derive(Serialize)]
struct View {
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'static str>,
    key_job_id: String,
    kind: &'static str,
    state: &'static str,
    encryption_key: Option<String>,
    tenant_id: Option<String>,
    creator: String,
    total_count: i64,
    done_count: i64,
    skipped_count: i64,
    message: Option<String>,
    create_time: Option<String>,
    update_time: Option<String>,
    finish_time: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    findings: Vec<FindingView>,
}

/// Something that does not decrypt.
#[derive(Serialize)]
struct FindingView {
    scope: String,
    place: String,
    problem: String,
}

impl Row for FindingView {
    const COLUMNS: &'static [&'static str] = &["scope", "place", "problem"];
}

impl From<KeyFinding> for FindingView {
    fn from(finding: KeyFinding) -> Self {
        Self { scope: finding.scope, place: finding.place, problem: finding.problem }
    }
}

fn kind(job: &KeyJob) -> &'static str {
    match job.kind() {
        Kind::RotateEncryptionKey => "rotate",
        Kind::RotateDataKeys => "rotate_data",
        Kind::Verify => "verify",
        Kind::Unspecified => "unknown",
    }
}

fn state(job: &KeyJob) -> &'static str {
    match job.state() {
        State::Spreading => "spreading",
        State::Running => "running",
        State::Done => "done",
        State::Failed => "failed",
        State::Unspecified => "unknown",
    }
}

fn view(job: KeyJob, event: Option<&'static str>, findings: Vec<FindingView>) -> View {
    View {
        event,
        kind: kind(&job),
        state: state(&job),
        key_job_id: job.key_job_id,
        encryption_key: text(job.encryption_key),
        tenant_id: text(job.tenant_id),
        creator: job.creator,
        total_count: job.total_count,
        done_count: job.done_count,
        skipped_count: job.skipped_count,
        message: text(job.message),
        create_time: time(job.create_time),
        update_time: time(job.update_time),
        finish_time: time(job.finish_time),
        findings,
    }
}

/// Shows a job until it is over.
pub(super) async fn follow(
    client: &mut KeyServiceClient<Client>,
    output: Output,
    mut job: KeyJob,
    wait: &Wait,
) -> Result<(), Failure> {
    if wait.no_wait {
        return output.one(&view(job, None, Vec::new()));
    }
    let shows_bar = output == Output::Table && std::io::stderr().is_terminal();
    let mut failures = 0;
    while matches!(job.state(), State::Spreading | State::Running) {
        match output {
            Output::Json => event(&view(job.clone(), Some("progress"), Vec::new()))?,
            Output::Table if shows_bar => draw(&bar(&job)),
            Output::Table => {}
        }
        job = next(client, job, &mut failures, output).await?;
    }
    if shows_bar {
        draw("");
    }
    let request = ListKeyFindingsRequest { key_job_id: job.key_job_id.clone() };
    let listed = client.list_key_findings(request).await?.into_inner();
    let findings: Vec<_> = listed.key_findings.into_iter().map(FindingView::from).collect();
    let (failed, found) = (job.state() == State::Failed, findings.len());
    match output {
        Output::Json => event(&view(job, Some("finished"), findings))?,
        Output::Table => {
            output.one(&view(job, None, Vec::new()))?;
            if found > 0 {
                print("\n")?;
                output.list(&findings)?;
            }
        }
    }
    if failed {
        return Err(Failure::new("the job failed; its message says why"));
    }
    if found > 0 {
        let more = if listed.more { "more than " } else { "" };
        return Err(Failure::new(format!("{more}{found} stored secrets or data keys do not decrypt"))
            .hint("restore the rows or the keys that are named, and run `tokenward key verify` again"));
    }
    Ok(())
}

/// The job when it has gone on, or a moment later.
async fn next(
    client: &mut KeyServiceClient<Client>,
    former: KeyJob,
    failures: &mut u32,
    output: Output,
) -> Result<KeyJob, Failure> {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        match client.get_key_job(GetKeyJobRequest { key_job_id: former.key_job_id.clone() }).await {
            Ok(job) => {
                *failures = 0;
                let job = job.into_inner();
                // Programs are told what is new; people see that it lives.
                if output == Output::Table || job != former {
                    return Ok(job);
                }
            }
            Err(status) if status.code() == Code::Unavailable && *failures < PATIENCE => *failures += 1,
            Err(status) => return Err(status.into()),
        }
    }
}

fn event(view: &View) -> Result<(), Failure> {
    let line = serde_json::to_string(view);
    let line = line.map_err(|error| Failure::new(format!("cannot print the result: {error}")))?;
    print(&(line + "\n"))
}

fn bar(job: &KeyJob) -> String {
    if job.state() == State::Spreading {
        let message = if job.message.is_empty() { "waiting for every server" } else { &job.message };
        return printable(message).chars().take(100).collect();
    }
    let (done, total) = (usize::try_from(job.done_count), usize::try_from(job.total_count));
    let (done, total) = (done.unwrap_or(0), total.unwrap_or(0).max(1));
    let filled = (done.min(total) * BAR) / total;
    format!("[{}{}] {done}/{total} data keys", "#".repeat(filled), ".".repeat(BAR - filled))
}

/// Replaces the terminal's last line.
fn draw(line: &str) {
    let mut err = std::io::stderr().lock();
    // A terminal that went away keeps nobody from waiting.
    let _ = write!(err, "\r\x1b[2K{line}").and_then(|()| err.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(state: State, done: i64, total: i64) -> KeyJob {
        KeyJob { state: state.into(), done_count: done, total_count: total, ..KeyJob::default() }
    }

    #[test]
    fn the_bar_fills_with_what_is_done() {
        assert_eq!(bar(&job(State::Running, 0, 10)), format!("[{}] 0/10 data keys", ".".repeat(BAR)));
        assert_eq!(bar(&job(State::Running, 12, 10)), format!("[{}] 12/10 data keys", "#".repeat(BAR)));
        assert!(bar(&job(State::Running, 0, 0)).ends_with("0/1 data keys"));
    }

    #[test]
    fn while_a_key_spreads_the_bar_says_what_it_waits_for() {
        let waiting = KeyJob {
            message: "local:2 cannot be opened yet by: a\u{1b}b".into(),
            ..job(State::Spreading, 0, 0)
        };
        let shown = bar(&waiting);
        assert!(
            shown.starts_with("local:2 cannot be opened yet by:") && !shown.contains('\u{1b}'),
            "{shown:?}"
        );
    }
}
