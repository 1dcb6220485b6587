//! Tenants over HTTP: creation, `Prefer: wait`, dry runs, lists, and updates that never overwrite a
//! concurrent change.

use reqwest::Method;
use serde_json::{Value, json};

use crate::on_both;
use crate::server::{Server, read, request};

on_both! {
    async fn a_request_creates_a_working_tenant(mut server: Server) {
        let accepted = server.post("/v1/tenants", &request("Acme GmbH", "standard")).await.expect(202);
        let id = accepted.body["id"].as_str().unwrap();
        assert_eq!(accepted.headers["location"], format!("/v1/operations/{id}"));
        let operation = server.done(id).await;
        assert_eq!(operation["state"], "succeeded", "{operation:#}");
        assert_eq!(operation["progress"], 1.0);
        assert_eq!(operation["response"]["status"], "success");
        assert!(!operation.to_string().contains("ada@example.com"), "no personal data: {operation:#}");
        let tenant = operation["tenant_id"].as_str().unwrap();
        let read = server.get(&format!("/v1/tenants/{tenant}")).await.expect(200);
        for (field, value) in [("slug", "acme-gmbh"), ("name", "Acme GmbH"), ("plan", "starter"), ("status", "active")] {
            assert_eq!(read.body[field], value, "{:#}", read.body);
        }
        assert_eq!(read.body, server.get("/v1/tenants/acme-gmbh").await.body, "by id or slug");
        server.get("/v1/tenants/absent").await.problem(404, "not_found");
        server.get("/v1/tenants/ten_01h2xcejqtf2nbrexx3vqjhp41").await.problem(404, "not_found");
    }

    async fn prefer_wait_returns_the_active_tenant(mut server: Server) {
        let waiting = |name, plan, prefer| {
            read(server.request(Method::POST, "/v1/tenants").header("prefer", prefer).json(&request(name, plan)))
        };
        let created = waiting("Acme", "starter", "wait=30").await.expect(201);
        assert_eq!(created.body["status"], "active");
        assert_eq!(created.headers["location"], format!("/v1/tenants/{}", created.body["id"].as_str().unwrap()));
        assert_eq!(created.headers["preference-applied"], "wait=30");
        assert_eq!(created.headers["etag"], format!("\"{}\"", created.body["version"]));
        // An onboarding that waits for approval exceeds the wait, which is at most 60 seconds.
        let slow = waiting("Slow", "gated", "respond-async, wait=1").await.expect(202);
        assert_eq!(slow.headers["location"], format!("/v1/operations/{}", slow.body["id"].as_str().unwrap()));
        let failed = waiting("Failing", "failing", "wait=9999").await.expect(202);
        assert_eq!(failed.headers["preference-applied"], "wait=60");
        assert_eq!(failed.body["state"], "rolled_back");
        // Invalid preferences are ignored (RFC 7240).
        assert!(!waiting("Odd", "starter", "wait=soon").await.expect(202).headers.contains_key("preference-applied"));
    }

    async fn a_dry_run_returns_the_plan_and_creates_nothing(mut server: Server) {
        let before = server.counts().await;
        let plan = server.post("/v1/tenants?dry_run=true", &request("Acme", "starter")).await.expect(200).body;
        assert_eq!(plan["slug"], "acme");
        let keys: Vec<&str> = plan["steps"].as_array().unwrap().iter().map(|s| s["key"].as_str().unwrap()).collect();
        assert_eq!(server.counts().await, before);
        let operation = server.onboard("Acme").await;
        let done: Vec<&str> = operation["steps"].as_array().unwrap().iter().map(|s| s["key"].as_str().unwrap()).collect();
        assert_eq!(keys, done, "what is planned is what is executed");
        server.post("/v1/tenants?dry_run=true", &request("Acme", "starter")).await.problem(409, "tenant_name_taken");
    }

    async fn names_and_slugs_are_unique(mut server: Server) {
        server.onboard("Acme").await;
        let taken = server.post("/v1/tenants", &request("ACME", "starter")).await;
        assert_eq!(taken.problem(409, "tenant_name_taken"), ["tenant_name"]);
        let mut other = request("Another", "starter");
        other["slug"] = "acme".into();
        let taken = server.post("/v1/tenants", &other).await;
        assert_eq!(taken.problem(409, "slug_taken"), ["slug"]);
        assert!(taken.body["detail"].as_str().unwrap().contains("acme-2"), "a free slug is suggested: {}", taken.text);
        assert_eq!(server.tenants().await.len(), 1);
    }

    async fn slugs_derived_from_names_are_numbered(mut server: Server) {
        let mut slugs = std::collections::BTreeSet::new();
        for n in 0..60 {
            // Names that differ only in characters that a slug cannot contain.
            let name = format!("Acme {}", "!".repeat(n));
            let operation = server.post("/v1/tenants", &request(&name, "starter")).await.expect(202).body;
            slugs.insert(server.get(&format!("/v1/tenants/{}", operation["tenant_id"].as_str().unwrap())).await.body["slug"].to_string());
        }
        assert_eq!(slugs.len(), 60);
        assert!(slugs.contains("\"acme\"") && slugs.contains("\"acme-2\""));
        // The keyring has one key per tenant.
        assert_eq!(server.keys_of_tenants().await, 60);
    }

    async fn lists_are_paged(mut server: Server) {
        let mut made = Vec::new();
        for n in 0..7 {
            made.push(server.onboard(&format!("Tenant {n}")).await["tenant_id"].as_str().unwrap().to_owned());
        }
        made.reverse();
        let mut seen = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = server.get(&format!("/v1/tenants?limit=3{cursor}")).await.expect(200).body;
            let data = page["data"].as_array().unwrap();
            seen.extend(data.iter().map(|tenant| tenant["id"].as_str().unwrap().to_owned()));
            assert_eq!(page["has_more"], page["next_cursor"].is_string());
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
            assert_eq!(data.len(), 3);
        }
        assert_eq!(seen, made, "newest first, each once");
        let none = server.get("/v1/tenants?status=suspended").await.expect(200).body;
        assert_eq!(none, json!({ "data": [], "has_more": false, "next_cursor": null }));
        let all = server.get("/v1/tenants?status=active&plan=starter&limit=100").await.expect(200).body;
        assert_eq!(all["data"].as_array().unwrap().len(), 7);
        let operations = server.get(&format!("/v1/operations?tenant={}&state=succeeded", made[0])).await.expect(200);
        assert!(operations.body["data"].as_array().unwrap().iter().all(|o| o["tenant_id"] == made[0].as_str()));
    }

    async fn an_update_never_overwrites_a_concurrent_change(mut server: Server) {
        server.onboard("Acme").await;
        let tenant = server.get("/v1/tenants/acme").await.expect(200);
        let etag = tenant.headers["etag"].to_str().unwrap().to_owned();
        assert_eq!(etag, format!("\"{}\"", tenant.body["version"]), "strong");
        let patch = |etag: Option<&str>, media: &str, body: Value| {
            let mut request = server.request(Method::PATCH, "/v1/tenants/acme").header("content-type", media);
            if let Some(etag) = etag {
                request = request.header("if-match", etag);
            }
            read(request.body(body.to_string()))
        };
        const MERGE: &str = "application/merge-patch+json";
        let labels = json!({ "labels": { "tier": "gold", "team": "a" } });
        patch(None, MERGE, labels.clone()).await.problem(428, "precondition_required");
        patch(Some("\"9999\""), MERGE, labels.clone()).await.problem(412, "version_mismatch");
        patch(Some(&format!("W/{etag}")), MERGE, labels.clone()).await.problem(412, "version_mismatch");
        let refused = patch(Some(&etag), "application/json", labels.clone()).await;
        refused.problem(415, "unsupported_media_type");
        assert_eq!(refused.headers["accept-patch"], MERGE);
        assert_eq!(server.get("/v1/tenants/acme").await.body, tenant.body, "nothing was changed");

        let changed = patch(Some(&etag), MERGE, labels.clone()).await.expect(200);
        assert_eq!(changed.body["labels"], labels["labels"]);
        assert_ne!(changed.headers["etag"], etag);
        patch(Some(&etag), MERGE, labels).await.problem(412, "version_mismatch");
        let merged = patch(Some("*"), MERGE, json!({ "labels": { "team": null } })).await.expect(200);
        assert_eq!(merged.body["labels"], json!({ "tier": "gold" }), "RFC 7396");
        let faults = patch(Some("*"), MERGE, json!({ "labels": { "a": 1 }, "status": "active", "plan": "x" })).await;
        assert_eq!(faults.problem(422, "request_invalid"), ["labels.a", "plan", "status"]);
        for (name, value, path) in [
            ("", "x", "labels"), ("a\u{1b}", "x", "labels"), (&"a".repeat(64), "x", "labels"),
            ("a", &"x".repeat(256), "labels.a"), ("a", "\n", "labels.a"), ("a", "\u{0}", "labels.a"),
        ] {
            let refused = patch(Some("*"), MERGE, json!({ "labels": { name: value } })).await;
            assert!(refused.problem(422, "request_invalid").contains(&path.to_owned()), "{}", refused.text);
        }
    }
}
