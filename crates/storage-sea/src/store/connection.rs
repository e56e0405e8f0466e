use async_trait::async_trait;
use sea_orm::sea_query::Expr;
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, EntityTrait, ExprTrait, FromQueryResult, QueryFilter,
    QueryOrder, QuerySelect, QueryTrait, Select,
};
use tokenward_storage::{
    AccountRef, Change, Connection, ConnectionFilter, ConnectionKind, ConnectionState, ConnectionStore,
    Consent, Lease, Page, PageRequest, Result, Revocation, StateChange, StorageErrorKind, TokenSet, Version,
};
use tokenward_types::{AccountId, ConnectionId, OAuthClientId, ProviderName, Sealed, TenantId, Timestamp};

use super::SeaStorage;
use crate::convert::{Row, Word};
use crate::dialect::{self, remaining};
use crate::entity::connections::{self, Column};
use crate::error::Inconsistent;
use crate::session::{Session, Tx, cursor, cut, page_size};

/// The most connections of one tenant that are listed at once.
const MAX_OF_TENANT: u64 = 1000;

/// The most connections to one account that are listed at once.
const MAX_OF_ACCOUNT: u64 = 100;

/// A connection's row, and what the database's clock said when it was read.
pub(super) struct ConnectionRow {
    pub(super) model: connections::Model,
    db_now: i64,
}

impl TryFrom<ConnectionRow> for Connection {
    type Error = Inconsistent;

    fn try_from(ConnectionRow { model: row, db_now }: ConnectionRow) -> Result<Self, Inconsistent> {
        let place = Row { table: "connections", key: &[&row.tenant_id, &row.id] };
        let lease = row.lease_owner.map(|owner| {
            let remaining = remaining(row.lease_until.unwrap_or_default(), db_now);
            Lease { owner, remaining }
        });
        let tokens = match row.access_token {
            None => None,
            Some(access_token) => Some(TokenSet {
                access_token: Sealed::from(access_token),
                refresh_token: row.refresh_token.map(Sealed::from),
                issued_at: row
                    .token_issued_at
                    .map(Timestamp::from_micros)
                    .ok_or_else(|| place.wrong("token_issued_at"))?,
                expires_at: row.token_expires_at.map(Timestamp::from_micros),
                scopes: place.scopes("token_scopes", &row.token_scopes.unwrap_or_default())?,
            }),
        };
        Ok(Self {
            tenant: place.parse("tenant_id", &row.tenant_id)?,
            id: place.parse("id", &row.id)?,
            provider: place.parse("provider", &row.provider)?,
            kind: place.word("kind", &row.kind)?,
            oauth_client: place.parse_some("oauth_client_id", row.oauth_client_id.as_ref())?,
            account: place.parse("account_id", &row.account_id)?,
            account_name: row.account_name,
            state: place.word("state", &row.state)?,
            state_reason: row.state_reason,
            state_since: Timestamp::from_micros(row.state_since),
            tokens,
            lease_fence: row.lease_fence,
            grant_fence: row.grant_fence,
            consent_epoch: row.consent_epoch,
            lease,
            created_at: Timestamp::from_micros(row.created_at),
            updated_at: Timestamp::from_micros(row.updated_at),
            version: row.version,
        })
    }
}

impl TryFrom<connections::Model> for AccountRef {
    type Error = Inconsistent;

    fn try_from(row: connections::Model) -> Result<Self, Inconsistent> {
        let place = Row { table: "connections", key: &[&row.tenant_id, &row.id] };
        Ok(Self {
            tenant: place.parse("tenant_id", &row.tenant_id)?,
            connection: place.parse("id", &row.id)?,
            oauth_client: place.parse_some("oauth_client_id", row.oauth_client_id.as_ref())?,
            state: place.word("state", &row.state)?,
        })
    }
}

/// The row of one connection, as a condition.
pub(super) fn is(tenant: &TenantId, connection: &ConnectionId) -> Condition {
    Condition::all().add(Column::TenantId.eq(tenant.as_str())).add(Column::Id.eq(connection.as_str()))
}

/// The connection that a row stands for. One that no version of this program wrote stops itself alone.
fn readable<C: ConnectionTrait>(db: &Session<C>, row: ConnectionRow) -> Option<Connection> {
    match db.convert(row) {
        Ok(connection) => Some(connection),
        Err(error) => {
            tracing::error!(%error, "a connection cannot be read, and is left out: restore its row");
            None
        }
    }
}

/// What the unique index of grants holds for a client or for none.
pub(super) fn client_key(client: Option<&OAuthClientId>) -> &str {
    client.map_or("", OAuthClientId::as_str)
}

/// The name of the lock of those who change who holds an account.
pub(super) fn account_lock(provider: &ProviderName, account: &AccountId) -> String {
    format!("account/{provider}/{account}")
}

impl<C: ConnectionTrait> Session<C> {
    /// The connections that a query finds.
    pub(super) async fn connections(&self, select: Select<connections::Entity>) -> Result<Vec<Connection>> {
        self.connection_rows(select).await?.into_iter().map(|row| self.convert(row)).collect()
    }

