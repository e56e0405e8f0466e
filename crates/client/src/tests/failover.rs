use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

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
async fn a_server_that_hangs_leaves_time_for_the_others_within_the_calls_deadline() {
    let (first, second, third) =
        (FakeServer::start().await, FakeServer::start().await, FakeServer::start().await);
    let (_hangs, _hangs_too) = (first.script.gate(), second.script.gate());
    third.script.otherwise(token("secret", 1800));
    let time = FakeTime::new(0.0);
    let client = client(&time)
        .addresses([first.url(), second.url(), third.url()])
        // Less than one try may take.
        .timeout(Duration::from_millis(900))
        .build()
        .await
        .unwrap();
    assert_eq!(client.get_token(&TokenRequest::new("acme")).await.unwrap().expose_secret(), "secret");
    assert_eq!((first.script.calls(), second.script.calls()), (1, 1));
    client.get_token(&TokenRequest::new("globex")).await.unwrap();
    assert_eq!(first.script.calls(), 1, "the one that works stays in use");
}

/// A resolver that knows one name.
fn name_of(addresses: &[SocketAddr]) -> crate::connect::Lookup {
    let addresses = addresses.to_vec();
    Arc::new(move |host, _| {
        assert_eq!(host, "localhost");
        let addresses = addresses.clone();
        Box::pin(async move { Ok(addresses) })
    })
}

#[tokio::test]
async fn a_name_with_several_addresses_is_several_servers() {
    let (first, second, time) = (FakeServer::start().await, FakeServer::start().await, FakeTime::new(0.0));
    let (mut dies, mut lives) = (first, second);
    if dies.address > lives.address {
        (dies, lives) = (lives, dies);
    }
    lives.script.otherwise(token("secret", 1800));
    let _closed = dies.script.gate();
    let client = client(&time)
        .address("http://localhost:1")
        .lookup(name_of(&[lives.address, dies.address]))
        .build()
        .await
        .unwrap();
    // The first dies in the middle of a call; the same call goes on at the second, without a wait.
    let call = {
        let client = client.clone();
        tokio::spawn(async move { client.get_token(&TokenRequest::new("acme")).await })
    };
    while dies.script.calls() == 0 {
        tokio::task::yield_now().await;
    }
    dies.die().await;
    assert_eq!(call.await.unwrap().unwrap().expose_secret(), "secret");
    assert!(time.slept().is_empty());
}

#[tokio::test]
async fn a_server_behind_a_name_that_hangs_or_has_trouble_is_left_for_another_address() {
    for hangs in [true, false] {
        let (one, other, time) = (FakeServer::start().await, FakeServer::start().await, FakeTime::new(0.0));
        let (bad, good) = if one.address < other.address { (one, other) } else { (other, one) };
        good.script.otherwise(token("secret", 1800));
        let trouble = refusal(Code::Unavailable, "STORAGE_UNAVAILABLE", &[], None);
        bad.script.otherwise(Err(trouble));
        let _closed = hangs.then(|| bad.script.gate());
        let client = client(&time)
            .address("http://localhost:1")
            .lookup(name_of(&[bad.address, good.address]))
            .attempt_timeout(Duration::from_millis(300))
            .build()
            .await
            .unwrap();
        assert_eq!(client.get_token(&TokenRequest::new("acme")).await.unwrap().expose_secret(), "secret");
        assert_eq!((bad.script.calls(), good.script.calls()), (1, 1), "hangs: {hangs}");
        assert!(time.slept().is_empty());
    }
}

#[tokio::test]
async fn a_fleet_of_clients_spreads_over_the_servers_and_the_addresses_of_a_name() {
    let servers = [FakeServer::start().await, FakeServer::start().await, FakeServer::start().await];
    for server in &servers {
        server.script.otherwise(token("secret", 1800));
    }
    let urls: Vec<String> = servers.iter().map(FakeServer::url).collect();
    let addresses: Vec<SocketAddr> = servers.iter().map(|server| server.address).collect();
    for (asked, start) in [(1, 0.1), (2, 0.4013), (3, 0.903)] {
        let time = FakeTime::new(start);
        let several = client(&time).addresses(urls.clone()).build().await.unwrap();
        several.get_token(&TokenRequest::new("acme")).await.unwrap();
        let name =
            client(&time).address("http://localhost:1").lookup(name_of(&addresses)).build().await.unwrap();
        name.get_token(&TokenRequest::new("acme")).await.unwrap();
        let calls: usize = servers.iter().map(|server| server.script.calls()).sum();
        assert_eq!(calls, 2 * asked);
    }
    let calls: BTreeSet<usize> = servers.iter().map(|server| server.script.calls()).collect();
    assert_eq!(calls, BTreeSet::from([2]), "each was asked by one of each kind");
}

#[tokio::test]
async fn while_all_servers_are_away_a_cached_token_is_served_until_it_expires_and_without_waiting() {
    let (one, other, time) = (FakeServer::start().await, FakeServer::start().await, FakeTime::new(0.0));
    one.script.otherwise(token("kept", 1000));
    let client = client(&time).addresses([one.url(), other.url()]).build().await.unwrap();
    let request = TokenRequest::new("acme");
    client.get_token(&request).await.unwrap();
    let longer = TokenRequest::new("acme").min_ttl(Duration::from_secs(300));
    client.get_token(&longer).await.unwrap();
    let address = one.address;
    one.die().await;
    other.die().await;
    time.advance(Duration::from_secs(600));
    assert_eq!(client.get_token(&request).await.unwrap().expose_secret(), "kept");
    let slept = time.slept().len();
    assert_eq!(slept, 3, "every server was tried in four rounds");
    for _ in 0..100 {
        assert_eq!(client.get_token(&request).await.unwrap().expose_secret(), "kept");
    }
    assert_eq!(time.slept().len(), slept, "the outage is believed for a moment");

    // Its margin does not count now, its expiry does.
    time.advance(Duration::from_secs(380));
    assert_eq!(client.get_token(&request).await.unwrap().expose_secret(), "kept");
    assert_eq!(client.get_token(&longer).await.unwrap_err().kind(), ErrorKind::Unavailable);
    time.advance(Duration::from_secs(20));
    assert_eq!(client.get_token(&request).await.unwrap_err().kind(), ErrorKind::Unavailable);

    let back = FakeServer::start_on(address, None).await;
    back.script.otherwise(token("new", 1000));
    assert_eq!(client.get_token(&request).await.unwrap().expose_secret(), "new");
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
