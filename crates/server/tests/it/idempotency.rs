//! The same request under the same key has one effect: ten at once, again after a kill, and never with another body.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::join_all;
use reqwest::Method;
use serde_json::json;
use tokio::sync::{Mutex, RwLock};

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

    /// Many customers at once, and a server that is killed again and again: each is made, and made once.
    async fn a_storm_with_kills_makes_each_tenant_once(mut server: Server) {
        let (count, kills) = if std::env::var_os("TENANTRY_TEST_FULL").is_some() { (3000, 5) } else { (200, 2) };
        let (next, answered) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let server = RwLock::new(server);
        let operations = Mutex::new(Vec::new());
        let ask = async || {
            loop {
                let number = next.fetch_add(1, Ordering::SeqCst);
                if number >= count {
                    return;
                }
                let body = request(&format!("Customer {number}"), "starter");
                // Whoever gets no answer asks again.
                let id = loop {
                    let request = server.read().await.request(Method::POST, "/v1/tenants").json(&body);
                    match request.header("idempotency-key", number).send().await {
                        Ok(answer) if answer.status() == 202 => match answer.json::<serde_json::Value>().await {
                            Ok(operation) => break operation["id"].as_str().unwrap().to_owned(),
                            Err(_) => continue,
                        },
                        Ok(answer) => assert_eq!(answer.status(), 503, "{:?}", answer.text().await),
                        Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                    }
                };
                operations.lock().await.push(id);
                answered.fetch_add(1, Ordering::SeqCst);
            }
        };
        let kill = async {
            for n in 1..=kills {
                while answered.load(Ordering::SeqCst) < count * n / (kills + 1) {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                server.write().await.kill_and_restart().await;
            }
        };
        tokio::join!(join_all((0..64).map(|_| ask())), kill);
        let server = server.into_inner();
        for id in operations.into_inner() {
            assert_eq!(server.done(&id).await["state"], "succeeded");
        }
        let tenants = server.tenants().await;
        let names: BTreeSet<&str> = tenants.iter().map(|tenant| tenant["name"].as_str().unwrap()).collect();
        assert_eq!((tenants.len(), names.len()), (count, count));
        assert!(tenants.iter().all(|tenant| tenant["status"] == "active"));
        tenantry_testkit::report::add(&format!("storm: {count} tenants, each once, over {kills} kills"));
    }
}
