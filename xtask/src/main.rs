//! Project chores, run as `cargo xtask test`, `cargo xtask lint`, `cargo xtask bench` and `cargo xtask chaos`.

mod bench;
mod chaos;
mod lint;
mod parts;
mod shell;
mod skips;
mod test;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

/// Project chores.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    Test(test::Options),
    Lint(lint::Options),
    Bench(bench::Options),
    Chaos(chaos::Options),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let workspace = Workspace::find();
    let outcome = match cli.chore {
        Chore::Test(options) => test::run(&workspace, &options),
        Chore::Lint(options) => lint::run(&workspace, &options),
        Chore::Bench(options) => bench::run(&workspace, &options),
        Chore::Chaos(options) => chaos::run(&workspace, &options),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
