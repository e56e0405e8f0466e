//! The HTTP listeners: a small loop of our own, so that TLS, time limits and the end are the same as for gRPC.

use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tower_service::Service;

use super::socket::{Accepted, Listener};
use super::stopped;
use super::tls::HANDSHAKE_TIMEOUT;

/// How long a client may take to send the headers of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a request may take, its body included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Headers of one request: cookies and a long callback address.
const MAX_HEADER_BYTES: usize = 32 * 1024;

/// Serves a listener until it is told to stop, and then until its requests are done or `grace` is over.
pub(crate) async fn serve(
    name: &'static str,
    listener: Listener,
    tls: Option<TlsAcceptor>,
    router: Router,
    mut shutdown: watch::Receiver<bool>,
    grace: Duration,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                connections.spawn(serve_one(accepted, tls.clone(), router.clone(), shutdown.clone()));
            }
            Some(_) = connections.join_next() => {}
            () = stopped(&mut shutdown) => break,
        }
    }
    drop(listener);
    let rest = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(grace, rest).await.is_err() {
        tracing::warn!(listener = name, "requests were still running when the time to finish them was over");
    }
}

async fn serve_one(
    accepted: Accepted,
    tls: Option<TlsAcceptor>,
    router: Router,
    shutdown: watch::Receiver<bool>,
) {
    let connection = match accepted.into_connection() {
        Ok(connection) => connection,
        Err(error) => return tracing::debug!(%error, "a connection ended before it began"),
    };
    let Some(tls) = tls else { return serve_stream(connection, router, shutdown).await };
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(connection)).await {
        Ok(Ok(stream)) => serve_stream(stream, router, shutdown).await,
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
}

async fn serve_stream(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send,
    router: Router,
    mut shutdown: watch::Receiver<bool>,
) {
    let service = service_fn(move |request: Request<Incoming>| answer(router.clone(), request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_header_size(MAX_HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let outcome = tokio::select! {
        outcome = &mut connection => outcome,
        () = stopped(&mut shutdown) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "an HTTP connection ended early");
    }
}

async fn answer(mut router: Router, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let answering = Service::call(&mut router, request.map(Body::new));
    if let Ok(answer) = tokio::time::timeout(REQUEST_TIMEOUT, answering).await {
        return answer;
    }
    let mut answer = Response::new(Body::from("The request took too long.\n"));
    *answer.status_mut() = StatusCode::REQUEST_TIMEOUT;
    Ok(answer)
}
