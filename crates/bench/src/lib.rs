//! The benchmark: GetToken as shipped against a bare tonic echo, in alternating rounds over loopback, and what a cold
//! call, memory and a start cost. `cargo xtask bench` builds and runs it.

pub mod child;
pub mod echo;
pub mod gateway;
pub mod load;
pub mod machine;
pub mod measure;
pub mod options;
pub mod report;
pub mod requests;
pub mod run;
pub mod setup;
pub mod sim;
pub mod stats;
pub mod world;
