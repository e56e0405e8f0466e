//! The identifier of each request: the caller's, or a new one, which is only written out if somebody reads it.

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

    /// The caller's identifier where it sent a valid one, else a new one.
    pub(crate) fn of(&self, headers: &HeaderMap) -> CallId {
        let sent = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
        match sent.and_then(|text| RequestId::parse(text).ok()) {
            Some(id) => CallId::Sent(id),
            None => CallId::New(self.random, self.count.fetch_add(1, Ordering::Relaxed)),
        }
    }
}

/// The identifier of one request.
#[derive(Clone, Debug)]
pub(crate) enum CallId {
    /// The caller's.
    Sent(RequestId),
    /// A new one: most calls succeed, and nobody reads it.
    New(u64, u64),
}

impl CallId {
    /// The identifier.
    pub(crate) fn to_id(&self) -> RequestId {
        match self {
            Self::Sent(id) => id.clone(),
            Self::New(random, count) =>
            {
                #[expect(clippy::expect_used, reason = "hexadecimal digits and dashes are always valid")]
                RequestId::parse(&format!("req-{random:016x}-{count:x}"))
                    .expect("a generated request id is valid")
            }
        }
    }

    /// What an answer's header says of it: a caller that sent none reads a new one only from a failure.
    pub(crate) fn header(&self, failed: bool) -> Option<HeaderValue> {
        let is_told = failed || matches!(self, Self::Sent(_));
        is_told.then(|| HeaderValue::from_str(self.to_id().as_str()).ok()).flatten()
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
    fn a_valid_identifier_of_the_caller_is_kept_and_told() {
        let id = RequestIds::new(&SeededRng::new(1)).of(&headers("trace/4711"));
        assert_eq!(id.to_id().as_str(), "trace/4711");
        assert_eq!(id.header(false).unwrap(), "trace/4711");
    }

    #[test]
    fn an_absent_or_invalid_one_is_replaced_by_a_new_one_that_failures_tell() {
        let ids = RequestIds::new(&SeededRng::new(1));
        let first = ids.of(&HeaderMap::new());
        let second = ids.of(&headers("a b \"c\""));
        assert_ne!(first.to_id(), second.to_id());
        assert!(second.to_id().as_str().starts_with("req-"));
        assert_eq!(first.header(true).unwrap(), first.to_id().as_str());
        assert_eq!(first.header(false), None);
    }
}
