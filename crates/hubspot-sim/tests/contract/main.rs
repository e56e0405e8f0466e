//! The stand-in against HubSpot's contract, over real sockets.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod authorize;
mod control;
mod crm;
mod errors;
mod faults;
mod introspect_revoke;
mod rotation;
mod support;
mod token;
