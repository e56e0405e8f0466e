use std::collections::HashSet;
use std::time::Duration;

use async_trait::async_trait;
use sea_orm::sea_query::{Expr, SimpleExpr};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, EntityTrait, ExprTrait, PaginatorTrait, QueryFilter, QueryOrder,
    QuerySelect, QueryTrait, Select,
};
use tokenward_storage::{
    DataKeyRecord, DataKeyState, Kek, KekCheck, KeyStore, Page, PageRequest, Result, RetireOutcome, Rewrap,
    SealCount, SealedField, SealedSwap,
};
use tokenward_types::{TenantId, Timestamp};

use super::batch::{Batch, Column as BatchColumn, Set, Type};
use super::keks::hold_kek;
use super::{SeaStorage, sealed};
use crate::dialect::{self, micros};
use crate::entity::{data_keys, kek_checks, keks};
use crate::error::Inconsistent;
use crate::session::{Session, cursor, cut, page_size};

impl TryFrom<kek_checks::Model> for KekCheck {
    type Error = Inconsistent;

    fn try_from(row: kek_checks::Model) -> Result<Self, Inconsistent> {
        Ok(Self { kek: row.kek, wrapped: row.wrapped, created_at: Timestamp::from_micros(row.created_at) })
    }
}

impl TryFrom<data_keys::Model> for DataKeyState {
    type Error = Inconsistent;

    fn try_from(row: data_keys::Model) -> Result<Self, Inconsistent> {
        Ok(Self {
            scope: row.scope,
            id: row.id,
            kek: row.kek,
            active: row.active,
            seals: row.seals,
            created_at: Timestamp::from_micros(row.created_at),
            replaced_at: row.replaced_at.map(Timestamp::from_micros),
        })
    }
}

/// What names a data key.
pub(super) const SCOPE: BatchColumn = ("scope", Type::Text);
pub(super) const ID: BatchColumn = ("id", Type::Int);

/// A data key's row.
pub(super) fn model(key: &DataKeyRecord) -> data_keys::Model {
    data_keys::Model {
        // What cannot be a tenant's identifier is the scope of the installation.
        tenant_id: TenantId::parse(&key.scope).ok().map(|tenant| tenant.to_string()),
        scope: key.scope.clone(),
        id: key.id,
        kek: key.kek.clone(),
        wrapped: key.wrapped.clone(),
        active: key.active,
        seals: key.seals,
        created_at: key.created_at.as_micros(),
        replaced_at: None,
        settled_job: None,
        checked_job: None,
    }
}

/// The data keys that a query finds: what a record has of a row and no more, since a job reads a great many.
pub(super) async fn records<C: ConnectionTrait>(
    db: &Session<C>,
    select: Select<data_keys::Entity>,
) -> Result<Vec<DataKeyRecord>> {
    use data_keys::Column as Of;
    let columns = [Of::Scope, Of::Id, Of::Kek, Of::Wrapped, Of::Active, Of::Seals, Of::CreatedAt];
    let rows = select.select_only().columns(columns).into_tuple::<(_, _, _, _, _, _, i64)>();
    let record = |(scope, id, kek, wrapped, active, seals, created_at)| {
        let created_at = Timestamp::from_micros(created_at);
        DataKeyRecord { scope, id, kek, wrapped, active, seals, created_at }
    };
    Ok(db.check(rows.all(&db.conn).await)?.into_iter().map(record).collect())
}

/// A data key is active, in the very words by which databases find out that an index of active ones will do.
pub(super) fn is_active() -> SimpleExpr {
    Expr::col((data_keys::Entity, data_keys::Column::Active)).eq(Expr::cust("TRUE"))
}

/// Data keys that come after one in order of scope and identifier.
pub(super) fn is_after(scope: &str, id: i32) -> Condition {
    use data_keys::Column;
    let is_after = Condition::any()
        .add(Column::Scope.gt(scope))
        .add(Condition::all().add(Column::Scope.eq(scope)).add(Column::Id.gt(id)));
    // Follows from the other, and is what an index can be entered by.
    Condition::all().add(Column::Scope.gte(scope)).add(is_after)
}

