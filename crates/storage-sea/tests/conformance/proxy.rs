//! A way to a database that can be cut, that can lose the answer to a commit, and that can fall silent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What becomes of the connections.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Open,
    /// They end, and new ones end at once.
    Cut,
}

/// Forwards a port of its own to a server.
pub(crate) struct Proxy {
    port: u16,
    way: watch::Sender<Way>,
    faults: Arc<Faults>,
}

/// What happens to commits.
#[derive(Default)]
struct Faults {
    lose_next: AtomicBool,
    silence: AtomicBool,
}

impl Proxy {
    pub(crate) async fn start(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("a port").port();
        let way = watch::Sender::new(Way::Open);
        let faults = Arc::<Faults>::default();
        let (ways, of_connections) = (way.clone(), Arc::clone(&faults));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(connect(client, server.clone(), ways.subscribe(), Arc::clone(&of_connections)));
            }
        });
        Self { port, way, faults }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Ends all connections, and lets no other through.
    pub(crate) fn cut(&self) {
        self.way.send_replace(Way::Cut);
    }

    /// Lets new connections through.
    pub(crate) fn restore(&self) {
        self.way.send_replace(Way::Open);
    }

    /// The next COMMIT reaches the server; its answer is lost, and the connection with it.
    pub(crate) fn lose_next_commit(&self) {
        self.faults.lose_next.store(true, Ordering::SeqCst);
    }

    /// Whether a connection that commits falls silent: nothing comes through it any more, and nothing says so, as when a
    /// machine loses its power. It stays so.
    pub(crate) fn silence_commits(&self, silence: bool) {
        self.faults.silence.store(silence, Ordering::SeqCst);
    }
}

async fn connect(client: TcpStream, server: String, mut way: watch::Receiver<Way>, faults: Arc<Faults>) {
    if *way.borrow_and_update() == Way::Open
        && let Ok(server) = TcpStream::connect(&server).await
    {
        forward(client, server, way, faults).await;
    }
}

async fn forward(
    mut client: TcpStream,
    mut server: TcpStream,
    mut way: watch::Receiver<Way>,
    faults: Arc<Faults>,
) {
    let (mut from_client, mut from_server) = (vec![0; 65536], vec![0; 65536]);
    loop {
        tokio::select! {
            biased;
            _ = way.changed() => return,
            read = client.read(&mut from_client) => {
                let Ok(count @ 1..) = read else { return };
                // PostgreSQL ends a text with a zero, MySQL with the packet.
                let text = from_client[..count].strip_suffix(b"\0").unwrap_or(&from_client[..count]);
                let commits = text.ends_with(b"COMMIT");
                if commits && faults.silence.load(Ordering::SeqCst) {
                    return std::future::pending().await;
                }
                if server.write_all(&from_client[..count]).await.is_err() {
                    return;
                }
                if commits && faults.lose_next.swap(false, Ordering::SeqCst) {
                    // The server's answer proves that it happened; the client never sees it.
                    drop(server.read(&mut from_server).await);
                    return;
                }
            }
            read = server.read(&mut from_server) => {
                let Ok(count @ 1..) = read else { return };
                if client.write_all(&from_server[..count]).await.is_err() {
                    return;
                }
            }
        }
    }
}
