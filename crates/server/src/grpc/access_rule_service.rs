//! Access rules.

use tokenward_api::admin::v1 as api;
use tokenward_api::admin::v1::access_rule_service_server::AccessRuleService;
use tokenward_api::admin::v1::tenant_selector::Selector;
use tokenward_broker::admin::{AccessRuleChange, NewAccessRule};
use tokenward_broker::{Broker, Error};
use tokenward_storage::{AccessRule, ScopeGrant, TenantSelector};
use tonic::{Request, Response, Status};

use super::call::{Call, refuse};
use super::convert::{self, id, optional_id, read_etag, required};
use super::mask::Mask;
use super::page_token::Listing;

/// The service.
pub(crate) struct AccessRules(pub Broker);

const LISTING: Listing<'_> = Listing { method: "ListAccessRules", filter: &[] };
const CHANGEABLE: &[&str] = &["principal", "tenants", "provider", "scopes", "allow_broader", "description"];
/// Stands alone for whatever a connection carries.
const ALL_SCOPES: &str = "*";

fn read_tenants(selector: api::TenantSelector) -> Result<TenantSelector, Error> {
    match required("tenants", selector.selector)? {
        Selector::All(api::AllTenants {}) => Ok(TenantSelector::All),
        Selector::Ids(ids) => {
            ids.tenant_ids.iter().map(|text| id(text)).collect::<Result<_, _>>().map(TenantSelector::Ids)
        }
        Selector::Labels(labels) => Ok(TenantSelector::Labels(convert::read_labels(labels.labels))),
    }
}

fn tenants(selector: TenantSelector) -> api::TenantSelector {
    let selector = match selector {
        TenantSelector::All => Selector::All(api::AllTenants {}),
        TenantSelector::Ids(ids) => Selector::Ids(api::TenantIds {
            tenant_ids: ids.iter().map(|id| id.as_str().to_owned()).collect(),
        }),
        TenantSelector::Labels(labels) => {
            Selector::Labels(api::TenantLabels { labels: labels.into_iter().collect() })
        }
    };
    api::TenantSelector { selector: Some(selector) }
}

fn read_grant(scopes: &[String]) -> Result<ScopeGrant, Error> {
    if scopes.iter().any(|scope| scope == ALL_SCOPES) {
        return if scopes.len() == 1 {
            Ok(ScopeGrant::All)
        } else {
            Err(Error::invalid("scopes", "\"*\" stands alone: it means whatever a connection carries"))
        };
    }
    convert::read_scopes("scopes", scopes).map(ScopeGrant::Only)
}

fn message(rule: AccessRule) -> api::AccessRule {
    api::AccessRule {
        rule_id: rule.id.as_str().to_owned(),
        principal: rule.principal,
        tenants: Some(tenants(rule.tenants)),
        provider: rule.provider.map(|provider| provider.as_str().to_owned()).unwrap_or_default(),
        scopes: match rule.scopes {
            ScopeGrant::All => vec![ALL_SCOPES.to_owned()],
            ScopeGrant::Only(scopes) => convert::scopes(&scopes),
        },
        allow_broader: rule.allow_broader,
        description: rule.description,
        create_time: Some(convert::timestamp(rule.created_at)),
        update_time: Some(convert::timestamp(rule.updated_at)),
        etag: convert::etag(rule.version),
    }
}

fn new_rule(rule: api::AccessRule) -> Result<NewAccessRule, Error> {
    Ok(NewAccessRule {
        id: optional_id(&rule.rule_id)?,
        tenants: read_tenants(required("tenants", rule.tenants)?)?,
        provider: optional_id(&rule.provider)?,
        scopes: read_grant(&rule.scopes)?,
        principal: rule.principal,
        allow_broader: rule.allow_broader,
        description: rule.description,
    })
}

fn change(rule: api::AccessRule, mask: &Mask) -> Result<AccessRuleChange, Error> {
    let tenants = mask.pick("tenants", rule.tenants, Option::is_some);
    let scopes = mask.pick("scopes", rule.scopes, |scopes| !scopes.is_empty());
    Ok(AccessRuleChange {
        principal: mask.pick("principal", rule.principal, |text| !text.is_empty()),
        tenants: tenants.map(|tenants| read_tenants(required("tenants", tenants)?)).transpose()?,
        provider: mask.pick("provider", optional_id(&rule.provider)?, Option::is_some),
        scopes: scopes.as_deref().map(read_grant).transpose()?,
        allow_broader: mask.pick("allow_broader", rule.allow_broader, |allowed| *allowed),
        description: mask.pick("description", rule.description, |text| !text.is_empty()),
    })
}

