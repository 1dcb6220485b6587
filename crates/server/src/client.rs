//! The command line's side of the API. Every failure is one of three: no answer, a refusal with its problem, or an
//! answer that is not ours. Nothing is sent anywhere but to the server that was named.

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
const CONNECT: Duration = Duration::from_secs(5);
/// Longest silence of the server. Streams send a comment every 15 seconds, and nobody asks to wait more than 60.
const SILENCE: Duration = Duration::from_secs(90);
/// How long a server that was there may be away before that is a failure: it may be restarting.
const AWAY: Duration = Duration::from_secs(30);

/// Why a call failed.
#[derive(Debug)]
pub enum ClientError {
    /// No answer.
    Unreachable {
        /// The server.
        server: String,
        /// Why.
        why: String,
    },
    /// A problem.
    Refused {
        /// The status.
        status: u16,
        /// The problem's sentence.
        detail: String,
        /// The faulty fields.
        errors: Vec<FieldError>,
        /// For asking the operator.
        request_id: String,
    },
    /// Something that Tenantry does not answer.
    Foreign(String),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable { server, why } => {
                write!(
                    f,
                    "no answer from {server}: {why}\nIs it running? `tenantry dev` starts one; --server or TENANTRY_SERVER names another"
                )
            }
            Self::Refused { status, detail, errors, request_id, .. } => {
                f.write_str(detail)?;
                // One faulty field already stands in the sentence.
                for FieldError { path, message } in errors.iter().filter(|_| errors.len() > 1) {
                    write!(f, "\n  {path}: {message}")?;
                }
                if *status >= 500 { write!(f, " (request {request_id})") } else { Ok(()) }
            }
            Self::Foreign(why) => write!(f, "the answer is not one of Tenantry's: {why}"),
        }
    }
}
impl std::error::Error for ClientError {}

/// Pause before a stream that ended is taken up again.
const COME_BACK: Duration = Duration::from_millis(200);

/// A client.
pub struct Client {
    http: reqwest::Client,
    server: String,
    key: String,
    /// Whether it has answered before.
    known: AtomicBool,
}

/// The server: the one that is named, or that of the data folder, or the usual one.
pub fn server(named: Option<&str>, folder: &Path) -> String {
    let held = || lock::holder(folder).and_then(|holder| holder.url);
    named.map(str::to_owned).or_else(held).unwrap_or_else(|| DEFAULT_SERVER.to_owned())
}

/// The API key, from the environment or the data folder.
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
        "there is no API key: set TENANTRY_KEY or TENANTRY_KEY_FILE, or name the data folder of `tenantry dev` by --data \
         (there is none in {})",
        folder.display()
    )))
}

