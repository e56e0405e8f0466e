//! `cargo xtask bench`: build what is measured, then let `tokenward-bench` measure it.

use std::os::unix::process::CommandExt;

use anyhow::{Context, Result};

use crate::shell;
use crate::workspace::Workspace;

/// Builds the release version and measures it over loopback. `cargo xtask bench --help` shows this; everything that comes
/// after is for the benchmark: `cargo xtask bench -- --help` shows its own options.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,

    /// Run everything at a small scale, to see whether it runs.
    #[arg(long)]
    quick: bool,

    /// Options of the benchmark, such as `--rounds 9 --only warm`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTION")]
    more: Vec<String>,
}

/// Builds, and turns into the benchmark, so that a signal reaches the process that has to clean up.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<bool> {
    let mut build = workspace.cargo();
    build.args([
        "build",
        "--release",
        "-p",
        "tokenward-cli",
        "-p",
        "tokenward-bench",
        "-p",
        "tokenward-hubspot-sim",
    ]);
    // Standard output is for the report alone.
    eprintln!("building the release version");
    let status = build.status().context("cannot run cargo")?;
    anyhow::ensure!(status.success(), "the release version cannot be built");

    let program = workspace.target_dir()?.join("release/tokenward-bench");
    let mut bench = shell::command(&program);
    bench.args(["--commit", &commit(workspace)]);
    if options.json {
        bench.arg("--json");
    }
    if options.quick {
        bench.arg("--quick");
    }
    bench.args(&options.more);
    Err(bench.exec()).with_context(|| format!("cannot run {}", program.display()))
}

/// The commit, and whether what is built differs from it.
pub(crate) fn commit(workspace: &Workspace) -> String {
    let git = |arguments: &[&str]| shell::output(workspace.command("git").args(arguments));
    let head = git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(|_| "unknown".to_owned());
    match git(&["status", "--porcelain", "--untracked-files=no"]) {
        Ok(changes) if changes.is_empty() => head,
        _ => format!("{head} with changes"),
    }
}
