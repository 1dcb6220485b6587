//! One call of a route: what came with it, checked against the table before the handler sees it. Authority first,
//! then the form of the answer, the parameters, and the body last: nobody without authority makes us read one.

use std::collections::BTreeMap;
use std::io;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderName, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, request::Parts};
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tenantry_control::error::{Error, FieldError};
use tenantry_control::{Control, IdempotencyKey, PageQuery, shape};

use super::problem::{Problem, Result};
use super::route::{ANY, Access, BodySpec, DEFAULT_LIMIT, JSON, OCTETS, Route};
use super::upload::Upload;
use super::{App, json};

/// Longest body, in bytes.
pub const MAX_BODY: usize = 1 << 20;
/// How much of a longer one is read and thrown away, so that its sender gets to read the answer.
const MAX_DISCARDED: usize = 8 << 20;
/// Longest time from the head of a request to the head of its answer; more than anybody may ask to wait.
const PATIENCE: Duration = Duration::from_secs(75);
/// The same for a request whose body is a file.
const LONG_PATIENCE: Duration = Duration::from_secs(6 * 3600);
/// How long a client may take to send its body.
const BODY_PATIENCE: Duration = Duration::from_secs(20);

/// What came.
pub struct Call {
    /// The server.
    pub app: Arc<App>,
    /// The media type that the client asked for, out of those that the route has.
    pub media: &'static str,
    /// The body; null for a route that reads none.
    pub body: Value,
    /// A body is not `Sync` by itself.
    bytes: Mutex<Upload>,
    /// The client's own name for a POST.
    pub idempotency_key: Option<IdempotencyKey>,
    path: Vec<(String, String)>,
    query: BTreeMap<String, String>,
    headers: HeaderMap,
}

/// Who called, for the access log.
#[derive(Clone)]
pub struct Principal(pub String);

/// Checks the call and has it served.
pub async fn serve(app: Arc<App>, route: Arc<Route>, request: Request<Body>) -> Response {
    let (mut parts, body) = request.into_parts();
    let mut principal = None;
    // Bytes take as long as their line is slow.
    let reads_bytes = route.body.as_ref().is_some_and(|body| body.media == ANY);
    let patience = if reads_bytes { LONG_PATIENCE } else { PATIENCE };
    let served = tokio::time::timeout(patience, serve_checked(app, &route, &mut parts, body, &mut principal));
    let mut response = match served.await {
        Ok(Ok(response)) => response,
        Ok(Err(problem)) => problem.into_response(),
        Err(_) => Problem::from(Error::unavailable(format!("no answer within {patience:?}"))).into_response(),
    };
    if let Some(principal) = principal {
        response.extensions_mut().insert(principal);
    }
    response
}

async fn serve_checked(
    app: Arc<App>,
    route: &Route,
    parts: &mut Parts,
    body: Body,
    principal: &mut Option<Principal>,
) -> Result {
    let control = app.control.clone();
    match &route.access {
        Access::Public(handler) => handler(Call::new(app, route, parts, body).await?, ()).await,
        Access::Key(permission, handler) => {
            let caller = control.authenticate(bearer(&parts.headers)?).await.map_err(invalid_token)?;
            *principal = Some(Principal(caller.principal.clone()));
            caller.require(*permission)?;
            handler(Call::new(app, route, parts, body).await?, caller).await
        }
        Access::Token(handler) => {
            let session = control.verify_token(bearer(&parts.headers)?).map_err(invalid_token)?;
            *principal = Some(Principal(session.tenant.to_string()));
            handler(Call::new(app, route, parts, body).await?, session).await
        }
    }
}

/// The credential of the request (RFC 6750).
fn bearer(headers: &HeaderMap) -> Result<&str> {
    let missing = || {
        let detail = "this needs a credential: send the header `Authorization: Bearer …`";
        let challenge = HeaderValue::from_static("Bearer realm=\"tenantry\"");
        Problem::new(StatusCode::UNAUTHORIZED, "unauthenticated", detail).with(WWW_AUTHENTICATE, challenge)
    };
    let value = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).ok_or_else(missing)?;
    let (scheme, credential) = value.split_once(' ').ok_or_else(missing)?;
    let credential = credential.trim();
    if scheme.eq_ignore_ascii_case("bearer") && !credential.is_empty() {
        Ok(credential)
    } else {
        Err(missing())
    }
}

fn invalid_token(error: Error) -> Problem {
    let problem = Problem::from(error);
    if problem.status == 401 {
        let challenge = HeaderValue::from_static("Bearer realm=\"tenantry\", error=\"invalid_token\"");
        return problem.with(WWW_AUTHENTICATE, challenge);
    }
    problem
}

