//! The gRPC services, and what surrounds each call.

mod access_rule_service;
mod call;
mod connection_service;
mod convert;
mod direct;
mod key_service;
mod layer;
mod mask;
mod methods;
mod metrics;
mod oauth_client_service;
mod open;
mod page_token;
mod principal_service;
mod report;
mod request_id;
mod seen;
mod tenant_service;
mod token_service;
mod verification;

use std::sync::Arc;

use tokenward_api::admin::v1::access_rule_service_server::AccessRuleServiceServer;
use tokenward_api::admin::v1::connection_service_server::ConnectionServiceServer;
use tokenward_api::admin::v1::key_service_server::KeyServiceServer;
use tokenward_api::admin::v1::o_auth_client_service_server::OAuthClientServiceServer;
use tokenward_api::admin::v1::principal_service_server::PrincipalServiceServer;
use tokenward_api::admin::v1::tenant_service_server::TenantServiceServer;
use tokenward_api::v1::token_service_server::TokenServiceServer;
use tokenward_auth::{Authenticator, BuiltinIssuer};
use tokenward_broker::Broker;
use tokio::runtime::Handle;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use access_rule_service::AccessRules;
use connection_service::Connections;
use key_service::Keys;
pub(crate) use layer::CallService;
use layer::Gate;
use oauth_client_service::OAuthClients;
use principal_service::Principals;
use seen::SeenTokens;
use tenant_service::Tenants;
use token_service::Tokens;

use crate::Limits;
use crate::admission::{Admission, Waiting};

/// The largest request message. Tokens and secrets are small; nothing honest comes near it.
const MAX_MESSAGE: usize = 64 * 1024;

type Service<T> = TokenServiceServer<T>;

/// Full names of the services of the service listener.
const SERVICE_NAMES: &[&str] = &[<Service<Tokens> as NamedService>::NAME];
/// Full names of the services of the admin listener.
const ADMIN_NAMES: &[&str] = &[
    <TenantServiceServer<Tenants> as NamedService>::NAME,
    <OAuthClientServiceServer<OAuthClients> as NamedService>::NAME,
    <ConnectionServiceServer<Connections> as NamedService>::NAME,
    <AccessRuleServiceServer<AccessRules> as NamedService>::NAME,
    <PrincipalServiceServer<Principals> as NamedService>::NAME,
    <KeyServiceServer<Keys> as NamedService>::NAME,
];

/// What health checks may ask about; nothing stands for the whole process.
fn health_names() -> impl Iterator<Item = &'static str> {
    SERVICE_NAMES.iter().chain(ADMIN_NAMES).copied().chain([""])
}

/// What the gRPC listeners are made of.
pub(crate) struct Services {
    gate: Arc<Gate>,
    seen: Arc<SeenTokens>,
    waiting: Admission,
    issuer: Option<Arc<BuiltinIssuer>>,
    health: HealthReporter,
}

impl Services {
    /// Services over the broker. Work that takes long runs on `main`, and who waits for it is counted in `waiting`.
    pub(crate) fn new(
        broker: Broker,
        authenticator: Arc<Authenticator>,
        issuer: Option<Arc<BuiltinIssuer>>,
        main: Handle,
        limits: &Limits,
        waiting: &Waiting,
    ) -> Self {
        let metrics = metrics::CallMetrics::new(broker.metrics());
        let places = |limit, work, what| Admission::new(limit, work, what, waiting);
        let gate = Arc::new(Gate {
            authenticator,
            broker,
            metrics,
            main,
            timeout: limits.call_timeout,
            verifying: places(
                limits.max_verifications,
                "verification",
                "too many caller tokens are being verified at once: use one until it expires",
            ),
            administering: places(limits.max_admin_calls, "admin", "too many admin calls at once"),
        });
        let waiting = places(
            limits.max_waiting_calls,
            "token",
            "too many calls wait at once for tokens that have to be read or refreshed",
        );
        let (seen, health) = (Arc::new(SeenTokens::new()), HealthReporter::new());
        Self { gate, seen, waiting, issuer, health }
    }

    /// Tells health checks that calls are served.
    pub(crate) async fn set_serving(&self) {
        for name in health_names() {
            self.health.set_service_status(name, ServingStatus::Serving).await;
        }
    }

    /// Tells health checks that calls are no longer served.
    pub(crate) async fn set_not_serving(&self) {
        for name in health_names() {
            self.health.set_service_status(name, ServingStatus::NotServing).await;
        }
    }

    /// Ends the streams of those that watch: they would keep the process alive for as long as calls in flight may.
    pub(crate) async fn end_watches(&self) {
        let mut health = self.health.clone();
        for name in health_names() {
            health.clear_service_status(name).await;
        }
    }

    /// The services that callers use, for one thread; at most `max_calls` at once.
    pub(crate) fn service(
        &self,
        reflection: bool,
        max_calls: usize,
    ) -> Result<CallService, tonic_reflection::server::Error> {
        let tokens = Arc::new(Tokens {
            broker: self.gate.broker.clone(),
            main: self.gate.main.clone(),
            seen: Arc::clone(&self.seen),
            waiting: self.waiting.clone(),
        });
        let service =
            TokenServiceServer::from_arc(Arc::clone(&tokens)).max_decoding_message_size(MAX_MESSAGE);
        let calls = self.finish(Routes::new(service), reflection, SERVICE_NAMES, max_calls)?;
        Ok(calls.with_tokens(tokens))
    }

    /// The services that operators and admins use; at most `max_calls` at once.
    pub(crate) fn admin(
        &self,
        reflection: bool,
        max_calls: usize,
    ) -> Result<CallService, tonic_reflection::server::Error> {
        let broker = || self.gate.broker.clone();
        let principals = Principals {
            broker: broker(),
            authenticator: Arc::clone(&self.gate.authenticator),
            issuer: self.issuer.clone(),
        };
        let routes =
            Routes::new(TenantServiceServer::new(Tenants(broker())).max_decoding_message_size(MAX_MESSAGE))
                .add_service(
                    OAuthClientServiceServer::new(OAuthClients(broker()))
                        .max_decoding_message_size(MAX_MESSAGE),
                )
                .add_service(
                    ConnectionServiceServer::new(Connections(broker()))
                        .max_decoding_message_size(MAX_MESSAGE),
                )
                .add_service(
                    AccessRuleServiceServer::new(AccessRules(broker()))
                        .max_decoding_message_size(MAX_MESSAGE),
                )
                .add_service(KeyServiceServer::new(Keys(broker())).max_decoding_message_size(MAX_MESSAGE))
                .add_service(PrincipalServiceServer::new(principals).max_decoding_message_size(MAX_MESSAGE));
        self.finish(routes, reflection, ADMIN_NAMES, max_calls)
    }

    fn finish(
        &self,
        mut routes: Routes,
        reflection: bool,
        names: &[&str],
        max_calls: usize,
    ) -> Result<CallService, tonic_reflection::server::Error> {
        let health = tonic_health::server::HealthService::from_health_reporter(self.health.clone());
        routes = routes.add_service(tonic_health::pb::health_server::HealthServer::new(health));
        if reflection {
            let builder = || {
                let builder = tonic_reflection::server::Builder::configure()
                    .register_encoded_file_descriptor_set(tokenward_api::DESCRIPTORS)
                    .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
                let shown = names.iter().chain(&["grpc.health.v1.Health"]);
                shown.fold(builder, |builder, name| builder.with_service_name(*name))
            };
            routes = routes.add_service(builder().build_v1()?).add_service(builder().build_v1alpha()?);
        }
        Ok(CallService::new(routes, Arc::clone(&self.gate), max_calls))
    }
}
