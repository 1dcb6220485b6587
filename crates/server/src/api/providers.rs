//! `/v1/providers`: who makes what tenants have, and whether they can.

use axum::http::{Method, StatusCode};
use tenantry_control::access::{Caller, Permission};
use tenantry_control::doctor::ProviderStatus;
use tenantry_control::view::Page;

use super::call::{Call, answer};
use super::problem::Result;
use super::route::{Route, key};

/// The lines of the table.
pub fn routes() -> Vec<Route> {
    vec![
        Route::new(
            Method::GET,
            "/v1/providers",
            "list_providers",
            "Ask every provider whether it can be reached and do its work",
            key(Permission::ProbeProviders, list),
        )
        .about("Asked at that moment, of the process that answers. One that cannot is no failure of the request.")
        .gives::<Page<ProviderStatus>>(StatusCode::OK, "All of them, by name."),
    ]
}

async fn list(call: Call, caller: Caller) -> Result {
    answer(StatusCode::OK, &call.control().doctor(&caller).await?)
}