impl Call {
    async fn new(app: Arc<App>, route: &Route, parts: &mut Parts, body: Body) -> Result<Self> {
        let media = negotiate(route, &parts.headers)?;
        let path = RawPathParams::from_request_parts(parts, &()).await.map_err(|_| {
            Problem::new(
                StatusCode::BAD_REQUEST,
                "malformed_path",
                "the path is not valid percent-encoded UTF-8",
            )
        })?;
        let path = path.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let query = read_query(route, parts.uri.query().unwrap_or_default())?;
        let missing =
            route.headers.iter().find(|param| param.required && !parts.headers.contains_key(param.name));
        if let Some(param) = missing {
            let detail = format!("this needs the header `{}`: {}", param.name, param.about);
            return Err(Problem::new(StatusCode::PRECONDITION_REQUIRED, "precondition_required", detail));
        }
        let idempotency_key = match route.method {
            Method::POST => idempotency_key(&parts.headers)?,
            _ => None,
        };
        let (body, bytes) = match &route.body {
            Some(spec) if spec.media == ANY => (Value::Null, Upload::new(body)),
            Some(spec) => (read_body(spec, &parts.headers, body).await?, Upload::none()),
            None => (Value::Null, Upload::none()),
        };
        let headers = std::mem::take(&mut parts.headers);
        Ok(Self { app, media, body, bytes: Mutex::new(bytes), idempotency_key, path, query, headers })
    }

    /// The use cases.
    pub fn control(&self) -> &Control {
        &self.app.control
    }

    /// A part of the path.
    pub fn segment(&self, name: &str) -> &str {
        self.path.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    /// The id in the path. What is not even an id names nothing.
    pub fn id<T: FromStr>(&self, what: &str) -> Result<T> {
        self.segment("id").parse().map_err(|_| Error::not_found(what).into())
    }

    /// A query parameter.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str)
    }

    /// A query parameter in its own type; the table has checked that it is one.
    pub fn value<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        serde_json::from_value(Value::String(self.param(name)?.to_owned())).ok()
    }

    /// Which page of a list is asked for.
    pub fn page(&self) -> Result<PageQuery> {
        let limit = self.param("limit").and_then(|text| text.parse().ok()).unwrap_or(DEFAULT_LIMIT);
        Ok(PageQuery::new(Some(limit), self.param("cursor").map(str::to_owned))?)
    }

    /// A header that may be given once.
    pub fn header(&self, name: &str) -> Result<Option<&str>> {
        let mut values = self.headers.get_all(name).iter();
        let wrong = |why: &str| {
            Problem::new(StatusCode::BAD_REQUEST, "malformed_header", format!("the header `{name}` {why}"))
        };
        let Some(first) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(wrong("is given more than once"));
        }
        first.to_str().map(Some).map_err(|_| wrong("holds something else than printable ASCII"))
    }

    /// The last message of a stream that the client has seen.
    pub fn last_event_id(&self) -> Result<Option<i64>> {
        let wrong = || {
            let detail =
                "the header `Last-Event-ID` must be the id of a message of this stream: a whole number";
            Problem::new(StatusCode::BAD_REQUEST, "malformed_header", detail)
        };
        self.header("last-event-id")?
            .filter(|text| !text.is_empty())
            .map(|text| text.parse().map_err(|_| wrong()))
            .transpose()
    }

    /// For how long the client would rather wait than be told where to look (RFC 7240), at most a minute. What is
    /// not understood is ignored, as that document asks.
    pub fn patience(&self) -> Option<Duration> {
        let preferences = self.headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
        let mut each = preferences.flat_map(|value| value.split(',')).filter_map(|one| one.split_once('='));
        let (_, seconds) = each.find(|(name, _)| name.trim().eq_ignore_ascii_case("wait"))?;
        let seconds: u64 = seconds.split(';').next()?.trim().trim_matches('"').parse().ok()?;
        Some(Duration::from_secs(seconds.min(60)))
    }

    /// The bytes that a route reads that reads bytes. They end in an error if the client says nothing for a while.
    pub fn take_bytes(&mut self) -> impl Stream<Item = io::Result<Bytes>> + Send + use<> {
        let bytes = self.bytes.get_mut().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(bytes, Upload::none()).chunks()
    }

    /// The body as a `T`; every faulty field is named.
    pub fn read<T: DeserializeOwned + schemars::JsonSchema>(&self) -> Result<T> {
        let faults = shape::faults(schemars::schema_for!(T).as_value(), &self.body);
        if !faults.is_empty() {
            return Err(Error::invalid("request_invalid", faults).into());
        }
        let read = T::deserialize(&self.body);
        read.map_err(|why| Error::invalid("request_invalid", vec![FieldError::new("", why)]).into())
    }
}

/// The key of a request that may be sent again.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>> {
    let mut given = headers.get_all("idempotency-key").iter();
    match (given.next(), given.next()) {
        (None, _) => Ok(None),
        (Some(one), None) => Ok(Some(IdempotencyKey::parse(one.as_bytes())?)),
        (Some(_), Some(_)) => Err(IdempotencyKey::refused("is given more than once").into()),
    }
}

/// The same answer, saying so if it is for something that was done before.
pub fn replayed(response: Response, replayed: bool) -> Result {
    let name = HeaderName::from_static("idempotent-replayed");
    if replayed { with_header(response, name, "true") } else { Ok(response) }
}

/// A JSON answer.
pub fn answer<T: Serialize>(status: StatusCode, value: &T) -> Result {
    let body = serde_json::to_vec(value).map_err(Error::internal)?;
    let mut response = (status, body).into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
    Ok(response)
}

