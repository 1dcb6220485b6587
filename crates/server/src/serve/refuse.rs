//! Rejects a connection: writes one response and closes, without reading a request.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

/// Time for a client to read the response.
const LINGER: Duration = Duration::from_secs(1);
/// Most bytes of a rejected client's requests that are read and discarded.
const MAX_DISCARDED: u64 = 64 * 1024;
/// Most rejected connections that wait for their client.
pub const MAX_LINGERING: usize = 128;

/// Writes this response and closes the connection. A connection that is closed with unread bytes is reset, which can lose
/// the response; so what the client has sent is read for a moment, for a bounded number of clients.
pub fn refuse(mut connection: TcpStream, response: &[u8], lingering: &Arc<Semaphore>) {
    // The buffer of a new connection takes the whole response.
    let _ = rustix::io::write(&connection, response);
    let Ok(slot) = lingering.clone().try_acquire_owned() else { return };
    tokio::spawn(async move {
        let close = async {
            let _ = connection.shutdown().await;
            let _ = tokio::io::copy(&mut connection.take(MAX_DISCARDED), &mut tokio::io::sink()).await;
        };
        let _ = tokio::time::timeout(LINGER, close).await;
        drop(slot);
    });
}
