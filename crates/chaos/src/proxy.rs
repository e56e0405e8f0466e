//! A TCP proxy that cuts: by resets, or by silence, as a network does that loses everything.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;

/// What becomes of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// They are passed on.
    Pass,
    /// They are reset, new ones too.
    Reset,
    /// Nothing gets through, in both directions, until they are passed on again.
    Silence,
}

/// Passes connections on to one address.
pub struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    exchanges: Arc<AtomicUsize>,
}

impl Proxy {
    /// In front of `target`, which sees connections come from `source`.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn start(target: SocketAddr, source: IpAddr) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("a proxy cannot listen")?;
        let address = listener.local_addr()?;
        let (mode, modes) = watch::channel(Mode::Pass);
        let exchanges = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&exchanges);
        tokio::spawn(async move {
            loop {
                // Out of file descriptors, mostly; whoever connects will notice.
                let Ok((near, _)) = listener.accept().await else { continue };
                let (modes, exchange) = (modes.clone(), Exchange::new(&count));
                tokio::spawn(async move {
                    // An error is the normal end of a connection that one side gave up.
                    let _ = pass(near, target, source, modes, exchange).await;
                });
            }
        });
        Ok(Self { address, mode, exchanges })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes what becomes of connections, of those that are open too.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Whether it passes connections on.
    pub fn passes(&self) -> bool {
        *self.mode.borrow() == Mode::Pass
    }

    /// How many connections carried a request whose answer has not begun to come, for protocols that take turns.
    pub fn open_exchanges(&self) -> usize {
        self.exchanges.load(Ordering::Relaxed)
    }
}

/// Whose turn it is on one connection.
struct Exchange {
    is_open: AtomicBool,
    count: Arc<AtomicUsize>,
}

impl Exchange {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        Self { is_open: AtomicBool::new(false), count: Arc::clone(count) }
    }

    fn turn(&self, opens: bool) {
        if self.is_open.swap(opens, Ordering::Relaxed) != opens {
            if opens {
                self.count.fetch_add(1, Ordering::Relaxed);
            } else {
                self.count.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.turn(false);
    }
}

async fn pass(
    mut near: TcpStream,
    target: SocketAddr,
    source: IpAddr,
    mut modes: watch::Receiver<Mode>,
    exchange: Exchange,
) -> io::Result<()> {
    if *modes.borrow() == Mode::Reset {
        return near.set_zero_linger();
    }
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(source, 0))?;
    let mut far = socket.connect(target).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let is_cut = {
        let (near_in, near_out) = near.split();
        let (far_in, far_out) = far.split();
        let up = pump(near_in, far_out, modes.clone(), || exchange.turn(true));
        let down = pump(far_in, near_out, modes.clone(), || exchange.turn(false));
        tokio::select! {
            ends = async { tokio::try_join!(up, down) } => ends.is_err(),
            _ = modes.wait_for(|mode| *mode == Mode::Reset) => true,
        }
    };
    if is_cut {
        // A reset instead of an end in order; an end that is gone already needs none.
        let _ = near.set_zero_linger();
        let _ = far.set_zero_linger();
    }
    Ok(())
}

/// One direction. What was read when silence begins stays here until it ends.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut modes: watch::Receiver<Mode>,
    passed: impl Fn(),
) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = from.read(&mut buffer).await?;
        // The sender lives as long as the proxy.
        let _ = modes.wait_for(|mode| *mode == Mode::Pass).await;
        if count == 0 {
            return to.shutdown().await;
        }
        passed();
        to.write_all(&buffer[..count]).await?;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A server that answers each byte with the next one, after `take` was notified.
    async fn counter() -> (SocketAddr, Arc<tokio::sync::Semaphore>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answers = Arc::new(tokio::sync::Semaphore::new(0));
        let permits = Arc::clone(&answers);
        tokio::spawn(async move {
            while let Ok((mut stream, peer)) = listener.accept().await {
                assert_eq!(peer.ip().to_string(), "127.0.0.77");
                let permits = Arc::clone(&permits);
                tokio::spawn(async move {
                    while let Ok(byte) = stream.read_u8().await {
                        permits.acquire().await.unwrap().forget();
                        stream.write_u8(byte + 1).await.unwrap();
                    }
                });
            }
        });
        (address, answers)
    }

    async fn started() -> (Proxy, Arc<tokio::sync::Semaphore>) {
        let (address, answers) = counter().await;
        (Proxy::start(address, "127.0.0.77".parse().unwrap()).await.unwrap(), answers)
    }

    #[tokio::test]
    async fn an_exchange_is_open_from_the_request_to_the_answer() {
        let (proxy, answers) = started().await;
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        stream.write_u8(7).await.unwrap();
        while proxy.open_exchanges() == 0 {
            tokio::task::yield_now().await;
        }
        answers.add_permits(1);
        assert_eq!(stream.read_u8().await.unwrap(), 8);
        assert_eq!(proxy.open_exchanges(), 0);
    }

    #[tokio::test]
    async fn a_reset_ends_open_connections_and_refuses_new_ones() {
        let (proxy, answers) = started().await;
        answers.add_permits(9);
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        stream.write_u8(7).await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), 8);
        proxy.set(Mode::Reset);
        assert_eq!(stream.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        let mut refused = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(refused.read_u8().await.is_err());
        proxy.set(Mode::Pass);
        let mut again = TcpStream::connect(proxy.address()).await.unwrap();
        again.write_u8(1).await.unwrap();
        assert_eq!(again.read_u8().await.unwrap(), 2);
    }

    #[tokio::test]
    async fn silence_holds_what_is_sent_back_until_it_ends() {
        let (proxy, answers) = started().await;
        answers.add_permits(9);
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        proxy.set(Mode::Silence);
        stream.write_u8(7).await.unwrap();
        let answer = tokio::time::timeout(Duration::from_millis(200), stream.read_u8()).await;
        assert!(answer.is_err(), "nothing gets through");
        proxy.set(Mode::Pass);
        assert_eq!(stream.read_u8().await.unwrap(), 8);
    }
}
