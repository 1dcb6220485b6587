//! Moving a registry to another database while its server runs: nothing is lost or written twice, and at most
//! one of the two databases accepts writes at any time.

use std::process::{Output, Stdio};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tenantry_testkit::TestDatabase;
use tenantry_testkit::database::execute;

use crate::server::{Server, TENANTRY, clean, read, request};

fn migrate(arguments: &[&str]) -> Output {
    let mut command = std::process::Command::new(TENANTRY);
    let command = clean(&mut command).args(["store", "migrate", "--output", "json"]).args(arguments);
    command.stdin(Stdio::null()).output().unwrap()
}

fn moved(arguments: &[&str]) -> Vec<Value> {
    let output = migrate(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn refused(arguments: &[&str], words: &str) {
    let output = migrate(arguments);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        matches!(output.status.code(), Some(2 | 4)) && text.contains(words),
        "{:?} {text}",
        output.status
    );
}

fn file(server: &Server, name: &str) -> String {
    format!("sqlite://{}", server.folder().join(name).display())
}

/// Configures another registry and keyring for the next start of the server.
fn point_to(server: &Server, store: &str, keyring: &str) {
    let config = std::fs::read_to_string(server.config()).unwrap();
    let config = format!("{config}\n[store]\nurl = '{store}'\n[keyring]\nurl = '{keyring}'\n");
    std::fs::write(server.config(), config).unwrap();
}

async fn approve(server: &Server, operation: &Value) -> Value {
    let id = operation["id"].as_str().unwrap();
    let path = format!("/v1/operations/{id}/approve");
    server.post(&path, &json!({ "step": "approve" })).await.expect(200);
    server.done(id).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_registry_moves_to_postgres() {
    let mut server = Server::sqlite().await;
    let Some(store) = TestDatabase::postgres().await else { return };
    let Some(keyring) = TestDatabase::postgres().await else { return };
    server.onboard("Acme").await;
    let waiting = server.post("/v1/tenants", &request("Waits", "enterprise")).await.expect(202).body;
    let before = server.tenants().await;
    let registry = file(&server, "registry.db");

    let tables = moved(&["--from", &registry, "--to", store.url()]);
    let rows = |name: &str| tables.iter().find(|table| table["table"] == name).unwrap()["rows"].clone();
    assert_eq!((rows("tenants"), rows("leader")), (json!(2), json!(1)));
    let keys = moved(&["--keyring", "--from", &file(&server, "keyring.db"), "--to", keyring.url()]);
    assert!(keys.iter().any(|table| table["table"] == "tenant_keys" && table["rows"] == 2));

    // A server that still runs on the old registry serves reads and rejects writes.
    assert_eq!(server.tenants().await, before);
    let late = server.post("/v1/tenants", &request("Late", "starter")).await;
    late.problem(503, "unavailable");
    refused(&["--from", &registry, "--to", &file(&server, "third.db")], "has moved to");

    server.signal(rustix::process::Signal::KILL);
    server.wait();
    point_to(&server, store.url(), keyring.url());
    server.restart().await;
    assert_eq!(server.tenants().await, before);
    // Waiting operations resume, and new requests are accepted.
    assert_eq!(approve(&server, &waiting).await["state"], "succeeded");
    assert_eq!(server.onboard("Late").await["state"], "succeeded");
    let rows = read(server.request(Method::GET, "/v1/tenants/acme")).await.expect(200);
    assert_eq!(rows.body["status"], "active");
}

#[tokio::test]
async fn an_impossible_move_is_rejected_without_effect() {
    let server = Server::sqlite().await;
    let mut other = Server::sqlite().await;
    let registry = file(&server, "registry.db");
    server.onboard("Acme").await;
    other.onboard("Other").await;
    refused(&["--from", &registry, "--to", &file(&other, "registry.db")], "a server runs on it");
    other.signal(rustix::process::Signal::KILL);
    other.wait();
    refused(&["--from", &registry, "--to", &file(&other, "registry.db")], "rows already");
    refused(&["--from", &file(&server, "nothing.db"), "--to", &file(&server, "new.db")], "there is no file");
    refused(&["--from", &file(&server, "keyring.db"), "--to", &file(&server, "new.db")], "from:");
    refused(&["--from", "mysql://x", "--to", &file(&server, "new.db")], "sqlite: or postgres:");
    refused(&["--from", &registry, "--to", "sqlite:///nowhere/at/all.db"], "to:");
    refused(&["--from", &registry, "--to", "postgres://nobody@127.0.0.1:1/nothing"], "to:");
    assert_eq!(server.onboard("Beta").await["state"], "succeeded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_move_is_repeated() {
    let mut server = Server::sqlite().await;
    for n in 0..10 {
        server.onboard(&format!("Tenant {n}")).await;
    }
    let before = server.tenants().await;
    server.signal(rustix::process::Signal::KILL);
    server.wait();
    let registry = file(&server, "registry.db");
    for (n, millis) in [0, 10, 20, 30, 40, 50, 60, 80, 100, 150].into_iter().enumerate() {
        let new = file(&server, &format!("new{n}.db"));
        for suffix in ["", "-wal"] {
            let file = |name: &str| server.folder().join(format!("{name}{suffix}"));
            std::fs::copy(file("registry.db"), file(&format!("copy{n}.db"))).unwrap();
        }
        let from = file(&server, &format!("copy{n}.db"));
        let mut command = std::process::Command::new(TENANTRY);
        let command = clean(&mut command).args(["store", "migrate", "--from", &from, "--to", &new]);
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(millis));
        child.kill().unwrap();
        // The move may have finished before the kill.
        if !child.wait().unwrap().success() {
            let output = migrate(&["--from", &from, "--to", &new]);
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() || text.contains("has moved to"), "{text}");
        }
        let writes = execute(&from, "UPDATE tenants SET version = version".to_owned()).await;
        assert!(writes.unwrap_err().to_string().contains("has moved"));
    }
    moved(&["--from", &registry, "--to", &file(&server, "last.db")]);
    point_to(&server, &file(&server, "last.db"), &file(&server, "keyring.db"));
    server.restart().await;
    assert_eq!(server.tenants().await, before);
}
