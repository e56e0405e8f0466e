//! The client.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokenward_api::v1;
use tokenward_api::v1::report_rejected_token_response::Outcome;
use tokenward_api::v1::token_service_client::TokenServiceClient;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::address::Addresses;
use crate::builder::TokenClientBuilder;
use crate::cache::TokenCache;
use crate::caller_token::{Bearer, CallerToken};
use crate::error::{Error, ErrorKind};
use crate::request::TokenRequest;
use crate::retry::{Advice, Backoff, advice};
use crate::source::BoundSource;
use crate::time::Time;
use crate::token::AccessToken;

/// The largest answer that is read. A token with 500 scopes is well below.
const MAX_ANSWER: usize = 512 * 1024;

/// When no server could be reached, that is believed for so long where a cached token lives: its callers do not wait for
/// every try to fail once more.
const BELIEVE_OUTAGE: Duration = Duration::from_secs(2);

/// What became of a report of a rejected token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReportOutcome {
    /// The token was not the current one any more: ask again.
    Superseded,
    /// The provider says that the token lives: the refusal has another cause, such as a missing scope.
    Alive,
    /// The token was dead and has been replaced: ask again.
    Replaced,
    /// It could not be verified or replaced now: ask again later.
    Unverified,
}

/// Gets access tokens. Clones share connections and cache.
#[derive(Clone)]
pub struct TokenClient(Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) addresses: Addresses,
    pub(crate) caller: CallerToken,
    pub(crate) cache: TokenCache,
    pub(crate) limits: Limits,
    pub(crate) outage: Outage,
    pub(crate) time: Arc<dyn Time>,
}

/// Until when no server is tried while a cached token lives.
#[derive(Default)]
pub(crate) struct Outage(Mutex<Option<Instant>>);

impl Outage {
    fn lasts(&self, now: Instant) -> bool {
        self.0.lock().is_some_and(|until| now < until)
    }
}

/// How long and how often a call is tried.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// For all tries together.
    pub(crate) timeout: Duration,
    /// For one try.
    pub(crate) attempt_timeout: Duration,
    /// How often all addresses are tried.
    pub(crate) rounds: u32,
    pub(crate) backoff: Backoff,
}

impl TokenClient {
    /// Starts to set up a client.
    pub fn builder() -> TokenClientBuilder {
        TokenClientBuilder::default()
    }

    pub(crate) fn from_shared(shared: Shared) -> Self {
        Self(Arc::new(shared))
    }

    /// A token, from memory where possible.
    ///
    /// # Errors
    /// [`Error::kind`] says who can help. What another try could help was tried again already.
    pub async fn get_token(&self, request: &TokenRequest) -> Result<AccessToken, Error> {
        let shared = &self.0;
        if let Some(token) = shared.cache.fresh(request, shared.time.now()) {
            return Ok(token);
        }
        if shared.outage.lasts(shared.time.now())
            && let Some(token) = shared.cache.living(request, shared.time.now())
        {
            return Ok(token);
        }
        let work = || {
            let (client, request) = (self.clone(), request.clone());
            async move { client.fetch(&request).await }
        };
        let error = match shared.cache.join(request, work).await {
            Ok(token) => return Ok(token),
            Err(error) => error,
        };
        // An outage of the servers need not be one of their callers.
        match shared.cache.living(request, shared.time.now()) {
            Some(token) if error.kind() == ErrorKind::Unavailable => {
                tracing::warn!(%error, fingerprint = token.fingerprint(), "no answer: serving a cached token");
                if !error.is_from_server() {
                    let believed = BELIEVE_OUTAGE.mul_f64(1.0 + shared.time.jitter());
                    *shared.outage.0.lock() = Some(shared.time.now() + believed);
                }
                Ok(token)
            }
            _ => Err(error),
        }
    }

    /// Tells that the provider's API answered 401 to `token`, and forgets it: the next [`TokenClient::get_token`] asks
    /// the server.
    ///
    /// # Errors
    /// As [`TokenClient::get_token`]; the token is forgotten in any case.
    pub async fn report_rejected(&self, token: &AccessToken) -> Result<ReportOutcome, Error> {
        self.0.cache.forget(token);
        let message = v1::ReportRejectedTokenRequest {
            tenant_id: token.tenant_id().to_owned(),
            connection_id: token.connection_id().to_owned(),
            fingerprint: token.fingerprint().to_owned(),
        };
        let (answer, _) = self
            .with_retries(
                |mut server, request| async move { server.report_rejected_token(request).await },
                message,
            )
            .await?;
        Ok(match answer.outcome() {
            Outcome::Superseded => ReportOutcome::Superseded,
            Outcome::Alive => ReportOutcome::Alive,
            Outcome::Replaced => ReportOutcome::Replaced,
            Outcome::Unverified | Outcome::Unspecified => ReportOutcome::Unverified,
        })
    }

