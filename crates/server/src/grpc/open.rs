//! Health and reflection: they need no caller token, and their answers may be streams that last. So many at a time.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

use super::layer::Slot;

/// Open calls of one listener, or of one of its threads, at a time: those who watch its health, mostly.
pub(crate) const MAX_OPEN: usize = 1000;

/// An answer that keeps its slot until its stream has ended or nobody reads it any more.
pub(crate) fn holding(answer: Response<Body>, slot: Slot) -> Response<Body> {
    answer.map(|body| Body::new(Held { body, _slot: slot }))
}

struct Held {
    body: Body,
    _slot: Slot,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
