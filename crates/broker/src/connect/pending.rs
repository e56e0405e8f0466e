//! What the provider gave is stored before anything is judged: a crash, a refusal or an outage after the exchange loses no
//! grant.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokenward_provider::{ClientCredentials, ExpiresIn, TokenAnswer};
use tokenward_storage::{
    ConnectAttempt, ConnectLink, Connection, ConnectionKind, OAuthClient, PendingGrant, StorageErrorKind,
};
use tokenward_types::{
    AccountId, ConnectLinkId, ExposeSecret, OAuthClientId, Scopes, SecretString, TenantId, Timestamp,
    generate_suffix,
};

use crate::broker::Broker;
use crate::clients::ClientEntry;
use crate::consent::Verified;
use crate::{Error, Place, Reason, audit};

/// How often, and in what steps, storing is tried while the database is away.
const STORE_TRIES: u32 = 60;
const STORE_STEP: Duration = Duration::from_millis(500);
/// Pending grants of running attempts are younger than this.
const RESUME_AFTER: Duration = Duration::from_secs(60);
/// How many pending grants are taken up at once.
const RESUME_LIMIT: u32 = 100;

/// What is demanded of a grant that is not verified yet.
pub(crate) struct NewPending {
    pub tenant: TenantId,
    pub link: Option<ConnectLinkId>,
    pub oauth_client: OAuthClientId,
    /// The only account that is accepted.
    pub account: Option<AccountId>,
    /// The scopes that must have been granted.
    pub required_scopes: Scopes,
    /// The token that an import spent: it stays where the answer brings no other.
    pub former_refresh_token: Option<SecretString>,
}

impl NewPending {
    pub(super) fn of(attempt: &ConnectAttempt, link: &ConnectLink, client: &OAuthClient) -> Self {
        Self {
            tenant: attempt.tenant.clone(),
            link: Some(attempt.link.clone()),
            oauth_client: attempt.oauth_client.clone(),
            account: link.account.clone(),
            required_scopes: client.scopes.clone(),
            former_refresh_token: None,
        }
    }
}

/// What is stored beside the tokens, to go on after a restart.
#[derive(Serialize, Deserialize)]
struct Details {
    account: Option<String>,
    account_name: Option<String>,
    scopes: Option<String>,
    expires_at: i64,
    wanted_account: Option<String>,
    required_scopes: String,
}

/// A grant under verification.
struct Unverified {
    id: String,
    demands: NewPending,
    answer: TokenAnswer,
    expires_at: Timestamp,
    /// Whether it was stored a while ago, so that a newer grant may have come since.
    resumed: bool,
}

impl Broker {
    /// Stores what the provider gave, verifies it, and makes it a connection.
    pub(crate) async fn settle_grant(
        &self,
        mut demands: NewPending,
        client: &ClientEntry,
        credentials: &ClientCredentials,
        mut answer: TokenAnswer,
    ) -> Result<Connection, Error> {
        if answer.refresh_token.is_none() {
            answer.refresh_token = demands.former_refresh_token.take();
        }
        let id = format!("pnd_{}", generate_suffix(self.clock(), self.rng()));
        let expires_at = Self::answer_expiry(&*client.provider, &answer);
        let grant = Unverified { id, demands, answer, expires_at, resumed: false };
        self.store_pending(&grant).await?;
        self.verify_grant(grant, client, credentials).await
    }

    async fn store_pending(&self, grant: &Unverified) -> Result<(), Error> {
        let mut tries = 0;
        loop {
            match self.try_store_pending(grant).await {
                Err(error)
                    if matches!(error.reason, Reason::StorageUnavailable | Reason::EncryptionUnavailable)
                        && tries < STORE_TRIES =>
                {
                    tries += 1;
                    tokio::time::sleep(STORE_STEP).await;
                }
                other => return other,
            }
        }
    }

