//! Invalid requests: a 4xx problem that names every invalid field and quotes nothing of the body, and no row
//! written.

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::on_both;
use crate::server::{Answer, Server, read, request};

async fn send(server: &Server, body: impl Into<Vec<u8>>) -> Answer {
    let request = server.request(Method::POST, "/v1/tenants").header("content-type", "application/json");
    read(request.body(body.into())).await
}

fn nested(depth: usize) -> Value {
    (0..depth).fold(json!(1), |inner, _| json!({ "a": inner }))
}

/// A request with every field.
fn full() -> Value {
    json!({
        "tenant_name": "Acme", "organization_name": "Acme Holding", "slug": "acme", "region": "local", "locale": "de-AT",
        "admin_user": { "email": "ada@example.com", "first_name": "Ada", "last_name": "L", "role": "owner" },
        "subscription": { "plan": "starter", "billing_cycle": "yearly", "features": ["projects"] },
        "configuration": { "settings": { "a": 1 } },
        "compliance": { "data_residency": "local", "retention_period": 30 },
        "labels": { "tier": "gold" },
    })
}

fn set(document: &mut Value, path: &str, value: Value) {
    let pointer = format!("/{}", path.replace('.', "/"));
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    document.pointer_mut(parent).unwrap()[key] = value;
}

