//! Authority: every route of the OpenAPI document is called without a key, with a wrong one and with one of
//! each scope. New routes are covered without a change here.

use reqwest::Method;
use serde_json::{Value, json};

use crate::on_both;
use crate::server::{Server, read};

const SCOPES: [&str; 6] = ["admin", "operator", "viewer", "signup", "guard", "tenant"];
const METHODS: [Method; 5] = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

struct Route {
    method: Method,
    path: String,
    security: Option<String>,
    scopes: Vec<String>,
}

/// Every route of the document, with ids in its path that do not exist.
async fn routes(server: &Server) -> Vec<Route> {
    let document = read(server.bare(Method::GET, "/openapi.json")).await.expect(200).body;
    assert_eq!(document["openapi"], "3.1.0");
    let mut routes = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let id = match path {
                path if path.contains("/operations/") => "op_01h2xcejqtf2nbrexx3vqjhp41",
                path if path.contains("/keys/") => "key_01h2xcejqtf2nbrexx3vqjhp41",
                _ => "ten_01h2xcejqtf2nbrexx3vqjhp41",
            };
            let path = path
                .replace("{id}", id)
                .replace("{name}", "x")
                .replace("{version}", "1")
                .replace("{table}", "tasks")
                .replace("{bucket}", "x")
                .replace("{key}", "x");
            let security = operation["security"].as_array().unwrap().first();
            routes.push(Route {
                method: method.to_uppercase().parse().unwrap(),
                path,
                security: security.map(|s| s.as_object().unwrap().keys().next().unwrap().clone()),
                scopes: serde_json::from_value(operation["x-scopes"].clone()).unwrap_or_default(),
            });
        }
    }
    assert!(routes.len() >= 35, "{} routes", routes.len());
    routes
}

