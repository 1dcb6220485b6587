//! The HTTP API: one table of routes, from which come the router, the OpenAPI document and the check of authority.
//! One file per resource; a handler parses, calls one use case and maps its answer.

mod auth;
mod call;
mod certificates;
mod data;
mod events;
mod exports;
mod health;
mod isolation;
mod json;
mod keys;
mod metrics;
mod objects;
mod observe;
mod openapi;
mod operations;
mod plans;
mod problem;
mod providers;
mod route;
mod stats;
mod status;
mod stream;
mod system;
mod templates;
mod tenants;
mod upload;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::header::ALLOW;
use axum::http::{HeaderValue, Method, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter};
use tenantry_control::Control;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;

use self::problem::Problem;
use self::route::Route;

pub use self::json::parse as parse_json;
pub use self::metrics::Metrics;

/// What every call may use.
pub struct App {
    /// The use cases.
    pub control: Control,
    /// Cancelled when the process is asked to end: `/readyz` fails and streams end.
    pub draining: CancellationToken,
    metrics: Arc<Metrics>,
    description: Bytes,
}

impl App {
    /// Over these use cases, with these metrics.
    pub fn new(control: Control, metrics: Arc<Metrics>, draining: CancellationToken) -> Arc<Self> {
        let description = Bytes::from(openapi::document(&table()).to_string());
        Arc::new(Self { control, draining, metrics, description })
    }
}

/// Every route.
pub fn table() -> Vec<Route> {
    [
        tenants::routes(),
        exports::routes(),
        certificates::routes(),
        operations::routes(),
        status::routes(),
        stats::routes(),
        isolation::routes(),
        providers::routes(),
        system::routes(),
        plans::routes(),
        templates::routes(),
        events::routes(),
        keys::routes(),
        auth::routes(),
        data::routes(),
        objects::routes(),
        health::routes(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The whole API as one service.
pub fn router(app: Arc<App>) -> Router {
    let mut paths: BTreeMap<&'static str, Vec<Arc<Route>>> = BTreeMap::new();
    for route in table() {
        paths.entry(route.path).or_default().push(Arc::new(route));
    }
    let mut router = Router::new();
    for (path, routes) in paths {
        router = router.route(path, methods(&app, &routes));
    }
    router
        .fallback(async || {
            Problem::new(StatusCode::NOT_FOUND, "no_such_path", "there is nothing at this path")
        })
        .layer(CatchPanicLayer::custom(panicked))
        .layer(axum::middleware::from_fn_with_state(app, observe::observe))
}

fn methods(app: &Arc<App>, routes: &[Arc<Route>]) -> MethodRouter {
    let mut allowed: Vec<&str> = routes.iter().map(|route| route.method.as_str()).collect();
    if allowed.contains(&"GET") {
        allowed.push("HEAD");
    }
    let allowed = HeaderValue::from_str(&allowed.join(", ")).unwrap_or(HeaderValue::from_static("GET"));
    let refused = move || {
        let detail = format!("this path has no such method; it has {}", allowed.to_str().unwrap_or_default());
        let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail);
        std::future::ready(problem.with(ALLOW, allowed.clone()))
    };
    routes.iter().fold(MethodRouter::new().fallback(refused), |methods, route| {
        let (app, route) = (app.clone(), route.clone());
        let filter = match route.method {
            Method::POST => MethodFilter::POST,
            Method::PUT => MethodFilter::PUT,
            Method::PATCH => MethodFilter::PATCH,
            Method::DELETE => MethodFilter::DELETE,
            _ => MethodFilter::GET,
        };
        methods.on(filter, move |request: Request<Body>| call::serve(app.clone(), route.clone(), request))
    })
}

/// The panic's own words may quote data, so only the fact is answered; the panic hook has logged the place.
fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    Problem::from(tenantry_control::error::Error::internal("a handler panicked")).into_response()
}
