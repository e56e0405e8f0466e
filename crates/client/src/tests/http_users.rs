use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use async_trait::async_trait;
use http::{Request, Response};
use parking_lot::Mutex;
use tonic::Code;
use tower::{ServiceBuilder, ServiceExt, service_fn};

use crate::error::{Error, ErrorKind};
use crate::{AccessToken, TokenLayer, TokenSource, call};

/// A source that gives `first` until it is rejected, and `second` afterwards.
#[derive(Default)]
struct TwoTokens {
    rejected: Mutex<Vec<String>>,
}

#[async_trait]
impl TokenSource for TwoTokens {
    async fn token(&self) -> Result<AccessToken, Error> {
        let secret = if self.rejected.lock().is_empty() { "first" } else { "second" };
        Ok(AccessToken::fixed(secret.to_owned().into()))
    }

    async fn rejected(&self, token: &AccessToken) {
        self.rejected.lock().push(token.expose_secret().to_owned());
    }
}

/// A source that has none.
struct NoToken;

#[async_trait]
impl TokenSource for NoToken {
    async fn token(&self) -> Result<AccessToken, Error> {
        Err(Error::local(ErrorKind::Unavailable, "NO_TOKEN", "none"))
    }

    async fn rejected(&self, _token: &AccessToken) {}
}

/// Sends through [`call`] to an API that gives these answers, and returns the last answer and the tokens that it saw.
async fn send(source: &impl TokenSource, answers: &[u16]) -> (Result<u16, Error>, Vec<String>) {
    let answers = Mutex::new(answers.iter().copied().collect::<VecDeque<_>>());
    let seen = Mutex::new(Vec::new());
    let send = |token: AccessToken| {
        seen.lock().push(token.expose_secret().to_owned());
        let answer = answers.lock().pop_front().unwrap();
        async move { Ok(answer) }
    };
    let answer = call(source, send, |status| *status == 401).await;
    (answer, seen.into_inner())
}

#[tokio::test]
async fn a_request_that_is_accepted_is_sent_once() {
    let (answer, seen) = send(&TwoTokens::default(), &[200]).await;
    assert_eq!((answer.unwrap(), seen), (200, vec!["first".to_owned()]));
}

#[tokio::test]
async fn a_rejected_token_is_reported_and_the_request_sent_once_more() {
    let source = TwoTokens::default();
    let (answer, seen) = send(&source, &[401, 200]).await;
    assert_eq!((answer.unwrap(), seen), (200, vec!["first".to_owned(), "second".to_owned()]));
    assert_eq!(*source.rejected.lock(), ["first"]);
}

#[tokio::test]
async fn a_second_rejection_is_the_callers() {
    let (answer, seen) = send(&TwoTokens::default(), &[401, 401]).await;
    assert_eq!((answer.unwrap(), seen.len()), (401, 2));
}

#[tokio::test]
async fn without_a_token_nothing_is_sent() {
    let (answer, seen) = send(&NoToken, &[]).await;
    assert_eq!(answer.unwrap_err().reason(), "NO_TOKEN");
    assert!(seen.is_empty());
}

/// Calls through the layer; the service answers with `answer` and its request's `authorization`.
async fn through_layer(
    source: Arc<dyn TokenSource>,
    answer: fn() -> Response<()>,
) -> Result<(Response<()>, String), Box<dyn std::error::Error + Send + Sync>> {
    let seen = Arc::new(Mutex::new(String::new()));
    let see = Arc::clone(&seen);
    let service = service_fn(move |request: Request<()>| {
        let header = &request.headers()["authorization"];
        assert!(header.is_sensitive());
        header.to_str().unwrap().clone_into(&mut see.lock());
        async move { Ok::<_, Infallible>(answer()) }
    });
    let service = ServiceBuilder::new().layer(TokenLayer::new(source)).service(service);
    let answer = service.oneshot(Request::new(())).await?;
    let header = seen.lock().clone();
    Ok((answer, header))
}

#[tokio::test]
async fn the_layer_puts_the_token_on_the_request() {
    let source = Arc::new(TwoTokens::default());
    let (_, header) = through_layer(source.clone(), || Response::new(())).await.unwrap();
    assert_eq!(header, "Bearer first");
    assert!(source.rejected.lock().is_empty());
}

#[tokio::test]
async fn the_layer_reports_a_rejection_over_grpc_and_over_http() {
    let grpc = || Response::builder().header("grpc-status", "16").body(()).unwrap();
    let http = || Response::builder().status(401).body(()).unwrap();
    for answer in [grpc as fn() -> Response<()>, http] {
        let source = Arc::new(TwoTokens::default());
        through_layer(source.clone(), answer).await.unwrap();
        assert_eq!(*source.rejected.lock(), ["first"]);
    }
}

#[tokio::test]
async fn the_layers_error_keeps_its_grpc_code() {
    let error = through_layer(Arc::new(NoToken), || Response::new(())).await.unwrap_err();
    let status = tonic::Status::from_error(error);
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("NO_TOKEN"));
}
