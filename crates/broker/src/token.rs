//! What is asked for and what is answered.

use std::time::Duration;

use tokenward_types::{
    AccountId, ConnectionId, Fingerprint, Principal, ProviderName, Scopes, SecretString, Timestamp,
};

/// Asks for a token. Texts are as the caller sent them: what is found in memory needs no validation.
#[derive(Clone, Debug)]
pub struct TokenRequest<'a> {
    /// Who asks.
    pub principal: &'a Principal,
    /// The tenant.
    pub tenant: &'a str,
    /// The provider; empty for any.
    pub provider: &'a str,
    /// The scopes that are needed; empty for all that rules and connection share.
    pub scopes: &'a [String],
    /// How long the token must still live.
    pub min_ttl: Option<Duration>,
    /// The connection; empty for any.
    pub connection: &'a str,
    /// The account; empty for any.
    pub account: &'a str,
}

/// An access token in memory.
#[derive(Debug)]
pub struct LiveToken {
    /// The token.
    pub access_token: SecretString,
    /// When it was requested.
    pub issued_at: Timestamp,
    /// When it expires; `None` for never.
    pub expires_at: Option<Timestamp>,
    /// The scopes that it carries.
    pub scopes: Scopes,
    /// The connection that it belongs to.
    pub connection: ConnectionId,
    /// The account that it is for.
    pub account: AccountId,
    /// The provider that it is for.
    pub provider: ProviderName,
    /// Names it without revealing it.
    pub fingerprint: Fingerprint,
    /// Whether the provider did not say how long it lives.
    pub lifetime_assumed: bool,
}

impl LiveToken {
    /// How it is presented (RFC 6749, section 7.1).
    pub const TOKEN_TYPE: &'static str = "Bearer";

    /// How long it lives from `now` on; `None` for ever.
    pub fn ttl(&self, now: Timestamp) -> Option<Duration> {
        self.expires_at.map(|at| at.until(now))
    }

    /// How long it lives in all; `None` for ever.
    pub fn life(&self) -> Option<Duration> {
        self.expires_at.map(|at| at.since(self.issued_at))
    }
}

/// What a warning is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WarningReason {
    /// The token lives for less than `min_ttl` and is too young to be refreshed.
    MinTtlNotMet,
    /// Refreshing fails at the moment.
    RefreshFailing,
    /// The provider called the grant dead once.
    GrantSuspect,
    /// The provider did not say how long the token lives.
    LifetimeAssumed,
}

/// Something that is not as it should be although the token works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// What it is about.
    pub reason: WarningReason,
    /// The same for people.
    pub message: String,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Token {
    /// The token.
    pub live: std::sync::Arc<LiveToken>,
    /// How long it lives from now on; `None` for ever.
    pub ttl: Option<Duration>,
    /// What is not as it should be.
    pub warnings: Vec<Warning>,
}