    /// Their rows.
    pub(super) async fn connection_rows(
        &self,
        select: Select<connections::Entity>,
    ) -> Result<Vec<ConnectionRow>> {
        let backend = self.conn.get_database_backend();
        let statement = select.expr_as(dialect::now_micros(backend), "db_now").build(backend);
        let rows = self.check(self.conn.query_all_raw(statement).await)?;
        rows.iter()
            .map(|row| {
                let model = self.check(connections::Model::from_query_result(row, ""))?;
                Ok(ConnectionRow { model, db_now: self.check(row.try_get("", "db_now"))? })
            })
            .collect()
    }

    /// The connection that a query finds.
    pub(super) async fn connection(&self, select: Select<connections::Entity>) -> Result<Option<Connection>> {
        Ok(self.connections(select.limit(1)).await?.pop())
    }
}

impl Tx {
    /// One connection, locked until the transaction ends.
    pub(super) async fn lock_connection(
        &self,
        tenant: &TenantId,
        connection: &ConnectionId,
    ) -> Result<Option<Connection>> {
        self.connection(connections::Entity::find().filter(is(tenant, connection)).lock_exclusive()).await
    }
}

#[async_trait]
impl ConnectionStore for SeaStorage {
    #[tracing::instrument(name = "db.connection.save_consent", level = "debug", skip_all)]
    async fn save_consent(&self, consent: &Consent) -> Result<Connection> {
        self.consent(consent).await
    }

    #[tracing::instrument(name = "db.connection.get", level = "debug", skip_all)]
    async fn get_connection(
        &self,
        tenant: &TenantId,
        connection: &ConnectionId,
    ) -> Result<Option<Connection>> {
        let select = connections::Entity::find().filter(is(tenant, connection));
        self.db.read("connection.get").connection(select).await
    }

    #[tracing::instrument(name = "db.connection.find", level = "debug", skip_all)]
    async fn find_connection(
        &self,
        tenant: &TenantId,
        provider: &ProviderName,
        kind: ConnectionKind,
        oauth_client: Option<&OAuthClientId>,
        account: &AccountId,
    ) -> Result<Option<Connection>> {
        let select = connections::Entity::find()
            .filter(Column::TenantId.eq(tenant.as_str()))
            .filter(Column::Provider.eq(provider.as_str()))
            .filter(Column::Kind.eq(kind.word()))
            .filter(Column::OauthClientKey.eq(client_key(oauth_client)))
            .filter(Column::AccountId.eq(account.as_str()));
        self.db.read("connection.find").connection(select).await
    }

    #[tracing::instrument(name = "db.connection.list_of_tenant", level = "debug", skip_all)]
    async fn list_tenant_connections(&self, tenant: &TenantId) -> Result<Vec<Connection>> {
        let select = connections::Entity::find()
            .filter(Column::TenantId.eq(tenant.as_str()))
            .filter(Column::State.ne(ConnectionState::Revoked.word()))
            .order_by_asc(Column::Id)
            .limit(MAX_OF_TENANT);
        let db = self.db.read("connection.list_of_tenant");
        let rows = db.connection_rows(select).await?;
        Ok(rows.into_iter().filter_map(|row| readable(&db, row)).collect())
    }

    #[tracing::instrument(name = "db.connection.list", level = "debug", skip_all)]
    async fn list_connections(
        &self,
        filter: &ConnectionFilter,
        page: &PageRequest,
    ) -> Result<Page<Connection>> {
        let tenant = filter.tenant.as_ref().map(TenantId::as_str);
        let client = filter.oauth_client.as_ref().map(OAuthClientId::as_str);
        let provider = filter.provider.as_ref().map(ProviderName::as_str);
        let size = page_size(page);
        let select = connections::Entity::find()
            .apply_if(tenant, |select, tenant| select.filter(Column::TenantId.eq(tenant)))
            .apply_if(client, |select, client| select.filter(Column::OauthClientId.eq(client)))
            .apply_if(provider, |select, provider| select.filter(Column::Provider.eq(provider)))
            .apply_if(filter.state, |select, state| select.filter(Column::State.eq(state.word())))
            .apply_if(cursor(page), |select, after| {
                // Tenant identifiers have no slash.
                let (tenant, id) = after.split_once('/').unwrap_or((after, ""));
                let row = Expr::tuple([Expr::col(Column::TenantId), Expr::col(Column::Id)]);
                select.filter(row.gt(Expr::tuple([Expr::value(tenant), Expr::value(id)])))
            })
            .order_by_asc(Column::TenantId)
            .order_by_asc(Column::Id)
            .limit(size + 1);
        let db = self.db.read("connection.list");
        let found = db.connection_rows(select).await?;
        let page = cut(found, size, |row| format!("{}/{}", row.model.tenant_id, row.model.id));
        let items = page.items.into_iter().filter_map(|row| readable(&db, row)).collect();
        Ok(Page { items, next: page.next })
    }

