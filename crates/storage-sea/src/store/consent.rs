//! Writing a fresh grant.

use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, EntityTrait, ExprTrait, QueryFilter};
use tokenward_storage::{
    Change, Connection, ConnectionState, Consent, ConsentBase, Result, StorageErrorKind,
};
use tokenward_types::{ConnectionId, TenantId, Timestamp};

use super::SeaStorage;
use super::connection::{account_lock, client_key, is};
use super::refresh::{active_since, set_tokens, without_lease};
use crate::convert::Word;
use crate::entity::connections::{self, Column};
use crate::entity::{attempts, connect_links, pending_grants, revocations, spares};
use crate::session::Tx;

impl SeaStorage {
    pub(super) async fn consent(&self, consent: &Consent) -> Result<Connection> {
        let tx = self.db.begin("connection.save_consent").await?;
        if !tx.hold_tenant(&consent.tenant).await? {
            return Err(tx.error(StorageErrorKind::Conflict));
        }
        tx.lock(&account_lock(&consent.provider, &consent.account)).await?;
        use_up_link(&tx, consent).await?;
        if consent.exclusive_account && is_taken(&tx, consent).await? {
            return Err(tx.error(StorageErrorKind::AccountTaken));
        }
        match consent.base {
            ConsentBase::New => tx.insert(new_row(consent)).await?,
            ConsentBase::Existing { consent_epoch, lease_fence } => {
                replace(&tx, consent, consent_epoch, lease_fence).await?;
            }
        }
        // Data keys come after connections in the order of locks.
        let sealed = [Some(&consent.tokens.access_token), consent.tokens.refresh_token.as_ref()];
        tx.hold_data_keys(consent.tenant.as_str(), &sealed).await?;
        settle(&tx, consent).await?;
        let mine = connections::Entity::find().filter(is(&consent.tenant, &consent.connection));
        let saved = tx.connection(mine).await?.ok_or_else(|| tx.error(StorageErrorKind::Conflict))?;
        tx.log(&Change::Connection(consent.tenant.clone(), consent.connection.clone())).await?;
        tx.commit().await?;
        Ok(saved)
    }
}

/// Whether another tenant holds the account. The lock on the account keeps the answer true until the commit.
async fn is_taken(tx: &Tx, consent: &Consent) -> Result<bool> {
    let others = connections::Entity::find()
        .filter(Column::Provider.eq(consent.provider.as_str()))
        .filter(Column::AccountId.eq(consent.account.as_str()))
        .filter(Column::TenantId.ne(consent.tenant.as_str()))
        .filter(Column::State.ne(ConnectionState::Revoked.word()));
    tx.exists(others).await
}

fn new_row(consent: &Consent) -> connections::Model {
    let now = consent.now.as_micros();
    let tokens = &consent.tokens;
    connections::Model {
        tenant_id: consent.tenant.to_string(),
        id: consent.connection.to_string(),
        provider: consent.provider.to_string(),
        kind: consent.kind.word().to_owned(),
        oauth_client_id: consent.oauth_client.as_ref().map(ToString::to_string),
        oauth_client_key: client_key(consent.oauth_client.as_ref()).to_owned(),
        account_id: consent.account.to_string(),
        account_name: consent.account_name.clone(),
        state: ConnectionState::Active.word().to_owned(),
        state_reason: String::new(),
        state_since: now,
        access_token: Some(tokens.access_token.as_bytes().to_vec()),
        refresh_token: tokens.refresh_token.as_ref().map(|token| token.as_bytes().to_vec()),
        token_issued_at: Some(tokens.issued_at.as_micros()),
        token_expires_at: tokens.expires_at.map(Timestamp::as_micros),
        token_scopes: Some(tokens.scopes.to_string()),
        lease_fence: 1,
        grant_fence: 1,
        consent_epoch: 1,
        lease_owner: None,
        lease_until: None,
        created_at: now,
        updated_at: now,
        version: 1,
        next_check_at: None,
    }
}

