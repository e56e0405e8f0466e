//! The token on every request of a channel.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderValue, Request, Response, StatusCode, header};
use tonic::Status;
use tower::{Layer, Service};

use crate::error::{Error, ErrorKind};
use crate::source::TokenSource;
use crate::token::AccessToken;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Puts `authorization: Bearer …` on every request: for tonic channels, and every other tower service over HTTP.
///
/// A rejection (HTTP 401, gRPC UNAUTHENTICATED) is told to the source, so that the next request carries another token;
/// the rejected one is not repeated, because its body is gone. Without a token the call fails with a
/// [`tonic::Status`] of the same code.
#[derive(Clone)]
pub struct TokenLayer {
    source: Arc<dyn TokenSource>,
}

impl TokenLayer {
    /// A layer with tokens of `source`.
    pub fn new(source: impl TokenSource + 'static) -> Self {
        Self { source: Arc::new(source) }
    }
}

impl<S> Layer<S> for TokenLayer {
    type Service = TokenService<S>;

    fn layer(&self, inner: S) -> TokenService<S> {
        TokenService { inner, source: Arc::clone(&self.source) }
    }
}

/// What [`TokenLayer`] makes of a service.
#[derive(Clone)]
pub struct TokenService<S> {
    inner: S,
    source: Arc<dyn TokenSource>,
}

impl<S, B, R> Service<Request<B>> for TokenService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: Send + 'static,
    R: Send + 'static,
{
    type Response = Response<R>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        // The service that was polled ready goes with the call; its clone takes its place.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let source = Arc::clone(&self.source);
        Box::pin(async move {
            let token = source.token().await.map_err(Status::from)?;
            let header = header_of(&token).map_err(Status::from)?;
            request.headers_mut().insert(header::AUTHORIZATION, header);
            let answer = inner.call(request).await.map_err(Into::into)?;
            if is_rejection(&answer) {
                source.rejected(&token).await;
            }
            Ok(answer)
        })
    }
}

fn header_of(token: &AccessToken) -> Result<HeaderValue, Error> {
    let mut header = HeaderValue::try_from(format!("Bearer {}", token.expose_secret())).map_err(|_| {
        Error::local(ErrorKind::Internal, "UNUSABLE_TOKEN", "the token does not fit into a header")
    })?;
    header.set_sensitive(true);
    Ok(header)
}

/// A gRPC server that refuses a token answers with headers alone, so the status is there.
fn is_rejection<R>(answer: &Response<R>) -> bool {
    let unauthenticated = || answer.headers().get("grpc-status").is_some_and(|code| code.as_bytes() == b"16");
    answer.status() == StatusCode::UNAUTHORIZED || unauthenticated()
}
