//! `/v1/tenants/{id}/status` and `/v1/drift`: how tenants really stand, asked of their providers.

use axum::http::{Method, StatusCode};
use tenantry_control::access::{Caller, Permission};
use tenantry_control::drift::DriftView;
use tenantry_control::status::StatusView;

use super::call::{Call, answer};
use super::problem::Result;
use super::route::{CURSOR, LIMIT, Route, key};

/// The lines of the table.
pub fn routes() -> Vec<Route> {
    vec![
        Route::new(
            Method::GET,
            "/v1/tenants/{id}/status",
            "get_tenant_status",
            "Ask the providers how a tenant really stands",
            key(Permission::ReadTenants, status),
        )
        .about(
            "Nothing of it is read from what is recorded. What does not answer within 5 seconds is not responding; the \
             others answer all the same.",
        )
        .gives::<StatusView>(StatusCode::OK, "What is there, and how it differs from what was made.")
        .fails(&[404]),
        Route::new(
            Method::GET,
            "/v1/drift",
            "list_drift",
            "List tenants that are not as they were made, newest first",
            key(Permission::ReadTenants, drift),
        )
        .about(
            "Asks for every active or suspended tenant of the page, many at the same time, and answers with those that \
             differ. Go on until there is no other page: one without entries is not the last.",
        )
        .query(&[LIMIT, CURSOR])
        .gives::<DriftView>(StatusCode::OK, "What differs among the tenants of the page."),
    ]
}

async fn status(call: Call, caller: Caller) -> Result {
    answer(StatusCode::OK, &call.control().tenant_status(&caller, call.segment("id")).await?)
}

async fn drift(call: Call, caller: Caller) -> Result {
    answer(StatusCode::OK, &call.control().drift(&caller, &call.page()?).await?)
}
