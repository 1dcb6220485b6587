//! Archives: exports behind signed URLs, backups that are verified and restored, and imports into new and
//! existing tenants.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use reqwest::Method;
use reqwest::header::{CONTENT_RANGE, RANGE};
use serde_json::{Value, json};
use tenantry_testkit::skip;

use crate::on_both;
use crate::plans::onboard;
use crate::server::{Server, read, request};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/guide/verify_export.py");

/// Onboards a tenant and adds a row and an object; returns its id and token.
async fn tenant(server: &Server, name: &str, plan: &str) -> (String, String) {
    let (operation, token) = onboard(server, &request(name, plan)).await;
    let row = json!({ "id": "mine", "name": format!("Zoë's \"{name}\", 🎉\nline"), "description": "" });
    read(server.bare(Method::POST, "/data/projects").bearer_auth(&token).json(&row)).await.expect(201);
    if plan != "starter" {
        let body = json!({ "key": "plans/ä b", "method": "PUT" });
        let signed = read(server.bare(Method::POST, "/objects/urls").bearer_auth(&token).json(&body)).await;
        let address = signed.expect(201).body["url"].as_str().unwrap().replace(&server.url, "");
        let bytes = server.bare(Method::PUT, &address).body(format!("bytes of {name} ").repeat(20_000));
        read(bytes).await.expect(200);
    }
    (operation["tenant_id"].as_str().unwrap().to_owned(), token)
}

async fn succeeded(server: &Server, path: &str, body: &Value) -> Value {
    let begun = server.post(path, body).await.expect(202).body;
    let done = server.done(begun["id"].as_str().unwrap()).await;
    assert_eq!(done["state"], "succeeded", "{done:#}");
    done
}

async fn export(server: &Server, tenant: &str) -> Value {
    let done = succeeded(server, &format!("/v1/tenants/{tenant}/exports"), &json!({})).await;
    done["response"]["archives"]["export"].clone()
}

/// Path and query of the signed URL of an export.
async fn address(server: &Server, tenant: &str, export: &Value) -> String {
    let path = format!("/v1/tenants/{tenant}/exports/{}/link", export["id"].as_str().unwrap());
    let link = server.post(&path, &json!({})).await.expect(201).body;
    assert_eq!(link["expires_at"].as_str().unwrap()[..16], export["expires_at"].as_str().unwrap()[..16]);
    link["url"].as_str().unwrap().strip_prefix(&server.url).unwrap().to_owned()
}

async fn bytes(server: &Server, address: &str) -> Vec<u8> {
    let response = server.bare(Method::GET, address).send().await.unwrap();
    assert_eq!(response.status(), 200);
    response.bytes().await.unwrap().to_vec()
}

/// The digests of an archive's resources by step.
fn digests(archive: &Value) -> BTreeMap<String, String> {
    let resources = archive["resources"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    resources.map(|one| (text(&one["folder"]), text(&one["content"]["digest"]))).collect()
}

/// The files of an archive by name, unpacked with `tar` and `zstd`.
fn unpacked(archive: &[u8]) -> BTreeMap<String, String> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("archive"), archive).unwrap();
    let tar = Command::new("tar").args(["--zstd", "-xf", "archive"]).current_dir(folder.path()).output();
    let tar = tar.unwrap();
    assert!(tar.status.success(), "{}", String::from_utf8_lossy(&tar.stderr));
    std::fs::remove_file(folder.path().join("archive")).unwrap();
    let mut files = BTreeMap::new();
    let mut open = vec![folder.path().to_owned()];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            let name = path.strip_prefix(folder.path()).unwrap().to_str().unwrap().to_owned();
            files.insert(name, String::from_utf8(std::fs::read(&path).unwrap()).unwrap());
        }
    }
    files
}

