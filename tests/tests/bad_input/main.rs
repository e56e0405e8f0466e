//! What a hostile stranger, a broken vendor, a damaged database and a careless operator get to see from the built binary:
//! a clear error with a documented reason, no internal text, and nothing half-written.

#![expect(clippy::unwrap_used, reason = "a test whose helpers fail by panicking too")]

mod admin;
mod callback;
mod callers;
mod configuration;
mod failures;
mod http;
mod issuer;
mod proxy;
mod refusal;
mod requests;
mod restarts;
mod tampering;
mod vendor_answers;
