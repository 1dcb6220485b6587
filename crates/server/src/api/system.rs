//! `/v1/system`: the state of the process that answers.

use axum::http::{Method, StatusCode};
use tenantry_control::access::{Caller, Permission};
use tenantry_control::background::SystemView;

use super::call::{Call, answer};
use super::problem::Result;
use super::route::{Route, key};

/// The lines of the table.
pub fn routes() -> Vec<Route> {
    vec![
        Route::new(
            Method::GET,
            "/v1/system",
            "get_system",
            "Read the state of the process and of its background tasks",
            key(Permission::ReadSystem, system),
        )
        .about("Covers only the process that responds; a standby runs no background tasks.")
        .gives::<SystemView>(
            StatusCode::OK,
            "Whether it is the leader, and each background task with its last run.",
        ),
    ]
}

async fn system(call: Call, caller: Caller) -> Result {
    answer(StatusCode::OK, &call.control().system(&caller)?)
}
