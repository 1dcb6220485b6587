//! Accepts connections, one task each, with limits that keep one client from holding all of them. On shutdown it stops
//! accepting, streams end, and running requests get time to finish.

mod client;
mod paced;
mod refuse;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tenantry_model::{ClientAddress, ErrorCode, Network};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use self::client::Proxies;
use self::paced::Paced;
use self::refuse::{MAX_LINGERING, refuse};
use crate::api::{Client, Metrics, OperatorsOnly, refusal};
use crate::config::Limits;
use crate::in_flight::{InFlight, Permit};

/// Longest head of a request, in bytes.
const MAX_HEADER_BYTES: usize = 32 * 1024;
/// Most header fields of a request.
const MAX_HEADERS: usize = 100;
/// Time to receive the head of a request on a connection of the reserve, which answers one request.
const RESERVE_HEADER_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause after a failed accept, for example when the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Time for running requests to finish during shutdown.
const DRAIN: Duration = Duration::from_secs(4);

/// What connections are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Of {
    /// One client.
    Address(ClientAddress),
    /// All clients.
    Clients,
    /// Clients beyond that number: operators and probes, one request each.
    Reserve,
    /// Clients of the operators' listener.
    Operators,
}

/// Who may connect to a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum For {
    /// All clients.
    Clients,
    /// Operators and probes, with connections of their own.
    Operators,
}

/// What all listeners of the process share.
pub struct Server {
    router: Router,
    proxies: Proxies,
    limits: Limits,
    metrics: Arc<Metrics>,
    open: Arc<InFlight<Of>>,
    lingering: Arc<Semaphore>,
}

impl Server {
    /// Serves this router. `proxies`: networks whose `X-Forwarded-For` is believed.
    pub fn new(router: Router, proxies: Vec<Network>, limits: Limits, metrics: Arc<Metrics>) -> Self {
        let (open, lingering) = (Arc::default(), Arc::new(Semaphore::new(MAX_LINGERING)));
        Self { router, proxies: Proxies(proxies), limits, metrics, open, lingering }
    }

    /// Serves the clients' and the operators' listener until `ending` is cancelled, then waits up to [`DRAIN`] for running
    /// requests.
    pub async fn serve_all(
        self,
        clients: TcpListener,
        operators: Option<TcpListener>,
        ending: CancellationToken,
    ) {
        let operators = async {
            if let Some(operators) = operators {
                self.serve(operators, For::Operators, &ending).await;
            }
        };
        tokio::join!(self.serve(clients, For::Clients, &ending), operators);
    }

    async fn serve(&self, listener: TcpListener, listener_for: For, ending: &CancellationToken) {
        let graceful = GracefulShutdown::new();
        loop {
            let accepted = tokio::select! {
                biased;
                () = ending.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            let Ok((connection, peer)) = accepted else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            match self.admit(listener_for, peer.ip()) {
                Ok((permit, reserve)) => self.begin(connection, peer.ip(), permit, reserve, &graceful),
                Err(code) => refuse(connection, &refusal(code), &self.lingering),
            }
        }
        drop(listener);
        if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
            tracing::warn!(timeout = ?DRAIN, "requests interrupted by shutdown");
        }
    }

    /// Counts a connection of this peer. Also returns whether it belongs to the reserve.
    fn admit(&self, listener_for: For, peer: IpAddr) -> Result<(Permit<Of>, bool), ErrorCode> {
        let most = &self.limits.connections;
        if listener_for == For::Operators {
            let permit = self.open.enter([(Of::Operators, most.operators)]);
            return permit.map(|permit| (permit, false)).map_err(|_| self.full());
        }
        // A proxy has the connections of many clients.
        let of_one = if self.proxies.contain(peer) { usize::MAX } else { most.per_address };
        let address = (Of::Address(peer.into()), of_one);
        let mut permit = self.open.enter([address, (Of::Clients, most.total)]);
        let reserve = matches!(permit, Err(Of::Clients));
        if reserve {
            permit = self.open.enter([address, (Of::Reserve, most.operators)]);
        }
        match permit {
            Ok(permit) => Ok((permit, reserve)),
            Err(Of::Address(_)) => {
                self.metrics.limited("connections", "address");
                Err(ErrorCode::TooManyOpen)
            }
            Err(_) => Err(self.full()),
        }
    }

    fn full(&self) -> ErrorCode {
        self.metrics.limited("connections", "total");
        ErrorCode::Overloaded
    }

    /// Serves the requests of a connection in a task of its own; a connection of the `reserve` has one.
    fn begin(
        &self,
        connection: TcpStream,
        peer: IpAddr,
        permit: Permit<Of>,
        reserve: bool,
        graceful: &GracefulShutdown,
    ) {
        let timeouts = &self.limits.timeouts;
        let pace = timeouts.write_pace();
        // Progress messages are small; Nagle's algorithm would delay them.
        let _ = connection.set_nodelay(true);
        // What the kernel has taken, and the client does not acknowledge or has no room for, ends the connection too.
        let unacknowledged = u32::try_from(pace.window.as_millis()).unwrap_or(u32::MAX);
        let _ = rustix::net::sockopt::set_tcp_user_timeout(&connection, unacknowledged);
        let proxies = self.proxies.clone();
        let service = self.router.clone().map_request(move |mut request: Request<Incoming>| {
            let client = proxies.client(peer, request.headers());
            request.extensions_mut().insert(Client(client));
            if reserve {
                request.extensions_mut().insert(OperatorsOnly);
            }
            request
        });
        let header_timeout = if reserve { RESERVE_HEADER_TIMEOUT } else { timeouts.header.duration() };
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(header_timeout)
            .max_buf_size(MAX_HEADER_BYTES)
            .max_headers(MAX_HEADERS)
            .keep_alive(!reserve)
            .serve_connection(TokioIo::new(Paced::new(connection, pace)), TowerToHyperService::new(service));
        let (served, metrics) = (graceful.watch(served), self.metrics.clone());
        tokio::spawn(async move {
            metrics.opened();
            // An error here means that the client disconnected or was too slow.
            let _ = served.await;
            metrics.closed();
            drop(permit);
        });
    }
}