on_both! {
    async fn every_invalid_field_is_named_and_nothing_is_written(mut server: Server) {
        server.onboard("Taken").await;
        let before = server.counts().await;
        let faulty = [
            (json!({}), vec!["admin_user", "subscription", "tenant_name"]),
            (json!([]), vec![""]),
            (json!("x"), vec![""]),
            (json!(null), vec![""]),
            (
                json!({ "tenant_name": 7, "admin_user": { "emial": "x" }, "colour": "red", "labels": { "a": [] },
                    "subscription": { "plan": null, "billing_cycle": "daily", "features": "all" },
                    "compliance": { "retention_period": -1, "encryption_level": 3 }, "configuration": [] }),
                vec![
                    "admin_user.email", "admin_user.emial", "colour", "compliance.encryption_level",
                    "compliance.retention_period", "configuration", "labels.a", "subscription.billing_cycle",
                    "subscription.features", "subscription.plan", "tenant_name",
                ],
            ),
            (
                json!({ "tenant_name": "Ac\u{1}me", "organization_name": "\u{202e}", "slug": "admin", "region": "E U",
                    "locale": "d e", "labels": { "": "x" }, "subscription": { "plan": "gold" },
                    "admin_user": { "email": "nobody", "role": "god", "first_name": "\u{7}", "last_name": " " } }),
                vec![
                    "admin_user.email", "admin_user.first_name", "admin_user.last_name", "admin_user.role", "labels",
                    "locale", "organization_name", "region", "slug", "subscription.plan", "tenant_name",
                ],
            ),
        ];
        for (body, expected) in faulty {
            let refused = send(&server, body.to_string()).await;
            let mut paths = refused.problem(422, "request_invalid");
            paths.sort();
            assert_eq!(paths, expected, "{body}: {}", refused.text);
        }
        // Each field alone with every wrong value.
        let wrong = [json!(null), json!(7), json!(true), json!("\u{0}"), json!([[]]), json!({ "x": {} }), json!("x".repeat(5000))];
        for path in [
            "tenant_name", "organization_name", "slug", "region", "locale", "admin_user", "admin_user.email",
            "admin_user.first_name", "admin_user.last_name", "admin_user.role", "subscription", "subscription.plan",
            "subscription.billing_cycle", "subscription.features", "configuration", "compliance",
            "compliance.data_residency", "compliance.retention_period", "compliance.encryption_level", "labels",
        ] {
            for value in &wrong {
                let mut document = full();
                set(&mut document, path, value.clone());
                let optional = !["tenant_name", "admin_user", "admin_user.email", "subscription", "subscription.plan"].contains(&path);
                let fine = optional && value.is_null() && path != "labels" && path != "subscription.billing_cycle"
                    || path == "compliance.retention_period" && *value == 7;
                if fine {
                    continue;
                }
                let refused = send(&server, document.to_string()).await;
                let paths = refused.problem(422, refused.body["code"].as_str().unwrap());
                assert!(paths.iter().any(|named| named.starts_with(path)), "{path} = {value}: {paths:?}");
                assert!(refused.text.len() < 5_000, "the response does not echo the request: {path}");
            }
        }
        for (path, value) in [
            ("compliance.retention_period", json!(4_294_967_296_u64)),
            ("configuration.settings", json!({ "a": "x".repeat(70_000) })),
            ("configuration.settings", json!({ "a": ["x\u{1b}"] })),
            ("configuration.settings.a", json!("x\u{0}y")),
            ("labels.tier", json!("x\u{0}y")),
        ] {
            let mut document = full();
            set(&mut document, path, value);
            assert_eq!(send(&server, document.to_string()).await.problem(422, "request_invalid"), [path]);
        }
        // A customization that the template does not allow: named, and nothing written.
        let mut document = full();
        set(&mut document, "configuration.custom_domain", json!("app.example.com"));
        let refused = send(&server, document.to_string()).await;
        assert_eq!(refused.problem(422, "customization_not_allowed"), ["configuration.custom_domain"]);
        assert!(refused.text.contains("Customization custom_domain not allowed for this template"));
        for (path, value) in [("region", json!("mars")), ("compliance.data_residency", json!("mars"))] {
            let mut document = full();
            document.as_object_mut().unwrap().remove("region");
            document["compliance"].as_object_mut().unwrap().remove("data_residency");
            set(&mut document, path, value);
            let refused = send(&server, document.to_string()).await;
            assert_eq!(refused.problem(422, "request_invalid"), [path]);
        }
        server.get("/v1/tenants?plan=%00").await.problem(422, "query_invalid");
        let mut taken = request("Another", "starter");
        taken["slug"] = "taken".into();
        assert_eq!(send(&server, taken.to_string()).await.problem(409, "slug_taken"), ["slug"]);
        assert_eq!(server.counts().await, before);
        // The same document without errors is accepted.
        send(&server, full().to_string()).await.expect(202);
    }

    async fn malformed_json_is_reported_with_its_position(mut server: Server) {
        let before = server.counts().await;
        let deep = format!("{{\"configuration\":{}1{}}}", "{\"a\":".repeat(5_000), "}".repeat(5_000));
        let bodies: Vec<(Vec<u8>, &str)> = vec![
            (b"{\"tenant_name\": \"hunter2\"".to_vec(), "line 1, column 25"),
            (b"".to_vec(), "line 1"),
            (b"{\n  \"tenant_name\": hunter2\n}".to_vec(), "line 2"),
            (b"{\"tenant_name\": \"hunter2\xff\"}".to_vec(), "UTF-8"),
            (b"{\"tenant_name\": \"\\ud800\"}".to_vec(), "line 1"),
            (b"{\"tenant_name\": \"hunter2\", \"tenant_name\": \"x\"}".to_vec(), "duplicate key"),
            (b"\xef\xbb\xbf{}".to_vec(), "line 1"),
            (deep.into_bytes(), "deeper than 32 levels"),
            (vec![b'['; 900_000], "deeper than 32 levels"),
        ];
        for (body, says) in bodies {
            let refused = send(&server, body).await;
            assert_eq!(refused.problem(400, "malformed_json"), [""]);
            assert!(refused.text.contains(says), "{says}: {}", refused.text);
            assert!(!refused.text.contains("hunter2"), "the response quotes the body: {}", refused.text);
        }
        // The deepest allowed nesting works.
        let mut allowed = full();
        set(&mut allowed, "configuration.settings", nested(29));
        let answer = send(&server, allowed.to_string()).await;
        assert!([202, 422].contains(&answer.status.as_u16()), "{}", answer.text);
        if answer.status == 202 {
            server.done(answer.body["id"].as_str().unwrap()).await;
        } else {
            assert_eq!(server.counts().await, before);
        }
    }

    async fn size_and_media_type_are_limited(mut server: Server) {
        let before = server.counts().await;
        let long = request(&"x".repeat(1_000_000), "starter");
        assert_eq!(send(&server, long.to_string()).await.problem(422, "request_invalid"), ["tenant_name"]);
        let longer = request(&"x".repeat(1 << 20), "starter");
        send(&server, longer.to_string()).await.problem(413, "body_too_large");
        send(&server, vec![b' '; 3 << 20]).await.problem(413, "body_too_large");
        let post = |media: Option<&str>| {
            let request = server.request(Method::POST, "/v1/tenants").body(full().to_string());
            read(media.map_or(request.try_clone().unwrap(), |media| request.header("content-type", media)))
        };
        for media in [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("application/json; charset=latin1")] {
            post(media).await.problem(415, "unsupported_media_type");
        }
        let get = |accept: &str| read(server.request(Method::GET, "/v1/tenants").header("accept", accept));
        get("text/html").await.problem(406, "not_acceptable");
        get("application/json;q=0").await.problem(406, "not_acceptable");
        get("text/html, application/*;q=0.1").await.expect(200);
        let many = (0..200).fold(server.request(Method::GET, "/v1/tenants"), |r, n| r.header(format!("x-{n}"), "y"));
        assert_eq!(read(many).await.status, 431);
        assert_eq!(server.counts().await, before);
        post(Some("application/json; charset=UTF-8")).await.expect(202);
    }

    async fn unknown_and_invalid_parameters_are_rejected(mut server: Server) {
        let bad = server.get("/v1/tenants?limt=3&limit=0&status=odd&cursor=%00&limit=5").await;
        let paths = bad.problem(422, "query_invalid");
        for path in ["limt", "limit", "status"] {
            assert!(paths.iter().any(|named| named == path), "{path}: {paths:?}");
        }
        assert_eq!(server.get("/v1/tenants?cursor=%27%3B--").await.problem(422, "query_invalid"), ["cursor"]);
        assert_eq!(server.get("/v1/operations?state=done").await.problem(422, "query_invalid"), ["state"]);
        assert_eq!(server.get("/v1/plans?x=y").await.problem(422, "query_invalid"), ["x"]);
        assert_eq!(server.post("/v1/tenants?dry_run=maybe", &full()).await.problem(422, "query_invalid"), ["dry_run"]);
        server.get("/v1/operations/not-an-id").await.problem(404, "not_found");
        server.get("/v1/tenants/%ff").await.problem(400, "malformed_path");
        server.get("/v1/tenants/%27%20OR%201=1--").await.problem(404, "not_found");
        server.get("/v1/templates/starter/versions/one").await.problem(404, "not_found");
        assert!(server.tenants().await.is_empty());
    }
}

