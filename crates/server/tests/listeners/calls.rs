//! Calls of the service listener: answers, refusals, limits.

use std::io::Write;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use tokenward_api::v1::token_service_client::TokenServiceClient;
use tokenward_api::v1::{GetTokenRequest, GetTokenResponse, ReportRejectedTokenRequest};
use tokenward_auth::Role;
use tokenward_hubspot_sim::{Fault, FaultKind};
use tokenward_server::Limits;
use tonic::client::Grpc;
use tonic::{Code, Request};

use crate::world::{READ, World, ask, bearer, config, reason};

#[tokio::test]
async fn a_service_gets_a_token_that_works_first_from_storage_and_then_from_memory() {
    let world = World::start().await;
    let mut client = world.tokens("app", Role::Service).await;
    for _ in 0..3 {
        let mut request = Request::new(ask());
        request.metadata_mut().insert("x-request-id", "trace-4711".parse().unwrap());
        let answer = client.get_token(request).await.unwrap();
        assert_eq!(answer.metadata().get("x-request-id").unwrap(), "trace-4711");
        let token = answer.into_inner();
        assert!(world.sim.handle().is_access_token_live(&token.access_token));
        assert_eq!((token.token_type.as_str(), token.provider.as_str()), ("Bearer", "hubspot"));
        assert_eq!(token.ttl.unwrap().seconds, 1800);
        assert!(token.scopes.contains(&READ.to_owned()) && token.warnings.is_empty());
        assert!(!token.connection_id.is_empty() && token.account_id == "1234567");
    }
    let (_, metrics) = world.operations("/metrics").await;
    let ok =
        r#"tokenward_grpc_calls_total{method="tokenward.v1.TokenService/GetToken",code="OK",reason=""} 3"#;
    assert!(metrics.contains(ok), "{metrics}");
    assert!(metrics.contains("tokenward_cache_hits_total 2"), "{metrics}");
}

#[tokio::test]
async fn a_rejected_token_is_looked_into() {
    let world = World::start().await;
    let mut client = world.tokens("app", Role::Service).await;
    let token = client.get_token(ask()).await.unwrap().into_inner();
    let report = ReportRejectedTokenRequest {
        tenant_id: "acme".into(),
        connection_id: token.connection_id,
        fingerprint: token.fingerprint,
    };
    let outcome = client.report_rejected_token(report).await.unwrap().into_inner().outcome();
    assert_eq!(outcome.as_str_name(), "OUTCOME_ALIVE");
}

#[tokio::test]
async fn a_call_without_a_valid_caller_token_is_refused_with_its_reason() {
    let world = World::start().await;
    let mut anonymous = TokenServiceClient::new(world.channel().await);
    let status = anonymous.get_token(ask()).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).0.as_str()), (Code::Unauthenticated, "CALLER_TOKEN_MISSING"));
    let echoed = status.metadata().get("x-request-id").unwrap().to_str().unwrap();
    assert_eq!(reason(&status).1.error_info().unwrap().metadata["request_id"], echoed);

    for wrong in ["x", "a.b.c", &world.caller_token("app", Role::Service).replace('.', "..")] {
        let mut client = TokenServiceClient::with_interceptor(world.channel().await, bearer(wrong));
        let status = client.get_token(ask()).await.unwrap_err();
        assert_eq!(
            (status.code(), reason(&status).0.as_str()),
            (Code::Unauthenticated, "CALLER_TOKEN_INVALID")
        );
    }

    let mut client = world.tokens("app", Role::Service).await;
    client.get_token(ask()).await.unwrap();
    world.clock.advance(Duration::from_secs(3700));
    let status = client.get_token(ask()).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).0.as_str()), (Code::Unauthenticated, "CALLER_TOKEN_EXPIRED"));
}

#[tokio::test]
async fn a_role_or_principal_without_a_right_is_refused() {
    let world = World::start().await;
    let status = world.tokens("app", Role::Auditor).await.get_token(ask()).await.unwrap_err();
    let (name, details) = reason(&status);
    assert_eq!((status.code(), name.as_str()), (Code::PermissionDenied, "ROLE_REQUIRED"));
    assert_eq!(details.error_info().unwrap().metadata["allowed_roles"], "service, operator, admin");

    let status = world.tokens("stranger", Role::Admin).await.get_token(ask()).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).0.as_str()), (Code::PermissionDenied, "ACCESS_DENIED"));
}