    async fn try_store_pending(&self, grant: &Unverified) -> Result<(), Error> {
        let Unverified { id, demands, answer, expires_at, .. } = grant;
        let access_token = self
            .sealer()
            .seal(place(&demands.tenant, id, "access_token"), answer.access_token.expose_secret().as_bytes())
            .await?;
        let refresh_token = match &answer.refresh_token {
            Some(token) => {
                let place = place(&demands.tenant, id, "refresh_token");
                Some(self.sealer().seal(place, token.expose_secret().as_bytes()).await?)
            }
            None => None,
        };
        let details = Details {
            account: answer.account.as_ref().map(ToString::to_string),
            account_name: answer.account_name.clone(),
            scopes: answer.scopes.as_ref().map(ToString::to_string),
            expires_at: expires_at.as_micros(),
            wanted_account: demands.account.as_ref().map(ToString::to_string),
            required_scopes: demands.required_scopes.to_string(),
        };
        let details = serde_json::to_string(&details)
            .map_err(|error| Error::new(Reason::Internal, "internal error").internal(error))?;
        let pending = PendingGrant {
            tenant: demands.tenant.clone(),
            id: id.clone(),
            link: demands.link.clone(),
            oauth_client: demands.oauth_client.clone(),
            access_token,
            refresh_token,
            details,
            issued_at: answer.requested_at,
            refused: None,
        };
        match self.storage().save_pending_grant(&pending).await {
            // An earlier try whose outcome was unknown had succeeded.
            Err(error) if error.kind() == StorageErrorKind::AlreadyExists => Ok(()),
            other => Ok(other?),
        }
    }

    async fn verify_grant(
        &self,
        grant: Unverified,
        client: &ClientEntry,
        credentials: &ClientCredentials,
    ) -> Result<Connection, Error> {
        let (tenant, id) = (grant.demands.tenant.clone(), grant.id.clone());
        let result = self.accept_grant(grant, client, credentials).await;
        if let Err(error) = &result {
            let may_succeed_later = matches!(
                error.reason,
                Reason::StorageUnavailable
                    | Reason::EncryptionUnavailable
                    | Reason::ProviderUnavailable
                    | Reason::ProviderRateLimited
                    | Reason::EtagMismatch
            );
            if !may_succeed_later {
                // Kept from use, and not revoked: it may be another tenant's live grant.
                if let Err(error) =
                    self.storage().refuse_pending_grant(&tenant, &id, error.reason.as_str()).await
                {
                    tracing::warn!(tenant = %tenant, pending = id, %error, "cannot mark a grant as refused");
                }
            }
        }
        result
    }

    async fn accept_grant(
        &self,
        grant: Unverified,
        client: &ClientEntry,
        credentials: &ClientCredentials,
    ) -> Result<Connection, Error> {
        let Unverified { id, demands, answer, expires_at, resumed } = grant;
        let identity = self.identify(&*client.provider, credentials, &answer).await?;
        if let Some(wanted) = demands.account.as_ref().filter(|wanted| **wanted != identity.account) {
            return Err(Error::new(
                Reason::AccountMismatch,
                format!(
                    "account {} was chosen, but this connection is for account {wanted}: choose that one",
                    identity.account
                ),
            )
            .with("account_id", identity.account.as_str())
            .with("wanted_account_id", wanted.as_str()));
        }
        let missing = demands.required_scopes.difference(&identity.scopes);
        if !missing.is_empty() {
            return Err(Error::new(
                Reason::ScopeNotGranted,
                format!("the grant lacks scopes that are required: {missing}"),
            )
            .with("missing_scopes", missing.to_string()));
        }
        if resumed {
            self.refuse_if_superseded(&demands, client, &identity.account, answer.requested_at).await?;
        }
        if answer.refresh_token.is_none() {
            tracing::warn!(tenant = %demands.tenant, "a grant without refresh token ends with its access token");
        }
        self.consent(Verified {
            tenant: demands.tenant,
            provider: client.client.provider.clone(),
            kind: ConnectionKind::OAuth,
            oauth_client: Some(demands.oauth_client),
            account: identity.account,
            account_name: identity.account_name,
            access_token: answer.access_token,
            refresh_token: answer.refresh_token,
            scopes: identity.scopes,
            issued_at: answer.requested_at,
            expires_at: Some(expires_at),
            link: demands.link,
            pending: Some(id),
        })
        .await
    }

    /// A grant that waited must not replace one that came later, nor undo a disconnect.
    async fn refuse_if_superseded(
        &self,
        demands: &NewPending,
        client: &ClientEntry,
        account: &AccountId,
        requested_at: Timestamp,
    ) -> Result<(), Error> {
        let (provider, kind) = (&client.client.provider, ConnectionKind::OAuth);
        let found = self
            .storage()
            .find_connection(&demands.tenant, provider, kind, Some(&demands.oauth_client), account)
            .await?;
        let is_newer = found.is_some_and(|row| match &row.tokens {
            Some(tokens) => tokens.issued_at > requested_at,
            None => row.state_since > requested_at,
        });
        if is_newer {
            return Err(Error::new(Reason::GrantRefused, "a newer grant or a disconnect came first"));
        }
        Ok(())
    }

