//! What surrounds every call: request identifier, caller, role, load, time limit, counts, and the one log event of a call
//! that failed.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Request, Response};
use tokenward_auth::{Authenticator, Caller, bearer_token};
use tokenward_broker::{Broker, Error, Reason};
use tokio::runtime::Handle;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::{Code, Status};
use tower_service::Service;
use tracing::Instrument;

use super::call::{Call, Refusal};
use super::direct::GET_TOKEN;
use super::methods::is_open;
use super::metrics::{CallMetrics, MeteredMethod, UNKNOWN_METHOD};
use super::open::{self, MAX_OPEN};
use super::report;
use super::request_id::{CallId, REQUEST_ID, RequestIds, request_span};
use super::token_service::Tokens;
use super::verification::{TurnedAway, verify};
use crate::admission::Admission;
use crate::error_table::to_status;

/// The header in which a caller says how long it waits.
const GRPC_TIMEOUT: &str = "grpc-timeout";
/// Ours ends this much before the caller's, so that the answer with its reason still arrives.
const TIMEOUT_MARGIN: Duration = Duration::from_millis(5);
/// What callers are told to wait when too many call at once.
const OVERLOAD_WAIT: Duration = Duration::from_millis(500);

/// What every call needs; shared by all threads.
pub(crate) struct Gate {
    /// Tells who calls.
    pub authenticator: Arc<Authenticator>,
    /// For the clock.
    pub broker: Broker,
    /// Methods, and what is counted of them.
    pub metrics: CallMetrics,
    /// The runtime for whatever takes long.
    pub main: Handle,
    /// The longest that a call takes.
    pub timeout: Duration,
    /// Places of callers whose tokens are being verified.
    pub verifying: Admission,
    /// Places of calls of the admin API.
    pub administering: Admission,
}

/// The layer around the services of one listener, or of one of its threads. Clones share the count of calls.
#[derive(Clone)]
pub(crate) struct CallService {
    inner: Routes,
    /// Answers GetToken without the router; only the service listener has it.
    tokens: Option<Arc<Tokens>>,
    gate: Arc<Gate>,
    ids: Arc<RequestIds>,
    in_flight: Arc<AtomicUsize>,
    max_in_flight: usize,
    open: Arc<AtomicUsize>,
}

impl CallService {
    /// A layer around `inner` that lets `max_in_flight` calls through at once.
    pub(crate) fn new(inner: Routes, gate: Arc<Gate>, max_in_flight: usize) -> Self {
        let ids = Arc::new(RequestIds::new(gate.broker.rng()));
        let (in_flight, open) = Default::default();
        Self { inner: inner.prepare(), tokens: None, gate, ids, in_flight, max_in_flight, open }
    }

    /// Answers GetToken directly.
    pub(crate) fn with_tokens(mut self, tokens: Arc<Tokens>) -> Self {
        self.tokens = Some(tokens);
        self
    }

    async fn answer(mut self, request: Request<Body>) -> Response<Body> {
        if is_open(request.uri().path()) {
            return self.answer_open(request).await;
        }
        let gate = Arc::clone(&self.gate);
        let started = gate.broker.clock().monotonic();
        let id = self.ids.of(request.headers());
        let method = gate.metrics.find(request.uri().path());
        let mut caller = None;
        let mut response = match method {
            None => Status::unimplemented("there is no such method").into_http(),
            Some(method) => match self.admit(request, method, &id, &mut caller).await {
                Ok(response) => response,
                Err(error) => super::call::refuse(error).into_http(),
            },
        };
        let failed = response.headers().contains_key(Status::GRPC_STATUS);
        if failed {
            let name = method.map_or(UNKNOWN_METHOD, |method| method.method.name);
            response = report::failure(&gate.metrics, name, &id.to_id(), caller.as_deref(), &response);
        } else if let Some(method) = method {
            method.count_ok();
        }
        if let Some(method) = method {
            method.latency.observe(gate.broker.clock().monotonic().since(started));
        }
        if let Some(value) = id.header(failed) {
            response.headers_mut().insert(REQUEST_ID, value);
        }
        response
    }

