//! Disconnecting, and the queue of refresh tokens that the provider has yet to revoke.

use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, Condition, EntityTrait, ExprTrait, QueryFilter, QueryOrder, QuerySelect};
use tokenward_storage::{
    Change, CommitOutcome, Connection, ConnectionState, RefreshCommit, Result, Revocation, StorageErrorKind,
    Version,
};
use tokenward_types::{ConnectionId, Sealed, TenantId, Timestamp};

use super::SeaStorage;
use super::connection::{account_lock, is};
use super::consent::drop_former_tokens;
use super::refresh::without_lease;
use crate::convert::{Row, Word};
use crate::entity::{connections, revocations};
use crate::error::Inconsistent;
use crate::session::Tx;

impl TryFrom<revocations::Model> for Revocation {
    type Error = Inconsistent;

    fn try_from(row: revocations::Model) -> Result<Self, Inconsistent> {
        let place = Row { table: "revocations", key: &[&row.tenant_id, &row.connection_id] };
        Ok(Self {
            tenant: place.parse("tenant_id", &row.tenant_id)?,
            connection: place.parse("connection_id", &row.connection_id)?,
            oauth_client: place.parse("oauth_client_id", &row.oauth_client_id)?,
            account: place.parse("account_id", &row.account_id)?,
            refresh_token: Sealed::from(row.refresh_token),
            grant_fence: row.grant_fence,
            tries: row.tries,
            due_at: Timestamp::from_micros(row.due_at),
        })
    }
}

fn is_revocation(tenant: &TenantId, connection: &ConnectionId, grant_fence: i64) -> Condition {
    use revocations::Column;
    Condition::all()
        .add(Column::TenantId.eq(tenant.as_str()))
        .add(Column::ConnectionId.eq(connection.as_str()))
        .add(Column::GrantFence.eq(grant_fence))
}

impl SeaStorage {
    pub(super) async fn revoke(
        &self,
        tenant: &TenantId,
        connection: &ConnectionId,
        seen: Option<Version>,
        reason: &str,
        now: Timestamp,
    ) -> Result<Option<Connection>> {
        use connections::Column;
        let tx = self.db.begin("connection.disconnect").await?;
        let Some(stored) = lock_with_account(&tx, tenant, connection).await? else { return Ok(None) };
        if seen.is_some_and(|seen| seen != stored.version) {
            return Err(tx.error(StorageErrorKind::Conflict));
        }
        if stored.state == ConnectionState::Revoked {
            return Ok(Some(stored));
        }
        if stored.lease.as_ref().is_some_and(|lease| !lease.remaining.is_zero()) {
            return Err(tx.error(StorageErrorKind::Conflict).detail("an attempt is in flight"));
        }
        let refresh_token = stored.tokens.as_ref().and_then(|tokens| tokens.refresh_token.as_ref());
        queue(&tx, &stored, refresh_token, stored.grant_fence, now).await?;
        drop_former_tokens(&tx, tenant, connection).await?;
        let update = without_lease(connections::Entity::update_many())
            .col_expr(Column::State, Expr::value(ConnectionState::Revoked.word()))
            .col_expr(Column::StateReason, Expr::value(reason))
            .col_expr(Column::StateSince, Expr::value(now.as_micros()))
            .col_expr(Column::AccessToken, Expr::value(None::<Vec<u8>>))
            .col_expr(Column::RefreshToken, Expr::value(None::<Vec<u8>>))
            .col_expr(Column::TokenIssuedAt, Expr::value(None::<i64>))
            .col_expr(Column::TokenExpiresAt, Expr::value(None::<i64>))
            .col_expr(Column::TokenScopes, Expr::value(None::<String>))
            .col_expr(Column::ConsentEpoch, Expr::col(Column::ConsentEpoch).add(1))
            .col_expr(Column::UpdatedAt, Expr::value(now.as_micros()))
            .col_expr(Column::Version, Expr::col(Column::Version).add(1))
            .filter(is(tenant, connection))
            .filter(Column::Version.eq(stored.version));
        if tx.update(update).await? != 1 {
            return Err(tx.error(StorageErrorKind::Conflict));
        }
        let revoked = tx.connection(connections::Entity::find().filter(is(tenant, connection))).await?;
        tx.log(&Change::Connection(tenant.clone(), connection.clone())).await?;
        tx.commit().await?;
        Ok(revoked)
    }

