//! `/v1/plans`: the plans on offer.

use axum::http::{Method, StatusCode};
use tenantry_control::access::{Caller, Permission};
use tenantry_control::error::Error;
use tenantry_control::view::Page;
use tenantry_model::Plan;

use super::call::{Call, answer};
use super::problem::Result;
use super::route::{Route, key};

/// The routes of this resource.
pub fn routes() -> Vec<Route> {
    let needs = Permission::ReadCatalogue;
    vec![
        Route::new(Method::GET, "/v1/plans", "list_plans", "List plans", key(needs, list))
            .gives::<Page<Plan>>(StatusCode::OK, "All plans."),
        Route::new(
            Method::GET,
            "/v1/plans/{name}",
            "get_plan",
            "Get a plan by name or alias",
            key(needs, get),
        )
        .gives::<Plan>(StatusCode::OK, "The plan.")
        .fails(&[404]),
    ]
}

async fn list(call: Call, _: Caller) -> Result {
    let data: Vec<&Plan> = call.control().plans().plans.iter().collect();
    answer(StatusCode::OK, &Page { data, has_more: false, next_cursor: None })
}

async fn get(call: Call, _: Caller) -> Result {
    let plan = call.control().plans().find(call.segment("name")).ok_or_else(|| Error::not_found("plan"))?;
    answer(StatusCode::OK, plan)
}
