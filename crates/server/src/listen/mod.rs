//! The runtime layout. The service listener is accepted in one place and dealt out to threads with a runtime each, where a
//! call that memory can answer wakes nobody else; the admin, public and operations listeners, and everything that takes
//! long, run on the runtime that [`bind`] is called on.

mod address;
mod error;
mod grpc;
mod http;
mod processors;
mod socket;
mod tls;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use tokenward_auth::{Authenticator, BuiltinIssuer};
use tokenward_broker::Broker;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::admission::Waiting;
use crate::grpc::Services;
use crate::http::{ReadyHandle, operations_router, public_router};
use grpc::Workers;
use socket::Listener;
use tls::Tls;

pub use address::Address;
pub use error::ListenError;
pub use processors::{Place, places};
pub use tls::TlsFiles;

/// One listener.
#[derive(Clone, Debug)]
pub struct ListenerConfig {
    /// Its name in the configuration, such as `service`: errors name the option `listen.<name>.address`.
    pub name: &'static str,
    /// Where it listens.
    pub address: Address,
    /// Its certificate and key; `None` for plaintext.
    pub tls: Option<TlsFiles>,
    /// Whether plaintext is allowed although others can reach it.
    pub allow_plaintext: bool,
    /// Whether gRPC reflection is served; means nothing to HTTP listeners.
    pub reflection: bool,
}

/// Bounds that protect the server from its callers.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Open connections per listener; more wait in the backlog.
    pub max_connections: usize,
    /// gRPC calls in flight per listener; more are answered OVERLOADED.
    pub max_calls: usize,
    /// gRPC calls in flight per connection; more wait at the client.
    pub max_calls_per_connection: u32,
    /// Calls of the service listener that memory cannot answer, at a time; shared fairly by principals.
    pub max_waiting_calls: usize,
    /// Caller tokens whose signatures are verified at a time; shared fairly by principals.
    pub max_verifications: usize,
    /// Calls of the admin listener, and changes whose callers went away, at a time; shared fairly by principals.
    pub max_admin_calls: usize,
    /// Requests of the public listener that are worked on at a time; shared fairly by routes.
    pub max_pages: usize,
    /// The longest that a gRPC call takes; callers may ask for less.
    pub call_timeout: Duration,
}

/// The listeners.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// The gRPC listener that services call.
    pub service: ListenerConfig,
    /// The gRPC listener that operators and admins call.
    pub admin: ListenerConfig,
    /// The HTTP listener that customers' browsers reach.
    pub public: ListenerConfig,
    /// The HTTP listener of health checks and metrics.
    pub operations: ListenerConfig,
    /// Threads of the service listener; 0 stands for one per processor.
    pub worker_threads: usize,
    /// Whether each of them stays on a processor, where there are as many as those.
    pub pin_worker_threads: bool,
    /// How long calls are still taken after health checks were told that the server stops.
    pub drain_delay: Duration,
    /// How long calls in flight may take to finish when the server stops.
    pub shutdown_grace: Duration,
    /// Bounds.
    pub limits: Limits,
}

/// What a server is made of.
pub struct ServerParts {
    /// The use cases.
    pub broker: Broker,
    /// Tells who calls.
    pub authenticator: Arc<Authenticator>,
    /// Signs caller tokens, where it is switched on.
    pub builtin_issuer: Option<Arc<BuiltinIssuer>>,
    /// The listeners.
    pub config: ServerConfig,
}

/// Where the listeners listen: `IP:port`, or `unix:///path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The gRPC listener that services call.
    pub service: String,
    /// The gRPC listener that operators and admins call.
    pub admin: String,
    /// The HTTP listener that customers' browsers reach.
    pub public: String,
    /// The HTTP listener of health checks and metrics.
    pub operations: String,
}

/// A listener that is bound, with what it needs to serve.
struct Bound {
    name: &'static str,
    listener: Listener,
    tls: Option<Tls>,
    reflection: bool,
}

impl Bound {
    async fn new(config: &ListenerConfig, limits: &Limits) -> Result<Self, ListenError> {
        let ListenerConfig { name, address, tls, allow_plaintext, reflection } = config;
        if tls.is_none() && !allow_plaintext && !address.is_local() {
            return Err(ListenError::Plaintext { name, address: address.clone() });
        }
        let tls = tls.as_ref().map(|files| Tls::load(name, files)).transpose()?;
        let listener = Listener::bind(name, address, limits.max_connections).await?;
        Ok(Self { name, listener, tls, reflection: *reflection })
    }

    fn address(&self) -> String {
        self.listener.address().to_string()
    }
}

/// A server whose four addresses are taken, and which serves nothing yet.
pub struct BoundServer {
    service: Bound,
    admin: Bound,
    public: Bound,
    operations: Bound,
    broker: Broker,
    services: Services,
    /// Of the service listener's threads: one at least.
    places: Vec<Place>,
    drain_delay: Duration,
    grace: Duration,
    limits: Limits,
    waiting: Waiting,
}