on_both! {
    async fn every_route_rejects_callers_without_authority(mut server: Server) {
        let tenant = server.onboard("Acme").await["tenant_id"].as_str().unwrap().to_owned();
        let mut keys = Vec::new();
        for scope in SCOPES {
            keys.push((scope, server.key(scope, &tenant).await));
        }
        let mut tried = 0;
        for route in routes(&server).await {
            let Route { method, path, security, scopes } = &route;
            let send = |key: Option<&str>| {
                let request = server.bare(method.clone(), path);
                let request = key.map_or(server.bare(method.clone(), path), |key| request.bearer_auth(key));
                read(request.header("if-match", "\"1\""))
            };
            let says = format!("{method} {path}");
            let Some(security) = security else {
                assert_ne!(send(None).await.status, 401, "{says}");
                continue;
            };
            for key in [None, Some(""), Some("tnt_unknown"), Some("eyJhbGciOiJub25lIn0.e30.")] {
                let refused = send(key).await;
                assert_eq!(refused.status, 401, "{says} with {key:?}: {}", refused.text);
                assert!(refused.headers.contains_key("www-authenticate"), "{says}");
                refused.problem(401, refused.body["code"].as_str().unwrap());
                tried += 1;
            }
            for (scope, key) in &keys {
                let answer = send(Some(key)).await;
                tried += 1;
                if security == "tenant_token" {
                    assert_eq!(answer.status, 401, "{says}: an API key is not a tenant token");
                } else if scopes.iter().any(|allowed| allowed == scope) {
                    assert!(![401, 403].contains(&answer.status.as_u16()), "{says} with {scope}: {}", answer.text);
                } else {
                    answer.problem(403, "forbidden");
                }
            }
        }
        tenantry_testkit::report::add(&format!("authority: {tried} calls of routes with a wrong or lesser key"));
    }

    async fn settings_of_providers_are_shown_to_operators_only(mut server: Server) {
        let tenant = server.onboard("Acme").await["tenant_id"].as_str().unwrap().to_owned();
        // Part of a command in a template, as a password would be.
        let secret = "exit 1";
        let shown = async |scope: &str| {
            let key = server.key(scope, &tenant).await;
            let mut all = String::new();
            for path in ["", "/failing", "/failing/versions/1"] {
                let path = format!("/v1/templates{path}");
                all += &read(server.bare(Method::GET, &path).bearer_auth(&key)).await.expect(200).text;
            }
            if ["operator", "signup"].contains(&scope) {
                let plan = server.bare(Method::POST, "/v1/tenants?dry_run=true").bearer_auth(&key);
                all += &read(plan.json(&crate::server::request("Dry", "failing"))).await.expect(200).text;
            }
            all.contains(secret)
        };
        for (scope, sees) in [("operator", true), ("viewer", false), ("signup", false), ("tenant", false)] {
            assert_eq!(shown(scope).await, sees, "{scope}");
        }
    }

    async fn a_tenant_key_accesses_its_tenant_only(mut server: Server) {
        let own = server.onboard("Acme").await;
        let other = server.onboard("Other").await;
        let key = server.key("tenant", own["tenant_id"].as_str().unwrap()).await;
        let get = |path: String| read(server.bare(Method::GET, &path).bearer_auth(&key));
        get(format!("/v1/tenants/{}", own["tenant_id"].as_str().unwrap())).await.expect(200);
        get(format!("/v1/tenants/{}", other["tenant_id"].as_str().unwrap())).await.problem(404, "not_found");
        get("/v1/tenants/other".to_owned()).await.problem(404, "not_found");
        get(format!("/v1/operations/{}", own["id"].as_str().unwrap())).await.expect(200);
        get(format!("/v1/operations/{}", other["id"].as_str().unwrap())).await.problem(404, "not_found");
        for list in ["/v1/tenants", "/v1/operations"] {
            let page = get(list.to_owned()).await.expect(200).body;
            assert!(!page.to_string().contains(other["tenant_id"].as_str().unwrap()), "{list}");
        }
    }

    async fn a_signup_key_accesses_its_own_operations_only(mut server: Server) {
        let foreign = server.onboard("Other").await;
        let foreign = foreign["id"].as_str().unwrap();
        let (own, another) = (server.key("signup", "").await, server.key("signup", "").await);
        let ask = |key: &str, method: Method, path: String| read(server.bare(method, &path).bearer_auth(key));
        let made = server.bare(Method::POST, "/v1/tenants").bearer_auth(&own).header("prefer", "wait=30");
        let made = read(made.json(&crate::server::request("Acme", "starter"))).await.expect(201).body;
        let tenant = made["id"].as_str().unwrap();
        let listed = server.get(&format!("/v1/operations?tenant={tenant}")).await.expect(200).body;
        let begun: Vec<&Value> = listed["data"].as_array().unwrap().iter().collect();
        let id = begun.iter().find(|o| o["parent_id"].is_null()).unwrap()["id"].as_str().unwrap();
        assert!(begun.len() > 1, "detached steps belong to the same caller");
        for operation in &begun {
            let path = format!("/v1/operations/{}", operation["id"].as_str().unwrap());
            ask(&own, Method::GET, path.clone()).await.expect(200);
            ask(&another, Method::GET, path.clone()).await.problem(404, "not_found");
            ask(&another, Method::GET, format!("{path}/events")).await.problem(404, "not_found");
        }
        for key in [&own, &another] {
            ask(key, Method::GET, format!("/v1/operations/{foreign}")).await.problem(404, "not_found");
            ask(key, Method::GET, format!("/v1/operations/{foreign}/events")).await.problem(404, "not_found");
            ask(key, Method::POST, format!("/v1/operations/{foreign}/credentials")).await.problem(404, "not_found");
            for path in ["/v1/operations", "/v1/tenants", "/v1/events", "/v1/keys", &format!("/v1/tenants/{tenant}")] {
                ask(key, Method::GET, path.to_owned()).await.problem(403, "forbidden");
            }
            for path in [format!("/v1/tenants/{tenant}/provision"), format!("/v1/operations/{id}/cancel")] {
                ask(key, Method::POST, path).await.problem(403, "forbidden");
            }
        }
        ask(&another, Method::POST, format!("/v1/operations/{id}/credentials")).await.problem(404, "not_found");
        ask(&own, Method::POST, format!("/v1/operations/{id}/credentials")).await.expect(200);
    }

    async fn revoked_and_expired_keys_are_rejected(mut server: Server) {
        let made = server.post("/v1/keys", &json!({ "name": "k", "scopes": ["viewer"] })).await.expect(201).body;
        let secret = made["secret"].as_str().unwrap();
        let get = || read(server.bare(Method::GET, "/v1/tenants").bearer_auth(secret));
        get().await.expect(200);
        let revoke = format!("/v1/keys/{}/revoke", made["id"].as_str().unwrap());
        assert!(server.post(&revoke, &json!({})).await.expect(200).body["revoked_at"].is_string());
        get().await.problem(401, "unauthenticated");
        server.post(&revoke, &json!({})).await.expect(200);
        let past = json!({ "name": "k", "scopes": ["viewer"], "expires_at": "2001-01-01T00:00:00Z" });
        assert_eq!(server.post("/v1/keys", &past).await.problem(422, "request_invalid"), ["expires_at"]);
        let listed = server.get("/v1/keys").await.expect(200);
        assert!(!listed.text.contains(secret), "a secret is revealed once");
    }

    async fn other_methods_get_405_with_allow(mut server: Server) {
        let document = read(server.bare(Method::GET, "/openapi.json")).await.expect(200).body;
        for (path, methods) in document["paths"].as_object().unwrap() {
            let has = |method: &Method| methods.get(method.as_str().to_lowercase()).is_some();
            let filled = path.replace("{id}", "x").replace("{name}", "x").replace("{version}", "1").replace("{table}", "x");
            for method in METHODS.iter().filter(|method| !has(method)) {
                let refused = read(server.request(method.clone(), &filled)).await;
                refused.problem(405, "method_not_allowed");
                let allowed = refused.headers["allow"].to_str().unwrap();
                assert!(METHODS.iter().filter(|m| has(m)).all(|m| allowed.contains(m.as_str())), "{path}: {allowed}");
            }
        }
        server.get("/v2/tenants").await.problem(404, "no_such_path");
    }
}

#[tokio::test]
async fn health_routes_need_no_key_and_reveal_no_names() {
    let server = Server::sqlite().await;
    server.onboard("Acme Confidential").await;
    for path in ["/livez", "/readyz", "/metrics", "/openapi.json", "/.well-known/jwks.json"] {
        let answer = read(server.bare(Method::GET, path)).await.expect(200);
        assert!(!answer.text.to_lowercase().contains("acme") && !answer.text.contains("ten_0"), "{path}");
    }
    let jwks = read(server.bare(Method::GET, "/.well-known/jwks.json")).await.body;
    let key: &Value = &jwks["keys"][0];
    assert_eq!((&key["kty"], &key["crv"]), (&json!("OKP"), &json!("Ed25519")));
    assert!(key.get("d").is_none(), "the private part is not revealed");
    let metrics = read(server.bare(Method::GET, "/metrics")).await;
    assert!(metrics.headers["content-type"].to_str().unwrap().starts_with("application/openmetrics-text"));
    assert!(metrics.text.contains("tenantry_http_requests_total{"), "{}", metrics.text);
    assert!(metrics.text.ends_with("# EOF\n"));
}
