//! Sessions: refresh tokens work once, a used one that comes back ends its session, and members, administrators of the tenant
//! and operators list and end sessions.

use futures::future::join_all;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::on_both;
use crate::server::{Answer, Server, read};

/// Onboards a tenant and accepts the invitation of its first administrator; returns the tenant's id and the tokens.
async fn onboard(server: &Server, name: &str) -> (String, Value) {
    let operation = server.onboard(name).await;
    let path = format!("/v1/operations/{}/credentials", operation["id"].as_str().unwrap());
    let claimed = server.post(&path, &json!({})).await.expect(200).body;
    let grant = json!({ "grant_type": "invitation", "token": claimed["credentials"][0]["value"] });
    let sent = server.bare(Method::POST, "/auth/token").header("user-agent", "curl/8.5.0").json(&grant);
    (operation["tenant_id"].as_str().unwrap().to_owned(), read(sent).await.expect(200).body)
}

/// A request with a form, as OAuth clients send it. The values need no encoding.
fn form(server: &Server, path: &str, fields: &[(&str, &str)]) -> RequestBuilder {
    let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let request = server.bare(Method::POST, path);
    request.header("content-type", "application/x-www-form-urlencoded").body(fields.join("&"))
}

/// Refreshes as OAuth clients do: by a form.
async fn refresh(server: &Server, tokens: &Value) -> Answer {
    let fields =
        [("grant_type", "refresh_token"), ("refresh_token", tokens["refresh_token"].as_str().unwrap())];
    read(form(server, "/auth/token", &fields)).await
}

async fn call(server: &Server, method: Method, path: &str, tokens: &Value) -> Answer {
    read(server.bare(method, path).bearer_auth(tokens["access_token"].as_str().unwrap())).await
}

async fn me(server: &Server, tokens: &Value) -> Answer {
    call(server, Method::GET, "/data/me", tokens).await
}

/// The only session that the list at this path has.
async fn only(server: &Server, path: &str) -> Value {
    let list = server.get(path).await.expect(200).body;
    assert_eq!(list["data"].as_array().unwrap().len(), 1, "{list}");
    list["data"][0].clone()
}

fn refused(answer: &Answer) {
    answer.problem(400, "refresh_refused");
    assert_eq!(answer.body["error"], "invalid_grant", "as RFC 6749 names it");
}

