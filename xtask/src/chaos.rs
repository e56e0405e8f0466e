//! `cargo xtask chaos`: build real servers and what they need, then let `tokenward-chaos` break everything around them.

use std::os::unix::process::CommandExt;

use anyhow::{Context, Result};

use crate::bench::commit;
use crate::shell;
use crate::workspace::Workspace;

/// The programs that take part, by their packages.
const PACKAGES: [&str; 3] = ["tokenward-cli", "tokenward-chaos", "tokenward-hubspot-sim"];

/// Builds the release version, breaks everything around it for a while, and counts what was lost. Everything that is not
/// listed here is for the harness: `cargo xtask chaos --harness-help` shows what it takes.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Build with this profile, such as `dev`.
    #[arg(long, default_value = "release")]
    profile: String,

    /// Show the harness's options.
    #[arg(long)]
    harness_help: bool,

    /// Options of the harness, such as `--replicas 3 --seconds 600 --store mariadb --json`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTION")]
    more: Vec<String>,
}

/// Builds, and turns into the harness, so that a signal reaches the process that has to clean up.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<bool> {
    let mut build = workspace.cargo();
    build.args(["build", "--profile", &options.profile]);
    for package in PACKAGES {
        build.args(["-p", package]);
    }
    // Standard output is for the report alone.
    eprintln!("building the {} version", options.profile);
    let status = build.status().context("cannot run cargo")?;
    anyhow::ensure!(status.success(), "the {} version cannot be built", options.profile);

    // Cargo puts what it builds with the profile `dev` into the folder `debug`.
    let folder = if options.profile == "dev" { "debug" } else { &options.profile };
    let program = workspace.target_dir()?.join(folder).join("tokenward-chaos");
    let mut chaos = shell::command(&program);
    chaos.args(["--commit", &commit(workspace)]);
    if options.harness_help {
        chaos.arg("--help");
    }
    chaos.args(&options.more);
    Err(chaos.exec()).with_context(|| format!("cannot run {}", program.display()))
}
