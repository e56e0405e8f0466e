use std::time::Duration;

use tokenward_types::{AccountId, Scopes, SecretString, Timestamp};

/// The longest life of an access token that is believed: ten years.
pub const MAX_LIFETIME: Duration = Duration::from_hours(10 * 365 * 24);

/// What the vendor said about an access token's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpiresIn {
    /// This long, from the time of sending.
    Given(Duration),
    /// Nothing: the token is kept, with the provider's default lifetime and a warning.
    Missing,
    /// Something that is no lifetime (zero, negative, beyond [`MAX_LIFETIME`], not a number): kept in the same way.
    Invalid,
}

/// What a token endpoint answered (RFC 6749, section 5.1).
#[derive(Clone, Debug)]
pub struct TokenAnswer {
    /// The access token.
    pub access_token: SecretString,
    /// The refresh token to use from now on; `None`: the one in use stays.
    pub refresh_token: Option<SecretString>,
    /// The access token's life.
    pub expires_in: ExpiresIn,
    /// The scopes that were granted; `None`: the vendor did not say.
    pub scopes: Option<Scopes>,
    /// The account that the grant is for; `None`: the vendor did not say.
    pub account: Option<AccountId>,
    /// What people call that account.
    pub account_name: Option<String>,
    /// When the request was sent: the token expires at this time + `expires_in`.
    pub requested_at: Timestamp,
}

/// What an introspection endpoint answered (RFC 7662, section 2.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introspection {
    /// Whether the token lives.
    pub active: bool,
    /// The account that it is for.
    pub account: Option<AccountId>,
    /// What people call that account.
    pub account_name: Option<String>,
    /// Its scopes.
    pub scopes: Option<Scopes>,
    /// How long it still lives.
    pub expires_in: Option<Duration>,
}

/// Which kind of token is asked about (RFC 7662, section 2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenHint {
    /// An access token.
    AccessToken,
    /// A refresh token.
    RefreshToken,
}

impl TokenHint {
    /// The value of `token_type_hint`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AccessToken => "access_token",
            Self::RefreshToken => "refresh_token",
        }
    }
}
