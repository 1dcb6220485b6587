//! The same request under the same key has one effect: ten at once, again after a kill, and never with another body.

use futures::future::join_all;
use reqwest::Method;
use serde_json::json;

use crate::on_both;
use crate::server::{Server, read, request};

on_both! {
    async fn ten_at_once_make_one_tenant(mut server: Server) {
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
        // The order of fields is not content.
        let text = r#"{"subscription":{"plan":"starter"},"tenant_name":"Acme","admin_user":{"email":"ada@example.com"}}"#;
        let again = server.request(Method::POST, "/v1/tenants").header("idempotency-key", "\"once\"");
        let again = read(again.header("content-type", "application/json").body(text)).await.expect(202);
        assert_eq!(again.body["id"], operations[0]);
    }

    async fn a_key_belongs_to_its_request_and_its_caller(mut server: Server) {
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

    async fn a_kill_changes_nothing(mut server: Server) {
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
