use std::collections::BTreeSet;

use async_trait::async_trait;
use sea_orm::sea_query::{CaseStatement, Expr, Query, SimpleExpr};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, EntityTrait, ExprTrait, QueryFilter, QueryOrder, QuerySelect,
    UpdateMany,
};
use tokenward_storage::{
    Attempt, BeginAttempt, Change, CommitOutcome, Connection, ConnectionState, FENCE_JUMP, RefreshCommit,
    RefreshStore, Result, Spare, StorageErrorKind, TokenSet,
};
use tokenward_types::{ConnectionId, ProviderName, Sealed, TenantId, Timestamp};

use super::SeaStorage;
use super::connection::is;
use super::keks::data_key_is_there;
use crate::convert::{Row, Word};
use crate::dialect::{self, micros};
use crate::entity::connections::{self, Column};
use crate::entity::{attempts, spares};
use crate::error::Inconsistent;
use crate::session::Tx;

/// How many spares a connection keeps.
const MAX_SPARES: u64 = 3;

impl TryFrom<attempts::Model> for Attempt {
    type Error = Inconsistent;

    fn try_from(row: attempts::Model) -> Result<Self, Inconsistent> {
        let place = Row { table: "attempts", key: &[&row.tenant_id, &row.connection_id] };
        Ok(Self {
            tenant: place.parse("tenant_id", &row.tenant_id)?,
            connection: place.parse("connection_id", &row.connection_id)?,
            fence: row.fence,
            consent_epoch: row.consent_epoch,
            refresh_token: Sealed::from(row.refresh_token),
            token_fence: row.token_fence,
            secret_version: row.secret_version,
            owner: row.owner,
            started_at: Timestamp::from_micros(row.started_at),
        })
    }
}

impl TryFrom<spares::Model> for Spare {
    type Error = Inconsistent;

    fn try_from(row: spares::Model) -> Result<Self, Inconsistent> {
        Ok(Self {
            refresh_token: Sealed::from(row.refresh_token),
            token_fence: row.token_fence,
            kept_at: Timestamp::from_micros(row.kept_at),
        })
    }
}

fn attempts_of(tenant: &TenantId, connection: &ConnectionId) -> Condition {
    Condition::all()
        .add(attempts::Column::TenantId.eq(tenant.as_str()))
        .add(attempts::Column::ConnectionId.eq(connection.as_str()))
}

fn spares_of(tenant: &TenantId, connection: &ConnectionId) -> Condition {
    Condition::all()
        .add(spares::Column::TenantId.eq(tenant.as_str()))
        .add(spares::Column::ConnectionId.eq(connection.as_str()))
}

/// No lease holds by the database's clock.
fn is_free(now: SimpleExpr) -> Condition {
    Condition::any().add(Column::LeaseUntil.is_null()).add(Expr::col(Column::LeaseUntil).lte(now))
}

/// Writes a set of tokens.
pub(super) fn set_tokens(
    update: UpdateMany<connections::Entity>,
    tokens: &TokenSet,
) -> UpdateMany<connections::Entity> {
    let refresh_token = tokens.refresh_token.as_ref().map(|token| token.as_bytes().to_vec());
    update
        .col_expr(Column::AccessToken, Expr::value(tokens.access_token.as_bytes().to_vec()))
        .col_expr(Column::RefreshToken, Expr::value(refresh_token))
        .col_expr(Column::TokenIssuedAt, Expr::value(tokens.issued_at.as_micros()))
        .col_expr(Column::TokenExpiresAt, Expr::value(tokens.expires_at.map(Timestamp::as_micros)))
        .col_expr(Column::TokenScopes, Expr::value(tokens.scopes.to_string()))
}

/// Takes the lease away.
pub(super) fn without_lease(update: UpdateMany<connections::Entity>) -> UpdateMany<connections::Entity> {
    update
        .col_expr(Column::LeaseOwner, Expr::value(None::<String>))
        .col_expr(Column::LeaseUntil, Expr::value(None::<i64>))
}

