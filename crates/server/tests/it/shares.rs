//! Shares of requests, streams, uploads and downloads in flight: one tenant's leave room for the others, all tenants' leave
//! room for operators, and what a client does not read is given up.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::limits::{FIRST, OTHER, address, client, connect, metric, server, until_closed, until_metric};
use crate::server::{Answer, PATIENCE, Server, read, request};
use crate::suspension::onboard;

/// Sends the head of a request and the beginning of its body, and keeps the connection.
async fn begin(server: &Server, from: Ipv4Addr, head: &str, body: &[u8]) -> TcpStream {
    let mut connection = connect(from, address(server), Some(4096)).await;
    connection.write_all(format!("{head}\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
    connection.write_all(body).await.unwrap();
    connection
}

/// Begins to follow an operation. Returns the stream's connection, or the response without a stream.
async fn follow(server: &Server, operation: &str, key: &str) -> Result<reqwest::Response, Answer> {
    let request =
        client(FIRST).get(format!("{}/v1/operations/{operation}/events", server.url)).bearer_auth(key);
    let response = request.try_clone().unwrap().send().await.unwrap();
    if response.status() == StatusCode::OK { Ok(response) } else { Err(read(request).await) }
}

/// Begins to onboard a tenant that waits for an approval; returns the operation and the tenant.
async fn waiting(server: &Server, name: &str) -> (String, String) {
    let operation = server.post("/v1/tenants", &request(name, "gated")).await.expect(202).body;
    let text = |field: &str| operation[field].as_str().unwrap().to_owned();
    (text("id"), text("tenant_id"))
}

/// The path of a signed URL.
async fn sign(server: &Server, token: &str, key: &str, method: &str) -> String {
    let request = server.bare(Method::POST, "/objects/urls").bearer_auth(token);
    let signed = read(request.json(&json!({ "key": key, "method": method }))).await.expect(201).body;
    signed["url"].as_str().unwrap().strip_prefix(&server.url).unwrap().to_owned()
}

fn in_flight(kind: &str) -> String {
    format!("tenantry_in_flight{{kind=\"{kind}\"}}")
}

#[tokio::test]
async fn streams_are_shared_by_key_and_tenant_and_leave_room_for_operators() {
    let server = server("[limits.streams]\nper_key = 2\nper_tenant = 3\ntotal = 6\noperators = 4\n").await;
    let (acme, acme_tenant) = waiting(&server, "Acme").await;
    let (rival, rival_tenant) = waiting(&server, "Other").await;
    let (third, third_tenant) = waiting(&server, "Third").await;
    let keys = [server.key("tenant", &acme_tenant).await, server.key("tenant", &acme_tenant).await];
    let mut streams = Vec::new();
    for _ in 0..2 {
        streams.push(follow(&server, &acme, &keys[0]).await.unwrap());
    }
    let full = follow(&server, &acme, &keys[0]).await.unwrap_err();
    full.problem(429, "too_many_streams");
    assert!(full.headers.contains_key("retry-after"));
    streams.push(follow(&server, &acme, &keys[1]).await.unwrap());
    follow(&server, &acme, &keys[1]).await.unwrap_err().problem(429, "too_many_streams");

    // Another tenant has its share, and requests are not streams.
    let rival_keys = [server.key("tenant", &rival_tenant).await, server.key("tenant", &rival_tenant).await];
    for key in [&rival_keys[0], &rival_keys[0], &rival_keys[1]] {
        streams.push(follow(&server, &rival, key).await.unwrap());
    }
    let follow_up = client(FIRST).get(format!("{}/v1/operations/{acme}", server.url)).bearer_auth(&keys[0]);
    read(follow_up).await.expect(200);
    let key = server.key("tenant", &third_tenant).await;
    follow(&server, &third, &key).await.unwrap_err().problem(503, "overloaded");

    // Operators have a total of their own, of which one key leaves some.
    for _ in 0..3 {
        streams.push(follow(&server, &third, &server.key).await.unwrap());
    }
    follow(&server, &third, &server.key).await.unwrap_err().problem(429, "too_many_streams");
    let other = server.key("operator", "").await;
    streams.push(follow(&server, &third, &other).await.unwrap());
    follow(&server, &third, &other).await.unwrap_err().problem(503, "overloaded");
    assert_eq!(metric(&server, &in_flight("streams")).await, 10);

    drop(streams);
    until_metric(&server, &in_flight("streams"), 0).await;
    follow(&server, &third, &key).await.unwrap();
}

#[tokio::test]
async fn requests_are_shared_by_address_key_and_tenant() {
    let server =
        server("[limits.requests]\nper_address = 2\nper_key = 2\n[limits.timeouts]\nbody = '1h'\n").await;
    let (_, acme) = onboard(&server, "Acme", "starter").await;
    let (_, rival) = onboard(&server, "Other", "starter").await;
    let before = metric(&server, &in_flight("requests")).await;
    let head = "POST /auth/token HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: 10";
    let slow = [begin(&server, FIRST, head, b"{").await, begin(&server, FIRST, head, b"{").await];
    until_metric(&server, &in_flight("requests"), before + 2).await;
    let grant = async |from| {
        let grant = json!({ "grant_type": "code", "code": "x" });
        read(client(from).post(format!("{}/auth/token", server.url)).json(&grant)).await
    };
    let full = grant(FIRST).await;
    full.problem(429, "too_many_requests");
    assert!(full.headers.contains_key("retry-after"));
    grant(OTHER).await.problem(401, "code_refused");
    server.get("/v1/tenants").await.expect(200);
    drop(slow);
    until_metric(&server, &in_flight("requests"), before).await;
    grant(FIRST).await.problem(401, "code_refused");

    let head = format!(
        "POST /data/tasks HTTP/1.1\r\nauthorization: Bearer {acme}\r\ncontent-type: application/json\r\ncontent-length: 10"
    );
    let _slow = [begin(&server, FIRST, &head, b"{").await, begin(&server, OTHER, &head, b"{").await];
    until_metric(&server, &in_flight("requests"), before + 2).await;
    let me = async |token: &str| read(server.bare(Method::GET, "/data/me").bearer_auth(token)).await;
    me(&acme).await.problem(429, "too_many_requests");
    me(&rival).await.expect(200);
}

#[tokio::test]
async fn slow_uploads_of_one_tenant_leave_room_for_another() {
    let server = server("[limits.uploads]\nper_tenant = 2\n[limits.timeouts]\nbody = '2s'\n").await;
    let (_, acme) = onboard(&server, "Acme", "growth").await;
    let (_, rival) = onboard(&server, "Other", "growth").await;
    let path = sign(&server, &acme, "a", "PUT").await;
    let head = format!("PUT {path} HTTP/1.1\r\ncontent-length: 100000");
    let mut slow = [begin(&server, FIRST, &head, b"x").await, begin(&server, OTHER, &head, b"x").await];
    until_metric(&server, &in_flight("uploads"), 2).await;
    let put = async |path: &str| read(server.bare(Method::PUT, path).body("text")).await;
    let full = put(&path).await;
    full.problem(429, "too_many_transfers");
    assert!(full.headers.contains_key("retry-after"));
    put(&sign(&server, &rival, "a", "PUT").await).await.expect(200);
    // Uploads that are too slow end, and make room.
    for upload in &mut slow {
        let mut head = [0; 12];
        timeout(PATIENCE, upload.read_exact(&mut head)).await.expect("the upload ends").unwrap();
        assert!(head.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&head));
    }
    until_metric(&server, &in_flight("uploads"), 0).await;
    put(&path).await.expect(200);
}

#[tokio::test]
async fn a_download_that_is_not_read_is_given_up() {
    let server = server("[limits.downloads]\nper_tenant = 1\n[limits.timeouts]\nwrite = '10s'\n").await;
    let (_, acme) = onboard(&server, "Acme", "growth").await;
    let (_, rival) = onboard(&server, "Other", "growth").await;
    for token in [&acme, &rival] {
        let put = server.bare(Method::PUT, &sign(&server, token, "a", "PUT").await).body(vec![7; 16 << 20]);
        read(put).await.expect(200);
    }
    let path = sign(&server, &acme, "a", "GET").await;
    let unread = begin(&server, FIRST, &format!("GET {path} HTTP/1.1"), b"").await;
    until_metric(&server, &in_flight("downloads"), 1).await;
    read(server.bare(Method::GET, &path)).await.problem(429, "too_many_transfers");
    let get = server.bare(Method::GET, &sign(&server, &rival, "a", "GET").await);
    assert_eq!(get.send().await.unwrap().bytes().await.unwrap().len(), 16 << 20);
    until_metric(&server, &in_flight("downloads"), 0).await;
    let all = server.bare(Method::GET, &path).send().await.unwrap().bytes().await.unwrap();
    assert_eq!(all.len(), 16 << 20);
    drop(unread);
}

#[tokio::test]
async fn a_stream_that_is_not_read_is_given_up() {
    let server = server("[limits.timeouts]\nwrite = '1s'\n").await;
    let head = format!(
        "GET /v1/events HTTP/1.1\r\nauthorization: Bearer {}\r\naccept: text/event-stream\r\nlast-event-id: 0",
        server.key
    );
    let mut unread = begin(&server, FIRST, &head, b"").await;
    until_metric(&server, &in_flight("streams"), 1).await;
    let started = Instant::now();
    // Events until the client's buffer is full, and the server gives up.
    for n in 0.. {
        if metric(&server, &in_flight("streams")).await == 0 {
            break;
        }
        assert!(started.elapsed() < PATIENCE, "the stream is still open after {n} tenants");
        server.post("/v1/tenants", &request(&format!("Tenant {n}"), "starter")).await.expect(202);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let text = until_closed(&mut unread).await;
    assert!(text.starts_with("HTTP/1.1 200") && text.contains("data:"), "{text}");
}

#[tokio::test]
async fn requests_of_a_window_are_counted_by_address_key_and_tenant() {
    let server = server("[limits.rate]\nper_address = 20\nper_key = 5\nper_tenant = 8\n").await;
    // Neither operators nor smoke tests are counted.
    let (_, acme) = onboard(&server, "Acme", "starter").await;
    let (_, rival) = onboard(&server, "Other", "starter").await;
    let me = async |token: &str| {
        let request = client(OTHER).get(format!("{}/data/me", server.url)).bearer_auth(token);
        read(request).await
    };
    let limited = async |token: &str| {
        let started = Instant::now();
        loop {
            let response = me(token).await;
            if response.status == 429 {
                break response;
            }
            response.expect(200);
            assert!(started.elapsed() < PATIENCE, "never limited");
        }
    };
    let full = limited(&acme).await;
    full.problem(429, "too_many_requests");
    let wait: u64 = full.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=10).contains(&wait), "{wait}");
    me(&rival).await.expect(200);

    // Credentials that are not valid count for the client's address.
    let started = Instant::now();
    while me("x.y.z").await.status != 429 {
        assert!(started.elapsed() < PATIENCE, "never limited");
    }
    me(&rival).await.expect(200);
    let jwks = async |from| read(client(from).get(format!("{}/.well-known/jwks.json", server.url))).await;
    jwks(FIRST).await.expect(200);
    server.get("/v1/tenants").await.expect(200);
}
