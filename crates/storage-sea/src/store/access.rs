use async_trait::async_trait;
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, EntityTrait, ExprTrait, QueryFilter, QueryOrder, QueryTrait};
use tokenward_storage::{
    AccessRule, AccessRuleStore, BlockedPrincipal, Change, IssuerKey, Page, PageRequest, PrincipalStore,
    Result, ScopeGrant, TenantSelector,
};
use tokenward_types::{AccessRuleId, Principal, Sealed, TenantId, Timestamp};

use super::SeaStorage;
use crate::convert::{Row, to_json};
use crate::entity::{access_rules, blocked_principals, issuer_keys};
use crate::error::Inconsistent;
use crate::session::{Tx, cursor};

/// The word and the JSON that a selector is stored as.
fn selector_columns(selector: &TenantSelector) -> (&'static str, String) {
    match selector {
        TenantSelector::All => ("all", String::new()),
        TenantSelector::Ids(ids) => ("ids", to_json(&ids.iter().map(TenantId::as_str).collect::<Vec<_>>())),
        TenantSelector::Labels(labels) => ("labels", to_json(labels)),
    }
}

fn selector(place: &Row<'_>, word: &str, json: &str) -> Result<TenantSelector, Inconsistent> {
    match word {
        "all" => Ok(TenantSelector::All),
        "ids" => {
            let ids: Vec<String> = place.json("tenants", json)?;
            let ids = ids.iter().map(|id| place.parse("tenants", id));
            Ok(TenantSelector::Ids(ids.collect::<Result<_, Inconsistent>>()?))
        }
        "labels" => Ok(TenantSelector::Labels(place.json("tenants", json)?)),
        _ => Err(place.wrong("tenant_selector")),
    }
}

/// The scopes that a grant is stored as; `None` for all.
fn scopes_column(grant: &ScopeGrant) -> Option<String> {
    match grant {
        ScopeGrant::All => None,
        ScopeGrant::Only(scopes) => Some(scopes.to_string()),
    }
}

impl TryFrom<access_rules::Model> for AccessRule {
    type Error = Inconsistent;

    fn try_from(row: access_rules::Model) -> Result<Self, Inconsistent> {
        let place = Row { table: "access_rules", key: &[&row.id] };
        Ok(Self {
            id: place.parse("id", &row.id)?,
            tenants: selector(&place, &row.tenant_selector, &row.tenants)?,
            provider: place.parse_some("provider", row.provider.as_ref())?,
            scopes: match &row.scopes {
                None => ScopeGrant::All,
                Some(scopes) => ScopeGrant::Only(place.scopes("scopes", scopes)?),
            },
            principal: row.principal,
            allow_broader: row.allow_broader,
            description: row.description,
            created_at: Timestamp::from_micros(row.created_at),
            updated_at: Timestamp::from_micros(row.updated_at),
            version: row.version,
        })
    }
}

impl TryFrom<blocked_principals::Model> for BlockedPrincipal {
    type Error = Inconsistent;

    fn try_from(row: blocked_principals::Model) -> Result<Self, Inconsistent> {
        let place = Row { table: "blocked_principals", key: &[&row.principal] };
        Ok(Self {
            principal: place.parse("principal", &row.principal)?,
            reason: row.reason,
            blocked_by: row.blocked_by,
            blocked_at: Timestamp::from_micros(row.blocked_at),
        })
    }
}

impl TryFrom<issuer_keys::Model> for IssuerKey {
    type Error = Inconsistent;

    fn try_from(row: issuer_keys::Model) -> Result<Self, Inconsistent> {
        Ok(Self {
            kid: row.kid,
            sealed: Sealed::from(row.sealed),
            public_key: row.public_key,
            created_at: Timestamp::from_micros(row.created_at),
        })
    }
}

#[async_trait]
impl AccessRuleStore for SeaStorage {
    #[tracing::instrument(name = "db.access_rule.create", level = "debug", skip_all)]
    async fn create_access_rule(&self, rule: &AccessRule) -> Result<AccessRule> {
        let tx = self.db.begin("access_rule.create").await?;
        let (tenant_selector, tenants) = selector_columns(&rule.tenants);
        tx.insert(access_rules::Model {
            id: rule.id.to_string(),
            principal: rule.principal.clone(),
            tenant_selector: tenant_selector.to_owned(),
            tenants,
            provider: rule.provider.as_ref().map(ToString::to_string),
            scopes: scopes_column(&rule.scopes),
            allow_broader: rule.allow_broader,
            description: rule.description.clone(),
            created_at: rule.created_at.as_micros(),
            updated_at: rule.updated_at.as_micros(),
            version: 1,
        })
        .await?;
        tx.log(&Change::AccessRules).await?;
        tx.commit().await?;
        Ok(AccessRule { version: 1, ..rule.clone() })
    }

    #[tracing::instrument(name = "db.access_rule.get", level = "debug", skip_all)]
    async fn get_access_rule(&self, rule: &AccessRuleId) -> Result<Option<AccessRule>> {
        self.db.read("access_rule.get").one(access_rules::Entity::find_by_id(rule.as_str())).await
    }

    #[tracing::instrument(name = "db.access_rule.list", level = "debug", skip_all)]
    async fn list_access_rules(&self, page: &PageRequest) -> Result<Page<AccessRule>> {
        use access_rules::Column;
        let select = access_rules::Entity::find()
            .apply_if(cursor(page), |select, after| select.filter(Column::Id.gt(after)));
        let db = self.db.read("access_rule.list");
        db.page(select, Column::Id, page, |rule: &AccessRule| rule.id.as_str()).await
    }

