//! Accepts connections, one task each, with limits that protect the server from slow or hung clients. On
//! shutdown it stops accepting, streams end, and running requests get time to finish.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, Request};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::api::Client;

/// Time to receive the head of a request; also the longest idle time of a connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest head of a request, in bytes.
const MAX_HEADER_BYTES: usize = 32 * 1024;
/// Most header fields of a request.
const MAX_HEADERS: usize = 100;
/// Most connections at the same time; further ones wait in the kernel's accept queue.
const MAX_CONNECTIONS: usize = 4096;
/// Pause after a failed accept, for example when the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Time for running requests to finish during shutdown.
const DRAIN: Duration = Duration::from_secs(4);

/// Serves until `ending` is cancelled, then waits up to [`DRAIN`] for running requests. `proxies`: addresses whose
/// `X-Forwarded-For` is believed.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    proxies: BTreeSet<IpAddr>,
    ending: CancellationToken,
) {
    let proxies = Arc::new(proxies);
    let graceful = GracefulShutdown::new();
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = async {
            let slot = slots.clone().acquire_owned().await;
            (slot, listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            biased;
            () = ending.cancelled() => break,
            accepted = accepted => accepted,
        };
        let Ok((connection, peer)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        // Progress messages are small; Nagle's algorithm would delay them.
        let _ = connection.set_nodelay(true);
        let proxies = proxies.clone();
        let service = router.clone().map_request(move |mut request: Request<Incoming>| {
            let client = client(peer.ip(), request.headers(), &proxies);
            request.extensions_mut().insert(Client(client));
            request
        });
        let service = TowerToHyperService::new(service);
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(MAX_HEADER_BYTES)
            .max_headers(MAX_HEADERS)
            .serve_connection(TokioIo::new(connection), service);
        let served = graceful.watch(served);
        tokio::spawn(async move {
            // An error here means that the client disconnected.
            let _ = served.await;
            drop(slot);
        });
    }
    drop(listener);
    if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::warn!(timeout = ?DRAIN, "requests interrupted by shutdown");
    }
}

/// The client's address: the peer of the connection or, if that is a trusted proxy, the last address in `X-Forwarded-For` that
/// is not one. What stands before an entry that is no address is not believed.
fn client(peer: IpAddr, headers: &HeaderMap, proxies: &BTreeSet<IpAddr>) -> IpAddr {
    let values = headers.get_all("x-forwarded-for").iter().map(|value| value.to_str().unwrap_or_default());
    let mut named: Vec<&str> = values.flat_map(|value| value.split(',')).collect();
    let mut client = peer.to_canonical();
    while proxies.contains(&client)
        && let Some(address) = named.pop().and_then(address)
    {
        client = address;
    }
    client
}

/// An entry of `X-Forwarded-For`: an address, with or without a port.
fn address(entry: &str) -> Option<IpAddr> {
    let entry = entry.trim();
    let with_port = || entry.parse().ok().map(|socket: SocketAddr| socket.ip());
    let in_brackets = || entry.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    entry.parse().ok().or_else(with_port).or_else(in_brackets).map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_trusted_proxy_names_the_client() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let proxies = BTreeSet::from([address("10.0.0.1"), address("10.0.0.2")]);
        let mut headers = HeaderMap::new();
        headers.append("x-forwarded-for", "6.6.6.6, 9.9.9.9".parse().unwrap());
        headers.append("x-forwarded-for", "10.0.0.2".parse().unwrap());
        assert_eq!(client(address("10.0.0.1"), &headers, &proxies), address("9.9.9.9"));
        assert_eq!(client(address("::ffff:10.0.0.1"), &headers, &proxies), address("9.9.9.9"));
        assert_eq!(client(address("8.8.8.8"), &headers, &proxies), address("8.8.8.8"));
        for (forwarded, expected) in [
            ("6.6.6.6, x, 9.9.9.9", "9.9.9.9"),
            ("6.6.6.6, x", "10.0.0.1"),
            ("6.6.6.6, 9.9.9.9:1234, 10.0.0.2", "9.9.9.9"),
            ("6.6.6.6, [2001:db8::1]:443", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("::ffff:9.9.9.9", "9.9.9.9"),
            ("10.0.0.2, 10.0.0.1", "10.0.0.2"),
            ("", "10.0.0.1"),
        ] {
            let headers =
                HeaderMap::from_iter([("x-forwarded-for".parse().unwrap(), forwarded.parse().unwrap())]);
            assert_eq!(client(address("10.0.0.1"), &headers, &proxies), address(expected), "{forwarded}");
        }
        assert_eq!(client(address("10.0.0.1"), &HeaderMap::new(), &proxies), address("10.0.0.1"));
    }
}
