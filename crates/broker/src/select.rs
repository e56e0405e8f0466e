//! Which connection's token a caller gets: rules first, then scopes, never silently another account.

use std::sync::Arc;

use tokenward_storage::{AccessRule, ConnectionState, ScopeGrant, TenantState};
use tokenward_types::{Principal, Scopes};

use crate::access::{CallerRules, granted_of, grants};
use crate::directory::{Entry, TenantEntry};
use crate::token::TokenRequest;
use crate::{Error, Reason};

/// The most missing scopes that an error names.
const MAX_NAMED_SCOPES: usize = 20;

/// Tells the base scopes of a provider, which never count as excess.
pub(crate) trait BaseScopes {
    /// The base scopes of the provider with this name.
    fn base_scopes(&self, provider: &tokenward_types::ProviderName) -> Option<&Scopes>;
}

/// The refusal that is the same whether the tenant exists or not.
pub(crate) fn denied(principal: &Principal) -> Error {
    Error::new(
        Reason::AccessDenied,
        format!(
            "no access rule allows {principal} this: an operator can add one with `tokenward rule create`"
        ),
    )
}

/// Chooses the connection, or says why there is none.
///
/// # Errors
/// `AccessDenied`, `TenantSuspended`, `ConnectionRequired`, `ScopeNotGranted`, `TokenTooBroad`, `ReauthorizationRequired`
/// or `ConnectionAmbiguous`, in that order.
pub(crate) fn select<'a>(
    tenant: &'a TenantEntry,
    rules: &CallerRules,
    bases: &dyn BaseScopes,
    request: &TokenRequest<'_>,
) -> Result<&'a Arc<Entry>, Error> {
    let labels = &tenant.tenant.labels;
    let rules_for = |entry: &'a Entry| rules.matching(request.tenant, labels, &entry.provider);
    let asked_for = |entry: &Entry| {
        (request.provider.is_empty() || entry.provider.as_str() == request.provider)
            && (request.connection.is_empty() || entry.id.as_str() == request.connection)
            && (request.account.is_empty() || entry.account.as_str() == request.account)
    };

    let allowed: Vec<&Arc<Entry>> = tenant
        .connections
        .iter()
        .filter(|entry| entry.snapshot().state != ConnectionState::Revoked && asked_for(entry))
        .filter(|entry| rules_permit(rules_for(entry), base_of(bases, entry), request.scopes))
        .collect();
    if allowed.is_empty() {
        return Err(no_candidate(tenant, rules, request, &asked_for));
    }
    if tenant.tenant.state == TenantState::Suspended {
        return Err(Error::new(
            Reason::TenantSuspended,
            "the tenant is suspended: an operator can activate it again with `tokenward tenant activate`",
        ));
    }

    let covering: Vec<_> = allowed
        .iter()
        .copied()
        .filter(|entry| {
            let snapshot = entry.snapshot();
            request.scopes.iter().all(|scope| snapshot.scopes.contains(scope))
        })
        .collect();
    if covering.is_empty() {
        return Err(scope_not_granted(&allowed, request));
    }

    let fitting: Vec<_> = covering
        .iter()
        .copied()
        .filter(|entry| {
            excess_permitted(
                &entry.snapshot().scopes,
                rules_for(entry),
                base_of(bases, entry),
                request.scopes,
            )
        })
        .collect();
    let Some(first) = fitting.first() else {
        return Err(unfit(&covering, request, |entry| {
            shares_something(&entry.snapshot().scopes, &rules_for(entry))
        }));
    };

    // A dead grant counts for the choice of the account: its healthy neighbour must not step in silently.
    if fitting.iter().any(|entry| (&entry.provider, &entry.account) != (&first.provider, &first.account)) {
        return Err(ambiguous(&fitting));
    }
    fitting
        .iter()
        .copied()
        .filter(|entry| entry.snapshot().state != ConnectionState::ReauthRequired)
        .min_by(|a, b| {
            let width = |entry: &Entry| entry.snapshot().scopes.len();
            width(a).cmp(&width(b)).then_with(|| a.id.cmp(&b.id))
        })
        .ok_or_else(|| reauthorization_required(first))
}

fn base_of<'a>(bases: &'a dyn BaseScopes, entry: &Entry) -> Option<&'a Scopes> {
    bases.base_scopes(&entry.provider)
}

/// Whether the rules together allow every scope that is asked for; for none asked, whether there is a rule.
fn rules_permit<'a>(
    mut rules: impl Iterator<Item = &'a AccessRule> + Clone,
    base: Option<&Scopes>,
    scopes: &[String],
) -> bool {
    if scopes.is_empty() {
        return rules.next().is_some();
    }
    let is_base = |scope: &str| base.is_some_and(|base| base.contains(scope));
    rules.clone().next().is_some()
        && scopes.iter().all(|scope| is_base(scope) || rules.clone().any(|rule| grants(&rule.scopes, scope)))
}

fn shares_something<'a>(granted: &Scopes, rules: &(impl Iterator<Item = &'a AccessRule> + Clone)) -> bool {
    granted.iter().any(|scope| rules.clone().any(|rule| grants(&rule.scopes, scope)))
}

