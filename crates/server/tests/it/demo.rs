//! The demo: it succeeds only if every check passes, and leaves no files and no server behind, however it
//! ends.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;

use crate::server::{PATIENCE, TENANTRY, clean, holder_of};

fn demo(folder: &Path) -> Command {
    let mut command = Command::new(TENANTRY);
    clean(&mut command).args(["demo", "--output", "json", "--data"]).arg(folder).stdin(Stdio::null());
    command
}

#[test]
fn every_check_passes() {
    let folder = tempfile::tempdir().unwrap();
    // The demo ignores Tenantry's environment variables.
    let output = demo(folder.path())
        .args(["--tenants", "20"])
        .env("TENANTRY_STORE_URL", "sqlite:///nowhere/registry.db")
        .env("TENANTRY_KEYRING_URL", "sqlite:///nowhere/keyring.db")
        .env("TENANTRY_LISTEN", "nowhere")
        .env("TENANTRY_SERVER", "http://127.0.0.1:9")
        .env("TENANTRY_KEY", "nothing")
        .output()
        .unwrap();
    let progress = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{progress}");
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let tenants = document["tenants"].as_array().unwrap();
    assert_eq!(tenants.len(), 20);
    for tenant in tenants {
        assert!(tenant["id"].as_str().unwrap().starts_with("ten_"));
        assert_eq!(tenant["status"], "active");
        assert_eq!(tenant.as_object().unwrap().len(), 4, "{tenant}");
    }
    let plans: std::collections::BTreeSet<&str> =
        tenants.iter().map(|t| t["plan"].as_str().unwrap()).collect();
    assert_eq!(Vec::from_iter(plans), ["enterprise", "growth", "starter"]);
    for said in [
        "Harbour Bakery",
        "Ordinacija Lovrić",
        "smoke test",
        "invoice",
        "accepted once",
        "First steps",
        "isolation",
        "approved",
        "openssl verify",
        "/files/tenant-",
        "kill -9",
        "audit records",
        "deleted by folder_bucket",
        "0 rows found",
        "genuine",
        "one word changed: rejected",
    ] {
        assert!(progress.contains(said), "`{said}` is not in: {progress}");
    }
    // The printed command verifies the certificate.
    let file = |name: &str| folder.path().join(name);
    let verified = clean(&mut Command::new(TENANTRY))
        .args(["certificate", "verify"])
        .arg(file("certificate.json"))
        .arg("--public-key")
        .arg(file("certificates.pem"))
        .output()
        .unwrap();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
    assert!(is_gone(holder_of(folder.path()).unwrap()), "the server has stopped");
    // The demo does not touch a folder with a registry.
    let again = demo(folder.path()).output().unwrap();
    assert!(!again.status.success());
    assert!(String::from_utf8(again.stderr).unwrap().contains("contains a registry"));
}

#[test]
fn a_temporary_folder_is_deleted() {
    let place = tempfile::tempdir().unwrap();
    let mut command = Command::new(TENANTRY);
    let output =
        clean(&mut command).args(["demo", "--tenants", "7"]).env("TMPDIR", place.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout.is_empty(), "without --output json there is no data");
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
}

/// The server ends with the demo, also after a SIGKILL of the demo.
#[test]
fn the_server_ends_with_the_demo() {
    for signal in [Signal::INT, Signal::TERM, Signal::KILL] {
        let folder = tempfile::tempdir().unwrap();
        let mut child = demo(folder.path())
            .args(["--tenants", "3000"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let started = Instant::now();
        let server = loop {
            if let Some(pid) = holder_of(folder.path()) {
                break pid;
            }
            assert!(child.try_wait().unwrap().is_none() && started.elapsed() < PATIENCE);
            std::thread::sleep(std::time::Duration::from_millis(5));
        };
        kill_process(Pid::from_child(&child), signal).unwrap();
        assert!(!child.wait().unwrap().success());
        while !is_gone(server) {
            assert!(started.elapsed() < PATIENCE, "after {signal:?} the server {server} is still running");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

fn is_gone(pid: u32) -> bool {
    Pid::from_raw(i32::try_from(pid).unwrap()).is_none_or(|pid| test_kill_process(pid).is_err())
}
