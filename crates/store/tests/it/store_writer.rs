//! The writer: every transaction is atomic independent of others in its group, writes to one row keep their
//! order, and all types of values survive.

use std::task::Poll;

use serde_json::{Value, json};
use tenantry_model::id::{AuditId, EventId, OperationId, ResourceId};
use tenantry_model::{Columns, TenantId, Timestamp, Write, columns};
use tenantry_provider::Rows;
use tenantry_store::{Rejected, Store, WriteBatch};
use tenantry_testkit::{TestStore, on_both_stores};

/// A row of a tenant with this slug and name, which are also used as their MACs.
pub fn tenant_row(id: TenantId, unique: &str) -> Columns {
    columns! {
    "id": id, "slug": unique, "slug_mac": unique, "name": unique, "name_mac": unique, "plan": "starter",
    "template": "starter", "template_version": 1, "status": "pending", "region": "eu", "locale": "en", "version": 1,
    "labels": json!({}), "admin_sealed": (), "last_error": (), "created_at": Timestamp::now(), "activated_at": (),
    "suspended_at": (), "deprovisioned_at": () }
}

fn event_row(tenant: TenantId, kind: &str) -> Columns {
    columns! { "id": EventId::new(), "tenant_id": tenant, "type": kind, "data": json!({}), "at": Timestamp::now() }
}

fn event(tenant: TenantId, kind: &str) -> Write {
    Write::insert("events", event_row(tenant, kind))
}

async fn events(store: &Store, tenant: TenantId) -> Vec<String> {
    let rows = store.find("events", &[("tenant_id", json!(tenant))]).await.unwrap();
    rows.iter().map(|row| row["type"].as_str().unwrap().to_owned()).collect()
}

fn new_tenant(id: TenantId, unique: &str) -> WriteBatch {
    WriteBatch::new(vec![Write::insert_unique("tenants", tenant_row(id, unique)), event(id, "created")])
}

async fn at_once<T: Send + 'static>(
    store: &Store,
    batches: Vec<(T, WriteBatch)>,
) -> Vec<(T, Result<(), Rejected>)> {
    let tasks = batches.into_iter().map(|(name, batch)| {
        let store = store.clone();
        tokio::spawn(async move { (name, store.commit(batch).await) })
    });
    let mut results = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        results.push(task.await.unwrap());
    }
    results
}

