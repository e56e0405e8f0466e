//! Access rules.

use tokenward_storage::{
    AccessRule, Page, PageRequest, ScopeGrant, StorageErrorKind, TenantSelector, Version,
};
use tokenward_types::{AccessRuleId, ProviderName};

use super::{MAX_TRIES, audited, check_seen, validate};
use crate::audit::Actor;
use crate::{Broker, Error};

/// The most tenants that one rule names.
const MAX_TENANTS: usize = 1000;

/// A rule to create.
#[derive(Clone, Debug)]
pub struct NewAccessRule {
    /// The identifier; generated where it is left out.
    pub id: Option<AccessRuleId>,
    /// A principal, or a pattern in which `*` stands for any run of characters.
    pub principal: String,
    /// Which tenants.
    pub tenants: TenantSelector,
    /// Which provider; `None` for every one.
    pub provider: Option<ProviderName>,
    /// Which scopes.
    pub scopes: ScopeGrant,
    /// Whether a token that carries more scopes than allowed may be given out.
    pub allow_broader: bool,
    /// Why the rule is there; may be empty.
    pub description: String,
}

/// What to change about a rule; `None` leaves a field as it is.
#[derive(Clone, Debug, Default)]
pub struct AccessRuleChange {
    /// The new principal or pattern.
    pub principal: Option<String>,
    /// The new tenants.
    pub tenants: Option<TenantSelector>,
    /// The new provider; the inner `None` stands for every one.
    pub provider: Option<Option<ProviderName>>,
    /// The new scopes.
    pub scopes: Option<ScopeGrant>,
    /// Whether a broader token may be given out from now on.
    pub allow_broader: Option<bool>,
    /// The new description.
    pub description: Option<String>,
}

fn check_tenants(tenants: &TenantSelector) -> Result<(), Error> {
    match tenants {
        TenantSelector::Ids(ids) if ids.is_empty() => Err(Error::invalid("tenants", "names no tenant")),
        TenantSelector::Ids(ids) if ids.len() > MAX_TENANTS => Err(Error::invalid(
            "tenants",
            format_args!(
                "{} tenants are more than the {MAX_TENANTS} that are allowed: select by labels",
                ids.len()
            ),
        )),
        TenantSelector::All | TenantSelector::Ids(_) => Ok(()),
        TenantSelector::Labels(labels) if labels.is_empty() => {
            Err(Error::invalid("tenants", "names no label: to allow every tenant, select all"))
        }
        TenantSelector::Labels(labels) => validate::labels(labels),
    }
}

fn check_scopes(scopes: &ScopeGrant) -> Result<(), Error> {
    match scopes {
        ScopeGrant::Only(scopes) if scopes.is_empty() => Err(Error::invalid(
            "scopes",
            "names no scope: to allow whatever a connection carries, give \"*\" alone",
        )),
        ScopeGrant::All | ScopeGrant::Only(_) => Ok(()),
    }
}

impl Broker {
    fn check_rule(&self, rule: &AccessRule) -> Result<(), Error> {
        validate::principal_pattern(&rule.principal)?;
        check_tenants(&rule.tenants)?;
        check_scopes(&rule.scopes)?;
        validate::description("description", &rule.description)?;
        rule.provider.as_ref().map_or(Ok(()), |provider| self.check_provider(provider))
    }

    /// Creates a rule.
    ///
    /// # Errors
    /// `InvalidRequest`, `AlreadyExists`.
    pub async fn create_access_rule(&self, actor: &Actor, new: NewAccessRule) -> Result<AccessRule, Error> {
        let now = self.clock().now();
        let generate = || AccessRuleId::generate(self.clock(), self.rng());
        let rule = AccessRule {
            id: new.id.unwrap_or_else(generate),
            principal: new.principal,
            tenants: new.tenants,
            provider: new.provider,
            scopes: new.scopes,
            allow_broader: new.allow_broader,
            description: new.description,
            created_at: now,
            updated_at: now,
            version: 1,
        };
        let outcome = self.try_create_access_rule(&rule).await;
        let outcome = self.with_rules_reloaded(outcome).await;
        audited(actor, "access_rule.create", rule.id.as_str(), outcome)
    }

    async fn try_create_access_rule(&self, rule: &AccessRule) -> Result<AccessRule, Error> {
        self.check_rule(rule)?;
        let created = self.storage().create_access_rule(rule).await;
        created.map_err(|error| Error::or_exists(error, "access rule", &rule.id))
    }