/// Whether what the token carries beyond the rules is nothing, or is permitted by a rule that alone covers the request.
fn excess_permitted<'a>(
    granted: &Scopes,
    rules: impl Iterator<Item = &'a AccessRule> + Clone,
    base: Option<&Scopes>,
    requested: &[String],
) -> bool {
    if rules.clone().any(|rule| rule.scopes == ScopeGrant::All) {
        return true;
    }
    let is_base = |scope: &str| base.is_some_and(|base| base.contains(scope));
    let allowed = |scope: &str| rules.clone().any(|rule| grants(&rule.scopes, scope));
    if requested.is_empty() && !granted.iter().any(allowed) {
        return false;
    }
    if granted.iter().all(|scope| is_base(scope) || allowed(scope)) {
        return true;
    }
    let shared;
    let wanted = if requested.is_empty() {
        shared = granted_of(granted, &rules);
        &shared
    } else {
        requested
    };
    rules.into_iter().any(|rule| {
        rule.allow_broader && wanted.iter().all(|scope| is_base(scope) || grants(&rule.scopes, scope))
    })
}

fn no_candidate(
    tenant: &TenantEntry,
    rules: &CallerRules,
    request: &TokenRequest<'_>,
    asked_for: &dyn Fn(&Entry) -> bool,
) -> Error {
    let labels = &tenant.tenant.labels;
    let live =
        || tenant.connections.iter().filter(|entry| entry.snapshot().state != ConnectionState::Revoked);
    let refused_by_rule = live().any(|entry| asked_for(entry));
    let may_know = rules.concerns(request.tenant, labels);
    if refused_by_rule || !may_know {
        return denied(request.principal);
    }
    let mut error = Error::new(
        Reason::ConnectionRequired,
        "the tenant has no such connection: an operator can send the customer a link with `tokenward connect-link create`",
    );
    for (key, value) in [
        ("provider", request.provider),
        ("connection_id", request.connection),
        ("account_id", request.account),
    ] {
        if !value.is_empty() {
            error = error.with(key, value.chars().take(255).collect::<String>());
        }
    }
    error
}

fn scope_not_granted(allowed: &[&Arc<Entry>], request: &TokenRequest<'_>) -> Error {
    let missing_of = |entry: &Entry| -> Vec<String> {
        let snapshot = entry.snapshot();
        request.scopes.iter().filter(|scope| !snapshot.scopes.contains(scope)).cloned().collect()
    };
    let nearest =
        allowed.iter().map(|entry| (missing_of(entry), *entry)).min_by_key(|(missing, _)| missing.len());
    let (missing, nearest) = nearest.map_or((Vec::new(), None), |(missing, entry)| (missing, Some(entry)));
    // Error details travel in HTTP trailers, which clients limit.
    let named = missing.iter().take(MAX_NAMED_SCOPES).cloned().collect::<Vec<_>>().join(" ");
    let more = match missing.len().saturating_sub(MAX_NAMED_SCOPES) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let error = Error::new(
        Reason::ScopeNotGranted,
        format!(
            "the customer did not grant: {named}{more}; they have to connect again with an OAuth client that asks for it"
        ),
    )
    .with("missing_scopes", named);
    match nearest {
        Some(entry) => {
            error.with("connection_id", entry.id.as_str()).with("account_id", entry.account.as_str())
        }
        None => error,
    }
}

fn unfit<'a>(
    covering: &[&'a Arc<Entry>],
    request: &TokenRequest<'_>,
    shares: impl Fn(&'a Entry) -> bool,
) -> Error {
    if request.scopes.is_empty() && !covering.iter().any(|entry| shares(entry)) {
        return denied(request.principal);
    }
    let error = Error::new(
        Reason::TokenTooBroad,
        "the provider cannot narrow this connection's token, which carries more scopes than your access rules allow: connect \
         an OAuth client with fewer scopes, or set allow_broader in a rule that covers the request",
    );
    match covering.first() {
        Some(entry) => error.with("connection_id", entry.id.as_str()),
        None => error,
    }
}

fn ambiguous(fitting: &[&Arc<Entry>]) -> Error {
    let list: Vec<String> = fitting
        .iter()
        .take(20)
        .map(|entry| format!("{} ({} account {})", entry.id, entry.provider, entry.account))
        .collect();
    Error::new(
        Reason::ConnectionAmbiguous,
        format!(
            "several accounts fit; name one by connection_id, account_id or provider: {}",
            list.join(", ")
        ),
    )
    .with("connections", fitting.iter().take(20).map(|entry| entry.id.as_str()).collect::<Vec<_>>().join(" "))
}

/// The customer has to connect again.
pub(crate) fn reauthorization_required(entry: &Entry) -> Error {
    Error::new(
        Reason::ReauthorizationRequired,
        "the grant is dead, because the customer revoked it or removed the app: they have to connect again",
    )
    .with("connection_id", entry.id.as_str())
    .with("account_id", entry.account.as_str())
    .with("provider", entry.provider.as_str())
}

/// The same for a row that was just read, with where the customer is helped.
pub(crate) fn reauthorization_required_of(
    row: &tokenward_storage::Connection,
    help_url: Option<&str>,
) -> Error {
    let error = Error::new(
        Reason::ReauthorizationRequired,
        "the grant is dead, because the customer revoked it or removed the app: they have to connect again",
    )
    .with("connection_id", row.id.as_str())
    .with("account_id", row.account.as_str())
    .with("provider", row.provider.as_str());
    match help_url {
        Some(url) => error.with("help_url", url),
        None => error,
    }
}
