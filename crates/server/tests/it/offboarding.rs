//! Offboarding and erasure: access ends at once, the certificate is verified offline by the command line and
//! by a script, and invalid requests are rejected.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use reqwest::Method;
use serde_json::{Value, json};
use tenantry_testkit::markers::Marker;
use tenantry_testkit::{Raw, skip};

use crate::on_both;
use crate::server::{Answer, Server, read, request};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/guide/verify_certificate.py");

async fn erase(server: &Server, tenant: &str) -> Answer {
    server.post(&format!("/v1/tenants/{tenant}/erase"), &json!({ "reason": "asked for" })).await
}

/// Onboards a tenant; returns its id and a token of its first administrator.
async fn onboard(server: &Server, name: &str, plan: &str) -> (String, String) {
    let begun = server.post("/v1/tenants", &request(name, plan)).await.expect(202);
    let operation = server.done(begun.body["id"].as_str().unwrap()).await;
    let path = format!("/v1/operations/{}/credentials", operation["id"].as_str().unwrap());
    let claimed = server.post(&path, &json!({})).await.expect(200).body;
    let grant = json!({ "grant_type": "invitation", "token": claimed["credentials"][0]["value"] });
    let token = read(server.bare(Method::POST, "/auth/token").json(&grant)).await.expect(200).body;
    (operation["tenant_id"].as_str().unwrap().to_owned(), token["access_token"].as_str().unwrap().to_owned())
}

