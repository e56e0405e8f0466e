use async_trait::async_trait;
use sea_orm::sea_query::Expr;
use sea_orm::{
    ColumnTrait, Condition, EntityTrait, ExprTrait, QueryFilter, QueryOrder, QuerySelect, QueryTrait, Select,
};
use tokenward_storage::{
    Change, ClientSecretRecord, ClientSecretState, OAuthClient, OAuthClientStore, Page, PageRequest, Result,
    StorageErrorKind,
};
use tokenward_types::{OAuthClientId, Sealed, Timestamp};

use super::SeaStorage;
use crate::convert::{Row, Word};
use crate::entity::{client_secrets, connections, oauth_clients};
use crate::error::Inconsistent;
use crate::session::{Tx, cursor};

impl TryFrom<oauth_clients::Model> for OAuthClient {
    type Error = Inconsistent;

    fn try_from(row: oauth_clients::Model) -> Result<Self, Inconsistent> {
        let place = Row { table: "oauth_clients", key: &[&row.id] };
        Ok(Self {
            id: place.parse("id", &row.id)?,
            provider: place.parse("provider", &row.provider)?,
            scopes: place.scopes("scopes", &row.scopes)?,
            optional_scopes: place.scopes("optional_scopes", &row.optional_scopes)?,
            client_id: row.client_id,
            display_name: row.display_name,
            help_url: row.help_url,
            created_at: Timestamp::from_micros(row.created_at),
            updated_at: Timestamp::from_micros(row.updated_at),
            version: row.version,
        })
    }
}

impl TryFrom<client_secrets::Model> for ClientSecretRecord {
    type Error = Inconsistent;

    fn try_from(row: client_secrets::Model) -> Result<Self, Inconsistent> {
        let place = Row { table: "client_secrets", key: &[&row.oauth_client_id] };
        Ok(Self {
            oauth_client: place.parse("oauth_client_id", &row.oauth_client_id)?,
            state: place.word("state", &row.state)?,
            secret_version: row.secret_version,
            sealed: Sealed::from(row.sealed),
            created_at: Timestamp::from_micros(row.created_at),
            updated_at: Timestamp::from_micros(row.updated_at),
        })
    }
}

fn secret(client: &OAuthClientId, secret_version: i32) -> Select<client_secrets::Entity> {
    client_secrets::Entity::find_by_id((client.to_string(), secret_version))
}

/// The client, locked until the transaction ends: its secrets and its connections do not change meanwhile.
async fn locked(tx: &Tx, client: &OAuthClientId) -> Result<Option<OAuthClient>> {
    tx.one(oauth_clients::Entity::find_by_id(client.as_str()).lock_exclusive()).await
}

async fn has_connections(tx: &Tx, client: &OAuthClientId) -> Result<bool> {
    let of_client = connections::Column::OauthClientId.eq(client.as_str());
    tx.exists(connections::Entity::find().filter(of_client)).await
}

/// Puts a secret, or the one that has a state, into another state.
async fn set_state(tx: &Tx, which: Condition, state: ClientSecretState, now: Timestamp) -> Result<()> {
    use client_secrets::Column;
    let update = client_secrets::Entity::update_many()
        .col_expr(Column::State, Expr::value(state.word()))
        .col_expr(Column::UpdatedAt, Expr::value(now.as_micros()))
        .filter(which);
    tx.update(update).await.map(drop)
}

#[async_trait]
impl OAuthClientStore for SeaStorage {
    #[tracing::instrument(name = "db.oauth_client.create", level = "debug", skip_all)]
    async fn create_oauth_client(&self, client: &OAuthClient) -> Result<OAuthClient> {
        let tx = self.db.begin("oauth_client.create").await?;
        tx.insert(oauth_clients::Model {
            id: client.id.to_string(),
            provider: client.provider.to_string(),
            client_id: client.client_id.clone(),
            display_name: client.display_name.clone(),
            scopes: client.scopes.to_string(),
            optional_scopes: client.optional_scopes.to_string(),
            help_url: client.help_url.clone(),
            created_at: client.created_at.as_micros(),
            updated_at: client.updated_at.as_micros(),
            version: 1,
        })
        .await?;
        tx.log(&Change::OAuthClient(client.id.clone())).await?;
        tx.commit().await?;
        Ok(OAuthClient { version: 1, ..client.clone() })
    }

