use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use prost_types::FieldMask;
use serde::Serialize;
use tokenward_api::admin::v1::access_rule_service_client::AccessRuleServiceClient;
use tokenward_api::admin::v1::tenant_selector::Selector;
use tokenward_api::admin::v1::{
    AccessRule, AllTenants, CreateAccessRuleRequest, DeleteAccessRuleRequest, GetAccessRuleRequest,
    ListAccessRulesRequest, TenantIds, TenantLabels, TenantSelector, UpdateAccessRuleRequest,
};

use super::parse::label;
use crate::failure::Failure;
use crate::output::{Row, text, time};
use crate::remote::{AdminArgs, PAGE_SIZE, all_pages};

/// What to do with access rules.
#[derive(Debug, Args)]
pub(crate) struct RuleArgs {
    #[command(flatten)]
    admin: AdminArgs,
    #[command(subcommand)]
    command: RuleCommand,
}

/// Which tenants a rule is about: one way of three.
#[derive(Debug, Args)]
#[group(id = "tenant_selection", multiple = true)]
struct TenantsArgs {
    /// Every tenant.
    #[arg(long, conflicts_with_all = ["tenants", "tenant_labels"])]
    all_tenants: bool,
    /// This tenant; may be repeated.
    #[arg(long = "tenant", value_name = "TENANT", conflicts_with = "tenant_labels")]
    tenants: Vec<String>,
    /// Tenants that carry this label; repeated, all of them.
    #[arg(long = "tenant-label", value_name = "KEY=VALUE", value_parser = label)]
    tenant_labels: Vec<(String, String)>,
}

#[derive(Debug, Subcommand)]
enum RuleCommand {
    /// Allow callers to have tokens.
    #[command(after_help = "Examples:
  tokenward rule create --principal builtin:billing --tenant acme --provider hubspot --scope crm.objects.contacts.read
  tokenward rule create --principal 'corp:crm-*' --tenant-label plan=pro --scope '*'")]
    Create {
        /// The rule's identifier; generated without.
        #[arg(long, value_name = "ID", default_value = "")]
        id: String,
        /// Who, as ISSUER:CLAIM; "*" stands for any run of characters.
        #[arg(long, value_name = "PATTERN")]
        principal: String,
        #[command(flatten)]
        tenants: TenantsArgs,
        /// Only this provider.
        #[arg(long, value_name = "NAME", default_value = "")]
        provider: String,
        /// A scope; may be repeated; "*" alone for whatever a connection carries.
        #[arg(long = "scope", value_name = "SCOPE", required = true)]
        scopes: Vec<String>,
        /// Allow tokens that carry more scopes, where the vendor cannot narrow them.
        #[arg(long)]
        allow_broader: bool,
        /// Why the rule is there.
        #[arg(long, value_name = "TEXT", default_value = "")]
        description: String,
    },
    /// Show a rule.
    #[command(after_help = "Example:\n  tokenward rule get billing")]
    Get {
        /// The rule.
        rule: String,
    },
    /// List rules.
    #[command(after_help = "Example:\n  tokenward rule list --output json")]
    List {
        /// Show this many at the most.
        #[arg(long, value_name = "COUNT")]
        limit: Option<usize>,
    },
    /// Change a rule.
    #[command(
        after_help = "Example:\n  tokenward rule update billing --scope crm.objects.contacts.read --scope oauth"
    )]
    Update {
        /// The rule.
        rule: String,
        /// The new principal or pattern.
        #[arg(long, value_name = "PATTERN")]
        principal: Option<String>,
        #[command(flatten)]
        tenants: TenantsArgs,
        /// The new provider; "" for every one.
        #[arg(long, value_name = "NAME")]
        provider: Option<String>,
        /// The new scopes, which replace the old ones; may be repeated.
        #[arg(long = "scope", value_name = "SCOPE")]
        scopes: Option<Vec<String>>,
        /// Whether tokens may carry more scopes.
        #[arg(long, value_name = "BOOL")]
        allow_broader: Option<bool>,
        /// The new reason.
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
        /// Change it only if this is still its etag.
        #[arg(long, default_value = "")]
        etag: String,
    },
    /// Delete a rule.
    #[command(after_help = "Example:\n  tokenward rule delete billing")]
    Delete {
        /// The rule.
        rule: String,
        /// Delete it only if this is still its etag.
        #[arg(long, default_value = "")]
        etag: String,
    },
}

/// A rule as it is printed.
#[derive(Serialize)]
struct View {
    rule_id: String,
    principal: String,
    tenants: TenantsView,
    provider: Option<String>,
    scopes: Vec<String>,
    allow_broader: bool,
    description: Option<String>,
    create_time: Option<String>,
    update_time: Option<String>,
    etag: String,
}

/// Which tenants a rule is about: `"*"`, a list, or labels.
#[derive(Serialize)]
#[serde(untagged)]
enum TenantsView {
    All(&'static str),
    Ids(Vec<String>),
    Labels(BTreeMap<String, String>),
}

impl Row for View {
    const COLUMNS: &'static [&'static str] =
        &["rule_id", "principal", "tenants", "provider", "scopes", "allow_broader"];
}

