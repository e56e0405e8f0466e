//! What callers, operators and customers can rely on, tried on real SQLite, a real keyring and the stand-in HubSpot.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

mod admin;
mod connect;
mod following;
mod get_token;
mod grants;
mod herds;
mod idle;
mod keys;
mod selection;
mod world;
