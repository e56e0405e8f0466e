//! The harness's command line; `cargo xtask chaos` builds what it needs and runs it.

use std::process::ExitCode;

use clap::Parser;
use tokenward_chaos::options::Options;
use tokenward_chaos::run;

/// So that callers and proxies cost as little as they can.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The exit code of a run that broke something; other failures say nothing about the servers.
const BROKEN: u8 = 1;
const NO_RUN: u8 = 2;

// One thread: it shares the machine with the servers that it breaks.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let options = Options::parse();
    // Dropping the run ends every process that it started and removes its folder.
    let outcome = tokio::select! {
        outcome = run::run(options) => outcome,
        signal = run::stop_signal() => signal.and_then(|()| Err(anyhow::anyhow!("stopped by a signal"))),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(BROKEN),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(NO_RUN)
        }
    }
}