    /// Answers a call that needs no caller token.
    async fn answer_open(&mut self, request: Request<Body>) -> Response<Body> {
        match Slot::take(&self.open, MAX_OPEN) {
            Ok(slot) => open::holding(self.route(request).await, slot),
            Err(error) => to_status(&error, &self.ids.of(request.headers()).to_id()).into_http(),
        }
    }

    /// Lets a call through to its handler if caller, role and load allow.
    async fn admit(
        &mut self,
        mut request: Request<Body>,
        method: &MeteredMethod,
        id: &CallId,
        caller_out: &mut Option<Arc<Caller>>,
    ) -> Result<Response<Body>, Error> {
        let _slot = Slot::take(&self.in_flight, self.max_in_flight)?;
        let mut patience = self.patience(request.headers());
        let caller = self.authenticate(request.headers(), &mut patience).await.map_err(|away| {
            *caller_out = away.caller;
            away.error
        })?;
        *caller_out = Some(Arc::clone(&caller));
        let roles = method.method.roles;
        if !roles.contains(&caller.role) {
            let names: Vec<_> = roles.iter().map(|role| role.as_str()).collect();
            let names = names.join(", ");
            return Err(Error::new(
                Reason::RoleRequired,
                format!("the role {} may not call this method; these may: {names}", caller.role),
            )
            .with("allowed_roles", names));
        }
        let call = Call { caller, id: id.clone(), patience };
        let direct = self.tokens.as_ref().filter(|_| request.uri().path() == GET_TOKEN);
        if let Some(tokens) = direct {
            let answering = Arc::clone(tokens).answer_directly(call, request);
            return tokio::time::timeout(patience, answering).await.map_err(|_| too_late(patience));
        }
        let principal = call.caller.principal.as_str();
        let place = method.method.is_admin.then(|| self.gate.administering.enter(principal, None));
        let place = place.transpose()?;
        request.extensions_mut().insert(call);
        let answering = async {
            if !method.method.changes {
                return Ok(self.route(request).await);
            }
            let mut detached = self.clone();
            let work = async move {
                // Whoever goes away gives back the place of a change when the change is done.
                let _place = place;
                detached.route(request).await
            };
            let task = self.gate.main.spawn(work.instrument(request_span(&id.to_id())));
            task.await.map_err(|error| Error::new(Reason::Internal, "internal error").internal(error))
        };
        tokio::time::timeout(patience, answering).await.unwrap_or_else(|_| Err(too_late(patience)))
    }

    /// Who calls. What of `patience` that took is gone.
    async fn authenticate(
        &self,
        headers: &HeaderMap,
        patience: &mut Duration,
    ) -> Result<Arc<Caller>, TurnedAway> {
        let bearer = bearer_token(headers.get(AUTHORIZATION).map(HeaderValue::as_bytes))?;
        if let Some(caller) = self.gate.authenticator.cached(bearer) {
            return Ok(caller);
        }
        let clock = self.gate.broker.clock();
        let started = clock.monotonic();
        let verdict = verify(&self.gate, bearer, *patience).await;
        *patience = patience.saturating_sub(clock.monotonic().since(started));
        verdict
    }

    /// How long the caller, and the server, lets a call take.
    fn patience(&self, headers: &HeaderMap) -> Duration {
        let asked = headers.get(GRPC_TIMEOUT).and_then(|value| parse_timeout(value.as_bytes()));
        asked.map_or(self.gate.timeout, |asked| self.gate.timeout.min(asked.saturating_sub(TIMEOUT_MARGIN)))
    }

