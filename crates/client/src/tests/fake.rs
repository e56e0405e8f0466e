//! A TokenService that answers by a script, and a clock that only tests move.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokenward_api::v1;
use tokenward_api::v1::token_service_server::{TokenService, TokenServiceServer};
use tokio::net::TcpListener;
use tokio::runtime::{self, Runtime};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::time::Time;
use crate::{TokenClient, TokenClientBuilder};

/// A caller token that no output may show.
pub(super) const CALLER_TOKEN: &str = "caller-hunter2";

/// A clock that stands still, except that sleeping moves it at once.
#[derive(Debug)]
pub(super) struct FakeTime {
    now: Mutex<Instant>,
    slept: Mutex<Vec<Duration>>,
    jitter: f64,
}

impl FakeTime {
    pub(super) fn new(jitter: f64) -> Arc<Self> {
        Arc::new(Self { now: Mutex::new(Instant::now()), slept: Mutex::default(), jitter })
    }

    pub(super) fn advance(&self, duration: Duration) {
        *self.now.lock() += duration;
    }

    pub(super) fn slept(&self) -> Vec<Duration> {
        self.slept.lock().clone()
    }
}

#[async_trait]
impl Time for FakeTime {
    fn now(&self) -> Instant {
        *self.now.lock()
    }

    async fn sleep(&self, duration: Duration) {
        self.slept.lock().push(duration);
        self.advance(duration);
    }

    fn jitter(&self) -> f64 {
        self.jitter
    }
}

type Answer = Result<v1::GetTokenResponse, Status>;

/// What the server was asked, and what it will answer.
#[derive(Default)]
pub(super) struct Script {
    /// Answers in order; afterwards `otherwise`.
    answers: Mutex<VecDeque<Answer>>,
    otherwise: Mutex<Option<Answer>>,
    calls: Mutex<Vec<(String, v1::GetTokenRequest)>>,
    reports: Mutex<Vec<v1::ReportRejectedTokenRequest>>,
    /// Where set, only this caller token is accepted.
    accepted: Mutex<Option<String>>,
    /// Where set, calls wait for a permit.
    gate: Mutex<Option<Arc<Semaphore>>>,
}

impl Script {
    pub(super) fn push(&self, answer: Answer) {
        self.answers.lock().push_back(answer);
    }

    pub(super) fn otherwise(&self, answer: Answer) {
        *self.otherwise.lock() = Some(answer);
    }

    pub(super) fn accept_only(&self, token: &str) {
        *self.accepted.lock() = Some(token.to_owned());
    }

    pub(super) fn gate(&self) -> Arc<Semaphore> {
        let gate = Arc::new(Semaphore::new(0));
        *self.gate.lock() = Some(Arc::clone(&gate));
        gate
    }

    /// The `authorization` headers of the calls so far.
    pub(super) fn bearers(&self) -> Vec<String> {
        self.calls.lock().iter().map(|(bearer, _)| bearer.clone()).collect()
    }

    pub(super) fn requests(&self) -> Vec<v1::GetTokenRequest> {
        self.calls.lock().iter().map(|(_, request)| request.clone()).collect()
    }

    pub(super) fn calls(&self) -> usize {
        self.calls.lock().len()
    }

    pub(super) fn reports(&self) -> Vec<v1::ReportRejectedTokenRequest> {
        self.reports.lock().clone()
    }
}

struct Service(Arc<Script>);

#[async_trait]
impl TokenService for Service {
    async fn get_token(
        &self,
        request: Request<v1::GetTokenRequest>,
    ) -> Result<Response<v1::GetTokenResponse>, Status> {
        let script = &self.0;
        let bearer = request.metadata().get("authorization").map(|value| value.to_str().unwrap().to_owned());
        let bearer = bearer.unwrap_or_default();
        script.calls.lock().push((bearer.clone(), request.into_inner()));
        let gate = script.gate.lock().clone();
        if let Some(gate) = gate {
            gate.acquire().await.unwrap().forget();
        }
        if script.accepted.lock().as_ref().is_some_and(|token| bearer != format!("Bearer {token}")) {
            return Err(refusal(Code::Unauthenticated, "CALLER_TOKEN_EXPIRED", &[], None));
        }
        let scripted = script.answers.lock().pop_front();
        let answer = scripted.or_else(|| script.otherwise.lock().clone()).expect("the script has an answer");
        answer.map(Response::new)
    }

