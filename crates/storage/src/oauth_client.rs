use async_trait::async_trait;
use tokenward_types::{OAuthClientId, ProviderName, Scopes, Sealed, Timestamp};

use crate::{Page, PageRequest, Result, Version};

/// Our registration at a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OAuthClient {
    /// How the admin calls it.
    pub id: OAuthClientId,
    /// The provider that it is registered at; never changes.
    pub provider: ProviderName,
    /// The `client_id` that the provider gave; never changes once connections exist.
    pub client_id: String,
    /// A name for people; may be empty.
    pub display_name: String,
    /// Scopes that a connect attempt requests and requires.
    pub scopes: Scopes,
    /// Scopes that it requests but can do without.
    pub optional_scopes: Scopes,
    /// Where a customer is helped when the connection needs them; not a secret.
    pub help_url: Option<String>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// Counts its changes.
    pub version: Version,
}

/// What a version of a client secret is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientSecretState {
    /// Tried when the active one is refused as invalid.
    Enabled,
    /// Tried first. At most one per client.
    Active,
    /// Never used again.
    Retired,
}

/// One version of a client secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientSecretRecord {
    /// The client that it belongs to.
    pub oauth_client: OAuthClientId,
    /// Its number, from 1.
    pub secret_version: i32,
    /// What it is used for.
    pub state: ClientSecretState,
    /// The secret.
    pub sealed: Sealed,
    /// When it was added.
    pub created_at: Timestamp,
    /// When its state last changed.
    pub updated_at: Timestamp,
}

/// OAuth clients and their secrets.
#[async_trait]
pub trait OAuthClientStore: Send + Sync {
    /// Inserts a client with version 1 and returns it.
    ///
    /// # Errors
    /// `AlreadyExists` when the identifier is taken.
    async fn create_oauth_client(&self, client: &OAuthClient) -> Result<OAuthClient>;

    /// The client, with every field as it was written.
    async fn get_oauth_client(&self, client: &OAuthClientId) -> Result<Option<OAuthClient>>;

    /// Clients in order of their identifiers.
    async fn list_oauth_clients(&self, page: &PageRequest) -> Result<Page<OAuthClient>>;

    /// Writes client_id, display name, scopes, optional scopes, help URL and `updated_at` where the stored version is
    /// `client.version`; the result carries the next version. `None` when there is no such client.
    ///
    /// # Errors
    /// `Conflict` when the stored version is another. `InUse` when `client_id` differs and connections exist.
    async fn update_oauth_client(&self, client: &OAuthClient) -> Result<Option<OAuthClient>>;

    /// Deletes the client with its secrets, connect links and connect attempts. `false` when there is none.
    ///
    /// # Errors
    /// `InUse` while a connection, in whatever state, belongs to it.
    async fn delete_oauth_client(&self, client: &OAuthClientId) -> Result<bool>;

    /// Adds a secret under the version that the record names, as `Active` if the client has no active one yet, else as
    /// `Enabled`, whatever the record's state says. `None` when there is no such client.
    ///
    /// # Errors
    /// `AlreadyExists` when the version is taken: another admin was faster; seal anew for the next one.
    async fn add_client_secret(&self, secret: &ClientSecretRecord) -> Result<Option<ClientSecretRecord>>;

    /// All secrets of a client, newest version first.
    async fn list_client_secrets(&self, client: &OAuthClientId) -> Result<Vec<ClientSecretRecord>>;

    /// Makes a version the active one, and the one that was active `Enabled`. Repeating it changes nothing. `None`
    /// when there is no such version.
    ///
    /// # Errors
    /// `Conflict` when the version is retired.
    async fn activate_client_secret(
        &self,
        client: &OAuthClientId,
        secret_version: i32,
        now: Timestamp,
    ) -> Result<Option<ClientSecretRecord>>;

    /// Retires a version; its sealed bytes are replaced by empty ones. Repeating it changes nothing. `None` when there
    /// is no such version.
    ///
    /// # Errors
    /// `InUse` when the version is the active one.
    async fn retire_client_secret(
        &self,
        client: &OAuthClientId,
        secret_version: i32,
        now: Timestamp,
    ) -> Result<Option<ClientSecretRecord>>;
}