on_both! {
    async fn a_refresh_token_works_once(mut server: Server) {
        let (tenant, first) = onboard(&server, "Acme").await;
        let second = refresh(&server, &first).await.expect(200).body;
        assert_eq!((&second["token_type"], &second["expires_in"]), (&json!("Bearer"), &json!(300)));
        assert_ne!(second["refresh_token"], first["refresh_token"]);
        assert_eq!(me(&server, &second).await.expect(200).body["tenant_id"], tenant);
        // The response may have been lost: for some seconds the same successor is given again, also to requests at once.
        let again = join_all((0..6).map(|_| refresh(&server, &first))).await;
        assert!(again.into_iter().all(|answer| answer.expect(200).body["refresh_token"] == second["refresh_token"]));
        let at_once = join_all((0..6).map(|_| refresh(&server, &second))).await;
        let third: Vec<Value> = at_once.into_iter().map(|answer| answer.expect(200).body).collect();
        assert!(third.iter().all(|tokens| tokens["refresh_token"] == third[0]["refresh_token"]), "{third:?}");
        // A session lasts through a restart.
        server.kill_and_restart().await;
        let fourth = refresh(&server, &third[0]).await.expect(200).body;
        let session = only(&server, &format!("/v1/tenants/{tenant}/sessions")).await;
        assert_eq!((&session["method"], &session["user_agent"]), (&json!("invitation"), &json!("curl")));
        assert!(session["ended_at"].is_null() && session["last_used_at"].as_str() > session["created_at"].as_str());
        assert_eq!(server.audited("session.begin").await, 1);
        for tokens in [first, second, fourth] {
            let secret = tokens["refresh_token"].as_str().unwrap();
            assert!(!server.log().contains(secret) && !session.to_string().contains(secret));
        }
    }

    async fn a_used_refresh_token_ends_its_session(mut server: Server) {
        let (tenant, stolen) = onboard(&server, "Acme").await;
        let (_, other) = onboard(&server, "Other").await;
        let second = refresh(&server, &stolen).await.expect(200).body;
        let third = refresh(&server, &second).await.expect(200).body;
        me(&server, &third).await.expect(200);
        refused(&refresh(&server, &stolen).await);
        for tokens in [&stolen, &second, &third] {
            refused(&refresh(&server, tokens).await);
            me(&server, tokens).await.problem(401, "session_ended");
        }
        let session = only(&server, &format!("/v1/tenants/{tenant}/sessions")).await;
        assert_eq!(session["end_reason"], "token_reused");
        let event = server.event("session.token_reused").await;
        assert_eq!((&event["tenant_id"], &event["data"]["session_id"]), (&json!(tenant), &session["id"]));
        assert_eq!(server.audited("session.end").await, 1);
        // A token that was never given ends nothing, whatever it looks like.
        let (family, last) = other["refresh_token"].as_str().unwrap().split_once('.').unwrap();
        let forged = format!("tnr_{}.{last}", "A".repeat(family.len() - "tnr_".len()));
        for forged in [forged.as_str(), session["id"].as_str().unwrap(), "tnr_.", "x"] {
            refused(&refresh(&server, &json!({ "refresh_token": forged })).await);
        }
        refresh(&server, &other).await.expect(200);
    }

    async fn a_member_signs_out(mut server: Server) {
        let (_, first) = onboard(&server, "Acme").await;
        let tokens = refresh(&server, &first).await.expect(200).body;
        me(&server, &tokens).await.expect(200);
        let sign_out = async |token: &Value| {
            let token = token["refresh_token"].as_str().unwrap();
            let fields = [("token", token), ("token_type_hint", "refresh_token")];
            read(form(&server, "/auth/revoke", &fields)).await
        };
        sign_out(&json!({ "refresh_token": "unknown" })).await.expect(200);
        me(&server, &tokens).await.expect(200);
        for _ in 0..2 {
            sign_out(&first).await.expect(200);
            me(&server, &tokens).await.problem(401, "session_ended");
            refused(&refresh(&server, &tokens).await);
        }
        assert_eq!(server.audited("session.end").await, 1);
    }

    async fn sessions_are_listed_and_revoked(mut server: Server) {
        let (tenant, tokens) = onboard(&server, "Acme").await;
        let (_, stranger) = onboard(&server, "Other").await;
        let own = call(&server, Method::GET, "/auth/sessions", &tokens).await.expect(200).body;
        let id = own["data"][0]["id"].as_str().unwrap();
        assert_eq!((own["data"].as_array().unwrap().len(), &own["data"][0]["tenant_id"]), (1, &json!(tenant)));
        let path = format!("/auth/sessions/{id}/revoke");
        call(&server, Method::POST, &path, &stranger).await.problem(404, "not_found");
        let listed = server.cli(&["session", "list", "acme", "--output", "json"]).output().unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&listed.stdout).unwrap()[0]["id"], id);
        let foreign = server.key("tenant", stranger_tenant(&server, &stranger).await.as_str()).await;
        let list = server.bare(Method::GET, "/v1/tenants/acme/sessions").bearer_auth(foreign);
        read(list).await.problem(404, "not_found");
        me(&server, &tokens).await.expect(200);
        assert_eq!(call(&server, Method::POST, &path, &tokens).await.expect(200).body["end_reason"], "revoked");
        me(&server, &tokens).await.problem(401, "session_ended");
        call(&server, Method::GET, "/auth/sessions", &tokens).await.problem(401, "session_ended");

        let session = call(&server, Method::GET, "/auth/sessions?all=true", &stranger).await.expect(200).body;
        let revoke = format!("/v1/sessions/{}/revoke", session["data"][0]["id"].as_str().unwrap());
        let revoke = async || read(server.request(Method::POST, &revoke).header("idempotency-key", "once")).await;
        assert_eq!(revoke().await.expect(200).body["end_reason"], "revoked");
        assert_eq!(revoke().await.expect(200).headers["idempotent-replayed"], "true");
        refused(&refresh(&server, &stranger).await);
        let done = server.cli(&["session", "revoke", id, "--yes"]).output().unwrap();
        assert!(done.status.success(), "ending it again changes nothing");
        assert_eq!(server.audited("session.end").await, 2);
    }

    async fn a_suspension_denies_sessions_as_its_mode_says(mut server: Server) {
        let (tenant, tokens) = onboard(&server, "Acme").await;
        let suspend = async |mode: &str| {
            let body = json!({ "reason": "policy", "mode": mode });
            server.post(&format!("/v1/tenants/{tenant}/suspend"), &body).await.expect(200)
        };
        suspend("read_only").await;
        let tokens = refresh(&server, &tokens).await.expect(200).body;
        for mode in ["no_login", "blocked"] {
            suspend(mode).await;
            refresh(&server, &tokens).await.problem(403, "tenant_suspended");
            me(&server, &tokens).await.problem(403, "tenant_suspended");
        }
        server.post(&format!("/v1/tenants/{tenant}/resume"), &json!({})).await.expect(200);
        refresh(&server, &tokens).await.expect(200);
        server.post(&format!("/v1/tenants/{tenant}/erase"), &json!({ "reason": "over" })).await.expect(202);
        refresh(&server, &tokens).await.problem(403, "tenant_not_active");
    }
}

async fn stranger_tenant(server: &Server, tokens: &Value) -> String {
    me(server, tokens).await.expect(200).body["tenant_id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_session_is_refreshed_and_ended_by_any_process() {
    let Some(first) = Server::one_of_several().await else { return };
    let second = first.beside().await;
    let (_, tokens) = onboard(&first, "Acme").await;
    let tokens = refresh(&second, &tokens).await.expect(200).body;
    me(&second, &tokens).await.expect(200);
    let fields = [("token", tokens["refresh_token"].as_str().unwrap())];
    read(form(&first, "/auth/revoke", &fields)).await.expect(200);
    me(&second, &tokens).await.problem(401, "session_ended");
    refused(&refresh(&second, &tokens).await);
}
