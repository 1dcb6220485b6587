//! A request body read as a stream. If a request is rejected before its body has arrived, the rest is read
//! and discarded for a while, so that the client can read the response instead of a connection reset.

use std::io;
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use futures::{Stream, StreamExt};
use tokio::runtime::Handle;

/// Longest pause between two chunks.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest time for which an unwanted body is discarded.
const LINGER: Duration = Duration::from_secs(30);

/// A request body.
pub struct Upload(Option<BodyDataStream>);

impl Upload {
    /// Creates an upload from a request body.
    pub fn new(body: Body) -> Self {
        Self(Some(body.into_data_stream()))
    }

    /// Creates an upload without a body.
    pub fn none() -> Self {
        Self(None)
    }

    /// The chunks of the body. The stream ends with an error if the client pauses for longer than
    /// [`CHUNK_TIMEOUT`].
    pub fn chunks(self) -> impl Stream<Item = io::Result<Bytes>> + Send {
        futures::stream::unfold(self, |mut upload| async move {
            let chunks = upload.0.as_mut()?;
            let chunk = match tokio::time::timeout(CHUNK_TIMEOUT, chunks.next()).await {
                Ok(chunk) => chunk.map(|chunk| chunk.map_err(io::Error::other)),
                Err(elapsed) => Some(Err(elapsed.into())),
            };
            if !matches!(chunk, Some(Ok(_))) {
                upload.0 = None;
            }
            chunk.map(|chunk| (chunk, upload))
        })
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let (Some(mut rest), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(tokio::time::timeout(LINGER, async move {
                while let Some(Ok(_)) = rest.next().await {}
            }));
        }
    }
}
