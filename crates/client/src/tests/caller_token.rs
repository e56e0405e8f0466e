use std::path::Path;
use std::time::Duration;

use super::fake::{FakeServer, FakeTime, client, token};
use crate::{BuildError, ErrorKind, TokenClient, TokenRequest};

fn write(path: &Path, token: &str) {
    std::fs::write(path, token).unwrap();
}

async fn with_file(server: &FakeServer, time: &std::sync::Arc<FakeTime>, file: &Path) -> TokenClient {
    client(time).address(server.url()).caller_token_file(file).cache_capacity(0).build().await.unwrap()
}

#[tokio::test]
async fn a_token_file_that_changes_is_read_again() {
    let (server, time) = (FakeServer::start().await, FakeTime::new(0.0));
    server.script.otherwise(token("secret", 1800));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    write(&file, "first\n");
    let client = with_file(&server, &time, &file).await;
    let request = TokenRequest::new("acme");
    client.get_token(&request).await.unwrap();
    write(&file, "second-token");
    client.get_token(&request).await.unwrap();
    time.advance(Duration::from_secs(2));
    client.get_token(&request).await.unwrap();
    assert_eq!(server.script.bearers(), ["Bearer first", "Bearer first", "Bearer second-token"]);
}

#[tokio::test]
async fn an_unaccepted_token_makes_it_read_the_file_at_once() {
    let (server, time) = (FakeServer::start().await, FakeTime::new(0.0));
    server.script.otherwise(token("secret", 1800));
    server.script.accept_only("second");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    write(&file, "first");
    let client = with_file(&server, &time, &file).await;
    write(&file, "second");
    client.get_token(&TokenRequest::new("acme")).await.unwrap();
    assert_eq!(server.script.bearers(), ["Bearer first", "Bearer second"]);
    assert!(time.slept().is_empty());
}

#[tokio::test]
async fn an_unaccepted_token_that_is_still_in_the_file_is_not_sent_again() {
    let (server, time) = (FakeServer::start().await, FakeTime::new(0.0));
    server.script.accept_only("other");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    write(&file, "first");
    let client = with_file(&server, &time, &file).await;
    let error = client.get_token(&TokenRequest::new("acme")).await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (ErrorKind::Unauthenticated, "CALLER_TOKEN_EXPIRED"));
    assert_eq!(server.script.calls(), 1);
}

#[tokio::test]
async fn a_second_unaccepted_token_ends_the_call() {
    let (server, time) = (FakeServer::start().await, FakeTime::new(0.0));
    server.script.accept_only("other");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    write(&file, "first");
    let client = with_file(&server, &time, &file).await;
    write(&file, "second");
    let error = client.get_token(&TokenRequest::new("acme")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthenticated);
    assert_eq!(server.script.calls(), 2);
}

#[tokio::test]
async fn a_file_that_vanishes_leaves_the_known_token_in_use() {
    let (server, time) = (FakeServer::start().await, FakeTime::new(0.0));
    server.script.otherwise(token("secret", 1800));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    write(&file, "first");
    let client = with_file(&server, &time, &file).await;
    std::fs::remove_file(&file).unwrap();
    time.advance(Duration::from_mins(1));
    client.get_token(&TokenRequest::new("acme")).await.unwrap();
    assert_eq!(server.script.bearers(), ["Bearer first"]);
}

#[tokio::test]
async fn a_file_without_a_usable_token_is_refused_without_showing_it() {
    let time = FakeTime::new(0.0);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    for content in ["", "hunter2 hunter2", "hunter2\u{7}", &"hunter2".repeat(10_000)] {
        write(&file, content);
        let builder = client(&time).address("http://127.0.0.1:1").caller_token_file(&file);
        let error = builder.build().await.unwrap_err();
        assert!(matches!(error, BuildError::CallerToken(_)));
        assert!(!error.to_string().contains("hunter2"));
    }
    let missing = client(&time).address("http://127.0.0.1:1").caller_token_file(folder.path().join("none"));
    assert!(matches!(missing.build().await.unwrap_err(), BuildError::CallerToken(_)));
}
