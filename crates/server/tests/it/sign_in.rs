//! Signing in as a member of a tenant: by an invitation, once, or by a password; and rejections that do not
//! reveal the reason.

use reqwest::Method;
use serde_json::{Value, json};

use crate::on_both;
use crate::server::{Answer, Server, read, request};

async fn grant(server: &Server, grant: Value) -> Answer {
    read(server.bare(Method::POST, "/auth/token").json(&grant)).await
}

fn invitation(token: &str) -> Value {
    json!({ "grant_type": "invitation", "token": token })
}

fn password(tenant: &str, email: &str, password: &str) -> Value {
    json!({ "grant_type": "password", "tenant": tenant, "email": email, "password": password })
}

/// Onboards a tenant and claims its first administrator's secret; returns its id and the secret.
async fn onboard(server: &Server, name: &str, plan: &str) -> (String, String) {
    let operation = server.post("/v1/tenants", &request(name, plan)).await.expect(202);
    let operation = server.done(operation.body["id"].as_str().unwrap()).await;
    let path = format!("/v1/operations/{}/credentials", operation["id"].as_str().unwrap());
    let claimed = server.post(&path, &json!({})).await.expect(200).body;
    let secret = claimed["credentials"][0]["value"].as_str().unwrap().to_owned();
    (operation["tenant_id"].as_str().unwrap().to_owned(), secret)
}

