//! `/v1/stats`: what onboarding has been like.

use axum::http::{Method, StatusCode};
use serde_json::json;
use tenantry_control::access::{Caller, Permission};
use tenantry_control::stats::{Since, StatsView};

use super::call::{Call, answer};
use super::problem::Result;
use super::route::{Param, Route, key};

const SINCE: Param = Param {
    name: "since",
    about: "Only onboardings that began after this instant (RFC 3339), or so far back, such as `30d`.",
    schema: || json!({ "type": "string", "default": "7d" }),
    check: |text| text.parse::<Since>().map(|_| ()),
    required: false,
};

/// The lines of the table.
pub fn routes() -> Vec<Route> {
    vec![
        Route::new(
            Method::GET,
            "/v1/stats",
            "get_stats",
            "Read how onboarding goes: times, failures, bottlenecks, room",
            key(Permission::ReadStats, stats),
        )
        .about(
            "Figures over all tenants, from the newest 1,000 onboardings that have ended or need a person.",
        )
        .query(&[SINCE])
        .gives::<StatsView>(StatusCode::OK, "The figures."),
    ]
}

async fn stats(call: Call, caller: Caller) -> Result {
    let since = call.param("since").and_then(|text| text.parse().ok()).unwrap_or_default();
    answer(StatusCode::OK, &call.control().stats(&caller, since).await?)
}
