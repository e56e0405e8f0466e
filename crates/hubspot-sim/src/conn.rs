//! A connection that a handler can cut: before any byte of the answer, or in the middle of its body.

use std::{
    io,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use crate::handle::SimHandle;

/// What becomes of the bytes of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Delivery {
    #[default]
    Whole,
    /// The head and half of the body.
    Half { left: Option<usize> },
    /// Nothing.
    Cut,
}

/// One connection, as its handlers see it.
#[derive(Debug)]
pub(crate) struct Conn {
    sim: SimHandle,
    peer: IpAddr,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    started: Instant,
    /// The log entry of the answer that is being written.
    answering: Option<u64>,
    delivery: Delivery,
}

impl Conn {
    pub(crate) fn new(sim: SimHandle, peer: IpAddr) -> Arc<Self> {
        let state = State { started: Instant::now(), answering: None, delivery: Delivery::Whole };
        Arc::new(Self { sim, peer, state: Mutex::new(state) })
    }

    /// The address at the other end.
    pub(crate) fn peer(&self) -> IpAddr {
        self.peer
    }

    /// A request's head was read.
    pub(crate) fn begin(&self) {
        let mut state = self.state.lock();
        state.started = Instant::now();
        state.answering = None;
    }

    /// The answer of log entry `seq` is about to be written.
    pub(crate) fn answer(&self, seq: u64, delivery: Delivery) {
        let mut state = self.state.lock();
        state.answering = Some(seq);
        state.delivery = delivery;
    }

    /// How many bytes of `buf` may be written. Noted before they are, so that whoever has the answer finds it logged.
    fn before_write(&self, buf: &[u8]) -> io::Result<usize> {
        let mut state = self.state.lock();
        let allowed = match &mut state.delivery {
            Delivery::Whole => buf.len(),
            Delivery::Cut => 0,
            Delivery::Half { left } => (*left.get_or_insert_with(|| head_and_half(buf))).min(buf.len()),
        };
        if allowed == 0 && !buf.is_empty() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        self.note(&state, state.delivery == Delivery::Whole);
        Ok(allowed)
    }

    fn wrote(&self, n: usize) {
        if let Delivery::Half { left: Some(left) } = &mut self.state.lock().delivery {
            *left -= n;
        }
    }

    fn not_delivered(&self) {
        self.note(&self.state.lock(), false);
    }

    fn note(&self, state: &State, delivered: bool) {
        if let Some(seq) = state.answering {
            let us = u64::try_from(state.started.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.sim.note_delivery(seq, us, delivered);
        }
    }
}

/// Length of the head and of half of the body in the first bytes of an answer.
fn head_and_half(buf: &[u8]) -> usize {
    let head = buf.windows(4).position(|w| w == b"\r\n\r\n").map_or(buf.len(), |at| at + 4);
    head + (buf.len() - head) / 2
}

/// A stream that obeys its [`Conn`].
pub(crate) struct CuttableStream<S> {
    pub(crate) stream: S,
    pub(crate) conn: Arc<Conn>,
}

impl<S: AsyncRead + Unpin> AsyncRead for CuttableStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for CuttableStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let allowed = self.conn.before_write(buf)?;
        let polled = Pin::new(&mut self.stream).poll_write(cx, &buf[..allowed]);
        match &polled {
            Poll::Ready(Ok(n)) => self.conn.wrote(*n),
            Poll::Ready(Err(_)) | Poll::Pending => self.conn.not_delivered(),
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    // Not vectored, on purpose: hyper then writes head and body as one buffer, which can be cut at a known place.
}
