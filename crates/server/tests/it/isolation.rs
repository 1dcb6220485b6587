//! Isolation checks: a signed matrix over tenants of every plan, a leak that is found and reported, and
//! tenants that cannot be checked.

use std::process::Stdio;

use reqwest::Method;
use serde_json::{Value, json};
use tenantry_testkit::database::execute;

use crate::plans::onboard;
use crate::server::{Server, read, request};

const CHECKS: &str = "/v1/isolation-checks";

fn cells<'a>(report: &'a Value, outcome: &str) -> Vec<&'a Value> {
    let matrix = report["report"]["matrix"].as_array().unwrap();
    matrix.iter().filter(|cell| cell["outcome"] == outcome).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leak_is_found_and_reported() {
    let Some(server) = Server::with_tenants_on_postgres().await else { return };
    let mut first = String::new();
    for plan in ["starter", "growth", "enterprise"] {
        for name in ["Acme", "Other"] {
            let (operation, _) = onboard(&server, &request(&format!("{name} {plan}"), plan)).await;
            if first.is_empty() {
                first = operation["tenant_id"].as_str().unwrap().to_owned();
            }
        }
    }
    let clean = server.post(CHECKS, &json!({})).await.expect(201).body;
    assert_eq!(clean["report"]["leaks"], 0, "{clean:#}");
    assert_eq!((cells(&clean, "leak").len(), &clean["genuine"]), (0, &json!(true)));
    assert_eq!(clean["report"]["tenants"].as_array().unwrap().len(), 6);
    for (model, what) in [("pool", "rows"), ("schema", "rows"), ("database", "connect")] {
        let denied = cells(&clean, "denied");
        assert!(denied.iter().any(|cell| cell["model"] == model && cell["what"] == what), "{model} {what}");
    }
    let trusted = clean["report"]["trusted"].to_string();
    assert!(trusted.contains("application role"), "{trusted}");

    let policy = "POLICY tenantry_select ON tenantry_pool.tasks";
    execute(server.tenants_database(), format!("ALTER {policy} USING (true)")).await.unwrap();
    let named = json!({ "tenants": [first] });
    let send = || read(server.request(Method::POST, CHECKS).header("idempotency-key", "k").json(&named));
    let found = send().await.expect(201).body;
    let rows = cells(&found, "leak").into_iter().find(|cell| cell["what"] == "rows").expect("a leak");
    assert_eq!(rows["found"], json!(["tenantry_pool.tasks"]));
    assert_eq!(found["report"]["previous"], clean["report"]["id"]);
    let changes = found["report"]["changes"].as_array().unwrap();
    assert!(
        changes.iter().any(|change| change["what"] == "rows"
            && change["before"] == "denied"
            && change["now"] == "leak")
    );
    let again = send().await.expect(201);
    assert_eq!(again.headers["idempotent-replayed"], "true");
    assert_eq!(again.body, found);
    let output = server.cli(&["isolation", "check"]).stdin(Stdio::null()).output().unwrap();
    let table = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{table}");
    assert!(table.contains("tenantry_pool.tasks"), "{table}");
    let metrics = async || read(server.bare(Method::GET, "/metrics")).await.expect(200).text;
    let text = metrics().await;
    assert!(
        text.contains("tenantry_isolation_red_cells ") && !text.contains("tenantry_isolation_red_cells 0"),
        "{text}"
    );
    assert!(!text.contains("tenantry_isolation_last_check_timestamp_seconds 0"), "{text}");
    server.events_are_numbered().await;
    let events = server.cli(&["event", "list", "--output", "json"]).stdin(Stdio::null()).output().unwrap();
    let events: Value = serde_json::from_slice(&events.stdout).unwrap();
    let told = events.as_array().unwrap().iter().filter(|event| event["type"] == "isolation.leak_found");
    let told: Vec<&Value> = told.map(|event| &event["data"]["report_id"]).collect();
    assert_eq!((told.len(), told[0]), (2, &found["report"]["id"]));

    let restored = "USING (tenant_id = (SELECT tenantry.session_tenant(false)))";
    execute(server.tenants_database(), format!("ALTER {policy} {restored}")).await.unwrap();
    let output = server.cli(&["isolation", "check"]).stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(metrics().await.contains("tenantry_isolation_red_cells 0"));
    let viewer = server.key("viewer", "").await;
    let kept = read(server.bare(Method::GET, CHECKS).bearer_auth(&viewer)).await.expect(200).body;
    let kept = kept["data"].as_array().unwrap();
    assert_eq!((kept.len(), &kept[3]), (4, &clean));
    assert!(kept.iter().all(|report| report["genuine"] == true));
    read(server.bare(Method::POST, CHECKS).bearer_auth(&viewer).json(&json!({})))
        .await
        .problem(403, "forbidden");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unchecked_tenants_are_reported() {
    let server = Server::sqlite().await;
    let empty = server.post(CHECKS, &json!({})).await.expect(201).body;
    assert_eq!((&empty["report"]["leaks"], &empty["report"]["left_out"]), (&json!(0), &json!([])));
    server.onboard("Acme").await;
    let report = server.post(CHECKS, &json!({ "tenants": ["acme"] })).await.expect(201).body;
    assert_eq!(report["report"]["matrix"], json!([]));
    assert_eq!(report["report"]["left_out"][0]["tenants"], 1, "{report:#}");
    server.post(CHECKS, &json!({ "tenants": ["nobody"] })).await.problem(404, "not_found");
    assert_eq!(
        server.post(CHECKS, &json!({ "tenants": 1 })).await.problem(422, "request_invalid"),
        ["tenants"]
    );
}
