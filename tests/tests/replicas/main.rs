//! Several servers on one database: what one of them changes holds on the others, and none of them refreshes what another does.

#![expect(clippy::unwrap_used, reason = "a test whose helpers fail by panicking too")]

mod changes;
mod keys;
mod outage;
#[path = "../bad_input/proxy.rs"]
mod proxy;
mod refreshes;
mod world;