    /// Binds a request, for code that only wants "the token".
    pub fn source(&self, request: TokenRequest) -> BoundSource {
        BoundSource::new(self.clone(), request)
    }

    async fn fetch(&self, request: &TokenRequest) -> Result<AccessToken, Error> {
        let shared = &self.0;
        // Another call may have ended between the look into the cache and here.
        if let Some(token) = shared.cache.fresh(request, shared.time.now()) {
            return Ok(token);
        }
        let (answer, sent) = self
            .with_retries(
                |mut server, request| async move { server.get_token(request).await },
                request.to_message(),
            )
            .await?;
        if answer.access_token.is_empty() {
            return Err(Error::local(
                ErrorKind::Internal,
                "EMPTY_ANSWER",
                "the server's answer carries no token",
            ));
        }
        let token = AccessToken::from_message(&request.tenant, answer, sent);
        shared.cache.insert(request, token.clone(), sent);
        Ok(token)
    }

    /// Calls until it works, nothing helps, or time is up. Returns the answer and when its request was sent.
    async fn with_retries<Q, A, F>(
        &self,
        call: impl Fn(TokenServiceClient<Channel>, tonic::Request<Q>) -> F,
        message: Q,
    ) -> Result<(A, Instant), Error>
    where
        Q: Clone,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let Shared { addresses, caller, limits, time, .. } = &*self.0;
        let deadline = time.now() + limits.timeout;
        let mut bearer = caller.get(&**time).await;
        let mut reread = false;
        let mut round = 1;
        let mut addresses_tried = 0;
        loop {
            let sent = time.now();
            // A server that hangs must leave time for those that were not tried yet.
            let untried = addresses.len().saturating_sub(addresses_tried).max(1);
            let part = deadline.saturating_duration_since(sent) / u32::try_from(untried).unwrap_or(u32::MAX);
            let patience = limits.attempt_timeout.min(part);
            let target = addresses.current();
            let request = authorized(message.clone(), &bearer, patience);
            let server =
                TokenServiceClient::new(target.channel.clone()).max_decoding_message_size(MAX_ANSWER);
            let error = match tokio::time::timeout(patience, call(server, request)).await {
                Ok(Ok(answer)) => return Ok((answer.into_inner(), sent)),
                Ok(Err(status)) => Error::from_status(&status),
                Err(_) => Error::local(ErrorKind::Unavailable, "DEADLINE_EXCEEDED", "no answer in time"),
            };
            let mut wait = Duration::ZERO;
            match advice(&error) {
                Advice::GiveUp => return Err(error),
                Advice::OtherCallerToken => {
                    let current = caller.reread().await;
                    if reread || current == bearer {
                        return Err(error);
                    }
                    reread = true;
                    bearer = current;
                    continue;
                }
                Advice::OtherAddress => {
                    addresses_tried += 1;
                    addresses.leave(&target, !error.is_from_server());
                    tracing::warn!(address = target.name, %error, "server not usable: going on to the next");
                    if addresses_tried >= addresses.len() {
                        wait = limits.backoff.wait(round, &error, &**time);
                    }
                }
                Advice::Wait => wait = limits.backoff.wait(round, &error, &**time),
            }
            if !wait.is_zero() {
                round += 1;
                addresses_tried = 0;
            }
            if round > limits.rounds || time.now() + wait >= deadline {
                return Err(error);
            }
            if !wait.is_zero() {
                time.sleep(wait).await;
            }
        }
    }
}

fn authorized<Q>(message: Q, bearer: &Bearer, patience: Duration) -> tonic::Request<Q> {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("authorization", bearer.clone());
    request.set_timeout(patience);
    request
}

impl fmt::Debug for TokenClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenClient")
            .field("addresses", &self.0.addresses)
            .field("caller", &self.0.caller)
            .field("limits", &self.0.limits)
            .finish_non_exhaustive()
    }
}