#[tokio::test]
async fn safe_request_ids_are_accepted() {
    let server = Server::sqlite().await;
    let with = |id: &str| read(server.request(Method::GET, "/v1/nothing").header("x-request-id", id));
    let mine = with("4bf92f35-77b3").await;
    mine.problem(404, "no_such_path");
    assert_eq!(mine.body["request_id"], "4bf92f35-77b3");
    assert_ne!(with("a b \"c\"").await.body["request_id"], "a b \"c\"");
    let log = server.log();
    assert!(log.contains("4bf92f35-77b3"), "the log has the request's id");
    for line in log.lines() {
        assert!(serde_json::from_str::<Value>(line).is_ok(), "the log of `serve` is JSON: {line}");
    }
    let shown = server.get("/livez").await;
    assert!(shown.headers.contains_key("x-request-id"));
    assert_eq!(shown.headers["cache-control"], "no-store");
}

/// Clients that stop in the middle of a request do not block others.
#[tokio::test]
async fn hung_clients_do_not_block_others() {
    let server = Server::sqlite().await;
    let address = server.url.trim_start_matches("http://").to_owned();
    let mut hung = Vec::new();
    for text in [
        "",
        "GET /livez HTTP/1.1\r\nhost: x",
        "POST /v1/tenants HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{",
    ] {
        for _ in 0..100 {
            let mut connection = tokio::net::TcpStream::connect(&address).await.unwrap();
            connection.write_all(text.as_bytes()).await.unwrap();
            hung.push(connection);
        }
    }
    assert_eq!(server.onboard("Acme").await["state"], "succeeded");
    // Anything but HTTP gets 400.
    let mut noise = tokio::net::TcpStream::connect(&address).await.unwrap();
    noise.write_all(b"\x16\x03\x01 hello\r\n\r\n").await.unwrap();
    let mut said = String::new();
    noise.read_to_string(&mut said).await.unwrap();
    assert!(said.starts_with("HTTP/1.1 400"), "{said}");
}
