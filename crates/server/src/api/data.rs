//! `/data`: a tenant's own rows. The tenant comes from the verified token only: no path, parameter, header or
//! body of this resource names one.

use axum::http::header::LOCATION;
use axum::http::{Method, StatusCode};
use axum::response::IntoResponse;
use serde_json::{Map, Value};
use tenantry_control::TenantSession;
use tenantry_control::view::Page;

use super::call::{Call, answer, with_header};
use super::problem::Result;
use super::route::{CURSOR, DEFAULT_LIMIT, JSON, LIMIT, Route, token};

/// The routes of this resource.
pub fn routes() -> Vec<Route> {
    vec![
        Route::new(Method::GET, "/data/me", "get_me", "Get the token's tenant and member", token(me))
            .gives::<Value>(StatusCode::OK, "Tenant, member and role."),
        Route::new(Method::GET, "/data/{table}", "list_rows", "List rows by id", token(list))
            .query(&[LIMIT, CURSOR])
            .gives::<Page<Value>>(StatusCode::OK, "Page of rows.")
            .fails(&[404]),
        Route::new(Method::POST, "/data/{table}", "insert_row", "Insert a row", token(insert))
            .reads::<Map<String, Value>>(JSON)
            .gives::<Value>(StatusCode::CREATED, "The stored row.")
            .having(&[("Location", "The row.")])
            .fails(&[404]),
        Route::new(Method::GET, "/data/{table}/{id}", "get_row", "Get a row", token(get))
            .gives::<Value>(StatusCode::OK, "The row.")
            .fails(&[404]),
        Route::new(Method::DELETE, "/data/{table}/{id}", "delete_row", "Delete a row", token(delete))
            .gives_as::<()>(StatusCode::NO_CONTENT, None, "Deleted.")
            .fails(&[404]),
        Route::new(
            Method::POST,
            "/data/samples/remove",
            "remove_samples",
            "Delete the rows that are marked as samples",
            token(samples),
        )
        .gives::<Value>(StatusCode::OK, "Number of deleted rows by table."),
    ]
}

async fn me(call: Call, session: TenantSession) -> Result {
    answer(StatusCode::OK, &call.control().me(&session).await?)
}

async fn list(call: Call, session: TenantSession) -> Result {
    let limit = call.param("limit").and_then(|text| text.parse().ok()).unwrap_or(DEFAULT_LIMIT as u32);
    let page = call.control().rows(&session, call.segment("table"), limit, call.param("cursor")).await?;
    answer(StatusCode::OK, &Page { data: page.rows, has_more: page.next.is_some(), next_cursor: page.next })
}

async fn insert(call: Call, session: TenantSession) -> Result {
    let (table, row) = (call.segment("table"), call.read::<Map<String, Value>>()?);
    let row = call.control().insert_row(&session, table, row).await?;
    let response = answer(StatusCode::CREATED, &row)?;
    match row.get("id").and_then(Value::as_str) {
        Some(id) if id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.~".contains(&b)) => {
            with_header(response, LOCATION, &format!("/data/{table}/{id}"))
        }
        _ => Ok(response),
    }
}

async fn get(call: Call, session: TenantSession) -> Result {
    answer(StatusCode::OK, &call.control().row(&session, call.segment("table"), call.segment("id")).await?)
}

async fn delete(call: Call, session: TenantSession) -> Result {
    call.control().delete_row(&session, call.segment("table"), call.segment("id")).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn samples(call: Call, session: TenantSession) -> Result {
    answer(StatusCode::OK, &call.control().remove_samples(&session).await?)
}
