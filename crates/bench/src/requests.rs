//! Calls that are encoded before they are timed, and the cheap check of what they bring.

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, Uri, header};
use prost::Message;

/// Compressed flag and length before a gRPC message.
const FRAME_HEADER: usize = 5;
/// The key of field 1 with a length.
const FIELD_1: u8 = 0x0a;

/// What the first field of an answer must be.
#[derive(Clone, Debug)]
pub enum Expected {
    /// What has this digest. Thousands of tokens to compare with would have to come from memory for each call.
    Digest(u64),
    /// This, and then something.
    StartsWith(Bytes),
    /// Whatever it is, it must be there.
    Anything,
}

impl Expected {
    /// Whether an answer, with its frame header, is a whole message with the right first field.
    pub fn is_met_by(&self, frame: &[u8]) -> bool {
        let Some(field) = first_field(frame) else { return false };
        match self {
            Self::Digest(wanted) => digest(field) == *wanted,
            Self::StartsWith(bytes) => field.starts_with(bytes),
            Self::Anything => !field.is_empty(),
        }
    }
}

/// A number that differs for texts that differ, but for one case in 2^64; of no use against intent.
pub fn digest(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let tail = rest.iter().fold(u64::from(0x80_u8), |tail, byte| tail << 8 | u64::from(*byte));
    words.iter().map(|word| u64::from_le_bytes(*word)).chain([tail]).fold(0, |hash, word| {
        let mixed = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ (mixed >> 32)
    })
}

/// Field 1 of a framed message, if the frame is whole and the field comes first and is a text.
pub fn first_field(frame: &[u8]) -> Option<&[u8]> {
    let (header, message) = frame.split_at_checked(FRAME_HEADER)?;
    let length = u32::from_be_bytes(header[1..].try_into().ok()?);
    if header[0] != 0 || usize::try_from(length).ok()? != message.len() {
        return None;
    }
    let mut rest = message.strip_prefix(&[FIELD_1])?;
    let length = prost::decode_length_delimiter(&mut rest).ok()?;
    rest.get(..length)
}

/// One call, ready to be sent as often as needed.
#[derive(Clone, Debug)]
pub struct Call {
    uri: Uri,
    headers: HeaderMap,
    /// The framed message.
    pub body: Bytes,
    /// What it brings.
    pub expected: Expected,
}

impl Call {
    /// A call of `uri` with a message, and with a caller token where there is one.
    pub fn new(uri: &Uri, bearer: Option<&HeaderValue>, message: &impl Message, expected: Expected) -> Self {
        let mut headers = HeaderMap::with_capacity(4);
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static("tokenward-bench"));
        if let Some(bearer) = bearer {
            headers.insert(header::AUTHORIZATION, bearer.clone());
        }
        Self { uri: uri.clone(), headers, body: frame(message), expected }
    }

    /// Its caller token, where it has one.
    pub fn bearer(&self) -> Option<&HeaderValue> {
        self.headers.get(header::AUTHORIZATION)
    }

    /// Size of the message without its frame header.
    pub fn message_bytes(&self) -> usize {
        self.body.len() - FRAME_HEADER
    }

    /// The head of the call.
    pub fn head(&self) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }
}

/// A message as gRPC sends it, uncompressed.
fn frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(FRAME_HEADER + length);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    frame.put_slice(&message.encode_to_vec());
    frame.freeze()
}

/// The message behind a frame header.
///
/// # Errors
/// When it is not such a message.
pub fn unframe<T: Message + Default>(frame: &[u8]) -> anyhow::Result<T> {
    Ok(T::decode(frame.get(FRAME_HEADER..).unwrap_or_default())?)
}

/// How long a text in field 1 must be for the whole message to take `bytes`, or one less where no length gives that.
pub fn text_length_for(bytes: usize) -> usize {
    let mut length = bytes.saturating_sub(2);
    while length > 0 && 1 + prost::length_delimiter_len(length) + length > bytes {
        length -= 1;
    }
    length
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::echo::EchoRequest;

    fn echo(length: usize) -> EchoRequest {
        EchoRequest { message: "x".repeat(length) }
    }

    #[test]
    fn the_first_field_is_found_in_a_whole_message_only() {
        let whole = frame(&echo(300));
        assert_eq!(first_field(&whole).unwrap().len(), 300);
        assert!(first_field(&whole[..whole.len() - 1]).is_none(), "cut off");
        assert!(first_field(&[]).is_none());
        assert!(first_field(&frame(&echo(0))).is_none(), "an empty field is not sent");
        let mut compressed = whole.to_vec();
        compressed[0] = 1;
        assert!(first_field(&compressed).is_none());
    }

    #[test]
    fn an_answer_with_another_token_is_noticed() {
        let answer = frame(&EchoRequest { message: "token-of-a".to_owned() });
        let expects = |token: &[u8]| Expected::Digest(digest(token)).is_met_by(&answer);
        assert!(expects(b"token-of-a"));
        assert!(!expects(b"token-of-b") && !expects(b"token-of") && !expects(b"token-of-a\0"));
        assert!(Expected::StartsWith(Bytes::from_static(b"token-of")).is_met_by(&answer));
        assert!(Expected::Anything.is_met_by(&answer));
        assert!(!Expected::Anything.is_met_by(b""));
    }

    #[test]
    fn digests_of_tokens_that_differ_anywhere_differ() {
        let token: Vec<u8> = (0..=255).chain(0..=255).collect();
        let mut seen = std::collections::HashSet::from([digest(&token)]);
        for at in 0..token.len() {
            for bit in 0..8 {
                let mut other = token.clone();
                other[at] ^= 1 << bit;
                assert!(seen.insert(digest(&other)), "bit {bit} of byte {at}");
            }
            assert!(seen.insert(digest(&token[..at])), "the first {at} bytes");
        }
    }

    #[test]
    fn echo_messages_get_the_size_of_the_messages_that_they_stand_for() {
        for bytes in 3..20_000 {
            let length = echo(text_length_for(bytes)).encoded_len();
            assert!(length == bytes || length + 1 == bytes, "{length} for {bytes}");
        }
    }

    #[test]
    fn a_message_survives_its_frame() {
        assert_eq!(unframe::<EchoRequest>(&frame(&echo(9))).unwrap(), echo(9));
    }
}
