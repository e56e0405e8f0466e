//! Blocked principals.

use tokenward_storage::{BlockedPrincipal, Page, PageRequest};
use tokenward_types::Principal;

use super::{audited, validate};
use crate::audit::{self, Actor};
use crate::{Broker, Error};

impl Broker {
    /// Records that a principal is blocked; the listener's authenticator is told by whoever calls this.
    ///
    /// # Errors
    /// `InvalidRequest`, and those of storage.
    pub async fn block_principal(
        &self,
        actor: &Actor,
        principal: &Principal,
        reason: &str,
    ) -> Result<BlockedPrincipal, Error> {
        let outcome = self.try_block_principal(actor, principal, reason).await;
        audited(actor, "principal.block", principal.as_str(), outcome)
    }

    async fn try_block_principal(
        &self,
        actor: &Actor,
        principal: &Principal,
        reason: &str,
    ) -> Result<BlockedPrincipal, Error> {
        validate::principal(principal)?;
        validate::description("reason", reason)?;
        // Nobody may be left who could take it back.
        if *principal == actor.principal {
            return Err(Error::invalid("principal", "is your own: another admin can block you"));
        }
        let blocked = BlockedPrincipal {
            principal: principal.clone(),
            reason: reason.to_owned(),
            blocked_by: actor.principal.as_str().to_owned(),
            blocked_at: self.clock().now(),
        };
        self.storage().block_principal(&blocked).await?;
        Ok(blocked)
    }

    /// Records that a principal may call again.
    ///
    /// # Errors
    /// `NotFound` when it was not blocked.
    pub async fn unblock_principal(&self, actor: &Actor, principal: &Principal) -> Result<(), Error> {
        let outcome = match self.storage().unblock_principal(principal).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::not_found("blocked principal", principal)),
            Err(error) => Err(error.into()),
        };
        audited(actor, "principal.unblock", principal.as_str(), outcome)
    }

    /// Blocked principals in order of their names.
    ///
    /// # Errors
    /// Those of storage.
    pub async fn list_blocked_principals(&self, page: &PageRequest) -> Result<Page<BlockedPrincipal>, Error> {
        Ok(self.storage().list_blocked_principals(page).await?)
    }

    /// Records that a caller token of the built-in issuer was issued, or refused.
    pub fn record_issued_caller_token(
        &self,
        actor: &Actor,
        principal: &str,
        outcome: Result<(), crate::Reason>,
    ) {
        audit::admin(actor, "principal.issue_caller_token", principal, outcome);
    }
}
