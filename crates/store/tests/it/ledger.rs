//! The ledger in the registry: the contract of every ledger, and effects that may conflict with other rows.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tenantry_engine::{Commit, CommitError, Ledger, Operation, OperationState, Run};
use tenantry_model::id::OperationId;
use tenantry_model::{TenantId, Timestamp, Write, columns};
use tenantry_provider::Rows;
use tenantry_store::Store;
use tenantry_testkit::ledger_contract::{Subject, check};
use tenantry_testkit::{TestStore, on_both_stores};

use crate::store_writer::tenant_row;

struct OnStore<'a>(&'a Store);

impl Subject for OnStore<'_> {
    fn ledger(&self) -> &dyn Ledger<Write> {
        self.0
    }
    async fn events(&self, tenant: &str) -> BTreeSet<String> {
        let rows = self.0.find("events", &[("tenant_id", json!(tenant))]).await.unwrap();
        rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
    }
}

fn run(tenant: TenantId, epoch: i64) -> Run {
    let now = Timestamp::now();
    let operation = Operation {
        id: OperationId::new(),
        subject: tenant.to_string(),
        kind: "onboard".to_owned(),
        parent: None,
        state: OperationState::Running,
        version: 1,
        epoch,
        input: Value::Null,
        error: None,
        error_step: None,
        cancelled: false,
        created_at: now,
        updated_at: now,
        finished_at: None,
        expected_by: None,
        stuck: false,
        wake_at: None,
        idle: false,
    };
    Run { operation, steps: vec![] }
}

fn commit(run: &Run, effects: Vec<Write>) -> Commit<Write> {
    Commit {
        expected_epoch: run.operation.epoch,
        changed_steps: vec![],
        run: run.clone().into(),
        applied: vec![],
        children: vec![],
        signals: vec![],
        effects,
    }
}

on_both_stores! {
    async fn keeps_the_ledger_contract(store: TestStore) {
        check(&OnStore(&store)).await;
    }

    async fn a_conflicting_effect_rejects_the_commit(store: TestStore) {
        let epoch = store.begin_epoch().await.unwrap();
        let tenant = TenantId::new();
        let row = tenant_row(tenant, "acme");
        let first = run(tenant, epoch);
        Ledger::commit(&*store, commit(&first, vec![Write::insert_unique("tenants", row)])).await.unwrap();

        let other = TenantId::new();
        let second = run(other, epoch);
        let taken = vec![Write::insert_unique("tenants", tenant_row(other, "acme"))];
        let refused = Ledger::commit(&*store, commit(&second, taken)).await;
        assert!(matches!(refused, Err(CommitError::Conflict { ref table }) if table == "tenants"), "{refused:?}");
        assert!(store.run(second.operation.id).await.unwrap().is_none(), "its operation is not written");

        let mut next = first.clone();
        next.operation.version = 2;
        let wrong = Write::compare_and_set("tenants", columns! { "id": tenant }, columns! { "version": 7 }, columns! { "plan": "x" });
        let refused = Ledger::commit(&*store, commit(&next, vec![wrong])).await;
        assert!(matches!(refused, Err(CommitError::Conflict { ref table }) if table == "tenants"), "{refused:?}");
        assert_eq!(store.run(first.operation.id).await.unwrap().unwrap().operation.version, 1);
        let right = Write::compare_and_set("tenants", columns! { "id": tenant }, columns! { "version": 1 }, columns! { "plan": "x" });
        Ledger::commit(&*store, commit(&next, vec![right])).await.unwrap();
        let row = store.tenant(&tenant.to_string()).await.unwrap().unwrap();
        assert_eq!((row.version, row.plan.as_str()), (2, "x"));
    }

    async fn a_new_epoch_rejects_commits_of_the_old_one(store: TestStore) {
        let old = store.begin_epoch().await.unwrap();
        let mut held = run(TenantId::new(), old);
        Ledger::commit(&*store, commit(&held, vec![])).await.unwrap();
        let other = store.open_again().await;
        assert_eq!(other.begin_epoch().await.unwrap(), old + 1);
        held.operation.version = 2;
        let refused = Ledger::commit(&*store, commit(&held, vec![])).await;
        assert!(matches!(refused, Err(CommitError::Stale)), "{refused:?}");
        other.close().await;
    }
}
