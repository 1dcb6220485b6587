//! The load: keep-alive HTTP connections that create tenants with little CPU time, because client and server
//! share the machine.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// One connection.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    address: SocketAddr,
    host: HeaderValue,
    authority: HeaderValue,
}

/// Event that the response to a tenant's creation waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// The tenant is active (201).
    Active,
    /// The operation is committed (202).
    Committed,
}

impl Connection {
    /// Opens a connection with this key.
    pub async fn open(address: SocketAddr, key: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("cannot reach {address}"))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            // The next request fails when the connection is broken.
            let _ = connection.await;
        });
        let host = HeaderValue::from_str(&address.to_string())?;
        let authority = HeaderValue::from_str(&format!("Bearer {key}"))?;
        Ok(Self { sender, address, host, authority })
    }

    /// Another connection to the same server with another key or token.
    pub async fn again(&self, key: &str) -> Result<Self> {
        Self::open(self.address, key).await
    }

    /// Sends a GET; returns status and text of the response.
    pub async fn get(&mut self, path: &str) -> Result<(StatusCode, String)> {
        self.send(Request::builder().method(Method::GET).uri(path), Bytes::new()).await
    }

    /// Sends a POST; returns the document, or an error unless the response is a success.
    pub async fn post(&mut self, path: &str, body: &serde_json::Value) -> Result<serde_json::Value> {
        let request = Request::builder().method(Method::POST).uri(path);
        let request = request.header(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let (status, text) = self.send(request, body.to_string().into()).await?;
        if !status.is_success() {
            bail!("POST {path}: {status}: {text}");
        }
        Ok(serde_json::from_str(&text)?)
    }

    /// Stores bytes at a signed address.
    pub async fn put(&mut self, path: &str, bytes: &'static str) -> Result<()> {
        let request = Request::builder().method(Method::PUT).uri(path);
        let (status, text) = self.send(request, Bytes::from_static(bytes.as_bytes())).await?;
        if !status.is_success() {
            bail!("PUT {path}: {status}: {text}");
        }
        Ok(())
    }

    /// Creates a tenant with this name.
    pub async fn onboard(&mut self, name: &str, plan: &str, wait: Wait) -> Result<()> {
        let body = format!(
            r#"{{"tenant_name":"{name}","admin_user":{{"email":"ada@bench.example","first_name":"Ada"}},"subscription":{{"plan":"{plan}"}}}}"#
        );
        let mut request = Request::builder().method(Method::POST).uri("/v1/tenants");
        if wait == Wait::Active {
            request = request.header(HeaderName::from_static("prefer"), HeaderValue::from_static("wait=30"));
        }
        let request = request.header(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let (status, text) = self.send(request, body.into()).await?;
        let expected = if wait == Wait::Active { StatusCode::CREATED } else { StatusCode::ACCEPTED };
        if status != expected {
            bail!("{name}: {status} instead of {expected}: {text}");
        }
        Ok(())
    }

    async fn send(
        &mut self,
        request: hyper::http::request::Builder,
        body: Bytes,
    ) -> Result<(StatusCode, String)> {
        let request = request
            .header(HOST, self.host.clone())
            .header(AUTHORIZATION, self.authority.clone())
            .body(Full::new(body))?;
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let status = response.status();
        let bytes = response.into_body().collect().await?.to_bytes();
        Ok((status, String::from_utf8_lossy(&bytes).into_owned()))
    }
}

/// End of a run: after a number of requests or a time, whichever is first.
#[derive(Clone, Copy)]
pub struct Until {
    /// Number of requests.
    pub count: usize,
    /// Time after which no request starts.
    pub within: Duration,
}

/// Result of a run.
pub struct Run {
    /// Time from the first request to the last response.
    pub took: Duration,
    /// Latency of each request in milliseconds.
    pub latencies: Vec<f64>,
}

impl Run {
    /// Requests per second, with `rest` added to the time.
    pub fn rate(&self, rest: Duration) -> f64 {
        self.latencies.len() as f64 / (self.took + rest).as_secs_f64()
    }
}

/// Creates tenants over these connections, each with one request in flight. Their names begin with `prefix`,
/// which must be unique to the run. Connections serve one run, because the server closes idle ones.
pub async fn onboard(
    connections: Vec<Connection>,
    prefix: &str,
    plan: &'static str,
    until: Until,
    wait: Wait,
) -> Result<Run> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut workers = JoinSet::new();
    let started = Instant::now();
    for mut connection in connections {
        let (next, prefix) = (Arc::clone(&next), prefix.to_owned());
        workers.spawn(async move {
            let mut latencies = Vec::new();
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= until.count || started.elapsed() >= until.within {
                    return anyhow::Ok(latencies);
                }
                let asked = Instant::now();
                connection.onboard(&format!("{prefix} {n}"), plan, wait).await?;
                latencies.push(asked.elapsed().as_secs_f64() * 1e3);
            }
        });
    }
    let mut latencies = Vec::new();
    while let Some(ended) = workers.join_next().await {
        latencies.extend(ended??);
    }
    Ok(Run { took: started.elapsed(), latencies })
}
