//! Conformance suites and fakes; never published
