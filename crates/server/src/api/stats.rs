//! `/v1/stats`: statistics of onboarding.

use axum::http::{Method, StatusCode};
use serde_json::json;
use tenantry_control::access::{Caller, Permission};
use tenantry_control::stats::{Since, StatsView};

use super::call::{Call, answer};
use super::problem::Result;
use super::route::{Param, Route, key};

const SINCE: Param = Param {
    name: "since",
    about: "Onboardings that started after this time (RFC 3339), or within this period, such as `30d`.",
    schema: || json!({ "type": "string", "default": "7d" }),
    check: |text| text.parse::<Since>().map(|_| ()),
    required: false,
};

/// The routes of this resource.
pub fn routes() -> Vec<Route> {
    vec![
        Route::new(
            Method::GET,
            "/v1/stats",
            "get_stats",
            "Get statistics of onboarding: durations, failures, bottlenecks, capacity",
            key(Permission::ReadStats, stats),
        )
        .about("Covers all tenants: the newest 1,000 onboardings that have ended or need attention.")
        .query(&[SINCE])
        .gives::<StatsView>(StatusCode::OK, "Statistics."),
    ]
}

async fn stats(call: Call, caller: Caller) -> Result {
    let since = call.param("since").and_then(|text| text.parse().ok()).unwrap_or_default();
    answer(StatusCode::OK, &call.control().stats(&caller, since).await?)
}
