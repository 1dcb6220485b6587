//! Rotation of credentials, over HTTP and by the command line: logins on PostgreSQL in each isolation model,
//! and tenants without logins.

use std::process::Stdio;

use serde_json::{Value, json};
use tenantry_testkit::database::execute;

use crate::databases::login;
use crate::on_both;
use crate::plans::{made, onboard};
use crate::server::{Server, request};

async fn has_access(login: &str) -> bool {
    let write =
        "DO $$ BEGIN UPDATE projects SET name = 'Ours'; IF NOT FOUND THEN RAISE 'none'; END IF; END $$";
    execute(login, write.to_owned()).await.is_ok()
}

/// Exit code and stdout of `tenantry` with these arguments.
fn cli(server: &Server, arguments: &[&str]) -> (Option<i32>, String) {
    let output = server.cli(arguments).stdin(Stdio::null()).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

async fn ended(server: &Server, id: &str) -> Value {
    let mut operation = server.done(id).await;
    assert_eq!(operation["state"], "succeeded", "{operation:#}");
    let claim = format!("/v1/operations/{id}/credentials");
    operation["credentials"] = server.post(&claim, &json!({})).await.expect(200).body["credentials"].clone();
    server.post(&claim, &json!({})).await.problem(410, "credentials_gone");
    operation
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passwords_are_rotated_without_interruption() {
    let Some(server) = Server::with_tenants_on_postgres().await else { return };
    for plan in ["starter", "growth", "enterprise"] {
        let (operation, _) = onboard(&server, &request(plan, plan)).await;
        let first = login(&operation);
        let path = format!("/v1/tenants/{plan}/rotate-credentials");
        let begun = server.post(&path, &json!({ "grace_hours": 1 })).await.expect(202);
        let id = begun.body["id"].as_str().unwrap();
        assert_eq!(begun.headers["location"], format!("/v1/operations/{id}"));
        let rotation = ended(&server, id).await;
        assert_eq!(
            (&rotation["kind"], rotation["steps"].as_array().unwrap().len()),
            (&json!("rotate_credentials"), 1)
        );
        assert!(made(&rotation, "database")["former_until"].is_string(), "{rotation:#}");
        let second = login(&rotation);
        assert!(has_access(&first).await && has_access(&second).await, "{plan}");
        server.post(&path, &json!({})).await.problem(409, "rotation_under_way");
        assert_eq!(cli(&server, &["tenant", "status", plan]).0, Some(0), "{plan}");

        // A suspension fences both logins.
        let tenant = format!("/v1/tenants/{plan}");
        server.post(&format!("{tenant}/suspend"), &json!({ "reason": "policy" })).await.expect(200);
        assert!(!has_access(&first).await && !has_access(&second).await, "{plan}");
        server.post(&format!("{tenant}/resume"), &json!({})).await.expect(200);
        assert!(has_access(&first).await && has_access(&second).await, "{plan}");

        // After a leak: the old logins are invalidated at once.
        let (code, said) =
            cli(&server, &["tenant", "rotate-credentials", plan, "--now", "--wait", "--output", "json"]);
        assert_eq!(code, Some(0), "{said}");
        let said: Value = serde_json::from_str(&said).unwrap();
        let leaked = ended(&server, said["id"].as_str().unwrap()).await;
        assert_eq!(made(&leaked, "database")["former_until"], Value::Null);
        let third = login(&leaked);
        // The first role is used again; the tests' server does not check passwords.
        let role = |operation| made(operation, "database")["role"].clone();
        assert_eq!((role(&leaked) == role(&operation), third == first), (true, false), "{plan}");
        assert!(!has_access(&second).await && has_access(&third).await, "{plan}");

        // A repair changes nothing and reports the present role.
        let (code, said) = cli(&server, &["tenant", "repair", plan, "--wait", "--output", "json"]);
        let repair: Value = serde_json::from_str(&said).unwrap();
        assert_eq!((code, &repair["response"]["credentials_waiting"]), (Some(0), &json!(false)), "{said}");
        assert_eq!(made(&repair, "database")["role"], made(&leaked, "database")["role"]);
        assert!(has_access(&third).await, "{plan}");
        assert_eq!(cli(&server, &["drift"]), (Some(0), String::new()), "{plan}");
        let log = server.log();
        for operation in [&operation, &rotation, &leaked] {
            let secrets = operation["credentials"].as_array().unwrap().iter();
            let mut secrets = secrets.map(|it| it["value"].as_str().unwrap());
            assert!(secrets.all(|secret| !log.contains(secret)), "a secret is in the log");
        }

        let tenant = format!("/v1/tenants/{}", operation["tenant_id"].as_str().unwrap());
        let begun = server.post(&format!("{tenant}/erase"), &json!({ "reason": "asked" })).await.expect(202);
        let late = server.post(&format!("{tenant}/rotate-credentials"), &json!({})).await;
        late.problem(409, "illegal_transition");
        let erased = server.done(begun.body["id"].as_str().unwrap()).await;
        assert_eq!(erased["state"], "succeeded", "{erased:#}");
        assert!(!has_access(&third).await, "{plan}");
        let certificate = server.get(&format!("{tenant}/certificate")).await.expect(200).body;
        assert!(certificate.to_string().contains("\"logins\":2"), "{certificate:#}");
    }
}

on_both! {
    async fn a_tenant_without_logins_has_nothing_to_rotate(mut server: Server) {
        server.onboard("Acme").await;
        let path = "/v1/tenants/acme/rotate-credentials";
        server.post(path, &json!({})).await.problem(409, "nothing_to_rotate");
        for bad in [json!({ "grace_hours": -1 }), json!({ "grace_hours": 721 }), json!({ "grace_hours": "1d" })] {
            let refused = server.post(path, &bad).await;
            refused.problem(422, "request_invalid");
        }
        server.post("/v1/tenants/absent/rotate-credentials", &json!({})).await.problem(404, "not_found");
        assert_eq!(cli(&server, &["tenant", "rotate-credentials", "acme"]).0, Some(4));
        assert_eq!(cli(&server, &["tenant", "rotate-credentials", "acme", "--now", "--grace-hours", "3"]).0, Some(2));
    }
}