impl Client {
    /// A client of this server with this key.
    pub fn new(server: &str, key: String) -> Result<Self> {
        let server = server.trim_end_matches('/').to_owned();
        let url: reqwest::Url =
            server.parse().map_err(|why| Exit::Usage.with(format!("`{server}` is not a URL: {why}")))?;
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("tenantry/", env!("CARGO_PKG_VERSION")));
        let local = url
            .host_str()
            .is_some_and(|host| ["localhost", "[::1]"].contains(&host) || host.starts_with("127."));
        if local {
            builder = builder.no_proxy();
        }
        Ok(Self { http: builder.build()?, server, key, known: AtomicBool::new(false) })
    }

    /// Reads something.
    pub async fn get(&self, path: &str) -> Result<Value, ClientError> {
        self.send(|| self.request(Method::GET, path)).await.map(|(_, value)| value)
    }

    /// Asks for something.
    pub async fn post(&self, path: &str, body: Option<&Value>) -> Result<Value, ClientError> {
        let request = || self.request(Method::POST, path);
        self.send(|| body.map_or_else(request, |body| request().json(body))).await.map(|(_, value)| value)
    }

    /// Asks for something under a name, so that asking again is safe.
    pub async fn post_once(
        &self,
        path: &str,
        body: &Value,
        key: &str,
    ) -> Result<(StatusCode, Value), ClientError> {
        self.send(|| self.request(Method::POST, path).json(body).header("idempotency-key", key)).await
    }

    /// Sends a file.
    pub async fn upload(&self, path: &str, file: &Path) -> Result<Value, ClientError> {
        let request = || {
            let request = self.request(Method::POST, path).header(CONTENT_TYPE, "application/zstd");
            match std::fs::File::open(file) {
                Ok(file) => request.body(tokio::fs::File::from_std(file)),
                // Nothing is not an archive: the server says so.
                Err(_) => request,
            }
        };
        self.send(request).await.map(|(_, value)| value)
    }

    /// Reads bytes behind a signed address.
    pub async fn download(&self, path: &str) -> Result<Response, ClientError> {
        self.answer(|| self.http.get(format!("{}{path}", self.server))).await
    }

    /// Every entry of a list that has one page.
    pub async fn all(&self, path: &str) -> Result<Vec<Value>, ClientError> {
        match self.get(path).await?.get_mut("data").map(Value::take) {
            Some(Value::Array(data)) => Ok(data),
            _ => Err(ClientError::Foreign("it is no list".to_owned())),
        }
    }

    /// Every entry of a list, page by page, up to `most`.
    pub async fn list(&self, path: &str, most: usize) -> Result<Vec<Value>, ClientError> {
        let mut entries = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let join = if path.contains('?') { '&' } else { '?' };
            let limit = (most - entries.len()).min(100);
            let after = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
            let mut page = self.get(&format!("{path}{join}limit={limit}{after}")).await?;
            if let Some(Value::Array(data)) = page.get_mut("data").map(Value::take) {
                entries.extend(data);
            }
            cursor = page.get("next_cursor").and_then(Value::as_str).map(str::to_owned);
            if cursor.is_none() || entries.len() >= most {
                return Ok(entries);
            }
        }
    }

    /// Follows an operation until it is done or needs a person. A line that is cut is taken up again.
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
                    .map_err(|why| ClientError::Foreign(why.to_string()))?;
                seen(&view);
                if view.done || view.state == OperationState::NeedsAttention {
                    return Ok(view);
                }
                last = Some(view);
            }
            tokio::time::sleep(COME_BACK).await;
        }
    }

    /// Follows the events after this number, for ever.
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
            tokio::time::sleep(COME_BACK).await;
        }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.server)).bearer_auth(&self.key)
    }

    async fn send(&self, request: impl Fn() -> RequestBuilder) -> Result<(StatusCode, Value), ClientError> {
        let response = self.answer(request).await?;
        let status = response.status();
        let bytes = response.bytes().await.map_err(|why| self.unreachable(&why))?;
        if bytes.is_empty() {
            return Ok((status, Value::Null));
        }
        let value = serde_json::from_slice(&bytes).map_err(|why| ClientError::Foreign(why.to_string()))?;
        Ok((status, value))
    }

    /// A success. A server that has answered before may be away for a while: everything that the command line sends can
    /// be sent again.
    async fn answer(&self, request: impl Fn() -> RequestBuilder) -> Result<Response, ClientError> {
        let started = tokio::time::Instant::now();
        let mut pause = Duration::from_millis(100);
        loop {
            let failed = match request().send().await {
                Ok(response) if response.status().is_success() => {
                    self.known.store(true, Ordering::Relaxed);
                    return Ok(response);
                }
                Ok(response) if response.status() != StatusCode::SERVICE_UNAVAILABLE => {
                    self.known.store(true, Ordering::Relaxed);
                    return Err(refusal(response).await);
                }
                Ok(response) => refusal(response).await,
                Err(why) => self.unreachable(&why),
            };
            if !self.known.load(Ordering::Relaxed) || started.elapsed() > AWAY {
                return Err(failed);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> ClientError {
        let mut why: &dyn std::error::Error = error;
        while let Some(source) = why.source() {
            why = source;
        }
        ClientError::Unreachable { server: self.server.clone(), why: why.to_string() }
    }
}

async fn refusal(response: Response) -> ClientError {
    let status = response.status().as_u16();
    let problem: Value = response.json().await.unwrap_or_default();
    let text = |field: &str| problem.get(field).and_then(Value::as_str).map(str::to_owned);
    let Some(detail) = text("detail") else {
        return ClientError::Foreign(format!("status {status} without a problem document"));
    };
    let errors = problem.get("errors").cloned().and_then(|errors| serde_json::from_value(errors).ok());
    let request_id = text("request_id").unwrap_or_default();
    ClientError::Refused { status, detail, errors: errors.unwrap_or_default(), request_id }
}

/// A name as a part of a path.
pub fn part(name: &str) -> String {
    let keep = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    name.bytes().map(|b| if keep(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::part;

    #[test]
    fn names_stay_one_part_of_a_path() {
        assert_eq!(part("tasks-1.a_b~"), "tasks-1.a_b~");
        assert_eq!(part("../a b?ü"), "..%2Fa%20b%3F%C3%BC");
    }
}
