//! A connection that carries encoded calls. It costs a fraction of a general client, so that on a small machine the server
//! gets the processors, and is asked again as soon as it has answered.
//!
//! A call counts as answered when a whole message came that is the expected one, and the stream ended with trailers. Header
//! values are not decoded: a gRPC error has no message (and before anything is timed, every call is made once by a client
//! that reads its status).

use std::collections::HashMap;
use std::net::SocketAddr;

use tokio::net::TcpStream;
use tokio::time::Instant;

use super::frames::{
    ACK, DATA, ENABLE_PUSH, END_STREAM, Frame, Frames, GOAWAY, HEADERS, INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS, PADDED, PING, PREFACE, RST_STREAM, SETTINGS, WINDOW_UPDATE, header, increment,
    settings,
};
use super::{CallError, Workload};

/// How much a server may send on a stream.
const STREAM_WINDOW: u32 = 1 << 20;
/// How much more than at first it may send on the connection, and after how much it is told to go on.
const CONNECTION_WINDOW: u32 = 1 << 28;
const TELL_AFTER: usize = 1 << 27;
/// What a client may send before it is told otherwise (RFC 9113, section 6.9.2).
const FIRST_WINDOW: i64 = 65_535;
/// Streams before the server has said how many it takes.
const FIRST_STREAMS: usize = 100;
/// Read at a time.
const READ: usize = 64 * 1024;

/// A call under way.
struct Pending {
    call: usize,
    since: Instant,
    /// What came of the message, while it is not whole.
    partial: Vec<u8>,
    /// Whether the expected message came.
    is_answered: bool,
}

/// A call that has ended.
pub(super) struct Done {
    /// When it was meant to be sent.
    pub(super) since: Instant,
    /// Whether it brought what was expected.
    pub(super) is_right: bool,
}

/// A connection.
pub(super) struct Wire {
    stream: TcpStream,
    workload: Workload,
    next_stream: u32,
    pending: HashMap<u32, Pending>,
    max_streams: usize,
    /// What may be sent on the connection.
    window: i64,
    /// What was received since the server was told to go on.
    received: usize,
    input: Vec<u8>,
    filled: usize,
    output: Vec<u8>,
}

impl Wire {
    /// Connects.
    pub(super) async fn connect(workload: &Workload) -> anyhow::Result<Self> {
        let address: SocketAddr = workload.address;
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut output = PREFACE.to_vec();
        let mut payload = Vec::new();
        for (setting, value) in [(ENABLE_PUSH, 0), (INITIAL_WINDOW_SIZE, STREAM_WINDOW)] {
            payload.extend_from_slice(&setting.to_be_bytes());
            payload.extend_from_slice(&value.to_be_bytes());
        }
        output.extend_from_slice(&header(payload.len(), SETTINGS, 0, 0));
        output.extend_from_slice(&payload);
        let mut wire = Self {
            stream,
            workload: workload.clone(),
            next_stream: 1,
            pending: HashMap::new(),
            max_streams: FIRST_STREAMS,
            window: FIRST_WINDOW,
            received: 0,
            input: vec![0; 2 * READ],
            filled: 0,
            output,
        };
        wire.allow(CONNECTION_WINDOW);
        Ok(wire)
    }

    /// Whether another call can be sent now.
    pub(super) fn has_room(&self) -> bool {
        // The longest request is far below this.
        self.pending.len() < self.max_streams && self.window > FIRST_WINDOW / 2
    }

    /// Calls under way.
    pub(super) fn in_flight(&self) -> usize {
        self.pending.len()
    }

    /// Puts a call into the output; `since` is when it was meant to be sent.
    pub(super) fn send(&mut self, call: usize, since: Instant) {
        let script = &self.workload.script;
        // The first one tells the headers that later ones refer to.
        let (call, encoded) =
            if self.next_stream == 1 { (0, &script.first) } else { (call, &script.calls[call]) };
        encoded.write(self.next_stream, &mut self.output);
        self.window -= i64::try_from(encoded.body_bytes()).unwrap_or(i64::MAX);
        let pending = Pending { call, since, partial: Vec::new(), is_answered: false };
        self.pending.insert(self.next_stream, pending);
        self.next_stream += 2;
    }

