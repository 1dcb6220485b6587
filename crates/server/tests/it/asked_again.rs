//! Every POST takes an idempotency key: the same request under the same key has one effect and the same answer, another
//! one is refused.

use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::on_both;
use crate::server::{Answer, Server, read, request};

async fn under(server: &Server, key: &str, path: &str, body: &Value) -> Answer {
    read(server.request(Method::POST, path).header("idempotency-key", key).json(body)).await
}

fn is_replayed(answer: &Answer) -> bool {
    answer.headers.get("idempotent-replayed").is_some_and(|value| value == "true")
}

/// An onboarding that waits for approval.
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
    async fn a_key_is_made_once_and_its_secret_shown_once(mut server: Server) {
        let body = json!({ "name": "ci", "scopes": ["viewer"] });
        let answers = join_all((0..6).map(|_| under(&server, "k", "/v1/keys", &body))).await;
        let ids: Vec<&str> = answers.iter().map(|answer| answer.body["id"].as_str().expect(&answer.text)).collect();
        assert!(answers.iter().all(|answer| answer.status == 201) && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        assert_eq!(answers.iter().filter(|answer| answer.body.get("secret").is_some()).count(), 1);
        assert_eq!(answers.iter().filter(|answer| is_replayed(answer)).count(), 5);
        assert!(answers.iter().all(|answer| is_replayed(answer) != answer.body.get("secret").is_some()));
        let other = under(&server, "k", "/v1/keys", &json!({ "name": "cd", "scopes": ["viewer"] })).await;
        assert_eq!(other.problem(422, "idempotency_key_reused"), ["Idempotency-Key"]);
        assert_eq!(server.get("/v1/keys").await.body["data"].as_array().unwrap().len(), 2, "and the admin key");

        let revoke = format!("/v1/keys/{}/revoke", ids[0]);
        let first = under(&server, "r", &revoke, &json!({})).await.expect(200);
        let again = under(&server, "r", &revoke, &json!({})).await.expect(200);
        assert_eq!((is_replayed(&first), is_replayed(&again)), (false, true));
        assert_eq!(again.body, first.body);
        // The same key for something else that was made by a POST.
        under(&server, "r", "/v1/keys", &body).await.problem(422, "idempotency_key_reused");
    }

    async fn a_signal_is_given_once(mut server: Server) {
        let id = gated(&server, "Acme").await;
        let path = |verb: &str| format!("/v1/operations/{id}/{verb}");
        let nothing = json!({});
        let paused = under(&server, "p", &path("pause"), &nothing).await.expect(200);
        assert_eq!((paused.body["state"].as_str(), is_replayed(&paused)), (Some("paused"), false));
        server.post(&path("resume"), &nothing).await.expect(200);
        // The present view: it runs again, and this pauses nothing.
        let again = under(&server, "p", &path("pause"), &nothing).await.expect(200);
        assert_eq!((again.body["state"].as_str(), is_replayed(&again)), (Some("running"), true));
        under(&server, "p", &path("cancel"), &nothing).await.problem(422, "idempotency_key_reused");
        let other = gated(&server, "Other").await;
        let elsewhere = under(&server, "p", &format!("/v1/operations/{other}/pause"), &nothing).await;
        elsewhere.problem(422, "idempotency_key_reused");

        let (approval, approve) = (path("approve"), json!({ "step": "approve" }));
        let answers = join_all((0..6).map(|_| under(&server, "a", &approval, &approve))).await;
        for answer in &answers {
            assert_eq!(answer.status, 200, "{}", answer.text);
        }
        assert_eq!(answers.iter().filter(|answer| !is_replayed(answer)).count(), 1);
        assert_eq!(server.done(&id).await["state"], "succeeded");
        // Without the key it could not be asked any more.
        assert!(is_replayed(&under(&server, "a", &approval, &approve).await.expect(200)));
        server.post(&approval, &approve).await.problem(409, "signal_refused");
        let reason = |reason: &str| json!({ "step": "approve", "reason": reason });
        let reject = format!("/v1/operations/{other}/reject");
        under(&server, "x", &reject, &reason("no contract")).await.expect(200);
        under(&server, "x", &reject, &reason("another reason")).await.problem(422, "idempotency_key_reused");
        assert_eq!(server.done(&other).await["state"], "rolled_back");
    }

    async fn a_tenant_is_made_again_once(mut server: Server) {
        let id = gated(&server, "Acme").await;
        server.post(&format!("/v1/operations/{id}/cancel"), &json!({})).await.expect(200);
        server.done(&id).await;
        let (path, nothing) = ("/v1/tenants/acme/provision", json!({}));
        let answers = join_all((0..6).map(|_| under(&server, "again", path, &nothing))).await;
        let ids: Vec<&str> = answers.iter().map(|answer| answer.body["id"].as_str().expect(&answer.text)).collect();
        assert!(answers.iter().all(|answer| answer.status == 202) && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        assert_eq!(answers.iter().filter(|answer| !is_replayed(answer)).count(), 1);
        assert_eq!(answers[5].headers["location"], format!("/v1/operations/{}", ids[0]));
        server.post(path, &json!({})).await.problem(409, "illegal_transition");
        server.kill_and_restart().await;
        let later = under(&server, "again", path, &json!({})).await.expect(202);
        assert_eq!((later.body["id"].as_str(), is_replayed(&later)), (Some(ids[0]), true));
    }
}

/// From the description: every POST of the API names the header, but for the one that hands secrets out and the one that
/// signs the same address every time; and none takes what is no key.
#[tokio::test]
async fn every_post_looks_at_the_key() {
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
            assert!(post["description"].as_str().unwrap().contains("not replayed"), "{path}");
        }
        if ["/data/", "/objects/", "/exports"].iter().any(|of_tenants| path.starts_with(of_tenants)) {
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
