use std::time::Duration;

use tonic::Code;

use super::fake::{CALLER_TOKEN, FakeServer, FakeTime, client, refusal, token};
use crate::{ErrorKind, ReportOutcome, TokenRequest};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_cached_token_is_served_without_a_call() {
    let (server, time) = (FakeServer::start().await, FakeTime::new(0.0));
    server.script.otherwise(token("secret", 1800));
    let client = server.client(&time).await;
    let request = TokenRequest::new("acme").provider("hubspot").scopes(["read"]).account("42");
    let first = client.get_token(&request).await.unwrap();
    let second = client.clone().get_token(&request).await.unwrap();
    assert_eq!(server.script.calls(), 1);
    assert_eq!((first.expose_secret(), second.expose_secret()), ("secret", "secret"));
    assert_eq!(first.expires_at().unwrap() - crate::time::Time::now(&*time), 1800 * SECOND);
    assert_eq!((first.tenant_id(), first.connection_id(), first.account_id()), ("acme", "con_1", "42"));

    let asked = server.script.requests().remove(0);
    assert_eq!(
        (asked.tenant_id.as_str(), asked.provider.as_str(), asked.account_id.as_str()),
        ("acme", "hubspot", "42")
    );
    assert_eq!(server.script.bearers(), [format!("Bearer {CALLER_TOKEN}")]);
}

#[tokio::test]
async fn another_request_does_not_get_the_cached_token() {
    let (server, time) = (FakeServer::start().await, FakeTime::new(0.0));
    server.script.push(token("of acme", 1800));
    server.script.push(token("of globex", 1800));
    let client = server.client(&time).await;
    assert_eq!(client.get_token(&TokenRequest::new("acme")).await.unwrap().expose_secret(), "of acme");
    assert_eq!(client.get_token(&TokenRequest::new("globex")).await.unwrap().expose_secret(), "of globex");
}

#[tokio::test]
async fn a_token_is_asked_for_again_when_only_the_margin_is_left() {
    let (server, time) = (FakeServer::start().await, FakeTime::new(0.0));
    server.script.push(token("old", 200));
    server.script.push(token("new", 200));
    let client = server.client(&time).await;
    let request = TokenRequest::new("acme");
    client.get_token(&request).await.unwrap();
    time.advance(139 * SECOND);
    assert_eq!(client.get_token(&request).await.unwrap().expose_secret(), "old");
    time.advance(SECOND);
    assert_eq!(client.get_token(&request).await.unwrap().expose_secret(), "new");
    assert_eq!(server.script.calls(), 2);
}

#[tokio::test]
async fn a_request_with_its_own_min_ttl_is_not_served_less() {
    let (server, time) = (FakeServer::start().await, FakeTime::new(0.0));
    server.script.push(token("old", 1000));
    server.script.push(token("new", 1000));
    let client = server.client(&time).await;
    let request = TokenRequest::new("acme").min_ttl(900 * SECOND);
    client.get_token(&request).await.unwrap();
    time.advance(99 * SECOND);
    assert_eq!(client.get_token(&request).await.unwrap().expose_secret(), "old");
    time.advance(SECOND);
    assert_eq!(client.get_token(&request).await.unwrap().expose_secret(), "new");
    assert_eq!(server.script.requests()[0].min_ttl.unwrap().seconds, 900);
}

#[tokio::test]
async fn tokens_are_asked_for_again_after_the_maximum_age_even_if_they_never_expire() {
    let (server, time) = (FakeServer::start().await, FakeTime::new(0.0));
    let mut fixed = token("static", 0).unwrap();
    fixed.ttl = None;
    server.script.otherwise(Ok(fixed));
    let client = server.client(&time).await;
    let request = TokenRequest::new("acme");
    assert_eq!(client.get_token(&request).await.unwrap().expires_at(), None);
    time.advance(299 * SECOND);
    client.get_token(&request).await.unwrap();
    assert_eq!(server.script.calls(), 1);
    time.advance(SECOND);
    client.get_token(&request).await.unwrap();
    assert_eq!(server.script.calls(), 2);
}

