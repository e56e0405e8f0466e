//! Where the server listens, who finds out what without a token, and how it ends.

use std::time::Duration;

use tokenward_auth::Role;
use tokenward_hubspot_sim::{Fault, FaultKind};
use tokenward_server::{Address, ListenError, ListenerConfig, ServerConfig, TlsFiles, bind};
use tonic::transport::{Certificate, ClientTlsConfig};
use tonic::{Code, Request};
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1alpha;

use crate::world::{World, ask, bearer, config, endpoint, http_client, listener, parts};

#[tokio::test]
async fn connections_are_dealt_out_to_threads_and_each_is_served() {
    let world = World::with(ServerConfig { worker_threads: 3, ..config() }).await;
    for _ in 0..7 {
        world.tokens("app", Role::Service).await.get_token(ask()).await.unwrap();
    }
}

#[tokio::test]
async fn a_unix_socket_serves_like_a_port() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("service.sock");
    let service = ListenerConfig { address: Address::Unix(path.clone()), ..listener("service") };
    let mut world = World::with(ServerConfig { service, ..config() }).await;
    assert_eq!(world.addresses.service, format!("unix://{}", path.display()));
    world.tokens("app", Role::Service).await.get_token(ask()).await.unwrap();
    world.stop();
    world.stopped().await.unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn tls_protects_every_listener() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let files =
        TlsFiles { cert_file: folder.path().join("cert.pem"), key_file: folder.path().join("key.pem") };
    std::fs::write(&files.cert_file, made.cert.pem()).unwrap();
    std::fs::write(&files.key_file, made.signing_key.serialize_pem()).unwrap();
    let with_tls = |name| ListenerConfig { tls: Some(files.clone()), ..listener(name) };
    let world = World::with(ServerConfig {
        service: with_tls("service"),
        admin: with_tls("admin"),
        public: with_tls("public"),
        operations: with_tls("operations"),
        ..config()
    })
    .await;
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(made.cert.pem()))
        .domain_name("localhost");
    for address in [&world.addresses.service, &world.addresses.admin] {
        let secure = tonic::transport::Endpoint::from_shared(format!("https://{address}")).unwrap();
        let channel = secure.tls_config(tls.clone()).unwrap().connect().await.unwrap();
        let answer = HealthClient::new(channel).check(HealthCheckRequest::default()).await.unwrap();
        assert_eq!(answer.into_inner().status, 1);
        let plain =
            HealthClient::new(endpoint(address).connect_lazy()).check(HealthCheckRequest::default()).await;
        assert!(plain.is_err(), "plaintext got through");
    }
    let root = reqwest::Certificate::from_pem(made.cert.pem().as_bytes()).unwrap();
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([root]).build().unwrap();
    for (address, path) in [(&world.addresses.public, "/robots.txt"), (&world.addresses.operations, "/livez")]
    {
        let port = address.rsplit_once(':').unwrap().1;
        let answer = client.get(format!("https://localhost:{port}{path}")).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert!(http_client().get(format!("http://{address}{path}")).send().await.is_err());
    }
}

#[tokio::test]
async fn plaintext_that_others_could_read_needs_to_be_allowed() {
    let everywhere =
        ListenerConfig { address: Address::Tcp("0.0.0.0:0".parse().unwrap()), ..listener("admin") };
    let (refused, ..) = parts(ServerConfig { admin: everywhere.clone(), ..config() }).await;
    let error = bind(refused).await.err().unwrap();
    assert!(matches!(error, ListenError::Plaintext { name: "admin", .. }), "{error}");
    let allowed = ListenerConfig { allow_plaintext: true, ..everywhere };
    let (allowed, ..) = parts(ServerConfig { admin: allowed, ..config() }).await;
    bind(allowed).await.unwrap();
}

#[tokio::test]
async fn health_needs_no_token_and_tells_of_each_service() {
    let world = World::start().await;
    let mut health = HealthClient::new(world.channel().await);
    for service in ["", "tokenward.v1.TokenService"] {
        let answer = health.check(HealthCheckRequest { service: service.into() }).await.unwrap();
        assert_eq!(answer.into_inner().status, 1, "{service}");
    }
    let status = health.check(HealthCheckRequest { service: "nobody".into() }).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    let (status, body) = world.operations("/readyz").await;
    assert_eq!((status, body.contains("ready")), (200, true));
}

