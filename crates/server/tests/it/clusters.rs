//! Clusters: tenants of a region are onboarded and erased on its own PostgreSQL. During its outage they wait,
//! tenants of other regions do not, and errors name the cluster.

use serde_json::{Value, json};
use tenantry_testkit::own_postgres::OwnPostgres;

use crate::plans::{made, onboard, sign_in};
use crate::server::{Server, request};

/// The differences between the scanned tenants and this one, and orphans.
async fn faults(server: &Server, like: &str) -> Vec<String> {
    let scan = server.stores().scan().await;
    let one = scan.tenants[like].clone();
    let of_each = scan
        .tenants
        .iter()
        .flat_map(|(id, found)| found.faults(&one).into_iter().map(move |fault| format!("{id}: {fault}")));
    scan.orphans.iter().cloned().chain(of_each).collect()
}

fn far(name: &str) -> Value {
    let mut document = request(name, "enterprise");
    document["region"] = "far".into();
    document
}

/// Output of `tenantry doctor`, and whether it succeeded.
fn doctor(server: &Server) -> (String, bool) {
    let output = server.cli(&["doctor"]).output().expect("tenantry doctor");
    (String::from_utf8(output.stdout).expect("a text"), output.status.success())
}

fn id_of(operation: &Value) -> String {
    operation["tenant_id"].as_str().expect("an id").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_of_a_region_are_on_its_cluster() {
    let Some(mut second) = OwnPostgres::start(&["fsync=off"]).await else { return };
    let Some(server) = Server::with_cluster(&second.url()).await else { return };
    let (near, _) = onboard(&server, &request("Near", "enterprise")).await;
    let (first, _) = onboard(&server, &far("Far")).await;
    let port = |operation: &Value| made(operation, "database")["port"].as_u64();
    assert_ne!(port(&near), port(&first));
    assert!(second.url().contains(&format!(":{}/", port(&first).expect("a port"))));
    let (text, content) = doctor(&server);
    assert!(content, "{text}");

    second.down();
    let begun = server.post("/v1/tenants", &far("Late")).await.expect(202).body;
    let late = begun["id"].as_str().expect("an id");
    let approve = format!("/v1/operations/{late}/approve");
    server.post(&approve, &json!({ "step": "approve" })).await.expect(200);
    let waits = server
        .until(late, |operation| {
            let steps = operation["steps"].as_array().expect("a list").iter();
            let error = steps
                .filter(|step| step["key"] == "database")
                .map(|step| step["error"]["message"].to_string());
            error.into_iter().any(|error| error.contains("`clusters.far.url` (127.0.0.1:"))
        })
        .await;
    assert_eq!(waits["done"], false);
    onboard(&server, &request("Near too", "enterprise")).await;
    let (text, content) = doctor(&server);
    assert!(!content && text.contains("`clusters.far.url` (127.0.0.1:") && !text.contains("`url`"), "{text}");
    let drift = server.get("/v1/drift").await.expect(200).body;
    let drifted = drift["data"].as_array().expect("a list");
    assert_eq!(drifted.len(), 1, "{drift:#}");
    assert_eq!(drifted[0]["id"], first["tenant_id"]);
    assert!(drift.to_string().contains("did not respond") || drift.to_string().contains("clusters.far.url"));

    second.up().await;
    let (finished, _) = sign_in(&server, late).await;
    assert_eq!(port(&finished), port(&first));
    let (text, content) = doctor(&server);
    assert!(content, "{text}");
    assert_eq!(faults(&server, &id_of(&near)).await, [""; 0]);

    for tenant in [&first, &finished] {
        let erase = format!("/v1/tenants/{}/erase", id_of(tenant));
        let erased = server.post(&erase, &json!({ "reason": "asked for" })).await.expect(202).body;
        let erased = server.done(erased["id"].as_str().expect("an id")).await;
        assert_eq!(erased["state"], "succeeded", "{erased:#}");
    }
    assert_eq!(faults(&server, &id_of(&near)).await, [""; 0]);
}
