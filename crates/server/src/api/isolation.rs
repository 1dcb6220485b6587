//! `/v1/isolation-checks`: runs isolation checks and lists their signed reports.

use axum::http::{Method, StatusCode};
use tenantry_control::access::{Caller, Permission};
use tenantry_control::isolation::{CheckIsolation, IsolationReportView};
use tenantry_control::view::Page;

use super::call::{Call, answer, replayed};
use super::problem::Result;
use super::route::{CURSOR, IDEMPOTENCY_KEY, JSON, LIMIT, REPLAYED, Route, key};

/// The routes of this resource.
pub fn routes() -> Vec<Route> {
    vec![
        Route::new(
            Method::POST,
            "/v1/isolation-checks",
            "check_isolation",
            "Check the isolation between tenants",
            key(Permission::CheckIsolation, check),
        )
        .about(
            "Responds when the check is finished. A leak is part of the report, not an error of the request.",
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
        .gives::<Page<IsolationReportView>>(StatusCode::OK, "Page of reports; the newest 100 are kept."),
    ]
}

async fn check(call: Call, caller: Caller) -> Result {
    let (key, request) = (call.idempotency_key.clone(), call.read::<CheckIsolation>()?);
    let checked = call.control().check_isolation(&caller, &request, key).await?;
    replayed(answer(StatusCode::CREATED, &checked.value)?, checked.replayed)
}

async fn list(call: Call, caller: Caller) -> Result {
    answer(StatusCode::OK, &call.control().isolation_reports(&caller, &call.page()?).await?)
}
