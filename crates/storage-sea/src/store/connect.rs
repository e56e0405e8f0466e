use async_trait::async_trait;
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, EntityTrait, PaginatorTrait, QueryFilter, QueryOrder, QuerySelect, QueryTrait};
use tokenward_storage::{
    ConnectAttempt, ConnectLink, ConnectStore, ConsumeOutcome, MAX_OPEN_ATTEMPTS, Page, PageRequest,
    PendingGrant, Result, StorageErrorKind,
};
use tokenward_types::{ConnectLinkId, Sealed, TenantId, Timestamp};

use super::SeaStorage;
use crate::convert::Row;
use crate::entity::{connect_attempts, connect_links, pending_grants};
use crate::error::Inconsistent;
use crate::session::cursor;

impl TryFrom<connect_links::Model> for ConnectLink {
    type Error = Inconsistent;

    fn try_from(row: connect_links::Model) -> Result<Self, Inconsistent> {
        let place = Row { table: "connect_links", key: &[&row.tenant_id, &row.id] };
        Ok(Self {
            tenant: place.parse("tenant_id", &row.tenant_id)?,
            id: place.parse("id", &row.id)?,
            secret_hash: place.hash("secret_hash", &row.secret_hash)?,
            oauth_client: place.parse("oauth_client_id", &row.oauth_client_id)?,
            account: place.parse_some("account_id", row.account_id.as_ref())?,
            return_url: row.return_url,
            created_by: row.created_by,
            created_at: Timestamp::from_micros(row.created_at),
            expires_at: Timestamp::from_micros(row.expires_at),
            used_at: row.used_at.map(Timestamp::from_micros),
        })
    }
}

impl TryFrom<connect_attempts::Model> for ConnectAttempt {
    type Error = Inconsistent;

    fn try_from(row: connect_attempts::Model) -> Result<Self, Inconsistent> {
        let place = Row { table: "connect_attempts", key: &[&row.tenant_id, &row.link_id] };
        Ok(Self {
            state_hash: place.hash("state_hash", &row.state_hash)?,
            cookie_hash: place.hash("cookie_hash", &row.cookie_hash)?,
            tenant: place.parse("tenant_id", &row.tenant_id)?,
            link: place.parse("link_id", &row.link_id)?,
            oauth_client: place.parse("oauth_client_id", &row.oauth_client_id)?,
            pkce_verifier: row.pkce_verifier.map(Sealed::from),
            created_at: Timestamp::from_micros(row.created_at),
            expires_at: Timestamp::from_micros(row.expires_at),
        })
    }
}

impl TryFrom<pending_grants::Model> for PendingGrant {
    type Error = Inconsistent;

    fn try_from(row: pending_grants::Model) -> Result<Self, Inconsistent> {
        let place = Row { table: "pending_grants", key: &[&row.tenant_id, &row.id] };
        Ok(Self {
            tenant: place.parse("tenant_id", &row.tenant_id)?,
            link: place.parse_some("link_id", row.link_id.as_ref())?,
            oauth_client: place.parse("oauth_client_id", &row.oauth_client_id)?,
            id: row.id,
            access_token: Sealed::from(row.access_token),
            refresh_token: row.refresh_token.map(Sealed::from),
            details: row.details,
            issued_at: Timestamp::from_micros(row.issued_at),
            refused: row.refused,
        })
    }
}

/// Why a state is not accepted, by the row that has it: the first condition that fails.
fn refusal(
    stored: Option<&connect_attempts::Model>,
    cookie_hash: &[u8; 32],
    now: Timestamp,
) -> Option<ConsumeOutcome> {
    let Some(stored) = stored else { return Some(ConsumeOutcome::Unknown) };
    if stored.cookie_hash != cookie_hash {
        Some(ConsumeOutcome::OtherBrowser)
    } else if stored.used_at.is_some() {
        Some(ConsumeOutcome::AlreadyUsed)
    } else if stored.expires_at <= now.as_micros() {
        Some(ConsumeOutcome::Expired)
    } else {
        None
    }
}