/// Reads certificates and binds all four listeners. Connections wait until [`BoundServer::serve`].
///
/// # Errors
/// [`ListenError`] names the option that has to change.
pub async fn bind(parts: ServerParts) -> Result<BoundServer, ListenError> {
    // Where several providers are linked, rustls wants to be told; another part of the process may have said the same.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let ServerParts { broker, authenticator, builtin_issuer, config } = parts;
    let limits = config.limits;
    let waiting = Waiting::default();
    waiting.register(broker.metrics());
    Ok(BoundServer {
        service: Bound::new(&config.service, &limits).await?,
        admin: Bound::new(&config.admin, &limits).await?,
        public: Bound::new(&config.public, &limits).await?,
        operations: Bound::new(&config.operations, &limits).await?,
        services: Services::new(
            broker.clone(),
            authenticator,
            builtin_issuer,
            Handle::current(),
            &limits,
            &waiting,
        ),
        broker,
        places: places(NonZeroUsize::new(config.worker_threads), config.pin_worker_threads),
        drain_delay: config.drain_delay,
        grace: config.shutdown_grace,
        limits,
        waiting,
    })
}

impl BoundServer {
    /// Where the listeners listen; ports that were asked for as 0 are the real ones.
    pub fn addresses(&self) -> Addresses {
        Addresses {
            service: self.service.address(),
            admin: self.admin.address(),
            public: self.public.address(),
            operations: self.operations.address(),
        }
    }

    /// Serves until `shutdown` is ready: then health checks say NOT_SERVING; after the configured delay, which lets load
    /// balancers notice, nothing new is accepted, and calls in flight get the configured time to finish. The operations
    /// listener goes last, so that the end can be watched.
    ///
    /// # Errors
    /// [`ListenError`] when a listener cannot start, or stops although nobody asked it to.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> Result<(), ListenError> {
        let Self { service, admin, public, operations, broker, services, places, .. } = self;
        let Self { drain_delay, grace, limits, waiting, .. } = self;
        let (stop, stopping) = watch::channel(false);
        let (stop_operations, operations_stopping) = watch::channel(false);
        let setup = |name| {
            move |error: tonic_reflection::server::Error| ListenError::Setup { name, source: error.into() }
        };

        let max_calls = limits.max_calls.div_ceil(places.len());
        let threads = Workers::start(
            service.name,
            &places,
            service.tls.as_ref(),
            limits.max_calls_per_connection,
            || services.service(service.reflection, max_calls).map_err(setup(service.name)),
            &stopping,
            grace,
        )?;
        let admin_service = services.admin(admin.reflection, limits.max_calls).map_err(setup(admin.name))?;
        services.set_serving().await;
        let ready = ReadyHandle::default();

        let serving_operations = tokio::spawn(http::serve(
            operations.name,
            operations.listener,
            operations.tls.as_ref().map(Tls::http),
            operations_router(broker.clone(), ready.clone()),
            operations_stopping,
            grace,
        ));
        let mut serving = tokio::task::JoinSet::new();
        serving.spawn(threads.serve(service.listener, stopping.clone()));
        serving.spawn(grpc::on_this_runtime(
            admin.name,
            admin.listener,
            admin.tls,
            limits.max_calls_per_connection,
            admin_service,
            stopping.clone(),
            grace,
        ));
        let public_tls = public.tls.as_ref().map(Tls::http);
        let public_router = public_router(broker.clone(), limits.max_pages, &waiting);
        serving.spawn(async move {
            http::serve(public.name, public.listener, public_tls, public_router, stopping, grace).await;
            Ok(())
        });

        let early = tokio::select! {
            () = shutdown => None,
            ended = serving.join_next() => Some(ended),
        };
        services.set_not_serving().await;
        ready.drain();
        if early.is_none() {
            tokio::time::sleep(drain_delay).await;
        }
        services.end_watches().await;
        broker.begin_shutdown();
        let _ = stop.send(true);
        let mut outcome = match early {
            None => Ok(()),
            // Whatever ended did so without being asked to.
            Some(ended) => outcome_of(ended).and(Err(ListenError::Stopped { name: "gRPC or public" })),
        };
        while let Some(ended) = serving.join_next().await {
            outcome = outcome.and(outcome_of(Some(ended)));
        }
        let _ = stop_operations.send(true);
        let _ = serving_operations.await;
        outcome
    }
}

fn outcome_of(
    ended: Option<Result<Result<(), ListenError>, tokio::task::JoinError>>,
) -> Result<(), ListenError> {
    match ended {
        Some(Ok(outcome)) => outcome,
        Some(Err(error)) => Err(ListenError::Setup { name: "gRPC or public", source: error.into() }),
        None => Ok(()),
    }
}

/// Waits until the server is told to stop.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // A sender that is gone means that nobody serves any more.
    let _ = stopping.wait_for(|stop| *stop).await;
}
