//! The load generator against a real server.

#![expect(clippy::unwrap_used, reason = "a test whose helpers fail by panicking too")]

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use tokenward_bench::echo::{ECHO_PATH, Echo, EchoRequest, EchoResponse};
use tokenward_bench::load::{Closed, Open, Workload, closed_loop, each, open_loop};
use tokenward_bench::requests::{Call, Expected, unframe};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

fn echo_server(answer_bytes: usize) -> SocketAddr {
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = incoming.local_addr().unwrap();
    tokio::spawn(Server::builder().add_service(Echo::service(answer_bytes)).serve_with_incoming(incoming));
    address
}

fn call(address: SocketAddr, path: &str, message: &str, expected: &'static str) -> Call {
    let uri = Uri::builder().scheme("http").authority(address.to_string()).path_and_query(path);
    let expected = Expected::StartsWith(Bytes::from_static(expected.as_bytes()));
    Call::new(&uri.build().unwrap(), None, &EchoRequest { message: message.to_owned() }, expected)
}

fn closed() -> Closed {
    let (warmup, time) = (Duration::from_millis(20), Duration::from_millis(200));
    Closed { connections: 2, streams: 4, warmup, time, seed: 1 }
}

#[tokio::test]
async fn answers_come_in_the_order_of_the_calls_and_have_the_wanted_size() {
    let address = echo_server(100);
    let messages: Vec<String> = (0..50).map(|number| format!("message {number}")).collect();
    let calls: Vec<Call> =
        messages.iter().map(|message| call(address, ECHO_PATH, message, "message")).collect();
    let answers = each(address, calls.into(), 3, 7).await.unwrap();
    assert_eq!(answers.len(), messages.len());
    for (answered, message) in answers.iter().zip(&messages) {
        let answer: EchoResponse = unframe(&answered.answer).unwrap();
        assert!(answer.message.starts_with(message.as_str()));
        assert_eq!(answer.message.len(), 100);
    }
}

#[tokio::test]
async fn a_closed_loop_counts_answers_and_the_servers_time() {
    let address = echo_server(10);
    let workload = Workload::new(address, [call(address, ECHO_PATH, "hello", "hello")].into()).await.unwrap();
    let run = closed_loop(&workload, closed(), std::process::id()).await.unwrap();
    assert!(run.outcome.calls > 0);
    assert_eq!(run.outcome.errors, 0, "{:?}", run.outcome.first_error);
    assert_eq!(run.outcome.latencies.len(), run.outcome.calls);
}

#[tokio::test]
async fn many_different_calls_each_get_their_own_answer() {
    let address = echo_server(40_000);
    let names: Vec<String> = (0..300).map(|number| format!("caller {number:03}")).collect();
    let calls = names.iter().map(|name| call(address, ECHO_PATH, name, name.clone().leak()));
    let workload = Workload::new(address, calls.collect()).await.unwrap();
    let run = closed_loop(&workload, closed(), std::process::id()).await.unwrap();
    assert!(run.outcome.calls > 0);
    assert_eq!(run.outcome.errors, 0, "answers of several frames: {:?}", run.outcome.first_error);
}

#[tokio::test]
async fn thousands_of_calls_can_be_encoded() {
    let address = echo_server(10);
    let message = "x".repeat(300);
    let calls = (0..5_000).map(|_| call(address, ECHO_PATH, &message, "x")).collect();
    Workload::new(address, calls).await.unwrap();
}

#[tokio::test]
async fn a_wrong_answer_and_an_error_status_are_no_successes() {
    let address = echo_server(10);
    for path in [ECHO_PATH, "/no/method"] {
        let workload =
            Workload::new(address, [call(address, path, "hello", "goodbye")].into()).await.unwrap();
        let outcome = closed_loop(&workload, closed(), std::process::id()).await.unwrap().outcome;
        assert_eq!(outcome.calls, 0);
        assert!(outcome.errors > 0);
        assert!(outcome.all_right("x").unwrap_err().to_string().contains("not the expected one"));
    }
    let refused = each(address, [call(address, "/no/method", "x", "x")].into(), 1, 1).await.unwrap_err();
    assert!(format!("{refused:#}").contains("gRPC status 12"), "{refused:#}");
}

#[tokio::test]
async fn a_server_that_is_gone_is_an_error() {
    let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
    let calls = [call(nobody, ECHO_PATH, "hello", "hello")];
    assert!(each(nobody, calls.clone().into(), 1, 1).await.is_err());
    let workload = Workload::new(nobody, calls.into()).await.unwrap();
    assert!(closed_loop(&workload, closed(), std::process::id()).await.is_err());
}

#[tokio::test]
async fn an_open_loop_makes_the_calls_that_its_rate_asks_for() {
    let address = echo_server(10);
    let workload = Workload::new(address, [call(address, ECHO_PATH, "hello", "hello")].into()).await.unwrap();
    let (warmup, time) = (Duration::from_millis(100), Duration::from_millis(400));
    let plan = Open { connections: 2, rate: 500.0, warmup, time, seed: 1 };
    let outcome = open_loop(&workload, plan).await.unwrap();
    assert_eq!(outcome.errors, 0, "{:?}", outcome.first_error);
    // 500 a second for 0.4 s; the first and last may fall on either side of the limits.
    assert!((199..=201).contains(&outcome.calls), "{}", outcome.calls);
}
