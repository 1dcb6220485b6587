//! A response body that counts as in flight until it has been sent, or its client is gone.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::http::Response;
use hyper::body::{Frame, SizeHint};

/// Keeps `permit` until the body of the response is dropped.
pub fn hold<P: Send + Unpin + 'static>(response: Response<Body>, permit: P) -> Response<Body> {
    response.map(|body| Body::new(Held { body, _permit: permit }))
}

struct Held<P> {
    body: Body,
    _permit: P,
}

impl<P: Unpin> HttpBody for Held<P> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