#[async_trait]
impl ConnectStore for SeaStorage {
    #[tracing::instrument(name = "db.connect_link.create", level = "debug", skip_all)]
    async fn create_connect_link(&self, link: &ConnectLink) -> Result<()> {
        let tx = self.db.begin("connect_link.create").await?;
        tx.insert(connect_links::Model {
            tenant_id: link.tenant.to_string(),
            id: link.id.to_string(),
            secret_hash: link.secret_hash.to_vec(),
            oauth_client_id: link.oauth_client.to_string(),
            account_id: link.account.as_ref().map(ToString::to_string),
            return_url: link.return_url.clone(),
            created_by: link.created_by.clone(),
            created_at: link.created_at.as_micros(),
            expires_at: link.expires_at.as_micros(),
            used_at: link.used_at.map(Timestamp::as_micros),
        })
        .await?;
        tx.commit().await
    }

    #[tracing::instrument(name = "db.connect_link.find", level = "debug", skip_all)]
    async fn find_connect_link(&self, secret_hash: &[u8; 32]) -> Result<Option<ConnectLink>> {
        let by_secret = connect_links::Column::SecretHash.eq(secret_hash.to_vec());
        self.db.read("connect_link.find").one(connect_links::Entity::find().filter(by_secret)).await
    }

    #[tracing::instrument(name = "db.connect_link.get", level = "debug", skip_all)]
    async fn get_connect_link(&self, tenant: &TenantId, link: &ConnectLinkId) -> Result<Option<ConnectLink>> {
        let key = (tenant.to_string(), link.to_string());
        self.db.read("connect_link.get").one(connect_links::Entity::find_by_id(key)).await
    }

    #[tracing::instrument(name = "db.connect_link.list", level = "debug", skip_all)]
    async fn list_connect_links(&self, tenant: &TenantId, page: &PageRequest) -> Result<Page<ConnectLink>> {
        use connect_links::Column;
        let select = connect_links::Entity::find()
            .filter(Column::TenantId.eq(tenant.as_str()))
            .apply_if(cursor(page), |select, after| select.filter(Column::Id.gt(after)));
        let db = self.db.read("connect_link.list");
        db.page(select, Column::Id, page, |link: &ConnectLink| link.id.as_str()).await
    }

    #[tracing::instrument(name = "db.connect_link.delete", level = "debug", skip_all)]
    async fn delete_connect_link(&self, tenant: &TenantId, link: &ConnectLinkId) -> Result<bool> {
        use connect_links::Column;
        let tx = self.db.begin("connect_link.delete").await?;
        let delete = connect_links::Entity::delete_many()
            .filter(Column::TenantId.eq(tenant.as_str()))
            .filter(Column::Id.eq(link.as_str()));
        let deleted = tx.delete(delete).await?;
        tx.commit().await?;
        Ok(deleted > 0)
    }

    #[tracing::instrument(name = "db.connect_attempt.start", level = "debug", skip_all)]
    async fn start_connect_attempt(&self, attempt: &ConnectAttempt) -> Result<()> {
        use connect_attempts::Column;
        let tx = self.db.begin("connect_attempt.start").await?;
        tx.lock(&format!("connect_link/{}/{}", attempt.tenant, attempt.link)).await?;
        let open = connect_attempts::Entity::find()
            .filter(Column::TenantId.eq(attempt.tenant.as_str()))
            .filter(Column::LinkId.eq(attempt.link.as_str()))
            .filter(Column::UsedAt.is_null())
            .filter(Column::ExpiresAt.gt(attempt.created_at.as_micros()));
        if tx.check(open.count(&tx.conn).await)? >= u64::from(MAX_OPEN_ATTEMPTS) {
            return Err(tx.error(StorageErrorKind::InUse).detail("too many attempts of this link are open"));
        }
        tx.hold_data_keys(attempt.tenant.as_str(), &[attempt.pkce_verifier.as_ref()]).await?;
        tx.insert(connect_attempts::Model {
            tenant_id: attempt.tenant.to_string(),
            state_hash: attempt.state_hash.to_vec(),
            cookie_hash: attempt.cookie_hash.to_vec(),
            link_id: attempt.link.to_string(),
            oauth_client_id: attempt.oauth_client.to_string(),
            pkce_verifier: attempt.pkce_verifier.as_ref().map(|verifier| verifier.as_bytes().to_vec()),
            created_at: attempt.created_at.as_micros(),
            expires_at: attempt.expires_at.as_micros(),
            used_at: None,
        })
        .await?;
        tx.commit().await
    }

