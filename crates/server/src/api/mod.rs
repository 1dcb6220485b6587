//! The HTTP API. One table of routes defines the router, the OpenAPI document and the required authority of
//! each route. One file per resource; a handler reads its parameters, calls the control plane once and writes
//! the response.

mod admitted;
mod auth;
mod call;
mod certificates;
mod data;
mod events;
mod exports;
mod health;
mod held;
mod isolation;
mod json;
mod keys;
mod limited;
mod members;
mod metrics;
mod objects;
mod observe;
mod openapi;
mod operations;
mod plans;
mod problem;
mod providers;
mod route;
mod sessions;
mod shares;
mod stats;
mod status;
mod stream;
mod system;
mod templates;
mod tenants;
mod upload;

use std::collections::BTreeMap;
use std::sync::Arc;
use tenantry_model::ErrorCode;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::header::ALLOW;
use axum::http::{HeaderValue, Method, Request};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter};
use tenantry_control::Control;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;

use self::problem::Problem;
use self::route::Route;
use self::shares::Shares;
use crate::config::{Limits, Timeouts};

pub use self::call::{Client, OperatorsOnly};
pub use self::json::parse as parse_json;
pub use self::limited::refusal;
pub use self::metrics::Metrics;
pub use self::shares::Kind;

/// State shared by all calls.
pub struct App {
    /// The control plane.
    pub control: Control,
    /// Cancelled when shutdown starts: `/readyz` then fails and streams end.
    pub draining: CancellationToken,
    metrics: Arc<Metrics>,
    shares: Shares,
    timeouts: Timeouts,
    description: Bytes,
}

impl App {
    /// Creates the state and renders the OpenAPI document.
    pub fn new(
        control: Control,
        metrics: Arc<Metrics>,
        limits: &Limits,
        draining: CancellationToken,
    ) -> Arc<Self> {
        let description = Bytes::from(openapi::document(&table()).to_string());
        let shares = Shares::new(limits.clone(), metrics.clone());
        Arc::new(Self { control, draining, metrics, shares, timeouts: limits.timeouts.clone(), description })
    }
}

/// Every route.
pub fn table() -> Vec<Route> {
    [
        tenants::routes(),
        members::routes(),
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
        sessions::routes(),
        data::routes(),
        objects::routes(),
        health::routes(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Builds the router with its outer layers: panics become problems, requests are logged and measured.
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
        .fallback(async || Problem::new(ErrorCode::NoSuchPath, "no such path"))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(axum::middleware::from_fn_with_state(app, observe::observe))
}

fn methods(app: &Arc<App>, routes: &[Arc<Route>]) -> MethodRouter {
    let mut allowed: Vec<&str> = routes.iter().map(|route| route.method.as_str()).collect();
    if allowed.contains(&"GET") {
        allowed.push("HEAD");
    }
    let allowed = HeaderValue::from_str(&allowed.join(", ")).unwrap_or(HeaderValue::from_static("GET"));
    let not_allowed = move || {
        let detail = format!("method not allowed; use {}", allowed.to_str().unwrap_or_default());
        let problem = Problem::new(ErrorCode::MethodNotAllowed, detail);
        std::future::ready(problem.with(ALLOW, allowed.clone()))
    };
    routes.iter().fold(MethodRouter::new().fallback(not_allowed), |methods, route| {
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

/// Leaves out the panic's message, which may quote tenant data; the panic hook has logged its location.
fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    Problem::from(tenantry_control::error::Error::internal("a handler panicked")).into_response()
}
