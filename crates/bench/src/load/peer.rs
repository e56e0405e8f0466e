//! One connection to a server, and one call over it.

use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use http::HeaderMap;
use tokio::net::TcpStream;

use crate::requests::Call;

/// Large windows, so that the client rarely has to tell the server to go on.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 1 << 28;

/// Why a call counts as failed.
#[derive(Debug)]
pub enum CallError {
    /// The connection did not carry it.
    Http(h2::Error),
    /// The server answered with an error: status code and message.
    Grpc(String, String),
    /// The answer is not the expected one, or an error.
    Wrong,
    /// The connection broke.
    Io(std::io::Error),
    /// The server did something that ends the measurement.
    Ended(&'static str),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(error) => write!(f, "{error}"),
            Self::Grpc(code, message) => write!(f, "gRPC status {code}: {message}"),
            Self::Wrong => f.write_str("the answer is not the expected one"),
            Self::Io(error) => write!(f, "{error}"),
            Self::Ended(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for CallError {}

impl From<h2::Error> for CallError {
    fn from(error: h2::Error) -> Self {
        Self::Http(error)
    }
}

/// A connection; clones share it.
#[derive(Clone)]
pub struct Peer(SendRequest<Bytes>);

impl Peer {
    /// Connects. The connection ends when the last clone is dropped.
    ///
    /// # Errors
    /// When nobody listens, or it is no HTTP/2.
    pub async fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (send, connection) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .initial_max_send_streams(1024)
            .enable_push(false)
            .handshake(stream)
            .await?;
        // Its error, if any, is the error of every call over it.
        tokio::spawn(connection);
        Ok(Self(send))
    }

    /// Connects so many times, one after the other, so that a server that deals connections out does so evenly.
    ///
    /// # Errors
    /// Those of [`Peer::connect`].
    pub async fn connect_many(address: SocketAddr, count: usize) -> anyhow::Result<Vec<Self>> {
        let mut peers = Vec::new();
        for _ in 0..count {
            peers.push(Self::connect(address).await?);
        }
        Ok(peers)
    }

    /// Makes a call, checks it, and returns the framed answer.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn call(&mut self, call: &Call) -> Result<Bytes, CallError> {
        poll_fn(|cx| self.0.poll_ready(cx)).await?;
        let (response, mut request) = self.0.send_request(call.head(), false)?;
        request.send_data(call.body.clone(), true)?;
        let (head, mut body) = response.await?.into_parts();
        let mut answer = Bytes::new();
        while let Some(chunk) = body.data().await {
            let chunk = chunk?;
            body.flow_control().release_capacity(chunk.len())?;
            answer = if answer.is_empty() { chunk } else { joined(&answer, &chunk) };
        }
        match body.trailers().await? {
            Some(trailers) => succeeded(&trailers)?,
            None => succeeded(&head.headers)?,
        }
        if call.expected.is_met_by(&answer) { Ok(answer) } else { Err(CallError::Wrong) }
    }
}

impl From<std::io::Error> for CallError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

fn joined(first: &[u8], second: &[u8]) -> Bytes {
    let mut whole = BytesMut::with_capacity(first.len() + second.len());
    whole.extend_from_slice(first);
    whole.extend_from_slice(second);
    whole.freeze()
}

fn succeeded(headers: &HeaderMap) -> Result<(), CallError> {
    let text = |name: &str| {
        headers
            .get(name)
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .unwrap_or_default()
    };
    match headers.get("grpc-status") {
        Some(status) if status == "0" => Ok(()),
        _ => Err(CallError::Grpc(text("grpc-status"), text("grpc-message"))),
    }
}
