//! Snapshots of the public interface: help texts, routes with their authority and statuses, problems. Review
//! every change of a snapshot as a change of the interface.

use std::process::Command;

use reqwest::Method;
use serde_json::{Value, json};

use crate::server::{Server, TENANTRY, clean, read};

#[test]
fn help() {
    let mut text = String::new();
    let nouns = [
        "",
        "dev",
        "serve",
        "demo",
        "tenant",
        "session",
        "operation",
        "plan",
        "template",
        "stats",
        "doctor",
        "isolation",
        "key",
        "event",
        "audit",
        "config",
        "completions",
    ];
    for noun in nouns {
        for line in help_of(&[noun]).lines() {
            text.push_str(&format!("{line}\n"));
        }
        text.push_str("────\n");
    }
    for (noun, verb) in [
        ("tenant", "create"),
        ("operation", "skip"),
        ("template", "show"),
        ("template", "diff"),
        ("isolation", "check"),
        ("key", "create"),
    ] {
        text.push_str(&format!("{}────\n", help_of(&[noun, verb])));
    }
    insta::assert_snapshot!(text);
}

fn help_of(words: &[&str]) -> String {
    let mut command = Command::new(TENANTRY);
    let output = clean(&mut command)
        .args(words.iter().filter(|word| !word.is_empty()))
        .arg("--help")
        .output()
        .unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

/// The route table, from the OpenAPI document.
#[tokio::test]
async fn routes() {
    let server = Server::sqlite().await;
    let document = read(server.bare(Method::GET, "/openapi.json")).await.expect(200).body;
    let mut lines = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let list = |value: &Value, name: &str| -> String {
                let names = value
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|v| v[name].as_str().unwrap_or("?").to_owned());
                names.collect::<Vec<_>>().join(" ")
            };
            let authority = match operation["security"][0].as_object().and_then(|s| s.keys().next()) {
                None => "everybody".to_owned(),
                Some(scheme) if scheme == "api_key" => {
                    let scopes: Vec<String> = serde_json::from_value(operation["x-scopes"].clone()).unwrap();
                    scopes.join(" ")
                }
                Some(scheme) => scheme.clone(),
            };
            let statuses: Vec<&String> = operation["responses"].as_object().unwrap().keys().collect();
            let body = operation["requestBody"]["content"].as_object().and_then(|c| c.keys().next());
            lines.push(format!(
                "{} {path}\n    {}\n    for {authority}\n    takes [{}] {}\n    gives {}",
                method.to_uppercase(),
                operation["summary"].as_str().unwrap(),
                list(&operation["parameters"], "name"),
                body.map_or("", String::as_str),
                statuses.iter().map(|s| s.as_str()).collect::<Vec<_>>().join(" "),
            ));
        }
    }
    insta::assert_snapshot!(lines.join("\n"));
}

/// Every reference of the OpenAPI document resolves, and a real response matches its schema.
#[tokio::test]
async fn the_openapi_document_is_complete() {
    let server = Server::sqlite().await;
    let document = read(server.bare(Method::GET, "/openapi.json")).await.expect(200).body;
    let mut open = vec![&document];
    let mut references = 0;
    while let Some(value) = open.pop() {
        match value {
            Value::Object(object) => {
                if let Some(reference) = object.get("$ref").and_then(Value::as_str) {
                    references += 1;
                    let target = document.pointer(reference.trim_start_matches('#'));
                    assert!(target.is_some(), "{reference} does not resolve");
                }
                open.extend(object.values());
            }
            Value::Array(array) => open.extend(array),
            _ => {}
        }
    }
    assert!(references > 100, "{references} references");
    for name in ["CreateTenant", "TenantView", "OperationView", "Problem"] {
        assert!(document["components"]["schemas"][name].is_object(), "{name}");
    }
    // A real response has no field that is missing from the schema.
    let operation = server.onboard("Acme").await;
    let described = document["components"]["schemas"]["OperationView"]["properties"].as_object().unwrap();
    for field in operation.as_object().unwrap().keys() {
        assert!(described.contains_key(field), "{field}");
    }
}

#[tokio::test]
async fn problems() {
    let server = Server::sqlite().await;
    server.onboard("Acme").await;
    let with_id = |request: reqwest::RequestBuilder| read(request.header("x-request-id", "req_golden"));
    let post = |body: Value| server.request(Method::POST, "/v1/tenants").json(&body);
    let mut shown = Vec::new();
    for (case, request) in [
        ("no key", server.bare(Method::GET, "/v1/tenants")),
        ("unknown path", server.request(Method::GET, "/v1/nothing")),
        ("unknown tenant", server.request(Method::GET, "/v1/tenants/nobody")),
        ("wrong method", server.request(Method::DELETE, "/v1/tenants")),
        (
            "broken JSON",
            server
                .request(Method::POST, "/v1/tenants")
                .header("content-type", "application/json")
                .body("{\"a\": }"),
        ),
        ("empty request", post(json!({}))),
        (
            "faulty request",
            post(
                json!({ "tenant_name": "A\u{7}", "admin_user": { "email": "x" }, "subscription": { "plan": "gold" } }),
            ),
        ),
        ("taken name", post(crate::server::request("acme", "starter"))),
        (
            "no If-Match",
            server
                .request(Method::PATCH, "/v1/tenants/acme")
                .header("content-type", "application/merge-patch+json")
                .body("{}"),
        ),
        ("unknown parameter", server.request(Method::GET, "/v1/tenants?page=2")),
    ] {
        let answer = with_id(request).await;
        shown.push(format!("{case}:\n{}", serde_json::to_string_pretty(&answer.body).unwrap()));
    }
    insta::assert_snapshot!(shown.join("\n\n"));
}
