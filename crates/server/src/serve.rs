//! The listener: one task per connection, with limits that keep a slow or hung client from doing harm, and an end in
//! order: `/readyz` fails, then nothing new is taken, streams end, running requests finish.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Time for the head of a request, and for an idle connection.
const HEADER_PATIENCE: Duration = Duration::from_secs(30);
/// Longest head of a request, in bytes.
const MAX_HEADER_BYTES: usize = 32 * 1024;
/// Header fields of a request.
const MAX_HEADERS: usize = 100;
/// Connections at the same time; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 4096;
/// Pause after a failed accept, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long running requests may take to finish at the end.
const DRAIN: Duration = Duration::from_secs(4);

/// Serves until `ending` is cancelled, and then until what runs has finished.
pub async fn serve(listener: TcpListener, router: Router, ending: CancellationToken) {
    let graceful = GracefulShutdown::new();
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = async {
            let place = room.clone().acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            biased;
            () = ending.cancelled() => break,
            accepted = accepted => accepted,
        };
        let Ok((connection, _)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        // Progress messages are small and must not wait for each other.
        let _ = connection.set_nodelay(true);
        let service = TowerToHyperService::new(router.clone());
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_PATIENCE)
            .max_buf_size(MAX_HEADER_BYTES)
            .max_headers(MAX_HEADERS)
            .serve_connection(TokioIo::new(connection), service);
        let served = graceful.watch(served);
        tokio::spawn(async move {
            // A client that goes away in the middle is its own affair.
            let _ = served.await;
            drop(place);
        });
    }
    drop(listener);
    if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::warn!("some requests did not finish within {} s and were cut off", DRAIN.as_secs());
    }
}
