//! Compiles the echo service's definition with protox, so that a build needs no protoc.

use std::error::Error;

const ROOT: &str = "proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={ROOT}");
    let descriptors = protox::compile(["tokenward/bench/v1/echo.proto"], [ROOT])?;
    tonic_prost_build::configure().build_client(false).compile_fds(descriptors)?;
    Ok(())
}
