//! Who there is: tenants, callers, and rules of every kind that let callers at their tenants.

use std::collections::HashMap;

use tokenward_api::admin::v1::tenant_selector::Selector;
use tokenward_api::admin::v1::{AccessRule, AllTenants, Tenant, TenantIds, TenantLabels, TenantSelector};

use crate::load::Random;

/// The label that spreads tenants over regions.
const REGION: &str = "region";
/// Regions; a rule by label matches one of them.
const REGIONS: usize = 50;
/// Tenants in a rule by name.
const TENANTS_PER_RULE: usize = 60;
/// The scope that every HubSpot token carries and no rule has to allow.
const BASE_SCOPE: &str = "oauth";
/// Scopes of HubSpot's CRM, as public apps ask for them.
const SCOPES: [&str; 12] = [
    "crm.objects.contacts.read",
    "crm.objects.contacts.write",
    "crm.objects.companies.read",
    "crm.objects.companies.write",
    "crm.objects.deals.read",
    "crm.objects.deals.write",
    "crm.objects.owners.read",
    "crm.lists.read",
    "crm.schemas.contacts.read",
    "crm.schemas.deals.read",
    "tickets",
    "files",
];

/// Which tenants a rule matches.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Reach {
    All,
    Named(Vec<usize>),
    Region(usize),
}

/// A rule, before it is created.
#[derive(Clone, Debug)]
struct Rule {
    caller: usize,
    reach: Reach,
    /// What a caller may ask for by it.
    scopes: Vec<String>,
    /// Whether it allows whatever the connection carries.
    any_scope: bool,
    allow_broader: bool,
}

/// A call of GetToken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The caller's number.
    pub caller: usize,
    /// The tenant's number.
    pub tenant: usize,
    /// What is asked for.
    pub scopes: Vec<String>,
}

/// Who there is.
#[derive(Clone, Debug)]
pub struct World {
    tenants: usize,
    callers: usize,
    scopes: Vec<String>,
    rules: Vec<Rule>,
}

impl World {
    /// The caller who may have every tenant's token.
    pub const READER: usize = 0;

    /// So many tenants, callers and rules; connections carry `scopes` scopes, the base scope included.
    ///
    /// # Errors
    /// When there are more or fewer scopes than HubSpot's names that we know.
    pub fn new(
        tenants: usize,
        callers: usize,
        rules: usize,
        scopes: usize,
        seed: u64,
    ) -> anyhow::Result<Self> {
        let known = SCOPES.len() + 1;
        anyhow::ensure!((2..=known).contains(&scopes), "there can be 2 to {known} scopes");
        anyhow::ensure!(
            tenants > 0 && callers > 0 && rules >= callers,
            "every caller needs a rule and a tenant"
        );
        let scopes: Vec<String> = SCOPES[..scopes - 1].iter().map(ToString::to_string).collect();
        let mut random = Random::new(seed);
        let rules = (0..rules)
            .map(|index| rule(index % callers, index / callers, tenants, &scopes, &mut random))
            .collect();
        Ok(Self { tenants, callers, scopes, rules })
    }

    /// How many tenants.
    pub fn tenants(&self) -> usize {
        self.tenants
    }

    /// How many callers.
    pub fn callers(&self) -> usize {
        self.callers
    }

    /// How many rules.
    pub fn rules(&self) -> usize {
        self.rules.len()
    }

    /// What every connection carries.
    pub fn granted(&self) -> Vec<String> {
        std::iter::once(BASE_SCOPE.to_owned()).chain(self.scopes.iter().cloned()).collect()
    }

    /// A tenant, to be created.
    pub fn tenant(&self, index: usize) -> Tenant {
        let plan = if index.is_multiple_of(3) { "enterprise" } else { "starter" };
        let labels = [(REGION, region(index % REGIONS)), ("plan", plan.to_owned())];
        Tenant {
            tenant_id: tenant_id(index),
            display_name: format!("Customer {index}"),
            labels: labels.map(|(key, value)| (key.to_owned(), value)).into(),
            ..Tenant::default()
        }
    }

    /// A rule, to be created.
    pub fn access_rule(&self, index: usize) -> AccessRule {
        let Rule { caller, reach, scopes, any_scope, allow_broader } = &self.rules[index];
        let selector = match reach {
            Reach::All => Selector::All(AllTenants {}),
            Reach::Named(tenants) => Selector::Ids(TenantIds {
                tenant_ids: tenants.iter().map(|index| tenant_id(*index)).collect(),
            }),
            Reach::Region(number) => Selector::Labels(TenantLabels {
                labels: HashMap::from([(REGION.to_owned(), region(*number))]),
            }),
        };
        AccessRule {
            principal: format!("builtin:{}", subject(*caller)),
            tenants: Some(TenantSelector { selector: Some(selector) }),
            scopes: if *any_scope { vec!["*".to_owned()] } else { scopes.clone() },
            allow_broader: *allow_broader,
            description: format!("Rule {index}"),
            ..AccessRule::default()
        }
    }

