//! Callers as services meet them: real tokens, real signatures, key sets over real sockets.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod bad_input;
mod builtin;
mod keys;
mod properties;
mod support;
mod verdicts;
