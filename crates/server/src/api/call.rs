//! One call of a route. Checks a request against the route table before its handler runs: authority first,
//! then the accepted media type, path, parameters and headers, and the body last, so that unauthorized bodies
//! are never read.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tenantry_model::{ClientAddress, ErrorCode, TenantId};

use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderName, USER_AGENT, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, request::Parts};
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tenantry_control::error::{Error, FieldError};
use tenantry_control::{Control, IdempotencyKey, PageQuery, shape};

use super::held::hold;
use super::limited::{RETRY_AFTER, limited};
use super::problem::{Problem, Result};
use super::route::{ANY, Access, BodySpec, DEFAULT_LIMIT, FORM, JSON, OCTETS, Route};
use super::shares::{Kind, Place, Who};
use super::upload::Upload;
use super::{App, json};

/// Longest JSON body, in bytes.
pub const MAX_BODY: usize = 1 << 20;
/// Bytes of a longer body that are read and discarded, so that the client can read the response.
const MAX_DISCARDED: usize = 8 << 20;
/// Time from the head of a request to the head of its response; longer than `Prefer: wait` allows.
const TIMEOUT: Duration = Duration::from_secs(75);
/// The same for a request whose body is a stream of bytes.
const STREAM_TIMEOUT: Duration = Duration::from_secs(6 * 3600);

/// A checked request.
pub struct Call {
    /// Shared state.
    pub app: Arc<App>,
    /// Negotiated media type of the response.
    pub media: &'static str,
    /// JSON body; null if the route has none.
    pub body: Value,
    /// In a mutex because a body is not `Sync`.
    bytes: Mutex<Upload>,
    /// Idempotency key of a POST request.
    pub idempotency_key: Option<IdempotencyKey>,
    /// Address of the client.
    pub client: ClientAddress,
    /// Whose shares the call counts in.
    who: Who,
    place: Place,
    path: Vec<(String, String)>,
    query: BTreeMap<String, String>,
    headers: HeaderMap,
}

/// The authenticated caller, for the access log.
#[derive(Clone)]
pub struct Principal(pub String);

/// Address of the client of a request: of its connection or, behind a trusted proxy, the one that the proxy names.
#[derive(Clone, Copy)]
pub struct Client(pub IpAddr);

/// Marks a request that only an operator or a probe gets a response to, because clients have all connections.
#[derive(Clone, Copy)]
pub struct OperatorsOnly;

/// Checks the call, runs its handler, and turns an error or a timeout into a problem.
pub async fn serve(app: Arc<App>, route: Arc<Route>, request: Request<Body>) -> Response {
    let (mut parts, body) = request.into_parts();
    let (mut principal, place) = (None, Place::default());
    // The client's connection limits how fast a stream arrives.
    let reads_bytes = route.body.as_ref().is_some_and(|body| body.media == ANY);
    let timeout = if reads_bytes { STREAM_TIMEOUT } else { TIMEOUT };
    let served =
        tokio::time::timeout(timeout, serve_checked(app, &route, &mut parts, body, &place, &mut principal));
    let mut response = match served.await {
        Ok(Ok(response)) => response,
        Ok(Err(problem)) => problem.into_response(),
        Err(_) => {
            Problem::from(Error::unavailable(format!("no response within {timeout:?}"))).into_response()
        }
    };
    if let Some(principal) = principal {
        response.extensions_mut().insert(principal);
    }
    hold(response, place)
}

