//! The echo server with tokenward's allocator and layout of runtimes.

use clap::Parser;
use tokenward_bench::echo::{EchoArgs, serve_same};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    let args = EchoArgs::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(serve_same(&args))
}
