//! Clones: masked rows of another tenant, optionally its files, and nothing left behind if a mask does not
//! fit.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;

use reqwest::Method;
use serde_json::{Value, json};

use crate::on_both;
use crate::plans::onboard;
use crate::server::{Server, read, request};

/// Onboards a tenant and adds rows with personal data; returns its id and token.
async fn tenant(server: &Server, plan: &str) -> (String, String) {
    let (operation, token) = onboard(server, &request("Acme", plan)).await;
    let put = async |path: &str, row: Value| {
        read(server.bare(Method::POST, path).bearer_auth(&token).json(&row)).await.expect(201);
    };
    for (id, name) in [("one", "Ada@acme.example"), ("two", "secret word, \"quoted\"")] {
        put("/data/projects", json!({ "id": id, "name": name, "description": "secret word" })).await;
    }
    for (id, project) in [("a", "one"), ("b", "one"), ("c", "two")] {
        put("/data/tasks", json!({ "id": id, "project_id": project, "title": "secret word" })).await;
    }
    (operation["tenant_id"].as_str().unwrap().to_owned(), token)
}

fn options(slug: &str, masks: &[(&str, &str)]) -> Value {
    let masks = masks.iter().map(|(column, mask)| {
        let (table, column) = column.split_once('.').unwrap();
        let fixed = (*mask == "fixed").then_some("masked");
        match fixed {
            Some(value) => json!({ "table": table, "column": column, "mask": mask, "value": value }),
            None => json!({ "table": table, "column": column, "mask": mask }),
        }
    });
    json!({
        "slug": slug, "tenant_name": format!("Sandbox {slug}"), "admin_user": { "email": "dev@ours.example" },
        "masks": masks.collect::<Vec<_>>(),
    })
}

const ALL: [(&str, &str); 5] = [
    ("projects.name", "email"),
    ("projects.description", "fixed"),
    ("projects.id", "hash"),
    ("tasks.project_id", "hash"),
    ("tasks.title", "hash"),
];

/// Clones a tenant; returns the operation and a token of the clone's administrator.
async fn cloned(server: &Server, tenant: &str, options: &Value) -> (Value, String) {
    let begun = server.post(&format!("/v1/tenants/{tenant}/clones"), options).await.expect(202).body;
    let id = begun["id"].as_str().unwrap();
    for step in begun["steps"].as_array().unwrap().iter().filter(|step| step["approval"].is_object()) {
        let agreed = json!({ "step": step["key"] });
        server.post(&format!("/v1/operations/{id}/approve"), &agreed).await.expect(200);
    }
    let operation = server.done(id).await;
    assert_eq!(operation["state"], "succeeded", "{operation:#}");
    let path = format!("/v1/operations/{id}/credentials");
    let claimed = server.post(&path, &json!({})).await.expect(200).body;
    let grant = json!({ "grant_type": "invitation", "token": claimed["credentials"][0]["value"] });
    let token = read(server.bare(Method::POST, "/auth/token").json(&grant)).await.expect(200).body;
    (operation, token["access_token"].as_str().unwrap().to_owned())
}

async fn rows(server: &Server, token: &str, table: &str) -> Vec<Value> {
    let listed = read(server.bare(Method::GET, &format!("/data/{table}?limit=100")).bearer_auth(token)).await;
    listed.expect(200).body["data"].as_array().unwrap().clone()
}

/// Pairs each row of the tenant with the row of the clone that it became.
fn beside(theirs: &[Value], ours: &[Value], same: impl Fn(&Value, &Value) -> bool) -> Vec<(Value, Value)> {
    assert_eq!(theirs.len(), ours.len(), "every row was cloned, and no other");
    let pair = |their: &Value| {
        let became: Vec<&Value> = ours.iter().filter(|our| same(their, our)).collect();
        assert_eq!(became.len(), 1, "{their} became {became:?}");
        (their.clone(), became[0].clone())
    };
    theirs.iter().map(pair).collect()
}

fn ours(pairs: &[(Value, Value)]) -> Vec<Value> {
    pairs.iter().map(|(_, our)| our.clone()).collect()
}

