use std::time::Duration;

use secrecy::SecretString;
use tokenward_provider::{AuthorizeRequest, pkce_challenge};
use tokenward_storage::{ConnectAttempt, ConnectLink, StorageErrorKind};
use tokenward_types::{ExposeSecret, Sealed, TenantId, hex, random_token, sha256};
use url::Url;

use crate::broker::Broker;
use crate::clients::ClientEntry;
use crate::{Error, Place, Reason};

/// A browser on its way to the provider.
#[derive(Debug)]
pub struct StartedConnect {
    /// Where it goes.
    pub authorize_url: Url,
    /// The cookie that ties this attempt to it.
    pub cookie_name: String,
    /// The cookie's value.
    pub cookie_value: SecretString,
    /// Whether the cookie must be `Secure`; on a loopback address without https browsers might drop it then.
    pub cookie_secure: bool,
    /// How long the attempt may take.
    pub max_age: Duration,
}

impl Broker {
    /// Starts an attempt. The link stays usable until a connection succeeds.
    ///
    /// # Errors
    /// `LinkUnknown`, `LinkExpired`, `LinkUsed`, `OAuthClientMisconfigured`.
    pub async fn start_connect(&self, secret: &str) -> Result<StartedConnect, Error> {
        let link = self.usable_link(secret).await?;
        let client = self.client(&link.oauth_client).await?;
        client.first_credentials()?;
        let state = random_token(self.rng());
        let cookie = random_token(self.rng());
        let state_hash = sha256(state.expose_secret().as_bytes());
        let verifier = client.provider.info().pkce.then(|| random_token(self.rng()));
        let pkce_verifier = match &verifier {
            Some(verifier) => Some(self.seal_verifier(&link.tenant, &state_hash, verifier).await?),
            None => None,
        };
        let now = self.now();
        self.storage()
            .start_connect_attempt(&ConnectAttempt {
                state_hash,
                cookie_hash: sha256(cookie.expose_secret().as_bytes()),
                tenant: link.tenant.clone(),
                link: link.id.clone(),
                oauth_client: link.oauth_client.clone(),
                pkce_verifier,
                created_at: now,
                expires_at: now + self.settings().state_ttl,
            })
            .await
            .map_err(|error| match error.kind() {
                StorageErrorKind::InUse => Error::new(
                    Reason::Overloaded,
                    "this link was opened too often in a short time: try again later",
                )
                .retry_after(self.settings().state_ttl)
                .internal(error),
                _ => error.into(),
            })?;
        Ok(StartedConnect {
            authorize_url: self.authorize_url_of(&client, &link, &state, verifier.as_ref()),
            cookie_name: self.cookie_name(&state_hash),
            cookie_value: cookie,
            cookie_secure: self.settings().public_url.scheme() == "https",
            max_age: self.settings().state_ttl,
        })
    }

    pub(super) fn authorize_url_of(
        &self,
        client: &ClientEntry,
        link: &ConnectLink,
        state: &SecretString,
        verifier: Option<&SecretString>,
    ) -> Url {
        let challenge = verifier.map(pkce_challenge);
        client.provider.authorize_url(&AuthorizeRequest {
            client_id: &client.client.client_id,
            redirect_uri: &self.redirect_uri(&client.client.id),
            scopes: &client.client.scopes,
            optional_scopes: &client.client.optional_scopes,
            state,
            pkce_challenge: challenge.as_deref(),
            account: link.account.as_ref(),
        })
    }

    async fn seal_verifier(
        &self,
        tenant: &TenantId,
        state_hash: &[u8; 32],
        verifier: &SecretString,
    ) -> Result<Sealed, Error> {
        let record = record_name(state_hash);
        let place = verifier_place(tenant, &record);
        self.sealer().seal(place, verifier.expose_secret().as_bytes()).await
    }

    pub(super) async fn open_verifier(
        &self,
        attempt: &ConnectAttempt,
    ) -> Result<Option<SecretString>, Error> {
        let Some(sealed) = &attempt.pkce_verifier else { return Ok(None) };
        let record = record_name(&attempt.state_hash);
        self.sealer().open_text(verifier_place(&attempt.tenant, &record), sealed).await.map(Some)
    }
}

fn record_name(state_hash: &[u8; 32]) -> String {
    hex(state_hash)
}

fn verifier_place<'a>(tenant: &'a TenantId, record: &'a str) -> Place<'a> {
    Place { scope: tenant.as_str(), kind: "connect_attempt", record, field: "pkce_verifier", fence: None }
}
