//! Tenants on PostgreSQL in each isolation model: onboarding, repair, and fences of their database logins.

use reqwest::Method;
use serde_json::{Value, json};
use tenantry_testkit::database::execute;
use tenantry_testkit::store::count_rows;

use crate::plans::{made, onboard};
use crate::server::{Server, read, request};

/// The URL of the tenant's database login, from the operation's outputs and credentials.
pub fn login(operation: &Value) -> String {
    let of = |key: &str| made(operation, "database")[key].to_string().trim_matches('"').to_owned();
    let [role, host, port, database] = ["role", "host", "port", "database"].map(of);
    let name = format!("postgres_password:{role}");
    let credentials = operation["credentials"].as_array().unwrap();
    let password = credentials.iter().find(|credential| credential["name"] == name).expect("a password");
    format!("postgres://{role}:{}@{host}:{port}/{database}", password["value"].as_str().unwrap())
}

fn provider(operation: &Value) -> &Value {
    let steps = operation["steps"].as_array().unwrap();
    &steps.iter().find(|step| step["key"] == "database").unwrap()["provider"]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_plan_has_its_isolation_model() {
    let Some(server) = Server::with_tenants_on_postgres().await else { return };
    for (plan, name) in
        [("starter", "postgres_pool"), ("growth", "postgres_schema"), ("enterprise", "postgres_database")]
    {
        let (operation, token) = onboard(&server, &request(&format!("Acme {plan}"), plan)).await;
        let (other, stranger) = onboard(&server, &request(&format!("Other {plan}"), plan)).await;
        assert_eq!(provider(&operation), name);
        let smoke = operation["steps"].as_array().unwrap().iter().find(|step| step["key"] == "smoke_test");
        assert_eq!(smoke.unwrap()["state"], "done", "{plan}");

        let row = json!({ "id": "mine", "name": "Ours", "description": "" });
        let insert = server.bare(Method::POST, "/data/projects").bearer_auth(&token).json(&row);
        assert_eq!(read(insert).await.expect(201).body["sample"], false, "{plan}");
        let see = |bearer: &str| read(server.bare(Method::GET, "/data/projects/mine").bearer_auth(bearer));
        assert_eq!(see(&token).await.expect(200).body["name"], "Ours");
        see(&stranger).await.problem(404, "not_found");

        // The seeded project and the new one; a login reads the rows of its own tenant only.
        assert_eq!(count_rows(&login(&operation), "projects").await, 2, "{plan}");
        assert_eq!(count_rows(&login(&other), "projects").await, 1, "{plan}");
        let log = server.log();
        let secrets =
            operation["credentials"].as_array().unwrap().iter().map(|it| it["value"].as_str().unwrap());
        assert!(secrets.into_iter().all(|secret| !log.contains(secret)), "a secret is in the log");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repair_keeps_rows_and_password() {
    let Some(server) = Server::with_tenants_on_postgres().await else { return };
    let (operation, token) = onboard(&server, &request("Acme", "growth")).await;
    let tenant = operation["tenant_id"].as_str().unwrap();
    let begun = server.post(&format!("/v1/tenants/{tenant}/repair"), &json!({})).await.expect(202).body;
    let repaired = server.done(begun["id"].as_str().unwrap()).await;
    assert_eq!(repaired["state"], "succeeded", "{repaired:#}");
    let claim = format!("/v1/operations/{}/credentials", repaired["id"].as_str().unwrap());
    let claimed = server.post(&claim, &json!({})).await;
    assert!(!claimed.text.contains("postgres_password"), "a repair reveals no password");
    let rows = read(server.bare(Method::GET, "/data/projects").bearer_auth(&token)).await.expect(200).body;
    assert_eq!(rows["data"].as_array().unwrap().len(), 1);
    assert_eq!(count_rows(&login(&operation), "projects").await, 1, "the password is still valid");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspension_fences_database_logins() {
    let Some(server) = Server::with_tenants_on_postgres().await else { return };
    for (plan, provider) in
        [("starter", "postgres_pool"), ("growth", "postgres_schema"), ("enterprise", "postgres_database")]
    {
        let (operation, _) = onboard(&server, &request(&format!("Acme {plan}"), plan)).await;
        let tenant = operation["tenant_id"].as_str().unwrap();
        let change = async |verb: &str, body: Value| {
            let path = format!("/v1/tenants/{tenant}/{verb}");
            server.post(&path, &body).await.expect(200).body["fences"].clone()
        };
        let fenced = |mode: Value| json!([{ "resource": "database", "kind": "database", "provider": provider, "mode": mode, "acknowledged": true }]);
        let login = login(&operation);
        let reads = async || execute(&login, "SELECT FROM projects".to_owned()).await.is_ok();
        // In the pool a policy hides rows that may not be written; an update then finds none.
        let writes = async || {
            let write = "DO $$ BEGIN UPDATE projects SET name = 'Ours'; IF NOT FOUND THEN RAISE 'none'; END IF; END $$";
            execute(&login, write.to_owned()).await.is_ok()
        };
        assert!(writes().await);
        assert_eq!(change("suspend", json!({ "reason": "payment" })).await, fenced(json!("blocked")));
        assert!(!reads().await, "{plan}");
        // A weaker reason changes nothing; the strictest remaining one applies.
        let also = json!({ "reason": "policy", "mode": "read_only" });
        assert_eq!(change("suspend", also).await, fenced(json!("blocked")));
        assert_eq!(change("resume", json!({ "reason": "payment" })).await, fenced(json!("read_only")));
        assert!(reads().await && !writes().await, "{plan}");
        assert_eq!(change("resume", json!({})).await, fenced(Value::Null));
        assert!(writes().await, "{plan}");
    }
}
