use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use tokenward_types::{AccountId, ExposeSecret, ProviderName, Scopes, SecretString, sha256};
use url::Url;

use crate::{Introspection, ProviderError, TokenAnswer, TokenHint};

/// What a provider is and can do. Never changes while it lives.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct ProviderInfo {
    /// The name of its section in the configuration.
    pub name: ProviderName,
    /// The backend that speaks to the vendor, such as `hubspot`.
    pub kind: &'static str,
    /// What people call the vendor.
    pub display_name: String,
    /// Scopes that never count as excess, such as `openid`.
    pub base_scopes: Scopes,
    /// Whether a refresh can give a token with fewer scopes than the grant has.
    pub can_narrow: bool,
    /// Whether the authorize URL carries a PKCE challenge (RFC 7636).
    pub pkce: bool,
    /// Whether tokens can be asked about (RFC 7662).
    pub introspection: bool,
    /// Whether refresh tokens can be revoked (RFC 7009).
    pub revocation: bool,
    /// What using a refresh token does to it.
    pub rotation: Rotation,
    /// An access token's life where the vendor does not say.
    pub default_token_lifetime: Duration,
    /// The issuer that a callback must name in `iss`, where the vendor announces that (RFC 9207).
    pub issuer: Option<String>,
    /// Whether tokens without expiry and refresh can be stored for it.
    pub static_tokens: bool,
    /// How many calls each OAuth client makes at the most; `None` for no limit of ours.
    pub call_rate: Option<CallRate>,
    /// How long a refresh token lives that is not used, where the vendor lets it die.
    pub refresh_token_idle_lifetime: Option<Duration>,
}

/// How many calls may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallRate {
    /// Calls per second in the long run, at least one.
    pub per_second: u32,
    /// Calls at once after a silence, at least one.
    pub burst: u32,
}

/// What happens to a refresh token that is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// It stays good.
    None,
    /// A new one replaces it; it stays good for a while, for whoever missed the answer.
    Grace(Duration),
    /// A new one replaces it; using it again may end the grant.
    Strict,
}

/// Our registration at the vendor.
#[derive(Clone)]
pub struct ClientCredentials {
    /// The public identifier.
    pub client_id: String,
    /// The secret that goes with it.
    pub client_secret: SecretString,
}

impl fmt::Debug for ClientCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCredentials").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

/// What the authorize URL carries (RFC 6749, section 4.1.1).
#[derive(Clone, Copy, Debug)]
pub struct AuthorizeRequest<'a> {
    /// Our client id.
    pub client_id: &'a str,
    /// Where the vendor sends the browser back to; equal to the registered one to the letter.
    pub redirect_uri: &'a str,
    /// Scopes that the customer must grant.
    pub scopes: &'a Scopes,
    /// Scopes that the customer may leave out, where the vendor knows such.
    pub optional_scopes: &'a Scopes,
    /// Ties the callback to this attempt.
    pub state: &'a SecretString,
    /// The challenge of PKCE, method S256, from [`pkce_challenge`].
    pub pkce_challenge: Option<&'a str>,
    /// The account that is wanted, where the vendor's page can be told.
    pub account: Option<&'a AccountId>,
}

/// The S256 challenge of a PKCE verifier (RFC 7636, section 4.2).
pub fn pkce_challenge(verifier: &SecretString) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(sha256(verifier.expose_secret().as_bytes()))
}

/// One vendor's OAuth dialect.
///
/// Every call
/// - sends secrets in the body or the `Authorization` header of a POST, never in a URL;
/// - follows no redirect, sends a request once at most, and reads at most 64 KiB of the answer;
/// - ends within [`Provider::call_timeout`];
/// - fails with a [`ProviderError`] that holds no secret, whose class says what is known about the outcome.
#[async_trait]
pub trait Provider: Send + Sync {
    /// What it is and can do.
    fn info(&self) -> &ProviderInfo;

    /// The longest time that a call takes, connecting included.
    fn call_timeout(&self) -> Duration {
        crate::http::DEFAULT_TIMEOUT
    }

    /// Where to send the customer's browser.
    fn authorize_url(&self, request: &AuthorizeRequest<'_>) -> Url;

    /// Spends an authorization code (RFC 6749, section 4.1.3). A refusal of code, redirect URI or verifier is
    /// [`ErrorClass::ConnectAttempt`](crate::ErrorClass::ConnectAttempt), never `GrantDead`.
    async fn exchange_code(
        &self,
        credentials: &ClientCredentials,
        code: &SecretString,
        redirect_uri: &str,
        pkce_verifier: Option<&SecretString>,
    ) -> Result<TokenAnswer, ProviderError>;

    /// Gets a new access token (RFC 6749, section 6). An answer that carries tokens is returned even if its `expires_in` is
    /// missing or nonsense; one that names no refresh token gives `None` there.
    async fn refresh(
        &self,
        credentials: &ClientCredentials,
        refresh_token: &SecretString,
    ) -> Result<TokenAnswer, ProviderError>;

    /// Asks whether a token lives and what it may do (RFC 7662). Spends nothing. `NotSent` where the vendor cannot be asked.
    async fn introspect(
        &self,
        credentials: &ClientCredentials,
        token: &SecretString,
        hint: TokenHint,
    ) -> Result<Introspection, ProviderError>;

    /// Ends a grant (RFC 7009). A token that the vendor does not know counts as revoked. `NotSent` where the vendor cannot.
    async fn revoke(
        &self,
        credentials: &ClientCredentials,
        refresh_token: &SecretString,
    ) -> Result<(), ProviderError>;

    /// Probes a client secret without spending a grant: `Some(true)` it is right, `Some(false)` wrong, `None` cannot tell.
    async fn check_credentials(&self, credentials: &ClientCredentials) -> Option<bool>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_challenge_is_that_of_rfc_7636_appendix_b() {
        let verifier = SecretString::from("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
        assert_eq!(pkce_challenge(&verifier), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }

    #[test]
    fn debug_shows_no_client_secret() {
        let credentials = ClientCredentials { client_id: "id".into(), client_secret: "hunter2".into() };
        assert!(!format!("{credentials:?}").contains("hunter2"));
    }
}
