//! `/v1/isolation-checks`: whether tenants are kept apart, tried and read, signed and kept.

use axum::http::{Method, StatusCode};
use tenantry_control::access::{Caller, Permission};
use tenantry_control::isolation::{CheckIsolation, IsolationReportView};
use tenantry_control::view::Page;

use super::call::{Call, answer, replayed};
use super::problem::Result;
use super::route::{CURSOR, IDEMPOTENCY_KEY, JSON, LIMIT, REPLAYED, Route, key};

/// The lines of the table.
pub fn routes() -> Vec<Route> {
    vec![
        Route::new(
            Method::POST,
            "/v1/isolation-checks",
            "check_isolation",
            "Try to get from one tenant to another, and report what came of it",
            key(Permission::CheckIsolation, check),
        )
        .about(
            "Answers when the check is over. A leak is no failure of the request: it stands in the report.",
        )
        .header(&[IDEMPOTENCY_KEY])
        .reads::<CheckIsolation>(JSON)
        .gives::<IsolationReportView>(StatusCode::CREATED, "The report.")
        .having(&[REPLAYED])
        .fails(&[404, 409, 410]),
        Route::new(
            Method::GET,
            "/v1/isolation-checks",
            "list_isolation_checks",
            "List reports of isolation checks, newest first",
            key(Permission::ReadIsolation, list),
        )
        .query(&[LIMIT, CURSOR])
        .gives::<Page<IsolationReportView>>(StatusCode::OK, "A page of the 100 that are kept."),
    ]
}

async fn check(call: Call, caller: Caller) -> Result {
    let (key, what) = (call.idempotency_key.clone(), call.read::<CheckIsolation>()?);
    let checked = call.control().check_isolation(&caller, &what, key).await?;
    replayed(answer(StatusCode::CREATED, &checked.value)?, checked.replayed)
}

async fn list(call: Call, caller: Caller) -> Result {
    answer(StatusCode::OK, &call.control().isolation_reports(&caller, &call.page()?).await?)
}
