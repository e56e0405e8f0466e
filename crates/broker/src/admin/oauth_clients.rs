//! OAuth clients and the versions of their secrets.

use secrecy::{ExposeSecret, SecretString};
use tokenward_storage::{
    ClientSecretRecord, ClientSecretState, OAuthClient, Page, PageRequest, StorageErrorKind, Version,
};
use tokenward_types::{OAuthClientId, ProviderName, Scopes, Sealed};

use super::{MAX_TRIES, audited, check_seen, validate};
use crate::audit::Actor;
use crate::sealer::{INSTALLATION_SCOPE, Place};
use crate::{Broker, Error, Reason};

/// An OAuth client to register.
#[derive(Clone, Debug)]
pub struct NewOAuthClient {
    /// The identifier.
    pub id: OAuthClientId,
    /// The provider, as the configuration names it.
    pub provider: ProviderName,
    /// The `client_id` that the provider gave.
    pub client_id: String,
    /// A name for people; may be empty.
    pub display_name: String,
    /// Scopes that a customer must grant.
    pub scopes: Scopes,
    /// Scopes that a customer may decline.
    pub optional_scopes: Scopes,
    /// Where a customer is helped.
    pub help_url: Option<String>,
}

/// What to change about an OAuth client; `None` leaves a field as it is.
#[derive(Clone, Debug, Default)]
pub struct OAuthClientChange {
    /// The new `client_id`; refused once connections exist.
    pub client_id: Option<String>,
    /// The new name.
    pub display_name: Option<String>,
    /// The new required scopes.
    pub scopes: Option<Scopes>,
    /// The new optional scopes.
    pub optional_scopes: Option<Scopes>,
    /// The new help; the inner `None` takes it away.
    pub help_url: Option<Option<String>>,
}

fn check(client: &OAuthClient) -> Result<(), Error> {
    validate::client_id(&client.client_id)?;
    validate::display_name(&client.display_name)?;
    validate::client_scopes(&client.scopes, &client.optional_scopes)?;
    client.help_url.as_deref().map_or(Ok(()), validate::help_url)
}

fn missing(id: &OAuthClientId) -> Error {
    Error::not_found("OAuth client", id)
}

fn missing_version(id: &OAuthClientId, version: i32) -> Error {
    Error::not_found("client secret", format_args!("{id}, version {version}"))
}

impl Broker {
    /// Registers an OAuth client, with its first secret where that is at hand.
    ///
    /// # Errors
    /// `InvalidRequest`, `AlreadyExists`, `EncryptionUnavailable`.
    pub async fn create_oauth_client(
        &self,
        actor: &Actor,
        new: NewOAuthClient,
        first_secret: Option<SecretString>,
    ) -> Result<OAuthClient, Error> {
        let id = new.id.clone();
        let outcome = self.try_create_oauth_client(new, first_secret).await;
        self.forget_oauth_client(&id);
        audited(actor, "oauth_client.create", id.as_str(), outcome)
    }

    async fn try_create_oauth_client(
        &self,
        new: NewOAuthClient,
        first_secret: Option<SecretString>,
    ) -> Result<OAuthClient, Error> {
        self.check_provider(&new.provider)?;
        let now = self.clock().now();
        let client = OAuthClient {
            id: new.id,
            provider: new.provider,
            client_id: new.client_id,
            display_name: new.display_name,
            scopes: new.scopes,
            optional_scopes: new.optional_scopes,
            help_url: new.help_url,
            created_at: now,
            updated_at: now,
            version: 1,
        };
        check(&client)?;
        // Sealed first: when encryption is away, nothing is written.
        let sealed = match &first_secret {
            Some(secret) => Some(self.seal_client_secret(&client.id, 1, secret).await?),
            None => None,
        };
        let stored = self.storage().create_oauth_client(&client).await;
        let stored = stored.map_err(|error| Error::or_exists(error, "OAuth client", &client.id))?;
        if let Some(sealed) = sealed {
            let record = self.secret_record(&client.id, 1, sealed);
            if let Err(error) = self.storage().add_client_secret(&record).await {
                // Leave nothing half-written; if even this fails, the client stands without a secret, which shows.
                let _ = self.storage().delete_oauth_client(&client.id).await;
                return Err(error.into());
            }
        }
        Ok(stored)
    }

