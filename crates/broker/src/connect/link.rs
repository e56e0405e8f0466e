use std::time::Duration;

use secrecy::SecretString;
use tokenward_storage::{ConnectLink, Page, PageRequest};
use tokenward_types::{
    AccountId, ConnectLinkId, ExposeSecret, OAuthClientId, Scopes, TenantId, random_token, sha256,
};
use url::Url;

use crate::broker::Broker;
use crate::{Actor, Error, audit};

/// A link to make.
#[derive(Clone, Debug)]
pub struct NewConnectLink {
    /// The tenant.
    pub tenant: TenantId,
    /// The client that the customer consents to.
    pub oauth_client: OAuthClientId,
    /// The only account that is accepted.
    pub account: Option<AccountId>,
    /// How long it works.
    pub ttl: Option<Duration>,
    /// Where the result page leads.
    pub return_url: Option<String>,
}

/// What a customer is shown before anything happens.
#[derive(Clone, Debug)]
pub struct ConnectPage {
    /// The tenant's name, or its identifier.
    pub tenant_name: String,
    /// The provider's name.
    pub provider_name: String,
    /// The client's name, or its identifier.
    pub client_name: String,
    /// The only account that is accepted.
    pub account: Option<AccountId>,
    /// What the customer is asked for.
    pub scopes: Scopes,
    /// What they may decline.
    pub optional_scopes: Scopes,
    /// The provider's page, where the browser goes next.
    pub authorize_origin: String,
}

impl Broker {
    /// Makes a link. The URL is a secret: whoever opens it can connect an account to the tenant.
    ///
    /// # Errors
    /// `NotFound` for tenant or client; `InvalidRequest` for a time to live or a return URL that the configuration does not
    /// allow.
    pub async fn create_connect_link(
        &self,
        actor: &Actor,
        new: NewConnectLink,
    ) -> Result<(ConnectLink, SecretString), Error> {
        let target = format!("{}/{}", new.tenant, new.oauth_client);
        let result = self.make_link(actor, new).await;
        audit::admin_result(actor, "connect_link.create", &target, result)
    }

    async fn make_link(
        &self,
        actor: &Actor,
        new: NewConnectLink,
    ) -> Result<(ConnectLink, SecretString), Error> {
        let settings = self.settings();
        let ttl = new.ttl.unwrap_or(settings.connect_link_ttl);
        if ttl < Duration::from_secs(60) || ttl > settings.connect_link_max_ttl {
            let longest = humantime_days(settings.connect_link_max_ttl);
            return Err(Error::invalid("ttl", format!("must be between 1 minute and {longest}")));
        }
        if let Some(url) = &new.return_url {
            self.check_return_url(url)?;
        }
        self.existing_tenant(&new.tenant).await?;
        // Also proves that the client can be used: provider configured, secrets readable.
        self.client(&new.oauth_client).await?.first_credentials()?;
        let secret = random_token(self.rng());
        let now = self.now();
        let link = ConnectLink {
            tenant: new.tenant,
            id: ConnectLinkId::generate(self.clock(), self.rng()),
            secret_hash: sha256(secret.expose_secret().as_bytes()),
            oauth_client: new.oauth_client,
            account: new.account,
            return_url: new.return_url,
            created_by: actor.principal.to_string(),
            created_at: now,
            expires_at: now + ttl,
            used_at: None,
        };
        self.storage().create_connect_link(&link).await?;
        let base = settings.public_url.as_str().trim_end_matches('/');
        let url = SecretString::from(format!("{base}/connect/{}", secret.expose_secret()));
        Ok((link, url))
    }

    fn check_return_url(&self, text: &str) -> Result<(), Error> {
        let refused = |why| Error::invalid("return_url", why);
        let url = Url::parse(text).map_err(|_| refused("is not a URL"))?;
        let below = |allowed: &Url| {
            let folder = allowed.path().trim_end_matches('/');
            let rest = url.path().strip_prefix(folder);
            url.origin() == allowed.origin()
                && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let has_credentials = !url.username().is_empty() || url.password().is_some();
        if text.len() > 2048 || has_credentials || !self.settings().return_urls.iter().any(below) {
            return Err(refused("is not among those that the configuration allows (public.return_urls)"));
        }
        Ok(())
    }

    /// A page of a tenant's links.
    ///
    /// # Errors
    /// `StorageUnavailable`.
    pub async fn list_connect_links(
        &self,
        tenant: &TenantId,
        page: &PageRequest,
    ) -> Result<Page<ConnectLink>, Error> {
        Ok(self.storage().list_connect_links(tenant, page).await?)
    }

    /// Takes a link back.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn delete_connect_link(
        &self,
        actor: &Actor,
        tenant: &TenantId,
        id: &ConnectLinkId,
    ) -> Result<(), Error> {
        let result = match self.storage().delete_connect_link(tenant, id).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::not_found("connect link", id)),
            Err(error) => Err(error.into()),
        };
        audit::admin_result(actor, "connect_link.delete", &format!("{tenant}/{id}"), result)
    }

    /// What a link's page shows. Opening it changes nothing: mail scanners open links.
    ///
    /// # Errors
    /// `LinkUnknown`, `LinkExpired`, `LinkUsed`.
    pub async fn connect_page(&self, secret: &str) -> Result<ConnectPage, Error> {
        let link = self.usable_link(secret).await?;
        let tenant = self.existing_tenant(&link.tenant).await?;
        let client = self.client(&link.oauth_client).await?;
        let name = |name: &str, id: &str| if name.is_empty() { id.to_owned() } else { name.to_owned() };
        let authorize_origin = self.authorize_url_of(&client, &link, &SecretString::from("-"), None).origin();
        Ok(ConnectPage {
            tenant_name: name(&tenant.display_name, tenant.id.as_str()),
            provider_name: client.provider.info().display_name.clone(),
            client_name: name(&client.client.display_name, client.client.id.as_str()),
            account: link.account,
            scopes: client.client.scopes.clone(),
            optional_scopes: client.client.optional_scopes.clone(),
            authorize_origin: authorize_origin.ascii_serialization(),
        })
    }
}

fn humantime_days(duration: Duration) -> String {
    format!("{} days", duration.as_secs() / (24 * 3600))
}
