//! The types of the route table. Each entry serves three purposes: routing, the OpenAPI document, and the
//! check of authority before the handler runs.

use std::sync::Arc;

use axum::http::{Method, StatusCode};
use axum::response::Response;
use futures::future::BoxFuture;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Value, json};
use tenantry_control::TenantSession;
use tenantry_control::access::{Caller, Permission};

use super::call::Call;
use super::problem::Result;

/// JSON.
pub const JSON: &str = "application/json";
/// A form, as OAuth clients send it.
pub const FORM: &str = "application/x-www-form-urlencoded";
/// JSON merge patch (RFC 7396).
pub const MERGE_PATCH: &str = "application/merge-patch+json";
/// Arbitrary bytes.
pub const OCTETS: &str = "application/octet-stream";
/// A request body of any media type, which the handler reads as a stream.
pub const ANY: &str = "*/*";
/// Server-sent events.
pub const EVENT_STREAM: &str = "text/event-stream";

type Handler<A> = Arc<dyn Fn(Call, A) -> BoxFuture<'static, Result<Response>> + Send + Sync>;
type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// The authority that a route requires, and its handler. The handler's second argument is the proof of that
/// authority, so no handler runs without it.
#[derive(Clone)]
pub enum Access {
    /// No authority required, and answered also while clients have all connections.
    Probe(Handler<()>),
    /// No authority required.
    Public(Handler<()>),
    /// Requires an API key with this permission.
    Key(Permission, Handler<Caller>),
    /// Requires a tenant token.
    Token(Handler<TenantSession>),
}

/// A query parameter or a header.
#[derive(Clone, Copy)]
pub struct Param {
    /// Name.
    pub name: &'static str,
    /// Description in the OpenAPI document.
    pub about: &'static str,
    /// JSON Schema of the value.
    pub schema: fn() -> Value,
    /// Validates a query parameter's value; the error is a message such as "must be true or false".
    pub check: fn(&str) -> std::result::Result<(), String>,
    /// Whether the request must have it.
    pub required: bool,
}

/// A successful response.
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// Description in the OpenAPI document.
    pub about: &'static str,
    /// Media type; `None` for a response without a body.
    pub media: Option<&'static str>,
    /// Schema of the body.
    pub schema: SchemaOf,
    /// Headers as name and description.
    pub headers: &'static [(&'static str, &'static str)],
}

/// A request body.
pub struct BodySpec {
    /// The accepted media type.
    pub media: &'static str,
    /// Schema of the body.
    pub schema: SchemaOf,
    /// Whether a form is accepted as well; its fields are those of the JSON object.
    pub form: bool,
}

/// One entry of the route table.
pub struct Route {
    /// HTTP method.
    pub method: Method,
    /// Path, with `{name}` for parameters.
    pub path: &'static str,
    /// Operation id in the OpenAPI document.
    pub id: &'static str,
    /// Summary in the OpenAPI document.
    pub summary: &'static str,
    /// Description in the OpenAPI document.
    pub about: Option<&'static str>,
    /// Required authority and handler.
    pub access: Access,
    /// Query parameters; any other is rejected.
    pub query: Vec<Param>,
    /// Headers with an effect on this route.
    pub headers: Vec<Param>,
    /// Request body.
    pub body: Option<BodySpec>,
    /// Successful responses; the first media type is the default.
    pub answers: Vec<Answer>,
    /// Statuses of problems in addition to those implied by access, body and method.
    pub problems: Vec<u16>,
}