on_both! {
    async fn an_invitation_accepted_from_the_mail_is_no_longer_claimable(mut server: Server) {
        let operation = server.onboard("Acme").await;
        let welcome = operation["steps"].as_array().unwrap().iter().find(|step| step["key"] == "welcome").unwrap();
        server.done(welcome["operation_id"].as_str().unwrap()).await;
        let mails = std::fs::read_dir(server.folder().join("outbox")).unwrap().flatten();
        let mail = mails.map(|mail| std::fs::read_to_string(mail.path()).unwrap()).collect::<String>();
        let mail = mail.replace("=\r\n", "").replace("=\n", "");
        let token = mail.split("/auth/invitation#").nth(1).unwrap();
        let token: String =
            token.chars().take_while(|c| c.is_ascii_alphanumeric() || "-_".contains(*c)).collect();
        let id = operation["id"].as_str().unwrap();
        let waits = async || server.get(&format!("/v1/operations/{id}")).await.body["response"]["credentials_waiting"].clone();
        assert_eq!(waits().await, true);
        grant(&server, invitation(&token)).await.expect(200);
        assert_eq!(waits().await, false);
        server.post(&format!("/v1/operations/{id}/credentials"), &json!({})).await.problem(410, "credentials_gone");
    }

    async fn an_invitation_is_accepted_once_and_for_its_tenant(mut server: Server) {
        let (tenant, token) = onboard(&server, "Acme", "starter").await;
        let (other, foreign) = onboard(&server, "Other", "starter").await;
        let tries = futures::future::join_all((0..6).map(|_| grant(&server, invitation(&token)))).await;
        let (good, bad): (Vec<_>, Vec<_>) = tries.into_iter().partition(|answer| answer.status == 200);
        assert_eq!((good.len(), bad.len()), (1, 5), "{good:?} {bad:?}");
        assert_eq!(good[0].body["must_change_password"], false);
        let detail = |answer: &Answer| { answer.problem(401, "invitation_refused"); answer.body["detail"].clone() };
        let unknown = detail(&grant(&server, invitation("nothing")).await);
        assert!(bad.iter().all(|answer| detail(answer) == unknown), "a used invitation looks like an unknown one");

        let bearer = good[0].body["access_token"].as_str().unwrap();
        let get = |path: String, bearer: &str| read(server.bare(Method::GET, &path).bearer_auth(bearer));
        let me = get("/data/me".to_owned(), bearer).await.expect(200).body;
        assert_eq!((&me["tenant_id"], &me["role"], &me["status"]), (&json!(tenant), &json!("owner"), &json!("active")));
        let foreign = grant(&server, invitation(&foreign)).await.expect(200).body;
        let foreign = foreign["access_token"].as_str().unwrap();
        assert_eq!(get("/data/me".to_owned(), foreign).await.body["tenant_id"], other);
        let row = server.bare(Method::POST, "/data/tasks").bearer_auth(bearer);
        let row = read(row.json(&json!({ "project_id": "starter", "title": "Ours" }))).await.expect(201);
        let path = row.headers["location"].to_str().unwrap().to_owned();
        get(path.clone(), bearer).await.expect(200);
        get(path, foreign).await.problem(404, "not_found");
        // The invitation stays used after a restart.
        server.kill_and_restart().await;
        grant(&server, invitation(&token)).await.problem(401, "invitation_refused");
    }

    async fn a_member_is_invited_again(mut server: Server) {
        let (tenant, first) = onboard(&server, "Acme", "starter").await;
        let path = format!("/v1/tenants/{tenant}/invitations");
        let invite = async |key: &str, body: Value| {
            read(server.request(Method::POST, &path).header("idempotency-key", key).json(&body)).await
        };
        let second = invite("a", json!({})).await.expect(201).body;
        grant(&server, invitation(&first)).await.problem(401, "invitation_refused");
        let again = invite("a", json!({})).await.expect(201);
        assert_eq!((&again.body["id"], again.body.get("token")), (&second["id"], None), "the token is shown once");
        assert_eq!(again.headers["idempotent-replayed"], "true");
        grant(&server, invitation(second["token"].as_str().unwrap())).await.expect(200);
        // The member has no other credential, and is let in again.
        let third = invite("b", json!({ "email": " Ada@EXAMPLE.com" })).await.expect(201).body;
        assert_eq!((&third["member_id"], &third["role"]), (&second["member_id"], &json!("owner")));
        let output = server.cli(&["member", "invite", "acme", "--output", "json"]).output().unwrap();
        let fourth: Value = serde_json::from_slice(&output.stdout).unwrap();
        grant(&server, invitation(third["token"].as_str().unwrap())).await.problem(401, "invitation_refused");
        let token = grant(&server, invitation(fourth["token"].as_str().unwrap())).await.expect(200).body;
        let me = server.bare(Method::GET, "/data/me").bearer_auth(token["access_token"].as_str().unwrap());
        assert_eq!(read(me).await.expect(200).body["tenant_id"], tenant);
        invite("c", json!({ "email": "eve@example.com" })).await.problem(404, "not_found");
        assert_eq!(server.audited("invitation.create").await, 3);
        server.post(&format!("/v1/tenants/{tenant}/erase"), &json!({ "reason": "over" })).await.expect(202);
        invite("d", json!({})).await.problem(409, "illegal_transition");
    }

    async fn a_one_time_password_signs_in_and_must_be_changed(mut server: Server) {
        let (tenant, secret) = onboard(&server, "Acme", "password").await;
        onboard(&server, "Other", "password").await;
        for name in [tenant.as_str(), "acme"] {
            let token = grant(&server, password(name, " ADA@example.com", &secret)).await.expect(200).body;
            assert_eq!(token["must_change_password"], true);
            let me = server.bare(Method::GET, "/data/me").bearer_auth(token["access_token"].as_str().unwrap());
            assert_eq!(read(me).await.expect(200).body["tenant_id"], tenant);
        }
        // Rejections are equal for an unknown tenant or member, a wrong password, and another tenant's
        // password.
        let mut refusals = Vec::new();
        for wrong in [
            password("nobody", "ada@example.com", &secret),
            password("ten_01h2xcejqtf2nbrexx3vqjhp41", "ada@example.com", &secret),
            password("acme", "eve@example.com", &secret),
            password("acme", "ada@example.com", "wrong"),
            password("other", "ada@example.com", &secret),
        ] {
            let refused = grant(&server, wrong).await;
            refused.problem(401, "password_refused");
            let mut body = refused.body;
            body["request_id"] = Value::Null;
            refusals.push(body);
        }
        assert!(refusals.iter().all(|refusal| *refusal == refusals[0]), "{refusals:#?}");
        assert!(!server.log().contains(&secret));
    }

    async fn guessing_is_slowed_down(mut server: Server) {
        let (_, secret) = onboard(&server, "Acme", "password").await;
        let guess = async |email: &str, word: &str| grant(&server, password("acme", email, word)).await;
        for _ in 0..20 {
            guess("ada@example.com", &secret).await.expect(200);
        }
        let guesses = futures::future::join_all((0..40).map(|_| guess("ada@example.com", "wrong"))).await;
        let statuses = |status: u16| guesses.iter().filter(|answer| answer.status == status).count();
        assert_eq!((statuses(401), statuses(429)), (10, 30));
        let refused = guess("ada@example.com", &secret).await;
        refused.problem(429, "too_many_attempts");
        assert_eq!(refused.headers["retry-after"], "900");
        // An account that does not exist is slowed down alike, and others are not.
        let unknown = futures::future::join_all((0..11).map(|_| guess("eve@example.com", "wrong"))).await;
        assert_eq!(unknown.iter().filter(|answer| answer.status == 429).count(), 1);
        guess("bea@example.com", "wrong").await.problem(401, "password_refused");
        let others = futures::future::join_all((0..100).map(async |n| guess(&format!("u{n}@example.com"), "wrong").await));
        let limited = others.await.into_iter().filter(|answer| answer.status == 429).count();
        assert!(limited > 0, "an address is slowed down over all accounts");
    }

    async fn an_invited_member_has_no_password(mut server: Server) {
        let (_, token) = onboard(&server, "Acme", "starter").await;
        for guess in ["", "sha256:", token.as_str()] {
            let refused = grant(&server, password("acme", "ada@example.com", guess)).await;
            match guess {
                "" => assert_eq!(refused.problem(422, "request_invalid"), ["password"]),
                _ => assert!(refused.problem(401, "password_refused").is_empty()),
            }
        }
        grant(&server, invitation(&token)).await.expect(200);
    }
}

#[tokio::test]
async fn an_invalid_grant_is_reported_by_field() {
    let server = Server::sqlite().await;
    for (given, faults) in [
        (json!({}), vec!["grant_type"]),
        (json!([]), vec!["grant_type"]),
        (json!({ "grant_type": "client_credentials" }), vec!["grant_type"]),
        (json!({ "grant_type": "code" }), vec!["code"]),
        (json!({ "grant_type": "invitation", "token": 7 }), vec!["token"]),
        (json!({ "grant_type": "password", "user": "x" }), vec!["email", "password", "tenant", "user"]),
    ] {
        assert_eq!(grant(&server, given).await.problem(422, "request_invalid"), faults);
    }
    let explained = read(server.bare(Method::GET, "/auth/invitation")).await.expect(200).body;
    assert_eq!(
        (&explained["post"], &explained["body"]["grant_type"]),
        (&json!("/auth/token"), &json!("invitation"))
    );
}
