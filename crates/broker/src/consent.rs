//! A fresh grant becomes a connection: verified first (account, scopes), then stored as a whole.

use std::time::Duration;

use tokenward_provider::{ClientCredentials, Provider, ProviderError, TokenAnswer, TokenHint};
use tokenward_storage::{Connection, ConnectionKind, Consent, ConsentBase, StorageErrorKind, TokenSet};
use tokenward_types::{
    AccountId, ConnectLinkId, ConnectionId, ExposeSecret, OAuthClientId, ProviderName, Scopes, SecretString,
    TenantId, Timestamp,
};

use crate::broker::{Broker, state_name};
use crate::refresh::expiry;
use crate::{Error, Place, Reason, audit};

/// How often a consent starts over because a refresh moved the connection under it.
const MAX_ROUNDS: usize = 10;

/// A grant whose account and scopes are known.
pub(crate) struct Verified {
    pub tenant: TenantId,
    pub provider: ProviderName,
    pub kind: ConnectionKind,
    pub oauth_client: Option<OAuthClientId>,
    pub account: AccountId,
    pub account_name: String,
    pub access_token: SecretString,
    pub refresh_token: Option<SecretString>,
    pub scopes: Scopes,
    pub issued_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    pub link: Option<ConnectLinkId>,
    pub pending: Option<String>,
}

/// What a token answer and, where needed, introspection tell about a grant.
pub(crate) struct Identity {
    pub account: AccountId,
    pub account_name: String,
    pub scopes: Scopes,
}

/// The provider did not give what it was asked for while a grant was made.
pub(crate) fn grant_failed(error: ProviderError) -> Error {
    use tokenward_provider::ErrorClass as Class;
    let (reason, message) = match error.class {
        Class::GrantDead | Class::ConnectAttempt => (
            Reason::GrantRefused,
            "the provider refused it: it is wrong, expired, used, or another OAuth client's",
        ),
        Class::ClientConfig => {
            (Reason::OAuthClientMisconfigured, "the provider refuses the OAuth client's client_id or secret")
        }
        Class::RateLimited => (Reason::ProviderRateLimited, "the provider throttles this OAuth client"),
        Class::AccountUnavailable | Class::NotSent | Class::OutcomeUnknown => {
            (Reason::ProviderUnavailable, "the provider does not answer as it should")
        }
        Class::Unexpected => {
            (Reason::ProviderUnavailable, "the provider refused it in a way that is not understood")
        }
    };
    let mut public = Error::new(reason, message);
    if let Some(code) = &error.code {
        public = public.with("provider_code", code);
    }
    if let Some(wait) = error.retry_after {
        public = public.retry_after(wait);
    }
    public.internal(error)
}

impl Broker {
    /// Account and scopes of a grant: from the answer, else by introspection; never from what was requested.
    pub(crate) async fn identify(
        &self,
        provider: &dyn Provider,
        credentials: &ClientCredentials,
        answer: &TokenAnswer,
    ) -> Result<Identity, Error> {
        let mut account = answer.account.clone();
        let mut account_name = answer.account_name.clone();
        let mut scopes = answer.scopes.clone();
        let incomplete = account.is_none() || scopes.is_none() || account_name.is_none();
        if incomplete && provider.info().introspection {
            match provider.introspect(credentials, &answer.access_token, TokenHint::AccessToken).await {
                Ok(told) => {
                    account = account.or(told.account);
                    account_name = account_name.or(told.account_name);
                    scopes = scopes.or(told.scopes);
                }
                // A missing name alone is no reason to refuse a grant.
                Err(error) if account.is_none() || scopes.is_none() => return Err(grant_failed(error)),
                Err(_) => {}
            }
        }
        let missing = |what: &str| {
            Error::new(Reason::GrantRefused, format!("the provider does not tell {what} of the grant"))
        };
        Ok(Identity {
            account: account.ok_or_else(|| missing("the account"))?,
            account_name: account_name.unwrap_or_default(),
            scopes: scopes.ok_or_else(|| missing("the scopes"))?,
        })
    }

    /// Stores a verified grant: a new connection, or the existing one of this tenant, client and account.
    pub(crate) async fn consent(&self, grant: Verified) -> Result<Connection, Error> {
        for _ in 0..MAX_ROUNDS {
            let existing = self
                .storage()
                .find_connection(
                    &grant.tenant,
                    &grant.provider,
                    grant.kind,
                    grant.oauth_client.as_ref(),
                    &grant.account,
                )
                .await?;
            let (connection, base, fence) = match &existing {
                None => (ConnectionId::generate(self.clock(), self.rng()), ConsentBase::New, 1),
                Some(row) => {
                    let base = ConsentBase::Existing {
                        consent_epoch: row.consent_epoch,
                        lease_fence: row.lease_fence,
                    };
                    (row.id.clone(), base, row.lease_fence + 1)
                }
            };
            let consent = self.sealed_consent(&grant, connection, base, fence).await?;
            let saved = self.storage().save_consent(&consent).await;
            // Whatever the outcome: of one that is unknown, memory must not know less than the database.
            self.forget_tenant(&grant.tenant);
            match saved {
                Ok(stored) => {
                    if let Some(former) = existing.filter(|former| former.state != stored.state) {
                        let (from, to) = (state_name(former.state), state_name(stored.state));
                        audit::state_change(&stored.tenant, &stored.id, from, to, "connected again");
                    }
                    return Ok(stored);
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        StorageErrorKind::Conflict | StorageErrorKind::AlreadyExists
                    ) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::new(Reason::EtagMismatch, "the connection keeps changing: try again")
            .retry_after(Duration::from_secs(1)))
    }

    async fn sealed_consent(
        &self,
        grant: &Verified,
        connection: ConnectionId,
        base: ConsentBase,
        fence: i64,
    ) -> Result<Consent, Error> {
        let place = |field| Place::token(&grant.tenant, connection.as_str(), field, fence);
        let access = grant.access_token.expose_secret().as_bytes();
        let access_token = self.sealer().seal(place("access_token"), access).await?;
        let refresh_token = match &grant.refresh_token {
            Some(token) => {
                Some(self.sealer().seal(place("refresh_token"), token.expose_secret().as_bytes()).await?)
            }
            None => None,
        };
        Ok(Consent {
            tenant: grant.tenant.clone(),
            connection,
            base,
            provider: grant.provider.clone(),
            kind: grant.kind,
            oauth_client: grant.oauth_client.clone(),
            account: grant.account.clone(),
            account_name: grant.account_name.clone(),
            tokens: TokenSet {
                access_token,
                refresh_token,
                issued_at: grant.issued_at,
                expires_at: grant.expires_at,
                scopes: grant.scopes.clone(),
            },
            exclusive_account: !self.settings().allow_shared_accounts,
            link: grant.link.clone(),
            pending: grant.pending.clone(),
            now: self.now(),
        })
    }

    /// When the access token of an answer expires.
    pub(crate) fn answer_expiry(provider: &dyn Provider, answer: &TokenAnswer) -> Timestamp {
        expiry(answer, provider.info().default_token_lifetime).0
    }
}
