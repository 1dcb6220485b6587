//! A TCP proxy in front of a server, which a test can close: it then cuts its connections and refuses new ones, as a server
//! that does not run does. The port stays reserved. It can also delay what passes.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 128;

/// A gate, open at first. Dropping it cuts its connections.
pub struct Gate {
    address: SocketAddr,
    /// Bound to the same port, and never listens.
    _reserved: TcpSocket,
    open: watch::Sender<bool>,
    traffic: Arc<Traffic>,
}

/// What passes through a gate.
#[derive(Default)]
struct Traffic {
    /// Number of bytes so far.
    passed: AtomicU64,
    /// Milliseconds by which each piece is delayed.
    delay: AtomicU64,
}

impl Gate {
    /// A gate in front of the server of this URL, which has a user, a port and a database.
    pub fn new(server: &str) -> Self {
        let (_, server, _) = parts(server);
        let reserved = bound("127.0.0.1:0".parse().expect("an address")).expect("a free port");
        let address = reserved.local_addr().expect("an address");
        let (open, traffic) = (watch::Sender::new(true), Arc::<Traffic>::default());
        let (server, is_open) = (server.to_owned(), open.subscribe());
        tokio::spawn(serve(listening(address), address, server, is_open, Arc::clone(&traffic)));
        Self { address, _reserved: reserved, open, traffic }
    }

    /// URL of a database through the gate, from the database's direct URL.
    pub fn url(&self, direct: &str) -> String {
        let (user, _, database) = parts(direct);
        format!("{user}@{}/{database}", self.address)
    }

    /// Cuts all connections, and refuses new ones.
    pub fn close(&self) {
        self.open.send_replace(false);
    }

    /// Accepts connections again, soon after this returns.
    pub fn open(&self) {
        self.open.send_replace(true);
    }

    /// Delays everything that passes by this time, in each direction; none with zero.
    pub fn slow(&self, delay: Duration) {
        self.traffic.delay.store(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// Number of bytes that have passed in both directions.
    pub fn passed(&self) -> u64 {
        self.traffic.passed.load(Ordering::SeqCst)
    }
}

/// What is before the host of a URL, host and port, and the database.
fn parts(url: &str) -> (&str, &str, &str) {
    let (user, rest) = url.split_once('@').expect("a user in the URL");
    let (server, database) = rest.split_once('/').expect("a database in the URL");
    (user, server, database)
}

fn bound(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    Ok(socket)
}

fn listening(address: SocketAddr) -> TcpListener {
    bound(address).and_then(|socket| socket.listen(BACKLOG)).expect("the reserved port")
}

/// Accepts connections while the gate is open.
async fn serve(
    listener: TcpListener,
    address: SocketAddr,
    server: String,
    mut open: watch::Receiver<bool>,
    traffic: Arc<Traffic>,
) {
    let mut next = Some(listener);
    while let Some(listener) = next.take() {
        tokio::select! {
            biased;
            () = closed(open.clone()) => {}
            () = accept(&listener, &server, &open, &traffic) => {}
        }
        drop(listener);
        next = open.wait_for(|open| *open).await.ok().map(|_| listening(address));
    }
}

async fn accept(listener: &TcpListener, server: &str, open: &watch::Receiver<bool>, traffic: &Arc<Traffic>) {
    while let Ok((client, _)) = listener.accept().await {
        let (server, open, traffic) = (server.to_owned(), open.clone(), traffic.clone());
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = closed(open) => {}
                // Errors of either side end the connection.
                _ = forward(client, &server, &traffic) => {}
            }
        });
    }
}

/// Returns when the gate is closed or dropped.
async fn closed(mut open: watch::Receiver<bool>) {
    let _ = open.wait_for(|open| !*open).await;
}

async fn forward(client: TcpStream, server: &str, traffic: &Traffic) -> io::Result<()> {
    let server = TcpStream::connect(server).await?;
    // As without the gate: a message is sent at once.
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    tokio::try_join!(copy(from_client, to_server, traffic), copy(from_server, to_client, traffic))?;
    Ok(())
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, traffic: &Traffic) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        traffic.passed.fetch_add(read as u64, Ordering::SeqCst);
        match traffic.delay.load(Ordering::SeqCst) {
            0 => {}
            delay => tokio::time::sleep(Duration::from_millis(delay)).await,
        }
        to.write_all(&buffer[..read]).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn echo(gate: &str) -> io::Result<String> {
        let mut connection = TcpStream::connect(gate).await?;
        connection.write_all(b"hello").await?;
        let mut answer = vec![0; 5];
        connection.read_exact(&mut answer).await?;
        Ok(String::from_utf8(answer).expect("text"))
    }

    #[tokio::test]
    async fn a_closed_gate_cuts_and_refuses_connections() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = server.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = client.split();
                    tokio::io::copy(&mut from, &mut to).await
                });
            }
        });
        let gate = Gate::new(&format!("postgres://me@{address}/x"));
        let url = gate.url("postgres://me@localhost:1/database");
        let (_, through, database) = parts(&url);
        assert_eq!(database, "database");
        assert_eq!(echo(through).await.unwrap(), "hello");
        assert_eq!(gate.passed(), 10);
        let mut open = TcpStream::connect(through).await.unwrap();
        gate.close();
        assert_eq!(open.read(&mut [0]).await.unwrap_or_default(), 0, "it is cut");
        assert_eq!(echo(through).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        gate.open();
        while echo(through).await.is_err() {
            tokio::task::yield_now().await;
        }
    }
}
