//! Idempotency keys of every POST route: concurrent requests, requests after a kill, requests that differ,
//! and invalid keys. The same request with the same key has one effect and one response.

use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::on_both;
use crate::server::{Answer, Server, read, request};

async fn send(server: &Server, key: &str, path: &str, body: &Value) -> Answer {
    read(server.request(Method::POST, path).header("idempotency-key", key).json(body)).await
}

fn is_replayed(answer: &Answer) -> bool {
    answer.headers.get("idempotent-replayed").is_some_and(|value| value == "true")
}

/// Creates a tenant whose onboarding waits for approval; returns the operation's id.
async fn gated(server: &Server, name: &str) -> String {
    let operation = server.post("/v1/tenants", &request(name, "gated")).await.expect(202).body;
    let id = operation["id"].as_str().unwrap();
    let waits = |operation: &Value| {
        operation["steps"].as_array().unwrap().iter().any(|step| step["state"] == "waiting")
    };
    server.until(id, waits).await;
    id.to_owned()
}

on_both! {
    async fn a_repeated_request_creates_one_api_key_and_reveals_its_secret_once(mut server: Server) {
        let body = json!({ "name": "ci", "scopes": ["viewer"] });
        let answers = join_all((0..6).map(|_| send(&server, "k", "/v1/keys", &body))).await;
        let ids: Vec<&str> = answers.iter().map(|answer| answer.body["id"].as_str().expect(&answer.text)).collect();
        assert!(answers.iter().all(|answer| answer.status == 201) && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        assert_eq!(answers.iter().filter(|answer| answer.body.get("secret").is_some()).count(), 1);
        assert_eq!(answers.iter().filter(|answer| is_replayed(answer)).count(), 5);
        assert!(answers.iter().all(|answer| is_replayed(answer) != answer.body.get("secret").is_some()));
        let other = send(&server, "k", "/v1/keys", &json!({ "name": "cd", "scopes": ["viewer"] })).await;
        assert_eq!(other.problem(422, "idempotency_key_reused"), ["Idempotency-Key"]);
        assert_eq!(server.get("/v1/keys").await.body["data"].as_array().unwrap().len(), 2, "and the admin key");

        let revoke = format!("/v1/keys/{}/revoke", ids[0]);
        let first = send(&server, "r", &revoke, &json!({})).await.expect(200);
        let again = send(&server, "r", &revoke, &json!({})).await.expect(200);
        assert_eq!((is_replayed(&first), is_replayed(&again)), (false, true));
        assert_eq!(again.body, first.body);
        // The key of an earlier request, on another route.
        send(&server, "r", "/v1/keys", &body).await.problem(422, "idempotency_key_reused");
    }

    async fn a_repeated_signal_has_one_effect(mut server: Server) {
        let id = gated(&server, "Acme").await;
        let path = |verb: &str| format!("/v1/operations/{id}/{verb}");
        let nothing = json!({});
        let paused = send(&server, "p", &path("pause"), &nothing).await.expect(200);
        assert_eq!((paused.body["state"].as_str(), is_replayed(&paused)), (Some("paused"), false));
        server.post(&path("resume"), &nothing).await.expect(200);
        // The replay shows the present state: the operation runs, and is not paused again.
        let again = send(&server, "p", &path("pause"), &nothing).await.expect(200);
        assert_eq!((again.body["state"].as_str(), is_replayed(&again)), (Some("running"), true));
        send(&server, "p", &path("cancel"), &nothing).await.problem(422, "idempotency_key_reused");
        let other = gated(&server, "Other").await;
        let elsewhere = send(&server, "p", &format!("/v1/operations/{other}/pause"), &nothing).await;
        elsewhere.problem(422, "idempotency_key_reused");

        let (approval, approve) = (path("approve"), json!({ "step": "approve" }));
        let answers = join_all((0..6).map(|_| send(&server, "a", &approval, &approve))).await;
        for answer in &answers {
            assert_eq!(answer.status, 200, "{}", answer.text);
        }
        assert_eq!(answers.iter().filter(|answer| !is_replayed(answer)).count(), 1);
        assert_eq!(server.done(&id).await["state"], "succeeded");
        // Without the key, the same signal is rejected by now.
        assert!(is_replayed(&send(&server, "a", &approval, &approve).await.expect(200)));
        server.post(&approval, &approve).await.problem(409, "signal_refused");
        let reason = |reason: &str| json!({ "step": "approve", "reason": reason });
        let reject = format!("/v1/operations/{other}/reject");
        send(&server, "x", &reject, &reason("no contract")).await.expect(200);
        send(&server, "x", &reject, &reason("another reason")).await.problem(422, "idempotency_key_reused");
        assert_eq!(server.done(&other).await["state"], "rolled_back");
    }

    async fn a_repeated_provision_begins_one_onboarding(mut server: Server) {
        let id = gated(&server, "Acme").await;
        server.post(&format!("/v1/operations/{id}/cancel"), &json!({})).await.expect(200);
        server.done(&id).await;
        let (path, nothing) = ("/v1/tenants/acme/provision", json!({}));
        let answers = join_all((0..6).map(|_| send(&server, "again", path, &nothing))).await;
        let ids: Vec<&str> = answers.iter().map(|answer| answer.body["id"].as_str().expect(&answer.text)).collect();
        assert!(answers.iter().all(|answer| answer.status == 202) && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        assert_eq!(answers.iter().filter(|answer| !is_replayed(answer)).count(), 1);
        assert_eq!(answers[5].headers["location"], format!("/v1/operations/{}", ids[0]));
        server.post(path, &json!({})).await.problem(409, "illegal_transition");
        server.kill_and_restart().await;
        let later = send(&server, "again", path, &json!({})).await.expect(202);
        assert_eq!((later.body["id"].as_str(), is_replayed(&later)), (Some(ids[0]), true));
    }
}

/// Every POST route of the OpenAPI document takes an idempotency key, except those that claim secrets or sign
/// URLs, and rejects an invalid one.
#[tokio::test]
async fn every_post_route_checks_the_key() {
    let server = Server::sqlite().await;
    let document = read(server.bare(Method::GET, "/openapi.json")).await.expect(200).body;
    let mut tried = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        let Some(post) = methods.get("post") else { continue };
        let named =
            post["parameters"].as_array().into_iter().flatten().any(|p| p["name"] == "Idempotency-Key");
        let hands_out = path.ends_with("/credentials");
        let begins = path.starts_with("/v1/") && !path.ends_with("/link") || path == "/exports";
        assert_eq!(named, begins && !hands_out, "{path}");
        if hands_out {
            assert!(post["description"].as_str().unwrap().contains("has no effect here"), "{path}");
        }
        if ["/data/", "/objects/", "/exports", "/auth/sessions"]
            .iter()
            .any(|of_tenants| path.starts_with(of_tenants))
        {
            continue;
        }
        let filled = path.replace("{id}", "op_01h2xcejqtf2nbrexx3vqjhp41");
        for bad in [&b""[..], b"\"\"", b"\xff", &[b'x'; 256]] {
            let request =
                server.request(Method::POST, &filled).header("idempotency-key", bad).json(&json!({}));
            let refused = read(request).await;
            assert_eq!(refused.problem(422, "idempotency_key_invalid"), ["Idempotency-Key"], "{path}");
        }
        let twice = server
            .request(Method::POST, &filled)
            .header("idempotency-key", "a")
            .header("idempotency-key", "b");
        read(twice.json(&json!({}))).await.problem(422, "idempotency_key_invalid");
        tried += 1;
    }
    assert!(tried >= 12, "{tried} routes");
}

on_both! {
    async fn ten_concurrent_requests_create_one_tenant(mut server: Server) {
        let body = request("Acme", "starter");
        let send = || read(server.request(Method::POST, "/v1/tenants").header("idempotency-key", "once").json(&body));
        let answers = join_all((0..10).map(|_| send())).await;
        let operations: Vec<&str> = answers.iter().map(|answer| {
            assert_eq!(answer.status, 202, "{}", answer.text);
            answer.body["id"].as_str().unwrap()
        }).collect();
        assert!(operations.iter().all(|id| *id == operations[0]), "{operations:?}");
        let replayed = answers.iter().filter(|answer| answer.headers.contains_key("idempotent-replayed")).count();
        assert_eq!(replayed, 9);
        server.done(operations[0]).await;
        assert_eq!(server.tenants().await.len(), 1);
        // The order of fields does not matter.
        let text = r#"{"subscription":{"plan":"starter"},"tenant_name":"Acme","admin_user":{"email":"ada@example.com"}}"#;
        let again = server.request(Method::POST, "/v1/tenants").header("idempotency-key", "\"once\"");
        let again = read(again.header("content-type", "application/json").body(text)).await.expect(202);
        assert_eq!(again.body["id"], operations[0]);
    }

    async fn a_key_belongs_to_one_request_and_one_caller(mut server: Server) {
        let send = |key: String, name: &'static str| {
            let request = server.bare(Method::POST, "/v1/tenants").bearer_auth(key).json(&request(name, "starter"));
            read(request.header("idempotency-key", "k"))
        };
        let first = send(server.key.clone(), "Acme").await.expect(202);
        let other = send(server.key.clone(), "Other").await;
        assert_eq!(other.problem(422, "idempotency_key_reused"), ["Idempotency-Key"]);
        let mine = server.key("operator", "").await;
        let second = send(mine, "Other").await.expect(202);
        assert_ne!(first.body["id"], second.body["id"]);
        for bad in ["", "x".repeat(256).as_str()] {
            let request = server.request(Method::POST, "/v1/tenants").header("idempotency-key", bad);
            read(request.json(&json!({}))).await.problem(422, "idempotency_key_invalid");
        }
    }

    async fn a_request_is_replayed_after_a_kill(mut server: Server) {
        let body = request("Acme", "starter");
        let send = |server: &Server| {
            let request = server.request(Method::POST, "/v1/tenants").header("idempotency-key", "once");
            read(request.header("prefer", "wait=30").json(&body))
        };
        let request = server.request(Method::POST, "/v1/tenants").header("idempotency-key", "once").json(&body);
        let first = read(request).await.expect(202);
        server.kill_and_restart().await;
        let again = send(&server).await.expect(201);
        assert_eq!(again.headers["idempotent-replayed"], "true");
        assert_eq!(again.body["id"], first.body["tenant_id"]);
        assert_eq!(again.body["status"], "active");
        assert_eq!(server.tenants().await.len(), 1);
    }
}
