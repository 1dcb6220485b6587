//! `/v1/providers`: the health of the server's providers.

use axum::http::{Method, StatusCode};
use tenantry_control::access::{Caller, Permission};
use tenantry_control::doctor::ProviderStatus;
use tenantry_control::view::Page;

use super::call::{Call, answer};
use super::problem::Result;
use super::route::{Route, key};

/// The routes of this resource.
pub fn routes() -> Vec<Route> {
    vec![
        Route::new(
            Method::GET,
            "/v1/providers",
            "list_providers",
            "Check the health of every provider",
            key(Permission::ProbeProviders, list),
        )
        .about(
            "Probes the providers from the process that responds. An unhealthy provider is not an error of \
             the request.",
        )
        .gives::<Page<ProviderStatus>>(StatusCode::OK, "All providers by name."),
    ]
}

async fn list(call: Call, caller: Caller) -> Result {
    answer(StatusCode::OK, &call.control().doctor(&caller).await?)
}
