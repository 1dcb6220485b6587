//! Live status, drift and repair, over tenants of every plan on PostgreSQL and on SQLite.

use std::collections::BTreeSet;
use std::process::Stdio;

use reqwest::Method;
use serde_json::{Value, json};
use tenantry_testkit::database::execute;

use crate::on_both;
use crate::plans::{made, onboard};
use crate::server::{Server, read, request};

fn database(status: &Value) -> &Value {
    let resources = status["resources"].as_array().unwrap();
    resources.iter().find(|resource| resource["step"] == "database").unwrap()
}

/// Exit code and stdout of `tenantry` with these arguments.
fn cli(server: &Server, arguments: &[&str]) -> (Option<i32>, String) {
    let output = server.cli(arguments).stdin(Stdio::null()).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

on_both! {
    async fn an_unchanged_tenant_is_healthy(mut server: Server) {
        server.onboard("Acme").await;
        let status = server.get("/v1/tenants/acme/status").await.expect(200).body;
        assert_eq!((&status["status"], &status["healthy"]), (&json!("active"), &json!(true)), "{status:#}");
        assert_eq!((&status["database"]["provisioned"], &status["database"]["healthy"]), (&json!(true), &json!(true)));
        assert!(status["database"]["last_migration"].is_string(), "{status:#}");
        assert_eq!((&status["organization"]["created"], &status["settings"]["inherited"]), (&json!(true), &json!(false)));
        assert_eq!(database(&status)["differs"], json!([]));
        let drift = server.get("/v1/drift").await.expect(200).body;
        assert_eq!((&drift["checked"], &drift["data"], &drift["has_more"]), (&json!(1), &json!([]), &json!(false)));
        assert_eq!(cli(&server, &["drift"]), (Some(0), String::new()));
        assert_eq!(cli(&server, &["tenant", "status", "acme"]).0, Some(0));
        server.get("/v1/tenants/absent/status").await.problem(404, "not_found");
        let tenant = status["id"].as_str().unwrap();
        let own = server.key("tenant", tenant).await;
        let path = format!("/v1/tenants/{tenant}/status");
        read(server.bare(Method::GET, &path).bearer_auth(&own)).await.expect(200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drift_on_postgres_is_found_and_repaired() {
    let Some(server) = Server::with_tenants_on_postgres().await else { return };
    let mut places = Vec::new();
    for plan in ["starter", "growth", "enterprise"] {
        let (operation, _) = onboard(&server, &request(plan, plan)).await;
        let of = |key: &str| made(&operation, "database")[key].as_str().unwrap().to_owned();
        places.push([of("database"), of("schema"), of("role")]);
    }
    let of_database = |name: &str| {
        let (server, _) = server.tenants_database().rsplit_once('/').unwrap();
        format!("{server}/{name}")
    };
    assert_eq!(cli(&server, &["drift"]), (Some(0), String::new()));

    let [[main, _, starter], [_, growth, _], [own, _, enterprise]] = &places[..] else { panic!() };
    let harm = async |database: &str, sql: String| execute(&of_database(database), sql).await.unwrap();
    harm(main, "DROP POLICY tenantry_select ON tenantry_pool.tasks".to_owned()).await;
    harm(main, format!("ALTER ROLE \"{starter}\" NOLOGIN")).await;
    harm(main, format!("REVOKE SELECT ON \"{growth}\".projects FROM \"{growth}\"")).await;
    harm(main, format!("REVOKE CONNECT ON DATABASE \"{own}\" FROM \"{enterprise}\"")).await;
    let (code, lines) = cli(&server, &["drift"]);
    assert_eq!(code, Some(1), "{lines}");
    for line in [
        "starter  database (postgres_pool): its login role may not log in",
        "starter  database (postgres_pool): table `tasks`, policy `tenantry_select` is missing",
        "growth  database (postgres_schema): its login role has lost SELECT on table `projects`",
        "enterprise  database (postgres_database): its login role may not connect to the database",
    ] {
        assert!(lines.contains(line), "{line} in {lines}");
    }
    assert_eq!(cli(&server, &["drift", "--tenant", "growth"]).0, Some(1));
    let (code, said) = cli(&server, &["tenant", "repair", "growth", "--wait"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(cli(&server, &["tenant", "status", "growth"]).0, Some(0));
    // All other tenants at once.
    let (code, repaired) = cli(&server, &["repair", "--output", "json"]);
    let repaired: Vec<Value> = serde_json::from_str(&repaired).unwrap();
    let ends: BTreeSet<_> = repaired.iter().map(|it| (it["kind"].as_str(), it["state"].as_str())).collect();
    assert_eq!(
        (code, repaired.len(), ends),
        (Some(0), 2, BTreeSet::from([(Some("repair"), Some("succeeded"))]))
    );
    assert_eq!(cli(&server, &["drift"]), (Some(0), String::new()));
    assert_eq!(cli(&server, &["repair"]), (Some(0), String::new()));

    // A fence that was removed directly in the database.
    server.post("/v1/tenants/growth/suspend", &json!({ "reason": "payment" })).await.expect(200);
    let status = server.get("/v1/tenants/growth/status").await.expect(200).body;
    assert_eq!(
        (&status["healthy"], &database(&status)["fence"]),
        (&json!(true), &json!("blocked")),
        "{status:#}"
    );
    harm(main, format!("UPDATE tenantry.homes SET access = 'full' WHERE name = '{growth}'")).await;
    harm(main, format!("ALTER ROLE \"{growth}\" LOGIN")).await;
    let said =
        database(&server.get("/v1/tenants/growth/status").await.expect(200).body)["differs"].to_string();
    assert!(said.contains("its fence denies nothing instead of blocked"), "{said}");
    cli(&server, &["tenant", "repair", "growth", "--wait"]);
    let status = server.get("/v1/tenants/growth/status").await.expect(200).body;
    assert_eq!(
        (&status["healthy"], &database(&status)["fence"]),
        (&json!(true), &json!("blocked")),
        "{status:#}"
    );

    // A deleted schema is created again without its rows, and the loss is reported.
    harm(main, format!("DROP SCHEMA \"{growth}\" CASCADE")).await;
    let status = server.get("/v1/tenants/growth/status").await.expect(200).body;
    assert_eq!((&status["healthy"], &database(&status)["version"]), (&json!(false), &Value::Null));
    let (code, parked) = cli(&server, &["repair", "--tenant", "growth", "--output", "json"]);
    assert_eq!(code, Some(4));
    let parked: Vec<Value> = serde_json::from_str(&parked).unwrap();
    let id = parked[0]["id"].as_str().unwrap();
    assert_eq!(cli(&server, &["operation", "watch", id]).0, Some(4));
    let parked = server.get(&format!("/v1/operations/{id}")).await.expect(200).body;
    assert_eq!(parked["state"], "needs_attention", "{parked:#}");
    let steps = parked["steps"].as_array().unwrap();
    let step = steps.iter().find(|step| step["key"] == "database").unwrap();
    assert_eq!(step["error"]["code"], "content_lost", "{step}");
    assert_eq!(cli(&server, &["tenant", "status", "growth"]).0, Some(0), "the schema exists again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_database_is_reported_as_not_responding() {
    let Some(server) = Server::with_tenants_on_postgres().await else { return };
    let (operation, _) = onboard(&server, &request("Acme", "enterprise")).await;
    let name = made(&operation, "database")["database"].as_str().unwrap().to_owned();
    let (url, _) = server.tenants_database().rsplit_once('/').unwrap();
    let own = format!("{url}/{name}");
    // Blocks every session, even a new login.
    let hold = "BEGIN; LOCK TABLE pg_catalog.pg_class IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(600)";
    let holder = tokio::spawn(async move { execute(&own, hold.to_owned()).await });
    let held = format!(
        "DO $$ BEGIN WHILE NOT EXISTS (SELECT FROM pg_locks JOIN pg_database d ON d.oid = database WHERE datname = '{name}'
         AND mode = 'AccessExclusiveLock' AND granted AND relation = 'pg_class'::regclass) LOOP PERFORM pg_sleep(0.01); END LOOP; END $$"
    );
    execute(server.tenants_database(), held).await.unwrap();
    let status = server.get("/v1/tenants/acme/status").await.expect(200).body;
    let seen = database(&status);
    assert_eq!((&seen["responding"], &seen["exists"]), (&json!(false), &Value::Null), "{status:#}");
    assert_eq!(seen["differs"], json!(["the provider did not respond within 5 s"]));
    let others = status["resources"].as_array().unwrap().iter().filter(|it| it["step"] != "database");
    assert!(others.clone().count() > 3 && others.clone().all(|it| it["healthy"] == true), "{status:#}");
    assert_eq!(cli(&server, &["drift"]).0, Some(1));
    // An unavailable resource is not repaired: the repair would hang.
    assert_eq!(cli(&server, &["repair", "--output", "json"]), (Some(1), "[]\n".to_owned()));
    let end =
        format!("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{name}'");
    execute(server.tenants_database(), end).await.unwrap();
    assert!(holder.await.unwrap().is_err(), "the lock was held until here");
    assert_eq!(cli(&server, &["tenant", "status", "acme"]).0, Some(0));
}