/// The same answer with one more header.
pub fn with_header(mut response: Response, name: HeaderName, value: &str) -> Result {
    response.headers_mut().insert(name, HeaderValue::from_str(value).map_err(Error::internal)?);
    Ok(response)
}

/// The first of the route's media types that the client takes (RFC 9110 §12.5.1), by the client's own order.
fn negotiate(route: &Route, headers: &HeaderMap) -> Result<&'static str> {
    // Without a body there is nothing to choose; a problem is always sent.
    let Some(default) = route.media().next() else { return Ok(JSON) };
    // A file is what it is: its media type is not the route's to choose.
    if default == OCTETS {
        return Ok(OCTETS);
    }
    let mut wanted: Vec<(f32, &str)> = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter(|range| !range.trim().is_empty())
        .map(|range| {
            let mut parts = range.split(';').map(str::trim);
            let range = parts.next().unwrap_or_default();
            let weight = parts.find_map(|p| p.strip_prefix("q=")).and_then(|q| q.parse().ok());
            (weight.unwrap_or(1.0), range)
        })
        .collect();
    if wanted.is_empty() {
        return Ok(default);
    }
    wanted.sort_by(|a, b| b.0.total_cmp(&a.0));
    let accepted = wanted.iter().filter(|(weight, _)| *weight > 0.0).find_map(|(_, range)| {
        let family = range.strip_suffix("/*");
        route.media().find(|media| {
            *range == "*/*"
                || media.eq_ignore_ascii_case(range)
                || family.is_some_and(|f| media.split('/').next() == Some(f))
        })
    });
    accepted.ok_or_else(|| {
        let known: Vec<_> = route.media().collect();
        let detail = format!("this answers in {}; ask for it in the header `Accept`", known.join(" or "));
        Problem::new(StatusCode::NOT_ACCEPTABLE, "not_acceptable", detail)
    })
}

fn read_query(route: &Route, query: &str) -> Result<BTreeMap<String, String>> {
    let mut read = BTreeMap::new();
    let mut faults = Vec::new();
    for (name, value) in form_pairs(query) {
        let shown: String =
            name.chars().take(64).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        match route.query.iter().find(|param| param.name == name) {
            None => {
                let known: Vec<_> = route.query.iter().map(|param| param.name).collect();
                let known = if known.is_empty() {
                    "there are none here".to_owned()
                } else {
                    format!("known: {}", known.join(", "))
                };
                faults.push(FieldError::new(shown, format!("is not a known query parameter; {known}")));
            }
            Some(param) => {
                if value.contains('\0') {
                    faults.push(FieldError::new(shown.clone(), "must not hold the character U+0000"));
                } else if let Err(why) = (param.check)(&value) {
                    faults.push(FieldError::new(shown.clone(), why));
                }
                if read.insert(name, value).is_some() {
                    faults.push(FieldError::new(shown, "is given more than once"));
                }
            }
        }
    }
    if faults.is_empty() { Ok(read) } else { Err(Error::invalid("query_invalid", faults).into()) }
}

/// Names and values of a query string.
fn form_pairs(query: &str) -> Vec<(String, String)> {
    let uri = axum::http::Uri::builder().path_and_query(format!("/?{query}")).build().unwrap_or_default();
    axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&uri).map(|pairs| pairs.0).unwrap_or_default()
}

async fn read_body(spec: &BodySpec, headers: &HeaderMap, body: Body) -> Result<Value> {
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut parts = given.split(';').map(|part| part.trim().to_ascii_lowercase());
    let charset_is_ours = |p: String| {
        p.strip_prefix("charset=").is_none_or(|c| ["utf-8", "utf8"].contains(&c.trim_matches('"')))
    };
    if parts.next().as_deref() != Some(spec.media) || !parts.all(charset_is_ours) {
        let detail = format!("send the body as `Content-Type: {}`", spec.media);
        let accept = match spec.media {
            JSON => HeaderName::from_static("accept-post"),
            _ => HeaderName::from_static("accept-patch"),
        };
        let problem = Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail);
        return Err(problem.with(accept, HeaderValue::from_static(spec.media)));
    }
    let bytes = tokio::time::timeout(BODY_PATIENCE, collect(body)).await.map_err(|_| {
        let detail = format!("the body did not arrive within {} seconds", BODY_PATIENCE.as_secs());
        Problem::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", detail)
    })??;
    json::parse(&bytes).map_err(|malformed| {
        let errors = vec![FieldError::new("", &malformed)];
        Problem::new(StatusCode::BAD_REQUEST, "malformed_json", malformed.to_string()).naming(errors)
    })
}

async fn collect(body: Body) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut length = 0;
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| {
            Problem::new(StatusCode::BAD_REQUEST, "body_cut_off", "the connection ended before the body did")
        })?;
        length += chunk.len();
        if length <= MAX_BODY {
            bytes.extend_from_slice(&chunk);
        } else if length > MAX_DISCARDED {
            break;
        }
    }
    if length <= MAX_BODY {
        return Ok(bytes);
    }
    let detail = format!("the body has more than {MAX_BODY} bytes");
    Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail))
}