/// Since when a connection is active that becomes so `now`: since before, if it was. Must stand ahead of the new state,
/// because MariaDB assigns from left to right.
pub(super) fn active_since(now: Timestamp) -> SimpleExpr {
    let was_active = Column::State.eq(ConnectionState::Active.word());
    CaseStatement::new().case(was_active, Expr::col(Column::StateSince)).finally(now.as_micros()).into()
}

#[async_trait]
impl RefreshStore for SeaStorage {
    #[tracing::instrument(name = "db.attempt.begin", level = "debug", skip_all)]
    async fn begin_attempt(
        &self,
        tenant: &TenantId,
        connection: &ConnectionId,
        begin: &BeginAttempt,
    ) -> Result<Option<i64>> {
        let _turn = self.db.turn_to_begin("attempt.begin").await?;
        let tx = self.db.begin("attempt.begin").await?;
        let now = dialect::now_micros(tx.conn.get_database_backend());
        let fence = begin.seen_lease_fence + 1;
        let lease = connections::Entity::update_many()
            .col_expr(Column::LeaseFence, Expr::value(fence))
            .col_expr(Column::LeaseOwner, Expr::value(&*begin.owner))
            .col_expr(Column::LeaseUntil, now.clone().add(micros(begin.lease_for)))
            .col_expr(Column::Version, Expr::col(Column::Version).add(1))
            .filter(is(tenant, connection))
            .filter(Column::LeaseFence.eq(begin.seen_lease_fence))
            .filter(Column::GrantFence.eq(begin.seen_grant_fence))
            .filter(Column::ConsentEpoch.eq(begin.seen_consent_epoch))
            .filter(Column::State.ne(ConnectionState::Revoked.word()))
            .filter(Column::RefreshToken.is_not_null())
            .filter(is_free(now));
        if tx.update(lease).await? != 1 {
            return Ok(None);
        }
        insert_attempt(&tx, tenant, connection, begin).await?;
        tx.commit().await?;
        Ok(Some(fence))
    }

    #[tracing::instrument(name = "db.attempt.commit", level = "debug", skip_all)]
    async fn commit_refresh(&self, commit: &RefreshCommit) -> Result<CommitOutcome> {
        loop {
            if let Some(outcome) = self.try_commit(commit).await? {
                return Ok(outcome);
            }
            // Its token may have to be revoked, which takes locks that come ahead of the connection's.
            if let Some(outcome) = self.reject_revoked(commit).await? {
                return Ok(outcome);
            }
        }
    }

    #[tracing::instrument(name = "db.attempt.end", level = "debug", skip_all)]
    async fn end_attempt(
        &self,
        tenant: &TenantId,
        connection: &ConnectionId,
        fence: i64,
        resolved: bool,
    ) -> Result<bool> {
        let tx = self.db.begin("attempt.end").await?;
        // Every transaction locks the connection ahead of its attempts.
        if tx.lock_connection(tenant, connection).await?.is_none() {
            return Ok(false);
        }
        let attempt = attempts_of(tenant, connection).add(attempts::Column::Fence.eq(fence));
        let found = if resolved {
            tx.delete(attempts::Entity::delete_many().filter(attempt)).await? > 0
        } else {
            tx.exists(attempts::Entity::find().filter(attempt)).await?
        };
        if found {
            release_lease(&tx, tenant, connection, fence).await?;
            tx.commit().await?;
        }
        Ok(found)
    }

    #[tracing::instrument(name = "db.attempt.release", level = "debug", skip_all)]
    async fn release_leases(&self, owner: &str) -> Result<u64> {
        let tx = self.db.begin("attempt.release").await?;
        let update = without_lease(connections::Entity::update_many())
            .col_expr(Column::Version, Expr::col(Column::Version).add(1))
            .filter(Column::LeaseOwner.eq(owner));
        let released = tx.update(update).await?;
        tx.commit().await?;
        Ok(released)
    }

