//! `cargo xtask lint`: every check that needs no running test.

mod dependencies;
mod deploy;
mod docs;
mod proto;

use std::fmt;
use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::parts;
use crate::shell::{self, Elapsed, Stopwatch};
use crate::workspace::{ALL_BACKENDS, Workspace};

/// Runs every check (formatting, API contract, dependencies, docs, deploy files, clippy, rustdoc) and prints a table.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Run only these checks.
    #[arg(value_name = "CHECK")]
    only: Vec<String>,
}

/// One check of the table.
struct Check {
    name: &'static str,
    run: fn(&Context) -> Result<Outcome>,
}

/// In the order in which they run: quick ones first.
const CHECKS: &[Check] = &[
    Check { name: "fmt", run: format },
    Check { name: "docs", run: docs::check },
    Check { name: "buf-lint", run: proto::lint },
    Check { name: "buf-breaking", run: proto::breaking },
    Check { name: "deny", run: dependencies::deny },
    Check { name: "audit", run: dependencies::audit },
    Check { name: "shellcheck", run: deploy::shellcheck },
    Check { name: "hadolint", run: deploy::hadolint },
    Check { name: "compose", run: deploy::compose },
    Check { name: "clippy", run: clippy },
    Check { name: "rustdoc", run: rustdoc },
];

/// What the checks share.
struct Context<'a> {
    workspace: &'a Workspace,
    programs: Result<PathBuf, String>,
}

impl Context<'_> {
    /// A program of the Python environment, to run in the checkout's root.
    fn program(&self, name: &str) -> Result<std::process::Command> {
        match &self.programs {
            Ok(folder) => Ok(self.workspace.command(folder.join(name))),
            Err(reason) => bail!("{name} cannot be installed: {reason}"),
        }
    }
}

/// How a check that could be run ended.
enum Outcome {
    Passed,
    /// There is nothing to check, and why.
    Nothing(String),
}

enum Verdict {
    Passed,
    Nothing(String),
    Failed(String),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => write!(f, "passed"),
            Self::Nothing(why) => write!(f, "nothing to check: {why}"),
            Self::Failed(why) => write!(f, "FAILED: {why}"),
        }
    }
}

/// Runs the checks; false if one failed or could not be run.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<bool> {
    let chosen = choose(&options.only)?;
    let programs = parts::programs(workspace).map_err(|error| format!("{error:#}"));
    let context = Context { workspace, programs };
    let mut table: Vec<(&str, Verdict, Elapsed)> = Vec::new();
    for check in chosen {
        println!("== {}", check.name);
        let watch = Stopwatch::start();
        let verdict = match (check.run)(&context) {
            Ok(Outcome::Passed) => Verdict::Passed,
            Ok(Outcome::Nothing(why)) => Verdict::Nothing(why),
            Err(error) => Verdict::Failed(format!("{error:#}")),
        };
        if let Verdict::Failed(why) = &verdict {
            println!("{why}");
        }
        table.push((check.name, verdict, watch.elapsed()));
    }
    println!("== xtask lint");
    for (name, verdict, elapsed) in &table {
        let line = verdict.to_string();
        println!("  {name:<13} {elapsed:>8}  {}", line.lines().next().unwrap_or_default());
    }
    let failed = table.iter().filter(|(_, verdict, _)| matches!(verdict, Verdict::Failed(_))).count();
    println!("== xtask lint: {} checks, {failed} failed", table.len());
    Ok(failed == 0)
}

fn choose(only: &[String]) -> Result<Vec<&'static Check>> {
    if let Some(unknown) = only.iter().find(|name| CHECKS.iter().all(|check| check.name != name.as_str())) {
        let names: Vec<_> = CHECKS.iter().map(|check| check.name).collect();
        bail!("there is no check `{unknown}`; there are: {}", names.join(", "));
    }
    Ok(CHECKS.iter().filter(|check| only.is_empty() || only.iter().any(|name| name == check.name)).collect())
}

fn format(context: &Context) -> Result<Outcome> {
    passed(shell::run(context.workspace.cargo().args(["fmt", "--all", "--check"])))
}

fn clippy(context: &Context) -> Result<Outcome> {
    // As it is built by default, then with what is left out there.
    for more in [None, Some(ALL_BACKENDS)] {
        let mut cargo = context.workspace.cargo();
        cargo.args(["clippy", "--workspace", "--all-targets"]).args(more);
        shell::run(cargo.args(["--", "--deny", "warnings"]))?;
    }
    Ok(Outcome::Passed)
}

fn rustdoc(context: &Context) -> Result<Outcome> {
    let mut cargo = context.workspace.cargo();
    cargo.env("RUSTDOCFLAGS", "--deny warnings").args(["doc", "--workspace", "--no-deps"]);
    passed(shell::run(&mut cargo))
}

fn passed(result: Result<()>) -> Result<Outcome> {
    result.map(|()| Outcome::Passed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn naming_no_check_chooses_all_and_an_unknown_one_is_refused() {
        assert_eq!(choose(&[]).unwrap().len(), CHECKS.len());
        assert_eq!(choose(&["docs".to_owned()]).unwrap().len(), 1);
        assert!(choose(&["spelling".to_owned()]).err().unwrap().to_string().contains("buf-lint"));
    }
}
