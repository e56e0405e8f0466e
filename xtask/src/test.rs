//! `cargo xtask test`: set up what tests need, run all of them, say what was skipped.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::parts::{self, Setup};
use crate::shell::{self, Stopwatch};
use crate::skips::Skips;
use crate::workspace::{ALL_BACKENDS, Workspace};

/// Sets up what the tests need, runs them all, and lists what was skipped and why.
///
/// Packages that need no system change go into the git-ignored folder `.xtask`. System packages are installed
/// when run as root, saying so first; else the command is named.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Fail if any test was skipped or any part is missing.
    #[arg(long)]
    require: bool,

    /// Set up only these parts (postgres, postgres18, pgbouncer, mariadb, python, node, chromium, openbao, bao,
    /// softhsm, moto); tests that need another one are skipped.
    #[arg(long, num_args = 1.., value_name = "PART", conflicts_with = "require")]
    only: Vec<String>,

    /// What to pass to the test runner in place of `--workspace`, such as `-- -p tokenward-broker`.
    #[arg(last = true, conflicts_with = "require")]
    runner: Vec<String>,
}

/// Runs the tests; false if one failed, or was skipped though `--require` was given.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<bool> {
    let watch = Stopwatch::start();
    println!("== parts that tests run against");
    let setup = Setup::run(workspace, &options.only)?;
    if options.require && !setup.missing.is_empty() {
        // Fail now: what the tests would say in half an hour is known already.
        eprintln!("error: missing, and --require was given: {}", setup.missing.join(", "));
        return Ok(false);
    }

    let log = workspace.scratch()?.join("skipped-tests");
    std::fs::write(&log, "").with_context(|| format!("cannot write {}", log.display()))?;
    let tests = Tests { workspace, setup: &setup, options, log: &log };
    let outcome = tests.run();

    let mut skips = Skips::parse(&std::fs::read_to_string(&log)?);
    let passed = match outcome {
        Ok(ignored) => {
            for test in ignored {
                skips.add(&test, "marked #[ignore]");
            }
            true
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            false
        }
    };
    Ok(tests.report(passed, &skips, &watch))
}

struct Tests<'a> {
    workspace: &'a Workspace,
    setup: &'a Setup,
    options: &'a Options,
    log: &'a Path,
}

impl Tests<'_> {
    /// Builds, runs everything even if something fails, and returns the tests that are marked `#[ignore]`.
    fn run(&self) -> Result<Vec<String>> {
        let nextest = shell::output(self.workspace.cargo().args(["nextest", "--version"])).is_ok();
        let selection = self.selection();
        if self.options.runner.is_empty() {
            println!("== the program as it is built by default");
            // Its unit tests alone: they say what a backend that was left out answers.
            shell::run(self.cargo()?.args(["test", "--workspace", "--bin", "tokenward", "--quiet"]))?;
        }
        println!("== build");
        // All targets at once: the programs that scenarios start are built with the features that the test build
        // has, so that no dependency is compiled twice.
        shell::run(self.cargo()?.args(["build", "--all-targets"]).args(&selection))?;

        println!("== tests");
        let mut runner = self.cargo()?;
        if nextest {
            runner.args(["nextest", "run", "--no-fail-fast"]).args(&selection);
        } else {
            runner.args(["test", "--no-fail-fast", "--all-targets"]).args(&selection);
        }
        let tests = shell::run(&mut runner);
        if !self.options.runner.is_empty() {
            return tests.map(|()| Vec::new());
        }

        println!("== documentation tests");
        let documentation = shell::run(self.cargo()?.args(["test", "--doc"]).args(&selection));
        tests.and(documentation)?;
        if nextest { self.ignored() } else { Ok(Vec::new()) }
    }

    fn selection(&self) -> Vec<String> {
        if self.options.runner.is_empty() {
            // The program that scenarios start has every backend.
            vec!["--workspace".to_owned(), ALL_BACKENDS.to_owned()]
        } else {
            self.options.runner.clone()
        }
    }

    /// A cargo whose tests know where the parts are.
    fn cargo(&self) -> Result<Command> {
        let mut cargo = self.workspace.cargo();
        self.setup.apply(&mut cargo);
        cargo.env("TOKENWARD_SKIP_LOG", self.log);
        cargo.env("TOKENWARD_TEST_BIN", self.workspace.target_dir()?.join("debug/tokenward"));
        if self.options.require {
            cargo.env("TOKENWARD_REQUIRE_PARTS", "1");
        } else {
            cargo.env_remove("TOKENWARD_REQUIRE_PARTS");
        }
        Ok(cargo)
    }

    fn ignored(&self) -> Result<Vec<String>> {
        let mut list = self.cargo()?;
        list.args(["nextest", "list", "--run-ignored=only", "--message-format=oneline"])
            .args(self.selection());
        Ok(shell::output(&mut list)?.lines().map(str::to_owned).collect())
    }

    fn report(&self, passed: bool, skips: &Skips, watch: &Stopwatch) -> bool {
        println!("== skipped");
        for part in parts::ALL.iter().filter(|part| self.setup.missing.contains(&part.name)) {
            println!("  {} is missing (the reason is above); tests need {}", part.name, part.variable);
        }
        print!("{skips}");
        let skipped = skips.count();
        if skipped == 0 && self.setup.missing.is_empty() {
            println!("  nothing");
        }
        let refused = self.options.require && skipped > 0;
        let verdict = match (passed, refused) {
            (false, _) => "FAILED",
            (true, true) => "FAILED, since --require was given and tests were skipped",
            (true, false) => "passed",
        };
        println!("== xtask test: {verdict}; tests skipped: {skipped}; took {}", watch.elapsed());
        passed && !refused
    }
}