    #[tracing::instrument(name = "db.access_rule.update", level = "debug", skip_all)]
    async fn update_access_rule(&self, rule: &AccessRule) -> Result<Option<AccessRule>> {
        use access_rules::Column;
        let tx = self.db.begin("access_rule.update").await?;
        let (tenant_selector, tenants) = selector_columns(&rule.tenants);
        let provider = rule.provider.as_ref().map(ToString::to_string);
        let update = access_rules::Entity::update_many()
            .col_expr(Column::Principal, Expr::value(&*rule.principal))
            .col_expr(Column::TenantSelector, Expr::value(tenant_selector))
            .col_expr(Column::Tenants, Expr::value(tenants))
            .col_expr(Column::Provider, Expr::value(provider))
            .col_expr(Column::Scopes, Expr::value(scopes_column(&rule.scopes)))
            .col_expr(Column::AllowBroader, Expr::value(rule.allow_broader))
            .col_expr(Column::Description, Expr::value(&*rule.description))
            .col_expr(Column::UpdatedAt, Expr::value(rule.updated_at.as_micros()))
            .col_expr(Column::Version, Expr::col(Column::Version).add(1))
            .filter(Column::Id.eq(rule.id.as_str()))
            .filter(Column::Version.eq(rule.version));
        let matched = tx.update(update).await?;
        let updated = tx.updated(matched, access_rules::Entity::find_by_id(rule.id.as_str())).await?;
        if updated.is_some() {
            tx.log(&Change::AccessRules).await?;
        }
        tx.commit().await?;
        Ok(updated)
    }

    #[tracing::instrument(name = "db.access_rule.delete", level = "debug", skip_all)]
    async fn delete_access_rule(&self, rule: &AccessRuleId) -> Result<bool> {
        let tx = self.db.begin("access_rule.delete").await?;
        let this = access_rules::Column::Id.eq(rule.as_str());
        let deleted = tx.delete(access_rules::Entity::delete_many().filter(this)).await?;
        if deleted > 0 {
            tx.log(&Change::AccessRules).await?;
        }
        tx.commit().await?;
        Ok(deleted > 0)
    }
}

#[async_trait]
impl PrincipalStore for SeaStorage {
    #[tracing::instrument(name = "db.principal.block", level = "debug", skip_all)]
    async fn block_principal(&self, blocked: &BlockedPrincipal) -> Result<()> {
        let tx = self.db.begin("principal.block").await?;
        let row = blocked_principals::Model {
            principal: blocked.principal.to_string(),
            reason: blocked.reason.clone(),
            blocked_by: blocked.blocked_by.clone(),
            blocked_at: blocked.blocked_at.as_micros(),
        };
        let select = blocked_principals::Entity::find_by_id(blocked.principal.as_str());
        let was_blocked = tx.exists(select).await?;
        tx.insert_if_absent(row, [blocked_principals::Column::Principal]).await?;
        if !was_blocked {
            tx.log(&Change::Principals).await?;
        }
        tx.commit().await
    }

    #[tracing::instrument(name = "db.principal.unblock", level = "debug", skip_all)]
    async fn unblock_principal(&self, principal: &Principal) -> Result<bool> {
        let tx = self.db.begin("principal.unblock").await?;
        let this = blocked_principals::Column::Principal.eq(principal.as_str());
        let deleted = tx.delete(blocked_principals::Entity::delete_many().filter(this)).await?;
        if deleted > 0 {
            tx.log(&Change::Principals).await?;
        }
        tx.commit().await?;
        Ok(deleted > 0)
    }

    #[tracing::instrument(name = "db.principal.list_blocked", level = "debug", skip_all)]
    async fn list_blocked_principals(&self, page: &PageRequest) -> Result<Page<BlockedPrincipal>> {
        use blocked_principals::Column;
        let select = blocked_principals::Entity::find()
            .apply_if(cursor(page), |select, after| select.filter(Column::Principal.gt(after)));
        let db = self.db.read("principal.list_blocked");
        db.page(select, Column::Principal, page, |blocked: &BlockedPrincipal| blocked.principal.as_str())
            .await
    }

    #[tracing::instrument(name = "db.issuer_key.create_first", level = "debug", skip_all)]
    async fn create_first_issuer_key(&self, key: &IssuerKey) -> Result<bool> {
        let tx = self.db.begin("issuer_key.create_first").await?;
        // Nothing unique stands between two first keys.
        tx.lock("issuer_keys").await?;
        if tx.exists(issuer_keys::Entity::find()).await? {
            return Ok(false);
        }
        insert_issuer_key(&tx, key).await?;
        tx.log(&Change::IssuerKeys).await?;
        tx.commit().await?;
        Ok(true)
    }

    #[tracing::instrument(name = "db.issuer_key.add", level = "debug", skip_all)]
    async fn add_issuer_key(&self, key: &IssuerKey) -> Result<()> {
        let tx = self.db.begin("issuer_key.add").await?;
        insert_issuer_key(&tx, key).await?;
        tx.log(&Change::IssuerKeys).await?;
        tx.commit().await
    }

    #[tracing::instrument(name = "db.issuer_key.list", level = "debug", skip_all)]
    async fn list_issuer_keys(&self) -> Result<Vec<IssuerKey>> {
        use issuer_keys::Column;
        let keys = issuer_keys::Entity::find().order_by_desc(Column::CreatedAt).order_by_desc(Column::Kid);
        self.db.read("issuer_key.list").all(keys).await
    }
}

async fn insert_issuer_key(tx: &Tx, key: &IssuerKey) -> Result<()> {
    tx.hold_data_keys("_installation", &[Some(&key.sealed)]).await?;
    tx.insert(issuer_keys::Model {
        kid: key.kid.clone(),
        sealed: key.sealed.as_bytes().to_vec(),
        public_key: key.public_key.clone(),
        created_at: key.created_at.as_micros(),
    })
    .await
}
