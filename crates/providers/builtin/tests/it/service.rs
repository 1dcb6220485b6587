//! A service for the `http` provider on a real socket: it verifies signatures, recognises repeated requests
//! by their id, and misbehaves once when told to.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use standardwebhooks::Webhook;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The shared secret.
pub const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Misbehaviour for one request.
#[derive(Clone, Debug)]
pub enum Trick {
    /// Does not respond.
    Hang,
    /// Does the work, then closes the connection without a response.
    CutAfterActing,
    /// Does the work, then closes the connection in the middle of the response.
    CutInAnswer,
    /// Responds with this status and header line without doing the work.
    Status(u16, &'static str),
    /// Does the work, then responds with this text.
    Say(&'static str),
}

/// A resource of the service.
#[derive(Clone, Debug)]
pub struct Thing {
    pub claim: String,
    pub complete: bool,
}

#[derive(Default)]
pub struct State {
    pub things: BTreeMap<String, Thing>,
    pub tricks: VecDeque<Trick>,
    /// `webhook-id` of every request with a valid signature.
    pub ids: Vec<String>,
    pub refused: usize,
}

/// The running service; it ends with the test's runtime.
pub struct Service {
    pub address: SocketAddr,
    pub state: Arc<Mutex<State>>,
}

impl Service {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, shared.clone()));
            }
        });
        Self { address, state }
    }

    pub fn url(&self) -> String {
        format!("http://{}/things", self.address)
    }

    pub fn trick(&self, trick: Trick) {
        self.state.lock().tricks.push_back(trick);
    }
}

async fn serve(mut stream: TcpStream, state: Arc<Mutex<State>>) {
    let Some((headers, body)) = request(&mut stream).await else { return };
    let trick = state.lock().tricks.pop_front();
    match &trick {
        Some(Trick::Hang) => return std::future::pending().await,
        Some(Trick::Status(status, line)) => return answer(&mut stream, *status, line, "{}").await,
        _ => {}
    }
    if Webhook::new(SECRET).unwrap().verify(&body, &headers).is_err() {
        state.lock().refused += 1;
        return answer(&mut stream, 401, "", "{}").await;
    }
    let said = {
        let mut state = state.lock();
        state.ids.push(headers["webhook-id"].to_str().unwrap().to_owned());
        act(&mut state, &serde_json::from_slice(&body).unwrap()).to_string()
    };
    match trick {
        Some(Trick::CutAfterActing) => {}
        Some(Trick::CutInAnswer) => {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{}", said.len() + 100, said);
            let _ = stream.write_all(head.as_bytes()).await;
        }
        Some(Trick::Say(text)) => answer(&mut stream, 200, "", text).await,
        _ => answer(&mut stream, 200, "", &said).await,
    }
}

async fn answer(stream: &mut TcpStream, status: u16, line: &str, body: &str) {
    let line = if line.is_empty() { String::new() } else { format!("{line}\r\n") };
    let text = format!(
        "HTTP/1.1 {status} X\r\n{line}content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    let _ = stream.write_all(text.as_bytes()).await;
}

async fn request(stream: &mut TcpStream) -> Option<(HeaderMap, Vec<u8>)> {
    let mut text = Vec::new();
    let end = loop {
        if stream.read_buf(&mut text).await.ok()? == 0 {
            return None;
        }
        if let Some(end) = text.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
    };
    let head = String::from_utf8(text[..end].to_vec()).ok()?;
    let lines = head.lines().skip(1).filter_map(|line| line.split_once(": "));
    let headers: HeaderMap = lines
        .filter_map(|(name, value)| {
            Some((name.parse::<HeaderName>().ok()?, value.parse::<HeaderValue>().ok()?))
        })
        .collect();
    let length: usize = headers.get("content-length")?.to_str().ok()?.parse().ok()?;
    let mut body = text.split_off(end + 4);
    while body.len() < length {
        if stream.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    Some((headers, body))
}

fn act(state: &mut State, request: &Value) -> Value {
    let spec = &request["spec"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (name, claim) = (text(&spec["name"]), text(&spec["claim"]));
    let foreign = state.things.get(&name).is_some_and(|thing| thing.claim != claim);
    match request["verb"].as_str() {
        Some("ensure" | "observe") if foreign => json!({ "foreign": true }),
        Some("ensure") => {
            state.things.insert(name.clone(), Thing { claim, complete: true });
            // Returns personal data, which the provider must not pass on.
            json!({ "outputs": { "thing": name, "contact": spec["tenant"]["admin"]["email"] } })
        }
        Some("observe") => match state.things.get(&name) {
            Some(thing) => json!({ "present": true, "healthy": thing.complete, "fingerprint": name }),
            None => json!({ "present": false }),
        },
        Some("remove") => {
            let own = !foreign && state.things.remove(&name).is_some();
            json!({ "receipt": { "things": usize::from(own) } })
        }
        _ => json!({}),
    }
}