on_both! {
    async fn access_ends_with_the_request(mut server: Server) {
        let (tenant, token) = onboard(&server, "Acme", "growth").await;
        let own = server.key("tenant", &tenant).await;
        let me = || read(server.bare(Method::GET, "/data/me").bearer_auth(&token));
        let with_key = || read(server.bare(Method::GET, &format!("/v1/tenants/{tenant}")).bearer_auth(&own));
        me().await.expect(200);
        with_key().await.expect(200);
        server.get("/v1/tenants/acme/certificate").await.problem(404, "certificate_not_found");

        let begun = erase(&server, "acme").await.expect(202);
        assert_eq!(begun.headers["location"], format!("/v1/operations/{}", begun.body["id"].as_str().unwrap()));
        me().await.problem(403, "tenant_not_active");
        with_key().await.problem(401, "unauthenticated");
        let operation = server.done(begun.body["id"].as_str().unwrap()).await;
        assert_eq!((&operation["kind"], &operation["state"]), (&json!("erase"), &json!("succeeded")), "{operation:#}");
        let gone = server.get(&format!("/v1/tenants/{tenant}")).await.expect(200).body;
        assert_eq!((&gone["status"], &gone["slug"], &gone["name"]), (&json!("deprovisioned"), &Value::Null, &Value::Null));
        assert!(gone["deprovisioned_at"].is_string());
        assert_eq!(erase(&server, &tenant).await.expect(202).body["id"], begun.body["id"]);
        for (path, body) in [("suspend", json!({ "reason": "admin" })), ("resume", json!({})), ("repair", json!({})), ("provision", json!({}))] {
            server.post(&format!("/v1/tenants/{tenant}/{path}"), &body).await.problem(409, "illegal_transition");
        }
        let labels = server.request(Method::PATCH, &format!("/v1/tenants/{tenant}")).header("if-match", "*");
        let labels = labels.header("content-type", "application/merge-patch+json").body(r#"{"labels":{"a":"b"}}"#);
        read(labels).await.problem(409, "illegal_transition");
    }

    async fn reconsider_restores_access_during_the_hold(mut server: Server) {
        let (tenant, token) = onboard(&server, "Acme", "growth").await;
        let me = || read(server.bare(Method::GET, "/data/me").bearer_auth(&token));
        let begun = server.post("/v1/tenants/acme/offboard", &json!({ "reason": "contract" })).await.expect(202).body;
        me().await.problem(403, "tenant_not_active");
        server.post("/v1/tenants/acme/offboard", &json!({ "reason": "contract" })).await.problem(409, "illegal_transition");
        server.post("/v1/tenants/acme/resume", &json!({})).await.expect(200);
        me().await.problem(403, "tenant_not_active");
        let cancel = format!("/v1/operations/{}/cancel", begun["id"].as_str().unwrap());
        server.post(&cancel, &json!({})).await.problem(409, "signal_refused");
        let back = server.post("/v1/tenants/acme/reconsider", &json!({})).await.expect(200).body;
        assert_eq!((&back["status"], &back["id"]), (&json!("active"), &json!(tenant)));
        me().await.expect(200);
        assert_eq!(server.done(begun["id"].as_str().unwrap()).await["state"], "cancelled");
        server.post("/v1/tenants/acme/reconsider", &json!({})).await.problem(409, "illegal_transition");
        let now = json!({ "reason": "contract", "hold_days": 0 });
        let begun = server.post("/v1/tenants/acme/offboard", &now).await.expect(202).body;
        let id = begun["id"].as_str().unwrap();
        let certified = |operation: &Value| {
            let mut steps = operation["steps"].as_array().unwrap().iter();
            steps.any(|step| step["key"] == "certify" && step["state"] == "done")
        };
        server.until(id, certified).await;
        let path = format!("/v1/tenants/{tenant}/certificate");
        let proof = server.get(&path).await.expect(200).body;
        assert_eq!((&proof["certificate"]["kind"], &proof["certificate"]["key_destroyed_at"]), (&json!("offboard"), &Value::Null));
        // After an offboarding, archives are kept for their time; an erasure deletes them.
        let exports = server.get(&format!("/v1/tenants/{tenant}/exports")).await.expect(200).body;
        let export = exports["data"][0]["id"].as_str().unwrap();
        let link = server.post(&format!("/v1/tenants/{tenant}/exports/{export}/link"), &json!({})).await.expect(201).body;
        let link = link["url"].as_str().unwrap();
        let link = link.split_once("/exports/").unwrap().1;
        let fetch = || server.bare(Method::GET, &format!("/exports/{link}")).send();
        assert_eq!(fetch().await.unwrap().status(), 200);
        let erased = server.post(&format!("/v1/tenants/{tenant}/erase"), &json!({ "reason": "now" })).await.expect(202).body;
        assert_eq!(erased["id"], id);
        assert_eq!(server.done(id).await["state"], "succeeded");
        let last = server.get(&path).await.expect(200).body;
        assert!(last["certificate"]["key_destroyed_at"].is_string());
        assert_ne!(last["certificate"]["id"], proof["certificate"]["id"]);
        assert_eq!(fetch().await.unwrap().status(), 403);
        for (body, field) in [
            (json!({ "reason": "x", "hold_days": -1 }), "hold_days"),
            (json!({ "reason": "x", "hold_days": 36501 }), "hold_days"),
            (json!({ "hold_days": 1 }), "reason"),
        ] {
            let refused = server.post("/v1/tenants/acme/offboard", &body).await;
            assert_eq!(refused.problem(422, "request_invalid"), [field], "{body}");
        }
    }

    async fn a_certificate_is_verified_offline(mut server: Server) {
        let (tenant, _) = onboard(&server, "Acme", "starter").await;
        server.done(erase(&server, &tenant).await.expect(202).body["id"].as_str().unwrap()).await;
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let printed = |arguments: &[&str]| server.cli(arguments).stdin(Stdio::null()).output().unwrap().stdout;
        std::fs::write(file("key.pem"), printed(&["certificate", "public-key"])).unwrap();
        let answered = server.get(&format!("/v1/tenants/{tenant}/certificate")).await.expect(200).text;
        let (key, certificate) = (file("key.pem"), file("certificate.json"));
        let verify = || {
            let arguments = ["certificate", "verify", &certificate, "--public-key", &key];
            server.cli(&arguments).stdin(Stdio::null()).output().unwrap().status.code()
        };
        for text in [printed(&["certificate", "get", "acme"]), answered.clone().into_bytes()] {
            std::fs::write(&certificate, &text).unwrap();
            assert_eq!(verify(), Some(0));
            let mut changed = text.clone();
            let at = changed.len() / 2;
            changed[at] ^= 1;
            std::fs::write(&certificate, &changed).unwrap();
            assert_eq!(verify(), Some(1));
            std::fs::write(&certificate, &text).unwrap();
        }
        let imports = Command::new("python3").args(["-c", "import cryptography"]).stderr(Stdio::null()).status();
        if !imports.is_ok_and(|status| status.success()) {
            skip::skip("certificates, checked by Python", "no python3 with `cryptography`", "pip install cryptography");
            return;
        }
        let script = || Command::new("python3").args([SCRIPT, &certificate, &key]).output().unwrap();
        let said = script();
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        std::fs::write(&certificate, answered.replace("asked for", "not asked")).unwrap();
        assert!(!script().status.success());
    }

    async fn invalid_requests_are_rejected(mut server: Server) {
        let (tenant, _) = onboard(&server, "Acme", "starter").await;
        let path = format!("/v1/tenants/{tenant}/erase");
        for (body, field) in [
            (json!({}), "reason"),
            (json!({ "reason": "" }), "reason"),
            (json!({ "reason": " " }), "reason"),
            (json!({ "reason": "a\nb" }), "reason"),
            (json!({ "reason": "x".repeat(501) }), "reason"),
            (json!({ "reason": 7 }), "reason"),
            (json!({ "reason": "ok", "when": "now" }), "when"),
        ] {
            assert_eq!(server.post(&path, &body).await.problem(422, "request_invalid"), [field], "{body}");
        }
        server.post("/v1/tenants/absent/erase", &json!({ "reason": "ok" })).await.problem(404, "not_found");
        assert_eq!(server.get("/v1/tenants/acme").await.expect(200).body["status"], "active", "no request had an effect");
    }

    async fn an_erasure_supersedes_a_waiting_onboarding(mut server: Server) {
        let begun = server.post("/v1/tenants", &request("Acme", "gated")).await.expect(202).body;
        let id = begun["id"].as_str().unwrap();
        let operation = server.done(erase(&server, "acme").await.expect(202).body["id"].as_str().unwrap()).await;
        assert_eq!(operation["state"], "succeeded", "{operation:#}");
        let taken = server.get(&format!("/v1/operations/{id}")).await.expect(200).body;
        assert_eq!((&taken["state"], &taken["error"]["code"]), (&json!("cancelled"), &json!("superseded")));
        // The tenant was never active, so its slug is free again.
        server.post("/v1/tenants", &request("Acme", "starter")).await.expect(202);
        assert_eq!(server.get("/v1/tenants/acme").await.expect(200).body["plan"], "starter");
    }
}

/// Adds projects with this word for a tenant, in texts of many lengths.
async fn write_rows(server: &Server, token: &str, word: &str, count: usize) {
    for n in 0..count {
        let text = format!("{word} {}", "x".repeat([3, 60, 400, 3_000][n % 4]));
        let row = json!({ "id": format!("{}_{n}", n * 7_919 % 101), "name": text, "description": text });
        read(server.bare(Method::POST, "/data/projects").bearer_auth(token).json(&row)).await.expect(201);
    }
}

/// Registry, keyring and the file of pooled tenants, with their logs, while clients and other programs read them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erasure_leaves_nothing_in_files_that_others_read() {
    let server = Server::sqlite().await;
    let (tenant, token) = onboard(&server, "Marker", "starter").await;
    let (_, other) = onboard(&server, "Other", "starter").await;
    tokio::join!(write_rows(&server, &token, "Marker", 60), write_rows(&server, &other, "Other", 60));
    let marker = Marker::new("marker");
    let pool = |found: &String| found.starts_with("tenants.db");
    assert!(marker.in_folder(server.folder()).iter().any(pool));
    let stop = tokio_util::sync::CancellationToken::new();
    let files = ["registry.db", "keyring.db", "tenants.db"].map(|file| server.folder().join(file));
    let programs = files.map(|file| tokio::spawn(read_again_and_again(file, stop.clone())));
    let read = || read(server.bare(Method::GET, "/data/projects?limit=100").bearer_auth(&other));
    let erased = async {
        let ended = server.done(erase(&server, &tenant).await.expect(202).body["id"].as_str().unwrap()).await;
        assert_eq!(ended["state"], "succeeded", "{ended:#}");
        stop.cancel();
    };
    let clients = async {
        while !stop.is_cancelled() {
            read().await.expect(200);
        }
    };
    tokio::join!(erased, clients);
    let proof = server.get(&format!("/v1/tenants/{tenant}/certificate")).await.expect(200).body;
    let proof = &proof["certificate"];
    let found = marker.in_folder(server.folder());
    assert!(found.is_empty(), "{found:#?}");
    for reads in programs {
        assert!(reads.await.unwrap() > 0);
    }
    let files = proof["files"].as_array().unwrap().iter();
    let files = files.map(|file| {
        (file["store"].as_str().unwrap(), file["file"].as_str().unwrap(), file["method"].as_str().unwrap())
    });
    let expected = [
        ("sqlite_pool", "tenants.db", "overwritten"),
        ("sqlite_pool", "tenants.db-wal", "truncated"),
        ("registry", "registry.db", "overwritten"),
        ("registry", "registry.db-wal", "truncated"),
        ("keyring", "keyring.db", "overwritten"),
        ("keyring", "keyring.db-wal", "truncated"),
    ];
    assert_eq!(files.collect::<Vec<_>>(), expected, "{proof:#}");
    let places =
        proof["not_searched"].as_array().unwrap().iter().map(|place| place["place"].as_str().unwrap());
    let places: Vec<&str> = places.collect();
    assert!(places.starts_with(&["backups", "downloads", "log"]), "{places:?}");
    assert!(!places.iter().any(|place| ["registry", "keyring", "sqlite_pool"].contains(place)), "{places:?}");
}

