//! `/v1/events`: events in order, by page or as a stream.

use axum::http::{Method, StatusCode};
use axum::response::IntoResponse;
use serde_json::json;
use tenantry_control::access::{Caller, Permission};
use tenantry_control::view::{EventView, Page};

use super::call::{Call, answer};
use super::problem::Result;
use super::route::{DEFAULT_LIMIT, EVENT_STREAM, LAST_EVENT_ID, LIMIT, Param, Route, key};
use super::shares::Kind;
use super::stream;

const AFTER: Param = Param {
    name: "cursor",
    about: "Only events after this sequence number: `next_cursor` of the previous page, or 0.",
    schema: || json!({ "type": "integer", "minimum": 0, "default": 0 }),
    check: |text| match text.parse::<i64>() {
        Ok(0..) => Ok(()),
        _ => Err("must be a whole number of at least 0".to_owned()),
    },
    required: false,
};

/// The routes of this resource.
pub fn routes() -> Vec<Route> {
    let list = key(Permission::ReadEvents, list);
    vec![
        Route::new(
            Method::GET,
            "/v1/events",
            "list_events",
            "List events, oldest first, or follow them as a stream",
            list,
        )
        .query(&[LIMIT, AFTER])
        .header(&[LAST_EVENT_ID])
        .gives::<Page<EventView>>(
            StatusCode::OK,
            "Page of events; as a stream, every further event, with its `seq` as message id.",
        )
        .gives_as::<EventView>(StatusCode::OK, Some(EVENT_STREAM), ""),
    ]
}

async fn list(call: Call, caller: Caller) -> Result {
    let after = call.param("cursor").and_then(|text| text.parse().ok()).unwrap_or(0);
    if call.media == EVENT_STREAM {
        call.becomes(Kind::Streams)?;
        let after = call.last_event_id()?.unwrap_or(after);
        return Ok(stream::events(call.app.clone(), caller, after).into_response());
    }
    let limit = call.param("limit").and_then(|text| text.parse().ok()).unwrap_or(DEFAULT_LIMIT);
    let mut data = call.control().events(&caller, after, limit + 1).await?;
    let has_more = data.len() as u64 > limit;
    data.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let next_cursor = data.last().filter(|_| has_more).map(|event| event.seq.to_string());
    answer(StatusCode::OK, &Page { data, has_more, next_cursor })
}
