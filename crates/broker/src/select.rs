//! Which connection's token a caller gets: rules first, then scopes, never silently another account.

use std::sync::Arc;

use arc_swap::Guard;
use tokenward_storage::{AccessRule, ConnectionState, ScopeGrant, TenantState};
use tokenward_types::{Principal, Scopes};

use crate::access::{CallerRules, grants};
use crate::directory::{Entry, Snapshot, TenantEntry};
use crate::token::TokenRequest;
use crate::{Error, Reason};

/// The most missing scopes that an error names.
const MAX_NAMED_SCOPES: usize = 20;
/// The most connections that an error names.
const MAX_NAMED_CONNECTIONS: usize = 20;

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

/// A connection that is asked for and not revoked, with what its choice depends on: each looked up once.
struct Candidate<'a> {
    entry: &'a Arc<Entry>,
    snapshot: Guard<Arc<Snapshot>>,
    rules: Vec<&'a AccessRule>,
    base: Option<&'a Scopes>,
}

impl Candidate<'_> {
    fn is_base(&self, scope: &str) -> bool {
        self.base.is_some_and(|base| base.contains(scope))
    }

    fn is_allowed(&self, scope: &str) -> bool {
        self.rules.iter().any(|rule| grants(&rule.scopes, scope))
    }

    /// Whether the rules together allow every scope that is asked for; for none asked, whether there is a rule.
    fn is_permitted(&self, requested: &[String]) -> bool {
        !self.rules.is_empty() && requested.iter().all(|scope| self.is_base(scope) || self.is_allowed(scope))
    }

    fn covers(&self, requested: &[String]) -> bool {
        requested.iter().all(|scope| self.snapshot.scopes.contains(scope))
    }

    fn shares_something(&self) -> bool {
        self.snapshot.scopes.iter().any(|scope| self.is_allowed(scope))
    }

    /// Whether what the token carries beyond the rules is nothing, or is permitted by a rule that alone covers the request.
    fn is_excess_permitted(&self, requested: &[String]) -> bool {
        if self.rules.iter().any(|rule| rule.scopes == ScopeGrant::All) {
            return true;
        }
        if requested.is_empty() && !self.shares_something() {
            return false;
        }
        let granted = &self.snapshot.scopes;
        if granted.iter().all(|scope| self.is_base(scope) || self.is_allowed(scope)) {
            return true;
        }
        let shared: Vec<String>;
        let wanted = if requested.is_empty() {
            shared = granted.iter().filter(|scope| self.is_allowed(scope)).map(str::to_owned).collect();
            &shared
        } else {
            requested
        };
        self.rules.iter().any(|rule| {
            rule.allow_broader
                && wanted.iter().all(|scope| self.is_base(scope) || grants(&rule.scopes, scope))
        })
    }
}

/// Chooses the connection, or says why there is none.
///
/// # Errors
/// `AccessDenied`, `TenantSuspended`, `ConnectionRequired`, `ScopeNotGranted`, `TokenTooBroad`, `ReauthorizationRequired`
/// or `ConnectionAmbiguous`, in that order.
pub(crate) fn select<'a>(
    tenant: &'a TenantEntry,
    rules: &'a CallerRules,
    bases: &'a dyn BaseScopes,
    request: &TokenRequest<'_>,
) -> Result<&'a Arc<Entry>, Error> {
    let labels = &*tenant.labels;
    let asked_for = |entry: &Entry| {
        (request.provider.is_empty() || entry.provider.as_str() == request.provider)
            && (request.connection.is_empty() || entry.id.as_str() == request.connection)
            && (request.account.is_empty() || entry.account.as_str() == request.account)
    };

    let live = tenant.connections.iter().filter_map(|entry| {
        let snapshot = entry.snapshot();
        (snapshot.state != ConnectionState::Revoked && asked_for(entry)).then(|| Candidate {
            entry,
            snapshot,
            rules: rules.matching(request.tenant, labels, &entry.provider).collect(),
            base: bases.base_scopes(&entry.provider),
        })
    });
    let allowed: Vec<Candidate<'_>> =
        live.filter(|candidate| candidate.is_permitted(request.scopes)).collect();
    if allowed.is_empty() {
        return Err(no_candidate(tenant, rules, request, &asked_for));
    }
    if tenant.state == TenantState::Suspended {
        return Err(Error::new(
            Reason::TenantSuspended,
            "the tenant is suspended: an operator can activate it again with `tokenward tenant activate`",
        ));
    }

    let covering: Vec<&Candidate<'_>> =
        allowed.iter().filter(|candidate| candidate.covers(request.scopes)).collect();
    if covering.is_empty() {
        return Err(scope_not_granted(&allowed, request));
    }

    let fitting: Vec<&Candidate<'_>> =
        covering.iter().copied().filter(|candidate| candidate.is_excess_permitted(request.scopes)).collect();
    let Some(first) = fitting.first() else { return Err(unfit(&covering, request)) };

    // A dead grant counts for the choice of the account: its healthy neighbour must not step in silently.
    let account = |candidate: &Candidate<'a>| (&candidate.entry.provider, &candidate.entry.account);
    if fitting.iter().any(|candidate| account(candidate) != account(first)) {
        return Err(ambiguous(&fitting));
    }
    fitting
        .iter()
        .filter(|candidate| candidate.snapshot.state != ConnectionState::ReauthRequired)
        .min_by(|a, b| {
            let width = |candidate: &Candidate<'_>| candidate.snapshot.scopes.len();
            width(a).cmp(&width(b)).then_with(|| a.entry.id.cmp(&b.entry.id))
        })
        .map(|candidate| candidate.entry)
        .ok_or_else(|| reauthorization_required(first.entry))
}

fn no_candidate(
    tenant: &TenantEntry,
    rules: &CallerRules,
    request: &TokenRequest<'_>,
    asked_for: &dyn Fn(&Entry) -> bool,
) -> Error {
    let labels = &*tenant.labels;
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

fn scope_not_granted(allowed: &[Candidate<'_>], request: &TokenRequest<'_>) -> Error {
    let missing_of = |candidate: &Candidate<'_>| -> Vec<String> {
        request.scopes.iter().filter(|scope| !candidate.snapshot.scopes.contains(scope)).cloned().collect()
    };
    let nearest = allowed
        .iter()
        .map(|candidate| (missing_of(candidate), candidate.entry))
        .min_by_key(|(missing, _)| missing.len());
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

fn unfit(covering: &[&Candidate<'_>], request: &TokenRequest<'_>) -> Error {
    if request.scopes.is_empty() && !covering.iter().any(|candidate| candidate.shares_something()) {
        return denied(request.principal);
    }
    let error = Error::new(
        Reason::TokenTooBroad,
        "the provider cannot narrow this connection's token, which carries more scopes than your access rules allow: connect \
         an OAuth client with fewer scopes, or set allow_broader in a rule that covers the request",
    );
    match covering.first() {
        Some(candidate) => error.with("connection_id", candidate.entry.id.as_str()),
        None => error,
    }
}

fn ambiguous(fitting: &[&Candidate<'_>]) -> Error {
    let named = || fitting.iter().take(MAX_NAMED_CONNECTIONS).map(|candidate| candidate.entry);
    let list: Vec<String> =
        named().map(|entry| format!("{} ({} account {})", entry.id, entry.provider, entry.account)).collect();
    Error::new(
        Reason::ConnectionAmbiguous,
        format!(
            "several accounts fit; name one by connection_id, account_id or provider: {}",
            list.join(", ")
        ),
    )
    .with("connections", named().map(|entry| entry.id.as_str()).collect::<Vec<_>>().join(" "))
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