/// Asserts that columns without a mask are unchanged, that the others follow their rule, and that equal
/// values have equal masks and different values different ones.
fn are_masked(table: &str, pairs: &[(Value, Value)]) {
    let columns = pairs[0].0.as_object().unwrap().keys();
    for column in columns {
        let mask = ALL.iter().find(|(name, _)| *name == format!("{table}.{column}")).map(|(_, mask)| *mask);
        let mut known = BTreeMap::new();
        for (their, our) in pairs {
            let (their, our) = (&their[column], &our[column]);
            let fits = match (mask, our.as_str()) {
                (None, _) => their == our,
                (Some("fixed"), our) => our == Some("masked"),
                (Some(_), None) => their.is_null() && our.is_null(),
                (Some("email"), Some(our)) => our.ends_with("@masked.invalid"),
                (Some(_), Some(our)) => our.len() == 32 && our.bytes().all(|byte| byte.is_ascii_hexdigit()),
            };
            assert!(fits, "{table}.{column}: {their} became {our}");
            let before = known.insert(their.to_string().to_lowercase(), our.clone());
            assert!(before.is_none_or(|before| before == *our), "{table}.{column}: {their} has two masks");
        }
        if mask != Some("fixed") {
            let masks: BTreeSet<String> = known.values().map(Value::to_string).collect();
            assert_eq!(masks.len(), known.len(), "{table}.{column}: two values have one mask");
        }
    }
}

/// Asserts the properties of a clone, for any isolation model.
async fn is_a_sandbox(server: &Server, plan: &str) {
    let (acme, token) = tenant(server, plan).await;
    let (operation, own) = cloned(server, &acme, &options("sandbox", &ALL)).await;
    let clone = server.get("/v1/tenants/sandbox").await.expect(200).body;
    assert_eq!((&clone["cloned_from"], &clone["plan"]), (&json!(acme), &json!(plan)));
    assert!(server.get("/v1/tenants/acme").await.expect(200).body["cloned_from"].is_null());
    let steps = operation["steps"].as_array().unwrap();
    assert!(steps.iter().all(|step| step["kind"] != "billing"), "a clone is not billed");
    assert_eq!(operation["response"]["cloned"]["from"], json!(acme));

    let (projects, tasks) = (rows(server, &own, "projects").await, rows(server, &own, "tasks").await);
    let theirs = (rows(server, &token, "projects").await, rows(server, &token, "tasks").await);
    // Task ids are not masked; tasks pair the projects that they refer to.
    let tasks = beside(&theirs.1, &tasks, |their, our| their["id"] == our["id"]);
    let referred = |their: &Value, our: &Value| {
        let of = |(task, cloned): &(Value, Value)| {
            task["project_id"] == their["id"] && cloned["project_id"] == our["id"]
        };
        tasks.iter().any(of)
    };
    let projects = beside(&theirs.0, &projects, referred);
    are_masked("projects", &projects);
    are_masked("tasks", &tasks);
    let text = json!([ours(&projects), ours(&tasks)]).to_string().to_lowercase();
    assert!(!text.contains("secret") && !text.contains("acme.example"), "{text}");
    // Another clone has other hashes, and the tenant itself is unchanged.
    let (_, second) = cloned(server, &acme, &options("second", &ALL)).await;
    let ids = |rows: &[Value]| rows.iter().map(|row| row["id"].to_string()).collect::<Vec<_>>();
    let again = rows(server, &second, "projects").await;
    assert!(ids(&again).iter().all(|id| !ids(&ours(&projects)).contains(id)));
    assert_eq!((rows(server, &token, "projects").await, rows(server, &token, "tasks").await), theirs);
}

/// Asserts that `tenantry certificate verify` names the clone.
fn verify_names_clone(server: &Server, tenant: &str, clone: &str) {
    let folder = tempfile::tempdir().unwrap();
    let print = |arguments: &[&str]| server.cli(arguments).stdin(Stdio::null()).output().unwrap().stdout;
    let (key, file) = (folder.path().join("key.pem"), folder.path().join("certificate.json"));
    std::fs::write(&key, print(&["certificate", "public-key"])).unwrap();
    std::fs::write(&file, print(&["certificate", "get", tenant])).unwrap();
    let (key, file) = (key.to_str().unwrap(), file.to_str().unwrap());
    let said = String::from_utf8(print(&["certificate", "verify", file, "--public-key", key])).unwrap();
    assert!(
        said.starts_with("genuine: ") && said.contains(&format!("not deleted: its clone {clone}, made")),
        "{said}"
    );
    assert!(said.contains("(masked: projects.name, tasks.title)"), "{said}");
}