    #[tracing::instrument(name = "db.attempt.distrust", level = "debug", skip_all)]
    async fn distrust_grants(&self, provider: &ProviderName, reason: &str, now: Timestamp) -> Result<u64> {
        let tx = self.db.begin("attempt.distrust").await?;
        let suspect = connections::Entity::update_many()
            .col_expr(Column::State, Expr::value(ConnectionState::Suspect.word()))
            .col_expr(Column::StateReason, Expr::value(reason))
            .col_expr(Column::StateSince, Expr::value(now.as_micros()))
            .col_expr(Column::UpdatedAt, Expr::value(now.as_micros()))
            .filter(Column::Provider.eq(provider.as_str()))
            .filter(Column::State.eq(ConnectionState::Active.word()))
            .filter(Column::RefreshToken.is_not_null());
        let suspects = tx.update(suspect).await?;
        let jump = without_lease(connections::Entity::update_many())
            .col_expr(Column::LeaseFence, Expr::col(Column::LeaseFence).add(FENCE_JUMP))
            .col_expr(Column::Version, Expr::col(Column::Version).add(FENCE_JUMP))
            .filter(Column::Provider.eq(provider.as_str()));
        tx.update(jump).await?;
        tx.commit().await?;
        Ok(suspects)
    }

    #[tracing::instrument(name = "db.attempt.list", level = "debug", skip_all)]
    async fn list_attempts(&self, tenant: &TenantId, connection: &ConnectionId) -> Result<Vec<Attempt>> {
        let select = attempts::Entity::find()
            .filter(attempts_of(tenant, connection))
            .order_by_desc(attempts::Column::Fence);
        self.db.read("attempt.list").all(select).await
    }

    #[tracing::instrument(name = "db.attempt.list_unresolved", level = "debug", skip_all)]
    async fn list_unresolved_attempts(&self, limit: u32) -> Result<Vec<Attempt>> {
        use attempts::Column as Of;
        let db = self.db.read("attempt.list_unresolved");
        let now = dialect::now_micros(db.conn.get_database_backend());
        let leased = Query::select()
            .expr(Expr::value(1))
            .from(connections::Entity)
            .and_where(
                Expr::col((connections::Entity, Column::TenantId)).equals((attempts::Entity, Of::TenantId)),
            )
            .and_where(
                Expr::col((connections::Entity, Column::Id)).equals((attempts::Entity, Of::ConnectionId)),
            )
            .and_where(Expr::col((connections::Entity, Column::LeaseUntil)).gt(now))
            .to_owned();
        let select = attempts::Entity::find()
            .filter(Expr::exists(leased).not())
            .order_by_asc(Of::StartedAt)
            .order_by_asc(Of::TenantId)
            .order_by_asc(Of::ConnectionId)
            .order_by_asc(Of::Fence)
            .limit(u64::from(limit));
        db.all(select).await
    }

    #[tracing::instrument(name = "db.spare.list", level = "debug", skip_all)]
    async fn list_spares(&self, tenant: &TenantId, connection: &ConnectionId) -> Result<Vec<Spare>> {
        let select = spares::Entity::find()
            .filter(spares_of(tenant, connection))
            .order_by_desc(spares::Column::TokenFence);
        self.db.read("spare.list").all(select).await
    }

    #[tracing::instrument(name = "db.spare.remove", level = "debug", skip_all)]
    async fn remove_spare(
        &self,
        tenant: &TenantId,
        connection: &ConnectionId,
        token_fence: i64,
    ) -> Result<()> {
        let tx = self.db.begin("spare.remove").await?;
        let spare = spares_of(tenant, connection).add(spares::Column::TokenFence.eq(token_fence));
        tx.delete(spares::Entity::delete_many().filter(spare)).await?;
        tx.commit().await
    }
}

