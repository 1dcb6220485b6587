//! The shape of the route table: what is said of a route once, and used three times: to route, to describe (OpenAPI)
//! and to check that nobody passes without authority.

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

/// Media types.
pub const JSON: &str = "application/json";
/// RFC 7396.
pub const MERGE_PATCH: &str = "application/merge-patch+json";
/// Bytes of whatever sort.
pub const OCTETS: &str = "application/octet-stream";
/// A body of any media type, which is not read but handed on as it comes.
pub const ANY: &str = "*/*";
/// Server-sent events.
pub const EVENT_STREAM: &str = "text/event-stream";

type Handler<A> = Arc<dyn Fn(Call, A) -> BoxFuture<'static, Result<Response>> + Send + Sync>;
type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// Who may use a route, and what serves them. A handler gets the proof of authority as its second argument, so none
/// can be reached without.
#[derive(Clone)]
pub enum Access {
    /// Everybody.
    Public(Handler<()>),
    /// Holders of an API key with this permission.
    Key(Permission, Handler<Caller>),
    /// Holders of a tenant's token.
    Token(Handler<TenantSession>),
}

/// A query parameter or a header.
#[derive(Clone, Copy)]
pub struct Param {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub about: &'static str,
    /// JSON Schema of its value.
    pub schema: fn() -> Value,
    /// Whether a value is acceptable; the fault in words. For query parameters.
    pub check: fn(&str) -> std::result::Result<(), String>,
    /// Whether it must be given.
    pub required: bool,
}

/// A success.
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// When it is given.
    pub about: &'static str,
    /// Its media type; none without a body.
    pub media: Option<&'static str>,
    /// Its body.
    pub schema: SchemaOf,
    /// Headers that it has.
    pub headers: &'static [(&'static str, &'static str)],
}

/// A request's body.
pub struct BodySpec {
    /// The one media type that is read.
    pub media: &'static str,
    /// Its shape.
    pub schema: SchemaOf,
}

/// One line of the table.
pub struct Route {
    /// The method.
    pub method: Method,
    /// The path, with `{name}` for what varies.
    pub path: &'static str,
    /// The name of the operation in the description.
    pub id: &'static str,
    /// One line of what it does.
    pub summary: &'static str,
    /// What else a client must know.
    pub about: Option<&'static str>,
    /// Who may, and what serves them.
    pub access: Access,
    /// Query parameters; all others are refused.
    pub query: Vec<Param>,
    /// Headers that change what it does.
    pub headers: Vec<Param>,
    /// What it reads.
    pub body: Option<BodySpec>,
    /// Its successes; the first media type is the default.
    pub answers: Vec<Answer>,
    /// Statuses of its problems, besides those that its access, body and kind imply.
    pub problems: Vec<u16>,
}

/// A handler that everybody may call.
pub fn public<F>(handler: impl Fn(Call) -> F + Send + Sync + 'static) -> Access
where
    F: Future<Output = Result<Response>> + Send + 'static,
{
    Access::Public(Arc::new(move |call, ()| Box::pin(handler(call))))
}

/// A handler for API keys with a permission.
pub fn key<F>(permission: Permission, handler: impl Fn(Call, Caller) -> F + Send + Sync + 'static) -> Access
where
    F: Future<Output = Result<Response>> + Send + 'static,
{
    Access::Key(permission, Arc::new(move |call, caller| Box::pin(handler(call, caller))))
}

/// A handler for tenants' tokens.
pub fn token<F>(handler: impl Fn(Call, TenantSession) -> F + Send + Sync + 'static) -> Access
where
    F: Future<Output = Result<Response>> + Send + 'static,
{
    Access::Token(Arc::new(move |call, session| Box::pin(handler(call, session))))
}

impl Route {
    /// A route with nothing but a handler.
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
    /// Says more than its summary.
    pub fn about(self, about: &'static str) -> Self {
        Self { about: Some(about), ..self }
    }
    /// Reads this.
    pub fn reads<T: JsonSchema>(mut self, media: &'static str) -> Self {
        self.body = Some(BodySpec { media, schema: |generator| generator.subschema_for::<T>() });
        self
    }
    /// Reads bytes, of whatever media type, as they come.
    pub fn reads_bytes(mut self) -> Self {
        self.body = Some(BodySpec { media: ANY, schema: |_| schemars::json_schema!({ "type": "string" }) });
        self
    }
    /// Takes these query parameters.
    pub fn query(mut self, params: &[Param]) -> Self {
        self.query.extend_from_slice(params);
        self
    }
    /// Honours these headers.
    pub fn header(mut self, params: &[Param]) -> Self {
        self.headers.extend_from_slice(params);
        self
    }
    /// Answers JSON with this status.
    pub fn gives<T: JsonSchema>(self, status: StatusCode, about: &'static str) -> Self {
        self.gives_as::<T>(status, Some(JSON), about)
    }
    /// Answers in this media type.
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
    /// The last answer has these headers.
    pub fn having(mut self, headers: &'static [(&'static str, &'static str)]) -> Self {
        if let Some(answer) = self.answers.last_mut() {
            answer.headers = headers;
        }
        self
    }
    /// May fail with these statuses.
    pub fn fails(mut self, statuses: &[u16]) -> Self {
        self.problems.extend_from_slice(statuses);
        self
    }
    /// The media types of its answers, the default first.
    pub fn media(&self) -> impl Iterator<Item = &'static str> {
        self.answers.iter().filter_map(|answer| answer.media)
    }
}

fn any(_: &str) -> std::result::Result<(), String> {
    Ok(())
}

impl Param {
    /// A text that the handler judges.
    pub const fn text(name: &'static str, about: &'static str) -> Self {
        Self { name, about, schema: || json!({ "type": "string" }), check: any, required: false }
    }
    /// The same, but needed.
    pub const fn needed(self) -> Self {
        Self { required: true, ..self }
    }
}

/// `?limit=`
pub const LIMIT: Param = Param {
    name: "limit",
    about: "Most entries in one page.",
    schema: || json!({ "type": "integer", "minimum": 1, "maximum": 100, "default": DEFAULT_LIMIT }),
    check: |text| match text.parse::<u64>() {
        Ok(1..=100) => Ok(()),
        _ => Err("must be a whole number from 1 to 100".to_owned()),
    },
    required: false,
};
/// Entries of a page whose length nobody asked for.
pub const DEFAULT_LIMIT: u64 = 50;
/// `?cursor=`
pub const CURSOR: Param = Param::text("cursor", "`next_cursor` of the page before.");
/// `?expires=` of a signed address.
pub const EXPIRES: Param =
    Param::text("expires", "Seconds since 1970 until which the address is good.").needed();
/// `?signature=` of a signed address.
pub const SIGNATURE: Param = Param::text("signature", "The signature of what the address opens.").needed();
/// `Idempotency-Key:`
pub const IDEMPOTENCY_KEY: Param = Param::text(
    "Idempotency-Key",
    "A name of your own for this request, at most 255 printable ASCII characters. The same key with the same request \
     has the same answer and no second effect; with another one it is refused.",
);
/// What an answer says that was made for the same key before.
pub const REPLAYED: (&str, &str) = ("Idempotent-Replayed", "`true` when the same key had it done before.");
/// `Last-Event-ID:`
pub const LAST_EVENT_ID: Param =
    Param::text("Last-Event-ID", "Streams: go on after the message with this id.");
