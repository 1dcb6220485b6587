//! Reads: pages, filters, counts, estimates, and credentials that can be claimed once.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use tenantry_engine::Run;
use tenantry_model::id::{AuditId, KeyId, OperationId, ResourceId};
use tenantry_model::{TenantId, TenantStatus, Timestamp, Write, columns};
use tenantry_provider::Rows;
use tenantry_store::{ReadError, Store, WriteBatch};
use tenantry_testkit::{TestStore, on_both_stores};

use crate::store_writer::tenant_row;

async fn write(store: &Store, writes: Vec<Write>) {
    store.commit(WriteBatch::new(writes)).await.unwrap();
}

/// Operations, all of which can be read.
fn read(found: Vec<(String, Result<Run, ReadError>)>) -> Vec<Run> {
    found.into_iter().map(|(_, run)| run.unwrap()).collect()
}

fn operation_row(id: OperationId, tenant: TenantId, parent: Option<OperationId>, state: &str) -> Write {
    let now = Timestamp::now();
    let row = columns! {
    "id": id, "tenant_id": tenant, "kind": "onboard", "parent_id": parent, "state": state, "version": 1, "epoch": 0,
    "input": json!({}), "error": (), "error_step": (), "cancelled": false, "created_at": now, "updated_at": now,
    "finished_at": (), "expected_by": (), "stuck": false, "wake_at": (), "idle": true };
    Write::insert("operations", row)
}

fn step_row(operation: OperationId, key: &str, position: i32, state: &str, took: Option<Duration>) -> Write {
    let start = Timestamp::from_micros(1_000);
    let row = columns! {
    "operation_id": operation, "key": key, "position": position, "kind": "k", "provider": "p", "needs": json!([]),
    "policy": json!({ "timeout_ms": 1, "max_retries": 1, "backoff_ms": 1, "backoff_cap_ms": 1, "on_failure": "park", "mode": "inline",
        "in_flight_ms": 0 }),
    "input": (), "state": state, "attempts": 1, "interruptions": 0, "failing_since": (), "due_at": (), "started_at": took.map(|_| start),
    "finished_at": took.map(|took| start + took), "output": (), "error": (), "uncertain": false, "note": (),
    "child_id": () };
    Write::insert("steps", row)
}

