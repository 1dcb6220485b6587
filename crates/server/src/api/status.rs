//! `/v1/tenants/{id}/status` and `/v1/drift`: compare tenants' resources with their templates.

use axum::http::{Method, StatusCode};
use tenantry_control::access::{Caller, Permission};
use tenantry_control::drift::DriftView;
use tenantry_control::status::StatusView;

use super::call::{Call, answer};
use super::problem::Result;
use super::route::{CURSOR, LIMIT, Route, key};

/// The routes of this resource.
pub fn routes() -> Vec<Route> {
    vec![
        Route::new(
            Method::GET,
            "/v1/tenants/{id}/status",
            "get_tenant_status",
            "Compare a tenant's resources with the plan of its onboarding",
            key(Permission::ReadTenants, status),
        )
        .about(
            "Observes every resource through its provider. A resource that does not respond within 5 seconds \
             is reported as not responding, without delaying the others.",
        )
        .gives::<StatusView>(StatusCode::OK, "Resources and their differences.")
        .fails(&[404]),
        Route::new(
            Method::GET,
            "/v1/drift",
            "list_drift",
            "List tenants that differ from the plan of their onboarding, newest first",
            key(Permission::ReadTenants, drift),
        )
        .about(
            "Observes the resources of every active or suspended tenant of the page and returns the tenants \
             that differ. A page without entries is not the last one; continue while there is a \
             `next_cursor`.",
        )
        .query(&[LIMIT, CURSOR])
        .gives::<DriftView>(StatusCode::OK, "Tenants of the page that differ."),
    ]
}

async fn status(call: Call, caller: Caller) -> Result {
    answer(StatusCode::OK, &call.control().tenant_status(&caller, call.segment("id")).await?)
}

async fn drift(call: Call, caller: Caller) -> Result {
    answer(StatusCode::OK, &call.control().drift(&caller, &call.page()?).await?)
}