/// Reads a database in short transactions until `stop`, as another program does; returns their number.
async fn read_again_and_again(file: PathBuf, stop: tokio_util::sync::CancellationToken) -> usize {
    let reader = Raw::connect(&format!("sqlite://{}", file.display())).await;
    let mut reads = 0;
    while !stop.is_cancelled() {
        reader.execute("BEGIN").await;
        assert!(!reader.rows("SELECT * FROM sqlite_schema").await.is_empty());
        reader.execute("COMMIT").await;
        reads += 1;
    }
    reader.close().await;
    reads
}

/// A program that keeps a transaction open delays the certificate, and no person is called.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erasure_waits_for_an_open_transaction() {
    let server = Server::sqlite().await;
    let (tenant, _) = onboard(&server, "Acme", "starter").await;
    let file = server.folder().join("registry.db");
    let reader = Raw::connect(&format!("sqlite://{}", file.display())).await;
    reader.execute("BEGIN").await;
    reader.rows("SELECT count(*) FROM tenants").await;
    let begun = erase(&server, &tenant).await.expect(202).body;
    let id = begun["id"].as_str().unwrap();
    let waits = |operation: &Value| {
        let mut steps = operation["steps"].as_array().unwrap().iter();
        steps.any(|step| step["key"] == "scan_registry" && step["error"]["code"] == "registry_unavailable")
    };
    let waiting = server.until(id, waits).await;
    assert_eq!(waiting["state"], "running", "{waiting:#}");
    server.get(&format!("/v1/tenants/{tenant}/certificate")).await.problem(404, "certificate_not_found");
    reader.execute("COMMIT").await;
    assert_eq!(server.done(id).await["state"], "succeeded");
    reader.close().await;
}