/// Verifies an archive with the guide's Python script. `None`, reported as skipped, without Python or zstd.
fn verified(archive: &[u8]) -> Option<bool> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("archive");
    std::fs::write(&file, archive).unwrap();
    let there = |program: &str| Command::new(program).arg("--version").output().is_ok();
    if !there("python3") || !there("zstd") {
        skip::skip("exports, checked by Python", "no python3 or no zstd", "apt install python3 zstd");
        return None;
    }
    let pipe = "set -o pipefail; zstd -qdc \"$0\" | python3 \"$1\"";
    let said = Command::new("bash").args(["-c", pipe]).arg(&file).arg(SCRIPT).output().unwrap();
    Some(said.status.success())
}

/// Replaces bytes inside an archive by others of the same length.
fn forged(archive: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let ran = Command::new("zstd").args(arguments).current_dir(folder.path()).status().unwrap();
        assert!(ran.success());
    };
    std::fs::write(folder.path().join("archive.zst"), archive).unwrap();
    run(&["-qd", "archive.zst", "-o", "tar"]);
    let mut tar = std::fs::read(folder.path().join("tar")).unwrap();
    let at = tar.windows(from.len()).position(|window| window == from).expect("what is to be changed");
    tar[at..at + from.len()].copy_from_slice(to);
    std::fs::write(folder.path().join("tar"), tar).unwrap();
    run(&["-q", "tar", "-o", "forged"]);
    std::fs::read(folder.path().join("forged")).unwrap()
}

/// Sends a whole body before reading; returns the response.
fn sent_blindly(server: &Server, path: &str, length: usize, chunked: bool) -> String {
    let address = server.url.strip_prefix("http://").unwrap();
    let mut connection = TcpStream::connect(address).unwrap();
    let framing =
        if chunked { "Transfer-Encoding: chunked".to_owned() } else { format!("Content-Length: {length}") };
    let key = server.key.trim();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {key}\r\n{framing}\r\n\r\n"
    );
    connection.write_all(head.as_bytes()).unwrap();
    let piece = vec![0; 64 << 10];
    for _ in 0..length / piece.len() {
        if chunked {
            connection.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).expect("a connection");
        }
        connection.write_all(&piece).expect("a connection that takes all of it");
        if chunked {
            connection.write_all(b"\r\n").expect("a connection");
        }
    }
    if chunked {
        connection.write_all(b"0\r\n\r\n").expect("a connection");
    }
    let mut answer = Vec::new();
    let mut some = [0; 4096];
    // The response is complete at the end of its problem document.
    while !answer.ends_with(b"}") {
        let read = connection.read(&mut some).expect("an answer");
        assert_ne!(read, 0, "the connection was cut: {}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&some[..read]);
    }
    String::from_utf8(answer).unwrap()
}

fn holds(folder: &Path, word: &[u8]) -> bool {
    std::fs::read_dir(folder).unwrap().any(|entry| {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        bytes.windows(word.len()).any(|window| window == word)
    })
}

