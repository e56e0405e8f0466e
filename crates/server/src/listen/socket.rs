//! Sockets that are bound, and connections on them: TCP or Unix, one type for both.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net as unix;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::transport::server::Connected;

use super::{Address, ListenError};

/// How long to wait when the operating system has no more file descriptors: retrying at once would only burn time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A bound socket.
pub(crate) struct Listener {
    socket: Socket,
    address: Address,
    slots: Arc<Semaphore>,
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, #[expect(dead_code, reason = "removes the file when it is dropped")] SocketFile),
}

/// The file of a Unix socket; goes when the listener goes.
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Listener {
    /// Binds an address; at most `max_connections` are open at once, further ones wait in the backlog.
    pub(crate) async fn bind(
        name: &'static str,
        address: &Address,
        max_connections: usize,
    ) -> Result<Self, ListenError> {
        let failed = |source: io::Error| {
            let address = address.clone();
            match source.kind() {
                io::ErrorKind::AddrInUse => ListenError::InUse { name, address },
                _ => ListenError::Bind { name, address, source },
            }
        };
        let (socket, address) = match address {
            Address::Tcp(wanted) => {
                let listener = TcpListener::bind(wanted).await.map_err(failed)?;
                let bound = Address::Tcp(listener.local_addr().map_err(failed)?);
                (Socket::Tcp(listener), bound)
            }
            Address::Unix(path) => {
                remove_stale(path).map_err(failed)?;
                let listener = UnixListener::bind(path).map_err(failed)?;
                (Socket::Unix(listener, SocketFile(path.clone())), Address::Unix(path.clone()))
            }
        };
        let slots = Arc::new(Semaphore::new(max_connections.min(Semaphore::MAX_PERMITS)));
        Ok(Self { socket, address, slots })
    }

    /// The address, with the port that was chosen where 0 was asked for.
    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// The next connection, once there is a place for it.
    pub(crate) async fn accept(&self) -> Accepted {
        loop {
            #[expect(
                clippy::expect_used,
                reason = "the semaphore belongs to the listener and is never closed"
            )]
            let slot = Arc::clone(&self.slots).acquire_owned().await.expect("the semaphore is open");
            match self.accept_socket().await {
                Ok(stream) => return Accepted { stream, slot },
                // The peer is gone already: that is its business.
                Err(error) if is_peers(&error) => {
                    tracing::debug!(%error, "a connection ended before it began");
                }
                Err(error) => {
                    tracing::warn!(%error, address = %self.address, "cannot accept connections");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn accept_socket(&self) -> io::Result<Stream> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream.into_std()?))
            }
            Socket::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                Ok(Stream::Unix(stream.into_std()?))
            }
        }
    }
}

fn is_peers(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::NotConnected
            | io::ErrorKind::InvalidInput
    )
}

/// Removes the socket file of a process that is gone. One that answers is in use; anything else than a socket stays.
fn remove_stale(path: &Path) -> io::Result<()> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is not a socket"));
    }
    match unix::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        _ => Err(io::ErrorKind::AddrInUse.into()),
    }
}

/// A connection that belongs to no runtime yet, so that it can be handed to another thread.
pub(crate) struct Accepted {
    stream: Stream,
    slot: OwnedSemaphorePermit,
}

enum Stream {
    Tcp(std::net::TcpStream),
    Unix(unix::UnixStream),
}

impl Accepted {
    /// Ties the connection to the current runtime.
    pub(crate) fn into_connection(self) -> io::Result<Connection> {
        let io = match self.stream {
            Stream::Tcp(stream) => Io::Tcp(TcpStream::from_std(stream)?),
            Stream::Unix(stream) => Io::Unix(UnixStream::from_std(stream)?),
        };
        Ok(Connection { io, _slot: self.slot })
    }
}

enum Io {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// An open connection.
pub(crate) struct Connection {
    io: Io,
    _slot: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

macro_rules! with_io {
    ($this:expr, $stream:ident => $body:expr) => {
        match &mut $this.get_mut().io {
            Io::Tcp($stream) => $body,
            Io::Unix($stream) => $body,
        }
    };
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        with_io!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

/// Writes are not vectored, on purpose: the h2 crate then copies messages of up to 1 KiB, which nearly all answers are, into
/// its buffer, and one system call carries the answers of many calls. With vectored writes it would make one for each.
impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        with_io!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        with_io!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        with_io!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_that_is_taken_is_named_with_its_option() {
        let any = Address::Tcp("127.0.0.1:0".parse().unwrap());
        let first = Listener::bind("service", &any, 1).await.unwrap();
        let error = Listener::bind("admin", first.address(), 1).await.err().unwrap().to_string();
        assert!(
            error.contains("listen.admin.address") && error.contains(&first.address().to_string()),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_socket_file_that_nobody_listens_on_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        drop(unix::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "the standard library leaves the file behind, as a crash does");
        let address = Address::Unix(path.clone());
        let listener = Listener::bind("service", &address, 1).await.unwrap();
        let second = Listener::bind("service", &address, 1).await;
        assert!(matches!(second, Err(ListenError::InUse { .. })));
        drop(listener);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        std::fs::write(&path, "precious").unwrap();
        assert!(Listener::bind("service", &Address::Unix(path.clone()), 1).await.is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }
}