impl SeaStorage {
    /// Stores or rejects an attempt's tokens; `None` where the connection is revoked.
    async fn try_commit(&self, commit: &RefreshCommit) -> Result<Option<CommitOutcome>> {
        let tx = self.db.begin("attempt.commit").await?;
        let Some(stored) = tx.lock_connection(&commit.tenant, &commit.connection).await? else {
            return Ok(Some(CommitOutcome::Gone));
        };
        if stored.state == ConnectionState::Revoked {
            return Ok(None);
        }
        let same_epoch = stored.consent_epoch == commit.consent_epoch;
        if same_epoch && stored.grant_fence == commit.fence {
            return Ok(Some(CommitOutcome::Committed(Box::new(stored))));
        }
        let attempt =
            attempts_of(&commit.tenant, &commit.connection).add(attempts::Column::Fence.eq(commit.fence));
        tx.delete(attempts::Entity::delete_many().filter(attempt)).await?;
        if !same_epoch || stored.grant_fence > commit.fence {
            if same_epoch && commit.rotated {
                let refresh_token = commit.tokens.refresh_token.as_ref();
                tx.hold_data_keys(commit.tenant.as_str(), &[refresh_token]).await?;
                keep(&tx, commit, commit.fence, refresh_token).await?;
            }
            tx.commit().await?;
            return Ok(Some(CommitOutcome::Rejected(Box::new(stored))));
        }
        if stored.grant_fence != commit.spent_token_fence {
            // The stored token was not spent by this attempt: it may be the only one that lives.
            let replaced = stored.tokens.as_ref().and_then(|tokens| tokens.refresh_token.as_ref());
            keep(&tx, commit, stored.grant_fence, replaced).await?;
        }
        store_tokens(&tx, commit, &stored).await?;
        if stored.state != ConnectionState::Active {
            // A refresh as usual is no news: whoever needs its token reads the row.
            tx.log(&Change::Connection(commit.tenant.clone(), commit.connection.clone())).await?;
        }
        tx.commit().await?;
        Ok(Some(CommitOutcome::Committed(Box::new(with_tokens(stored, commit)))))
    }
}

/// Makes the attempt a row, with a copy of the stored refresh token, from the connection that was just leased.
async fn insert_attempt(
    tx: &Tx,
    tenant: &TenantId,
    connection: &ConnectionId,
    begin: &BeginAttempt,
) -> Result<()> {
    use attempts::Column as Of;
    let stored = Query::select()
        .columns([Column::TenantId, Column::Id, Column::LeaseFence])
        .columns([Column::ConsentEpoch, Column::RefreshToken, Column::GrantFence])
        .expr(Expr::value(begin.secret_version))
        .expr(Expr::value(&*begin.owner))
        .expr(Expr::value(begin.now.as_micros()))
        .from(connections::Entity)
        .cond_where(is(tenant, connection))
        .to_owned();
    let mut insert = Query::insert();
    insert.into_table(attempts::Entity).columns([
        Of::TenantId,
        Of::ConnectionId,
        Of::Fence,
        Of::ConsentEpoch,
        Of::RefreshToken,
        Of::TokenFence,
        Of::SecretVersion,
        Of::Owner,
        Of::StartedAt,
    ]);
    if insert.select_from(stored).is_err() || tx.execute(&insert).await? != 1 {
        return Err(tx.error(StorageErrorKind::Internal).detail("the attempt was not recorded"));
    }
    Ok(())
}

