//! `tokenward`: the binary and the composition root.

mod args;
mod builtins;
mod callers;
mod commands;
mod compose;
mod dev;
mod failure;
#[cfg(test)]
mod full_config;
mod issuer;
mod local;
mod output;
mod process;
mod remote;
mod runtime;
mod secret_input;
mod signals;
mod telemetry;

use std::process::ExitCode;

use clap::Parser;

/// Gave 20 to 30 % more calls per second than the system's allocator in measurements of the server.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args = args::Args::parse();
    process::forbid_core_dumps();
    if matches!(args.command, commands::Command::Serve(_)) {
        process::hide_memory();
    }
    runtime::install_crypto();
    telemetry::install_panic_hook();
    runtime::run(&args.command, commands::run(&args.command))
}