/// Wraps a handler of a probe.
pub fn probe<F>(handler: impl Fn(Call) -> F + Send + Sync + 'static) -> Access
where
    F: Future<Output = Result<Response>> + Send + 'static,
{
    Access::Probe(Arc::new(move |call, ()| Box::pin(handler(call))))
}

/// Wraps a handler that requires no authority.
pub fn public<F>(handler: impl Fn(Call) -> F + Send + Sync + 'static) -> Access
where
    F: Future<Output = Result<Response>> + Send + 'static,
{
    Access::Public(Arc::new(move |call, ()| Box::pin(handler(call))))
}

/// Wraps a handler that requires an API key with this permission.
pub fn key<F>(permission: Permission, handler: impl Fn(Call, Caller) -> F + Send + Sync + 'static) -> Access
where
    F: Future<Output = Result<Response>> + Send + 'static,
{
    Access::Key(permission, Arc::new(move |call, caller| Box::pin(handler(call, caller))))
}

/// Wraps a handler that requires a tenant token.
pub fn token<F>(handler: impl Fn(Call, TenantSession) -> F + Send + Sync + 'static) -> Access
where
    F: Future<Output = Result<Response>> + Send + 'static,
{
    Access::Token(Arc::new(move |call, session| Box::pin(handler(call, session))))
}

impl Route {
    /// Creates a route without parameters, body and responses.
    pub fn new(
        method: Method,
        path: &'static str,
        id: &'static str,
        summary: &'static str,
        access: Access,
    ) -> Self {
        let (query, headers, answers, problems) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { method, path, id, summary, about: None, access, query, headers, body: None, answers, problems }
    }
    /// Sets the description.
    pub fn about(self, about: &'static str) -> Self {
        Self { about: Some(about), ..self }
    }
    /// Sets the request body's media type and schema.
    pub fn reads<T: JsonSchema>(mut self, media: &'static str) -> Self {
        let schema: SchemaOf = |generator| generator.subschema_for::<T>();
        self.body = Some(BodySpec { media, schema, form: false });
        self
    }
    /// Sets the request body's schema, and accepts it as JSON and as a form.
    pub fn reads_form<T: JsonSchema>(mut self) -> Self {
        let schema: SchemaOf = |generator| generator.subschema_for::<T>();
        self.body = Some(BodySpec { media: JSON, schema, form: true });
        self
    }
    /// Accepts a request body of any media type, read as a stream.
    pub fn reads_bytes(mut self) -> Self {
        let schema: SchemaOf = |_| schemars::json_schema!({ "type": "string" });
        self.body = Some(BodySpec { media: ANY, schema, form: false });
        self
    }
    /// Adds query parameters.
    pub fn query(mut self, params: &[Param]) -> Self {
        self.query.extend_from_slice(params);
        self
    }
    /// Adds headers.
    pub fn header(mut self, params: &[Param]) -> Self {
        self.headers.extend_from_slice(params);
        self
    }
    /// Adds a JSON response.
    pub fn gives<T: JsonSchema>(self, status: StatusCode, about: &'static str) -> Self {
        self.gives_as::<T>(status, Some(JSON), about)
    }
    /// Adds a response in this media type.
    pub fn gives_as<T: JsonSchema>(
        mut self,
        status: StatusCode,
        media: Option<&'static str>,
        about: &'static str,
    ) -> Self {
        let schema: SchemaOf = |generator| generator.subschema_for::<T>();
        self.answers.push(Answer { status, about, media, schema, headers: &[] });
        self
    }
    /// Sets the headers of the response added last.
    pub fn having(mut self, headers: &'static [(&'static str, &'static str)]) -> Self {
        if let Some(answer) = self.answers.last_mut() {
            answer.headers = headers;
        }
        self
    }
    /// Adds statuses of problems.
    pub fn fails(mut self, statuses: &[u16]) -> Self {
        self.problems.extend_from_slice(statuses);
        self
    }
    /// The media types of the responses, the default first.
    pub fn media(&self) -> impl Iterator<Item = &'static str> {
        self.answers.iter().filter_map(|answer| answer.media)
    }
}

fn any(_: &str) -> std::result::Result<(), String> {
    Ok(())
}

impl Param {
    /// An optional text, which the handler validates.
    pub const fn text(name: &'static str, about: &'static str) -> Self {
        Self { name, about, schema: || json!({ "type": "string" }), check: any, required: false }
    }
    /// Makes the parameter required.
    pub const fn needed(self) -> Self {
        Self { required: true, ..self }
    }
}

/// `?limit=`
pub const LIMIT: Param = Param {
    name: "limit",
    about: "Maximum number of entries per page.",
    schema: || json!({ "type": "integer", "minimum": 1, "maximum": 100, "default": DEFAULT_LIMIT }),
    check: |text| match text.parse::<u64>() {
        Ok(1..=100) => Ok(()),
        _ => Err("must be a whole number from 1 to 100".to_owned()),
    },
    required: false,
};
/// Entries per page without `?limit=`.
pub const DEFAULT_LIMIT: u64 = 50;
/// `?cursor=`
pub const CURSOR: Param = Param::text("cursor", "`next_cursor` of the previous page.");
/// `?expires=` of a signed URL.
pub const EXPIRES: Param =
    Param::text("expires", "Expiry of the signed URL, in seconds since 1970.").needed();
/// `?signature=` of a signed URL.
pub const SIGNATURE: Param = Param::text("signature", "Signature of the signed URL.").needed();
/// `Idempotency-Key:`
pub const IDEMPOTENCY_KEY: Param = Param::text(
    "Idempotency-Key",
    "A key that the client chooses for this request, at most 255 printable ASCII characters. Repeating a \
     request with its key returns the same response without a second effect; a different request with the \
     same key is rejected.",
);
/// Response header of a replayed request.
pub const REPLAYED: (&str, &str) =
    ("Idempotent-Replayed", "`true` if the response is that of an earlier request with the same key.");
/// `Last-Event-ID:`
pub const LAST_EVENT_ID: Param =
    Param::text("Last-Event-ID", "Resumes a stream after the message with this id.");