    fn allow(&mut self, more: u32) {
        self.output.extend_from_slice(&header(4, WINDOW_UPDATE, 0, 0));
        self.output.extend_from_slice(&more.to_be_bytes());
    }

    /// Writes the output, all of it.
    pub(super) async fn flush(&mut self) -> Result<(), CallError> {
        let mut written = 0;
        while written < self.output.len() {
            match self.stream.try_write(&self.output[written..]) {
                Ok(count) => written += count,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    self.stream.writable().await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.output.clear();
        Ok(())
    }

    /// Waits until there is something to read. Nothing is lost when this is dropped.
    pub(super) async fn readable(&self) -> Result<(), CallError> {
        Ok(self.stream.readable().await?)
    }

    /// Reads what is there, and returns the calls that it ended.
    pub(super) fn read(&mut self, done: &mut Vec<Done>) -> Result<(), CallError> {
        if self.input.len() - self.filled < READ {
            self.input.resize(self.filled + READ, 0);
        }
        match self.stream.try_read(&mut self.input[self.filled..]) {
            Ok(0) => return Err(CallError::Ended("the server closed the connection")),
            Ok(count) => self.filled += count,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let input = std::mem::take(&mut self.input);
        let mut frames = Frames::new(&input[..self.filled]);
        let outcome = frames.by_ref().try_for_each(|frame| self.frame(&frame, done));
        let used = frames.used();
        self.input = input;
        self.input.copy_within(used..self.filled, 0);
        self.filled -= used;
        if self.received >= TELL_AFTER {
            self.allow(u32::try_from(self.received).unwrap_or(u32::MAX));
            self.received = 0;
        }
        outcome
    }

    fn frame(&mut self, frame: &Frame<'_>, done: &mut Vec<Done>) -> Result<(), CallError> {
        match frame.kind {
            DATA => {
                self.received += frame.payload.len();
                if frame.flags & PADDED != 0 {
                    return Err(CallError::Ended("the server pads its messages"));
                }
                if let Some(pending) = self.pending.get_mut(&frame.stream) {
                    let expected = &self.workload.calls[pending.call].expected;
                    pending.is_answered = if pending.partial.is_empty() && expected.is_met_by(frame.payload) {
                        true
                    } else {
                        pending.partial.extend_from_slice(frame.payload);
                        expected.is_met_by(&pending.partial)
                    };
                    // A message may not end a stream: the status comes after it.
                    pending.is_answered &= frame.flags & END_STREAM == 0;
                }
            }
            HEADERS if frame.flags & END_STREAM != 0 => {
                if let Some(pending) = self.pending.remove(&frame.stream) {
                    done.push(Done { since: pending.since, is_right: pending.is_answered });
                }
            }
            SETTINGS if frame.flags & ACK == 0 => {
                for (setting, value) in settings(frame.payload) {
                    if setting == MAX_CONCURRENT_STREAMS {
                        self.max_streams = usize::try_from(value).unwrap_or(usize::MAX);
                    }
                }
                self.output.extend_from_slice(&header(0, SETTINGS, ACK, 0));
            }
            PING if frame.flags & ACK == 0 => {
                self.output.extend_from_slice(&header(frame.payload.len(), PING, ACK, 0));
                self.output.extend_from_slice(frame.payload);
            }
            WINDOW_UPDATE if frame.stream == 0 => self.window += increment(frame.payload),
            RST_STREAM => return Err(CallError::Ended("the server reset a stream")),
            GOAWAY => return Err(CallError::Ended("the server asked to go away")),
            _ => {}
        }
        Ok(())
    }
}
