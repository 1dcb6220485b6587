//! `/v1/templates`: how tenants are made, version by version, and the schema by which editors check a new one.

use axum::http::{Method, StatusCode};
use serde_json::Value;
use tenantry_control::access::{Caller, Permission};
use tenantry_control::error::Error;
use tenantry_control::template::{self, Template};
use tenantry_control::view::Page;

use super::call::{Call, answer};
use super::problem::Result;
use super::route::{Route, key};

/// The lines of the table.
pub fn routes() -> Vec<Route> {
    let needs = Permission::ReadCatalogue;
    vec![
        Route::new(
            Method::GET,
            "/v1/templates",
            "list_templates",
            "List templates, every version",
            key(needs, list),
        )
        .gives::<Page<Template>>(StatusCode::OK, "All of them, by name, oldest version first."),
        Route::new(
            Method::GET,
            "/v1/templates/schema",
            "get_template_schema",
            "Read the JSON Schema of template files",
            key(needs, schema),
        )
        .gives::<Value>(StatusCode::OK, "The schema, with the settings of every provider of this server."),
        Route::new(
            Method::GET,
            "/v1/templates/{name}",
            "get_template",
            "Read the newest version of a template",
            key(needs, latest),
        )
        .gives::<Template>(StatusCode::OK, "The template.")
        .fails(&[404]),
        Route::new(
            Method::GET,
            "/v1/templates/{name}/versions/{version}",
            "get_template_version",
            "Read one version of a template",
            key(needs, version),
        )
        .gives::<Template>(StatusCode::OK, "The template.")
        .fails(&[404]),
    ]
}

async fn list(call: Call, _: Caller) -> Result {
    let data: Vec<&Template> = call.control().templates().iter().map(AsRef::as_ref).collect();
    answer(StatusCode::OK, &Page { data, has_more: false, next_cursor: None })
}

async fn schema(call: Call, _: Caller) -> Result {
    answer(StatusCode::OK, &template::schema(call.control().providers()))
}

async fn latest(call: Call, _: Caller) -> Result {
    let template = call.control().templates().latest(call.segment("name"));
    answer(StatusCode::OK, template.ok_or_else(|| Error::not_found("template"))?.as_ref())
}

async fn version(call: Call, _: Caller) -> Result {
    let version = call.segment("version").parse().ok();
    let template =
        version.and_then(|version| call.control().templates().version(call.segment("name"), version));
    answer(StatusCode::OK, template.ok_or_else(|| Error::not_found("version of this template"))?.as_ref())
}
