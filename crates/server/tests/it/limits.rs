//! Limits of connections: one client's do not keep out others, nor operators and probes; and a client that is too slow is
//! disconnected.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::server::{Answer, PATIENCE, Server, read};

/// The client that uses up its share.
pub const FIRST: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// Another client.
pub const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

pub async fn server(limits: &str) -> Server {
    Server::on(Vec::new(), limits, "").await
}

pub fn address(server: &Server) -> SocketAddr {
    server.url.strip_prefix("http://").unwrap().parse().unwrap()
}

/// A connection from this address. `buffer`: bytes that the client's kernel takes for it.
pub async fn connect(from: Ipv4Addr, to: SocketAddr, buffer: Option<u32>) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    if let Some(buffer) = buffer {
        socket.set_recv_buffer_size(buffer).unwrap();
    }
    socket.bind((from, 0).into()).unwrap();
    socket.connect(to).await.unwrap()
}

/// What the server sends until it closes the connection.
pub async fn until_closed(connection: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset ends a connection too.
    let _ = timeout(PATIENCE, connection.read_to_end(&mut bytes))
        .await
        .expect("the server closes the connection");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Sends a request for /livez and reads the response's head. The connection stays open unless the head says so.
async fn livez(connection: &mut TcpStream) -> String {
    connection.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut text = String::new();
    while !text.ends_with("{\"status\":\"ok\"}") {
        let mut bytes = [0; 1024];
        let length = timeout(PATIENCE, connection.read(&mut bytes)).await.expect("a response").unwrap();
        assert!(length > 0, "closed after {text}");
        text.push_str(std::str::from_utf8(&bytes[..length]).unwrap());
    }
    text.to_lowercase()
}

/// Requests over connections of their own, from this address.
pub fn client(from: Ipv4Addr) -> reqwest::Client {
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).pool_max_idle_per_host(0);
    client.local_address(IpAddr::V4(from)).build().unwrap()
}

async fn get(server: &Server, from: Ipv4Addr, path: &str) -> Answer {
    read(client(from).get(format!("{}{path}", server.url))).await
}

/// The value of a metric.
pub async fn metric(server: &Server, name: &str) -> u64 {
    let text = server.get("/metrics").await.expect(200).text;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0, |value| value.parse().unwrap())
}

