//! The HTTP listeners: the pages of the connect flow for customers' browsers, and the operations endpoints.
//!
//! The pages carry no script, load nothing, and never believe the Host header. Logs name routes by their template: a URL
//! here holds a link's secret or an authorization code.

mod cookies;
mod explain;
mod flow;
mod handlers;
mod operations;
mod public;
mod query;
mod results;
mod security;
mod surround;
#[cfg(test)]
mod tests;
mod views;

pub use operations::{ReadyHandle, operations_router};
pub(crate) use public::public_router;
