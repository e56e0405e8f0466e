//! The echo server as tonic's documentation writes it: the default runtime, the system's allocator.

use clap::Parser;
use tokenward_bench::echo::{EchoArgs, serve_plain};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    serve_plain(&EchoArgs::parse()).await
}
