//! Liveness, readiness, metrics and the OpenAPI document. These routes need no authority, so they return no
//! names and no ids.

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use tenantry_model::ErrorCode;

use super::call::{Call, answer};
use super::metrics::OPEN_METRICS;
use super::problem::{Problem, Result};
use super::route::{JSON, Route, probe, public};

/// Health of the server.
#[derive(Serialize, JsonSchema)]
struct Health {
    /// `ok`.
    status: &'static str,
}

/// The routes of this resource.
pub fn routes() -> Vec<Route> {
    vec![
        Route::new(Method::GET, "/livez", "get_liveness", "Check that the process is alive", probe(live))
            .gives::<Health>(StatusCode::OK, "The process is alive."),
        Route::new(Method::GET, "/readyz", "get_readiness", "Check that the server can serve", probe(ready))
            .gives::<Health>(
            StatusCode::OK,
            "The server is ready. 503 if the registry is unavailable or the process is shutting down.",
        ),
        Route::new(Method::GET, "/metrics", "get_metrics", "Get metrics for Prometheus", probe(metrics))
            .gives_as::<String>(StatusCode::OK, Some(OPEN_METRICS), "OpenMetrics text.")
            .gives_as::<String>(StatusCode::OK, Some("text/plain"), ""),
        Route::new(Method::GET, "/openapi.json", "get_openapi", "Get this document", public(describe))
            .gives::<Value>(StatusCode::OK, "OpenAPI 3.1."),
    ]
}

async fn live(_: Call) -> Result {
    answer(StatusCode::OK, &Health { status: "ok" })
}

async fn ready(call: Call) -> Result {
    if call.app.draining.is_cancelled() {
        return Err(Problem::new(ErrorCode::Draining, "the server is shutting down"));
    }
    call.control().ready().await?;
    answer(StatusCode::OK, &Health { status: "ok" })
}

async fn metrics(call: Call) -> Result {
    let text = call.app.metrics.read(call.control(), &call.app.shares).await?;
    Ok(typed(text.into_response(), "application/openmetrics-text; version=1.0.0; charset=utf-8"))
}

async fn describe(call: Call) -> Result {
    Ok(typed(call.app.description.clone().into_response(), JSON))
}

fn typed(mut response: Response, media: &'static str) -> Response {
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
    response
}
