use tonic::Code;

use super::fake::{FakeServer, FakeTime, client, dead_address, refusal, token};
use crate::{BuildError, ErrorKind, TokenClient, TokenRequest};

#[tokio::test]
async fn the_next_address_takes_over_and_stays_in_use() {
    let (first, second, time) = (FakeServer::start().await, FakeServer::start().await, FakeTime::new(0.0));
    first.script.otherwise(Err(refusal(Code::Unavailable, "STORAGE_UNAVAILABLE", &[], None)));
    second.script.otherwise(token("secret", 1800));
    let client = client(&time).addresses([first.url(), second.url()]).build().await.unwrap();
    client.get_token(&TokenRequest::new("acme")).await.unwrap();
    client.get_token(&TokenRequest::new("globex")).await.unwrap();
    assert_eq!((first.script.calls(), second.script.calls()), (1, 2));
    assert!(time.slept().is_empty(), "another server is asked at once");
}

#[tokio::test]
async fn an_address_that_nobody_listens_at_is_left() {
    let (server, time) = (FakeServer::start().await, FakeTime::new(0.0));
    server.script.otherwise(token("secret", 1800));
    let client = client(&time).address(dead_address().await).address(server.url()).build().await.unwrap();
    client.get_token(&TokenRequest::new("acme")).await.unwrap();
    assert!(time.slept().is_empty());
}

#[tokio::test]
async fn the_first_address_is_tried_again_when_the_second_fails() {
    let (first, time) = (FakeServer::start().await, FakeTime::new(0.0));
    first.script.push(Err(refusal(Code::ResourceExhausted, "OVERLOADED", &[], None)));
    first.script.otherwise(token("secret", 1800));
    let client = client(&time).address(first.url()).address(dead_address().await).build().await.unwrap();
    client.get_token(&TokenRequest::new("acme")).await.unwrap();
    assert_eq!(first.script.calls(), 2);
    assert_eq!(time.slept().len(), 1, "a wait after a round over all addresses");
}

#[tokio::test]
async fn a_providers_trouble_does_not_make_it_change_the_server() {
    let (first, second, time) = (FakeServer::start().await, FakeServer::start().await, FakeTime::new(0.0));
    first.script.push(Err(refusal(Code::Unavailable, "PROVIDER_UNAVAILABLE", &[], None)));
    first.script.push(token("secret", 1800));
    let client = client(&time).addresses([first.url(), second.url()]).build().await.unwrap();
    client.get_token(&TokenRequest::new("acme")).await.unwrap();
    assert_eq!((first.script.calls(), second.script.calls()), (2, 0));
}

#[tokio::test]
async fn a_server_that_dies_in_the_middle_of_a_call_is_left() {
    let (first, second, time) = (FakeServer::start().await, FakeServer::start().await, FakeTime::new(0.0));
    let _closed = first.script.gate();
    second.script.otherwise(token("secret", 1800));
    let client = client(&time).addresses([first.url(), second.url()]).build().await.unwrap();
    let call = tokio::spawn(async move { client.get_token(&TokenRequest::new("acme")).await });
    while first.script.calls() == 0 {
        tokio::task::yield_now().await;
    }
    first.die().await;
    assert_eq!(call.await.unwrap().unwrap().expose_secret(), "secret");
}

#[tokio::test]
async fn a_server_that_comes_back_is_found_again() {
    let (server, time) = (FakeServer::start().await, FakeTime::new(0.0));
    server.script.otherwise(token("one", 1800));
    let client = server.client(&time).await;
    client.get_token(&TokenRequest::new("acme")).await.unwrap();
    let address = server.address;
    server.die().await;
    let server = FakeServer::start_on(address, None).await;
    server.script.otherwise(token("two", 1800));
    assert_eq!(client.get_token(&TokenRequest::new("globex")).await.unwrap().expose_secret(), "two");
}

#[tokio::test]
async fn if_no_address_works_the_error_says_unavailable() {
    let time = FakeTime::new(0.0);
    let client = client(&time).addresses([dead_address().await, dead_address().await]).build().await.unwrap();
    let error = client.get_token(&TokenRequest::new("acme")).await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (ErrorKind::Unavailable, "UNAVAILABLE"));
    assert_eq!(time.slept().len(), 3, "four rounds");
}

#[tokio::test]
async fn a_bare_address_is_plaintext_on_this_machine_and_tls_elsewhere() {
    let time = FakeTime::new(0.0);
    let server = FakeServer::start().await;
    server.script.otherwise(token("one", 1800));
    let bare = server.url().trim_start_matches("http://").to_owned();
    let near = client(&time).address(bare).build().await.unwrap();
    assert_eq!(near.get_token(&TokenRequest::new("acme")).await.unwrap().expose_secret(), "one");
    let elsewhere = client(&time).address("10.0.0.1:7601").build().await;
    assert!(elsewhere.is_ok(), "https needs no permission");
}

#[tokio::test]
async fn addresses_that_would_show_tokens_or_mean_nothing_are_refused() {
    let time = FakeTime::new(0.0);
    for address in ["http://10.0.0.1:8080", "ftp://127.0.0.1", "http://localhost.example:80", "::"] {
        let refused = client(&time).address(address).build().await.unwrap_err();
        assert!(
            matches!(&refused, BuildError::Address { address: named, .. } if named == address),
            "{refused}"
        );
    }
    assert_eq!(client(&time).build().await.unwrap_err(), BuildError::NoAddress);
    let plaintext = client(&time).address("http://10.0.0.1:8080").allow_plaintext(true);
    assert!(plaintext.build().await.is_ok());
    let anonymous = TokenClient::builder().address("http://127.0.0.1:1").build().await.unwrap_err();
    assert!(matches!(anonymous, BuildError::CallerToken(_)));
}
