use async_trait::async_trait;
use sea_orm::sea_query::Expr;
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbBackend, EntityTrait, ExprTrait, QueryFilter, QueryOrder, QuerySelect,
    QueryTrait,
};
use tokenward_storage::{
    Change, ConnectionState, Page, PageRequest, Result, StorageErrorKind, Tenant, TenantStore,
};
use tokenward_types::{TenantId, Timestamp};

use super::SeaStorage;
use crate::convert::{Row, Word, to_json};
use crate::dialect;
use crate::entity::tenants::{self, Column};
use crate::entity::{connections, pending_grants, revocations};
use crate::error::Inconsistent;
use crate::session::{Tx, cursor};

impl TryFrom<tenants::Model> for Tenant {
    type Error = Inconsistent;

    fn try_from(row: tenants::Model) -> Result<Self, Inconsistent> {
        let place = Row { table: "tenants", key: &[&row.tenant_id] };
        Ok(Self {
            id: place.parse("tenant_id", &row.tenant_id)?,
            labels: place.json("labels", &row.labels)?,
            state: place.word("state", &row.state)?,
            display_name: row.display_name,
            created_at: Timestamp::from_micros(row.created_at),
            updated_at: Timestamp::from_micros(row.updated_at),
            version: row.version,
        })
    }
}

impl Tx {
    /// Keeps the tenant from being deleted until the transaction ends. Comes ahead of every other lock.
    pub(super) async fn hold_tenant(&self, tenant: &TenantId) -> Result<bool> {
        let lock = dialect::shared_lock(self.conn.get_database_backend());
        let select = tenants::Entity::find_by_id(tenant.as_str()).lock(lock);
        Ok(self.check(select.one(&self.conn).await)?.is_some())
    }

    /// The same of several, those that are there.
    pub(super) async fn hold_tenants(&self, tenants: &[&str]) -> Result<()> {
        let backend = self.conn.get_database_backend();
        if backend == DbBackend::Sqlite {
            // Who writes is alone.
            return Ok(());
        }
        let select = tenants::Entity::find()
            .select_only()
            .column(Column::TenantId)
            .filter(dialect::among(backend, Column::TenantId, tenants))
            .order_by_asc(Column::TenantId)
            .lock(dialect::shared_lock(backend))
            .into_tuple::<String>();
        self.check(select.all(&self.conn).await).map(drop)
    }
}

/// A grant that lives at the provider, or may, is not forgotten by accident.
async fn refuse_in_use(tx: &Tx, tenant: &TenantId) -> Result<()> {
    let connected = connections::Entity::find()
        .filter(connections::Column::TenantId.eq(tenant.as_str()))
        .filter(connections::Column::State.ne(ConnectionState::Revoked.word()));
    let pending = pending_grants::Entity::find()
        .filter(pending_grants::Column::TenantId.eq(tenant.as_str()))
        .filter(pending_grants::Column::Refused.is_null());
    let queued = revocations::Entity::find().filter(revocations::Column::TenantId.eq(tenant.as_str()));
    let in_use = |detail| tx.error(StorageErrorKind::InUse).detail(detail);
    if tx.exists(connected).await? {
        return Err(in_use("it has a connection that is not revoked"));
    }
    if tx.exists(pending).await? {
        return Err(in_use("it has a pending grant"));
    }
    if tx.exists(queued).await? {
        return Err(in_use("it has a queued revocation"));
    }
    Ok(())
}

#[async_trait]
impl TenantStore for SeaStorage {
    #[tracing::instrument(name = "db.tenant.create", level = "debug", skip_all)]
    async fn create_tenant(&self, tenant: &Tenant) -> Result<Tenant> {
        let tx = self.db.begin("tenant.create").await?;
        tx.insert(tenants::Model {
            tenant_id: tenant.id.to_string(),
            display_name: tenant.display_name.clone(),
            labels: to_json(&tenant.labels),
            state: tenant.state.word().to_owned(),
            created_at: tenant.created_at.as_micros(),
            updated_at: tenant.updated_at.as_micros(),
            version: 1,
        })
        .await?;
        tx.log(&Change::Tenant(tenant.id.clone())).await?;
        tx.commit().await?;
        Ok(Tenant { version: 1, ..tenant.clone() })
    }

    #[tracing::instrument(name = "db.tenant.get", level = "debug", skip_all)]
    async fn get_tenant(&self, tenant: &TenantId) -> Result<Option<Tenant>> {
        self.db.read("tenant.get").one(tenants::Entity::find_by_id(tenant.as_str())).await
    }

    #[tracing::instrument(name = "db.tenant.list", level = "debug", skip_all)]
    async fn list_tenants(&self, page: &PageRequest) -> Result<Page<Tenant>> {
        let select = tenants::Entity::find()
            .apply_if(cursor(page), |select, after| select.filter(Column::TenantId.gt(after)));
        let db = self.db.read("tenant.list");
        db.page(select, Column::TenantId, page, |tenant: &Tenant| tenant.id.as_str()).await
    }

    #[tracing::instrument(name = "db.tenant.update", level = "debug", skip_all)]
    async fn update_tenant(&self, tenant: &Tenant) -> Result<Option<Tenant>> {
        let tx = self.db.begin("tenant.update").await?;
        let update = tenants::Entity::update_many()
            .col_expr(Column::DisplayName, Expr::value(&*tenant.display_name))
            .col_expr(Column::Labels, Expr::value(to_json(&tenant.labels)))
            .col_expr(Column::State, Expr::value(tenant.state.word()))
            .col_expr(Column::UpdatedAt, Expr::value(tenant.updated_at.as_micros()))
            .col_expr(Column::Version, Expr::col(Column::Version).add(1))
            .filter(Column::TenantId.eq(tenant.id.as_str()))
            .filter(Column::Version.eq(tenant.version));
        let matched = tx.update(update).await?;
        let updated = tx.updated(matched, tenants::Entity::find_by_id(tenant.id.as_str())).await?;
        if updated.is_some() {
            tx.log(&Change::Tenant(tenant.id.clone())).await?;
        }
        tx.commit().await?;
        Ok(updated)
    }

    #[tracing::instrument(name = "db.tenant.delete", level = "debug", skip_all)]
    async fn delete_tenant(&self, tenant: &TenantId, force: bool) -> Result<bool> {
        let tx = self.db.begin("tenant.delete").await?;
        // Whoever gives the tenant a grant holds this row, so that what is found here stays true until the commit.
        let this = tenants::Entity::find_by_id(tenant.as_str()).lock_exclusive();
        if tx.one::<_, Tenant>(this).await?.is_none() {
            return Ok(false);
        }
        if !force {
            refuse_in_use(&tx, tenant).await?;
        }
        // Foreign keys take along all that belongs to it.
        let delete = tenants::Entity::delete_many().filter(Column::TenantId.eq(tenant.as_str()));
        let deleted = tx.delete(delete).await?;
        tx.log(&Change::Tenant(tenant.clone())).await?;
        tx.commit().await?;
        Ok(deleted > 0)
    }
}
