//! A request body read as a stream. If a request is rejected before its body has arrived, the rest is read
//! and discarded for a while, so that the client can read the response instead of a connection reset.

use std::io;
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use futures::{Stream, StreamExt};
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout};

use crate::pace::{Pace, Progress};

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

    /// The chunks of the body. The stream ends with an error if the client sends more slowly than this.
    pub fn chunks(self, pace: Pace) -> impl Stream<Item = io::Result<Bytes>> + Send {
        futures::stream::unfold((self, Progress::new(pace)), |(mut upload, mut progress)| async move {
            let chunk = paced(upload.0.as_mut()?, &mut progress).await.transpose();
            if !matches!(chunk, Some(Ok(_))) {
                upload.0 = None;
            }
            chunk.map(|chunk| (chunk, (upload, progress)))
        })
    }
}

/// The next chunk.
async fn paced(chunks: &mut BodyDataStream, progress: &mut Progress) -> io::Result<Option<Bytes>> {
    loop {
        let since = Instant::now();
        let chunk = timeout(progress.left(), chunks.next()).await;
        progress.waited(since.elapsed())?;
        // Without a chunk, a window has passed in which enough had been sent.
        let Ok(chunk) = chunk else { continue };
        let chunk = chunk.transpose().map_err(io::Error::other)?;
        progress.moved(chunk.as_ref().map_or(0, Bytes::len));
        return Ok(chunk);
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