    async fn route(&mut self, request: Request<Body>) -> Response<Body> {
        match self.inner.call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

/// One of a number of calls; given back when it is dropped.
pub(crate) struct Slot(Arc<AtomicUsize>);

impl Slot {
    fn take(count: &Arc<AtomicUsize>, most: usize) -> Result<Self, Error> {
        let slot = Self(Arc::clone(count));
        if slot.0.fetch_add(1, Ordering::Relaxed) < most {
            return Ok(slot);
        }
        Err(Error::new(Reason::Overloaded, "too many calls at once").retry_after(OVERLOAD_WAIT))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Service<Request<Body>> for CallService {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request<Body>>::poll_ready(&mut self.inner, cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move { Ok(this.answer(request).await) })
    }
}

/// A call that took longer than it may.
pub(crate) fn too_late(patience: Duration) -> Error {
    Error::new(
        Reason::DeadlineExceeded,
        format!("it took longer than {} ms; work that was begun goes on", patience.as_millis()),
    )
}

/// The value of `grpc-timeout`: at most 8 digits and a unit.
fn parse_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    match unit {
        b'H' => Some(Duration::from_secs(count * 3600)),
        b'M' => Some(Duration::from_secs(count * 60)),
        b'S' => Some(Duration::from_secs(count)),
        b'm' => Some(Duration::from_millis(count)),
        b'u' => Some(Duration::from_micros(count)),
        b'n' => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

/// The error that an answer stands for: a handler's own, or what tonic's refusal of a request means to a caller. `None`
/// for what has no reason of ours, such as a method that is not there.
pub(crate) fn error_of(status: &Status) -> Option<(Error, Option<&tokenward_types::TenantId>)> {
    use std::error::Error as _;
    if let Some(refusal) = status.source().and_then(|source| source.downcast_ref::<Refusal>()) {
        return Some((refusal.error.clone(), refusal.tenant.as_ref()));
    }
    match status.code() {
        // Nothing of ours answers this code: tonic does, for a message above the limit.
        Code::OutOfRange => Some((
            Error::new(Reason::RequestTooLarge, "the request is larger than 64 KiB")
                .internal(status.message()),
            None,
        )),
        // Handlers answer INTERNAL with a refusal only: this is tonic's decoder.
        Code::Internal => Some((
            Error::new(Reason::InvalidRequest, "the request is not the message that the method takes")
                .internal(status.message()),
            None,
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callers_patience_is_understood_in_every_unit() {
        assert_eq!(parse_timeout(b"2H"), Some(Duration::from_secs(7200)));
        assert_eq!(parse_timeout(b"1M"), Some(Duration::from_secs(60)));
        assert_eq!(parse_timeout(b"3S"), Some(Duration::from_secs(3)));
        assert_eq!(parse_timeout(b"250m"), Some(Duration::from_millis(250)));
        assert_eq!(parse_timeout(b"99999999u"), Some(Duration::from_micros(99_999_999)));
        assert_eq!(parse_timeout(b"1n"), Some(Duration::from_nanos(1)));
        for bad in ["", "S", "1", "-1S", "123456789S", "1s", "1 S"] {
            assert_eq!(parse_timeout(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn what_tonic_refuses_gets_a_reason() {
        let reason = |status: Status| error_of(&status).map(|(error, _)| error.reason);
        assert_eq!(reason(Status::out_of_range("65537 bytes")), Some(Reason::RequestTooLarge));
        assert_eq!(reason(Status::internal("failed to decode")), Some(Reason::InvalidRequest));
        assert_eq!(reason(Status::unimplemented("")), None);
    }

    #[test]
    fn a_handlers_refusal_arrives_with_its_tenant() {
        let status =
            super::super::call::refuse_for("acme", Error::new(Reason::Internal, "x").internal("why"));
        let (error, tenant) = error_of(&status).unwrap();
        assert_eq!((error.reason, error.log_detail().as_str()), (Reason::Internal, "why"));
        assert_eq!(tenant.unwrap().as_str(), "acme");
        let status = super::super::call::refuse_for("a\nb", Error::new(Reason::NotFound, "x"));
        assert!(error_of(&status).unwrap().1.is_none(), "what is no tenant stays out of the log");
    }
}