impl From<AccessRule> for View {
    fn from(rule: AccessRule) -> Self {
        Self {
            rule_id: rule.rule_id,
            principal: rule.principal,
            tenants: match rule.tenants.and_then(|tenants| tenants.selector) {
                Some(Selector::All(AllTenants {})) => TenantsView::All("*"),
                Some(Selector::Ids(ids)) => TenantsView::Ids(ids.tenant_ids),
                Some(Selector::Labels(labels)) => TenantsView::Labels(labels.labels.into_iter().collect()),
                None => TenantsView::Ids(Vec::new()),
            },
            provider: text(rule.provider),
            scopes: rule.scopes,
            allow_broader: rule.allow_broader,
            description: text(rule.description),
            create_time: time(rule.create_time),
            update_time: time(rule.update_time),
            etag: rule.etag,
        }
    }
}

pub(super) async fn run(args: &RuleArgs) -> Result<(), Failure> {
    let mut client = AccessRuleServiceClient::new(args.admin.client()?);
    let output = args.admin.output();
    let rule = match &args.command {
        RuleCommand::Create { .. } => {
            client
                .create_access_rule(CreateAccessRuleRequest { access_rule: Some(new_rule(&args.command)?) })
                .await?
        }
        RuleCommand::Get { rule } => {
            client.get_access_rule(GetAccessRuleRequest { rule_id: rule.clone() }).await?
        }
        RuleCommand::List { limit } => {
            let rules = all_pages!(
                client,
                list_access_rules,
                ListAccessRulesRequest { page_size: PAGE_SIZE, ..Default::default() },
                access_rules,
                *limit
            );
            return output.list(&rules.into_iter().map(View::from).collect::<Vec<_>>());
        }
        RuleCommand::Update { .. } => client.update_access_rule(update(&args.command)?).await?,
        RuleCommand::Delete { rule, etag } => {
            client
                .delete_access_rule(DeleteAccessRuleRequest { rule_id: rule.clone(), etag: etag.clone() })
                .await?;
            return output.done(&format!("deleted rule {rule}"));
        }
    };
    output.one(&View::from(rule.into_inner()))
}

impl TenantsArgs {
    fn selector(&self) -> Option<TenantSelector> {
        let selector = if self.all_tenants {
            Selector::All(AllTenants {})
        } else if !self.tenants.is_empty() {
            Selector::Ids(TenantIds { tenant_ids: self.tenants.clone() })
        } else if !self.tenant_labels.is_empty() {
            Selector::Labels(TenantLabels { labels: self.tenant_labels.iter().cloned().collect() })
        } else {
            return None;
        };
        Some(TenantSelector { selector: Some(selector) })
    }
}

fn new_rule(command: &RuleCommand) -> Result<AccessRule, Failure> {
    let RuleCommand::Create { id, principal, tenants, provider, scopes, allow_broader, description } =
        command
    else {
        return Ok(AccessRule::default());
    };
    let Some(selector) = tenants.selector() else {
        return Err(Failure::new("which tenants?").hint("give --tenant, --tenant-label or --all-tenants"));
    };
    Ok(AccessRule {
        rule_id: id.clone(),
        principal: principal.clone(),
        tenants: Some(selector),
        provider: provider.clone(),
        scopes: scopes.clone(),
        allow_broader: *allow_broader,
        description: description.clone(),
        ..AccessRule::default()
    })
}

fn update(command: &RuleCommand) -> Result<UpdateAccessRuleRequest, Failure> {
    let RuleCommand::Update { rule, principal, tenants, provider, scopes, allow_broader, description, etag } =
        command
    else {
        return Ok(UpdateAccessRuleRequest::default());
    };
    let selector = tenants.selector();
    let given = [
        ("principal", principal.is_some()),
        ("tenants", selector.is_some()),
        ("provider", provider.is_some()),
        ("scopes", scopes.is_some()),
        ("allow_broader", allow_broader.is_some()),
        ("description", description.is_some()),
    ];
    let paths: Vec<String> =
        given.iter().filter(|(_, given)| *given).map(|(path, _)| (*path).to_owned()).collect();
    if paths.is_empty() {
        return Err(Failure::new("nothing to change").hint("see `tokenward rule update --help`"));
    }
    let access_rule = AccessRule {
        rule_id: rule.clone(),
        principal: principal.clone().unwrap_or_default(),
        tenants: selector,
        provider: provider.clone().unwrap_or_default(),
        scopes: scopes.clone().unwrap_or_default(),
        allow_broader: allow_broader.unwrap_or_default(),
        description: description.clone().unwrap_or_default(),
        etag: etag.clone(),
        ..AccessRule::default()
    };
    Ok(UpdateAccessRuleRequest { access_rule: Some(access_rule), update_mask: Some(FieldMask { paths }) })
}
