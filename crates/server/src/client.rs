//! HTTP client of the command line. A failed call is one of three errors: no response, a problem document, or
//! a response that is not Tenantry's. Requests go only to the configured server; redirects are not followed.

mod sse;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use futures::StreamExt;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use tenantry_control::FieldError;
use tenantry_control::view::OperationView;
use tenantry_engine::OperationState;

use crate::cli::Exit;
use crate::lock;

const DEFAULT_SERVER: &str = "http://127.0.0.1:7780";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time without a byte from the server. Streams send a comment every 15 seconds; a request waits at
/// most 60.
const READ_TIMEOUT: Duration = Duration::from_secs(90);
/// How long calls are retried while a server that has responded before is unreachable, such as during a
/// restart.
const RETRY_FOR: Duration = Duration::from_secs(30);

/// Why a call failed.
#[derive(Debug)]
pub enum ClientError {
    /// No response.
    Unreachable {
        /// Base URL of the server.
        server: String,
        /// Cause, such as a refused connection.
        cause: String,
    },
    /// The server returned a problem document.
    Problem {
        /// HTTP status.
        status: u16,
        /// The problem's `detail`.
        detail: String,
        /// Invalid fields of the request.
        errors: Vec<FieldError>,
        /// Request id, for the operator of the server.
        request_id: String,
    },
    /// The response is not one of Tenantry's API.
    InvalidResponse(String),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable { server, cause } => {
                write!(
                    f,
                    "no response from {server}: {cause}\nIs it running? `tenantry dev` starts a server; \
                     --server or TENANTRY_SERVER names another one"
                )
            }
            Self::Problem { status, detail, errors, request_id, .. } => {
                f.write_str(detail)?;
                // The detail already names a single field.
                for FieldError { path, message } in errors.iter().filter(|_| errors.len() > 1) {
                    write!(f, "\n  {path}: {message}")?;
                }
                if *status >= 500 { write!(f, " (request {request_id})") } else { Ok(()) }
            }
            Self::InvalidResponse(reason) => write!(f, "the server is not a Tenantry server: {reason}"),
        }
    }
}
impl std::error::Error for ClientError {}

/// Pause before reconnecting to a stream that ended.
const RECONNECT_DELAY: Duration = Duration::from_millis(200);

/// A client of one server, with one API key or tenant token.
pub struct Client {
    http: reqwest::Client,
    server: String,
    key: String,
    /// Whether the server has responded to an earlier call.
    responded: AtomicBool,
}

/// The server's URL: the given one, else the one in the data folder's lock file, else the default.
pub fn server(given: Option<&str>, folder: &Path) -> String {
    let running = || lock::holder(folder).and_then(|holder| holder.url);
    given.map(str::to_owned).or_else(running).unwrap_or_else(|| DEFAULT_SERVER.to_owned())
}

/// The API key, from the environment or the data folder's `admin.key`.
pub fn key(folder: &Path) -> Result<String> {
    let read = |file: PathBuf| {
        let text = std::fs::read_to_string(&file)
            .with_context(|| format!("cannot read the API key in {}", file.display()));
        text.map(|text| text.trim().to_owned())
    };
    if let Ok(key) = std::env::var("TENANTRY_KEY") {
        return Ok(key.trim().to_owned());
    }
    if let Some(file) = std::env::var_os("TENANTRY_KEY_FILE") {
        return read(file.into());
    }
    let file = folder.join("admin.key");
    if file.exists() {
        return read(file);
    }
    Err(Exit::Usage.with(format!(
        "no API key: set TENANTRY_KEY or TENANTRY_KEY_FILE, or pass the data folder of `tenantry dev` with \
         --data ({} contains no admin.key)",
        folder.display()
    )))
}