on_both! {
    async fn a_clone_has_masked_rows_and_no_members_or_billing(mut server: Server) {
        is_a_sandbox(&server, "starter").await;
    }

    async fn files_are_cloned_on_request(mut server: Server) {
        let (acme, token) = tenant(&server, "growth").await;
        let key = json!({ "key": "a.txt", "method": "PUT" });
        let signed = read(server.bare(Method::POST, "/objects/urls").bearer_auth(&token).json(&key)).await;
        let address = signed.expect(201).body["url"].as_str().unwrap().replace(&server.url, "");
        read(server.bare(Method::PUT, &address).body("bytes of ours")).await.expect(200);
        for (slug, files) in [("without", false), ("with", true)] {
            let mut options = options(slug, &[]);
            options["files"] = json!(files);
            let (operation, own) = cloned(&server, &acme, &options).await;
            let key = json!({ "key": "a.txt", "method": "GET" });
            let signed = read(server.bare(Method::POST, "/objects/urls").bearer_auth(&own).json(&key)).await;
            let address = signed.expect(201).body["url"].as_str().unwrap().replace(&server.url, "");
            let found = server.bare(Method::GET, &address).send().await.unwrap();
            assert_eq!(found.status(), if files { 200 } else { 404 });
            if files {
                assert_eq!(found.text().await.unwrap(), "bytes of ours");
            }
            let left = operation["response"]["cloned"]["left_out"].as_array().unwrap();
            assert_eq!(left.iter().any(|left| left["step"] == "bucket"), !files, "{left:?}");
        }
    }

    async fn masks_of_the_template_cannot_be_overridden(mut server: Server) {
        let (acme, token) = tenant(&server, "masked").await;
        let path = format!("/v1/tenants/{acme}/clones");
        let refused = server.post(&path, &options("sandbox", &[("tasks.title", "fixed")])).await;
        assert_eq!(refused.problem(422, "request_invalid"), ["masks[0].column"]);
        let (_, own) = cloned(&server, &acme, &options("sandbox", &[("projects.description", "fixed")])).await;
        let titles = |rows: &[Value]| rows.iter().map(|row| row["title"].to_string()).collect::<Vec<_>>();
        let (here, there) = (rows(&server, &own, "tasks").await, rows(&server, &token, "tasks").await);
        assert!(!here.is_empty() && titles(&here).iter().all(|title| !titles(&there).contains(title)));
    }

    async fn a_mask_that_does_not_fit_is_named_and_rolled_back(mut server: Server) {
        let (acme, _) = tenant(&server, "starter").await;
        for (column, why) in [
            ("nowhere.name", "mask 2: there is no table `nowhere`"),
            ("tasks.nothing", "mask 2: table `tasks` has no column `nothing`; it has id, project_id,"),
            ("tasks.title", "NOT NULL"),
        ] {
            let options = options("sandbox", &[("projects.name", "hash"), (column, "nullify")]);
            let begun = server.post(&format!("/v1/tenants/{acme}/clones"), &options).await.expect(202).body;
            let ended = server.done(begun["id"].as_str().unwrap()).await;
            assert_eq!((&ended["state"], &ended["error"]["step"]), (&json!("rolled_back"), &json!("clone")), "{ended:#}");
            assert!(ended["error"]["message"].as_str().unwrap().contains(why), "{ended:#}");
            let clone = server.get("/v1/tenants/sandbox").await.expect(200).body;
            assert_eq!((&clone["status"], &clone["cloned_from"]), (&json!("pending"), &json!(acme)));
            // A retried onboarding is still a clone, and fails again.
            let again = server.post("/v1/tenants/sandbox/provision", &json!({})).await.expect(202).body;
            assert_eq!(server.done(again["id"].as_str().unwrap()).await["error"]["step"], "clone");
            server.done(server.post("/v1/tenants/sandbox/erase", &json!({ "reason": "over" })).await.expect(202).body["id"].as_str().unwrap()).await;
        }
    }

    async fn a_certificate_names_the_clones(mut server: Server) {
        let (acme, _) = tenant(&server, "starter").await;
        let id = |operation: &Value| operation["tenant_id"].as_str().unwrap().to_owned();
        let (first, _) = cloned(&server, &acme, &options("first", &[("tasks.title", "hash")])).await;
        let first = id(&first);
        let mut with_files = options("second", &[("projects.name", "email")]);
        with_files["files"] = json!(true);
        let (second, _) = cloned(&server, &first, &with_files).await;
        let second = id(&second);
        // A clone that failed has no rows.
        let failed = options("failed", &[("nowhere.name", "hash")]);
        let begun = server.post(&format!("/v1/tenants/{acme}/clones"), &failed).await.expect(202).body;
        server.done(begun["id"].as_str().unwrap()).await;

        let erased = async |tenant: &str| {
            let body = json!({ "reason": "over" });
            let begun = server.post(&format!("/v1/tenants/{tenant}/erase"), &body).await.expect(202).body;
            server.done(begun["id"].as_str().unwrap()).await;
            let proof = server.get(&format!("/v1/tenants/{tenant}/certificate")).await.expect(200).body;
            let mut clones = proof["certificate"]["clones"].clone();
            for clone in clones.as_array_mut().unwrap() {
                let clone = clone.as_object_mut().unwrap();
                let name = clone.remove("name").unwrap();
                assert!(name.as_str().unwrap().len() > 30 && !name.to_string().contains("second"), "{name}");
                assert!(clone.remove("cloned_at").unwrap().is_string());
            }
            (begun["clones"].clone(), clones)
        };
        let entry = |clone: &str, from: &str, masked: &[&str], files: bool| {
            json!({ "tenant_id": clone, "cloned_from": from, "masked": masked, "files": files })
        };
        let (answered, certified) = erased(&acme).await;
        assert_eq!(answered, json!([first, second]), "the response names the clones");
        let (title, both) = (["tasks.title"], ["projects.name", "tasks.title"]);
        assert_eq!(certified, json!([entry(&first, &acme, &title, false), entry(&second, &first, &both, true)]));
        verify_names_clone(&server, &acme, &first);
        let (answered, certified) = erased(&first).await;
        assert_eq!(answered, json!([second]));
        assert_eq!(certified, json!([entry(&second, &first, &["projects.name"], true)]));
        let (answered, certified) = erased(&second).await;
        assert_eq!((answered, certified), (Value::Null, json!([])));
    }

    async fn a_certificate_names_clones_of_deleted_clones(mut server: Server) {
        let (acme, _) = tenant(&server, "starter").await;
        let (first, _) = cloned(&server, &acme, &options("first", &[])).await;
        let (second, _) = cloned(&server, first["tenant_id"].as_str().unwrap(), &options("second", &[])).await;
        for (tenant, left) in [(&first["tenant_id"], 1), (&json!(acme), 1)] {
            let tenant = tenant.as_str().unwrap();
            let body = json!({ "reason": "over" });
            let begun = server.post(&format!("/v1/tenants/{tenant}/erase"), &body).await.expect(202).body;
            server.done(begun["id"].as_str().unwrap()).await;
            let proof = server.get(&format!("/v1/tenants/{tenant}/certificate")).await.expect(200).body;
            let clones = proof["certificate"]["clones"].as_array().unwrap();
            assert_eq!((clones.len(), &clones[0]["tenant_id"]), (left, &second["tenant_id"]), "{proof:#}");
        }
    }

    async fn invalid_requests_are_rejected(mut server: Server) {
        let (acme, _) = tenant(&server, "starter").await;
        let path = format!("/v1/tenants/{acme}/clones");
        let good = options("sandbox", &[]);
        let with = |field: &str, value: Value| {
            let mut options = good.clone();
            options[field] = value;
            options
        };
        let rule = |mask: &str, value: Value| json!({ "table": "tasks", "column": "title", "mask": mask, "value": value });
        let (hash, fixed) = (rule("hash", json!(null)), rule("fixed", json!("x")));
        for (options, field) in [
            (json!({}), "admin_user"),
            (with("admin_user", json!({ "email": "nobody" })), "admin_user.email"),
            (with("slug", json!("A B")), "slug"),
            (with("plan", json!("growth")), "plan"),
            (with("masks", json!([{ "table": "tasks", "column": "title", "mask": "upper" }])), "masks[0].mask"),
            (with("masks", json!([hash, rule("fixed", json!(null))])), "masks[1].value"),
            (with("masks", json!([rule("email", json!("x"))])), "masks[0].value"),
            (with("masks", json!([hash, fixed])), "masks[1].column"),
        ] {
            let refused = server.post(&path, &options).await.problem(422, "request_invalid");
            assert!(refused.iter().any(|path| path == field), "{options}: {refused:?}");
        }
        server.post("/v1/tenants/absent/clones", &good).await.problem(404, "not_found");
        // A request for a tenant cannot declare itself a clone.
        let mut onboarding = request("Cuckoo", "starter");
        onboarding["cloning"] = json!({ "from": acme, "masks": [], "files": true });
        assert_eq!(server.post("/v1/tenants", &onboarding).await.problem(422, "request_invalid"), ["cloning"]);
        server.done(server.post("/v1/tenants/acme/erase", &json!({ "reason": "over" })).await.expect(202).body["id"].as_str().unwrap()).await;
        server.post(&path, &good).await.problem(409, "illegal_transition");
    }
}

/// Rows in a pool, a schema and a database of PostgreSQL.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_on_postgres_are_cloned() {
    for plan in ["starter", "growth", "enterprise"] {
        let Some(server) = Server::with_tenants_on_postgres().await else { return };
        is_a_sandbox(&server, plan).await;
    }
}
