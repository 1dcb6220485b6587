//! The process: one per data folder, file permissions, the admin key, shutdown in time, and a full disk.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;

use rustix::process::Signal;

use crate::server::{On, PATIENCE, Server, TENANTRY, clean, holder};

/// `tenantry dev` in this folder, killed when the test ends.
struct Dev(Child);

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn dev(folder: &Path) -> Command {
    let mut command = Command::new(TENANTRY);
    clean(&mut command).arg("dev").arg("--data").arg(folder).args(["--listen", "127.0.0.1:0"]);
    command.stdin(Stdio::null());
    command
}

async fn start(folder: &Path) -> (Dev, String) {
    let mut dev = Dev(dev(folder).stderr(Stdio::null()).spawn().unwrap());
    let url = ready(folder, &mut dev).await;
    (dev, url)
}

async fn ready(folder: &Path, dev: &mut Dev) -> String {
    let started = Instant::now();
    loop {
        if let Some(url) = holder(folder, dev.0.id())
            && reqwest::get(format!("{url}/readyz")).await.is_ok_and(|answer| answer.status() == 200)
        {
            return url;
        }
        assert!(dev.0.try_wait().unwrap().is_none(), "the server exited");
        assert!(started.elapsed() < PATIENCE);
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

fn fails_with(output: &Output, words: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{text}");
    for word in words {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
}

#[tokio::test]
async fn a_data_folder_has_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let (first, url) = start(folder.path()).await;
    let second = dev(folder.path()).output().unwrap();
    fails_with(&second, &["in use by process", &first.0.id().to_string(), &url]);
    // The first process is not disturbed.
    assert_eq!(reqwest::get(format!("{url}/readyz")).await.unwrap().status(), 200);
    drop(first);
    start(folder.path()).await;
}

#[tokio::test]
async fn the_admin_key_is_private_and_survives() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("deep/inside");
    let file = data.join("admin.key");
    let (first, url) = start(&data).await;
    let key = std::fs::read_to_string(&file).unwrap();
    assert!(!key.is_empty() && key.trim() == key, "only the key");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::metadata(&data).unwrap().permissions().mode() & 0o777, 0o700);
    let ask = async |url: &str, key: &str| {
        let request = reqwest::Client::new().get(format!("{url}/v1/keys")).bearer_auth(key);
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(ask(&url, &key).await, 200);
    drop(first);
    // A restart restricts the file's permissions again and keeps the key.
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let (second, url) = start(&data).await;
    assert_eq!(std::fs::read_to_string(&file).unwrap(), key);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(ask(&url, &key).await, 200);
    drop(second);
    // A lost file is replaced; a file without a valid key is an error.
    std::fs::remove_file(&file).unwrap();
    let (third, url) = start(&data).await;
    let other = std::fs::read_to_string(&file).unwrap();
    assert_ne!(other, key);
    assert_eq!(ask(&url, &other).await, 200);
    drop(third);
    std::fs::write(&file, "not a key").unwrap();
    fails_with(&dev(&data).output().unwrap(), &["admin.key", "contains no API key"]);
}

#[tokio::test]
async fn files_are_readable_by_their_owner_only() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let (_dev, _) = start(folder.path()).await;
    let mut left = vec![folder.path().to_owned()];
    let mut seen = 0;
    while let Some(path) = left.pop() {
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", path.display());
        seen += 1;
        if path.is_dir() {
            left.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    assert!(seen > 5);
}

#[tokio::test]
async fn a_registry_needs_its_own_keyring() {
    let folder = tempfile::tempdir().unwrap();
    drop(start(folder.path()).await);
    let aside = tempfile::tempdir().unwrap();
    for name in ["keyring.db", "keyring.db-wal", "keyring.db-shm"] {
        let _ = std::fs::rename(folder.path().join(name), aside.path().join(name));
    }
    fails_with(&dev(folder.path()).output().unwrap(), &["another keyring", "backup"]);
    for name in ["keyring.db", "keyring.db-wal", "keyring.db-shm"] {
        let _ = std::fs::remove_file(folder.path().join(name));
        let _ = std::fs::rename(aside.path().join(name), folder.path().join(name));
    }
    start(folder.path()).await;
}

async fn ends_in_time(on: On, signal: Signal) {
    let Some(mut server) = Server::start(on).await else { return };
    for n in 0..20 {
        let body = crate::server::request(&format!("Tenant {n}"), "starter");
        server.post("/v1/tenants", &body).await.expect(202);
    }
    server.signal(signal);
    let signalled = Instant::now();
    let status = server.wait();
    assert!(status.success(), "{status}: {}", server.log());
    // Shutdown is limited to 15 seconds; the operations here need far less.
    assert!(signalled.elapsed().as_secs() < 15);
    server.restart().await;
    for tenant in server.tenants().await {
        let operations =
            server.get(&format!("/v1/operations?tenant={}", tenant["id"].as_str().unwrap())).await;
        for operation in operations.body["data"].as_array().unwrap() {
            let done = server.done(operation["id"].as_str().unwrap()).await;
            assert_eq!(done["state"], "succeeded", "{done:#}");
        }
    }
    assert_eq!(server.tenants().await.iter().filter(|tenant| tenant["status"] == "active").count(), 20);
}

#[tokio::test]
async fn sigterm_stops_the_server_in_time_on_sqlite() {
    ends_in_time(On::Sqlite, Signal::TERM).await;
}

#[tokio::test]
async fn sigint_stops_the_server_in_time_on_postgres() {
    ends_in_time(On::Postgres, Signal::INT).await;
}

#[test]
fn an_unusable_data_folder_is_named_in_the_error() {
    // A file in place of the folder: root cannot write into it either.
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("data"), "").unwrap();
    fails_with(&dev(&folder.path().join("data")).output().unwrap(), &["data"]);
}

/// On a full disk requests get 503, and no accepted request is lost.
#[tokio::test]
async fn a_full_disk_loses_no_accepted_request() {
    let folder = tempfile::tempdir().unwrap();
    let (first, _) = start(folder.path()).await;
    drop(first);
    // Limits files to 512 KiB, which the registry's write-ahead log soon exceeds.
    let mut command = Command::new("sh");
    let limited = "ulimit -f 1024; exec \"$0\" dev --data \"$1\" --listen 127.0.0.1:0";
    clean(&mut command).args(["-c", limited, TENANTRY]).arg(folder.path()).stdin(Stdio::null());
    let mut full = Dev(command.stderr(Stdio::null()).spawn().unwrap());
    let url = ready(folder.path(), &mut full).await;
    let key = std::fs::read_to_string(folder.path().join("admin.key")).unwrap();
    let http = reqwest::Client::new();
    let mut accepted = Vec::new();
    let refused = loop {
        let body = crate::server::request(&format!("Tenant {}", accepted.len()), "starter");
        let request = http.post(format!("{url}/v1/tenants")).bearer_auth(&key).json(&body);
        let answer = crate::server::read(request).await;
        match answer.status.as_u16() {
            202 => accepted.push(answer.body["id"].as_str().unwrap().to_owned()),
            _ => break answer,
        }
        assert!(accepted.len() < 5_000, "the disk never fills up");
    };
    refused.problem(503, "unavailable");
    assert!(refused.headers.contains_key("retry-after"));
    assert!(full.0.try_wait().unwrap().is_none(), "the server stays alive");
    drop(full);

    let (_second, url) = start(folder.path()).await;
    let get = async |path: String| {
        crate::server::read(http.get(format!("{url}{path}")).bearer_auth(&key)).await.expect(200).body
    };
    let started = Instant::now();
    for id in &accepted {
        while get(format!("/v1/operations/{id}")).await["state"] != "succeeded" {
            assert!(started.elapsed() < PATIENCE, "operation {id} is not resumed");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
    let more = get("/v1/tenants?limit=100".to_owned()).await["data"].as_array().unwrap().len();
    assert!(more >= accepted.len().min(100));
}

#[test]
fn all_errors_of_a_configuration_are_reported_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.toml");
    std::fs::write(&file, "listen = 'x'\ncolour = 1\n[store]\nreaders = 'many'\n[providers.pigeon]\n")
        .unwrap();
    for verb in [["serve", "--config"].as_slice(), &["config", "check", "--config"]] {
        let output = clean(&mut Command::new(TENANTRY)).args(verb).arg(&file).output().unwrap();
        fails_with(&output, &["listen: ", "colour: ", "store.readers: ", "providers.pigeon: "]);
    }
    std::fs::write(&file, "[store]\nurl = 'postgres://me:hunter2@db/x'\n").unwrap();
    let output =
        clean(&mut Command::new(TENANTRY)).args(["config", "show", "--config"]).arg(&file).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success() && text.contains("postgres://me:***@db/x") && !text.contains("hunter2"),
        "{text}"
    );
}