#[tokio::test]
async fn requests_that_are_too_much_or_make_no_sense_are_refused() {
    let world = World::start().await;
    let mut client = world.tokens("app", Role::Service).await;
    let many = (0..1000).map(|i| format!("s{i}")).collect();
    let duration = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    for (request, expected) in [
        (GetTokenRequest { connection_id: "x".repeat(70_000), ..ask() }, "REQUEST_TOO_LARGE"),
        (GetTokenRequest { scopes: many, ..ask() }, "INVALID_REQUEST"),
        (GetTokenRequest { scopes: vec!["a b".into()], ..ask() }, "INVALID_REQUEST"),
        (GetTokenRequest { min_ttl: duration(-1), ..ask() }, "INVALID_REQUEST"),
        (GetTokenRequest { min_ttl: duration(100_000), ..ask() }, "MIN_TTL_TOO_LONG"),
        (GetTokenRequest { tenant_id: "no tenant".into(), ..ask() }, "INVALID_REQUEST"),
        (GetTokenRequest { tenant_id: String::new(), ..ask() }, "INVALID_REQUEST"),
    ] {
        let status = client.get_token(request).await.unwrap_err();
        assert_eq!((status.code(), reason(&status).0.as_str()), (Code::InvalidArgument, expected));
    }
    client.get_token(ask()).await.unwrap();
}

#[tokio::test]
async fn a_message_that_does_not_decode_is_the_callers_mistake() {
    let world = World::start().await;
    let mut grpc = Grpc::new(world.channel().await);
    grpc.ready().await.unwrap();
    // Field 1 is a text in GetTokenRequest, and a message with numbers here.
    let wrong = prost_types::DescriptorProto {
        enum_type: vec![prost_types::EnumDescriptorProto {
            name: Some("\u{fffd}".into()),
            ..Default::default()
        }],
        ..Default::default()
    };
    let mut request = Request::new(wrong);
    let token = format!("Bearer {}", world.caller_token("app", Role::Service));
    request.metadata_mut().insert("authorization", token.parse().unwrap());
    let codec = tonic_prost::ProstCodec::<prost_types::DescriptorProto, GetTokenResponse>::default();
    let path = http::uri::PathAndQuery::from_static("/tokenward.v1.TokenService/GetToken");
    let status = grpc.unary(request, path, codec).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).0.as_str()), (Code::InvalidArgument, "INVALID_REQUEST"));
}

#[tokio::test]
async fn what_is_not_in_the_api_is_not_served() {
    let world = World::start().await;
    let token = bearer(&world.caller_token("ops", Role::Admin));
    let mut client = tokenward_api::admin::v1::tenant_service_client::TenantServiceClient::with_interceptor(
        world.channel().await,
        token,
    );
    let status =
        client.list_tenants(tokenward_api::admin::v1::ListTenantsRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented, "admin methods are not on the service listener");
}

#[tokio::test]
async fn a_call_ends_when_its_time_is_over_and_what_it_began_goes_on() {
    let limits = Limits { call_timeout: Duration::from_millis(150), ..config().limits };
    let world = World::with(tokenward_server::ServerConfig { limits, ..config() }).await;
    world.clock.advance(Duration::from_secs(1801));
    world.sim.handle().advance_secs(1801);
    world.sim.handle().add_fault(Fault::new(FaultKind::Latency { ms: 1500 }).on_refresh().times(1));
    let mut client = world.tokens("app", Role::Service).await;
    let status = client.get_token(ask()).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).0.as_str()), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"));
    let token = loop {
        match client.get_token(ask()).await {
            Ok(token) => break token.into_inner(),
            Err(status) => assert_eq!(reason(&status).0, "DEADLINE_EXCEEDED"),
        }
    };
    assert!(world.sim.handle().is_access_token_live(&token.access_token));
    assert_eq!(world.sim.handle().stats().refreshes, 2, "the import's, and the one that nobody waited for");
}