#[async_trait]
impl KeyStore for SeaStorage {
    #[tracing::instrument(name = "db.data_key.create", level = "debug", skip_all)]
    async fn create_data_key(&self, key: &DataKeyRecord) -> Result<()> {
        use data_keys::Column;
        let tx = self.db.begin("data_key.create").await?;
        // Two keys that become active at once would not see each other.
        tx.lock(&format!("data_keys/{}", key.scope)).await?;
        hold_kek(&tx, &key.kek).await?;
        if key.active {
            let now = dialect::now_micros(tx.conn.get_database_backend());
            let update = data_keys::Entity::update_many()
                .col_expr(Column::Active, Expr::value(false))
                .col_expr(Column::ReplacedAt, now)
                .filter(Column::Scope.eq(&*key.scope))
                .filter(Column::Active.eq(true));
            tx.update(update).await?;
        }
        tx.insert(model(key)).await?;
        tx.commit().await
    }

    #[tracing::instrument(name = "db.data_key.list", level = "debug", skip_all)]
    async fn list_data_keys(&self, scope: &str) -> Result<Vec<DataKeyRecord>> {
        use data_keys::Column;
        let keys = data_keys::Entity::find().filter(Column::Scope.eq(scope)).order_by_desc(Column::Id);
        records(&self.db.read("data_key.list"), keys).await
    }

