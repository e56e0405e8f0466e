//! Calls as the bytes that go over the wire, encoded once. HTTP/2's header compression depends on what a connection has
//! carried before; the `h2` crate encodes, and only what it says after its first call is kept: from then on nothing changes
//! the state of its encoder any more.

use std::future::poll_fn;

use anyhow::{Result, ensure};
use bytes::Bytes;
use tokio::io::{AsyncReadExt, DuplexStream};

use super::frames::{DATA, END_HEADERS, END_STREAM, FRAME_HEADER, Frames, HEADERS, header};
use crate::requests::Call;

/// Room for what is encoded at a time.
const PIPE: usize = 1 << 20;
/// Calls that are encoded at a time.
const BATCH: usize = 64;

/// The frames of one call; the stream's number has yet to be put in.
#[derive(Clone, Debug)]
pub(super) struct Encoded {
    bytes: Box<[u8]>,
    data_at: usize,
}

impl Encoded {
    fn new(headers: &[u8], body: &[u8]) -> Self {
        let mut bytes = header(headers.len(), HEADERS, END_HEADERS, 0).to_vec();
        bytes.extend_from_slice(headers);
        let data_at = bytes.len();
        bytes.extend_from_slice(&header(body.len(), DATA, END_STREAM, 0));
        bytes.extend_from_slice(body);
        Self { bytes: bytes.into(), data_at }
    }

    /// Adds the frames for a stream to `out`.
    pub(super) fn write(&self, stream: u32, out: &mut Vec<u8>) {
        let at = out.len();
        out.extend_from_slice(&self.bytes);
        for frame in [at, at + self.data_at] {
            out[frame + FRAME_HEADER - 4..frame + FRAME_HEADER].copy_from_slice(&stream.to_be_bytes());
        }
    }

    /// Bytes that count for flow control.
    pub(super) fn body_bytes(&self) -> usize {
        self.bytes.len() - self.data_at - FRAME_HEADER
    }
}

/// All calls of a workload.
#[derive(Clone, Debug)]
pub(super) struct Script {
    /// The first call of every connection, which tells the server the headers that later ones refer to; it is `calls[0]`.
    pub(super) first: Encoded,
    /// Every call, as it is sent later.
    pub(super) calls: Box<[Encoded]>,
}

impl Script {
    /// Encodes calls, of which there must be one at least.
    ///
    /// # Errors
    /// When a call cannot be encoded.
    pub(super) async fn new(calls: &[Call]) -> Result<Self> {
        let all: Vec<&Call> = calls.first().into_iter().chain(calls).collect();
        let (near, far) = tokio::io::duplex(PIPE);
        let streams = all.len();
        let handshake =
            h2::client::Builder::new().initial_max_send_streams(streams).handshake::<_, Bytes>(near);
        let (mut send, wire) = handshake.await?;
        let wire = tokio::spawn(wire);
        let mut listener = Listener { pipe: far, heard: Vec::new(), skip_preface: true };
        let mut encoded = Vec::with_capacity(streams);
        // Kept to the end: dropping one would send a reset.
        let mut waiting = Vec::with_capacity(streams);
        for batch in all.chunks(BATCH) {
            for call in batch {
                poll_fn(|cx| send.poll_ready(cx)).await?;
                waiting.push(send.send_request(call.head(), true)?);
            }
            let blocks = listener.header_blocks(batch.len()).await?;
            encoded.extend(batch.iter().zip(blocks).map(|(call, block)| Encoded::new(&block, &call.body)));
        }
        ensure!(encoded.len() == streams && streams > 1, "{} of {streams} calls were encoded", encoded.len());
        wire.abort();
        let first = encoded.remove(0);
        Ok(Self { first, calls: encoded.into() })
    }
}

/// The far end of the pipe: nobody answers there, what comes is only taken down.
struct Listener {
    pipe: DuplexStream,
    heard: Vec<u8>,
    skip_preface: bool,
}

impl Listener {
    async fn header_blocks(&mut self, count: usize) -> Result<Vec<Vec<u8>>> {
        let mut blocks = Vec::new();
        while blocks.len() < count {
            let mut chunk = vec![0; 64 * 1024];
            let read = self.pipe.read(&mut chunk).await?;
            ensure!(read > 0, "the encoder hung up");
            self.heard.extend_from_slice(&chunk[..read]);
            if self.skip_preface && self.heard.len() >= super::frames::PREFACE.len() {
                self.heard.drain(..super::frames::PREFACE.len());
                self.skip_preface = false;
            }
            let mut frames = Frames::new(&self.heard);
            for frame in frames.by_ref() {
                if frame.kind == HEADERS {
                    ensure!(frame.flags & END_HEADERS != 0, "headers are too long for one frame");
                    blocks.push(frame.payload.to_vec());
                }
            }
            let used = frames.used();
            self.heard.drain(..used);
        }
        Ok(blocks)
    }
}
