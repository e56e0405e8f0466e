//! HTTP/2 frames (RFC 9113, section 4.1).

/// What a client says first (section 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Length of a frame's header.
pub(super) const FRAME_HEADER: usize = 9;

/// Kinds of frames (section 6).
pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;

/// Flags; the first one says ACK on SETTINGS and PING.
pub(super) const END_STREAM: u8 = 1;
pub(super) const ACK: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
pub(super) const PADDED: u8 = 8;

/// Settings (section 6.5.2).
pub(super) const ENABLE_PUSH: u16 = 2;
pub(super) const MAX_CONCURRENT_STREAMS: u16 = 3;
pub(super) const INITIAL_WINDOW_SIZE: u16 = 4;

/// A frame's header. Lengths here are far below the 2^24 that fit.
pub(super) fn header(length: usize, kind: u8, flags: u8, stream: u32) -> [u8; FRAME_HEADER] {
    let length = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    let stream = stream.to_be_bytes();
    [length[1], length[2], length[3], kind, flags, stream[0], stream[1], stream[2], stream[3]]
}

/// A frame that was received.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame<'a> {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: &'a [u8],
}

/// The whole frames at the start of a buffer.
pub(super) struct Frames<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Frames<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How many bytes the frames took that were returned so far.
    pub(super) fn used(&self) -> usize {
        self.at
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Frame<'a>;

    fn next(&mut self) -> Option<Frame<'a>> {
        let (head, rest) = self.bytes.get(self.at..)?.split_first_chunk::<FRAME_HEADER>()?;
        let length = head[..3].iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        let payload = rest.get(..length)?;
        self.at += FRAME_HEADER + length;
        // The highest bit is reserved.
        let stream = u32::from_be_bytes(*head.last_chunk()?) & 0x7fff_ffff;
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }
}

/// The settings in a SETTINGS frame.
pub(super) fn settings(payload: &[u8]) -> impl Iterator<Item = (u16, u32)> {
    payload
        .as_chunks::<6>()
        .0
        .iter()
        .map(|&[a, b, c, d, e, f]| (u16::from_be_bytes([a, b]), u32::from_be_bytes([c, d, e, f])))
}

/// A number in a WINDOW_UPDATE frame.
pub(super) fn increment(payload: &[u8]) -> i64 {
    payload.first_chunk().map_or(0, |bytes| i64::from(u32::from_be_bytes(*bytes) & 0x7fff_ffff))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_frames_are_found_and_half_ones_wait() {
        let mut bytes = header(3, DATA, END_STREAM, 5).to_vec();
        bytes.extend_from_slice(b"abc");
        bytes.extend_from_slice(&header(70_000, HEADERS, 0, 0x8000_0007));
        let mut frames = Frames::new(&bytes);
        let first = frames.next().unwrap();
        assert_eq!(
            (first.kind, first.flags, first.stream, first.payload),
            (DATA, END_STREAM, 5, &b"abc"[..])
        );
        assert!(frames.next().is_none());
        assert_eq!(frames.used(), 12);
        bytes.extend_from_slice(&vec![7; 70_000]);
        let second = Frames::new(&bytes[12..]).next().unwrap();
        assert_eq!((second.stream, second.payload.len()), (7, 70_000));
    }

    #[test]
    fn settings_and_increments_are_read() {
        let payload = [0, 3, 0, 0, 0, 200, 0, 4, 0, 1, 0, 0, 9];
        assert_eq!(settings(&payload).collect::<Vec<_>>(), [(3, 200), (4, 65_536)]);
        assert_eq!(increment(&[0x80, 0, 1, 0]), 256);
        assert_eq!(increment(&[]), 0);
    }
}