    async fn report_rejected_token(
        &self,
        request: Request<v1::ReportRejectedTokenRequest>,
    ) -> Result<Response<v1::ReportRejectedTokenResponse>, Status> {
        self.0.reports.lock().push(request.into_inner());
        let outcome = v1::report_rejected_token_response::Outcome::Replaced.into();
        Ok(Response::new(v1::ReportRejectedTokenResponse { outcome }))
    }
}

/// A running server, on a runtime of its own so that it can die with all its connections.
pub(super) struct FakeServer {
    pub(super) script: Arc<Script>,
    pub(super) address: SocketAddr,
    runtime: Option<Runtime>,
}

impl FakeServer {
    pub(super) async fn start() -> Self {
        Self::start_on("127.0.0.1:0".parse().unwrap(), None).await
    }

    pub(super) async fn start_on(address: SocketAddr, identity: Option<Identity>) -> Self {
        let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let script = Arc::new(Script::default());
        let service = TokenServiceServer::new(Service(Arc::clone(&script)));
        let starting = runtime.spawn(async move {
            let listener = TcpListener::bind(address).await.unwrap();
            let address = listener.local_addr().unwrap();
            let mut server = Server::builder();
            if let Some(identity) = identity {
                server = server.tls_config(ServerTlsConfig::new().identity(identity)).unwrap();
            }
            let serving = server.add_service(service).serve_with_incoming(TcpListenerStream::new(listener));
            tokio::spawn(async move { serving.await.unwrap() });
            address
        });
        let address = starting.await.unwrap();
        Self { script, address, runtime: Some(runtime) }
    }

    /// Dies at once, with all connections, and returns when the port is free.
    pub(super) async fn die(mut self) {
        let runtime = self.runtime.take().unwrap();
        tokio::task::spawn_blocking(move || drop(runtime)).await.unwrap();
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A client of this server alone.
    pub(super) async fn client(&self, time: &Arc<FakeTime>) -> TokenClient {
        client(time).address(self.url()).build().await.unwrap()
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A builder with the fake clock and a caller token.
pub(super) fn client(time: &Arc<FakeTime>) -> TokenClientBuilder {
    let time: Arc<dyn Time> = Arc::clone(time) as _;
    TokenClient::builder().time(time).caller_token(CALLER_TOKEN.to_owned().into())
}

/// An address where nobody listens.
pub(super) async fn dead_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// A token that lives for `secs` seconds.
#[expect(clippy::unnecessary_wraps, reason = "an answer of the script, beside refusals")]
pub(super) fn token(secret: &str, secs: i64) -> Answer {
    Ok(v1::GetTokenResponse {
        access_token: secret.to_owned(),
        token_type: "Bearer".to_owned(),
        ttl: Some(prost_types::Duration { seconds: secs, nanos: 0 }),
        scopes: vec!["read".to_owned()],
        connection_id: "con_1".to_owned(),
        account_id: "42".to_owned(),
        fingerprint: format!("print-of-{}", secret.len()),
        provider: "hubspot".to_owned(),
        ..Default::default()
    })
}

/// An error as Tokenward sends it.
pub(super) fn refusal(
    code: Code,
    reason: &str,
    metadata: &[(&str, &str)],
    retry_after: Option<Duration>,
) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info(
        reason,
        "tokenward",
        metadata
            .iter()
            .map(|(k, v)| ((*k).into(), (*v).into()))
            .collect::<std::collections::HashMap<String, String>>(),
    );
    if retry_after.is_some() {
        details.set_retry_info(retry_after);
    }
    Status::with_error_details(code, "as the test wants it", details)
}
