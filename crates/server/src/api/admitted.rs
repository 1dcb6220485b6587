//! Streams that end when the authority ends by which they began: bytes that a client sends or receives for longer than a
//! request takes. A revoked key or a suspended tenant counts within [`RECHECK`], and before anything is stored.

use std::io;
use std::time::Duration;

use axum::body::Bytes;
use futures::{Stream, StreamExt as _, stream};
use tenantry_control::error::Error;
use tokio::time::Instant;

/// Time after which the authority is checked again while bytes pass.
pub const RECHECK: Duration = Duration::from_secs(1);

/// The chunks for as long as `check` succeeds. It is also called after the last chunk, before the end is known to the
/// receiver. Its error ends the stream.
pub fn admitted<F>(
    chunks: impl Stream<Item = io::Result<Bytes>> + Send,
    check: impl Fn() -> F + Send,
) -> impl Stream<Item = io::Result<Bytes>> + Send
where
    F: Future<Output = Result<(), Error>> + Send,
{
    let start = (Some(Box::pin(chunks)), check, Instant::now());
    stream::unfold(start, |(chunks, check, checked)| async move {
        let mut chunks = chunks?;
        let chunk = chunks.next().await;
        let is_due = checked.elapsed() >= RECHECK;
        if (chunk.is_none() || is_due)
            && let Err(denied) = check().await
        {
            return Some((Err(io::Error::other(denied)), (None, check, checked)));
        }
        let checked = if is_due { Instant::now() } else { checked };
        Some((chunk?, (Some(chunks), check, checked)))
    })
}
