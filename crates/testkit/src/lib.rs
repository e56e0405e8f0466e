//! Conformance suites and fakes; never published

pub mod crypto;
pub mod parts;
pub mod provider;
pub mod storage;
