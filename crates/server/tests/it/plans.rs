//! The plans growth and enterprise: a bucket behind signed URLs, quotas, an approval, and the host name,
//! certificate and manifests of an enterprise tenant.

use std::path::{Path, PathBuf};

use reqwest::header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH, RANGE};
use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::on_both;
use crate::server::{Server, read, request};

/// Onboards a tenant and approves its waiting steps. Returns the operation with its credentials, and a token
/// of the first administrator.
pub async fn onboard(server: &Server, document: &Value) -> (Value, String) {
    let begun = server.post("/v1/tenants", document).await.expect(202).body;
    let id = begun["id"].as_str().unwrap();
    for step in begun["steps"].as_array().unwrap().iter().filter(|step| step["approval"].is_object()) {
        server
            .post(&format!("/v1/operations/{id}/approve"), &json!({ "step": step["key"] }))
            .await
            .expect(200);
    }
    sign_in(server, id).await
}

/// Waits until an onboarding is done and signs in by its invitation; returns the same as [`onboard`].
pub async fn sign_in(server: &Server, id: &str) -> (Value, String) {
    let mut operation = server.done(id).await;
    assert_eq!(operation["state"], "succeeded", "{operation:#}");
    let claimed = server.post(&format!("/v1/operations/{id}/credentials"), &json!({})).await.expect(200).body;
    operation["credentials"] = claimed["credentials"].clone();
    let grant = json!({ "grant_type": "invitation", "token": claimed["credentials"][0]["value"] });
    let token = read(server.bare(Method::POST, "/auth/token").json(&grant)).await.expect(200).body;
    (operation, token["access_token"].as_str().unwrap().to_owned())
}

/// The outputs of the operation's resource of this kind.
pub fn made<'a>(operation: &'a Value, kind: &str) -> &'a Value {
    let resources = operation["response"]["resources"].as_object().unwrap();
    &resources.values().find(|resource| resource["kind"] == kind).unwrap()["outputs"]
}

/// Path and query of a signed URL.
async fn sign(server: &Server, token: &str, method: &str, key: &str) -> String {
    let body = json!({ "key": key, "method": method });
    let signed = read(server.bare(Method::POST, "/objects/urls").bearer_auth(token).json(&body)).await;
    let signed = signed.expect(201).body;
    let url = signed["url"].as_str().unwrap();
    url.strip_prefix(&server.url)
        .unwrap_or_else(|| panic!("{url} does not lead to {}", server.url))
        .to_owned()
}

async fn put(server: &Server, address: &str, bytes: Vec<u8>) -> Response {
    server.bare(Method::PUT, address).header(CONTENT_TYPE, "image/x-test").body(bytes).send().await.unwrap()
}

