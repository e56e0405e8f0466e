//! The listener: one task per connection, HTTP/1.1, over streams that can be cut.

use std::{net::SocketAddr, time::Duration};

use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
};
use tower_service::Service;

use crate::{
    SimError,
    config::SimConfig,
    conn::{Conn, CuttableStream},
    handle::SimHandle,
    http::router,
};

/// Starts stand-ins.
#[derive(Clone, Copy, Debug)]
pub struct HubspotSim;

impl HubspotSim {
    /// Listens and serves on the current tokio runtime until shut down or dropped.
    ///
    /// # Errors
    /// When the address cannot be bound, or an app's redirect URI would not be accepted by HubSpot.
    pub async fn start(config: SimConfig) -> Result<RunningSim, SimError> {
        let listener = TcpListener::bind(config.listen)
            .await
            .map_err(|e| SimError::Start(format!("cannot listen on {}: {e}", config.listen)))?;
        let address = listener.local_addr().map_err(|e| SimError::Start(e.to_string()))?;
        let handle = SimHandle::new(config)?;
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(accept(listener, handle.clone(), stopped));
        Ok(RunningSim { address, handle, stop, task: Some(task) })
    }
}

/// A stand-in that is listening. Dropping it closes the port and every connection.
#[derive(Debug)]
pub struct RunningSim {
    address: SocketAddr,
    handle: SimHandle,
    stop: watch::Sender<bool>,
    task: Option<JoinHandle<()>>,
}

impl RunningSim {
    /// `http://host:port`, without a slash at the end: both `api_base_url` and the host of the authorize page.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The authorize page's URL.
    pub fn authorize_url(&self) -> String {
        format!("{}/oauth/authorize", self.base_url())
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// For inspection and control without HTTP.
    pub fn handle(&self) -> &SimHandle {
        &self.handle
    }

    /// Closes the port and every connection, and waits until that is done. The handle still shows the books.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        if let Some(task) = self.task.take() {
            // It ends by itself; a panic in it has been reported by its own test.
            let _ = task.await;
        }
    }
}

async fn accept(listener: TcpListener, handle: SimHandle, mut stopped: watch::Receiver<bool>) {
    let router = router(handle.clone());
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    connections.spawn(serve(stream, router.clone(), Conn::new(handle.clone(), peer.ip())));
                }
                // Out of file descriptors, mostly: give connections the time to end.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            // The sender is gone (dropped) or says so: both mean stop.
            _ = stopped.changed() => break,
        }
    }
    connections.shutdown().await;
}

async fn serve(stream: TcpStream, router: axum::Router, conn: std::sync::Arc<Conn>) {
    // Answers are small and each is waited for.
    let _ = stream.set_nodelay(true);
    let service = {
        let conn = conn.clone();
        service_fn(move |mut request: http::Request<Incoming>| {
            conn.begin();
            request.extensions_mut().insert(conn.clone());
            router.clone().call(request)
        })
    };
    let io = TokioIo::new(CuttableStream { stream, conn });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(io, service)
        .await;
    if let Err(error) = served {
        // Also the normal end of a connection that a fault cut.
        tracing::debug!(%error, "connection ended");
    }
}
