//! Callers whose tokens are not known yet. Verifying a signature takes long, and fetching keys longer: neither belongs on
//! the thread that the call came in on, and neither may be had without end.

use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokenward_auth::{AuthError, AuthErrorReason, Caller};
use tokenward_broker::{Error, Reason};
use tokio::task::JoinSet;

use super::layer::{Gate, too_late};

/// A caller that is not let in.
pub(crate) struct TurnedAway {
    /// What it is told.
    pub error: Error,
    /// Who it is, where that is certain.
    pub caller: Option<Arc<Caller>>,
}

impl From<Error> for TurnedAway {
    fn from(error: Error) -> Self {
        Self { error, caller: None }
    }
}

impl From<AuthError> for TurnedAway {
    fn from(error: AuthError) -> Self {
        let reason = match error.reason() {
            AuthErrorReason::Missing => Reason::CallerTokenMissing,
            AuthErrorReason::Expired => Reason::CallerTokenExpired,
            AuthErrorReason::Blocked => Reason::CallerBlocked,
            AuthErrorReason::KeysUnavailable => Reason::CallerKeysUnavailable,
            AuthErrorReason::Malformed
            | AuthErrorReason::UnsupportedAlgorithm
            | AuthErrorReason::UnknownIssuer
            | AuthErrorReason::UnknownKey
            | AuthErrorReason::BadSignature
            | AuthErrorReason::NotYetValid
            | AuthErrorReason::WrongAudience
            | AuthErrorReason::MissingClaim
            | AuthErrorReason::LifetimeTooLong
            | AuthErrorReason::RoleNotAllowed => Reason::CallerTokenInvalid,
        };
        let caller = error.caller().cloned();
        let answer = Error::new(reason, error.public_message()).internal(error.detail());
        let retryable = error.reason().is_retryable();
        let error = if retryable { answer.retry_after(Duration::from_secs(1)) } else { answer };
        Self { error, caller }
    }
}

/// Verifies a caller token elsewhere. What says nothing of value is refused here, and what names a principal waits among
/// the others' tokens: whoever makes a new token for each call keeps nobody else from being verified.
///
/// # Errors
/// Why the caller is not let in; `Overloaded`; `DeadlineExceeded` when it has no more patience.
pub(crate) async fn verify(gate: &Gate, bearer: &str, patience: Duration) -> Result<Arc<Caller>, TurnedAway> {
    let claimed = gate.authenticator.claimed_principal(bearer)?;
    let place = gate.verifying.enter(&claimed, None)?;
    let authenticator = Arc::clone(&gate.authenticator);
    let bearer = SecretString::from(bearer);
    // Ends with the caller: keys that it asks for are fetched in a task of their own.
    let mut tasks = JoinSet::new();
    tasks.spawn_on(
        async move {
            let _place = place;
            authenticator.authenticate(bearer.expose_secret()).await
        },
        &gate.main,
    );
    match tokio::time::timeout(patience, tasks.join_next()).await {
        Ok(Some(Ok(verdict))) => Ok(verdict?),
        Ok(Some(Err(error))) => Err(AuthError::unchecked(&error.to_string()).into()),
        Ok(None) => Err(AuthError::unchecked("no verdict").into()),
        Err(_) => Err(too_late(patience).into()),
    }
}