#[tokio::test]
async fn an_outage_is_bridged_by_a_token_that_still_lives() {
    let (server, time) = (FakeServer::start().await, FakeTime::new(0.0));
    server.script.push(token("kept", 1000));
    server.script.otherwise(Err(refusal(Code::Unavailable, "STORAGE_UNAVAILABLE", &[], None)));
    let client = server.client(&time).await;
    let request = TokenRequest::new("acme");
    client.get_token(&request).await.unwrap();
    time.advance(600 * SECOND);
    assert_eq!(client.get_token(&request).await.unwrap().expose_secret(), "kept");
    assert!(server.script.calls() > 1, "the server is asked first");
    time.advance(400 * SECOND);
    assert_eq!(client.get_token(&request).await.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_denial_is_never_bridged() {
    let (server, time) = (FakeServer::start().await, FakeTime::new(0.0));
    server.script.push(token("kept", 1000));
    server.script.push(Err(refusal(Code::PermissionDenied, "ACCESS_DENIED", &[], None)));
    let client = server.client(&time).await;
    let request = TokenRequest::new("acme");
    client.get_token(&request).await.unwrap();
    time.advance(600 * SECOND);
    assert_eq!(client.get_token(&request).await.unwrap_err().kind(), ErrorKind::Denied);
}

#[tokio::test]
async fn a_hundred_callers_at_once_make_one_call() {
    let (server, time) = (FakeServer::start().await, FakeTime::new(0.0));
    server.script.push(token("shared", 1800));
    let gate = server.script.gate();
    let client = server.client(&time).await;
    let callers: Vec<_> = (0..100)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.get_token(&TokenRequest::new("acme")).await.unwrap() })
        })
        .collect();
    gate.add_permits(100);
    for caller in callers {
        assert_eq!(caller.await.unwrap().expose_secret(), "shared");
    }
    assert_eq!(server.script.calls(), 1);
}

#[tokio::test]
async fn a_caller_that_goes_away_does_not_take_the_call_from_the_others() {
    let (server, time) = (FakeServer::start().await, FakeTime::new(0.0));
    server.script.otherwise(token("shared", 1800));
    let gate = server.script.gate();
    let client = server.client(&time).await;
    let request = TokenRequest::new("acme");
    let mut first = Box::pin(client.get_token(&request));
    let mut second = Box::pin(client.get_token(&request));
    assert!(futures::poll!(&mut first).is_pending());
    assert!(futures::poll!(&mut second).is_pending());
    drop(first);
    gate.add_permits(10);
    assert_eq!(second.await.unwrap().expose_secret(), "shared");
    assert_eq!(server.script.calls(), 1);
}

#[tokio::test]
async fn a_failed_call_is_not_remembered() {
    let (server, time) = (FakeServer::start().await, FakeTime::new(0.0));
    server.script.push(Err(refusal(Code::FailedPrecondition, "CONNECTION_REQUIRED", &[], None)));
    server.script.push(token("at last", 1800));
    let client = server.client(&time).await;
    let request = TokenRequest::new("acme");
    assert_eq!(client.get_token(&request).await.unwrap_err().kind(), ErrorKind::NotConnected);
    assert_eq!(client.get_token(&request).await.unwrap().expose_secret(), "at last");
}

#[tokio::test]
async fn a_rejected_token_is_reported_and_forgotten_under_every_request() {
    let (server, time) = (FakeServer::start().await, FakeTime::new(0.0));
    server.script.push(token("bad", 1800));
    server.script.push(token("bad", 1800));
    server.script.otherwise(token("better", 1800));
    let client = server.client(&time).await;
    let (one, other) = (TokenRequest::new("acme"), TokenRequest::new("acme").provider("hubspot"));
    let bad = client.get_token(&one).await.unwrap();
    client.get_token(&other).await.unwrap();

    assert_eq!(client.report_rejected(&bad).await.unwrap(), ReportOutcome::Replaced);
    let report = server.script.reports().remove(0);
    assert_eq!((report.tenant_id.as_str(), report.connection_id.as_str()), ("acme", "con_1"));
    assert_eq!(report.fingerprint, bad.fingerprint());
    for request in [&one, &other] {
        assert_eq!(client.get_token(request).await.unwrap().expose_secret(), "better");
    }
}

#[tokio::test]
async fn a_client_without_capacity_asks_every_time() {
    let (server, time) = (FakeServer::start().await, FakeTime::new(0.0));
    server.script.otherwise(token("secret", 1800));
    let client = client(&time).address(server.url()).cache_capacity(0).build().await.unwrap();
    for _ in 0..3 {
        client.get_token(&TokenRequest::new("acme")).await.unwrap();
    }
    assert_eq!(server.script.calls(), 3);
}

#[tokio::test]
async fn debug_output_shows_neither_tokens_nor_caller_tokens() {
    let (server, time) = (FakeServer::start().await, FakeTime::new(0.0));
    server.script.otherwise(token("access-hunter2", 1800));
    let builder = client(&time).address(server.url());
    let before = format!("{builder:?}");
    let client = builder.build().await.unwrap();
    let token = client.get_token(&TokenRequest::new("acme")).await.unwrap();
    let source = client.source(TokenRequest::new("acme"));
    let all = format!("{before} {client:?} {token:?} {source:?}");
    assert!(!all.contains("hunter2"), "{all}");
    assert!(all.contains("print-of-14"), "the fingerprint is what logs may show");
}