/// Replaces the grant that was read with this epoch and this lease fence.
async fn replace(tx: &Tx, consent: &Consent, epoch: i64, lease_fence: i64) -> Result<()> {
    let fence = lease_fence + 1;
    let update = without_lease(set_tokens(connections::Entity::update_many(), &consent.tokens))
        .col_expr(Column::AccountName, Expr::value(&*consent.account_name))
        .col_expr(Column::StateSince, active_since(consent.now))
        .col_expr(Column::State, Expr::value(ConnectionState::Active.word()))
        .col_expr(Column::StateReason, Expr::value(""))
        .col_expr(Column::LeaseFence, Expr::value(fence))
        .col_expr(Column::GrantFence, Expr::value(fence))
        .col_expr(Column::ConsentEpoch, Expr::value(epoch + 1))
        .col_expr(Column::UpdatedAt, Expr::value(consent.now.as_micros()))
        .col_expr(Column::Version, Expr::col(Column::Version).add(1))
        .filter(is(&consent.tenant, &consent.connection))
        .filter(Column::Provider.eq(consent.provider.as_str()))
        .filter(Column::Kind.eq(consent.kind.word()))
        .filter(Column::OauthClientKey.eq(client_key(consent.oauth_client.as_ref())))
        .filter(Column::AccountId.eq(consent.account.as_str()))
        .filter(Column::ConsentEpoch.eq(epoch))
        .filter(Column::LeaseFence.eq(lease_fence));
    if tx.update(update).await? != 1 {
        return Err(tx.error(StorageErrorKind::Conflict));
    }
    drop_former_tokens(tx, &consent.tenant, &consent.connection).await
}

/// A grant that was replaced or revoked takes its attempts and spares along.
pub(super) async fn drop_former_tokens(tx: &Tx, tenant: &TenantId, connection: &ConnectionId) -> Result<()> {
    let attempts = attempts::Entity::delete_many()
        .filter(attempts::Column::TenantId.eq(tenant.as_str()))
        .filter(attempts::Column::ConnectionId.eq(connection.as_str()));
    tx.delete(attempts).await?;
    let spares = spares::Entity::delete_many()
        .filter(spares::Column::TenantId.eq(tenant.as_str()))
        .filter(spares::Column::ConnectionId.eq(connection.as_str()));
    tx.delete(spares).await.map(drop)
}

/// Marks the link as used. Of two consents by one link the second waits for the first, and finds it used.
async fn use_up_link(tx: &Tx, consent: &Consent) -> Result<()> {
    use connect_links::Column as Of;
    let Some(link) = &consent.link else { return Ok(()) };
    let update = connect_links::Entity::update_many()
        .col_expr(Of::UsedAt, Expr::value(consent.now.as_micros()))
        .filter(Of::TenantId.eq(consent.tenant.as_str()))
        .filter(Of::Id.eq(link.as_str()))
        .filter(Of::UsedAt.is_null());
    match tx.update(update).await? {
        1 => Ok(()),
        _ => Err(tx.error(StorageErrorKind::LinkUsed)),
    }
}

/// Removes the pending grant, and what would revoke the grant that lives again.
async fn settle(tx: &Tx, consent: &Consent) -> Result<()> {
    if let Some(pending) = &consent.pending {
        let delete = pending_grants::Entity::delete_many()
            .filter(pending_grants::Column::TenantId.eq(consent.tenant.as_str()))
            .filter(pending_grants::Column::Id.eq(&**pending));
        tx.delete(delete).await?;
    }
    if let Some(client) = &consent.oauth_client {
        let delete = revocations::Entity::delete_many()
            .filter(revocations::Column::OauthClientId.eq(client.as_str()))
            .filter(revocations::Column::AccountId.eq(consent.account.as_str()));
        tx.delete(delete).await?;
    }
    Ok(())
}
