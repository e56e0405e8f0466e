//! Access rules, compiled for the warm path: per principal, indexed by tenant.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use quick_cache::sync::Cache;
use tokenward_storage::{AccessRule, PageRequest, ScopeGrant, Storage, TenantSelector};
use tokenward_types::{Principal, ProviderName, TenantId};

use crate::Error;

/// How many principals' compiled rules are kept.
const MAX_PRINCIPALS: usize = 100_000;

/// Every rule, and per principal those that match it.
pub(crate) struct RuleBook {
    rules: Vec<Arc<AccessRule>>,
    callers: Cache<Principal, Arc<CallerRules>>,
}

impl RuleBook {
    /// A book of these rules.
    pub(crate) fn new(rules: Vec<AccessRule>) -> Self {
        Self { rules: rules.into_iter().map(Arc::new).collect(), callers: Cache::new(MAX_PRINCIPALS) }
    }

    /// Reads all rules.
    pub(crate) async fn load(storage: &dyn Storage) -> Result<Self, Error> {
        let mut rules = Vec::new();
        let mut page = PageRequest::first();
        loop {
            let answer = storage.list_access_rules(&page).await?;
            rules.extend(answer.items);
            match answer.next {
                Some(next) => page.after = Some(next),
                None => return Ok(Self::new(rules)),
            }
        }
    }

    /// Whether two books have the same rules.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.rules == other.rules
    }

    /// The rules that match a principal.
    pub(crate) fn of(&self, principal: &Principal) -> Arc<CallerRules> {
        if let Some(known) = self.callers.get(principal) {
            return known;
        }
        let matching = self.rules.iter().filter(|rule| pattern_matches(&rule.principal, principal.as_str()));
        let compiled = Arc::new(CallerRules::new(matching.cloned()));
        self.callers.insert(principal.clone(), Arc::clone(&compiled));
        compiled
    }
}

/// The rules of one principal.
#[derive(Default)]
pub(crate) struct CallerRules {
    by_tenant: HashMap<TenantId, Vec<Arc<AccessRule>>>,
    by_label: Vec<Arc<AccessRule>>,
    everywhere: Vec<Arc<AccessRule>>,
}

impl CallerRules {
    fn new(rules: impl Iterator<Item = Arc<AccessRule>>) -> Self {
        let mut this = Self::default();
        for rule in rules {
            match &rule.tenants {
                TenantSelector::All => this.everywhere.push(rule),
                TenantSelector::Labels(_) => this.by_label.push(rule),
                TenantSelector::Ids(ids) => {
                    for id in ids {
                        this.by_tenant.entry(id.clone()).or_default().push(Arc::clone(&rule));
                    }
                }
            }
        }
        this
    }

    /// Whether some rule could match the tenant, so that it is worth reading it.
    pub(crate) fn may_concern(&self, tenant: &str) -> bool {
        !self.everywhere.is_empty() || !self.by_label.is_empty() || self.by_tenant.contains_key(tenant)
    }

    /// Whether a rule matches the tenant by name or because it matches all: labels need the tenant to exist.
    pub(crate) fn names(&self, tenant: &str) -> bool {
        !self.everywhere.is_empty() || self.by_tenant.contains_key(tenant)
    }

    /// Whether a rule matches the tenant, for whatever provider.
    pub(crate) fn concerns(&self, tenant: &str, labels: &BTreeMap<String, String>) -> bool {
        self.names(tenant) || self.by_label.iter().any(|rule| selects(&rule.tenants, labels))
    }

    /// The rules for a tenant and a provider.
    pub(crate) fn matching<'a>(
        &'a self,
        tenant: &str,
        labels: &'a BTreeMap<String, String>,
        provider: &'a ProviderName,
    ) -> impl Iterator<Item = &'a AccessRule> + Clone {
        let named = self.by_tenant.get(tenant).map_or(&[][..], Vec::as_slice).iter();
        let labelled = self.by_label.iter().filter(move |rule| selects(&rule.tenants, labels));
        named
            .chain(labelled)
            .chain(&self.everywhere)
            .map(|rule| &**rule)
            .filter(move |rule| rule.provider.as_ref().is_none_or(|wanted| wanted == provider))
    }
}

/// Whether a selector by labels matches.
fn selects(selector: &TenantSelector, labels: &BTreeMap<String, String>) -> bool {
    let TenantSelector::Labels(wanted) = selector else { return false };
    wanted.iter().all(|(key, value)| labels.get(key).is_some_and(|label| label == value))
}

/// Whether one scope is in a grant.
pub(crate) fn grants(grant: &ScopeGrant, scope: &str) -> bool {
    match grant {
        ScopeGrant::All => true,
        ScopeGrant::Only(scopes) => scopes.contains(scope),
    }
}

/// Whether `pattern`, in which `*` stands for any run of characters, matches the whole of `text`.
pub(crate) fn pattern_matches(pattern: &str, text: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut rest) = text.strip_prefix(head) else { return false };
    let mut parts: Vec<&str> = tail.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.len() >= last.len() && rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_match_whole_principals() {
        for (pattern, text, expected) in [
            ("a:b", "a:b", true),
            ("a:b", "a:bc", false),
            ("a:*", "a:", true),
            ("a:*", "b:a:", false),
            ("*", "anything", true),
            ("a:*-job", "a:nightly-job", true),
            ("a:*-job", "a:nightly-job-2", false),
            ("a*a", "a", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
        ] {
            assert_eq!(pattern_matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    proptest! {
        #[test]
        fn a_star_stands_for_whatever_it_replaced(head in "[ab:]{0,4}", middle in "[ab:]{0,4}", tail in "[ab:]{0,4}") {
            let pattern = format!("{head}*{tail}");
            let text = format!("{head}{middle}{tail}");
            prop_assert!(pattern_matches(&pattern, &text));
            let longer = format!("x{text}");
            prop_assert!(!pattern_matches(&pattern, &longer) || head.is_empty());
        }
    }
}
