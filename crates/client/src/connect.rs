//! Connections to a server that may be several: a name stands for all addresses behind it, and each new connection goes to
//! the next of them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

/// Finds the addresses behind a name and a port.
pub(crate) type Lookup =
    Arc<dyn Fn(String, u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// The system's resolver.
pub(crate) fn system_lookup() -> Lookup {
    Arc::new(|host, port| Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) }))
}

/// Makes connections to the addresses behind one name, in turn.
#[derive(Clone)]
pub(crate) struct Connector {
    lookup: Lookup,
    timeout: Duration,
    next: Arc<AtomicUsize>,
    known: Arc<AtomicUsize>,
}

impl Connector {
    /// A connector that begins with any of the addresses, as `first` says. Connecting to all of them takes `timeout` at the
    /// most.
    pub(crate) fn new(lookup: Lookup, timeout: Duration, first: usize) -> Self {
        Self {
            lookup,
            timeout,
            next: Arc::new(AtomicUsize::new(first)),
            known: Arc::new(AtomicUsize::new(1)),
        }
    }

    /// How many addresses there were behind the name when it was last looked up; 1 before.
    pub(crate) fn known(&self) -> usize {
        self.known.load(Ordering::Relaxed)
    }

    /// A channel that connects when it is first used.
    pub(crate) fn channel(&self, endpoint: &Endpoint) -> Channel {
        let connector = self.clone();
        let connect = move |uri| {
            let connector = connector.clone();
            async move { connector.connect(uri).await.map(TokioIo::new) }
        };
        endpoint.connect_with_connector_lazy(service_fn(connect))
    }

    async fn connect(&self, uri: Uri) -> io::Result<TcpStream> {
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
        let mut addresses = (self.lookup)(host.to_owned(), port).await?;
        // Resolvers shuffle: only a fixed order makes "the next one" another one.
        addresses.sort_unstable();
        addresses.dedup();
        self.known.store(addresses.len().max(1), Ordering::Relaxed);
        let count = u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for _ in 0..addresses.len() {
            let number = self.next.fetch_add(1, Ordering::Relaxed) % addresses.len();
            match tokio::time::timeout(self.timeout / count, TcpStream::connect(addresses[number])).await {
                Ok(Ok(stream)) => {
                    stream.set_nodelay(true)?;
                    return Ok(stream);
                }
                Ok(Err(error)) => last = error,
                Err(_) => last = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(last)
    }
}