async fn serve_checked(
    app: Arc<App>,
    route: &Route,
    parts: &mut Parts,
    body: Body,
    place: &Place,
    principal: &mut Option<Principal>,
) -> Result {
    let client = parts.extensions.get::<Client>().copied();
    let control = app.control.clone();
    match &route.access {
        Access::Probe(handler) => {
            handler(Call::new(app, route, parts, body, Who::Server, place).await?, ()).await
        }
        Access::Public(handler) => {
            let who = Who::client(client);
            begin(&app, parts, &who, place)?;
            handler(Call::new(app, route, parts, body, who, place).await?, ()).await
        }
        Access::Key(permission, handler) => {
            let caller = control.authenticate(bearer(&parts.headers)?).await;
            let caller = caller.map_err(|error| app.shares.reject(client, invalid_token(error)))?;
            *principal = Some(Principal(caller.principal.clone()));
            let who = Who::caller(client, &caller);
            begin(&app, parts, &who, place)?;
            caller.require(*permission)?;
            handler(Call::new(app, route, parts, body, who, place).await?, caller).await
        }
        Access::Token(handler) => {
            let session = control.authenticate_member(bearer(&parts.headers)?).await;
            let session = session.map_err(|error| app.shares.reject(client, invalid_token(error)))?;
            *principal = Some(Principal(session.tenant.to_string()));
            let who = Who::member(client, &session);
            begin(&app, parts, &who, place)?;
            handler(Call::new(app, route, parts, body, who, place).await?, session).await
        }
    }
}

/// Takes the call's place among requests. A connection of the reserve has one for operators only.
fn begin(app: &App, parts: &Parts, who: &Who, place: &Place) -> Result<()> {
    if parts.extensions.get::<OperatorsOnly>().is_some() && !matches!(who, Who::Operator(_)) {
        app.metrics.limited("connections", "total");
        return Err(limited(ErrorCode::Overloaded, RETRY_AFTER));
    }
    app.shares.begin(who, place)
}

