//! The benchmark's command line; `cargo xtask bench` builds what it needs and runs it.

use std::process::ExitCode;

use clap::Parser;
use tokenward_bench::options::Options;
use tokenward_bench::run;

/// So that the load generator costs as little as it can.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

// One thread: it shares the machine with the servers that it measures.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let options = Options::parse();
    // Dropping the run ends every process that it started and removes its folder.
    let outcome = tokio::select! {
        outcome = run::run(options) => outcome,
        signal = run::stop_signal() => signal.and_then(|()| Err(anyhow::anyhow!("stopped by a signal"))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