on_both! {
    async fn an_export_is_served_through_a_signed_url(mut server: Server) {
        let (acme, _) = tenant(&server, "Acme", "growth").await;
        let (other, _) = tenant(&server, "Other", "growth").await;
        let made = export(&server, &acme).await;
        let listed = server.get(&format!("/v1/tenants/{acme}/exports")).await.expect(200).body;
        assert_eq!(listed["data"], json!([made]));
        assert_eq!(server.get(&format!("/v1/tenants/{other}/exports")).await.expect(200).body["data"], json!([]));

        let address = address(&server, &acme, &made).await;
        let archive = bytes(&server, &address).await;
        assert_eq!(archive.len() as u64, made["size"].as_u64().unwrap());
        let files = unpacked(&archive);
        let names: Vec<&str> = files.keys().map(String::as_str).collect();
        for name in [
            "manifest.json", "manifest.000001.ndjson", "database/projects.000001.csv", "database/tasks.000001.csv", "bucket/000001.csv",
            "bucket/000001/0001", "config/config.json", "identity/members.000001.csv", "billing/invoices.000001.csv",
        ] {
            assert!(names.contains(&name), "{name}: {names:?}");
        }
        assert!(files["database/projects.000001.csv"].contains("\"Zoë's \"\"Acme\"\", 🎉\nline\""));
        assert!(files["identity/members.000001.csv"].contains("ada@example.com"));
        assert!(files["bucket/000001/0001"].starts_with("bytes of Acme"));
        assert!(files.values().all(|text| !text.contains("Other")), "another tenant's data is exported");
        assert!(files.values().all(|text| !text.contains("token_hash") && !text.contains("password")));
        // The stored archive is encrypted under the tenant's key.
        assert!(!holds(&server.folder().join("archives"), &archive[..16]));

        if let Some(whole) = verified(&archive) {
            assert!(whole);
            let other = forged(&archive, b"bytes of Acme bytes", b"bytes of Acme lives");
            for changed in [&other[..], &archive[..archive.len() - 1]] {
                assert_eq!(verified(changed), Some(false));
            }
        }

        // A range, and URLs that are rejected.
        let part = server.bare(Method::GET, &address).header(RANGE, "bytes=100-1099").send().await.unwrap();
        assert_eq!(part.status(), 206);
        assert_eq!(part.headers()[CONTENT_RANGE], format!("bytes 100-1099/{}", archive.len()).as_str());
        assert_eq!(part.bytes().await.unwrap(), archive[100..1_100]);
        let beyond = server.bare(Method::GET, &address).header(RANGE, "bytes=99999999-");
        read(beyond).await.problem(416, "bad_range");
        let theirs = export(&server, &other).await;
        let last = if address.ends_with('0') { '1' } else { '0' };
        let changed = format!("{}{last}", &address[..address.len() - 1]);
        let id = |export: &Value| export["id"].as_str().unwrap().to_owned();
        for (wrong, code) in [
            (address.replace(&id(&made), &id(&theirs)), "bad_signature"),
            (address.replace("expires=", "expires=1"), "bad_signature"),
            (changed, "bad_signature"),
            (format!("{address}0"), "bad_signature"),
            (address.replace("expires=", "expires=0&x="), "query_invalid"),
            (format!("/exports/{}?expires=1&signature=x", id(&made)), "expired"),
        ] {
            let status = if code == "query_invalid" { 422 } else { 403 };
            read(server.bare(Method::GET, &wrong)).await.problem(status, code);
        }
        let foreign = format!("/v1/tenants/{other}/exports/{}/link", id(&made));
        server.post(&foreign, &json!({})).await.problem(404, "not_found");
        // Each link and each first read is audited; a further range is not.
        assert_eq!((server.audited("tenant.export_link").await, server.audited("tenant.export_read").await), (1, 1));
        // The URL stays valid during a suspension and after a restart.
        server.post(&format!("/v1/tenants/{acme}/suspend"), &json!({ "reason": "payment" })).await.expect(200);
        server.kill_and_restart().await;
        assert_eq!(bytes(&server, &address).await, archive);
        let keep = json!({ "keep_days": 0 });
        assert_eq!(server.post(&format!("/v1/tenants/{acme}/exports"), &keep).await.problem(422, "request_invalid"), ["keep_days"]);
    }

    async fn an_administrator_exports_the_own_tenant_only(mut server: Server) {
        let (acme, token) = tenant(&server, "Acme", "starter").await;
        let (_, stranger) = tenant(&server, "Other", "starter").await;
        let ask = |method, bearer: &str| read(server.bare(method, "/exports").bearer_auth(bearer));
        let begun = ask(Method::POST, &token).await.expect(202).body;
        server.done(begun["id"].as_str().unwrap()).await;
        let mine = ask(Method::GET, &token).await.expect(200).body["data"].clone();
        assert_eq!((mine.as_array().unwrap().len(), &mine[0]["tenant_id"]), (1, &json!(acme)));
        assert_eq!(server.audited("tenant.export_link").await, 1, "a list reveals a signed URL as well");
        let address = mine[0]["url"].as_str().unwrap().strip_prefix(&server.url).unwrap();
        let files = unpacked(&bytes(&server, address).await);
        assert!(files["database/projects.000001.csv"].contains("Zoë"));
        assert_eq!(ask(Method::GET, &stranger).await.expect(200).body["data"], json!([]));
        server.events_are_numbered().await;
        let events = server.get("/v1/events?limit=100").await.expect(200).text;
        assert!(events.contains("tenant.exported"), "{events}");
        server.post(&format!("/v1/tenants/{acme}/suspend"), &json!({ "reason": "policy" })).await.expect(200);
        ask(Method::POST, &token).await.problem(403, "tenant_suspended");
        // Erasing the tenant deletes the export before its 30 days are over.
        succeeded(&server, &format!("/v1/tenants/{acme}/erase"), &json!({ "reason": "over" })).await;
        read(server.bare(Method::GET, address)).await.problem(403, "bad_signature");
        assert_eq!(std::fs::read_dir(server.folder().join("archives")).unwrap().count(), 0);
    }

    async fn a_rejected_upload_gets_a_response(mut server: Server) {
        let (acme, _) = tenant(&server, "Acme", "starter").await;
        let made = export(&server, &acme).await;
        let address = address(&server, &acme, &made).await;
        let archive = bytes(&server, &address).await;
        let config = std::fs::read_to_string(server.config()).unwrap();
        std::fs::write(server.config(), format!("import_max_bytes = {}\n{config}", archive.len())).unwrap();
        server.kill_and_restart().await;
        let before = server.counts().await;
        let path = format!("/v1/tenants/{acme}/imports");
        // More than the buffers of a connection hold.
        for (path, status) in [(&*path, "413 "), ("/v1/tenants/absent/imports", "404 ")] {
            for chunked in [false, true] {
                let answer = sent_blindly(&server, path, 32 << 20, chunked);
                assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
                let says = format!("the archive exceeds `import_max_bytes` ({} bytes)", archive.len());
                assert!(status != "413 " || answer.contains("body_too_large") && answer.contains(&says), "{answer}");
            }
        }
        assert_eq!(server.counts().await, before, "no operation has begun");
        let left = std::fs::read_dir(server.folder().join("archives")).unwrap().count();
        assert_eq!(left, 1, "the export, and no incomplete file");
        let begun = read(server.request(Method::POST, &path).body(archive)).await.expect(202).body;
        assert_eq!(server.done(begun["id"].as_str().unwrap()).await["state"], "succeeded", "of the maximum size");
    }

    async fn an_import_under_way_ends_with_its_key(mut server: Server) {
        let (acme, _) = tenant(&server, "Acme", "starter").await;
        let made = export(&server, &acme).await;
        let archive = bytes(&server, &address(&server, &acme, &made).await).await;
        let key = server.post("/v1/keys", &json!({ "name": "o", "scopes": ["operator"] })).await.expect(201).body;
        let (before, operations) = (server.files("archives"), server.counts().await);
        let (send, sent) = futures::channel::mpsc::unbounded::<Result<Vec<u8>, std::io::Error>>();
        let upload = server.bare(Method::POST, &format!("/v1/tenants/{acme}/imports"));
        let upload = upload.bearer_auth(key["secret"].as_str().unwrap()).body(reqwest::Body::wrap_stream(sent));
        let upload = tokio::spawn(read(upload));
        let (first, rest) = archive.split_at(archive.len() / 2);
        send.unbounded_send(Ok(first.to_vec())).unwrap();
        server.until_files("archives", |files| *files != before).await;
        server.post(&format!("/v1/keys/{}/revoke", key["id"].as_str().unwrap()), &json!({})).await.expect(200);
        send.unbounded_send(Ok(rest.to_vec())).unwrap();
        drop(send);
        upload.await.unwrap().problem(401, "unauthenticated");
        server.until_files("archives", |files| *files == before).await;
        assert_eq!(server.counts().await, operations, "no operation has begun");
    }

    async fn an_import_into_a_new_tenant_has_the_same_content(mut server: Server) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("acme.tar.zst");
        let file = file.to_str().unwrap();
        let run = |arguments: &[&str]| {
            let output = server.cli(arguments).args(["--output", "json"]).stdin(Stdio::null()).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            (output.status.code(), serde_json::from_slice::<Value>(&output.stdout).unwrap_or_default(), said)
        };
        let (acme, _) = tenant(&server, "Acme", "growth").await;
        let (code, made, said) = run(&["tenant", "export", &acme, "--to", file]);
        assert_eq!(code, Some(0), "{said}");
        let (code, new, said) =
            run(&["tenant", "import", file, "--name", "Acme two", "--plan", "growth", "--admin", "bea@example.com"]);
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("Left out: billing"), "{said}");
        assert_eq!((&new["status"], &new["name"]), (&json!("active"), &json!("Acme two")));
        let (old, new) = (digests(&made), digests(&export(&server, new["id"].as_str().unwrap()).await));
        for step in ["database", "bucket", "config"] {
            assert_eq!(old[step], new[step], "{step}");
        }

        // A damaged archive begins no operation.
        let whole = std::fs::read(file).unwrap();
        let mut changed = whole.clone();
        let middle = changed.len() / 2;
        changed[middle] ^= 1;
        for bad in [&b"not an archive"[..], b"", &whole[..whole.len() - 1], &whole[..middle], &changed] {
            let sent = server.request(Method::POST, &format!("/v1/tenants/{acme}/imports")).body(bad.to_vec());
            read(sent).await.problem(422, "bad_archive");
        }
        let sent = || server.request(Method::POST, &format!("/v1/tenants/{acme}/imports")).header("idempotency-key", "i");
        let first = read(sent().body(whole.clone())).await.expect(202);
        server.done(first.body["id"].as_str().unwrap()).await;
        let again = read(sent().body(whole)).await.expect(202);
        assert_eq!((&again.headers["idempotent-replayed"], &again.body["id"]), (&"true".parse().unwrap(), &first.body["id"]));
        let left = std::fs::read_dir(server.folder().join("archives")).unwrap().count();
        assert_eq!(left, 4, "two exports and two imports");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_verified_and_restores_lost_data() {
    let Some(postgres) = Server::with_tenants_on_postgres().await else { return };
    for server in [Server::sqlite().await, postgres] {
        for plan in ["starter", "growth", "enterprise"] {
            let (acme, token) = tenant(&server, &format!("Acme {plan}"), plan).await;
            let done = succeeded(&server, &format!("/v1/tenants/{acme}/backups"), &json!({})).await;
            let backup = &done["response"]["archives"]["backup"];
            let restored = backup["verified"]["restored"].as_array().unwrap();
            assert!(restored.contains(&json!("database")), "{backup:#}");
            assert_eq!(restored.contains(&json!("bucket")), plan != "starter");
            assert!(backup["verified"]["files"].as_u64().unwrap() > 5);
            let listed = server.get(&format!("/v1/tenants/{acme}/backups")).await.expect(200).body;
            assert_eq!(&listed["data"][0], backup);

            let project = "/data/projects/mine";
            let ask = |method| read(server.bare(method, project).bearer_auth(&token));
            ask(Method::DELETE).await.expect(204);
            let restore = json!({ "archive": backup["id"] });
            let done = succeeded(&server, &format!("/v1/tenants/{acme}/restores"), &restore).await;
            let loaded = &done["response"]["loaded"];
            assert_eq!(loaded["resources"]["database"]["digest"], digests(backup)["database"], "{loaded:#}");
            assert!(ask(Method::GET).await.expect(200).text.contains("Zoë"));
            // A backup has no signed URL.
            let link = format!("/v1/tenants/{acme}/exports/{}/link", backup["id"].as_str().unwrap());
            server.post(&link, &json!({})).await.problem(404, "not_found");
        }
        assert!(!server.log().contains("rehearsal"), "the verification leaves nothing behind");
    }
}