impl Client {
    /// Creates a client; returns a usage error if `server` is not a URL.
    pub fn new(server: &str, key: String) -> Result<Self> {
        let server = server.trim_end_matches('/').to_owned();
        let url: reqwest::Url =
            server.parse().map_err(|why| Exit::Usage.with(format!("`{server}` is not a URL: {why}")))?;
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("tenantry/", env!("CARGO_PKG_VERSION")));
        let local = url
            .host_str()
            .is_some_and(|host| ["localhost", "[::1]"].contains(&host) || host.starts_with("127."));
        if local {
            builder = builder.no_proxy();
        }
        Ok(Self { http: builder.build()?, server, key, responded: AtomicBool::new(false) })
    }

    /// Sends a GET request.
    pub async fn get(&self, path: &str) -> Result<Value, ClientError> {
        self.send(|| self.request(Method::GET, path)).await.map(|(_, value)| value)
    }

    /// Sends a POST request.
    pub async fn post(&self, path: &str, body: Option<&Value>) -> Result<Value, ClientError> {
        let request = || self.request(Method::POST, path);
        self.send(|| body.map_or_else(request, |body| request().json(body))).await.map(|(_, value)| value)
    }

    /// Sends a POST request with an idempotency key: repeating it has no second effect.
    pub async fn post_once(
        &self,
        path: &str,
        body: &Value,
        key: &str,
    ) -> Result<(StatusCode, Value), ClientError> {
        self.send(|| self.request(Method::POST, path).json(body).header("idempotency-key", key)).await
    }

    /// Sends a file as the body of a POST request.
    pub async fn upload(&self, path: &str, file: &Path) -> Result<Value, ClientError> {
        let request = || {
            let request = self.request(Method::POST, path).header(CONTENT_TYPE, "application/zstd");
            match std::fs::File::open(file) {
                Ok(file) => request.body(tokio::fs::File::from_std(file)),
                // The server rejects the empty body as an invalid archive.
                Err(_) => request,
            }
        };
        self.send(request).await.map(|(_, value)| value)
    }

    /// Calls a signed URL and returns the response, to be read as a stream.
    pub async fn download(&self, path: &str) -> Result<Response, ClientError> {
        self.answer(|| self.http.get(format!("{}{path}", self.server))).await
    }

    /// Returns every entry of a list that is not paged.
    pub async fn all(&self, path: &str) -> Result<Vec<Value>, ClientError> {
        match self.get(path).await?.get_mut("data").map(Value::take) {
            Some(Value::Array(data)) => Ok(data),
            _ => Err(ClientError::InvalidResponse("the list has no `data`".to_owned())),
        }
    }

    /// Returns the entries of a paged list, at most `max`.
    pub async fn list(&self, path: &str, max: usize) -> Result<Vec<Value>, ClientError> {
        let mut entries = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let join = if path.contains('?') { '&' } else { '?' };
            let limit = (max - entries.len()).min(100);
            let after = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
            let mut page = self.get(&format!("{path}{join}limit={limit}{after}")).await?;
            if let Some(Value::Array(data)) = page.get_mut("data").map(Value::take) {
                entries.extend(data);
            }
            cursor = page.get("next_cursor").and_then(Value::as_str).map(str::to_owned);
            if cursor.is_none() || entries.len() >= max {
                return Ok(entries);
            }
        }
    }

    /// Follows an operation until it is done or needs attention. Reconnects when the stream ends.
    pub async fn follow(
        &self,
        id: &str,
        mut seen: impl FnMut(&OperationView),
    ) -> Result<OperationView, ClientError> {
        let path = format!("/v1/operations/{id}/events");
        let mut last: Option<OperationView> = None;
        loop {
            let stream = || {
                let request = self
                    .request(Method::GET, &path)
                    .header(ACCEPT, HeaderValue::from_static("text/event-stream"));
                match &last {
                    Some(view) => request.header("last-event-id", view.version),
                    None => request,
                }
            };
            let response = self.answer(stream).await?;
            if response.status() == StatusCode::NO_CONTENT
                && let Some(view) = last
            {
                return Ok(view);
            }
            let mut messages = std::pin::pin!(sse::messages(response.bytes_stream()));
            while let Some(message) = messages.next().await {
                let view: OperationView = serde_json::from_str(&message.data)
                    .map_err(|error| ClientError::InvalidResponse(error.to_string()))?;
                seen(&view);
                if view.done || view.state == OperationState::NeedsAttention {
                    return Ok(view);
                }
                last = Some(view);
            }
            tokio::time::sleep(RECONNECT_DELAY).await;
        }
    }

    /// Follows the events after this sequence number. Returns only on an error.
    pub async fn follow_events(
        &self,
        mut after: i64,
        mut seen: impl FnMut(&Value) -> Result<()>,
    ) -> Result<()> {
        loop {
            let stream = || {
                let path = format!("/v1/events?cursor={after}");
                self.request(Method::GET, &path).header(ACCEPT, HeaderValue::from_static("text/event-stream"))
            };
            let response = self.answer(stream).await?;
            let mut messages = std::pin::pin!(sse::messages(response.bytes_stream()));
            while let Some(message) = messages.next().await {
                seen(&serde_json::from_str(&message.data)?)?;
                after = message.id.parse().unwrap_or(after);
            }
            tokio::time::sleep(RECONNECT_DELAY).await;
        }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.server)).bearer_auth(&self.key)
    }

    async fn send(&self, request: impl Fn() -> RequestBuilder) -> Result<(StatusCode, Value), ClientError> {
        let response = self.answer(request).await?;
        let status = response.status();
        let bytes = response.bytes().await.map_err(|error| self.unreachable(&error))?;
        if bytes.is_empty() {
            return Ok((status, Value::Null));
        }
        let value = serde_json::from_slice(&bytes)
            .map_err(|error| ClientError::InvalidResponse(error.to_string()))?;
        Ok((status, value))
    }

    /// Sends a request and returns its successful response. While a server that has responded before is
    /// unreachable, the request is sent again for up to [`RETRY_FOR`]; every request of the command line is
    /// safe to repeat.
    async fn answer(&self, request: impl Fn() -> RequestBuilder) -> Result<Response, ClientError> {
        let started = tokio::time::Instant::now();
        let mut pause = Duration::from_millis(100);
        loop {
            let failed = match request().send().await {
                Ok(response) if response.status().is_success() => {
                    self.responded.store(true, Ordering::Relaxed);
                    return Ok(response);
                }
                Ok(response) if response.status() != StatusCode::SERVICE_UNAVAILABLE => {
                    self.responded.store(true, Ordering::Relaxed);
                    return Err(problem(response).await);
                }
                Ok(response) => problem(response).await,
                Err(error) => self.unreachable(&error),
            };
            if !self.responded.load(Ordering::Relaxed) || started.elapsed() > RETRY_FOR {
                return Err(failed);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> ClientError {
        let mut cause: &dyn std::error::Error = error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        ClientError::Unreachable { server: self.server.clone(), cause: cause.to_string() }
    }
}

async fn problem(response: Response) -> ClientError {
    let status = response.status().as_u16();
    let problem: Value = response.json().await.unwrap_or_default();
    let text = |field: &str| problem.get(field).and_then(Value::as_str).map(str::to_owned);
    let Some(detail) = text("detail") else {
        return ClientError::InvalidResponse(format!("status {status} without a problem document"));
    };
    let errors = problem.get("errors").cloned().and_then(|errors| serde_json::from_value(errors).ok());
    let request_id = text("request_id").unwrap_or_default();
    ClientError::Problem { status, detail, errors: errors.unwrap_or_default(), request_id }
}

/// Percent-encodes a name as one segment of a path.
pub fn path_segment(name: &str) -> String {
    let keep = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    name.bytes().map(|b| if keep(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::path_segment;

    #[test]
    fn names_are_encoded_as_one_path_segment() {
        assert_eq!(path_segment("tasks-1.a_b~"), "tasks-1.a_b~");
        assert_eq!(path_segment("../a b?ü"), "..%2Fa%20b%3F%C3%BC");
    }
}