    #[tracing::instrument(name = "db.oauth_client.get", level = "debug", skip_all)]
    async fn get_oauth_client(&self, client: &OAuthClientId) -> Result<Option<OAuthClient>> {
        self.db.read("oauth_client.get").one(oauth_clients::Entity::find_by_id(client.as_str())).await
    }

    #[tracing::instrument(name = "db.oauth_client.list", level = "debug", skip_all)]
    async fn list_oauth_clients(&self, page: &PageRequest) -> Result<Page<OAuthClient>> {
        use oauth_clients::Column;
        let select = oauth_clients::Entity::find()
            .apply_if(cursor(page), |select, after| select.filter(Column::Id.gt(after)));
        let db = self.db.read("oauth_client.list");
        db.page(select, Column::Id, page, |client: &OAuthClient| client.id.as_str()).await
    }

    #[tracing::instrument(name = "db.oauth_client.update", level = "debug", skip_all)]
    async fn update_oauth_client(&self, client: &OAuthClient) -> Result<Option<OAuthClient>> {
        use oauth_clients::Column;
        let tx = self.db.begin("oauth_client.update").await?;
        // A connection that is being inserted refers to the client and waits for this lock.
        let Some(stored) = locked(&tx, &client.id).await? else { return Ok(None) };
        if stored.client_id != client.client_id && has_connections(&tx, &client.id).await? {
            return Err(tx.error(StorageErrorKind::InUse).detail("connections belong to its client_id"));
        }
        let update = oauth_clients::Entity::update_many()
            .col_expr(Column::ClientId, Expr::value(&*client.client_id))
            .col_expr(Column::DisplayName, Expr::value(&*client.display_name))
            .col_expr(Column::Scopes, Expr::value(client.scopes.to_string()))
            .col_expr(Column::OptionalScopes, Expr::value(client.optional_scopes.to_string()))
            .col_expr(Column::HelpUrl, Expr::value(client.help_url.clone()))
            .col_expr(Column::UpdatedAt, Expr::value(client.updated_at.as_micros()))
            .col_expr(Column::Version, Expr::col(Column::Version).add(1))
            .filter(Column::Id.eq(client.id.as_str()))
            .filter(Column::Version.eq(client.version));
        let matched = tx.update(update).await?;
        let updated = tx.updated(matched, oauth_clients::Entity::find_by_id(client.id.as_str())).await?;
        tx.log(&Change::OAuthClient(client.id.clone())).await?;
        tx.commit().await?;
        Ok(updated)
    }

    #[tracing::instrument(name = "db.oauth_client.delete", level = "debug", skip_all)]
    async fn delete_oauth_client(&self, client: &OAuthClientId) -> Result<bool> {
        let tx = self.db.begin("oauth_client.delete").await?;
        if locked(&tx, client).await?.is_none() {
            return Ok(false);
        }
        if has_connections(&tx, client).await? {
            return Err(tx.error(StorageErrorKind::InUse).detail("connections belong to it"));
        }
        let of_client = oauth_clients::Column::Id.eq(client.as_str());
        tx.delete(oauth_clients::Entity::delete_many().filter(of_client)).await?;
        tx.log(&Change::OAuthClient(client.clone())).await?;
        tx.commit().await?;
        Ok(true)
    }

