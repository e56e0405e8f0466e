use std::time::Duration;

use tonic::{Code, Status};

use super::fake::{FakeServer, FakeTime, client, refusal, token};
use crate::{Error, ErrorKind, TokenRequest};

async fn error_of(status: Status) -> (Error, usize) {
    let (server, time) = (FakeServer::start().await, FakeTime::new(0.0));
    server.script.otherwise(Err(status));
    let client = server.client(&time).await;
    let error = client.get_token(&TokenRequest::new("acme")).await.unwrap_err();
    (error, server.script.calls())
}

#[tokio::test]
async fn retry_info_is_the_least_wait() {
    let (server, time) = (FakeServer::start().await, FakeTime::new(0.5));
    let wait = Some(Duration::from_secs(3));
    server.script.push(Err(refusal(Code::Unavailable, "PROVIDER_RATE_LIMITED", &[], wait)));
    server.script.push(token("secret", 1800));
    let client = server.client(&time).await;
    client.get_token(&TokenRequest::new("acme")).await.unwrap();
    assert_eq!(time.slept(), [Duration::from_millis(3300)], "three seconds, spread by a tenth");
}

#[tokio::test]
async fn waits_double_and_tries_are_bounded() {
    let (server, time) = (FakeServer::start().await, FakeTime::new(0.0));
    server.script.otherwise(Err(refusal(Code::Unavailable, "PROVIDER_UNAVAILABLE", &[], None)));
    let client = client(&time).address(server.url()).max_tries(5).build().await.unwrap();
    let error = client.get_token(&TokenRequest::new("acme")).await.unwrap_err();
    assert_eq!(error.reason(), "PROVIDER_UNAVAILABLE");
    assert_eq!(server.script.calls(), 5);
    assert_eq!(time.slept(), [50, 100, 200, 400].map(Duration::from_millis));
}

#[tokio::test]
async fn a_wait_past_the_deadline_is_not_begun() {
    let (server, time) = (FakeServer::start().await, FakeTime::new(0.0));
    let wait = Some(Duration::from_mins(1));
    server.script.otherwise(Err(refusal(
        Code::Unavailable,
        "GRANT_SUSPECT",
        &[("connection_id", "con_1")],
        wait,
    )));
    let client = server.client(&time).await;
    let error = client.get_token(&TokenRequest::new("acme")).await.unwrap_err();
    assert_eq!((error.kind(), error.retry_after()), (ErrorKind::Unavailable, wait));
    assert_eq!(error.connection_id(), Some("con_1"));
    assert_eq!((server.script.calls(), time.slept().len()), (1, 0));
}

#[tokio::test]
async fn what_waiting_cannot_help_is_tried_once() {
    let cases = [
        (Code::InvalidArgument, "INVALID_REQUEST", ErrorKind::InvalidRequest),
        (Code::InvalidArgument, "MIN_TTL_TOO_LONG", ErrorKind::InvalidRequest),
        (Code::FailedPrecondition, "CONNECTION_AMBIGUOUS", ErrorKind::InvalidRequest),
        (Code::FailedPrecondition, "CONNECTION_REQUIRED", ErrorKind::NotConnected),
        (Code::FailedPrecondition, "SCOPE_NOT_GRANTED", ErrorKind::NotConnected),
        (Code::FailedPrecondition, "REAUTHORIZATION_REQUIRED", ErrorKind::ReauthorizationRequired),
        (Code::FailedPrecondition, "TENANT_SUSPENDED", ErrorKind::Denied),
        (Code::FailedPrecondition, "OAUTH_CLIENT_MISCONFIGURED", ErrorKind::Unavailable),
        (Code::PermissionDenied, "ACCESS_DENIED", ErrorKind::Denied),
        (Code::PermissionDenied, "TOKEN_TOO_BROAD", ErrorKind::Denied),
        (Code::Unauthenticated, "CALLER_TOKEN_INVALID", ErrorKind::Unauthenticated),
        (Code::DataLoss, "STORED_DATA_DAMAGED", ErrorKind::Internal),
        (Code::Internal, "INTERNAL", ErrorKind::Internal),
    ];
    for (code, reason, kind) in cases {
        let (error, calls) = error_of(refusal(code, reason, &[], None)).await;
        assert_eq!((error.kind(), error.reason(), calls), (kind, reason, 1));
    }
}

#[tokio::test]
async fn a_dead_grant_names_connection_account_and_help() {
    let details =
        [("connection_id", "con_7"), ("account_id", "42"), ("help_url", "https://help.example/hubspot")];
    let (error, _) =
        error_of(refusal(Code::FailedPrecondition, "REAUTHORIZATION_REQUIRED", &details, None)).await;
    assert_eq!(error.connection_id(), Some("con_7"));
    assert_eq!(error.account_id(), Some("42"));
    assert_eq!(error.help_url(), Some("https://help.example/hubspot"));
    assert_eq!(error.to_string(), "REAUTHORIZATION_REQUIRED: as the test wants it");
}

#[tokio::test]
async fn error_details_of_another_domain_are_not_believed() {
    use tonic_types::{ErrorDetails, StatusExt};
    let details = ErrorDetails::with_error_info("REAUTHORIZATION_REQUIRED", "somebody.else", []);
    let (error, _) = error_of(Status::with_error_details(Code::FailedPrecondition, "no", details)).await;
    assert_eq!((error.kind(), error.reason()), (ErrorKind::InvalidRequest, "FAILED_PRECONDITION"));
}

#[tokio::test]
async fn a_message_that_the_server_finds_too_large_is_an_invalid_request() {
    let (error, calls) = error_of(Status::new(Code::OutOfRange, "too large")).await;
    assert_eq!((error.kind(), calls), (ErrorKind::InvalidRequest, 1));
}

#[tokio::test]
async fn an_answer_without_a_token_is_an_error() {
    let (server, time) = (FakeServer::start().await, FakeTime::new(0.0));
    server.script.push(token("", 1800));
    let client = server.client(&time).await;
    let error = client.get_token(&TokenRequest::new("acme")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
}

#[tokio::test]
async fn a_server_that_never_answers_costs_one_try_each_time() {
    let (server, time) = (FakeServer::start().await, FakeTime::new(0.0));
    let _closed = server.script.gate();
    let client = client(&time)
        .address(server.url())
        .attempt_timeout(Duration::from_millis(50))
        .max_tries(2)
        .build()
        .await
        .unwrap();
    let error = client.get_token(&TokenRequest::new("acme")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(server.script.calls(), 2);
}