    /// A call that some rule allows: any caller, any rule of its, any tenant of that, some of its scopes.
    pub fn ask(&self, random: &mut Random) -> Ask {
        let caller = random.below(self.callers);
        let of_caller: Vec<&Rule> = self.rules.iter().filter(|rule| rule.caller == caller).collect();
        let Some(rule) = random.pick(&of_caller) else { return self.read(random.below(self.tenants)) };
        let tenant = match &rule.reach {
            Reach::All => random.below(self.tenants),
            Reach::Named(tenants) => random.pick(tenants).copied().unwrap_or(0),
            Reach::Region(number) => {
                number + REGIONS * random.below((self.tenants - number).div_ceil(REGIONS))
            }
        };
        let mut scopes = rule.scopes.clone();
        let wanted = 1 + random.below(scopes.len());
        while scopes.len() > wanted {
            scopes.swap_remove(random.below(scopes.len()));
        }
        Ask { caller, tenant, scopes }
    }

    /// A call for a tenant's token by the caller who may have all of them.
    pub fn read(&self, tenant: usize) -> Ask {
        Ask { caller: Self::READER, tenant, scopes: self.scopes[..1].to_vec() }
    }
}

/// The rule number `number` of a caller. Connections cannot be narrowed, so every rule either allows all that they carry or
/// says that more is all right.
fn rule(caller: usize, number: usize, tenants: usize, scopes: &[String], random: &mut Random) -> Rule {
    let is_reader = caller.is_multiple_of(4);
    let reach = match number % 10 {
        0 if is_reader => Reach::All,
        5..=8 => Reach::Region(random.below(REGIONS.min(tenants))),
        _ => {
            let mut named: Vec<usize> = (0..TENANTS_PER_RULE).map(|_| random.below(tenants)).collect();
            named.sort_unstable();
            named.dedup();
            Reach::Named(named)
        }
    };
    let allow_broader = number % 10 == 8;
    let scopes = if allow_broader { &scopes[..scopes.len().div_ceil(2)] } else { scopes };
    let any_scope = number.is_multiple_of(10);
    Rule { caller, reach, scopes: scopes.to_vec(), any_scope, allow_broader }
}

/// A caller's name, without the issuer.
pub fn subject(caller: usize) -> String {
    format!("service-{caller:03}")
}

/// A tenant's identifier.
pub fn tenant_id(index: usize) -> String {
    format!("customer-{index:06}")
}

fn region(number: usize) -> String {
    format!("region-{number:02}")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn world() -> World {
        World::new(10_000, 100, 1_000, 10, 1).unwrap()
    }

    #[test]
    fn every_call_is_allowed_by_a_rule_of_its_caller() {
        let world = world();
        let rules: Vec<_> = (0..world.rules()).map(|index| world.access_rule(index)).collect();
        let mut random = Random::new(2);
        for _ in 0..2_000 {
            let ask = world.ask(&mut random);
            assert!(ask.tenant < 10_000 && !ask.scopes.is_empty());
            let labels = world.tenant(ask.tenant).labels;
            let principal = format!("builtin:{}", subject(ask.caller));
            let allowed = rules.iter().filter(|rule| rule.principal == principal).any(|rule| {
                let matches = match rule.tenants.as_ref().unwrap().selector.as_ref().unwrap() {
                    Selector::All(_) => true,
                    Selector::Ids(ids) => ids.tenant_ids.contains(&tenant_id(ask.tenant)),
                    Selector::Labels(wanted) => {
                        wanted.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
                    }
                };
                matches
                    && (rule.scopes == ["*"] || ask.scopes.iter().all(|scope| rule.scopes.contains(scope)))
            });
            assert!(allowed, "{ask:?}");
        }
    }

    #[test]
    fn rules_are_of_every_kind_and_the_reader_may_have_everything() {
        let world = world();
        let rules: Vec<_> = (0..1_000).map(|index| world.access_rule(index)).collect();
        let kind = |wanted: fn(&Selector) -> bool| {
            rules
                .iter()
                .filter(|rule| wanted(rule.tenants.as_ref().unwrap().selector.as_ref().unwrap()))
                .count()
        };
        assert_eq!(kind(|selector| matches!(selector, Selector::All(_))), 25);
        assert_eq!(kind(|selector| matches!(selector, Selector::Labels(_))), 400);
        assert_eq!(kind(|selector| matches!(selector, Selector::Ids(_))), 575);
        assert_eq!(rules[0].principal, "builtin:service-000");
        assert!(matches!(rules[0].tenants.as_ref().unwrap().selector, Some(Selector::All(_))));
        assert_eq!(world.granted().len(), 10);
    }

    #[test]
    fn calls_spread_over_callers_and_tenants() {
        let world = world();
        let mut random = Random::new(3);
        let asks: Vec<_> = (0..20_000).map(|_| world.ask(&mut random)).collect();
        assert_eq!(asks.iter().map(|ask| ask.caller).collect::<HashSet<_>>().len(), 100);
        assert!(asks.iter().map(|ask| ask.tenant).collect::<HashSet<_>>().len() > 7_000);
        let counts: HashSet<_> = asks.iter().map(|ask| ask.scopes.len()).collect();
        assert_eq!(counts, (1..=9).collect());
    }

    #[test]
    fn a_small_world_works_too() {
        let world = World::new(3, 2, 20, 10, 1).unwrap();
        let mut random = Random::new(4);
        assert!((0..1_000).all(|_| world.ask(&mut random).tenant < 3));
        assert!(World::new(3, 2, 1, 10, 1).is_err());
    }
}
