//! The Rust client of Tokenward: a service asks by tenant, and gets an access token that works.
//!
//! ```no_run
//! use tokenward_client::{TokenClient, TokenRequest};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let client = TokenClient::builder()
//!     .address("https://tokenward-0.internal:8443")
//!     .address("https://tokenward-1.internal:8443")
//!     .caller_token_file("/var/run/secrets/tokens/tokenward")
//!     .ca_file("/etc/tokenward/ca.pem")
//!     .build()
//!     .await?;
//!
//! let request = TokenRequest::new("acme").provider("hubspot").scopes(["crm.objects.contacts.read"]);
//! let token = client.get_token(&request).await?;
//! println!("{} until {:?}", token.fingerprint(), token.expires_at());
//! # Ok(()) }
//! ```
//!
//! Make one [`TokenClient`] per process and clone it: clones share connections and cache.
//!
//! # What it does for you
//!
//! - **Cache.** A token is kept until its expiry less a margin (or the request's `min_ttl`), and for five minutes at the
//!   most, so that a suspended tenant or a narrowed rule takes effect. A hit makes no call. Callers that ask for the same
//!   thing at the same time share one call.
//! - **Retry.** What another try can help is tried again with exponential backoff and jitter, never sooner than the
//!   server's `google.rpc.RetryInfo` says and never past [`TokenClientBuilder::timeout`]. Everything else fails at once.
//! - **Failover.** All calls go to one server while it works. When it does not, the next one takes over at once, and a server
//!   that hangs leaves time for the others within [`TokenClientBuilder::timeout`]. A name with several addresses is several
//!   servers. Which one a client begins with is left to chance, so that a fleet spreads over them.
//! - **Outages.** While no server can be reached, a cached token is served until it expires.
//! - **Caller tokens** come from a file that is read again when it changes, or when the server does not accept the token.
//!
//! # Calling the provider's API
//!
//! A provider may answer 401 to a token that should still live: a customer uninstalled the app, say. [`call`] gets a
//! token, sends, and on a refusal reports the token and tries once more. With reqwest:
//!
//! ```no_run
//! use tokenward_client::{AccessToken, TokenClient, TokenRequest};
//!
//! # async fn run(client: TokenClient, http: reqwest::Client) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! let source = client.source(TokenRequest::new("acme").scopes(["crm.objects.contacts.read"]));
//! let send = |token: AccessToken| {
//!     let request = http.get("https://api.hubapi.com/crm/v3/objects/contacts").bearer_auth(token.expose_secret());
//!     async move { Ok::<_, Box<dyn std::error::Error + Send + Sync>>(request.send().await?) }
//! };
//! let answer = tokenward_client::call(&source, send, |answer| answer.status() == 401).await?;
//! # let _ = answer; Ok(()) }
//! ```
//!
//! With tonic, [`TokenLayer`] puts the token on every request of a channel:
//!
//! ```no_run
//! # use tokenward_client::{TokenClient, TokenLayer, TokenRequest};
//! # fn run(client: TokenClient, channel: tonic::transport::Channel) {
//! let source = client.source(TokenRequest::new("acme").provider("crm"));
//! let channel = tower::ServiceBuilder::new().layer(TokenLayer::new(source)).service(channel);
//! // let contacts = ContactsClient::new(channel);
//! # let _ = channel; }
//! ```
//!
//! # Errors
//!
//! [`Error::kind`] says who can help: [`ErrorKind::InvalidRequest`] the code that calls, [`ErrorKind::Denied`] an
//! operator, [`ErrorKind::NotConnected`] and [`ErrorKind::ReauthorizationRequired`] the customer,
//! [`ErrorKind::Unavailable`] time. [`Error::reason`] is the server's stable reason.

mod address;
mod builder;
mod cache;
mod caller_token;
mod client;
mod connect;
mod error;
mod layer;
mod request;
mod retry;
mod source;
#[cfg(test)]
mod tests;
mod time;
mod token;

pub use builder::{BuildError, TokenClientBuilder};
pub use client::{ReportOutcome, TokenClient};
pub use error::{Error, ErrorKind};
pub use layer::{TokenLayer, TokenService};
pub use request::TokenRequest;
pub use source::{BoundSource, TokenSource, call};
pub use token::{AccessToken, Warning, WarningReason};

/// A secret text: no `Display`, a redacted `Debug`, wiped on drop.
pub use secrecy::SecretString;
