//! Generates the OpenAPI 3.1 document from the route table. Its schemas are the types that requests are read
//! into and responses are written from.

use std::collections::BTreeSet;

use axum::http::{Method, StatusCode};
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};
use tenantry_control::access::Scope;

use super::problem::{PROBLEM_JSON, Problem};
use super::route::{Access, Answer, FORM, Param, Route};

/// Generates the document for these routes.
pub fn document(routes: &[Route]) -> Value {
    let settings = || {
        let at_components =
            |settings: &mut SchemaSettings| settings.definitions_path = "/components/schemas".into();
        SchemaSettings::draft2020_12().with(at_components)
    };
    let mut reads = settings().for_deserialize().into_generator();
    let mut writes = settings().for_serialize().into_generator();
    let problem = writes.subschema_for::<Problem>().to_value();
    let mut paths = Map::new();
    for route in routes {
        let methods = paths.entry(route.path.replace("{*", "{")).or_insert_with(|| json!({}));
        if let Some(methods) = methods.as_object_mut() {
            methods.insert(route.method.as_str().to_lowercase(), operation(route, &mut reads, &mut writes));
        }
    }
    let mut schemas = reads.take_definitions(true);
    schemas.extend(writes.take_definitions(true));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Tenantry",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Onboard, operate and offboard the tenants of a multi-tenant service.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": problems(&problem),
            "securitySchemes": {
                "api_key": { "type": "http", "scheme": "bearer", "description": "An API key." },
                "tenant_token": {
                    "type": "http", "scheme": "bearer", "bearerFormat": "JWT",
                    "description": "A tenant token from `/auth/token`.",
                },
            },
        },
    })
}

fn operation(route: &Route, reads: &mut SchemaGenerator, writes: &mut SchemaGenerator) -> Value {
    let mut operation = json!({
        "operationId": route.id,
        "summary": route.summary,
        "tags": [tag(route.path)],
        "security": match &route.access {
            Access::Probe(_) | Access::Public(_) => json!([]),
            Access::Key(..) => json!([{ "api_key": [] }]),
            Access::Token(_) => json!([{ "tenant_token": [] }]),
        },
        "responses": responses(route, writes),
    });
    if let Some(about) = route.about {
        operation["description"] = json!(about);
    }
    if let Access::Key(permission, _) = route.access {
        operation["x-permission"] = json!(permission);
        operation["x-scopes"] =
            Scope::ALL.into_iter().filter(|scope| scope.allows(permission)).map(|s| json!(s)).collect();
    }
    let parameters: Vec<Value> = path_names(route.path)
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .chain(route.query.iter().map(|param| parameter(param, "query")))
        .chain(route.headers.iter().map(|param| parameter(param, "header")))
        .collect();
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    if let Some(body) = &route.body {
        let schema = (body.schema)(reads);
        operation["requestBody"] =
            json!({ "required": true, "content": { body.media: { "schema": schema } } });
        if body.form {
            operation["requestBody"]["content"][FORM] = json!({ "schema": schema });
        }
    }
    operation
}

fn parameter(param: &Param, location: &str) -> Value {
    json!({
        "name": param.name, "in": location, "description": param.about, "required": param.required,
        "schema": (param.schema)(),
    })
}

fn responses(route: &Route, writes: &mut SchemaGenerator) -> Value {
    let mut responses = Map::new();
    for answer in &route.answers {
        let response =
            responses.entry(answer.status.as_str()).or_insert_with(|| json!({ "description": answer.about }));
        describe(answer, response, writes);
    }
    for status in statuses(route) {
        responses.insert(status.to_string(), json!({ "$ref": format!("#/components/responses/{status}") }));
    }
    Value::Object(responses)
}

fn describe(answer: &Answer, response: &mut Value, writes: &mut SchemaGenerator) {
    if let Some(media) = answer.media {
        response["content"][media] = json!({ "schema": (answer.schema)(writes) });
    }
    for (name, about) in answer.headers {
        response["headers"][name] = json!({ "description": about, "schema": { "type": "string" } });
    }
}

/// Every problem status of the route.
fn statuses(route: &Route) -> BTreeSet<u16> {
    let mut statuses: BTreeSet<u16> = route.problems.iter().copied().collect();
    statuses.extend([400, 406, 422, 500, 503]);
    match route.access {
        Access::Probe(_) => {}
        Access::Public(_) => statuses.extend([429]),
        // 402: the tenant of the key or token is suspended until it has paid.
        Access::Key(..) | Access::Token(_) => statuses.extend([401, 402, 403, 429]),
    }
    if route.body.is_some() {
        statuses.extend([408, 413, 415]);
    }
    if route.method == Method::GET {
        // A GET request has no body that could arrive too late.
        statuses.remove(&408);
    }
    statuses
}

fn problems(schema: &Value) -> Value {
    let known = [400, 401, 402, 403, 404, 406, 408, 409, 410, 412, 413, 415, 416, 422, 428, 429, 500, 503];
    let each = known.map(|status| {
        let words = StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()).unwrap_or("Error");
        let mut response = json!({ "description": words, "content": { PROBLEM_JSON: { "schema": schema } } });
        let header = match status {
            401 => Some(("WWW-Authenticate", "How to authenticate (RFC 6750).")),
            429 | 503 => Some(("Retry-After", "Seconds to wait before retrying.")),
            _ => None,
        };
        if let Some((name, about)) = header {
            response["headers"][name] = json!({ "description": about, "schema": { "type": "string" } });
        }
        (status.to_string(), response)
    });
    Value::Object(each.into_iter().collect())
}

/// The tag of a path: its resource.
fn tag(path: &str) -> &str {
    match path.trim_start_matches("/v1").split('/').nth(1) {
        Some(
            first @ ("tenants" | "operations" | "stats" | "plans" | "templates" | "events" | "keys" | "data"),
        ) => first,
        Some("objects" | "files") => "objects",
        Some("auth" | ".well-known") => "auth",
        _ => "server",
    }
}

/// The names of a path's parameters.
fn path_names(path: &str) -> impl Iterator<Item = &str> {
    path.split('/')
        .filter_map(|part| Some(part.strip_prefix('{')?.strip_suffix('}')?.trim_start_matches('*')))
}

#[cfg(test)]
mod tests {
    use super::super::table;
    use super::*;

    #[test]
    fn every_problem_status_is_described() {
        let document = document(&table());
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                for status in
                    operation["responses"].as_object().unwrap().keys().filter(|s| s.as_str() >= "400")
                {
                    assert!(
                        document["components"]["responses"][status].is_object(),
                        "{method} {path} {status}"
                    );
                }
            }
        }
    }

    #[test]
    fn references_resolve_and_operation_ids_are_unique() {
        // Requests and responses have separate generators, whose definitions are merged.
        let references = |value: &Value| {
            let mut found = BTreeSet::new();
            let mut open = vec![value.clone()];
            while let Some(value) = open.pop() {
                match value {
                    Value::Object(object) => {
                        found.extend(object.get("$ref").and_then(Value::as_str).map(str::to_owned));
                        open.extend(object.into_iter().map(|(_, v)| v));
                    }
                    Value::Array(array) => open.extend(array),
                    _ => {}
                }
            }
            found
        };
        let document = document(&table());
        for reference in references(&document) {
            assert!(
                document.pointer(reference.trim_start_matches('#')).is_some(),
                "{reference} does not resolve"
            );
        }
        let ids: Vec<_> = table().iter().map(|route| route.id).collect();
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len());
    }
}
