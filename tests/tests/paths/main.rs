//! The main paths, end to end: what services, operators, customers and integrators do with the built binary.

#![expect(clippy::unwrap_used, reason = "a test whose helpers fail by panicking too")]

mod basics;
mod browser;
mod dev;
mod operator;
mod restart;
mod single_flight;
mod stopping;
mod threads;
mod tls;
mod tools;
