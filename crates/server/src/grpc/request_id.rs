//! The identifier of each request: the caller's, or a new one.

use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderMap, HeaderValue};
use tokenward_types::{RequestId, Rng};

/// The header, in requests and answers.
pub(crate) const REQUEST_ID: &str = "x-request-id";

/// Makes request identifiers: a random part, drawn once, and a count. They must be unique, not secret, and this costs no
/// system call.
#[derive(Debug)]
pub(crate) struct RequestIds {
    random: u64,
    count: AtomicU64,
}

impl RequestIds {
    /// A maker whose identifiers differ from those of every other.
    pub(crate) fn new(rng: &dyn Rng) -> Self {
        let mut random = [0; 8];
        rng.fill(&mut random);
        Self { random: u64::from_le_bytes(random), count: AtomicU64::new(0) }
    }

    /// The caller's identifier where it sent a valid one, else a new one; and the same as a header.
    pub(crate) fn of(&self, headers: &HeaderMap) -> (RequestId, Option<HeaderValue>) {
        let sent = headers.get(REQUEST_ID);
        if let Some(id) =
            sent.and_then(|value| value.to_str().ok()).and_then(|text| RequestId::parse(text).ok())
        {
            return (id, sent.cloned());
        }
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let text = format!("req-{:016x}-{count:x}", self.random);
        let header = HeaderValue::from_str(&text).ok();
        #[expect(clippy::expect_used, reason = "hexadecimal digits and dashes are always valid")]
        let id = RequestId::parse(&text).expect("a generated request id is valid");
        (id, header)
    }
}

/// What is logged in it names the request.
pub(crate) fn request_span(id: &RequestId) -> tracing::Span {
    tracing::info_span!("request", request_id = %id)
}

#[cfg(test)]
mod tests {
    use tokenward_types::SeededRng;

    use super::*;

    fn headers(value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(http::HeaderName::from_static(REQUEST_ID), HeaderValue::from_static(value))])
    }

    #[test]
    fn a_valid_identifier_of_the_caller_is_kept() {
        let ids = RequestIds::new(&SeededRng::new(1));
        let (id, header) = ids.of(&headers("trace/4711"));
        assert_eq!(id.as_str(), "trace/4711");
        assert_eq!(header.unwrap(), "trace/4711");
    }

    #[test]
    fn an_absent_or_invalid_one_is_replaced_by_a_new_one() {
        let ids = RequestIds::new(&SeededRng::new(1));
        let (first, header) = ids.of(&HeaderMap::new());
        let (second, _) = ids.of(&headers("a b \"c\""));
        assert_ne!(first, second);
        assert!(second.as_str().starts_with("req-"));
        assert_eq!(header.unwrap(), first.as_str());
    }
}