on_both_stores! {
    async fn all_types_of_values_survive_a_round_trip(store: TestStore) {
        let (tenant, operation) = (TenantId::new(), OperationId::new());
        let texts = ["", "null", "true", "0", "Zoë \u{1F980} \"'\\ \u{1}\n", "{\"a\":1}", " x "];
        let values = [
            json!({}), json!([]), json!("text"), json!("null"), json!(""), json!(true), json!(0), json!(-1.5), json!(null),
            json!({ "ü": [1, null, { "": "\u{7f}\\u0000 is only text" }], "big": i64::MAX, "s0": 1, "value": 2 }),
        ];
        for (n, text) in texts.iter().enumerate() {
            let json = &values[n];
            let key = format!("{n}");
            let row = columns! {
                "principal": key, "key_hash": text, "body_hash": text, "answer": json,
                "tenant_id": if n % 2 == 0 { json!(null) } else { json!(tenant) },
                "created_at": Timestamp::from_micros(n as i64) };
            store.commit(WriteBatch::new(vec![Write::insert("idempotency_keys", row.clone())])).await.unwrap();
            let found = store.find("idempotency_keys", &[("principal", json!(key)), ("key_hash", json!(text))]).await;
            assert_eq!(found.unwrap(), [Value::Object(row.to_json())]);
        }
        for value in values {
            let row = columns! {
                "operation_id": operation, "key": value.to_string(), "position": 1, "kind": "k", "provider": "p",
                "needs": value, "policy": value, "input": value, "state": "pending", "attempts": 0, "interruptions": 0,
                "failing_since": (), "due_at": (), "started_at": Timestamp::from_micros(-1), "finished_at": Timestamp::now(), "output": value,
                "error": value, "uncertain": true, "note": (), "child_id": () };
            let key = columns! { "operation_id": operation, "key": value.to_string() };
            store.commit(WriteBatch::new(vec![Write::insert("steps", row.clone())])).await.unwrap();
            let this = [("operation_id", json!(operation)), ("key", json!(value.to_string()))];
            assert_eq!(store.find("steps", &this).await.unwrap(), [Value::Object(row.to_json())], "inserted");

            let set = columns! { "note": value, "error": (), "uncertain": false, "attempts": -7, "child_id": "", "started_at": () };
            store.commit(WriteBatch::new(vec![Write::update("steps", key, set.clone())])).await.unwrap();
            let mut expected = row.to_json();
            expected.extend(set.to_json());
            assert_eq!(store.find("steps", &this).await.unwrap(), [Value::Object(expected)], "updated");
        }
    }

    async fn conditions_compare_all_types(store: TestStore) {
        let id = ResourceId::new();
        let row = columns! {
            "id": id, "tenant_id": "t", "kind": "database", "provider": "p", "step_key": "s", "name": "n", "claim": "c",
            "generation": 3, "state": "creating", "outputs": json!({}), "operation_id": "o", "created_at": Timestamp::from_micros(5),
            "updated_at": Timestamp::from_micros(5) };
        store.commit(WriteBatch::new(vec![Write::insert("resources", row)])).await.unwrap();
        let event = EventId::new();
        let row = columns! { "id": event, "type": "t", "data": json!({}), "at": Timestamp::from_micros(5) };
        store.commit(WriteBatch::new(vec![Write::insert("events", row)])).await.unwrap();
        let expect = |table, id: String, expect: Columns| {
            let store = store.clone();
            async move {
                let write = Write::update_if(table, columns! { "id": id }, expect, columns! {});
                match store.commit(WriteBatch::new(vec![write])).await {
                    Ok(()) => true,
                    Err(Rejected::Stale { table: at, key }) => {
                        assert_eq!((at, key), (table, id));
                        false
                    }
                    Err(other) => panic!("{other}"),
                }
            }
        };
        for (condition, holds) in [
            (columns! { "generation": 3 }, true),
            (columns! { "generation": 4 }, false),
            (columns! { "state": "creating", "generation": 3 }, true),
            (columns! { "state": "present", "generation": 3 }, false),
            (columns! { "created_at": Timestamp::from_micros(5) }, true),
            (columns! { "created_at": Timestamp::from_micros(6) }, false),
        ] {
            assert_eq!(expect("resources", id.to_string(), condition.clone()).await, holds, "{condition:?}");
        }
        for (condition, holds) in [
            (columns! { "seq": () }, true),
            (columns! { "seq": 1 }, false),
            (columns! { "tenant_id": (), "sealed": () }, true),
            (columns! { "tenant_id": "" }, false),
        ] {
            assert_eq!(expect("events", event.to_string(), condition.clone()).await, holds, "{condition:?}");
        }
        assert!(!expect("events", EventId::new().to_string(), columns! { "seq": () }).await, "no such row");
    }

    async fn a_rejected_unit_leaves_nothing(store: TestStore) {
        let (first, second) = (TenantId::new(), TenantId::new());
        store.commit(new_tenant(first, "acme")).await.unwrap();
        let refused = store.commit(new_tenant(second, "acme")).await;
        assert_eq!(refused, Err(Rejected::Conflict { table: "tenants" }));
        assert!(events(&store, second).await.is_empty());

        // The first guard has held and written when the second one fails.
        let mut batch = new_tenant(second, "other");
        batch.writes.push(Write::compare_and_set("tenants", columns! { "id": first }, columns! { "version": 9 }, columns! { "plan": "x" }));
        batch.writes.push(Write::update("tenants", columns! { "id": first }, columns! { "plan": "x" }));
        let refused = store.commit(batch).await;
        assert_eq!(refused, Err(Rejected::Stale { table: "tenants", key: first.to_string() }));
        assert!(store.tenant(&second.to_string()).await.unwrap().is_none());
        assert_eq!(store.tenant(&first.to_string()).await.unwrap().unwrap().plan, "starter");
        store.commit(new_tenant(second, "other")).await.unwrap();
    }

    async fn of_concurrent_inserts_with_one_name_one_succeeds(store: TestStore) {
        for round in 0..5 {
            let batches = (0..32).map(|n| (TenantId::new(), format!("{round}-{}", n % 4)));
            let batches = batches.map(|(id, unique)| ((id, unique.clone()), new_tenant(id, &unique))).collect();
            let mut winners = std::collections::BTreeMap::<String, usize>::new();
            for ((id, unique), result) in at_once(&store, batches).await {
                let there = store.tenant(&id.to_string()).await.unwrap().is_some();
                match result {
                    Ok(()) => *winners.entry(unique).or_default() += 1,
                    Err(rejected) => assert_eq!(rejected, Rejected::Conflict { table: "tenants" }),
                }
                assert_eq!(there, result_events(&store, id).await == 1);
            }
            assert!(winners.len() == 4 && winners.values().all(|n| *n == 1), "{winners:?}");
        }
    }

    async fn of_concurrent_inserts_with_one_key_one_succeeds(store: TestStore) {
        let batches = (0..16).map(|n| {
            let row = columns! {
                "principal": "p", "key_hash": "k", "body_hash": format!("{n}"), "answer": json!({}),
                "tenant_id": (), "created_at": Timestamp::now() };
            (n, WriteBatch::new(vec![Write::insert_unique("idempotency_keys", row)]))
        });
        let results = at_once(&store, batches.collect()).await;
        let won: Vec<_> = results.iter().filter(|(_, result)| result.is_ok()).map(|(n, _)| n.to_string()).collect();
        assert_eq!(won.len(), 1);
        assert_eq!(store.idempotency_key("p", "k").await.unwrap().unwrap().body_hash, won[0]);
    }

    async fn a_faulty_unit_fails_alone(store: TestStore) {
        let there = TenantId::new();
        store.commit(new_tenant(there, "there")).await.unwrap();
        let good: Vec<TenantId> = (0..40).map(|_| TenantId::new()).collect();
        let mut batches: Vec<(Option<TenantId>, WriteBatch)> = Vec::new();
        for (n, id) in good.iter().enumerate() {
            batches.push((Some(*id), new_tenant(*id, &format!("good {n}"))));
            if n % 10 == 0 {
                let bad = match n / 10 {
                    // A conflict without a guard.
                    0 => Write::insert("tenants", tenant_row(TenantId::new(), "there")),
                    1 => Write::update("tenants", columns! { "id": there }, columns! { "status": "nonsense" }),
                    2 => Write::insert("audit", columns! { "id": AuditId::new(), "actor": () }),
                    _ => Write::insert("events", columns! { "id": EventId::new(), "type": "t", "data": json!({}), "at": () }),
                };
                batches.push((None, WriteBatch::new(vec![event(there, "never"), bad])));
            }
        }
        for (id, result) in at_once(&store, batches).await {
            match id {
                Some(id) => {
                    assert_eq!(result, Ok(()));
                    assert_eq!(events(&store, id).await, ["created"]);
                }
                None => assert!(matches!(result, Err(Rejected::Conflict { table: "tenants" } | Rejected::Invalid { .. })), "{result:?}"),
            }
        }
        assert_eq!(events(&store, there).await, ["created"]);
        assert_eq!(store.tenant(&there.to_string()).await.unwrap().unwrap().status, "pending");
    }

    async fn rejected_units_do_not_affect_others(store: TestStore) {
        // Every even batch takes the name that the next odd one needs, and is then rejected.
        let there = TenantId::new();
        store.commit(new_tenant(there, "there")).await.unwrap();
        let batches = (0..30).map(|n| {
            let id = TenantId::new();
            let mut batch = new_tenant(id, &format!("name {}", n / 2));
            if n % 2 == 0 {
                let row = columns! {
                    "id": format!("{n}"), "tenant_id": there, "email_mac": "taken", "resource_id": "r", "sealed": "s", "role": "owner",
                    "state": "active", "must_change_password": false, "created_at": Timestamp::now() };
                batch.writes.push(Write::insert_unique("members", row.clone()));
                let mut again = row;
                again.set("id", &format!("{n} again"));
                batch.writes.push(Write::insert_unique("members", again));
            }
            ((n, id), batch)
        });
        for ((n, id), result) in at_once(&store, batches.collect()).await {
            assert_eq!(result.is_ok(), n % 2 == 1, "{n}: {result:?}");
            assert_eq!(store.tenant(&id.to_string()).await.unwrap().is_some(), n % 2 == 1);
        }
        assert!(store.find("members", &[]).await.unwrap().is_empty());
    }

    async fn one_row_is_written_in_order_of_arrival(store: TestStore) {
        let tenant = TenantId::new();
        store.commit(new_tenant(tenant, "acme")).await.unwrap();
        let mut waiting = Vec::new();
        for n in 1..=50_i64 {
            let step = Write::compare_and_set(
                "tenants",
                columns! { "id": tenant },
                columns! { "version": n },
                columns! { "labels": json!({ "n": n.to_string() }) },
            );
            let store = store.clone();
            let mut commit = Box::pin(async move { store.commit(WriteBatch::new(vec![step])).await });
            // Passed to the writer in this order; a fast writer may have committed it already.
            assert!(matches!(futures::poll!(&mut commit), Poll::Pending | Poll::Ready(Ok(()))));
            waiting.push(commit);
        }
        for result in futures::future::join_all(waiting).await {
            assert_eq!(result, Ok(()));
        }
        let row = store.tenant(&tenant.to_string()).await.unwrap().unwrap();
        assert_eq!((row.version, row.labels), (51, json!({ "n": "50" })));
    }

    async fn of_concurrent_changes_of_one_version_one_succeeds(store: TestStore) {
        let tenant = TenantId::new();
        store.commit(new_tenant(tenant, "acme")).await.unwrap();
        let batches = (0..32).map(|n| {
            let key = columns! { "id": tenant };
            (n, WriteBatch::new(vec![
                Write::compare_and_set("tenants", key, columns! { "version": 1 }, columns! { "plan": format!("{n}") }),
                event(tenant, &format!("{n}")),
            ]))
        });
        let results = at_once(&store, batches.collect()).await;
        let won: Vec<_> = results.iter().filter(|(_, result)| result.is_ok()).map(|(n, _)| n.to_string()).collect();
        assert_eq!(won.len(), 1, "{results:?}");
        let row = store.tenant(&tenant.to_string()).await.unwrap().unwrap();
        assert_eq!((row.version, &row.plan), (2, &won[0]));
        assert_eq!(events(&store, tenant).await, ["created".to_owned(), won[0].clone()]);
    }

    async fn writes_of_a_unit_keep_their_order(store: TestStore) {
        let tenant = TenantId::new();
        let key = columns! { "id": tenant };
        let batch = WriteBatch::new(vec![
            Write::insert_unique("tenants", tenant_row(tenant, "acme")),
            Write::update("tenants", key.clone(), columns! { "plan": "a", "region": "x" }),
            Write::compare_and_set("tenants", key.clone(), columns! { "version": 1, "plan": "a" }, columns! { "plan": "b" }),
            Write::compare_and_set("tenants", key.clone(), columns! { "version": 2 }, columns! { "status": "active" }),
            Write::update("tenants", key.clone(), columns! { "locale": "de" }),
        ]);
        store.commit(batch).await.unwrap();
        let row = store.tenant(&tenant.to_string()).await.unwrap().unwrap();
        let is = (row.version, row.plan.as_str(), row.region.as_str(), row.locale.as_str(), row.status.as_str());
        assert_eq!(is, (3, "b", "x", "de", "active"));

        let batch = WriteBatch::new(vec![
            Write::update("tenants", key.clone(), columns! { "plan": "c" }),
            Write::compare_and_set("tenants", key, columns! { "version": 9 }, columns! {}),
        ]);
        assert!(matches!(store.commit(batch).await, Err(Rejected::Stale { .. })));
        assert_eq!(store.tenant(&tenant.to_string()).await.unwrap().unwrap().plan, "b", "writes before the failed guard are rolled back");
    }

    async fn insert_absent_upsert_and_delete(store: TestStore) {
        let config = |flag: bool| columns! {
            "tenant_id": "t", "namespace": "tenant.t", "resource_id": "r", "flags": json!({ "beta": flag }), "settings": json!({}),
            "updated_at": Timestamp::from_micros(1) };
        let flags = || async {
            let rows = store.find("configs", &[("tenant_id", json!("t"))]).await.unwrap();
            rows.first().map(|row| row["flags"]["beta"].clone())
        };
        let write = |write| store.commit(WriteBatch::new(vec![write]));
        write(Write::insert_absent("configs", config(true))).await.unwrap();
        write(Write::insert_absent("configs", config(false))).await.unwrap();
        assert_eq!(flags().await, Some(json!(true)), "kept");
        write(Write::upsert("configs", config(false))).await.unwrap();
        assert_eq!(flags().await, Some(json!(false)), "replaced");
        write(Write::delete("configs", columns! { "tenant_id": "t" })).await.unwrap();
        write(Write::delete("configs", columns! { "tenant_id": "t" })).await.unwrap();
        assert_eq!(flags().await, None);
        write(Write::upsert("configs", config(true))).await.unwrap();
        assert_eq!(flags().await, Some(json!(true)), "made");
    }

    async fn a_delete_by_key_prefix_keeps_its_place_in_the_order(store: TestStore) {
        let secret = |operation: &str, name: &str| columns! {
            "operation_id": operation, "name": name, "tenant_id": "t", "sealed": "s", "created_at": Timestamp::now() };
        let batch = WriteBatch::new(vec![
            Write::insert("credentials", secret("a", "1")),
            Write::insert("credentials", secret("b", "1")),
            Write::delete("credentials", columns! { "operation_id": "a" }),
            Write::insert("credentials", secret("a", "2")),
        ]);
        store.commit(batch).await.unwrap();
        let rows = store.find("credentials", &[]).await.unwrap();
        let names: Vec<_> = rows.iter().map(|row| (row["operation_id"].as_str().unwrap(), row["name"].as_str().unwrap())).collect();
        assert_eq!(names, [("a", "2"), ("b", "1")]);
    }

    async fn unknown_tables_and_columns_are_rejected(store: TestStore) {
        for write in [
            Write::insert("no_table", columns! { "id": 1 }),
            Write::insert("events", columns! { "id": "evt", "no_column": 1 }),
            Write::insert("events", columns! { "type": "t" }),
            Write::update("steps", columns! { "operation_id": "o" }, columns! { "attempts": 1 }),
            Write::delete("steps", columns! {}),
        ] {
            let refused = store.commit(WriteBatch::new(vec![write.clone()])).await;
            assert!(matches!(refused, Err(Rejected::Invalid { .. })), "{write:?}: {refused:?}");
        }
        assert_eq!(store.commit(WriteBatch::default()).await, Ok(()), "nothing to do");
    }

    async fn an_old_epoch_is_rejected_in_a_mixed_batch(store: TestStore) {
        use tenantry_engine::Ledger;
        let old = store.begin_epoch().await.unwrap();
        let new = store.begin_epoch().await.unwrap();
        let batches = (0..30).map(|n| {
            let id = TenantId::new();
            let epoch = [None, Some(old), Some(new)][n % 3];
            ((n, id), WriteBatch { epoch, ..new_tenant(id, &format!("{n}")) })
        });
        for ((n, id), result) in at_once(&store, batches.collect()).await {
            assert_eq!(result.is_err(), n % 3 == 1, "{n}: {result:?}");
            assert_eq!(store.tenant(&id.to_string()).await.unwrap().is_some(), n % 3 != 1);
        }
    }

    async fn units_of_cancelled_callers_are_written(store: TestStore) {
        let ids: Vec<TenantId> = (0..64).map(|_| TenantId::new()).collect();
        for (n, id) in ids.iter().enumerate() {
            let mut commit = Box::pin(store.commit(new_tenant(*id, &format!("{n}"))));
            // A quick writer may have answered already.
            assert!(matches!(futures::poll!(&mut commit), Poll::Pending | Poll::Ready(Ok(()))));
        }
        // Batches are written in order, so this commit ends after theirs.
        store.commit(new_tenant(TenantId::new(), "last")).await.unwrap();
        for id in ids {
            assert_eq!(events(&store, id).await, ["created"]);
        }
    }

    async fn closing_writes_waiting_units(store: TestStore) {
        let ids: Vec<TenantId> = (0..64).map(|_| TenantId::new()).collect();
        let mut waiting = Vec::new();
        for (n, id) in ids.iter().enumerate() {
            let mut commit = Box::pin(store.commit(new_tenant(*id, &format!("{n}"))));
            match futures::poll!(&mut commit) {
                Poll::Pending => waiting.push(commit),
                written => assert_eq!(written, Poll::Ready(Ok(()))),
            }
        }
        store.close().await;
        for result in futures::future::join_all(waiting).await {
            assert_eq!(result, Ok(()));
        }
        let late = store.commit(new_tenant(TenantId::new(), "late")).await;
        assert!(matches!(late, Err(Rejected::Unavailable(_))));
        let again = store.open_again().await;
        for id in ids {
            assert!(again.tenant(&id.to_string()).await.unwrap().is_some());
        }
        again.close().await;
    }
}

async fn result_events(store: &Store, id: TenantId) -> usize {
    events(store, id).await.len()
}
