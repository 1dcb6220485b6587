//! The bytes of a request whose body is a file. Whoever is refused in the middle of sending one gets to read why: what is left
//! of it is read and thrown away for a while, beside the answer, before the connection ends.

use std::io;
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use futures::{Stream, StreamExt};
use tokio::runtime::Handle;

/// How long a client may take to send more.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longest time in which what nobody wants any more is thrown away.
const LINGER: Duration = Duration::from_secs(30);

/// A body as its bytes come.
pub struct Upload(Option<BodyDataStream>);

impl Upload {
    /// Of this body.
    pub fn new(body: Body) -> Self {
        Self(Some(body.into_data_stream()))
    }

    /// Nothing.
    pub fn none() -> Self {
        Self(None)
    }

    /// The bytes. They end in an error if the client says nothing for a while.
    pub fn chunks(self) -> impl Stream<Item = io::Result<Bytes>> + Send {
        futures::stream::unfold(self, |mut upload| async move {
            let chunks = upload.0.as_mut()?;
            let chunk = match tokio::time::timeout(PATIENCE, chunks.next()).await {
                Ok(chunk) => chunk.map(|chunk| chunk.map_err(io::Error::other)),
                Err(silent) => Some(Err(silent.into())),
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
