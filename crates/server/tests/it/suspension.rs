//! Suspension: access is denied from the next request on and restored with the last reason, the tenant's data
//! is untouched, and invalid requests are rejected.

use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::on_both;
use crate::server::{Answer, Server, read, request};

async fn suspend(server: &Server, tenant: &str, reason: &str, mode: &str) -> Answer {
    let body = json!({ "reason": reason, "mode": mode });
    server.post(&format!("/v1/tenants/{tenant}/suspend"), &body).await
}

async fn resume(server: &Server, tenant: &str, body: Value) -> Answer {
    server.post(&format!("/v1/tenants/{tenant}/resume"), &body).await
}

async fn grant(server: &Server, grant: Value) -> Answer {
    read(server.bare(Method::POST, "/auth/token").json(&grant)).await
}

async fn claim(server: &Server, operation: &Value) -> String {
    let path = format!("/v1/operations/{}/credentials", operation["id"].as_str().unwrap());
    let claimed = server.post(&path, &json!({})).await.expect(200).body;
    claimed["credentials"][0]["value"].as_str().unwrap().to_owned()
}

/// Onboards a tenant; returns its id and a token of its first administrator.
pub async fn onboard(server: &Server, name: &str, plan: &str) -> (String, String) {
    let begun = server.post("/v1/tenants", &request(name, plan)).await.expect(202);
    let operation = server.done(begun.body["id"].as_str().unwrap()).await;
    let token = claim(server, &operation).await;
    let token = grant(server, json!({ "grant_type": "invitation", "token": token })).await.expect(200).body;
    (operation["tenant_id"].as_str().unwrap().to_owned(), token["access_token"].as_str().unwrap().to_owned())
}

async fn me(server: &Server, token: &str) -> Answer {
    read(server.bare(Method::GET, "/data/me").bearer_auth(token)).await
}

async fn write(server: &Server, token: &str) -> Answer {
    let row = server.bare(Method::POST, "/data/tasks").bearer_auth(token);
    read(row.json(&json!({ "project_id": "starter", "title": "Ours" }))).await
}