    /// The rule.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn get_access_rule(&self, id: &AccessRuleId) -> Result<AccessRule, Error> {
        self.storage().get_access_rule(id).await?.ok_or_else(|| Error::not_found("access rule", id))
    }

    /// Rules in order of their identifiers.
    ///
    /// # Errors
    /// Those of storage.
    pub async fn list_access_rules(&self, page: &PageRequest) -> Result<Page<AccessRule>, Error> {
        Ok(self.storage().list_access_rules(page).await?)
    }

    /// Changes a rule, if it still is as it was `seen`; `None` for whichever.
    ///
    /// # Errors
    /// `InvalidRequest`, `NotFound`, `EtagMismatch`.
    pub async fn update_access_rule(
        &self,
        actor: &Actor,
        id: &AccessRuleId,
        seen: Option<Version>,
        change: AccessRuleChange,
    ) -> Result<AccessRule, Error> {
        let outcome = self.try_update_access_rule(id, seen, change).await;
        let outcome = self.with_rules_reloaded(outcome).await;
        audited(actor, "access_rule.update", id.as_str(), outcome)
    }

    async fn try_update_access_rule(
        &self,
        id: &AccessRuleId,
        seen: Option<Version>,
        change: AccessRuleChange,
    ) -> Result<AccessRule, Error> {
        let mut tries = 1;
        loop {
            let mut rule = self.get_access_rule(id).await?;
            check_seen(seen, rule.version)?;
            let AccessRuleChange { principal, tenants, provider, scopes, allow_broader, description } =
                change.clone();
            rule.principal = principal.unwrap_or(rule.principal);
            rule.tenants = tenants.unwrap_or(rule.tenants);
            rule.provider = provider.unwrap_or(rule.provider);
            rule.scopes = scopes.unwrap_or(rule.scopes);
            rule.allow_broader = allow_broader.unwrap_or(rule.allow_broader);
            rule.description = description.unwrap_or(rule.description);
            rule.updated_at = self.clock().now();
            self.check_rule(&rule)?;
            match self.storage().update_access_rule(&rule).await {
                Ok(updated) => return updated.ok_or_else(|| Error::not_found("access rule", id)),
                Err(error) if error.kind() == StorageErrorKind::Conflict && tries < MAX_TRIES => tries += 1,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Deletes a rule, if it still is as it was `seen`; `None` for whichever. It allows nothing from then on.
    ///
    /// # Errors
    /// `NotFound`, `EtagMismatch`.
    pub async fn delete_access_rule(
        &self,
        actor: &Actor,
        id: &AccessRuleId,
        seen: Option<Version>,
    ) -> Result<(), Error> {
        let outcome = self.try_delete_access_rule(id, seen).await;
        let outcome = self.with_rules_reloaded(outcome).await;
        audited(actor, "access_rule.delete", id.as_str(), outcome)
    }

    async fn try_delete_access_rule(&self, id: &AccessRuleId, seen: Option<Version>) -> Result<(), Error> {
        let rule = self.get_access_rule(id).await?;
        check_seen(seen, rule.version)?;
        let deleted = self.storage().delete_access_rule(id).await?;
        if deleted { Ok(()) } else { Err(Error::not_found("access rule", id)) }
    }

    /// Reloads after a failure too: a commit whose outcome is unknown may have happened, and "not found" may be the repetition
    /// of a deletion after which reloading failed.
    async fn with_rules_reloaded<T>(&self, outcome: Result<T, Error>) -> Result<T, Error> {
        let reloaded = self.reload_rules().await;
        let value = outcome?;
        reloaded?;
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use tokenward_types::{Scopes, TenantId};

    use super::*;

    #[test]
    fn a_rule_that_would_allow_nothing_or_everything_by_accident_is_refused() {
        assert!(check_tenants(&TenantSelector::Ids(BTreeSet::new())).is_err());
        assert!(check_tenants(&TenantSelector::Labels(BTreeMap::new())).is_err());
        assert!(check_scopes(&ScopeGrant::Only(Scopes::default())).is_err());
        assert!(check_tenants(&TenantSelector::All).is_ok());
        assert!(check_scopes(&ScopeGrant::All).is_ok());
    }

    #[test]
    fn a_rule_names_a_thousand_tenants_at_the_most() {
        let ids = |count: usize| {
            TenantSelector::Ids((0..count).map(|i| TenantId::parse(&format!("t{i}")).unwrap()).collect())
        };
        assert!(check_tenants(&ids(1000)).is_ok());
        assert!(check_tenants(&ids(1001)).is_err());
    }
}
