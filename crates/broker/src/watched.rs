//! What providers' calls came to lately. Nobody is asked for it: a vendor that is away is seen by those who need it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokenward_provider::{
    AuthorizeRequest, ClientCredentials, ErrorClass, Introspection, Provider, ProviderError, ProviderInfo,
    TokenAnswer, TokenHint,
};
use tokenward_types::{Clock, Monotonic, SecretString};
use url::Url;

/// So many calls in a row without an answer that can be understood are more than one account's trouble.
const SILENT_CALLS: u32 = 3;
/// After so long without a call nothing is known any more.
const MEMORY: Duration = Duration::from_mins(10);

/// What a provider's calls came to lately.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProviderHealth {
    /// Nothing was asked in the last ten minutes.
    Unknown,
    /// The last answer was one.
    Ok,
    /// The last answer was that an OAuth client asks too often.
    Throttled,
    /// The last answer was that the credentials of an OAuth client are wrong.
    Refusing,
    /// The last three calls or more brought no answer, or none that can be understood.
    Unreachable,
}

impl ProviderHealth {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Ok => "ok",
            Self::Throttled => "throttled",
            Self::Refusing => "refusing",
            Self::Unreachable => "unreachable",
        }
    }
}

/// The outcomes of a provider's calls, as far as they say something about the provider.
#[derive(Debug)]
struct Outcomes {
    answer: ProviderHealth,
    silent: u32,
    last_call: Option<Monotonic>,
}

impl Outcomes {
    const NONE: Self = Self { answer: ProviderHealth::Unknown, silent: 0, last_call: None };

    fn add(&mut self, outcome: Result<(), ErrorClass>, now: Monotonic) {
        self.last_call = Some(now);
        let answer = match outcome {
            Err(ErrorClass::NotSent | ErrorClass::OutcomeUnknown) => {
                self.silent = self.silent.saturating_add(1);
                return;
            }
            Err(ErrorClass::RateLimited) => ProviderHealth::Throttled,
            Err(ErrorClass::ClientConfig) => ProviderHealth::Refusing,
            // Words about one grant, one account, one attempt.
            Ok(())
            | Err(
                ErrorClass::GrantDead
                | ErrorClass::ConnectAttempt
                | ErrorClass::AccountUnavailable
                | ErrorClass::Unexpected,
            ) => ProviderHealth::Ok,
        };
        (self.answer, self.silent) = (answer, 0);
    }

    fn health(&self, now: Monotonic) -> ProviderHealth {
        let is_known = self.last_call.is_some_and(|at| now.since(at) < MEMORY);
        match self.silent {
            _ if !is_known => ProviderHealth::Unknown,
            SILENT_CALLS.. => ProviderHealth::Unreachable,
            _ => self.answer,
        }
    }
}

/// A provider whose calls are watched.
pub(crate) struct Watched {
    inner: Arc<dyn Provider>,
    clock: Arc<dyn Clock>,
    outcomes: Mutex<Outcomes>,
}

impl Watched {
    pub(crate) fn new(inner: Arc<dyn Provider>, clock: Arc<dyn Clock>) -> Self {
        Self { inner, clock, outcomes: Mutex::new(Outcomes::NONE) }
    }

    /// What its calls came to lately.
    pub(crate) fn health(&self) -> ProviderHealth {
        self.outcomes.lock().health(self.clock.monotonic())
    }

    fn note<T>(&self, outcome: Result<T, ProviderError>) -> Result<T, ProviderError> {
        let class = outcome.as_ref().map(|_| ()).map_err(|error| error.class);
        self.outcomes.lock().add(class, self.clock.monotonic());
        outcome
    }
}

#[async_trait]
impl Provider for Watched {
    fn info(&self) -> &ProviderInfo {
        self.inner.info()
    }

    fn call_timeout(&self) -> Duration {
        self.inner.call_timeout()
    }

    fn authorize_url(&self, request: &AuthorizeRequest<'_>) -> Url {
        self.inner.authorize_url(request)
    }

    async fn exchange_code(
        &self,
        credentials: &ClientCredentials,
        code: &SecretString,
        redirect_uri: &str,
        pkce_verifier: Option<&SecretString>,
    ) -> Result<TokenAnswer, ProviderError> {
        self.note(self.inner.exchange_code(credentials, code, redirect_uri, pkce_verifier).await)
    }

    async fn refresh(
        &self,
        credentials: &ClientCredentials,
        refresh_token: &SecretString,
    ) -> Result<TokenAnswer, ProviderError> {
        self.note(self.inner.refresh(credentials, refresh_token).await)
    }

    // What a vendor cannot be asked at all is no word about how it does.
    async fn introspect(
        &self,
        credentials: &ClientCredentials,
        token: &SecretString,
        hint: TokenHint,
    ) -> Result<Introspection, ProviderError> {
        let answer = self.inner.introspect(credentials, token, hint).await;
        if self.inner.info().introspection { self.note(answer) } else { answer }
    }

    async fn revoke(
        &self,
        credentials: &ClientCredentials,
        refresh_token: &SecretString,
    ) -> Result<(), ProviderError> {
        let answer = self.inner.revoke(credentials, refresh_token).await;
        if self.inner.info().revocation { self.note(answer) } else { answer }
    }

    async fn check_credentials(&self, credentials: &ClientCredentials) -> Option<bool> {
        self.inner.check_credentials(credentials).await
    }
}

#[cfg(test)]
mod tests {
    use tokenward_types::{ManualClock, Timestamp};

    use super::*;

    fn start() -> Monotonic {
        ManualClock::new(Timestamp::from_secs(0)).monotonic()
    }

    fn after(outcomes: &[Result<(), ErrorClass>]) -> ProviderHealth {
        let mut seen = Outcomes::NONE;
        for outcome in outcomes {
            seen.add(*outcome, start());
        }
        seen.health(start())
    }

    #[test]
    fn the_last_answer_counts_and_three_calls_without_one() {
        use ErrorClass::{ClientConfig, GrantDead, NotSent, OutcomeUnknown, RateLimited};
        assert_eq!(after(&[]), ProviderHealth::Unknown);
        assert_eq!(after(&[Ok(())]), ProviderHealth::Ok);
        assert_eq!(after(&[Err(GrantDead)]), ProviderHealth::Ok, "that is one tenant's trouble");
        assert_eq!(after(&[Ok(()), Err(RateLimited)]), ProviderHealth::Throttled);
        assert_eq!(after(&[Ok(()), Err(ClientConfig)]), ProviderHealth::Refusing);
        assert_eq!(after(&[Ok(()), Err(NotSent), Err(OutcomeUnknown)]), ProviderHealth::Ok);
        let away = [Ok(()), Err(NotSent), Err(OutcomeUnknown), Err(NotSent)];
        assert_eq!(after(&away), ProviderHealth::Unreachable);
        assert_eq!(after(&[&away[..], &[Ok(())]].concat()), ProviderHealth::Ok);
    }

    #[test]
    fn what_was_seen_long_ago_says_nothing_any_more() {
        let mut seen = Outcomes::NONE;
        seen.add(Ok(()), start());
        assert_eq!(seen.health(start() + MEMORY / 2), ProviderHealth::Ok);
        assert_eq!(seen.health(start() + MEMORY), ProviderHealth::Unknown);
    }
}