#[tokio::test]
async fn more_calls_than_allowed_are_told_to_wait() {
    let limits = Limits { max_calls: 0, ..config().limits };
    let world = World::with(tokenward_server::ServerConfig { limits, ..config() }).await;
    let status = world.tokens("app", Role::Service).await.get_token(ask()).await.unwrap_err();
    let (name, details) = reason(&status);
    assert_eq!((status.code(), name.as_str()), (Code::ResourceExhausted, "OVERLOADED"));
    assert!(details.retry_info().unwrap().retry_delay.is_some());
}

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

static LOG: LazyLock<Captured> = LazyLock::new(|| {
    let captured = Captured::default();
    let writer = captured.clone();
    tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).init();
    captured
});

#[tokio::test]
async fn a_failed_call_leaves_one_event_a_denial_an_audit_event_and_a_warm_call_nothing() {
    let log = LOG.clone();
    let lines = |needle: &str| -> Vec<String> {
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        text.lines().filter(|line| line.contains(needle)).map(str::to_owned).collect()
    };
    let with_id = |id: &'static str| {
        let mut request = Request::new(ask());
        request.metadata_mut().insert("x-request-id", id.parse().unwrap());
        request
    };
    let world = World::start().await;
    let mut client = world.tokens("app", Role::Service).await;
    let token = client.get_token(with_id("first-call")).await.unwrap().into_inner().access_token;
    client.get_token(with_id("second-call")).await.unwrap();
    let first = lines("first-call");
    assert_eq!(first.len(), 1, "{first:?}");
    assert!(
        first[0].contains("first_issuance") && first[0].contains("acme") && first[0].contains("builtin:app")
    );
    assert_eq!(lines("second-call"), Vec::<String>::new());

    world.tokens("stranger", Role::Service).await.get_token(with_id("denied-call")).await.unwrap_err();
    let denied = lines("denied-call");
    assert_eq!(denied.len(), 2, "{denied:?}");
    assert_eq!(denied.iter().filter(|line| line.contains("tokenward::audit")).count(), 1);
    assert!(denied.iter().all(|line| line.contains("ACCESS_DENIED") && line.contains("builtin:stranger")));
    assert_eq!(lines(&token), Vec::<String>::new());
}

#[tokio::test]
async fn what_a_failed_refresh_logs_names_the_request() {
    use tokenward_hubspot_sim::{Fault, FaultKind};
    let log = LOG.clone();
    let world = World::start().await;
    let mut client = world.tokens("app", Role::Service).await;
    client.get_token(ask()).await.unwrap();
    world.clock.advance(std::time::Duration::from_secs(1801));
    world.sim.handle().advance_secs(1801);
    world.sim.handle().add_fault(Fault::new(FaultKind::Html { status: None }).on_refresh());
    let mut request = Request::new(ask());
    request.metadata_mut().insert("x-request-id", "refresh-call".parse().unwrap());
    client.get_token(request).await.unwrap_err();
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let line = text.lines().find(|line| line.contains("refresh failed")).unwrap();
    assert!(line.contains("refresh-call") && line.contains("outcome_unknown"), "{line}");
}

#[tokio::test]
async fn a_blocked_principals_call_is_in_the_audit_trail() {
    use tokenward_api::admin::v1::principal_service_client::PrincipalServiceClient;
    let log = LOG.clone();
    let world = World::start().await;
    let mut client = world.tokens("app", Role::Service).await;
    client.get_token(ask()).await.unwrap();
    let block = tokenward_api::admin::v1::BlockPrincipalRequest {
        principal: "builtin:app".into(),
        ..Default::default()
    };
    PrincipalServiceClient::new(world.admin(Role::Admin).await).block_principal(block).await.unwrap();
    let mut request = Request::new(ask());
    request.metadata_mut().insert("x-request-id", "blocked-call".parse().unwrap());
    client.get_token(request).await.unwrap_err();
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let audited = |line: &&str| line.contains("blocked-call") && line.contains("tokenward::audit");
    let line = text.lines().find(audited).unwrap();
    assert!(line.contains("CALLER_BLOCKED") && line.contains("builtin:app"), "{line}");
}
