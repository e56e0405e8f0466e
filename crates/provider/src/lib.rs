//! The provider trait, the generic OAuth 2.0 flow and error classes.
//!
//! A provider speaks one vendor's OAuth dialect. The flow itself (RFC 6749, 7009, 7636, 7662) is [`OAuth2Flow`]; what a vendor
//! does its own way is a [`Dialect`]. The kind `oauth2` ([`oauth2()`]) is the flow with nothing but standards; other
//! vendors have a crate of their own.

mod answer;
mod dialect;
mod error;
mod fields;
mod flow;
mod form;
pub mod http;
mod oauth2;
pub mod options;
mod provider;

use std::sync::Arc;

use tokenward_types::Clock;

pub use answer::{ExpiresIn, Introspection, MAX_LIFETIME, TokenAnswer, TokenHint};
pub use dialect::{
    AnswerFacts, Dialect, ErrorAnswer, Operation, StandardDialect, probe_by_introspection, with_query,
};
pub use error::{ErrorClass, ProviderError};
pub use fields::Fields;
pub use flow::{ClientAuthentication, Endpoints, OAuth2Flow, Success};
pub use form::Form;
pub use oauth2::oauth2;
pub use provider::{
    AuthorizeRequest, CallRate, ClientCredentials, Provider, ProviderInfo, Rotation, pkce_challenge,
};

/// What every provider is built with.
#[derive(Clone, Debug)]
pub struct ProviderContext {
    /// Where the time of sending comes from.
    pub clock: Arc<dyn Clock>,
}
