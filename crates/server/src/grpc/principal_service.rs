//! Caller tokens of the built-in issuer, and blocked principals.

use std::sync::Arc;

use secrecy::ExposeSecret;
use tokenward_api::admin::v1 as api;
use tokenward_api::admin::v1::principal_service_server::PrincipalService;
use tokenward_auth::{Authenticator, BuiltinIssuer, DEFAULT_LIFETIME, IssueError, IssuedToken, Role};
use tokenward_broker::{Actor, Broker, Error, Reason};
use tokenward_storage::BlockedPrincipal;
use tokenward_types::Principal;
use tonic::{Request, Response, Status};

use super::call::{Call, refuse};
use super::convert::{self, id};
use super::page_token::Listing;

/// The service.
pub(crate) struct Principals {
    /// The use cases.
    pub broker: Broker,
    /// Told of every block.
    pub authenticator: Arc<Authenticator>,
    /// Signs caller tokens, where it is switched on.
    pub issuer: Option<Arc<BuiltinIssuer>>,
}

const LISTING: Listing<'_> = Listing { method: "ListBlockedPrincipals", filter: &[] };

fn role(role: i32) -> Result<Role, Error> {
    match api::Role::try_from(role) {
        Ok(api::Role::Unspecified | api::Role::Service) => Ok(Role::Service),
        Ok(api::Role::Operator) => Ok(Role::Operator),
        Ok(api::Role::Admin) => Ok(Role::Admin),
        Ok(api::Role::Auditor) => Ok(Role::Auditor),
        Err(_) => Err(Error::invalid("role", "is not a role")),
    }
}

fn message(blocked: BlockedPrincipal) -> api::BlockedPrincipal {
    api::BlockedPrincipal {
        principal: blocked.principal.as_str().to_owned(),
        reason: blocked.reason,
        blocker: blocked.blocked_by,
        block_time: Some(convert::timestamp(blocked.blocked_at)),
    }
}

fn not_issued(error: IssueError) -> Error {
    match error {
        IssueError::InvalidSubject(_) | IssueError::EmptyOrColon => Error::invalid("subject", error),
        IssueError::InvalidLifetime => Error::invalid("ttl", error),
        IssueError::Signing => Error::new(Reason::Internal, "internal error").internal(error),
    }
}

impl Principals {
    fn issue(&self, request: &api::IssueCallerTokenRequest) -> Result<IssuedToken, Error> {
        let issuer = self.issuer.as_ref().ok_or_else(|| {
            Error::new(Reason::NotFound, "the built-in issuer is switched off in this server's configuration")
        })?;
        let ttl = convert::read_duration("ttl", request.ttl)?.unwrap_or(DEFAULT_LIFETIME);
        let role = role(request.role)?;
        issuer.issue(&request.subject, role, ttl, self.broker.rng(), self.broker.clock()).map_err(not_issued)
    }

    async fn block(
        &self,
        actor: &Actor,
        request: &api::BlockPrincipalRequest,
    ) -> Result<BlockedPrincipal, Error> {
        let principal: Principal = id(&request.principal)?;
        let blocked = self.broker.block_principal(actor, &principal, &request.reason).await?;
        self.authenticator.block(&principal);
        self.reload_blocked().await;
        Ok(blocked)
    }

    async fn unblock(&self, actor: &Actor, principal: &str) -> Result<(), Error> {
        let principal: Principal = id(principal)?;
        self.broker.unblock_principal(actor, &principal).await?;
        self.authenticator.unblock(&principal);
        self.reload_blocked().await;
        Ok(())
    }

    /// A reading that began before the change may have ended after it.
    async fn reload_blocked(&self) {
        if let Err(error) = self.broker.reload_blocked().await {
            tracing::warn!(%error, "cannot read who is blocked; the change log brings it");
        }
    }
}

#[tonic::async_trait]
impl PrincipalService for Principals {
    async fn issue_caller_token(
        &self,
        request: Request<api::IssueCallerTokenRequest>,
    ) -> Result<Response<api::IssueCallerTokenResponse>, Status> {
        let (actor, request) = Call::actor(request)?;
        let outcome = self.issue(&request);
        // A subject that was refused is the caller's text, of whatever length: it is not written down.
        let principal = outcome.as_ref().map_or("", |issued| issued.principal.as_str());
        let audited = outcome.as_ref().map(|_| ()).map_err(|error| error.reason);
        self.broker.record_issued_caller_token(&actor, principal, audited);
        let issued = outcome.map_err(refuse)?;
        Ok(Response::new(api::IssueCallerTokenResponse {
            caller_token: issued.token.expose_secret().to_owned(),
            principal: issued.principal.as_str().to_owned(),
            expire_time: Some(convert::timestamp(issued.expires_at)),
        }))
    }

    async fn block_principal(
        &self,
        request: Request<api::BlockPrincipalRequest>,
    ) -> Result<Response<api::BlockedPrincipal>, Status> {
        let (actor, request) = Call::actor(request)?;
        let blocked = self.block(&actor, &request).await.map_err(refuse)?;
        Ok(Response::new(message(blocked)))
    }

    async fn unblock_principal(
        &self,
        request: Request<api::UnblockPrincipalRequest>,
    ) -> Result<Response<()>, Status> {
        let (actor, request) = Call::actor(request)?;
        self.unblock(&actor, &request.principal).await.map_err(refuse)?;
        Ok(Response::new(()))
    }

    async fn list_blocked_principals(
        &self,
        request: Request<api::ListBlockedPrincipalsRequest>,
    ) -> Result<Response<api::ListBlockedPrincipalsResponse>, Status> {
        let request = request.into_inner();
        let page = LISTING.page(request.page_size, &request.page_token).map_err(refuse)?;
        let page = self.broker.list_blocked_principals(&page).await.map_err(refuse)?;
        Ok(Response::new(api::ListBlockedPrincipalsResponse {
            next_page_token: LISTING.next(page.next.as_deref()),
            blocked_principals: page.items.into_iter().map(message).collect(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_without_a_role_is_a_services() {
        assert_eq!(role(0).unwrap(), Role::Service);
        assert_eq!(role(3).unwrap(), Role::Admin);
        assert_eq!(role(9).unwrap_err().metadata["field"], "role");
    }

    #[test]
    fn what_is_wrong_with_a_request_for_a_token_is_named() {
        assert_eq!(not_issued(IssueError::EmptyOrColon).metadata["field"], "subject");
        assert_eq!(not_issued(IssueError::InvalidLifetime).metadata["field"], "ttl");
        assert_eq!(not_issued(IssueError::Signing).reason, Reason::Internal);
    }
}