    /// Ends an attempt whose connection was found revoked. `None` when it is not any more.
    pub(super) async fn reject_revoked(&self, commit: &RefreshCommit) -> Result<Option<CommitOutcome>> {
        let tx = self.db.begin("attempt.commit").await?;
        let stored = lock_with_account(&tx, &commit.tenant, &commit.connection).await?;
        let Some(stored) = stored else { return Ok(Some(CommitOutcome::Gone)) };
        if stored.state != ConnectionState::Revoked {
            return Ok(None);
        }
        if commit.rotated {
            let refresh_token = commit.tokens.refresh_token.as_ref();
            tx.hold_data_keys(commit.tenant.as_str(), &[refresh_token]).await?;
            queue(&tx, &stored, refresh_token, commit.fence, commit.now).await?;
        }
        tx.commit().await?;
        Ok(Some(CommitOutcome::Rejected(Box::new(stored))))
    }

    pub(super) async fn due_revocations(&self, now: Timestamp, limit: u32) -> Result<Vec<Revocation>> {
        use revocations::Column;
        let select = revocations::Entity::find()
            .filter(Column::DueAt.lte(now.as_micros()))
            .order_by_asc(Column::DueAt)
            .order_by_asc(Column::TenantId)
            .order_by_asc(Column::ConnectionId)
            .limit(u64::from(limit));
        self.db.read("revocation.list").all(select).await
    }

    pub(super) async fn put_off_revocation(
        &self,
        tenant: &TenantId,
        connection: &ConnectionId,
        grant_fence: i64,
        due_at: Timestamp,
    ) -> Result<()> {
        use revocations::Column;
        let tx = self.db.begin("revocation.postpone").await?;
        let update = revocations::Entity::update_many()
            .col_expr(Column::Tries, Expr::col(Column::Tries).add(1))
            .col_expr(Column::DueAt, Expr::value(due_at.as_micros()))
            .filter(is_revocation(tenant, connection, grant_fence));
        tx.update(update).await?;
        tx.commit().await
    }

    pub(super) async fn remove_revocation(
        &self,
        tenant: &TenantId,
        connection: &ConnectionId,
        grant_fence: i64,
    ) -> Result<()> {
        let tx = self.db.begin("revocation.finish").await?;
        let this = is_revocation(tenant, connection, grant_fence);
        tx.delete(revocations::Entity::delete_many().filter(this)).await?;
        tx.commit().await
    }
}

/// One connection, locked after its tenant and its account until the transaction ends: of two connections that share a grant
/// and are disconnected at once, the second must see that it is the last.
async fn lock_with_account(
    tx: &Tx,
    tenant: &TenantId,
    connection: &ConnectionId,
) -> Result<Option<Connection>> {
    let select = connections::Entity::find().filter(is(tenant, connection));
    tx.hold_tenant(tenant).await?;
    let Some(found) = tx.connection(select).await? else { return Ok(None) };
    tx.lock(&account_lock(&found.provider, &found.account)).await?;
    tx.lock_connection(tenant, connection).await
}

/// Queues a refresh token of a connection, unless another connection lives by the same grant.
async fn queue(
    tx: &Tx,
    connection: &Connection,
    refresh_token: Option<&Sealed>,
    fence: i64,
    now: Timestamp,
) -> Result<()> {
    use connections::Column;
    use revocations::Column as Of;
    let (Some(client), Some(refresh_token)) = (&connection.oauth_client, refresh_token) else {
        return Ok(());
    };
    let this = is(&connection.tenant, &connection.id);
    let sharing = connections::Entity::find()
        .filter(Column::OauthClientId.eq(client.as_str()))
        .filter(Column::AccountId.eq(connection.account.as_str()))
        .filter(Column::State.ne(ConnectionState::Revoked.word()))
        .filter(this.not());
    if tx.exists(sharing).await? {
        return Ok(());
    }
    let revocation = revocations::Model {
        tenant_id: connection.tenant.to_string(),
        connection_id: connection.id.to_string(),
        grant_fence: fence,
        oauth_client_id: client.to_string(),
        account_id: connection.account.to_string(),
        refresh_token: refresh_token.as_bytes().to_vec(),
        tries: 0,
        due_at: now.as_micros(),
    };
    tx.insert_if_absent(revocation, [Of::TenantId, Of::ConnectionId, Of::GrantFence]).await
}
