//! Connections from tokens that were obtained elsewhere. They are tried before anything is stored.

use tokenward_storage::{Connection, ConnectionKind};
use tokenward_types::{AccountId, ExposeSecret, OAuthClientId, ProviderName, Scopes, SecretString, TenantId};

use crate::broker::Broker;
use crate::connect::NewPending;
use crate::consent::{Verified, grant_failed};
use crate::{Actor, Error, audit};

/// The longest token that is taken, in bytes.
const MAX_TOKEN: usize = 8 * 1024;

impl Broker {
    /// Spends a refresh token once and stores what comes back.
    ///
    /// # Errors
    /// `NotFound` for tenant or client; `GrantRefused` when the provider does not take the token; `AccountMismatch` when it
    /// is for another account than `account`; `AccountTaken`.
    pub async fn import_refresh_token(
        &self,
        actor: &Actor,
        tenant: &TenantId,
        oauth_client: &OAuthClientId,
        refresh_token: SecretString,
        account: Option<AccountId>,
    ) -> Result<Connection, Error> {
        let broker = self.clone();
        let (tenant_id, client_id) = (tenant.clone(), oauth_client.clone());
        // Detached: a caller that goes away must not lose what the provider gave for the token.
        let import = async move { broker.import_grant(&tenant_id, &client_id, refresh_token, account).await };
        let result = self.detached(import).await;
        audit::admin_result(actor, "connection.import", &format!("{tenant}/{oauth_client}"), result)
    }

    async fn import_grant(
        &self,
        tenant: &TenantId,
        oauth_client: &OAuthClientId,
        refresh_token: SecretString,
        account: Option<AccountId>,
    ) -> Result<Connection, Error> {
        check_token("refresh_token", &refresh_token)?;
        self.existing_tenant(tenant).await?;
        let client = self.client(oauth_client).await?;
        let credentials = client.first_credentials()?;
        // Where tokens rotate, the imported one is worthless after this call: what comes back is stored before it is judged.
        let answer = client.provider.refresh(&credentials, &refresh_token).await.map_err(grant_failed)?;
        let pending = NewPending {
            tenant: tenant.clone(),
            link: None,
            oauth_client: oauth_client.clone(),
            account,
            required_scopes: Scopes::default(),
            former_refresh_token: Some(refresh_token),
        };
        self.settle_grant(pending, &client, &credentials, answer).await
    }

    /// Stores a token that does not expire.
    ///
    /// # Errors
    /// `NotFound` for tenant or provider; `InvalidRequest` where the provider knows no such tokens, or no account is given;
    /// `AccountTaken`.
    pub async fn import_static_token(
        &self,
        actor: &Actor,
        tenant: &TenantId,
        provider: &ProviderName,
        token: SecretString,
        scopes: Scopes,
        account: Option<AccountId>,
    ) -> Result<Connection, Error> {
        let result = async {
            check_token("access_token", &token)?;
            self.existing_tenant(tenant).await?;
            let info = self.provider(provider).ok_or_else(|| Error::not_found("provider", provider))?.info();
            if !info.static_tokens {
                return Err(Error::invalid("provider", format!("{provider} has no tokens without expiry")));
            }
            let account = account.ok_or_else(|| {
                Error::invalid("account_id", "is needed: nothing tells which account a static token is for")
            })?;
            if scopes.is_empty() {
                return Err(Error::invalid("scopes", "are needed: nothing tells what a static token may do"));
            }
            self.consent(Verified {
                tenant: tenant.clone(),
                provider: provider.clone(),
                kind: ConnectionKind::Static,
                oauth_client: None,
                account,
                account_name: String::new(),
                access_token: token,
                refresh_token: None,
                scopes,
                issued_at: self.now(),
                expires_at: None,
                link: None,
                pending: None,
            })
            .await
        }
        .await;
        audit::admin_result(actor, "connection.import_static", &format!("{tenant}/{provider}"), result)
    }

    pub(crate) async fn existing_tenant(
        &self,
        tenant: &TenantId,
    ) -> Result<tokenward_storage::Tenant, Error> {
        let found = self.storage().get_tenant(tenant).await?;
        found.ok_or_else(|| Error::not_found("tenant", tenant))
    }
}

fn check_token(field: &'static str, token: &SecretString) -> Result<(), Error> {
    let text = token.expose_secret();
    if text.is_empty() || text.len() > MAX_TOKEN || !text.bytes().all(|b| (0x21..=0x7e).contains(&b)) {
        let rule =
            "must be 1 to 8192 printable ASCII characters without spaces; a line break at its end counts too";
        return Err(Error::invalid(field, rule));
    }
    Ok(())
}