/// Waits until a metric has this value.
pub async fn until_metric(server: &Server, name: &str, wanted: u64) {
    let started = Instant::now();
    loop {
        let found = metric(server, name).await;
        if found == wanted {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "{name} is {found}, not {wanted}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn idle_connections_of_one_address_keep_out_no_other() {
    let server = server("[limits.connections]\ntotal = 1000\nper_address = 500\n").await;
    let before = metric(&server, "tenantry_connections").await as usize;
    let mut idle = Vec::new();
    for _ in 0..1_500 {
        idle.push(connect(FIRST, address(&server), None).await);
    }
    for refused in &mut idle[500..] {
        let response = until_closed(refused).await;
        let (head, body) = response.split_once("\r\n\r\n").expect("a head and a body");
        assert!(
            head.starts_with("HTTP/1.1 429 Too Many Requests") && head.contains("\r\nretry-after: "),
            "{head}"
        );
        let body: Value = serde_json::from_str(body).unwrap();
        assert_eq!((&body["code"], &body["status"]), (&"too_many_open".into(), &429.into()));
        assert!(head.contains(body["request_id"].as_str().unwrap()));
    }
    get(&server, OTHER, "/openapi.json").await.expect(200);
    get(&server, OTHER, "/livez").await.expect(200);
    // Connections within the share are served, and those that end make room.
    livez(&mut idle[0]).await;
    drop(idle);
    until_metric(&server, "tenantry_connections", before as u64).await;
    livez(&mut connect(FIRST, address(&server), None).await).await;
    let limited = metric(&server, "tenantry_limited_total{limit=\"connections\",by=\"address\"}").await;
    assert_eq!(limited as usize, 1_000 + before);
}

#[tokio::test]
async fn operators_and_probes_get_responses_while_clients_have_all_connections() {
    let server =
        server("[limits.connections]\ntotal = 8\noperators = 2\n[limits.timeouts]\nheader = '1h'\n").await;
    let mut idle = Vec::new();
    loop {
        let mut connection = connect(FIRST, address(&server), None).await;
        // A connection beyond the total answers one request.
        if livez(&mut connection).await.contains("connection: close") {
            break;
        }
        idle.push(connection);
    }
    assert!(idle.len() >= 7, "{}", idle.len());
    get(&server, OTHER, "/livez").await.expect(200);
    get(&server, OTHER, "/readyz").await.expect(200);
    let operator = client(OTHER).get(format!("{}/v1/tenants", server.url)).bearer_auth(&server.key);
    read(operator).await.expect(200);
    let rejected = get(&server, OTHER, "/openapi.json").await;
    rejected.problem(503, "overloaded");
    assert!(rejected.headers.contains_key("retry-after"));
    let tenant = client(OTHER).get(format!("{}/data/me", server.url)).bearer_auth("x.y.z");
    read(tenant).await.problem(401, "token_invalid");

    // The reserve is bounded too, and its idle connections end soon.
    let mut reserve = Vec::new();
    for _ in 0..2 {
        reserve.push(connect(OTHER, address(&server), None).await);
    }
    let response = until_closed(&mut connect(FIRST, address(&server), None).await).await;
    assert!(response.starts_with("HTTP/1.1 503 Service Unavailable"), "{response}");
    for connection in &mut reserve {
        until_closed(connection).await;
    }
    get(&server, OTHER, "/livez").await.expect(200);
}

#[tokio::test]
async fn the_operators_listener_has_connections_of_its_own() {
    let limits = "operator_listen = '127.0.0.1:0'\n[limits.connections]\ntotal = 1\noperators = 1\n[limits.timeouts]\nheader = '1h'\n";
    let server = server(limits).await;
    let started = server.log().lines().find_map(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        line.pointer("/fields/operator_address")
            .or_else(|| line.get("operator_address"))?
            .as_str()?
            .parse()
            .ok()
    });
    let operators: SocketAddr = started.expect("the address in the log");
    // Connections until one of them is closed: the listener of clients has none left.
    let mut idle = Vec::new();
    let refused = loop {
        let mut connection = connect(FIRST, address(&server), None).await;
        let mut first = [0; 12];
        match timeout(Duration::from_millis(300), connection.read_exact(&mut first)).await {
            Ok(read) => break read.map(|_| first),
            Err(_) => idle.push(connection),
        }
    };
    assert_eq!(&refused.unwrap(), b"HTTP/1.1 503");
    let mut operator = connect(FIRST, operators, None).await;
    assert!(!livez(&mut operator).await.contains("connection: close"));
    livez(&mut operator).await;
    let response = until_closed(&mut connect(FIRST, operators, None).await).await;
    assert!(response.starts_with("HTTP/1.1 503"), "{response}");
}

#[tokio::test]
async fn a_client_that_sends_its_request_too_slowly_is_disconnected() {
    let server = server("[limits.timeouts]\nheader = '300ms'\nbody = '300ms'\n").await;
    let mut connection = connect(FIRST, address(&server), None).await;
    let (mut reads, mut writes) = connection.split();
    let slowly = async {
        writes.write_all(b"GET /livez HTTP/1.1\r\n").await?;
        loop {
            writes.write_all(b"x: y\r\n").await?;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let mut text = String::new();
    let closed = timeout(PATIENCE, async {
        tokio::select! {
            closed = reads.read_to_string(&mut text) => closed.map(drop),
            failed = slowly => failed,
        }
    });
    let _: std::io::Result<()> = closed.await.expect("the head is not waited for");

    let mut idle = connect(FIRST, address(&server), None).await;
    livez(&mut idle).await;
    until_closed(&mut idle).await;

    let mut connection = connect(FIRST, address(&server), None).await;
    let head = "POST /auth/token HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\n{";
    connection.write_all(head.as_bytes()).await.unwrap();
    let response = until_closed(&mut connection).await;
    assert!(response.starts_with("HTTP/1.1 408"), "{response}");
}

#[tokio::test]
async fn a_client_that_never_reads_is_disconnected() {
    let server = server("[limits.timeouts]\nheader = '1h'\nwrite = '500ms'\n").await;
    let before = metric(&server, "tenantry_connections").await;
    let mut connection = connect(FIRST, address(&server), Some(4096)).await;
    // Responses of far more bytes than the buffers of both kernels take.
    let requests = b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n".repeat(400);
    connection.write_all(&requests).await.unwrap();
    until_metric(&server, "tenantry_connections", before).await;

    // A client that reads gets everything.
    let mut connection = connect(FIRST, address(&server), Some(4096)).await;
    connection.write_all(&requests).await.unwrap();
    let length: usize = get(&server, OTHER, "/openapi.json").await.headers["content-length"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    let mut bytes = vec![0; 400 * length];
    timeout(PATIENCE, connection.read_exact(&mut bytes)).await.unwrap().unwrap();
}
