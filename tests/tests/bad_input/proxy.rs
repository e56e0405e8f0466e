//! A TCP proxy that can be cut and restored: a database that goes away and comes back.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use url::Url;

/// Passes connections on until it is cut.
pub(crate) struct Proxy {
    address: SocketAddr,
    is_up: watch::Sender<bool>,
}

impl Proxy {
    /// In front of the server that a database URL names.
    pub(crate) async fn before(url: &str) -> Self {
        let url = Url::parse(url).unwrap();
        let target = (url.host_str().unwrap().to_owned(), url.port().unwrap_or(5432));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (is_up, state) = watch::channel(true);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let (target, mut state) = (target.clone(), state.clone());
                tokio::spawn(async move { pass(near, target, &mut state).await });
            }
        });
        Self { address, is_up }
    }

    /// The same database, reached through here.
    pub(crate) fn url(&self, of: &str) -> String {
        let mut url = Url::parse(of).unwrap();
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(self.address.port())).unwrap();
        url.into()
    }

    /// Ends all connections, and refuses new ones.
    pub(crate) fn cut(&self) {
        self.is_up.send_replace(false);
    }

    pub(crate) fn restore(&self) {
        self.is_up.send_replace(true);
    }
}

async fn pass(mut near: TcpStream, target: (String, u16), state: &mut watch::Receiver<bool>) {
    if !*state.borrow() {
        return;
    }
    let Ok(mut far) = TcpStream::connect(target).await else { return };
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
        _ = state.wait_for(|is_up| !is_up) => {}
    }
}
