//! What is got.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokenward_api::v1;
use tokio::time::Instant;

/// What a warning is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WarningReason {
    /// The token is too young to be refreshed again and lives for less than `min_ttl`.
    MinTtlNotMet,
    /// Refreshing fails at the moment; the token still lives.
    RefreshFailing,
    /// The provider called the grant dead once; that is being verified.
    GrantSuspect,
    /// The provider did not say how long the token lives; its usual lifetime is assumed.
    LifetimeAssumed,
    /// Something that this version of the client does not know.
    Other,
}

/// Something that is not as it should be although the token works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// What it is about.
    pub reason: WarningReason,
    /// The same for people.
    pub message: String,
}

/// An access token. Cloning shares it; `Debug` does not show the secret.
#[derive(Clone)]
pub struct AccessToken(Arc<Inner>);

struct Inner {
    secret: SecretString,
    expires_at: Option<Instant>,
    scopes: Vec<String>,
    tenant_id: String,
    provider: String,
    connection_id: String,
    account_id: String,
    fingerprint: String,
    warnings: Vec<Warning>,
}

impl AccessToken {
    /// A token that was got elsewhere and does not expire: for a [`TokenSource`](crate::TokenSource) of your own, in a
    /// test say.
    pub fn fixed(secret: SecretString) -> Self {
        Self(Arc::new(Inner {
            secret,
            expires_at: None,
            scopes: Vec::new(),
            tenant_id: String::new(),
            provider: String::new(),
            connection_id: String::new(),
            account_id: String::new(),
            fingerprint: String::new(),
            warnings: Vec::new(),
        }))
    }

    /// A token as the server gave it, to a request that was sent at `sent`: its life counts from there, so that it is
    /// never believed to live longer than it does.
    pub(crate) fn from_message(tenant: &str, answer: v1::GetTokenResponse, sent: Instant) -> Self {
        let ttl = answer.ttl.map(|ttl| Duration::try_from(ttl).unwrap_or_default());
        Self(Arc::new(Inner {
            secret: answer.access_token.into(),
            expires_at: ttl.map(|ttl| sent + ttl),
            scopes: answer.scopes,
            tenant_id: tenant.to_owned(),
            provider: answer.provider,
            connection_id: answer.connection_id,
            account_id: answer.account_id,
            fingerprint: answer.fingerprint,
            warnings: answer.warnings.into_iter().map(warning).collect(),
        }))
    }

    /// The token itself, to be put into `authorization: Bearer …` and nowhere else.
    pub fn expose_secret(&self) -> &str {
        self.0.secret.expose_secret()
    }

    /// When it expires, on the runtime's monotonic clock. `None` for a token that does not.
    pub fn expires_at(&self) -> Option<Instant> {
        self.0.expires_at
    }

    /// The scopes that it really carries.
    pub fn scopes(&self) -> &[String] {
        &self.0.scopes
    }

    /// The tenant that it was asked for.
    pub fn tenant_id(&self) -> &str {
        &self.0.tenant_id
    }

    /// The provider that it is for.
    pub fn provider(&self) -> &str {
        &self.0.provider
    }

    /// The connection that it belongs to.
    pub fn connection_id(&self) -> &str {
        &self.0.connection_id
    }

    /// The account at the provider (HubSpot: the hub_id).
    pub fn account_id(&self) -> &str {
        &self.0.account_id
    }

    /// Names it in logs without revealing it.
    pub fn fingerprint(&self) -> &str {
        &self.0.fingerprint
    }

    /// What is worth a line in your log.
    pub fn warnings(&self) -> &[Warning] {
        &self.0.warnings
    }
}

fn warning(warning: v1::Warning) -> Warning {
    use v1::warning::Reason;
    let reason = match warning.reason() {
        Reason::MinTtlNotMet => WarningReason::MinTtlNotMet,
        Reason::RefreshFailing => WarningReason::RefreshFailing,
        Reason::GrantSuspect => WarningReason::GrantSuspect,
        Reason::LifetimeAssumed => WarningReason::LifetimeAssumed,
        Reason::Unspecified => WarningReason::Other,
    };
    Warning { reason, message: warning.message }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessToken")
            .field("fingerprint", &self.0.fingerprint)
            .field("tenant_id", &self.0.tenant_id)
            .field("connection_id", &self.0.connection_id)
            .field("account_id", &self.0.account_id)
            .field("scopes", &self.0.scopes)
            .field("expires_at", &self.0.expires_at)
            .field("warnings", &self.0.warnings)
            .finish_non_exhaustive()
    }
}