on_both! {
    async fn tokens_are_denied_until_the_last_reason_is_cleared(mut server: Server) {
        let (tenant, token) = onboard(&server, "Acme", "starter").await;
        let row = write(&server, &token).await.expect(201).headers["location"].to_str().unwrap().to_owned();

        let view = suspend(&server, "acme", "payment", "blocked").await.expect(200).body;
        assert_eq!((&view["status"], &view["suspensions"]["payment"]["mode"]), (&json!("suspended"), &json!("blocked")));
        assert_eq!(view["suspended_at"], view["suspensions"]["payment"]["since"]);
        me(&server, &token).await.problem(402, "payment_required");
        write(&server, &token).await.problem(402, "payment_required");
        // Two reasons: clearing one does not clear the other.
        suspend(&server, &tenant, "policy", "read_only").await.expect(200);
        me(&server, &token).await.problem(403, "tenant_suspended");
        let view = resume(&server, &tenant, json!({ "reason": "payment" })).await.expect(200).body;
        assert_eq!((&view["status"], view["suspensions"].as_object().unwrap().len()), (&json!("suspended"), 1));
        me(&server, &token).await.expect(200);
        write(&server, &token).await.problem(403, "tenant_suspended");
        // Repeating a suspension changes nothing, nor does clearing a reason that is not set.
        let again = suspend(&server, &tenant, "policy", "read_only").await.expect(200).body;
        assert_eq!(again, view);
        assert_eq!(resume(&server, &tenant, json!({ "reason": "quota" })).await.expect(200).body, view);
        write(&server, &token).await.problem(403, "tenant_suspended");

        let view = resume(&server, &tenant, json!({})).await.expect(200).body;
        assert_eq!((&view["status"], &view["suspensions"], &view["suspended_at"]), (&json!("active"), &json!({}), &Value::Null));
        read(server.bare(Method::GET, &row).bearer_auth(&token)).await.expect(200);
        write(&server, &token).await.expect(201);
        server.events_are_numbered().await;
        let events = server.get("/v1/events?limit=100").await.expect(200).body;
        let kinds: Vec<_> = events["data"].as_array().unwrap().iter().map(|event| event["type"].clone()).collect();
        let of = |kind: &str| kinds.iter().filter(|k| **k == kind).count();
        assert_eq!((of("tenant.suspended"), of("tenant.resumed")), (3, 1), "{kinds:?}");
    }

    async fn no_login_denies_tokens_but_not_signed_urls(mut server: Server) {
        let (tenant, token) = onboard(&server, "Acme", "growth").await;
        let request = server.bare(Method::POST, "/objects/urls").bearer_auth(&token);
        let signed = read(request.json(&json!({ "key": "a", "method": "PUT" }))).await.expect(201).body;
        let address = signed["url"].as_str().unwrap().strip_prefix(&server.url).unwrap().to_owned();
        let put = async || read(server.bare(Method::PUT, &address).body("text")).await;
        put().await.expect(200);
        suspend(&server, &tenant, "admin", "no_login").await.expect(200);
        me(&server, &token).await.problem(403, "tenant_suspended");
        put().await.expect(200);
        suspend(&server, &tenant, "admin", "blocked").await.expect(200);
        put().await.problem(403, "tenant_suspended");
        resume(&server, &tenant, json!({})).await.expect(200);
        put().await.expect(200);
    }

    async fn an_upload_under_way_is_denied_what_its_tenant_is(mut server: Server) {
        let (tenant, token) = onboard(&server, "Acme", "growth").await;
        let request = server.bare(Method::POST, "/objects/urls").bearer_auth(&token);
        let signed = read(request.json(&json!({ "key": "a", "method": "PUT" }))).await.expect(201).body;
        let address = signed["url"].as_str().unwrap().strip_prefix(&server.url).unwrap().to_owned();
        let (send, sent) = futures::channel::mpsc::unbounded::<Result<&str, std::io::Error>>();
        let before = server.files("buckets");
        let upload = server.bare(Method::PUT, &address).body(reqwest::Body::wrap_stream(sent));
        let upload = tokio::spawn(read(upload));
        send.unbounded_send(Ok("text")).unwrap();
        server.until_files("buckets", |files| *files != before).await;
        suspend(&server, &tenant, "policy", "blocked").await.expect(200);
        drop(send);
        upload.await.unwrap().problem(403, "tenant_suspended");
        resume(&server, &tenant, json!({})).await.expect(200);
        let objects = read(server.bare(Method::GET, "/objects").bearer_auth(&token)).await.expect(200).body;
        assert_eq!(objects["data"], json!([]), "nothing was stored");
    }

    async fn a_tenants_key_is_denied_what_its_tenant_is(mut server: Server) {
        let begun = server.post("/v1/tenants", &request("Acme", "gated")).await.expect(202).body;
        let key = server.key("tenant", begun["tenant_id"].as_str().unwrap()).await;
        let other = server.key("viewer", "").await;
        let get = async |key: &str| read(server.bare(Method::GET, "/v1/tenants/acme").bearer_auth(key)).await;
        get(&key).await.expect(200);
        let id = begun["id"].as_str().unwrap();
        server.post(&format!("/v1/operations/{id}/approve"), &json!({ "step": "approve" })).await.expect(200);
        server.done(id).await;
        get(&key).await.expect(200);
        for (reason, mode, status) in [("payment", "blocked", 402), ("policy", "no_login", 403), ("quota", "read_only", 200)] {
            suspend(&server, "acme", reason, mode).await.expect(200);
            get(&key).await.expect(status);
            get(&other).await.expect(200);
            resume(&server, "acme", json!({})).await.expect(200);
            get(&key).await.expect(200);
        }
    }

    async fn no_login_denies_signing_in(mut server: Server) {
        let begun = server.post("/v1/tenants", &request("Acme", "password")).await.expect(202);
        let operation = server.done(begun.body["id"].as_str().unwrap()).await;
        let password = claim(&server, &operation).await;
        let sign_in = async || {
            let body = json!({ "grant_type": "password", "tenant": "acme", "email": "ada@example.com", "password": password });
            grant(&server, body).await
        };
        sign_in().await.expect(200);
        suspend(&server, "acme", "quota", "read_only").await.expect(200);
        sign_in().await.expect(200);
        suspend(&server, "acme", "quota", "no_login").await.expect(200);
        sign_in().await.problem(403, "tenant_suspended");
        resume(&server, "acme", json!({})).await.expect(200);
        sign_in().await.expect(200);
    }

    async fn a_tenant_is_suspended_during_onboarding(mut server: Server) {
        let begun = server.post("/v1/tenants", &request("Acme", "gated")).await.expect(202).body;
        let id = begun["id"].as_str().unwrap();
        let view = suspend(&server, "acme", "policy", "blocked").await.expect(200).body;
        assert_eq!((&view["status"], &view["suspended_at"]), (&json!("provisioning"), &Value::Null));
        let waits = |step: &&Value| step["approval"].is_object();
        let step = begun["steps"].as_array().unwrap().iter().find(waits).unwrap()["key"].clone();
        server.post(&format!("/v1/operations/{id}/approve"), &json!({ "step": step })).await.expect(200);
        assert_eq!(server.done(id).await["state"], "succeeded");
        let view = server.get("/v1/tenants/acme").await.expect(200).body;
        assert_eq!((&view["status"], &view["suspended_at"]), (&json!("suspended"), &view["suspensions"]["policy"]["since"]));
        assert_eq!(resume(&server, "acme", json!({})).await.expect(200).body["status"], "active");
    }

    async fn concurrent_suspensions_lose_no_reason(mut server: Server) {
        let (tenant, _) = onboard(&server, "Acme", "starter").await;
        let reasons = ["payment", "policy", "admin", "quota"];
        let answers = join_all((0..16).map(|n| suspend(&server, &tenant, reasons[n % 4], "blocked"))).await;
        answers.into_iter().for_each(|answer| drop(answer.expect(200)));
        let view = server.get(&format!("/v1/tenants/{tenant}")).await.expect(200).body;
        assert_eq!(view["suspensions"].as_object().unwrap().len(), 4);
        let answers = join_all((0..16).map(|n| resume(&server, &tenant, json!({ "reason": reasons[n % 4] })))).await;
        answers.into_iter().for_each(|answer| drop(answer.expect(200)));
        let view = server.get(&format!("/v1/tenants/{tenant}")).await.expect(200).body;
        assert_eq!((&view["status"], &view["suspensions"]), (&json!("active"), &json!({})));
        // Concurrent requests with one key make one change.
        let path = format!("/v1/tenants/{tenant}/suspend");
        let body = json!({ "reason": "admin" });
        let once = || read(server.request(Method::POST, &path).header("idempotency-key", "k").json(&body));
        let answers = join_all((0..6).map(|_| once())).await;
        let replayed = answers.into_iter().map(|answer| answer.expect(200)).filter(|answer| answer.headers.contains_key("idempotent-replayed"));
        assert_eq!(replayed.count(), 5);
        resume(&server, &tenant, json!({})).await.expect(200);
        once().await.expect(200);
        assert_eq!(server.get(&format!("/v1/tenants/{tenant}")).await.body["status"], "active", "the request was replayed");
    }

    async fn invalid_suspensions_are_rejected(mut server: Server) {
        let begun = server.post("/v1/tenants", &request("Acme", "failing")).await.expect(202).body;
        server.done(begun["id"].as_str().unwrap()).await;
        let refused = suspend(&server, "acme", "admin", "blocked").await;
        refused.problem(409, "illegal_transition");
        assert_eq!(
            refused.body["detail"],
            "a tenant that is pending cannot be suspended; allowed statuses: provisioning, active, suspended, deprovisioning"
        );
        suspend(&server, "nobody", "admin", "blocked").await.problem(404, "not_found");
        for (body, field) in [
            (json!({}), "reason"),
            (json!({ "reason": "boredom" }), "reason"),
            (json!({ "reason": 7 }), "reason"),
            (json!({ "reason": "admin", "mode": "a bit" }), "mode"),
            (json!({ "reason": "admin", "note": "x" }), "note"),
        ] {
            let refused = server.post("/v1/tenants/acme/suspend", &body).await;
            assert_eq!(refused.problem(422, "request_invalid"), [field], "{body}");
        }
        let refused = resume(&server, "acme", json!({ "reason": ["payment"] })).await;
        assert_eq!(refused.problem(422, "request_invalid"), ["reason"]);
    }
}