#[tonic::async_trait]
impl AccessRuleService for AccessRules {
    async fn create_access_rule(
        &self,
        request: Request<api::CreateAccessRuleRequest>,
    ) -> Result<Response<api::AccessRule>, Status> {
        let (actor, request) = Call::actor(request)?;
        let outcome = async {
            let new = new_rule(required("access_rule", request.access_rule)?)?;
            self.0.create_access_rule(&actor, new).await
        };
        Ok(Response::new(message(outcome.await.map_err(refuse)?)))
    }

    async fn get_access_rule(
        &self,
        request: Request<api::GetAccessRuleRequest>,
    ) -> Result<Response<api::AccessRule>, Status> {
        let rule_id = id(&request.into_inner().rule_id).map_err(refuse)?;
        Ok(Response::new(message(self.0.get_access_rule(&rule_id).await.map_err(refuse)?)))
    }

    async fn list_access_rules(
        &self,
        request: Request<api::ListAccessRulesRequest>,
    ) -> Result<Response<api::ListAccessRulesResponse>, Status> {
        let request = request.into_inner();
        let page = LISTING.page(request.page_size, &request.page_token).map_err(refuse)?;
        let page = self.0.list_access_rules(&page).await.map_err(refuse)?;
        Ok(Response::new(api::ListAccessRulesResponse {
            next_page_token: LISTING.next(page.next.as_deref()),
            access_rules: page.items.into_iter().map(message).collect(),
        }))
    }

    async fn update_access_rule(
        &self,
        request: Request<api::UpdateAccessRuleRequest>,
    ) -> Result<Response<api::AccessRule>, Status> {
        let (actor, request) = Call::actor(request)?;
        let outcome = async {
            let rule = required("access_rule", request.access_rule)?;
            let mask = Mask::new(request.update_mask, CHANGEABLE)?;
            let (rule_id, seen) = (id(&rule.rule_id)?, read_etag(&rule.etag)?);
            self.0.update_access_rule(&actor, &rule_id, seen, change(rule, &mask)?).await
        };
        Ok(Response::new(message(outcome.await.map_err(refuse)?)))
    }

    async fn delete_access_rule(
        &self,
        request: Request<api::DeleteAccessRuleRequest>,
    ) -> Result<Response<()>, Status> {
        let (actor, request) = Call::actor(request)?;
        let outcome = async {
            let (rule, seen) = (id(&request.rule_id)?, read_etag(&request.etag)?);
            self.0.delete_access_rule(&actor, &rule, seen).await
        };
        outcome.await.map_err(refuse)?;
        Ok(Response::new(()))
    }
}

#[cfg(test)]
mod tests {
    use prost_types::FieldMask;

    use super::*;

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    fn rule() -> api::AccessRule {
        api::AccessRule {
            principal: "builtin:*".into(),
            tenants: Some(tenants(TenantSelector::All)),
            scopes: texts(&["crm.objects.contacts.read"]),
            ..Default::default()
        }
    }

    #[test]
    fn a_star_alone_stands_for_every_scope() {
        assert_eq!(read_grant(&texts(&["*"])).unwrap(), ScopeGrant::All);
        assert!(read_grant(&texts(&["*", "a"])).is_err());
        assert!(matches!(read_grant(&texts(&["a"])).unwrap(), ScopeGrant::Only(_)));
    }

    #[test]
    fn a_rule_without_tenants_is_refused_and_never_means_all() {
        for tenants in [None, Some(api::TenantSelector { selector: None })] {
            let error = new_rule(api::AccessRule { tenants, ..rule() }).unwrap_err();
            assert_eq!(error.metadata["field"], "tenants");
        }
        assert!(new_rule(rule()).unwrap().id.is_none(), "the broker generates it");
    }

    #[test]
    fn selectors_read_back() {
        let ids = TenantSelector::Ids([id("acme").unwrap()].into());
        let labels = TenantSelector::Labels([("tier".to_owned(), "gold".to_owned())].into());
        for selector in [TenantSelector::All, ids, labels] {
            assert_eq!(read_tenants(tenants(selector.clone())).unwrap(), selector);
        }
    }

    #[test]
    fn an_update_can_take_a_right_away() {
        let mask = Some(FieldMask { paths: texts(&["allow_broader", "provider"]) });
        let changed = change(rule(), &Mask::new(mask, CHANGEABLE).unwrap()).unwrap();
        assert_eq!(changed.allow_broader, Some(false));
        assert_eq!(changed.provider, Some(None));
        assert!(changed.scopes.is_none() && changed.tenants.is_none());
    }
}