#[tokio::test]
async fn reflection_shows_a_listeners_services_in_both_versions_and_can_be_switched_off() {
    let silent = ListenerConfig { reflection: false, ..listener("admin") };
    let world = World::with(ServerConfig { admin: silent, ..config() }).await;
    let list = || ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..Default::default()
    };
    let ask = tokio_stream::iter([list()]);
    let answer =
        ServerReflectionClient::new(world.channel().await).server_reflection_info(ask).await.unwrap();
    let Some(MessageResponse::ListServicesResponse(services)) =
        answer.into_inner().message().await.unwrap().unwrap().message_response
    else {
        panic!("no list of services")
    };
    let names: Vec<_> = services.service.into_iter().map(|service| service.name).collect();
    assert!(names.contains(&"tokenward.v1.TokenService".to_owned()), "{names:?}");
    assert!(!names.iter().any(|name| name.contains("admin")), "{names:?}");

    let old = v1alpha::ServerReflectionRequest {
        message_request: Some(v1alpha::server_reflection_request::MessageRequest::FileContainingSymbol(
            "tokenward.v1.TokenService".into(),
        )),
        ..Default::default()
    };
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(world.channel().await);
    let answer = client.server_reflection_info(tokio_stream::iter([old])).await.unwrap();
    let answer = answer.into_inner().message().await.unwrap().unwrap().message_response.unwrap();
    assert!(matches!(
        answer,
        v1alpha::server_reflection_response::MessageResponse::FileDescriptorResponse(_)
    ));

    let ask = tokio_stream::iter([list()]);
    let status = ServerReflectionClient::new(world.admin_channel().await)
        .server_reflection_info(ask)
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
}

#[tokio::test]
async fn a_server_that_is_told_to_stop_finishes_its_calls_and_takes_no_more() {
    let mut world = World::start().await;
    world.clock.advance(Duration::from_secs(1801));
    world.sim.handle().advance_secs(1801);
    world.sim.handle().add_fault(Fault::new(FaultKind::Latency { ms: 700 }).on_refresh().times(1));
    let mut health = HealthClient::new(world.channel().await)
        .watch(HealthCheckRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(health.message().await.unwrap().unwrap().status, ServingStatus::Serving as i32);

    let mut client = world.tokens("app", Role::Service).await;
    let call = tokio::spawn(async move { client.get_token(Request::new(ask())).await });
    // The call is under way once HubSpot was asked.
    while world.sim.handle().stats().refreshes < 2 {
        assert!(!call.is_finished(), "{:?}", call.await);
        tokio::task::yield_now().await;
    }
    world.stop();
    assert_eq!(health.message().await.unwrap().unwrap().status, ServingStatus::NotServing as i32);
    assert!(health.message().await.unwrap().is_none(), "whoever watches must not keep the process alive");
    call.await.unwrap().unwrap();
    world.stopped().await.unwrap();
    assert!(endpoint(&world.addresses.service).connect().await.is_err());
}

#[tokio::test]
async fn load_balancers_are_told_before_calls_are_turned_away() {
    let mut world = World::with(ServerConfig { drain_delay: Duration::from_secs(2), ..config() }).await;
    let mut health = HealthClient::new(world.channel().await);
    let mut client = world.tokens("app", Role::Service).await;
    world.stop();
    let not_serving = ServingStatus::NotServing as i32;
    while health.check(HealthCheckRequest::default()).await.unwrap().into_inner().status != not_serving {
        tokio::task::yield_now().await;
    }
    let (status, body) = world.operations("/readyz").await;
    assert!(status == 503 && body.contains(r#""status":"draining""#), "{body}");
    client.get_token(ask()).await.unwrap();
    world.tokens("app", Role::Service).await.get_token(ask()).await.unwrap();
    world.stopped().await.unwrap();
    assert!(endpoint(&world.addresses.service).connect().await.is_err());
}

#[tokio::test]
async fn a_caller_that_is_unknown_learns_nothing_from_the_operations_listener() {
    let world = World::start().await;
    let token = world.caller_token("app", Role::Service);
    let mut client = tokenward_api::v1::token_service_client::TokenServiceClient::with_interceptor(
        world.channel().await,
        bearer(&token),
    );
    let secret = client.get_token(ask()).await.unwrap().into_inner().access_token;
    let (_, metrics) = world.operations("/metrics").await;
    assert!(!metrics.contains("acme") && !metrics.contains(&secret) && !metrics.contains(&token));
}
