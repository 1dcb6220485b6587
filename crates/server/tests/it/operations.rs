//! Operations: approvals, pauses, retries, skips and cancellation; rollbacks and their errors; secrets that
//! are revealed once.

use serde_json::{Value, json};

use crate::on_both;
use crate::server::{Server, request};

async fn begin(server: &Server, name: &str, plan: &str) -> String {
    let operation = server.post("/v1/tenants", &request(name, plan)).await.expect(202);
    operation.body["id"].as_str().unwrap().to_owned()
}

fn step<'a>(operation: &'a Value, key: &str) -> &'a Value {
    operation["steps"].as_array().unwrap().iter().find(|step| step["key"] == key).unwrap()
}

on_both! {
    async fn an_approval_resumes_the_operation(mut server: Server) {
        let id = begin(&server, "Acme", "gated").await;
        let path = |verb: &str| format!("/v1/operations/{id}/{verb}");
        server.until(&id, |operation| step(operation, "approve")["state"] == "waiting").await;
        assert_eq!(server.post(&path("approve"), &json!({})).await.problem(422, "request_invalid"), ["step"]);
        let unknown = server.post(&path("approve"), &json!({ "step": "nothing" })).await;
        assert_eq!(unknown.problem(422, "request_invalid"), ["step"]);
        let early = server.post(&path("credentials"), &json!({})).await;
        early.problem(409, "operation_running");
        server.post(&path("approve"), &json!({ "step": "approve" })).await.expect(200);
        assert_eq!(server.done(&id).await["state"], "succeeded");
        server.post(&path("approve"), &json!({ "step": "approve" })).await.problem(409, "signal_refused");
    }

    async fn a_rejection_rolls_the_operation_back(mut server: Server) {
        let id = begin(&server, "Acme", "gated").await;
        let reject = format!("/v1/operations/{id}/reject");
        let faults = server.post(&reject, &json!({ "step": "approve", "reason": "", "by": "me" })).await;
        assert_eq!(faults.problem(422, "request_invalid"), ["by", "reason"]);
        server.post(&reject, &json!({ "step": "approve", "reason": "no contract" })).await.expect(200);
        let operation = server.done(&id).await;
        assert_eq!(operation["state"], "rolled_back", "{operation:#}");
        let tenant = server.get(&format!("/v1/tenants/{}", operation["tenant_id"].as_str().unwrap())).await.expect(200);
        assert_eq!(tenant.body["status"], "pending");
        assert!(tenant.body["last_error"].is_object());
        // Onboarding can be retried after a rollback.
        let again = server.post("/v1/tenants/acme/provision", &json!({})).await.expect(202);
        let again = again.body["id"].as_str().unwrap();
        server.post(&format!("/v1/operations/{again}/approve"), &json!({ "step": "approve" })).await.expect(200);
        assert_eq!(server.done(again).await["state"], "succeeded");
        assert_eq!(server.get("/v1/tenants/acme").await.body["status"], "active");
        server.post("/v1/tenants/acme/provision", &json!({})).await.problem(409, "illegal_transition");
    }

    async fn a_failure_rolls_back_and_is_reported(mut server: Server) {
        let id = begin(&server, "Acme", "failing").await;
        let operation = server.done(&id).await;
        assert_eq!(operation["state"], "rolled_back");
        assert_eq!(operation["error"]["step"], "broken");
        assert_eq!(step(&operation, "identity")["state"], "undone");
        assert_eq!(operation["progress"], 0.0, "nothing of it is left");
        assert_eq!(server.event("tenant.provisioning_failed").await["data"]["step"], "broken");
        assert_eq!(server.get("/v1/tenants/acme").await.body["last_error"]["step"], "broken");
    }

    async fn an_operation_that_needs_attention_is_retried_skipped_or_cancelled(mut server: Server) {
        let id = begin(&server, "Acme", "parked").await;
        let path = |verb: &str| format!("/v1/operations/{id}/{verb}");
        let attention = |operation: &Value| operation["state"] == "needs_attention";
        server.until(&id, attention).await;
        server.post(&path("retry"), &json!({})).await.expect(200);
        server.until(&id, |operation| attention(operation) && step(operation, "broken")["attempts"] == 1).await;
        server.post(&path("skip"), &json!({ "step": "broken", "reason": "made by hand" })).await.expect(200);
        let operation = server.done(&id).await;
        assert_eq!(operation["state"], "succeeded", "{operation:#}");
        assert_eq!(step(&operation, "broken")["state"], "skipped");

        let id = begin(&server, "Other", "parked").await;
        server.until(&id, attention).await;
        server.post(&format!("/v1/operations/{id}/cancel"), &json!({})).await.expect(200);
        assert_eq!(server.done(&id).await["state"], "cancelled");
    }

    async fn vital_steps_cannot_be_skipped(mut server: Server) {
        let id = begin(&server, "Acme", "gated").await;
        for key in ["smoke_test", "activate"] {
            let skip = json!({ "step": key, "reason": "no time" });
            server.post(&format!("/v1/operations/{id}/skip"), &skip).await.problem(409, "signal_refused");
        }
    }

    async fn a_pause_survives_a_kill(mut server: Server) {
        let id = begin(&server, "Acme", "gated").await;
        let path = |verb: &str| format!("/v1/operations/{id}/{verb}");
        assert_eq!(server.post(&path("pause"), &json!({})).await.expect(200).body["state"], "paused");
        server.post(&path("approve"), &json!({ "step": "approve" })).await.expect(200);
        server.kill_and_restart().await;
        let operation = server.get(&format!("/v1/operations/{id}")).await.expect(200).body;
        assert_eq!(operation["state"], "paused");
        assert_eq!(step(&operation, "database")["state"], "pending");
        server.post(&path("resume"), &json!({})).await.expect(200);
        assert_eq!(server.done(&id).await["state"], "succeeded");
    }

    async fn secrets_are_revealed_once(mut server: Server) {
        let operation = server.onboard("Acme").await;
        assert_eq!(operation["response"]["credentials_waiting"], true, "{operation:#}");
        let path = format!("/v1/operations/{}/credentials", operation["id"].as_str().unwrap());
        let viewer = server.key("viewer", "").await;
        let refused = crate::server::read(server.bare(reqwest::Method::POST, &path).bearer_auth(viewer)).await;
        refused.problem(403, "forbidden");
        let claimed = server.post(&path, &json!({})).await.expect(200).body;
        let secret = claimed["credentials"][0]["value"].as_str().unwrap().to_owned();
        assert!(secret.len() >= 20, "{claimed}");
        server.post(&path, &json!({})).await.problem(410, "credentials_gone");
        let list = server.get("/v1/operations").await.expect(200).body;
        let kept = server.get(&format!("/v1/operations/{}", operation["id"].as_str().unwrap())).await.body;
        let listed = list["data"].as_array().unwrap().iter().find(|o| o["id"] == operation["id"]).unwrap();
        for view in [&kept, listed] {
            assert_eq!(view["response"]["credentials_waiting"], false, "they were claimed");
        }
        let other = server.onboard("Other").await;
        let list = server.get("/v1/operations").await.expect(200).body;
        let waiting = list["data"].as_array().unwrap().iter().filter(|o| o["response"]["credentials_waiting"] == true);
        assert_eq!(waiting.map(|o| &o["id"]).collect::<Vec<_>>(), [&other["id"]], "each operation has its own secrets");
        // Operation, events and log contain no secret and no personal data.
        let operation = server.get(&format!("/v1/operations/{}", operation["id"].as_str().unwrap())).await;
        server.events_are_numbered().await;
        let events = server.get("/v1/events").await;
        for text in [operation.text, events.text, server.log()] {
            assert!(!text.contains(&secret));
            assert!(!text.contains("ada@example.com"), "{text}");
        }
    }
}