    #[tracing::instrument(name = "db.connection.find_account", level = "debug", skip_all)]
    async fn find_account(&self, provider: &ProviderName, account: &AccountId) -> Result<Vec<AccountRef>> {
        let select = connections::Entity::find()
            .filter(Column::Provider.eq(provider.as_str()))
            .filter(Column::AccountId.eq(account.as_str()))
            .order_by_asc(Column::TenantId)
            .order_by_asc(Column::Id)
            .limit(MAX_OF_ACCOUNT);
        self.db.read("connection.find_account").all(select).await
    }

    #[tracing::instrument(name = "db.connection.count", level = "debug", skip_all)]
    async fn count_connections(&self) -> Result<Vec<(ProviderName, ConnectionState, u64)>> {
        let db = self.db.read("connection.count");
        let counts = connections::Entity::find()
            .select_only()
            .columns([Column::Provider, Column::State])
            .column_as(Column::Id.count(), "connections")
            .group_by(Column::Provider)
            .group_by(Column::State)
            .into_tuple::<(String, String, i64)>();
        let counts = db.check(counts.all(&db.conn).await)?;
        let place = Row { table: "connections", key: &["(all)"] };
        // Rows that cannot be read are reported where they are listed.
        let convert = |(provider, state, count): (String, String, i64)| {
            let provider = place.parse("provider", &provider).ok()?;
            Some((provider, place.word("state", &state).ok()?, count.unsigned_abs()))
        };
        Ok(counts.into_iter().filter_map(convert).collect())
    }

    #[tracing::instrument(name = "db.connection.change_state", level = "debug", skip_all)]
    async fn change_state(
        &self,
        tenant: &TenantId,
        connection: &ConnectionId,
        change: &StateChange,
    ) -> Result<Option<Connection>> {
        let tx = self.db.begin("connection.change_state").await?;
        let Some(stored) = tx.lock_connection(tenant, connection).await? else { return Ok(None) };
        let revokes = change.state == ConnectionState::Revoked;
        if stored.version != change.seen || stored.state == ConnectionState::Revoked || revokes {
            return Err(tx.error(StorageErrorKind::Conflict));
        }
        let since = if stored.state == change.state { stored.state_since } else { change.now };
        let update = connections::Entity::update_many()
            .col_expr(Column::State, Expr::value(change.state.word()))
            .col_expr(Column::StateReason, Expr::value(&*change.reason))
            .col_expr(Column::StateSince, Expr::value(since.as_micros()))
            .col_expr(Column::UpdatedAt, Expr::value(change.now.as_micros()))
            .col_expr(Column::Version, Expr::col(Column::Version).add(1))
            .filter(is(tenant, connection))
            .filter(Column::Version.eq(change.seen));
        if tx.update(update).await? != 1 {
            return Err(tx.error(StorageErrorKind::Conflict));
        }
        let changed = tx.connection(connections::Entity::find().filter(is(tenant, connection))).await?;
        if stored.state != change.state {
            tx.log(&Change::Connection(tenant.clone(), connection.clone())).await?;
        }
        tx.commit().await?;
        Ok(changed)
    }

    #[tracing::instrument(name = "db.connection.disconnect", level = "debug", skip_all)]
    async fn disconnect(
        &self,
        tenant: &TenantId,
        connection: &ConnectionId,
        seen: Option<Version>,
        reason: &str,
        now: Timestamp,
    ) -> Result<Option<Connection>> {
        self.revoke(tenant, connection, seen, reason, now).await
    }

    #[tracing::instrument(name = "db.connection.delete", level = "debug", skip_all)]
    async fn delete_connection(&self, tenant: &TenantId, connection: &ConnectionId) -> Result<bool> {
        let tx = self.db.begin("connection.delete").await?;
        let Some(stored) = tx.lock_connection(tenant, connection).await? else { return Ok(false) };
        if stored.state != ConnectionState::Revoked {
            return Err(tx.error(StorageErrorKind::InUse).detail("it is not disconnected"));
        }
        tx.delete(connections::Entity::delete_many().filter(is(tenant, connection))).await?;
        tx.log(&Change::Connection(tenant.clone(), connection.clone())).await?;
        tx.commit().await?;
        Ok(true)
    }

    #[tracing::instrument(name = "db.revocation.list", level = "debug", skip_all)]
    async fn list_revocations(&self, now: Timestamp, limit: u32) -> Result<Vec<Revocation>> {
        self.due_revocations(now, limit).await
    }

    #[tracing::instrument(name = "db.revocation.postpone", level = "debug", skip_all)]
    async fn postpone_revocation(
        &self,
        tenant: &TenantId,
        connection: &ConnectionId,
        grant_fence: i64,
        due_at: Timestamp,
    ) -> Result<()> {
        self.put_off_revocation(tenant, connection, grant_fence, due_at).await
    }

    #[tracing::instrument(name = "db.revocation.finish", level = "debug", skip_all)]
    async fn finish_revocation(
        &self,
        tenant: &TenantId,
        connection: &ConnectionId,
        grant_fence: i64,
    ) -> Result<()> {
        self.remove_revocation(tenant, connection, grant_fence).await
    }
}