/// The bearer credential of the request (RFC 6750).
fn bearer(headers: &HeaderMap) -> Result<&str> {
    let missing = || {
        let detail = "authentication required: send the header `Authorization: Bearer …`";
        let challenge = HeaderValue::from_static("Bearer realm=\"tenantry\"");
        Problem::new(ErrorCode::Unauthenticated, detail).with(WWW_AUTHENTICATE, challenge)
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
    async fn new(
        app: Arc<App>,
        route: &Route,
        parts: &mut Parts,
        body: Body,
        who: Who,
        place: &Place,
    ) -> Result<Self> {
        let media = negotiate(route, &parts.headers)?;
        let path = RawPathParams::from_request_parts(parts, &()).await.map_err(|_| {
            Problem::new(ErrorCode::MalformedPath, "the path is not valid percent-encoded UTF-8")
        })?;
        let path = path.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let query = read_query(route, parts.uri.query().unwrap_or_default())?;
        let missing =
            route.headers.iter().find(|param| param.required && !parts.headers.contains_key(param.name));
        if let Some(param) = missing {
            let detail = format!("the header `{}` is required: {}", param.name, param.about);
            return Err(Problem::new(ErrorCode::PreconditionRequired, detail));
        }
        let idempotency_key = match route.method {
            Method::POST => idempotency_key(&parts.headers)?,
            _ => None,
        };
        let (body, bytes) = match &route.body {
            Some(spec) if spec.media == ANY => (Value::Null, Upload::new(body)),
            Some(spec) => {
                let timeout = app.timeouts.body.duration();
                (read_body(spec, &parts.headers, body, timeout).await?, Upload::none())
            }
            None => (Value::Null, Upload::none()),
        };
        let headers = std::mem::take(&mut parts.headers);
        let client =
            parts.extensions.get().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |Client(address)| *address);
        let (client, bytes, place) = (client.into(), Mutex::new(bytes), place.clone());
        Ok(Self { app, media, body, bytes, idempotency_key, client, who, place, path, query, headers })
    }

    /// The control plane.
    pub fn control(&self) -> &Control {
        &self.app.control
    }

    /// Counts the call as one of this kind, until its response has been sent. An error if a share is used up.
    pub fn becomes(&self, kind: Kind) -> Result<()> {
        self.app.shares.enter(kind, &self.who, &self.place)
    }

    /// The same for a signed URL of this tenant.
    pub fn becomes_of(&self, kind: Kind, tenant: TenantId) -> Result<()> {
        match self.who {
            Who::Server => Ok(()),
            _ => self.app.shares.enter(kind, &Who::Signed(tenant), &self.place),
        }
    }

    /// A path parameter; empty if the path has none of this name.
    pub fn segment(&self, name: &str) -> &str {
        self.path.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    /// The id in the path. An invalid id is reported as not found.
    pub fn id<T: FromStr>(&self, what: &str) -> Result<T> {
        self.segment("id").parse().map_err(|_| Error::not_found(what).into())
    }

    /// A query parameter as text.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str)
    }

    /// A query parameter as `T`; the route table has validated it.
    pub fn value<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        serde_json::from_value(Value::String(self.param(name)?.to_owned())).ok()
    }

    /// The requested page of a list.
    pub fn page(&self) -> Result<PageQuery> {
        let limit = self.param("limit").and_then(|text| text.parse().ok()).unwrap_or(DEFAULT_LIMIT);
        Ok(PageQuery::new(Some(limit), self.param("cursor").map(str::to_owned))?)
    }

    /// The value of a header; an error if the request has it more than once.
    pub fn header(&self, name: &str) -> Result<Option<&str>> {
        let mut values = self.headers.get_all(name).iter();
        let malformed =
            |why: &str| Problem::new(ErrorCode::MalformedHeader, format!("the header `{name}` {why}"));
        let Some(first) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(malformed("is given more than once"));
        }
        first.to_str().map(Some).map_err(|_| malformed("contains characters other than printable ASCII"))
    }

    /// The header `User-Agent`, if it is readable.
    pub fn user_agent(&self) -> Option<&str> {
        self.headers.get(USER_AGENT).and_then(|value| value.to_str().ok())
    }

    /// The id of the last message that the client has received from a stream.
    pub fn last_event_id(&self) -> Result<Option<i64>> {
        let malformed = || {
            let detail =
                "the header `Last-Event-ID` must be a whole number, the id of a message of this stream";
            Problem::new(ErrorCode::MalformedHeader, detail)
        };
        self.header("last-event-id")?
            .filter(|text| !text.is_empty())
            .map(|text| text.parse().map_err(|_| malformed()))
            .transpose()
    }

    /// Seconds of `Prefer: wait=N` (RFC 7240), at most 60. Invalid preferences are ignored, as that RFC
    /// requires.
    pub fn preferred_wait(&self) -> Option<Duration> {
        let preferences = self.headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
        let mut each = preferences.flat_map(|value| value.split(',')).filter_map(|one| one.split_once('='));
        let (_, seconds) = each.find(|(name, _)| name.trim().eq_ignore_ascii_case("wait"))?;
        let seconds: u64 = seconds.split(';').next()?.trim().trim_matches('"').parse().ok()?;
        Some(Duration::from_secs(seconds.min(60)))
    }

    /// The body as a stream of bytes. The stream ends with an error if the client stops sending.
    pub fn take_bytes(&mut self) -> impl Stream<Item = io::Result<Bytes>> + Send + use<> {
        let bytes = self.bytes.get_mut().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(bytes, Upload::none()).chunks(self.app.timeouts.body_pace())
    }

    /// The JSON body as `T`; the error names every invalid field.
    pub fn read<T: DeserializeOwned + schemars::JsonSchema>(&self) -> Result<T> {
        let faults = shape::faults(schemars::schema_for!(T).as_value(), &self.body);
        if !faults.is_empty() {
            return Err(Error::invalid(ErrorCode::RequestInvalid, faults).into());
        }
        let read = T::deserialize(&self.body);
        read.map_err(|why| Error::invalid(ErrorCode::RequestInvalid, vec![FieldError::new("", why)]).into())
    }
}

/// The idempotency key of the request.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>> {
    let mut given = headers.get_all("idempotency-key").iter();
    match (given.next(), given.next()) {
        (None, _) => Ok(None),
        (Some(one), None) => Ok(Some(IdempotencyKey::parse(one.as_bytes())?)),
        (Some(_), Some(_)) => Err(IdempotencyKey::refused("is given more than once").into()),
    }
}

/// Adds the header `Idempotent-Replayed` if the response was replayed.
pub fn replayed(response: Response, replayed: bool) -> Result {
    let name = HeaderName::from_static("idempotent-replayed");
    if replayed { with_header(response, name, "true") } else { Ok(response) }
}

/// Creates a JSON response.
pub fn answer<T: Serialize>(status: StatusCode, value: &T) -> Result {
    let body = serde_json::to_vec(value).map_err(Error::internal)?;
    let mut response = (status, body).into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
    Ok(response)
}