/// Rows, schemas, databases and logins on the tenants' PostgreSQL.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erasure_leaves_nothing_on_postgres() {
    let Some(server) = Server::with_tenants_on_postgres().await else { return };
    for plan in ["starter", "growth", "enterprise"] {
        let (operation, token) =
            crate::plans::onboard(&server, &request(&format!("Acme {plan}"), plan)).await;
        let row = json!({ "project_id": "starter", "title": "Marker of the tenant's" });
        read(server.bare(Method::POST, "/data/tasks").bearer_auth(&token).json(&row)).await.expect(201);
        let tenant = operation["tenant_id"].as_str().unwrap().to_owned();
        let ended = server.done(erase(&server, &tenant).await.expect(202).body["id"].as_str().unwrap()).await;
        assert_eq!(ended["state"], "succeeded", "{plan}: {ended:#}");
        let proof = server.get(&format!("/v1/tenants/{tenant}/certificate")).await.expect(200).body;
        let gone = proof["certificate"]["resources"].as_array().unwrap();
        let database = gone.iter().find(|gone| gone["kind"] == "database").unwrap();
        assert!(database["provider"].as_str().unwrap().starts_with("postgres"), "{database:#}");
        // Logins belong to the server, not to a database, and would survive the databases.
        let logins =
            format!("SELECT FROM pg_roles WHERE rolname LIKE '%{}%'", tenant.trim_start_matches("ten_"));
        let none = format!("DO $$ BEGIN IF EXISTS ({logins}) THEN RAISE 'a login is left'; END IF; END $$");
        tenantry_testkit::database::execute(server.tenants_database(), none).await.unwrap();
    }
    let found = Marker::new("marker").in_postgres(server.tenants_database()).await;
    assert!(found.is_empty(), "{found:#?}");
}