/// Puts a refresh token aside, and drops the oldest ones that are too many.
async fn keep(tx: &Tx, commit: &RefreshCommit, token_fence: i64, token: Option<&Sealed>) -> Result<()> {
    use spares::Column as Of;
    let Some(token) = token else { return Ok(()) };
    let spare = spares::Model {
        tenant_id: commit.tenant.to_string(),
        connection_id: commit.connection.to_string(),
        token_fence,
        refresh_token: token.as_bytes().to_vec(),
        kept_at: commit.now.as_micros(),
    };
    tx.insert_if_absent(spare, [Of::TenantId, Of::ConnectionId, Of::TokenFence]).await?;
    let spares = spares_of(&commit.tenant, &commit.connection);
    let oldest_kept = spares::Entity::find()
        .filter(spares.clone())
        .order_by_desc(Of::TokenFence)
        .offset(MAX_SPARES - 1)
        .limit(1);
    let Some(oldest_kept): Option<Spare> = tx.one(oldest_kept).await? else { return Ok(()) };
    let older = spares.add(Of::TokenFence.lt(oldest_kept.token_fence));
    tx.delete(spares::Entity::delete_many().filter(older)).await.map(drop)
}

/// Stores the tokens where fence and epoch still allow it, and their data keys are there. The row is locked, so fence and
/// epoch do, and whoever deletes a data key waits for it: the statement that stores can look for the keys without a lock.
async fn store_tokens(tx: &Tx, commit: &RefreshCommit, stored: &Connection) -> Result<()> {
    let mut update = set_tokens(connections::Entity::update_many(), &commit.tokens)
        .col_expr(Column::GrantFence, Expr::value(commit.fence))
        .col_expr(Column::LeaseFence, Expr::value(Ord::max(stored.lease_fence, commit.fence)))
        .col_expr(Column::StateSince, active_since(commit.now))
        .col_expr(Column::State, Expr::value(ConnectionState::Active.word()))
        .col_expr(Column::StateReason, Expr::value(""))
        .col_expr(Column::UpdatedAt, Expr::value(commit.now.as_micros()))
        .col_expr(Column::Version, Expr::col(Column::Version).add(1))
        .filter(is(&commit.tenant, &commit.connection))
        .filter(Column::GrantFence.lt(commit.fence))
        .filter(Column::ConsentEpoch.eq(commit.consent_epoch));
    let sealed = [Some(&commit.tokens.access_token), commit.tokens.refresh_token.as_ref()];
    for id in sealed.iter().flatten().filter_map(|sealed| sealed.data_key()).collect::<BTreeSet<_>>() {
        update = update.filter(data_key_is_there(commit.tenant.as_str(), id));
    }
    if let Some(name) = &commit.account_name {
        update = update.col_expr(Column::AccountName, Expr::value(&**name));
    }
    if stored.lease_fence == commit.fence {
        update = without_lease(update);
    }
    if tx.update(update).await? != 1 {
        tx.hold_data_keys(commit.tenant.as_str(), &sealed).await?;
        return Err(tx.error(StorageErrorKind::Internal).detail("a locked row changed"));
    }
    Ok(())
}

/// The row as [`store_tokens`] leaves it: it was locked, so that nobody has to read it again.
fn with_tokens(stored: Connection, commit: &RefreshCommit) -> Connection {
    let was_active = stored.state == ConnectionState::Active;
    Connection {
        tokens: Some(commit.tokens.clone()),
        grant_fence: commit.fence,
        lease_fence: Ord::max(stored.lease_fence, commit.fence),
        lease: stored.lease.filter(|_| stored.lease_fence != commit.fence),
        state: ConnectionState::Active,
        state_since: if was_active { stored.state_since } else { commit.now },
        state_reason: String::new(),
        account_name: commit.account_name.clone().unwrap_or(stored.account_name),
        updated_at: commit.now,
        version: stored.version + 1,
        ..stored
    }
}

/// Releases the lease if it is this attempt's.
async fn release_lease(tx: &Tx, tenant: &TenantId, connection: &ConnectionId, fence: i64) -> Result<()> {
    let update = without_lease(connections::Entity::update_many())
        .col_expr(Column::Version, Expr::col(Column::Version).add(1))
        .filter(is(tenant, connection))
        .filter(Column::LeaseFence.eq(fence))
        .filter(Column::LeaseOwner.is_not_null());
    tx.update(update).await.map(drop)
}
