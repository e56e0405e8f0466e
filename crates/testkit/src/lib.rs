//! Conformance suites and fakes; never published

pub mod crypto;
pub mod provider;