on_both_stores! {
    async fn lists_tenants_by_page_and_filter(store: TestStore) {
        let mut ids: Vec<String> = Vec::new();
        for n in 0..10 {
            let id = TenantId::new();
            let mut row = tenant_row(id, &format!("t{n}"));
            row.set("status", &json!(if n % 3 == 0 { "active" } else { "pending" }));
            row.set("plan", &json!(if n < 5 { "starter" } else { "growth" }));
            write(&store, vec![Write::insert("tenants", row)]).await;
            ids.push(id.to_string());
        }
        ids.sort_unstable();
        ids.reverse();
        let (mut seen, mut after) = (Vec::new(), None::<String>);
        loop {
            let rows = store.tenants(None, None, None, after.as_deref(), 3).await.unwrap();
            let Some(last) = rows.last() else { break };
            after = Some(last.id.clone());
            seen.extend(rows.into_iter().map(|row| row.id));
        }
        assert_eq!(seen, ids, "newest first, each once");
        let count = |status, plan| {
            let store = (*store).clone();
            async move { store.tenants(None, status, plan, None, 100).await.unwrap().len() }
        };
        assert_eq!(count(Some(TenantStatus::Active), None).await, 4);
        assert_eq!(count(None, Some("growth")).await, 5);
        assert_eq!(count(Some(TenantStatus::Active), Some("growth")).await, 2);
        assert_eq!(store.tenants(Some(&ids[4]), None, None, None, 100).await.unwrap()[0].id, ids[4]);
        let counts = store.tenant_counts().await.unwrap();
        assert_eq!(counts.into_iter().collect::<Vec<_>>(), [("active".to_owned(), 4), ("pending".to_owned(), 6)]);
    }

    async fn lists_return_rows_unchanged(store: TestStore) {
        let (tenant, operation) = (TenantId::new(), OperationId::new());
        let odd = "a\"'\\/\n\t\u{1}\u{7f} ü 漢字 🦀 null {}";
        let tree = json!({ odd: odd, "n": i64::MAX, "f": 0.1, "deep": [null, true, {}, [[""]]] });
        let mut row = tenant_row(tenant, "odd");
        row.set("name", &json!(odd));
        row.set("version", &json!(i64::MAX));
        row.set("labels", &json!({ odd: odd }));
        row.set("last_error", &tree);
        row.set("cloned_from", &json!(TenantId::new()));
        for (n, when) in [(1, "activated_at"), (2, "suspended_at"), (3, "deprovisioned_at")] {
            row.set(when, &json!(Timestamp::from_micros(n)));
        }
        write(&store, vec![
            Write::insert("tenants", row),
            operation_row(operation, tenant, None, "succeeded"),
            step_row(operation, odd, 0, "done", Some(Duration::from_micros(1))),
            Write::update("operations", columns! { "id": operation }, columns! { "input": tree, "cancelled": true }),
            Write::update("steps", columns! { "operation_id": operation, "key": odd }, columns! { "output": tree }),
        ]).await;
        let one = store.tenant(&tenant.to_string()).await.unwrap().unwrap();
        assert_eq!((one.name.as_deref(), one.last_error.as_ref()), (Some(odd), Some(&tree)));
        assert_eq!(store.tenants(None, None, None, None, 9).await.unwrap(), [one.into()]);
        let run = store.run(operation).await.unwrap().unwrap();
        assert!(run.operation.cancelled && !run.operation.stuck && run.operation.input == tree);
        assert_eq!((run.steps[0].key.as_str(), &run.steps[0].output), (odd, &tree));
        assert_eq!(read(store.operations(None, None, None, 9).await.unwrap()), [run]);
    }

    async fn slugs_stay_taken_and_names_become_free(store: TestStore) {
        let id = TenantId::new();
        write(&store, vec![Write::insert("tenants", tenant_row(id, "acme"))]).await;
        assert!(!store.taken_slugs(&["acme".into()]).await.unwrap().is_empty() && store.is_name_taken("acme").await.unwrap());
        assert!(store.taken_slugs(&["other".into()]).await.unwrap().is_empty() && !store.is_name_taken("other").await.unwrap());
        assert_eq!(store.tenant_by_slug("acme").await.unwrap().unwrap().id, id.to_string());
        let gone = columns! { "status": "deprovisioned", "slug": (), "name": () };
        write(&store, vec![Write::update("tenants", columns! { "id": id }, gone)]).await;
        assert!(!store.taken_slugs(&["acme".into()]).await.unwrap().is_empty());
        assert!(!store.is_name_taken("acme").await.unwrap());
        let mut again = tenant_row(TenantId::new(), "other");
        again.set("name_mac", &json!("acme"));
        write(&store, vec![Write::insert_unique("tenants", again)]).await;
    }

    async fn lists_operations_with_their_steps(store: TestStore) {
        let (one, two) = (TenantId::new(), TenantId::new());
        let mut ids = Vec::new();
        for n in 0..6 {
            let id = OperationId::new();
            let tenant = if n % 2 == 0 { one } else { two };
            let state = if n < 4 { "succeeded" } else { "running" };
            let steps = ["b", "a", "c"].into_iter().zip(0..).map(|(key, n)| step_row(id, key, n, "pending", None));
            write(&store, [operation_row(id, tenant, None, state)].into_iter().chain(steps).collect()).await;
            ids.push(id);
        }
        let child = OperationId::new();
        let steps = ["b", "a", "c"].into_iter().zip(0..).map(|(key, n)| step_row(child, key, n, "pending", None));
        write(&store, [operation_row(child, one, Some(ids[4]), "running")].into_iter().chain(steps).collect()).await;
        ids.push(child);
        ids.sort_unstable();
        ids.reverse();
        let all = read(store.operations(None, None, None, 100).await.unwrap());
        assert_eq!(all.iter().map(|run| run.operation.id).collect::<Vec<_>>(), ids);
        assert!(all.iter().all(|run| run.steps.iter().map(|s| s.key.as_str()).eq(["b", "a", "c"])), "in plan order");
        let own = read(store.operations(Some(&one.to_string()), None, None, 100).await.unwrap());
        assert!(own.len() == 4 && own.iter().all(|run| run.operation.subject == one.to_string()));
        let running = read(store.operations(None, Some(tenantry_engine::OperationState::Running), None, 100).await.unwrap());
        assert_eq!(running.len(), 3);
        let page = read(store.operations(None, None, Some(&ids[1].to_string()), 2).await.unwrap());
        assert_eq!(page.iter().map(|run| run.operation.id).collect::<Vec<_>>(), ids[2..4]);
        assert_eq!(store.operation_count(&one.to_string()).await.unwrap(), 3, "children not counted");
    }

    async fn due_resources_are_found_across_pages(store: TestStore) {
        let (now, tenant) = (Timestamp::from_micros(2_000_000_000_000_000), TenantId::new());
        let resource = |n: usize, kind: &str, state: &str, renew_at: Value| {
            let id = ResourceId::new();
            Write::insert("resources", columns! {
            "id": id, "tenant_id": tenant, "kind": kind, "provider": "p", "step_key": format!("step {n}"), "name": id, "claim": "c",
            "generation": 1, "state": state, "outputs": json!({ "renew_at": renew_at }), "operation_id": OperationId::new(),
            "created_at": now, "updated_at": now })
        };
        // More than a page of rows with the same time, between earlier and later ones.
        let at = |offset: i64| json!(Timestamp::from_micros(now.micros() + offset));
        let mut rows: Vec<Write> = (0..1_005).map(|n| resource(n, "certificate", "present", at(-5))).collect();
        rows.push(resource(1_005, "certificate", "present", at(0)));
        rows.push(resource(1_006, "certificate", "present", at(-10)));
        // Due because of its offset, although its local time is an hour after now.
        rows.push(resource(1_007, "certificate", "present", json!("2033-05-18T04:33:20+01:00")));
        for (kind, state, renew_at) in [
            ("certificate", "present", at(1)),
            ("certificate", "present", json!("2033-05-18T03:33:20-01:00")),
            ("certificate", "present", json!(7)),
            ("certificate", "present", json!("soon")),
            ("certificate", "present", Value::Null),
            ("certificate", "absent", at(-5)),
            ("database", "present", at(-5)),
        ] {
            rows.push(resource(9_999, kind, state, renew_at));
        }
        write(&store, rows).await;
        let due = store.resources_due(now).await.unwrap();
        assert!(due.iter().all(|(of, _)| *of == tenant.to_string()));
        let steps: BTreeSet<String> = due.iter().map(|(_, step)| step.clone()).collect();
        assert_eq!((steps.len(), due.len()), (1_008, 1_008), "each once");
        assert!(!steps.contains("step 9999"));
    }

    async fn step_lengths_are_medians_of_the_template(store: TestStore) {
        let took = |n: u64| Some(Duration::from_millis(n));
        for (n, length) in [10, 30, 5_000].into_iter().enumerate() {
            let (tenant, id) = (TenantId::new(), OperationId::new());
            write(&store, vec![
                Write::insert("tenants", tenant_row(tenant, &format!("{n}"))),
                operation_row(id, tenant, None, "succeeded"),
                step_row(id, "database", 0, "done", took(length)),
                step_row(id, "failed", 1, "failed", took(7)),
                step_row(id, "waits", 2, "pending", None),
            ]).await;
        }
        let (tenant, id) = (TenantId::new(), OperationId::new());
        let mut other = tenant_row(tenant, "other");
        other.set("template", &json!("enterprise"));
        write(&store, vec![
            Write::insert("tenants", other),
            operation_row(id, tenant, None, "succeeded"),
            step_row(id, "database", 0, "done", took(1)),
        ]).await;
        let lengths = store.step_lengths("starter").await.unwrap();
        assert_eq!(lengths.into_iter().collect::<Vec<_>>(), [("database".to_owned(), Duration::from_millis(30))]);
        assert_eq!(store.step_lengths("enterprise").await.unwrap()["database"], Duration::from_millis(1));
        assert!(store.step_lengths("none").await.unwrap().is_empty());
    }

    async fn credentials_can_be_claimed_once(store: TestStore) {
        let operation = OperationId::new().to_string();
        let audit_record = |n: i32| Write::insert("audit", columns! {
            "id": AuditId::new(), "actor": "key_1", "action": "credentials.claim", "target": format!("{n}"), "data": json!({}),
            "at": Timestamp::now() });
        let now = Timestamp::now();
        assert!(store.claim_credentials(&operation, now, audit_record(0)).await.unwrap().is_empty());
        for name in ["password", "invitation"] {
            let row = columns! {
                "operation_id": operation, "name": name, "tenant_id": "t", "sealed": format!("v1.{name}"), "created_at": now,
                "claimed_at": () };
            write(&store, vec![Write::insert("credentials", row)]).await;
        }
        let claims = (1..=8).map(|n| {
            let (store, operation, audit_record) = ((*store).clone(), operation.clone(), audit_record(n));
            tokio::spawn(async move { store.claim_credentials(&operation, now, audit_record).await.unwrap() })
        });
        let mut taken = Vec::new();
        for claim in claims.collect::<Vec<_>>() {
            let claim = claim.await.unwrap();
            if !claim.is_empty() {
                taken.push(claim);
            }
        }
        let both = [("invitation", "v1.invitation"), ("password", "v1.password")];
        assert_eq!(taken, [both.map(|(name, sealed)| (name.to_owned(), sealed.to_owned()))]);
        let rows = store.find("credentials", &[]).await.unwrap();
        assert!(rows.iter().all(|row| row["sealed"].is_null() && row["claimed_at"] == json!(now)));
        assert_eq!(store.find("audit", &[]).await.unwrap().len(), 1, "one audit record");
        assert!(store.claim_credentials(&operation, now, audit_record(9)).await.unwrap().is_empty());
    }

    async fn finds_keys_by_hash_and_page(store: TestStore) {
        let mut ids = Vec::new();
        for n in 0..3 {
            let id = KeyId::new();
            let row = columns! {
                "id": id, "hash": format!("h{n}"), "name": "n", "scopes": json!(["admin"]), "tenant_id": (),
                "created_at": Timestamp::now(), "expires_at": (), "revoked_at": () };
            write(&store, vec![Write::insert_unique("api_keys", row)]).await;
            ids.push(id.to_string());
        }
        assert_eq!(store.key_by_hash("h1").await.unwrap().unwrap().id, ids[1]);
        assert!(store.key_by_hash("h9").await.unwrap().is_none());
        ids.sort_unstable();
        ids.reverse();
        let page = store.keys(Some(&ids[0]), 10).await.unwrap();
        assert_eq!(page.iter().map(|row| row.id.clone()).collect::<Vec<_>>(), ids[1..]);
        assert_eq!(store.key(&ids[0]).await.unwrap().unwrap().scopes, json!(["admin"]));
    }

    async fn finds_rows_by_equal_columns(store: TestStore) {
        for n in 0..3 {
            let row = tenant_row(TenantId::new(), &format!("t{n}"));
            write(&store, vec![Write::insert("tenants", row)]).await;
        }
        let equal = [("slug", json!("t1")), ("template_version", json!(1)), ("last_error", json!(null))];
        assert_eq!(store.find("tenants", &equal).await.unwrap().len(), 1);
        assert!(store.find("tenants", &[("slug", json!("t1")), ("version", json!(2))]).await.unwrap().is_empty());
        let all = store.find("tenants", &[]).await.unwrap();
        assert!(all.is_sorted_by_key(|row| row["id"].as_str().unwrap().to_owned()) && all.len() == 3);
        assert_eq!(store.find("no_table", &[]).await.unwrap_err().code, "no_such_table");
        for (column, value) in [("no_column", json!(1)), ("slug", json!({})), ("created_at", json!(1.5))] {
            assert!(store.find("tenants", &[(column, value)]).await.is_err(), "{column}");
        }
        store.ping().await.unwrap();
    }
}
