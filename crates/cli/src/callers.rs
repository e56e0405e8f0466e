//! Who is blocked and which keys sign: from the change log to the authenticator.

use std::sync::Arc;

use async_trait::async_trait;
use tokenward_auth::Authenticator;
use tokenward_broker::{Broker, Error, Reason};
use tokenward_config::BuiltinIssuer;
use tokenward_types::Principal;

use crate::issuer;

/// Tells the authenticator what the change log says about callers.
pub(crate) struct FollowedCallers {
    /// Whom it tells.
    pub(crate) authenticator: Arc<Authenticator>,
    /// Whether and how the built-in issuer is used.
    pub(crate) builtin_issuer: BuiltinIssuer,
}

#[async_trait]
impl tokenward_broker::Callers for FollowedCallers {
    fn set_blocked(&self, blocked: Vec<Principal>) {
        self.authenticator.set_blocked(blocked);
    }

    fn is_blocked(&self, principal: &Principal) -> bool {
        self.authenticator.is_blocked(principal)
    }

    async fn reload_issuer_keys(&self, broker: &Broker) -> Result<(), Error> {
        let builtin =
            issuer::load(&self.builtin_issuer, &**broker.storage(), broker.sealer(), broker.clock()).await;
        let builtin = builtin.map_err(|failure| {
            Error::new(Reason::Internal, "the keys of the built-in issuer cannot be read")
                .internal(failure.to_string())
        })?;
        if let Some(builtin) = builtin {
            self.authenticator.set_builtin_keys(&builtin.verification_keys());
        }
        Ok(())
    }
}