    #[tracing::instrument(name = "db.data_key.list_of", level = "debug", skip_all)]
    async fn list_data_keys_of(&self, scopes: &[String]) -> Result<Vec<DataKeyRecord>> {
        use data_keys::Column;
        let db = self.db.read("data_key.list_of");
        let keys = data_keys::Entity::find()
            .filter(dialect::among(db.conn.get_database_backend(), Column::Scope, scopes))
            .order_by_asc(Column::Scope)
            .order_by_asc(Column::Id);
        records(&db, keys).await
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
    async fn add_seals(&self, made: &[SealCount]) -> Result<Vec<SealCount>> {
        use data_keys::Column;
        let mut made: Vec<_> = made.iter().collect();
        if made.is_empty() {
            return Ok(Vec::new());
        }
        made.sort();
        let tx = self.db.begin("data_key.add_seals").await?;
        let rows =
            made.iter().map(|(scope, id, seals)| vec![(*seals).into(), scope.clone().into(), (*id).into()]);
        let sets = [(("seals", Type::Big), Set::Plus)];
        let batch = Batch { ordered: true, ..Batch::new("data_keys", &sets, &[SCOPE, ID]) };
        batch.update(&tx, rows.collect()).await?;
        let known = data_keys::Entity::find()
            .select_only()
            .columns([Column::Scope, Column::Id, Column::Seals])
            .filter(Column::Scope.is_in(made.iter().map(|(scope, ..)| &**scope)))
            .into_tuple::<SealCount>();
        let mut known = tx.check(known.all(&tx.conn).await)?;
        tx.commit().await?;
        let added: HashSet<_> = made.iter().map(|(scope, id, _)| (&**scope, *id)).collect();
        known.retain(|(scope, id, _)| added.contains(&(&**scope, *id)));
        known.sort();
        Ok(known)
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

    #[tracing::instrument(name = "db.kek.note", level = "debug", skip_all)]
    async fn note_kek(&self, kek: &str) -> Result<()> {
        self.insert_kek(kek).await
    }

    #[tracing::instrument(name = "db.kek.list", level = "debug", skip_all)]
    async fn list_keks(&self) -> Result<Vec<Kek>> {
        self.db.read("kek.list").all(keks::Entity::find().order_by_asc(keks::Column::Kek)).await
    }

    #[tracing::instrument(name = "db.kek.activate", level = "debug", skip_all)]
    async fn activate_kek(&self, kek: &str, former: Option<&str>) -> Result<bool> {
        self.make_active(kek, former).await
    }

    #[tracing::instrument(name = "db.kek.retire", level = "debug", skip_all)]
    async fn retire_kek(&self, kek: &str) -> Result<RetireOutcome> {
        self.make_retired(kek).await
    }

    #[tracing::instrument(name = "db.kek.note_unused", level = "debug", skip_all)]
    async fn note_unused_keks(&self) -> Result<()> {
        self.mark_unused().await
    }

    #[tracing::instrument(name = "db.data_key.rewrap", level = "debug", skip_all)]
    async fn rewrap_data_keys(&self, job: &str, rewraps: &[Rewrap]) -> Result<u64> {
        self.rewrap(job, rewraps).await
    }

    #[tracing::instrument(name = "db.data_key.replace", level = "debug", skip_all)]
    async fn replace_data_keys(
        &self,
        job: Option<&str>,
        keys: &[DataKeyRecord],
        swaps: &[SealedSwap],
    ) -> Result<Vec<String>> {
        self.replace(job, keys, swaps).await
    }

    #[tracing::instrument(name = "db.data_key.list_states", level = "debug", skip_all)]
    async fn list_data_key_states(&self, page: &PageRequest) -> Result<Page<DataKeyState>> {
        use data_keys::Column;
        let db = self.db.read("data_key.list_states");
        let size = page_size(page);
        let select = data_keys::Entity::find()
            .apply_if(cursor(page), |select, after| {
                // Identifiers of scopes have no slash.
                let (scope, id) = after.split_once('/').unwrap_or((after, "0"));
                select.filter(is_after(scope, id.parse().unwrap_or(0)))
            })
            .order_by_asc(Column::Scope)
            .order_by_asc(Column::Id)
            .limit(size + 1);
        let found: Vec<DataKeyState> = db.all(select).await?;
        Ok(cut(found, size, |key: &DataKeyState| format!("{}/{}", key.scope, key.id)))
    }

    #[tracing::instrument(name = "db.sealed.count", level = "debug", skip_all)]
    async fn count_sealed(&self, scopes: Option<&[String]>) -> Result<Vec<(String, i32, u64)>> {
        sealed::count(&self.db.read("sealed.count"), scopes).await
    }

    #[tracing::instrument(name = "db.sealed.former", level = "debug", skip_all)]
    async fn former_data_keys_in_use(&self, scopes: Option<&[String]>) -> Result<Vec<(String, i32)>> {
        sealed::former(&self.db.read("sealed.former"), scopes).await
    }

    #[tracing::instrument(name = "db.sealed.read", level = "debug", skip_all)]
    async fn read_sealed(&self, scopes: &[String]) -> Result<Vec<SealedField>> {
        sealed::read(&self.db.read("sealed.read"), scopes).await
    }

    #[tracing::instrument(name = "db.sealed.swap", level = "debug", skip_all)]
    async fn swap_sealed(&self, swaps: &[SealedSwap]) -> Result<u64> {
        let tx = self.db.begin("sealed.swap").await?;
        let swapped = sealed::swap(&tx, swaps.iter()).await?;
        tx.commit().await?;
        Ok(swapped)
    }

    #[tracing::instrument(name = "db.data_key.list_replaced", level = "debug", skip_all)]
    async fn replaced_data_keys(&self, ago: Duration, skip: u32, limit: u32) -> Result<Vec<(String, i32)>> {
        use data_keys::Column;
        let db = self.db.read("data_key.list_replaced");
        let now = dialect::now_micros(db.conn.get_database_backend());
        let select = data_keys::Entity::find()
            .select_only()
            .columns([Column::Scope, Column::Id])
            // It is no active one then, and an index has all that were replaced in this order.
            .filter(Expr::col(Column::ReplacedAt).lte(now.sub(micros(ago))))
            .order_by_asc(Column::ReplacedAt)
            .order_by_asc(Column::Scope)
            .order_by_asc(Column::Id)
            .limit(u64::from(limit))
            .offset(u64::from(skip))
            .into_tuple::<(String, i32)>();
        db.check(select.all(&db.conn).await)
    }

    #[tracing::instrument(name = "db.data_key.remove", level = "debug", skip_all)]
    async fn remove_data_keys(&self, keys: &[(String, i32)]) -> Result<u64> {
        self.remove_unused(keys).await
    }
}
