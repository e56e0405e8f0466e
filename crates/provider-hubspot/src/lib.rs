//! What is HubSpot's own in the OAuth dance.
//!
//! HubSpot keeps to RFC 6749 except where this crate says otherwise: scopes are a JSON array, an account is a `hub_id`, errors
//! name a `status` of their own, the authorize page takes `optional_scope` and can be pinned to an account. See
//! <https://developers.hubspot.com/docs/api-reference/latest/authentication/manage-oauth-tokens>.

mod backend;
mod dialect;

pub use backend::hubspot;
