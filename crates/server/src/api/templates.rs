//! `/v1/templates`: templates by version, their differences, and the JSON Schema of template files.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use tenantry_control::access::{Caller, Permission};
use tenantry_control::error::Error;
use tenantry_control::template::{self, Template, TemplateDiff};
use tenantry_control::view::Page;

use super::call::{Call, answer};
use super::problem::Result;
use super::route::{Param, Route, key};

const FROM: Param = version_param("from", "Old version; the version before `to` by default.");
const TO: Param = version_param("to", "New version; the newest by default.");

const fn version_param(name: &'static str, about: &'static str) -> Param {
    Param {
        name,
        about,
        schema: || json!({ "type": "integer", "minimum": 1 }),
        check: |text| match text.parse::<u32>() {
            Ok(1..) => Ok(()),
            _ => Err("must be a whole number of at least 1".to_owned()),
        },
        required: false,
    }
}

/// The routes of this resource.
pub fn routes() -> Vec<Route> {
    let needs = Permission::ReadCatalogue;
    vec![
        Route::new(
            Method::GET,
            "/v1/templates",
            "list_templates",
            "List all versions of all templates",
            key(needs, list),
        )
        .gives::<Page<Template>>(StatusCode::OK, "All templates by name, oldest version first."),
        Route::new(
            Method::GET,
            "/v1/templates/schema",
            "get_template_schema",
            "Get the JSON Schema of template files",
            key(needs, schema),
        )
        .gives::<Value>(StatusCode::OK, "The schema, with the settings of this server's providers."),
        Route::new(
            Method::GET,
            "/v1/templates/{name}",
            "get_template",
            "Get the newest version of a template",
            key(needs, latest),
        )
        .about("Values under `with` are hidden from keys without the scope `operator` or `admin`.")
        .gives::<Template>(StatusCode::OK, "The template.")
        .fails(&[404]),
        Route::new(
            Method::GET,
            "/v1/templates/{name}/diff",
            "diff_template",
            "Compare two versions of a template",
            key(needs, diff),
        )
        .query(&[FROM, TO])
        .gives::<TemplateDiff>(StatusCode::OK, "The changes; empty if the versions are equivalent.")
        .fails(&[404]),
        Route::new(
            Method::GET,
            "/v1/templates/{name}/versions/{version}",
            "get_template_version",
            "Get a version of a template",
            key(needs, version),
        )
        .gives::<Template>(StatusCode::OK, "The template.")
        .fails(&[404]),
    ]
}

/// A template as this caller may see it.
fn shown(caller: &Caller, template: &Template) -> Template {
    let template = template.clone();
    if caller.sees_secrets() { template } else { template.without_secrets() }
}

async fn list(call: Call, caller: Caller) -> Result {
    let data: Vec<Template> = call.control().templates().iter().map(|it| shown(&caller, it)).collect();
    answer(StatusCode::OK, &Page { data, has_more: false, next_cursor: None })
}

async fn schema(call: Call, _: Caller) -> Result {
    answer(StatusCode::OK, &template::schema(call.control().providers()))
}

async fn latest(call: Call, caller: Caller) -> Result {
    let template = call.control().templates().latest(call.segment("name"));
    answer(StatusCode::OK, &shown(&caller, template.ok_or_else(|| Error::not_found("template"))?))
}

async fn version(call: Call, caller: Caller) -> Result {
    let version = call.segment("version").parse().ok();
    let template =
        version.and_then(|version| call.control().templates().version(call.segment("name"), version));
    answer(
        StatusCode::OK,
        &shown(&caller, template.ok_or_else(|| Error::not_found("version of this template"))?),
    )
}

async fn diff(call: Call, caller: Caller) -> Result {
    let (templates, name) = (call.control().templates(), call.segment("name"));
    let given = |param: &str| call.param(param).and_then(|text| text.parse().ok());
    let newest = || templates.latest(name).map(|template| template.version);
    let missing = || Error::not_found("version of this template");
    let to = given("to").or_else(newest).and_then(|to| templates.version(name, to)).ok_or_else(missing)?;
    let from = match given("from") {
        Some(from) => templates.version(name, from).ok_or_else(missing)?,
        None => templates
            .before(name, to.version)
            .ok_or_else(|| Error::not_found("earlier version of this template to compare with"))?,
    };
    answer(StatusCode::OK, &template::diff(&shown(&caller, from), &shown(&caller, to)))
}