    /// Takes up grants that were stored and not verified: by a process that stopped, or while the provider was away.
    pub(crate) async fn resume_pending_grants(&self) {
        let grants = match self.storage().list_pending_grants(RESUME_LIMIT).await {
            Ok(grants) => grants,
            Err(error) => {
                tracing::warn!(%error, "cannot read pending grants");
                return;
            }
        };
        let now = self.now();
        let is_due = |grant: &PendingGrant| {
            let waited = now.since(grant.issued_at);
            // After 1, 2, 4, 8 … minutes: ever more rarely.
            waited > RESUME_AFTER && (waited.as_secs() / 60).is_power_of_two()
        };
        // All at once: one provider's slow answers delay no other's.
        let resume = |grant: PendingGrant| async move {
            let (tenant, id) = (grant.tenant.clone(), grant.id.clone());
            let link = grant.link.as_ref().map(ToString::to_string).unwrap_or_default();
            match self.detached_resume(grant).await {
                Ok(connection) => {
                    audit::connect(&tenant, &link, Some(connection.account.as_str()), Ok(&connection.id));
                    tracing::info!(tenant = %tenant, connection = %connection.id, "a pending grant became a connection");
                }
                Err(error) => {
                    tracing::warn!(tenant = %tenant, pending = id, %error, "a pending grant stays pending");
                }
            }
        };
        futures::future::join_all(grants.into_iter().filter(is_due).map(resume)).await;
    }

    async fn detached_resume(&self, grant: PendingGrant) -> Result<Connection, Error> {
        let (tenant, id) = (grant.tenant.clone(), grant.id.clone());
        let broker = self.clone();
        let result = self.detached(async move { broker.resume_grant(grant).await }).await;
        if let Err(error) = &result
            && matches!(error.reason, Reason::StoredDataDamaged | Reason::NotFound)
        {
            // It will never do: it must not stand in the way of others.
            self.storage().refuse_pending_grant(&tenant, &id, error.reason.as_str()).await?;
        }
        result
    }

    async fn resume_grant(&self, stored: PendingGrant) -> Result<Connection, Error> {
        let damaged = || Error::new(Reason::StoredDataDamaged, "a pending grant's details cannot be read");
        let details: Details = serde_json::from_str(&stored.details).map_err(|_| damaged())?;
        let account = |text: Option<String>| match text {
            Some(text) => AccountId::parse(&text).map(Some).map_err(|_| damaged()),
            None => Ok(None),
        };
        let scopes = |text: &str| Scopes::parse(text).map_err(|_| damaged());
        let open = |field, sealed| self.sealer().open_text(place(&stored.tenant, &stored.id, field), sealed);
        let access_token = open("access_token", &stored.access_token).await?;
        let refresh_token = match &stored.refresh_token {
            Some(sealed) => Some(open("refresh_token", sealed).await?),
            None => None,
        };
        let answer = TokenAnswer {
            access_token,
            refresh_token,
            expires_in: ExpiresIn::Missing,
            scopes: details.scopes.as_deref().map(scopes).transpose()?,
            account: account(details.account)?,
            account_name: details.account_name,
            requested_at: stored.issued_at,
        };
        let grant = Unverified {
            id: stored.id.clone(),
            answer,
            resumed: true,
            expires_at: Timestamp::from_micros(details.expires_at),
            demands: NewPending {
                tenant: stored.tenant.clone(),
                link: stored.link.clone(),
                oauth_client: stored.oauth_client.clone(),
                account: account(details.wanted_account)?,
                required_scopes: scopes(&details.required_scopes)?,
                former_refresh_token: None,
            },
        };
        let client = self.client(&stored.oauth_client).await?;
        let credentials = client.first_credentials()?;
        self.verify_grant(grant, &client, &credentials).await
    }
}

fn place<'a>(tenant: &'a TenantId, id: &'a str, field: &'a str) -> Place<'a> {
    Place { scope: tenant.as_str(), kind: "pending_grant", record: id, field, fence: None }
}
