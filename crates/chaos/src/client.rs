//! A client of the replicas, as customers should be: it sends a request again, with the same idempotency key, until a replica
//! answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::installation::{Installation, PUBLIC_URL};
use crate::tally::Tally;

/// Longest wait for one answer: longer than a halted process stays halted.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// Time after which a client gives up a request.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time after which a client stops following an operation.
const FOLLOW: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(100);

/// Why a use case was not done.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Code of the problem or of the operation's error; or what this client saw.
    pub code: String,
}

impl Refusal {
    /// A refusal with this code.
    pub fn of(code: &str) -> Self {
        Self { code: code.to_owned() }
    }
}

/// A request.
pub struct Ask<'a> {
    method: Method,
    path: String,
    once: Option<String>,
    token: Option<&'a str>,
    headers: Vec<(&'static str, String)>,
    body: Body,
}

enum Body {
    None,
    Json(Value),
    Bytes(Vec<u8>),
}

impl<'a> Ask<'a> {
    /// A GET of this path.
    pub fn get(path: impl Into<String>) -> Self {
        let path = path.into();
        Self { method: Method::GET, path, once: None, token: None, headers: Vec::new(), body: Body::None }
    }

    /// A POST of a document.
    pub fn post(path: impl Into<String>, body: Value) -> Self {
        Self { method: Method::POST, body: Body::Json(body), ..Self::get(path) }
    }

    /// Another method with bytes as body.
    pub fn bytes(method: Method, path: impl Into<String>, bytes: Vec<u8>) -> Self {
        Self { method, body: Body::Bytes(bytes), ..Self::get(path) }
    }

    /// With this idempotency key.
    pub fn once(mut self, key: impl Into<String>) -> Self {
        self.once = Some(key.into());
        self
    }

    /// With this header.
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// With a tenant's token or another API key instead of the administrator's; empty for none.
    pub fn with(mut self, token: &'a str) -> Self {
        self.token = Some(token);
        self
    }
}

/// The client. Clones share the choice of the next replica.
#[derive(Clone)]
pub struct Client {
    installation: Arc<Installation>,
    tally: Arc<Tally>,
    http: reqwest::Client,
    key: Arc<str>,
    next: Arc<AtomicUsize>,
    stop: watch::Receiver<bool>,
}

impl Client {
    /// A client with the administrator's key, which follows no operation any longer after `stop`.
    pub fn new(
        installation: Arc<Installation>,
        tally: Arc<Tally>,
        stop: watch::Receiver<bool>,
    ) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().no_proxy().timeout(ANSWER_TIMEOUT).build()?;
        let key = installation.key()?.into();
        Ok(Self { installation, tally, http, key, next: Arc::default(), stop })
    }

    /// Whether the run has stopped.
    pub fn stopped(&self) -> bool {
        *self.stop.borrow()
    }

    /// The HTTP client.
    pub fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// Sends a request and returns the document of a successful answer.
    pub async fn send(&self, ask: Ask<'_>) -> Result<Value, Refusal> {
        let (_, bytes) = self.fetch(ask).await?;
        Ok(serde_json::from_slice(&bytes).unwrap_or_default())
    }

    /// Sends a request and returns status and body of a successful answer.
    pub async fn fetch(&self, ask: Ask<'_>) -> Result<(u16, Vec<u8>), Refusal> {
        let started = Instant::now();
        loop {
            match self.attempt(&ask).await {
                Some((status, bytes)) if (200..300).contains(&status) => return Ok((status, bytes)),
                Some((status, bytes)) => {
                    let problem: Value = serde_json::from_slice(&bytes).unwrap_or_default();
                    let code = problem["code"].as_str().unwrap_or("no_code").to_owned();
                    // A replica that has just died may have left its port to another program.
                    let again = status == 503 || (status == 401 && ask.token.is_none()) || code == "no_code";
                    if !again {
                        if status >= 500 {
                            let id = problem["request_id"].as_str().unwrap_or_default();
                            let what = format!("{} {}: {status} {code}, request {id}", ask.method, ask.path);
                            self.tally.surprise(what);
                        }
                        return Err(Refusal { code });
                    }
                    if started.elapsed() > PATIENCE {
                        return Err(Refusal { code: format!("{code} for too long") });
                    }
                }
                None if started.elapsed() > PATIENCE => return Err(Refusal::of("no answer")),
                None => {}
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// One attempt at the next replica; none without an answer.
    async fn attempt(&self, ask: &Ask<'_>) -> Option<(u16, Vec<u8>)> {
        let response = self.request(ask).send().await.ok()?;
        let status = response.status().as_u16();
        Some((status, response.bytes().await.ok()?.to_vec()))
    }

    /// The request to the next replica.
    pub fn request(&self, ask: &Ask<'_>) -> reqwest::RequestBuilder {
        let next = self.next.fetch_add(1, Ordering::Relaxed) % self.installation.replicas.len();
        let url = self.installation.replicas[next].url();
        let mut request = self.http.request(ask.method.clone(), format!("{url}{}", ask.path));
        match ask.token {
            Some("") => {}
            token => request = request.bearer_auth(token.unwrap_or(&self.key)),
        }
        if let Some(once) = &ask.once {
            request = request.header("idempotency-key", once);
        }
        for (name, value) in &ask.headers {
            request = request.header(*name, value);
        }
        match &ask.body {
            Body::None => request,
            Body::Json(body) => request.json(body),
            Body::Bytes(bytes) => request.body(bytes.clone()),
        }
    }

    /// Starts an operation, follows it, and returns it once it has succeeded.
    pub async fn operation(&self, ask: Ask<'_>) -> Result<Value, Refusal> {
        let begun = self.send(ask).await?;
        let id = text(&begun["id"]);
        for step in begun["steps"].as_array().into_iter().flatten() {
            if step["approval"].is_object() {
                let body = json!({ "step": step["key"] });
                let path = format!("/v1/operations/{id}/approve");
                self.send(Ask::post(path, body).once(format!("{id} {}", step["key"]))).await?;
            }
        }
        self.follow(&id).await
    }

    /// Follows an operation to its end, and returns it if it has succeeded.
    pub async fn follow(&self, id: &str) -> Result<Value, Refusal> {
        let started = Instant::now();
        loop {
            let operation = self.send(Ask::get(format!("/v1/operations/{id}"))).await?;
            match operation["state"].as_str().unwrap_or_default() {
                "succeeded" => return Ok(operation),
                state @ ("rolled_back" | "cancelled" | "needs_attention") => {
                    let code = operation["error"]["code"].as_str().unwrap_or("without_error");
                    return Err(Refusal { code: format!("{state}: {code}") });
                }
                _ if self.stopped() => return Err(Refusal::of("not followed to its end")),
                _ if started.elapsed() > FOLLOW => return Err(Refusal::of("follows for too long")),
                _ => tokio::time::sleep(PAUSE).await,
            }
        }
    }
}

/// Text of a JSON value; empty for any other value.
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Path and query of a URL in a response.
pub fn path_of(url: &Value) -> String {
    url.as_str().and_then(|url| url.strip_prefix(PUBLIC_URL)).unwrap_or_default().to_owned()
}
