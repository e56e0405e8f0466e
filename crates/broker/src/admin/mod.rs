//! What operators and admins change: validate, store, write an audit event, drop what memory knows.

mod access_rules;
mod keys;
mod oauth_clients;
mod principals;
mod tenants;
mod validate;

pub use access_rules::{AccessRuleChange, NewAccessRule};
pub use keys::{KekInfo, KeyStatus, SilentBackend};
pub use oauth_clients::{NewOAuthClient, OAuthClientChange};
pub use tenants::{NewTenant, TenantChange};

use tokenward_storage::Version;

use crate::audit::{self, Actor};
use crate::{Error, Reason};

/// How often a change without an etag is tried again when somebody else's change comes between.
const MAX_TRIES: u32 = 5;

/// Writes the audit event of an action, whatever its outcome.
fn audited<T>(
    actor: &Actor,
    action: &'static str,
    target: &str,
    outcome: Result<T, Error>,
) -> Result<T, Error> {
    let reason = outcome.as_ref().map(|_| ()).map_err(|error| error.reason);
    audit::admin(actor, action, target, reason);
    outcome
}

/// Refuses a change of something that is not as the caller saw it.
fn check_seen(seen: Option<Version>, stored: Version) -> Result<(), Error> {
    match seen {
        Some(seen) if seen != stored => Err(Error::new(
            Reason::EtagMismatch,
            format!("it changed since it was read: its etag is {stored} now, not {seen}"),
        )
        .with("etag", stored.to_string())),
        _ => Ok(()),
    }
}