    /// The OAuth client.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn get_oauth_client(&self, id: &OAuthClientId) -> Result<OAuthClient, Error> {
        self.storage().get_oauth_client(id).await?.ok_or_else(|| missing(id))
    }

    /// OAuth clients in order of their identifiers.
    ///
    /// # Errors
    /// Those of storage.
    pub async fn list_oauth_clients(&self, page: &PageRequest) -> Result<Page<OAuthClient>, Error> {
        Ok(self.storage().list_oauth_clients(page).await?)
    }

    /// Changes an OAuth client, if it still is as it was `seen`; `None` for whichever.
    ///
    /// # Errors
    /// `InvalidRequest`, `NotFound`, `EtagMismatch`, `InUse` for another `client_id` while connections exist.
    pub async fn update_oauth_client(
        &self,
        actor: &Actor,
        id: &OAuthClientId,
        seen: Option<Version>,
        change: OAuthClientChange,
    ) -> Result<OAuthClient, Error> {
        let outcome = self.try_update_oauth_client(id, seen, change).await;
        self.forget_oauth_client(id);
        audited(actor, "oauth_client.update", id.as_str(), outcome)
    }

    async fn try_update_oauth_client(
        &self,
        id: &OAuthClientId,
        seen: Option<Version>,
        change: OAuthClientChange,
    ) -> Result<OAuthClient, Error> {
        let mut tries = 1;
        loop {
            let mut client = self.get_oauth_client(id).await?;
            check_seen(seen, client.version)?;
            let OAuthClientChange { client_id, display_name, scopes, optional_scopes, help_url } =
                change.clone();
            client.client_id = client_id.unwrap_or(client.client_id);
            client.display_name = display_name.unwrap_or(client.display_name);
            client.scopes = scopes.unwrap_or(client.scopes);
            client.optional_scopes = optional_scopes.unwrap_or(client.optional_scopes);
            client.help_url = help_url.unwrap_or(client.help_url);
            client.updated_at = self.clock().now();
            check(&client)?;
            match self.storage().update_oauth_client(&client).await {
                Ok(updated) => return updated.ok_or_else(|| missing(id)),
                Err(error) if error.kind() == StorageErrorKind::Conflict && tries < MAX_TRIES => tries += 1,
                Err(error) if error.kind() == StorageErrorKind::InUse => {
                    return Err(Error::new(
                        Reason::InUse,
                        "client_id cannot change while connections exist: their grants belong to the former one. Register \
                         another OAuth client",
                    )
                    .internal(error));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Deletes an OAuth client that no connection belongs to, with its secrets.
    ///
    /// # Errors
    /// `NotFound`, `EtagMismatch`, `InUse`.
    pub async fn delete_oauth_client(
        &self,
        actor: &Actor,
        id: &OAuthClientId,
        seen: Option<Version>,
    ) -> Result<(), Error> {
        let outcome = self.try_delete_oauth_client(id, seen).await;
        self.forget_oauth_client(id);
        audited(actor, "oauth_client.delete", id.as_str(), outcome)
    }

    async fn try_delete_oauth_client(&self, id: &OAuthClientId, seen: Option<Version>) -> Result<(), Error> {
        let client = self.get_oauth_client(id).await?;
        check_seen(seen, client.version)?;
        match self.storage().delete_oauth_client(id).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(missing(id)),
            Err(error) if error.kind() == StorageErrorKind::InUse => Err(Error::new(
                Reason::InUse,
                format!("connections belong to OAuth client {id}: disconnect and delete them first"),
            )
            .internal(error)),
            Err(error) => Err(error.into()),
        }
    }

    /// Adds a version of the client secret. The first one becomes active, and so does this one with `activate`.
    ///
    /// # Errors
    /// `InvalidRequest`, `NotFound`, `EncryptionUnavailable`.
    pub async fn add_client_secret(
        &self,
        actor: &Actor,
        id: &OAuthClientId,
        secret: &SecretString,
        activate: bool,
    ) -> Result<ClientSecretRecord, Error> {
        let outcome = self.try_add_client_secret(id, secret, activate).await;
        self.forget_oauth_client(id);
        audited(actor, "client_secret.add", id.as_str(), outcome)
    }

    async fn try_add_client_secret(
        &self,
        id: &OAuthClientId,
        secret: &SecretString,
        activate: bool,
    ) -> Result<ClientSecretRecord, Error> {
        validate::client_secret(secret)?;
        let mut tries = 1;
        let added = loop {
            let newest = self
                .storage()
                .list_client_secrets(id)
                .await?
                .first()
                .map_or(0, |record| record.secret_version);
            let version = newest.saturating_add(1);
            // The ciphertext is bound to its version, so another version means another seal.
            let sealed = self.seal_client_secret(id, version, secret).await?;
            let record = self.secret_record(id, version, sealed);
            match self.storage().add_client_secret(&record).await {
                Ok(added) => break added.ok_or_else(|| missing(id))?,
                Err(error) if error.kind() == StorageErrorKind::AlreadyExists && tries < MAX_TRIES => {
                    tries += 1;
                }
                Err(error) => return Err(error.into()),
            }
        };
        self.forget_oauth_client(id);
        if !activate || added.state == ClientSecretState::Active {
            return Ok(added);
        }
        self.try_activate_client_secret(id, added.secret_version).await
    }

    /// Makes a version the one that is tried first. The provider is asked about it first, where that spends nothing.
    ///
    /// # Errors
    /// `NotFound`, `InUse` when it is retired, `OAuthClientMisconfigured` when the provider certainly refuses it.
    pub async fn activate_client_secret(
        &self,
        actor: &Actor,
        id: &OAuthClientId,
        version: i32,
    ) -> Result<ClientSecretRecord, Error> {
        let outcome = self.try_activate_client_secret(id, version).await;
        self.forget_oauth_client(id);
        audited(actor, "client_secret.activate", &format!("{id}/{version}"), outcome)
    }

    async fn try_activate_client_secret(
        &self,
        id: &OAuthClientId,
        version: i32,
    ) -> Result<ClientSecretRecord, Error> {
        if self.is_refused(id, version).await? {
            return Err(Error::new(
                Reason::OAuthClientMisconfigured,
                format!(
                    "the provider refuses the secret of version {version} at the moment, so it was not activated: rotate it at \
                     the provider first; until then it is tried whenever the active one is refused"
                ),
            )
            .with("oauth_client_id", id.as_str()));
        }
        match self.storage().activate_client_secret(id, version, self.clock().now()).await {
            Ok(record) => record.ok_or_else(|| missing_version(id, version)),
            Err(error) if error.kind() == StorageErrorKind::Conflict => Err(Error::new(
                Reason::InUse,
                format!("version {version} is retired and wiped: add the secret again as a new version"),
            )
            .internal(error)),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes a version out of use for good and wipes it.
    ///
    /// # Errors
    /// `NotFound`, `InUse` when it is the active one, or the provider certainly refuses the active one.
    pub async fn retire_client_secret(
        &self,
        actor: &Actor,
        id: &OAuthClientId,
        version: i32,
    ) -> Result<ClientSecretRecord, Error> {
        let outcome = self.try_retire_client_secret(id, version).await;
        self.forget_oauth_client(id);
        audited(actor, "client_secret.retire", &format!("{id}/{version}"), outcome)
    }

    async fn try_retire_client_secret(
        &self,
        id: &OAuthClientId,
        version: i32,
    ) -> Result<ClientSecretRecord, Error> {
        let secrets = self.storage().list_client_secrets(id).await?;
        let active = secrets.iter().find(|secret| secret.state == ClientSecretState::Active);
        if let Some(active) = active.filter(|active| active.secret_version != version)
            && self.is_refused(id, active.secret_version).await?
        {
            return Err(Error::new(
                Reason::InUse,
                format!(
                    "the provider refuses the active secret, version {}, at the moment: version {version} may be the \
                     one that works",
                    active.secret_version
                ),
            ));
        }
        match self.storage().retire_client_secret(id, version, self.clock().now()).await {
            Ok(record) => record.ok_or_else(|| missing_version(id, version)),
            Err(error) if error.kind() == StorageErrorKind::InUse => Err(Error::new(
                Reason::InUse,
                format!("version {version} is the active one: activate another version first"),
            )
            .internal(error)),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the provider certainly refuses a version's secret. Asking spends no grant; a provider that cannot tell, or
    /// is away, refuses nothing.
    async fn is_refused(&self, id: &OAuthClientId, version: i32) -> Result<bool, Error> {
        let client = self.client(id).await?;
        let credentials = client.credentials().find(|(other, _)| *other == version);
        let Some((_, credentials)) = credentials else { return Ok(false) };
        Ok(client.provider.check_credentials(&credentials).await == Some(false))
    }

    /// The versions of a client's secret, newest first.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn list_client_secrets(&self, id: &OAuthClientId) -> Result<Vec<ClientSecretRecord>, Error> {
        self.get_oauth_client(id).await?;
        Ok(self.storage().list_client_secrets(id).await?)
    }

    async fn seal_client_secret(
        &self,
        id: &OAuthClientId,
        version: i32,
        secret: &SecretString,
    ) -> Result<Sealed, Error> {
        validate::client_secret(secret)?;
        let record = format!("{id}:{version}");
        let place = Place {
            scope: INSTALLATION_SCOPE,
            kind: "client_secret",
            record: &record,
            field: "secret",
            fence: None,
        };
        self.sealer().seal(place, secret.expose_secret().as_bytes()).await
    }

    fn secret_record(&self, id: &OAuthClientId, version: i32, sealed: Sealed) -> ClientSecretRecord {
        let now = self.clock().now();
        ClientSecretRecord {
            oauth_client: id.clone(),
            secret_version: version,
            state: ClientSecretState::Enabled,
            sealed,
            created_at: now,
            updated_at: now,
        }
    }
}