/// All files below a folder.
fn walk(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    // Links point to files that are listed anyway.
    let entries = entries.filter(|entry| !entry.file_type().unwrap().is_symlink()).map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

on_both! {
    async fn a_growth_tenant_has_a_bucket_behind_signed_urls(mut server: Server) {
        let (_, token) = onboard(&server, &request("Acme", "growth")).await;
        let (_, stranger) = onboard(&server, &request("Other", "growth")).await;
        let list = async |bearer: &str, query: &str| {
            let path = format!("/objects{query}");
            read(server.bare(Method::GET, &path).bearer_auth(bearer)).await.expect(200).body
        };
        assert_eq!(list(&token, "").await["data"], json!([]), "the smoke test leaves nothing");
        // Larger than a JSON body may be, under a key that needs escaping.
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
        let key = "plans/ä b?/#1%.png";
        let address = sign(&server, &token, "PUT", key).await;
        let stored: Value = put(&server, &address, bytes.clone()).await.json().await.unwrap();
        assert_eq!((&stored["key"], &stored["size"]), (&json!(key), &json!(bytes.len())));

        let address = sign(&server, &token, "GET", key).await;
        let get = |range: &'static str, etag: String| {
            let request = server.bare(Method::GET, &address).header(RANGE, range);
            request.header(IF_NONE_MATCH, etag).send()
        };
        let whole = server.bare(Method::GET, &address).send().await.unwrap();
        let header = |response: &Response, name: &str| response.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(header(&whole, "content-type"), "image/x-test");
        assert_eq!(header(&whole, "content-disposition"), "attachment");
        assert_eq!(header(&whole, "x-content-type-options"), "nosniff");
        let etag = header(&whole, ETAG.as_str());
        assert!(whole.bytes().await.unwrap() == bytes);
        let part = get("bytes=10-19", String::new()).await.unwrap();
        assert_eq!((part.status().as_u16(), header(&part, "content-range")), (206, "bytes 10-19/3000000".to_owned()));
        assert!(part.bytes().await.unwrap() == bytes[10..20]);
        assert_eq!(get("bytes=3000000-", String::new()).await.unwrap().status(), 416);
        assert_eq!(get("", etag).await.unwrap().status(), 304);
        let head = server.bare(Method::HEAD, &address).send().await.unwrap();
        assert_eq!((head.status().as_u16(), header(&head, "content-length")), (200, "3000000".to_owned()));

        // A signed URL is valid for its method, key and bucket only; another tenant's token opens another
        // bucket.
        for (method, address) in [
            (Method::PUT, address.clone()),
            (Method::DELETE, address.clone()),
            (Method::GET, address.replace("plans", "planz")),
            (Method::GET, address.replace("expires=", "expires=1")),
            (Method::GET, address.replace("/files/tenant-", "/files/tenant_")),
            (Method::GET, address.split("&signature").next().unwrap().to_owned()),
            (Method::GET, address.replace("signature=", "signature=A")),
        ] {
            read(server.bare(method, &address)).await.problem(403, "bad_signature");
        }
        assert_eq!(list(&stranger, "").await["data"], json!([]));
        let theirs = sign(&server, &stranger, "GET", key).await;
        read(server.bare(Method::GET, &theirs)).await.problem(404, "not_found");

        assert_eq!(list(&token, "?prefix=plans/").await["data"][0]["key"], key);
        assert_eq!(list(&token, "?prefix=other").await["data"], json!([]));
        let usage = read(server.bare(Method::GET, "/objects/usage").bearer_auth(&token)).await.expect(200).body;
        assert_eq!(usage, json!({ "objects": 1, "bytes": 3_000_000, "quota_bytes": 50_u64 << 30 }));
        let delete = sign(&server, &token, "DELETE", key).await;
        server.kill_and_restart().await;
        let again = server.bare(Method::GET, &address).send().await.unwrap();
        assert!(again.bytes().await.unwrap() == bytes, "a signature outlives the process");
        read(server.bare(Method::DELETE, &delete)).await.expect(204);
        read(server.bare(Method::DELETE, &delete)).await.problem(404, "not_found");
        read(server.bare(Method::GET, &address)).await.problem(404, "not_found");
    }

    async fn invalid_requests_for_signed_urls_are_rejected(mut server: Server) {
        let (_, token) = onboard(&server, &request("Acme", "growth")).await;
        let ask = |body: Value| read(server.bare(Method::POST, "/objects/urls").bearer_auth(&token).json(&body));
        for (body, field) in [
            (json!({}), "key"),
            (json!({ "key": "" }), "key"),
            (json!({ "key": "a/../b" }), "key"),
            (json!({ "key": "a\nb" }), "key"),
            (json!({ "key": "x".repeat(1025) }), "key"),
            (json!({ "key": "a", "method": "POST" }), "method"),
            (json!({ "key": "a", "expires_in": 604_801 }), "expires_in"),
            (json!({ "key": "a", "expires_in": 0 }), "expires_in"),
            (json!({ "key": "a", "tenant": "other" }), "tenant"),
        ] {
            assert_eq!(ask(body.clone()).await.problem(422, "request_invalid"), [field], "{body}");
        }
        // A tenant of the plan starter has no bucket.
        let (_, token) = onboard(&server, &request("Small", "starter")).await;
        let none = server.bare(Method::POST, "/objects/urls").bearer_auth(&token).json(&json!({ "key": "a" }));
        read(none).await.problem(404, "not_found");
    }

    async fn objects_are_encrypted_on_disk_and_damage_is_an_error(mut server: Server) {
        let (_, token) = onboard(&server, &request("Acme", "growth")).await;
        let bytes = "plain text ".repeat(20_000).into_bytes();
        let address = sign(&server, &token, "PUT", "a").await;
        assert_eq!(put(&server, &address, bytes.clone()).await.status(), 200);
        let address = sign(&server, &token, "GET", "a").await;
        server.kill_and_restart().await;
        let whole = server.bare(Method::GET, &address).send().await.unwrap();
        assert!(whole.bytes().await.unwrap() == bytes, "the key outlives the process");

        let files = walk(&server.folder().join("buckets"));
        for file in &files {
            let stored = std::fs::read(file).unwrap();
            assert!(!stored.windows(5).any(|part| part == b"plain"), "{file:?}");
        }
        let object = files.iter().find(|file| file.parent().unwrap().ends_with("objects")).unwrap();
        let flip = |at: usize| {
            let mut stored = std::fs::read(object).unwrap();
            stored[at] ^= 1;
            std::fs::write(object, stored).unwrap();
        };
        flip(150_000);
        let cut_off = server.bare(Method::GET, &address).send().await.unwrap();
        assert_eq!(cut_off.status(), 200, "the first part is intact");
        cut_off.bytes().await.expect_err("a damaged object ends with an error");
        flip(100);
        read(server.bare(Method::GET, &address)).await.problem(500, "provider_failed");
    }

    async fn the_storage_quota_is_enforced(mut server: Server) {
        let mut document = request("Acme", "growth");
        document["quotas"] = json!({ "storage_bytes": 1000 });
        let (_, token) = onboard(&server, &document).await;
        let address = sign(&server, &token, "PUT", "big").await;
        read(server.bare(Method::PUT, &address).body(vec![0; 1001])).await.problem(409, "quota_exceeded");
        assert_eq!(put(&server, &address, vec![0; 1000]).await.status(), 200);
        let other = sign(&server, &token, "PUT", "more").await;
        read(server.bare(Method::PUT, &other).body(vec![0; 1])).await.problem(409, "quota_exceeded");
        document["quotas"] = json!({ "storage_bytes": "2TiB" });
        document["tenant_name"] = json!("Too much");
        let refused = server.post("/v1/tenants", &document).await;
        assert_eq!(refused.problem(422, "customization_refused"), ["quotas.storage_bytes"]);
        assert!(refused.text.contains("at most 1 TiB"), "{}", refused.text);
    }

    async fn an_enterprise_tenant_is_approved_and_has_its_own_resources(mut server: Server) {
        let mut document = request("Gärtnerei Abendrot", "enterprise");
        document["compliance"] = json!({ "encryption_level": "enhanced" });
        let begun = server.post("/v1/tenants", &document).await.expect(202).body;
        let id = begun["id"].as_str().unwrap();
        let approve = format!("/v1/operations/{id}/approve");
        let waiting = begun["steps"].as_array().unwrap().iter().find(|step| step["key"] == "approve").unwrap();
        assert_eq!((&waiting["state"], &waiting["approval"]["from"]), (&json!("waiting"), &json!(["operator"])));
        let viewer = server.key("viewer", "").await;
        let step = json!({ "step": "approve" });
        read(server.bare(Method::POST, &approve).bearer_auth(viewer).json(&step)).await.problem(403, "forbidden");
        assert!(!server.folder().join("buckets").join(".tenantry").exists(), "nothing is created before the approval");
        let operator = server.key("operator", "").await;
        read(server.bare(Method::POST, &approve).bearer_auth(operator).json(&step)).await.expect(200);
        let operation = server.done(id).await;
        assert_eq!(operation["state"], "succeeded", "{operation:#}");

        let dns = made(&operation, "dns");
        assert_eq!(dns["host"], "gaertnerei-abendrot.tenantry.test");
        let certificate = made(&operation, "certificate");
        assert_eq!(certificate["names"], json!(["gaertnerei-abendrot.tenantry.test"]), "from the outputs of the step dns");
        let folder = certificate["folder"].as_str().unwrap();
        let verified = std::process::Command::new("openssl")
            .args(["verify", "-CAfile", &format!("{folder}/chain.pem"), &format!("{folder}/cert.pem")])
            .output();
        match verified {
            Ok(verified) => assert!(verified.status.success(), "{verified:?}"),
            Err(_) => tenantry_testkit::skip::skip("plans: openssl", "it is not installed", "apt-get install openssl"),
        }
        assert_eq!(made(&operation, "bucket")["encryption"], "enhanced");
        let manifests = server.folder().join("manifests/tenant-gaertnerei-abendrot");
        assert!(manifests.join("kustomization.yaml").is_file(), "{manifests:?}");
        let tenant = operation["tenant_id"].as_str().unwrap().trim_start_matches("ten_");
        assert!(server.folder().join(format!("tenants/tenant_{tenant}/tenant.db")).is_file());
    }

    async fn a_rejected_approval_leaves_nothing(mut server: Server) {
        let begun = server.post("/v1/tenants", &request("Acme", "enterprise")).await.expect(202).body;
        let id = begun["id"].as_str().unwrap();
        let refusal = json!({ "step": "approve", "reason": "no contract" });
        server.post(&format!("/v1/operations/{id}/reject"), &refusal).await.expect(200);
        assert_eq!(server.done(id).await["state"], "rolled_back");
        for folder in ["tenants", "buckets", "manifests", "dns"] {
            let left = std::fs::read_dir(server.folder().join(folder)).into_iter().flatten().flatten();
            let left: Vec<_> = left.map(|entry| entry.file_name()).filter(|name| name != ".tenantry").collect();
            assert!(left.is_empty(), "{folder}: {left:?}");
        }
    }

    async fn customizations_outside_the_plan_are_rejected(mut server: Server) {
        let with = |plan: &str, configuration: Value| {
            let mut document = request("Acme", plan);
            document["configuration"] = configuration;
            document
        };
        let domain = json!({ "custom_domain": "app.acme.example" });
        let refused = server.post("/v1/tenants", &with("growth", domain)).await;
        assert_eq!(refused.problem(422, "customization_not_allowed"), ["configuration.custom_domain"]);
        assert!(refused.text.contains("Customization custom_domain not allowed for this template"), "{}", refused.text);
        for bad in ["", "acme", "-.example", "a..b", "*.acme.example", "http://acme.example", &"a.".repeat(200)] {
            let refused = server.post("/v1/tenants", &with("enterprise", json!({ "custom_domain": bad }))).await;
            assert_eq!(refused.problem(422, "request_invalid"), ["configuration.custom_domain"], "{bad}");
        }
        assert_eq!(server.counts().await[0], 0);
    }
}