    #[tracing::instrument(name = "db.connect_attempt.consume", level = "debug", skip_all)]
    async fn consume_connect_attempt(
        &self,
        state_hash: &[u8; 32],
        cookie_hash: &[u8; 32],
        now: Timestamp,
    ) -> Result<ConsumeOutcome> {
        use connect_attempts::Column;
        let by_state = || connect_attempts::Entity::find().filter(Column::StateHash.eq(state_hash.to_vec()));
        // Anybody can send a state: only one that may be accepted takes its turn among those who write.
        let db = self.db.read("connect_attempt.consume");
        let found = db.check(by_state().one(&db.conn).await)?;
        if let Some(refusal) = refusal(found.as_ref(), cookie_hash, now) {
            return Ok(refusal);
        }
        let tx = self.db.begin("connect_attempt.consume").await?;
        let update = connect_attempts::Entity::update_many()
            .col_expr(Column::UsedAt, Expr::value(now.as_micros()))
            .filter(Column::StateHash.eq(state_hash.to_vec()))
            .filter(Column::CookieHash.eq(cookie_hash.to_vec()))
            .filter(Column::UsedAt.is_null())
            .filter(Column::ExpiresAt.gt(now.as_micros()));
        let consumed = tx.update(update).await? == 1;
        let stored = tx.check(by_state().one(&tx.conn).await)?;
        let Some(stored) = stored else { return Ok(ConsumeOutcome::Unknown) };
        if !consumed {
            return Ok(refusal(Some(&stored), cookie_hash, now).unwrap_or(ConsumeOutcome::AlreadyUsed));
        }
        let attempt = tx.convert(stored)?;
        tx.commit().await?;
        Ok(ConsumeOutcome::Consumed(Box::new(attempt)))
    }

    #[tracing::instrument(name = "db.pending_grant.save", level = "debug", skip_all)]
    async fn save_pending_grant(&self, grant: &PendingGrant) -> Result<()> {
        let tx = self.db.begin("pending_grant.save").await?;
        let sealed = [Some(&grant.access_token), grant.refresh_token.as_ref()];
        tx.hold_data_keys(grant.tenant.as_str(), &sealed).await?;
        tx.insert(pending_grants::Model {
            tenant_id: grant.tenant.to_string(),
            id: grant.id.clone(),
            link_id: grant.link.as_ref().map(ToString::to_string),
            oauth_client_id: grant.oauth_client.to_string(),
            access_token: grant.access_token.as_bytes().to_vec(),
            refresh_token: grant.refresh_token.as_ref().map(|token| token.as_bytes().to_vec()),
            details: grant.details.clone(),
            issued_at: grant.issued_at.as_micros(),
            refused: grant.refused.clone(),
        })
        .await?;
        tx.commit().await
    }

    #[tracing::instrument(name = "db.pending_grant.refuse", level = "debug", skip_all)]
    async fn refuse_pending_grant(&self, tenant: &TenantId, id: &str, reason: &str) -> Result<bool> {
        use pending_grants::Column;
        let tx = self.db.begin("pending_grant.refuse").await?;
        let update = pending_grants::Entity::update_many()
            .col_expr(Column::Refused, Expr::value(reason))
            .filter(Column::TenantId.eq(tenant.as_str()))
            .filter(Column::Id.eq(id));
        let refused = tx.update(update).await?;
        tx.commit().await?;
        Ok(refused > 0)
    }

    #[tracing::instrument(name = "db.pending_grant.list", level = "debug", skip_all)]
    async fn list_pending_grants(&self, limit: u32) -> Result<Vec<PendingGrant>> {
        use pending_grants::Column;
        let select = pending_grants::Entity::find()
            .filter(Column::Refused.is_null())
            .order_by_asc(Column::IssuedAt)
            .order_by_asc(Column::TenantId)
            .order_by_asc(Column::Id)
            .limit(u64::from(limit));
        self.db.read("pending_grant.list").all(select).await
    }

    #[tracing::instrument(name = "db.connect_link.delete_expired", level = "debug", skip_all)]
    async fn delete_expired(&self, before: Timestamp) -> Result<u64> {
        let tx = self.db.begin("connect_link.delete_expired").await?;
        let links = connect_links::Entity::delete_many()
            .filter(connect_links::Column::ExpiresAt.lt(before.as_micros()));
        let attempts = connect_attempts::Entity::delete_many()
            .filter(connect_attempts::Column::ExpiresAt.lt(before.as_micros()));
        let deleted = tx.delete(links).await? + tx.delete(attempts).await?;
        tx.commit().await?;
        Ok(deleted)
    }
}