    #[tracing::instrument(name = "db.client_secret.add", level = "debug", skip_all)]
    async fn add_client_secret(&self, secret: &ClientSecretRecord) -> Result<Option<ClientSecretRecord>> {
        use client_secrets::Column;
        let tx = self.db.begin("client_secret.add").await?;
        if locked(&tx, &secret.oauth_client).await?.is_none() {
            return Ok(None);
        }
        let active = client_secrets::Entity::find()
            .filter(Column::OauthClientId.eq(secret.oauth_client.as_str()))
            .filter(Column::State.eq(ClientSecretState::Active.word()));
        let state =
            if tx.exists(active).await? { ClientSecretState::Enabled } else { ClientSecretState::Active };
        tx.hold_data_keys("_installation", &[Some(&secret.sealed)]).await?;
        tx.insert(client_secrets::Model {
            oauth_client_id: secret.oauth_client.to_string(),
            secret_version: secret.secret_version,
            state: state.word().to_owned(),
            sealed: secret.sealed.as_bytes().to_vec(),
            created_at: secret.created_at.as_micros(),
            updated_at: secret.updated_at.as_micros(),
        })
        .await?;
        tx.log(&Change::OAuthClient(secret.oauth_client.clone())).await?;
        tx.commit().await?;
        Ok(Some(ClientSecretRecord { state, ..secret.clone() }))
    }

    #[tracing::instrument(name = "db.client_secret.list", level = "debug", skip_all)]
    async fn list_client_secrets(&self, client: &OAuthClientId) -> Result<Vec<ClientSecretRecord>> {
        use client_secrets::Column;
        let secrets = client_secrets::Entity::find()
            .filter(Column::OauthClientId.eq(client.as_str()))
            .order_by_desc(Column::SecretVersion);
        self.db.read("client_secret.list").all(secrets).await
    }

    #[tracing::instrument(name = "db.client_secret.activate", level = "debug", skip_all)]
    async fn activate_client_secret(
        &self,
        client: &OAuthClientId,
        secret_version: i32,
        now: Timestamp,
    ) -> Result<Option<ClientSecretRecord>> {
        use client_secrets::Column;
        let tx = self.db.begin("client_secret.activate").await?;
        locked(&tx, client).await?;
        let stored: Option<ClientSecretRecord> = tx.one(secret(client, secret_version)).await?;
        match stored.as_ref().map(|secret| secret.state) {
            None | Some(ClientSecretState::Active) => return Ok(stored),
            Some(ClientSecretState::Retired) => return Err(tx.error(StorageErrorKind::Conflict)),
            Some(ClientSecretState::Enabled) => {}
        }
        let of_client = Condition::all().add(Column::OauthClientId.eq(client.as_str()));
        let active = of_client.clone().add(Column::State.eq(ClientSecretState::Active.word()));
        set_state(&tx, active, ClientSecretState::Enabled, now).await?;
        let this = of_client.add(Column::SecretVersion.eq(secret_version));
        set_state(&tx, this, ClientSecretState::Active, now).await?;
        let activated = tx.one(secret(client, secret_version)).await?;
        tx.log(&Change::OAuthClient(client.clone())).await?;
        tx.commit().await?;
        Ok(activated)
    }

    #[tracing::instrument(name = "db.client_secret.retire", level = "debug", skip_all)]
    async fn retire_client_secret(
        &self,
        client: &OAuthClientId,
        secret_version: i32,
        now: Timestamp,
    ) -> Result<Option<ClientSecretRecord>> {
        use client_secrets::Column;
        let tx = self.db.begin("client_secret.retire").await?;
        locked(&tx, client).await?;
        let stored: Option<ClientSecretRecord> = tx.one(secret(client, secret_version)).await?;
        match stored.as_ref().map(|secret| secret.state) {
            None | Some(ClientSecretState::Retired) => return Ok(stored),
            Some(ClientSecretState::Active) => return Err(tx.error(StorageErrorKind::InUse)),
            Some(ClientSecretState::Enabled) => {}
        }
        let update = client_secrets::Entity::update_many()
            .col_expr(Column::State, Expr::value(ClientSecretState::Retired.word()))
            .col_expr(Column::Sealed, Expr::value(Vec::<u8>::new()))
            .col_expr(Column::UpdatedAt, Expr::value(now.as_micros()))
            .filter(Column::OauthClientId.eq(client.as_str()))
            .filter(Column::SecretVersion.eq(secret_version));
        tx.update(update).await?;
        let retired = tx.one(secret(client, secret_version)).await?;
        tx.log(&Change::OAuthClient(client.clone())).await?;
        tx.commit().await?;
        Ok(retired)
    }
}
