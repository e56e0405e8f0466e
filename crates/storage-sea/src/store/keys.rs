use async_trait::async_trait;
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, EntityTrait, ExprTrait, PaginatorTrait, QueryFilter, QueryOrder, QuerySelect};
use tokenward_storage::{DataKeyRecord, KekCheck, KeyStore, Result};
use tokenward_types::{TenantId, Timestamp};

use super::SeaStorage;
use crate::entity::{data_keys, kek_checks};
use crate::error::Inconsistent;

impl TryFrom<data_keys::Model> for DataKeyRecord {
    type Error = Inconsistent;

    fn try_from(row: data_keys::Model) -> Result<Self, Inconsistent> {
        Ok(Self {
            scope: row.scope,
            id: row.id,
            kek: row.kek,
            wrapped: row.wrapped,
            active: row.active,
            seals: row.seals,
            created_at: Timestamp::from_micros(row.created_at),
        })
    }
}

impl TryFrom<kek_checks::Model> for KekCheck {
    type Error = Inconsistent;

    fn try_from(row: kek_checks::Model) -> Result<Self, Inconsistent> {
        Ok(Self { kek: row.kek, wrapped: row.wrapped, created_at: Timestamp::from_micros(row.created_at) })
    }
}

#[async_trait]
impl KeyStore for SeaStorage {
    #[tracing::instrument(name = "db.data_key.create", level = "debug", skip_all)]
    async fn create_data_key(&self, key: &DataKeyRecord) -> Result<()> {
        use data_keys::Column;
        let tx = self.db.begin("data_key.create").await?;
        // Two keys that become active at once would not see each other.
        tx.lock(&format!("data_keys/{}", key.scope)).await?;
        if key.active {
            let update = data_keys::Entity::update_many()
                .col_expr(Column::Active, Expr::value(false))
                .filter(Column::Scope.eq(&*key.scope))
                .filter(Column::Active.eq(true));
            tx.update(update).await?;
        }
        tx.insert(data_keys::Model {
            // What cannot be a tenant's identifier is the scope of the installation.
            tenant_id: TenantId::parse(&key.scope).ok().map(|tenant| tenant.to_string()),
            scope: key.scope.clone(),
            id: key.id,
            kek: key.kek.clone(),
            wrapped: key.wrapped.clone(),
            active: key.active,
            seals: key.seals,
            created_at: key.created_at.as_micros(),
        })
        .await?;
        tx.commit().await
    }

    #[tracing::instrument(name = "db.data_key.list", level = "debug", skip_all)]
    async fn list_data_keys(&self, scope: &str) -> Result<Vec<DataKeyRecord>> {
        use data_keys::Column;
        let keys = data_keys::Entity::find().filter(Column::Scope.eq(scope)).order_by_desc(Column::Id);
        self.db.read("data_key.list").all(keys).await
    }

    #[tracing::instrument(name = "db.data_key.count", level = "debug", skip_all)]
    async fn count_data_keys(&self) -> Result<Vec<(String, u64)>> {
        use data_keys::Column;
        let db = self.db.read("data_key.count");
        let counts = data_keys::Entity::find()
            .select_only()
            .column(Column::Kek)
            .column_as(Column::Id.count(), "keys")
            .group_by(Column::Kek)
            .order_by_asc(Column::Kek)
            .into_tuple::<(String, i64)>();
        let counts = db.check(counts.all(&db.conn).await)?;
        Ok(counts.into_iter().map(|(kek, count)| (kek, count.unsigned_abs())).collect())
    }

    #[tracing::instrument(name = "db.data_key.add_seals", level = "debug", skip_all)]
    async fn add_seals(&self, scope: &str, id: i32, seals: i64) -> Result<Option<i64>> {
        use data_keys::Column;
        let tx = self.db.begin("data_key.add_seals").await?;
        let update = data_keys::Entity::update_many()
            .col_expr(Column::Seals, Expr::col(Column::Seals).add(seals))
            .filter(Column::Scope.eq(scope))
            .filter(Column::Id.eq(id));
        tx.update(update).await?;
        let key: Option<DataKeyRecord> =
            tx.one(data_keys::Entity::find_by_id((scope.to_owned(), id))).await?;
        tx.commit().await?;
        Ok(key.map(|key| key.seals))
    }

    #[tracing::instrument(name = "db.kek_check.create", level = "debug", skip_all)]
    async fn create_kek_check(&self, check: &KekCheck, seen: usize) -> Result<bool> {
        let tx = self.db.begin("kek_check.create").await?;
        // Records for different keys do not meet in the index.
        tx.lock("kek_checks").await?;
        let stored = tx.check(kek_checks::Entity::find().count(&tx.conn).await)?;
        if usize::try_from(stored) != Ok(seen) {
            return Ok(false);
        }
        let row = kek_checks::Model {
            kek: check.kek.clone(),
            wrapped: check.wrapped.clone(),
            created_at: check.created_at.as_micros(),
        };
        let created = tx.insert_new(row).await?;
        if created {
            tx.commit().await?;
        }
        Ok(created)
    }

    #[tracing::instrument(name = "db.kek_check.list", level = "debug", skip_all)]
    async fn list_kek_checks(&self) -> Result<Vec<KekCheck>> {
        let checks = kek_checks::Entity::find().order_by_asc(kek_checks::Column::Kek);
        self.db.read("kek_check.list").all(checks).await
    }
}
