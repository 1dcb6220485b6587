//! The command line: request files in every format, data on stdout, exit codes, offline commands.

use std::io::Write;
use std::process::{Output, Stdio};

use serde_json::{Value, json};

use tenantry_testkit::Raw;

use crate::server::{Server, TENANTRY, clean};

fn run(server: &Server, arguments: &[&str]) -> Output {
    server.cli(arguments).stdin(Stdio::null()).output().unwrap()
}

/// Asserts success and parses stdout as JSON.
fn json_of(server: &Server, arguments: &[&str]) -> Value {
    let output = run(server, &[arguments, &["--output", "json"]].concat());
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn fails(server: &Server, arguments: &[&str], code: i32, words: &[&str]) {
    let output = run(server, arguments);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    for word in words {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
    assert!(
        output.stdout.is_empty() || code == 1 || code == 6 || code == 4,
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

fn file(server: &Server, name: &str, text: &str) -> String {
    let path = server.folder().join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

const A: &str =
    r#"{"tenant_name":"A","admin_user":{"email":"a@example.com"},"subscription":{"plan":"starter"}}"#;
const B: &str =
    r#"{"tenant_name":"B","admin_user":{"email":"b@example.com"},"subscription":{"plan":"starter"}}"#;

#[tokio::test]
async fn request_files_of_every_format_create_tenants_once() {
    let server = Server::sqlite().await;
    let yaml = "tenant_name: A\nadmin_user: {email: a@example.com}\nsubscription: {plan: starter}\n---\n\
                - {tenant_name: B, admin_user: {email: b@example.com}, subscription: {plan: starter}}\n";
    let files = [
        file(&server, "r.yaml", yaml),
        file(&server, "r.json", &format!("[{A},{B}]")),
        file(&server, "r.jsonl", &format!("{B}\n{A}\n")),
        file(&server, "one.json", A),
    ];
    let mut seen = None;
    for path in &files {
        let made = json_of(&server, &["tenant", "create", "-f", path, "--wait", "--concurrency", "2"]);
        let mut names: Vec<&str> =
            made.as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap()).collect();
        names.sort_unstable();
        assert!(names == ["A", "B"] || names == ["A"], "{names:?}");
        assert!(made.as_array().unwrap().iter().all(|tenant| tenant["status"] == "active"));
        let tenants = server.tenants().await;
        assert_eq!(tenants.len(), 2, "{path}: giving the same again makes nothing twice");
        assert_eq!(*seen.get_or_insert_with(|| tenants.clone()), tenants);
    }
    let mut stdin = server.cli(&["tenant", "create", "-f", "-", "--output", "json"]);
    let mut child = stdin.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(format!("{A}\n{B}\n").as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let operations: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(operations.as_array().unwrap().iter().all(|operation| operation["kind"] == "onboard"));
    assert_eq!(server.tenants().await.len(), 2);
}

#[tokio::test]
async fn errors_name_entry_and_field() {
    let server = Server::sqlite().await;
    let faulty = file(
        &server,
        "r.jsonl",
        &format!("{A}\n{{\"tenant_name\":\"B\"}}\n{}\n", B.replace("starter", "gold")),
    );
    fails(
        &server,
        &["tenant", "create", "-f", &faulty, "--wait"],
        1,
        &[
            "r.jsonl, entry 2",
            "admin_user: is required",
            "entry 3",
            "subscription.plan",
            "Invalid subscription plan: gold",
            "2 of 3",
        ],
    );
    assert_eq!(server.tenants().await.len(), 1, "the good one is made");
    let broken = file(&server, "b.jsonl", &format!("{A}\n{{\n"));
    fails(&server, &["tenant", "create", "-f", &broken], 1, &["b.jsonl", "line 2"]);
    fails(&server, &["tenant", "create", "-f", "/nowhere/at/all"], 1, &["/nowhere/at/all"]);
    let taken = file(&server, "t.json", &A.replace("a@", "other@"));
    fails(&server, &["tenant", "create", "-f", &taken], 4, &["entry 1", "tenant_name"]);
    let failing = file(&server, "f.json", &B.replace("starter", "failing"));
    fails(&server, &["tenant", "create", "-f", &failing, "--wait"], 6, &["rolled back at broken"]);
}

#[tokio::test]
async fn a_dry_run_creates_nothing() {
    let server = Server::sqlite().await;
    let path = file(&server, "r.json", &format!("[{A},{B}]"));
    let plans = json_of(&server, &["tenant", "create", "-f", &path, "--dry-run"]);
    assert_eq!(plans[1]["slug"], "b");
    let table = run(&server, &["tenant", "create", "-f", &path, "--dry-run"]);
    assert!(String::from_utf8(table.stdout).unwrap().contains("smoke_test"));
    assert!(server.tenants().await.is_empty());
}

#[tokio::test]
async fn operations_are_followed_and_controlled() {
    let server = Server::sqlite().await;
    let path = file(&server, "r.json", &A.replace("starter", "gated"));
    let made = json_of(&server, &["tenant", "create", "-f", &path]);
    let id = made[0]["id"].as_str().unwrap().to_owned();
    let watching = server
        .cli(&["operation", "watch", &id])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    server.until(&id, |operation| operation["steps"][0]["state"] == "waiting").await;
    assert_eq!(json_of(&server, &["operation", "pause", &id])["state"], "paused");
    assert_eq!(json_of(&server, &["operation", "resume", &id])["state"], "running");
    fails(&server, &["operation", "retry", &id], 4, &[]);
    json_of(&server, &["operation", "approve", &id, "--step", "approve"]);
    let watched = watching.unwrap().wait_with_output().unwrap();
    let progress = String::from_utf8(watched.stderr).unwrap();
    assert!(watched.status.success(), "{progress}");
    assert!(progress.contains("database     done in"), "a line for each step: {progress}");
    assert!(!progress.contains('\u{1b}'), "without a terminal, no colours and no cursor control");
    let secrets = json_of(&server, &["operation", "credentials", &id]);
    assert!(!secrets.as_array().unwrap().is_empty());
    fails(&server, &["operation", "credentials", &id], 1, &["no unclaimed secrets"]);

    let path = file(&server, "p.json", &B.replace("starter", "parked"));
    let made = json_of(&server, &["tenant", "create", "-f", &path]);
    let id = made[0]["id"].as_str().unwrap().to_owned();
    fails(&server, &["operation", "watch", &id], 4, &["needs attention"]);
    json_of(&server, &["operation", "cancel", &id, "--yes"]);
    server.done(&id).await;
    fails(&server, &["operation", "watch", &id], 6, &["cancelled"]);
    let listed = json_of(&server, &["operation", "list", "--state", "cancelled"]);
    assert_eq!(listed[0]["id"], id.as_str());
    let again = json_of(&server, &["tenant", "provision", "b"]);
    assert_eq!(again["kind"], "onboard");
}

/// What cannot be undone is done only with `--yes`, or with the consent of a person at a terminal.
#[tokio::test]
async fn without_a_terminal_nothing_is_destroyed() {
    let server = Server::sqlite().await;
    server.onboard("Acme").await;
    let id = json_of(&server, &["operation", "list"])[0]["id"].as_str().unwrap().to_owned();
    let key = json_of(&server, &["key", "create", "--name", "ci", "--scope", "viewer"])["id"].clone();
    let file = file(&server, "a.tar.zst", "");
    let before = json_of(&server, &["tenant", "get", "acme"]);
    for command in [
        &["tenant", "erase", "acme", "--reason", "x"][..],
        &["tenant", "offboard", "acme", "--reason", "x"],
        &["tenant", "restore", "acme", "--archive", "arc_1"],
        &["tenant", "import", &file, "--into", "acme"],
        &["operation", "cancel", &id],
        &["key", "revoke", key.as_str().unwrap()],
    ] {
        for answer in ["", "n\n", "y\n"] {
            let mut child = server.cli(command);
            let mut child =
                child.stdin(Stdio::piped()).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            // The command may have ended before it reads.
            let _ = child.stdin.take().unwrap().write_all(answer.as_bytes());
            let output = child.wait_with_output().unwrap();
            let text = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{command:?}: {text}");
            assert!(text.contains("add `--yes`"), "{command:?}: {text}");
        }
        fails(&server, &[command, &["--no-input"]].concat(), 2, &["add `--yes`"]);
    }
    assert_eq!(json_of(&server, &["tenant", "get", "acme"]), before);
    let keys = json_of(&server, &["key", "list"]);
    assert!(keys.as_array().unwrap().iter().all(|key| key["revoked_at"].is_null()), "{keys}");
}

#[tokio::test]
async fn every_resource_can_be_read() {
    let server = Server::sqlite().await;
    server.onboard("Acme").await;
    assert_eq!(json_of(&server, &["tenant", "get", "acme"])["name"], "Acme");
    assert_eq!(json_of(&server, &["tenant", "list", "--status", "active"])[0]["slug"], "acme");
    assert_eq!(json_of(&server, &["tenant", "list", "--status", "suspended"]), json!([]));
    assert_eq!(json_of(&server, &["plan", "get", "standard"])["name"], "starter");
    assert!(json_of(&server, &["plan", "list"]).as_array().unwrap().len() >= 4);
    assert!(json_of(&server, &["template", "list"]).to_string().contains("gated"));
    assert_eq!(json_of(&server, &["stats", "--since", "1h"])["plans"][0]["succeeded"], 1);
    let figures = String::from_utf8(run(&server, &["stats"]).stdout).unwrap();
    assert!(figures.contains("1 (100 %)") && figures.contains("HELD UP BY"), "{figures}");
    fails(&server, &["stats", "--since", "yesterday"], 1, &["since", "30d"]);
    server.events_are_numbered().await;
    let events = json_of(&server, &["event", "list"]);
    assert_eq!(events[0]["type"], "tenant.created");
    let key = json_of(&server, &["key", "create", "--name", "ci", "--scope", "viewer", "--scope", "signup"]);
    assert_eq!(key["scopes"], json!(["viewer", "signup"]));
    let id = key["id"].as_str().unwrap();
    assert!(json_of(&server, &["key", "revoke", id, "--yes"])["revoked_at"].is_string());
    assert!(json_of(&server, &["key", "list"]).to_string().contains(id));
    let table = String::from_utf8(run(&server, &["tenant", "list"]).stdout).unwrap();
    assert!(table.lines().next().unwrap().starts_with("ID") && table.contains("acme"), "{table}");
    let yaml =
        String::from_utf8(run(&server, &["tenant", "get", "acme", "--output", "yaml"]).stdout).unwrap();
    assert!(yaml.contains("slug: acme"), "{yaml}");
    fails(&server, &["tenant", "get", "nobody"], 3, &["no such tenant"]);
    fails(&server, &["tenant", "list", "--status", "odd"], 1, &["status"]);
    fails(&server, &["tenant", "frobnicate"], 2, &["frobnicate"]);
}

#[tokio::test]
async fn the_data_folder_provides_key_and_url() {
    let server = Server::sqlite().await;
    server.onboard("Acme").await;
    let folder = server.folder().display().to_string();
    let list = |arguments: &[&str]| {
        let mut command = std::process::Command::new(TENANTRY);
        clean(&mut command).args(arguments).output().unwrap()
    };
    let found = list(&["--data", &folder, "tenant", "get", "acme"]);
    assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
    let elsewhere = tempfile::tempdir().unwrap();
    let none = list(&["--data", elsewhere.path().to_str().unwrap(), "tenant", "list"]);
    assert_eq!(none.status.code(), Some(2), "no key");
    // No server listens on port 1.
    let away = list(&["--data", &folder, "--server", "http://127.0.0.1:1", "tenant", "list"]);
    assert_eq!(away.status.code(), Some(5), "{}", String::from_utf8_lossy(&away.stderr));
    let mut wrong = server.cli(&["tenant", "list"]);
    assert_eq!(wrong.env("TENANTRY_KEY", "tnt_wrong").output().unwrap().status.code(), Some(1));
    let file = server.folder().join("admin.key");
    let mut by_file = server.cli(&["tenant", "list"]);
    assert!(by_file.env_remove("TENANTRY_KEY").env("TENANTRY_KEY_FILE", file).status().unwrap().success());
}

#[tokio::test]
async fn offline_commands_work_without_a_server() {
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(TENANTRY);
        clean(&mut command).args(arguments).output().unwrap()
    };
    let schema = run(&["template", "schema"]);
    let schema: Value = serde_json::from_slice(&schema.stdout).unwrap();
    assert!(schema["$defs"]["StepSpec"].is_object());
    let shown = run(&["template", "show", "starter"]);
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(text.contains("template: starter") && text.find("identity:") < text.find("activate:"), "{text}");
    assert_eq!(run(&["template", "show", "starter", "--version", "99"]).status.code(), Some(3));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.yaml");
    std::fs::write(&file, &text).unwrap();
    assert!(run(&["template", "validate", file.to_str().unwrap()]).status.success());
    std::fs::write(
        &file,
        text.replace("kind: database", "kind: dragon").replace("version: 1", "version: one"),
    )
    .unwrap();
    let faulty = run(&["template", "validate", file.to_str().unwrap()]);
    let words = String::from_utf8(faulty.stderr).unwrap();
    assert!(
        !faulty.status.success() && words.contains("version") && words.contains("steps.database.kind"),
        "{words}"
    );
    for shell in ["bash", "zsh", "fish"] {
        assert!(String::from_utf8(run(&["completions", shell]).stdout).unwrap().contains("tenantry"));
    }
}

#[tokio::test]
async fn the_audit_trail_is_verified_offline() {
    let mut server = Server::sqlite().await;
    server.onboard("Acme").await;
    server.signal(rustix::process::Signal::TERM);
    assert!(server.wait().success());
    let config = server.config().display().to_string();
    let folder = server.folder().display().to_string();
    for by in [["--config", &config], ["--data", &folder]] {
        let report = json_of(&server, &["audit", "verify", by[0], by[1]]);
        assert!(report["verified"].as_i64().unwrap() >= 3, "{report}");
        assert_eq!((&report["broken"], &report["anchored"]), (&Value::Null, &report["verified"]));
    }
    // The last signed head is deleted with its records: only the keyring still counts them.
    let by = ["--data", &folder];
    let records = json_of(&server, &["audit", "verify", by[0], by[1]])["verified"].as_i64().unwrap();
    let registry = Raw::connect(&format!("sqlite://{folder}/registry.db")).await;
    let before = format!("SELECT coalesce(max(seq), 0) FROM audit_heads WHERE seq < {records}");
    let left: i64 = registry.rows(&before).await[0].get(0);
    registry
        .execute(&format!("DELETE FROM audit_heads WHERE seq > {left}; DELETE FROM audit WHERE seq > {left}"))
        .await;
    registry.close().await;
    let counts = format!("counts {records} records, and the registry had {left} of them");
    fails(&server, &["audit", "verify", by[0], by[1]], 1, &["was cut", &counts, "tenantry audit accept"]);
    let accepted = json_of(&server, &["audit", "accept", "--reason", "restored a backup", by[0], by[1]]);
    assert_eq!(accepted["accepted"][0]["accepted_reason"], "restored a backup");
    let report = json_of(&server, &["audit", "verify", by[0], by[1]]);
    assert_eq!((&report["broken"], &report["verified"]), (&Value::Null, &json!(left)));
    fails(&server, &["audit", "accept", "--reason", "again", by[0], by[1]], 4, &["no cut"]);
    let none = tempfile::tempdir().unwrap();
    fails(&server, &["audit", "verify", "--data", none.path().to_str().unwrap()], 3, &["no registry"]);
    assert_eq!(std::fs::read_dir(none.path()).unwrap().count(), 0, "looking makes nothing");
}