/// Adds a header to a response.
pub fn with_header(mut response: Response, name: HeaderName, value: &str) -> Result {
    response.headers_mut().insert(name, HeaderValue::from_str(value).map_err(Error::internal)?);
    Ok(response)
}

/// Picks the media type of the response from the header `Accept`, in the client's order of preference (RFC
/// 9110 §12.5.1).
fn negotiate(route: &Route, headers: &HeaderMap) -> Result<&'static str> {
    // A response without a body has no media type to negotiate; problems are sent regardless of `Accept`.
    let Some(default) = route.media().next() else { return Ok(JSON) };
    // The media type of a file is stored with it.
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
        let detail = format!("the header `Accept` must allow {}", known.join(" or "));
        Problem::new(ErrorCode::NotAcceptable, detail)
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
                    "this route has none".to_owned()
                } else {
                    format!("known: {}", known.join(", "))
                };
                faults.push(FieldError::new(shown, format!("is not a known query parameter; {known}")));
            }
            Some(param) => {
                if value.contains('\0') {
                    faults.push(FieldError::new(shown.clone(), "must not contain the character U+0000"));
                } else if let Err(message) = (param.check)(&value) {
                    faults.push(FieldError::new(shown.clone(), message));
                }
                if read.insert(name, value).is_some() {
                    faults.push(FieldError::new(shown, "is given more than once"));
                }
            }
        }
    }
    if faults.is_empty() { Ok(read) } else { Err(Error::invalid(ErrorCode::QueryInvalid, faults).into()) }
}

/// Decodes a query string or a form into names and values; none if it is not one.
fn form_pairs(query: &str) -> Vec<(String, String)> {
    let uri = axum::http::Uri::builder().path_and_query(format!("/?{query}")).build().unwrap_or_default();
    axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&uri).map(|pairs| pairs.0).unwrap_or_default()
}

async fn read_body(spec: &BodySpec, headers: &HeaderMap, body: Body, timeout: Duration) -> Result<Value> {
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut parts = given.split(';').map(|part| part.trim().to_ascii_lowercase());
    let is_utf8 = |p: String| {
        p.strip_prefix("charset=").is_none_or(|c| ["utf-8", "utf8"].contains(&c.trim_matches('"')))
    };
    let media = parts.next().unwrap_or_default();
    let is_form = spec.form && media == FORM;
    if (media != spec.media && !is_form) || !parts.all(is_utf8) {
        let detail = format!("send the body as `Content-Type: {}`", spec.media);
        let accept = match spec.media {
            JSON => HeaderName::from_static("accept-post"),
            _ => HeaderName::from_static("accept-patch"),
        };
        let problem = Problem::new(ErrorCode::UnsupportedMediaType, detail);
        return Err(problem.with(accept, HeaderValue::from_static(spec.media)));
    }
    let bytes = tokio::time::timeout(timeout, collect(body)).await.map_err(|_| {
        let detail = format!("the body did not arrive within {timeout:?}");
        Problem::new(ErrorCode::RequestTimeout, detail)
    })??;
    if is_form {
        return read_form(&bytes);
    }
    json::parse(&bytes).map_err(|malformed| {
        let errors = vec![FieldError::new("", &malformed)];
        Problem::new(ErrorCode::MalformedJson, malformed.to_string()).with_errors(errors)
    })
}

/// A form as a JSON object of texts.
fn read_form(bytes: &[u8]) -> Result<Value> {
    let mut fields = Map::new();
    for (name, value) in form_pairs(std::str::from_utf8(bytes).unwrap_or_default()) {
        if fields.insert(name.clone(), value.into()).is_some() {
            let fault = FieldError::new(name, "is given more than once");
            return Err(Error::invalid(ErrorCode::RequestInvalid, vec![fault]).into());
        }
    }
    Ok(Value::Object(fields))
}

async fn collect(body: Body) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut length = 0;
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| {
            Problem::new(ErrorCode::BodyCutOff, "the connection closed before the body ended")
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
    let detail = format!("the body is longer than {MAX_BODY} bytes");
    Err(Problem::new(ErrorCode::BodyTooLarge, detail))
}
