//! The listeners as clients meet them: real sockets, a real broker on SQLite, the stand-in HubSpot behind it.
#![expect(clippy::unwrap_used, reason = "test code")]

mod admin;
mod calls;
mod connect;
mod overload;
mod sockets;
mod world;
