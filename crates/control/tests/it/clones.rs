//! A clone whose process stops at any commit point ends complete and exactly once, and its source is
//! unchanged.

use serde_json::json;
use tenantry_control::operations::clone::CloneTenant;
use tenantry_control::{Caller, Control, ErrorKind, IdempotencyKey, OperationQuery, PageQuery, TenantQuery};
use tenantry_engine::OperationState;
use tenantry_testkit::crash_ledger::{Fault, Faults};
use tenantry_testkit::report;

use crate::crash::{every, full, in_lives, people, worlds};
use crate::world::{World, request};

fn wish() -> CloneTenant {
    let wish = json!({
        "slug": "sandbox", "admin_user": { "email": "dev@example.com" },
        "masks": [{ "table": "tasks", "column": "title", "mask": "hash" }],
    });
    serde_json::from_value(wish).unwrap()
}

/// Source and clone exist exactly once, and the clone has its rows.
async fn is_whole(control: &Control) {
    let caller = Caller::system();
    let tenants =
        control.tenants(&caller, &TenantQuery::default(), &PageQuery::default()).await.unwrap().data;
    let active = tenants.iter().filter(|tenant| tenant.status.to_string() == "active").count();
    assert_eq!((tenants.len(), active), (2, 2), "{tenants:?}");
    let clone = control.tenant(&caller, "sandbox").await.unwrap();
    let source = control.tenant(&caller, "acme").await.unwrap();
    assert_eq!((clone.cloned_from, source.cloned_from), (Some(source.id), None));
    let query = OperationQuery { tenant: Some(clone.id.to_string()), ..OperationQuery::default() };
    let made = control.operations(&caller, &query, &PageQuery::default()).await.unwrap().data;
    let cloned =
        made.into_iter().find_map(|made| made.response?.cloned).expect("a response with the cloned content");
    assert!(cloned.resources["database"].counts["tasks"] > 0, "{cloned:?}");
}

/// Starts one process after another until the clone exists. Returns whether the first one reached its fault.
async fn survives(world: World, call: u64, fault: Fault) -> bool {
    let process = world.start(Faults::new()).await.unwrap();
    process.control.create_tenant(&Caller::system(), &request("Acme", "starter"), None).await.unwrap();
    people(&world, &process.control, false).await.unwrap();
    process.control.stop().await;
    drop(process);
    let mut begun = false;
    let lives = [Faults::from([(call, fault)])];
    let reached = in_lives(&world, &lives, async |process| {
        let control = &process.control;
        while !begun {
            let key = IdempotencyKey::parse("crash").ok();
            match control.clone_tenant(&Caller::system(), "acme", wish(), key).await {
                Ok(_) => begun = true,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}"),
            }
        }
        people(&world, control, false).await?;
        is_whole(control).await;
        control.stop().await;
        Ok(())
    });
    reached.await.unwrap() == [true]
}

#[tokio::test]
async fn the_process_stops_at_every_commit_point() {
    let mut cases = 0;
    for (lane, fault) in Fault::ALL.into_iter().enumerate() {
        for call in every(if full() { 1 } else { 4 }, lane) {
            cases += 1;
            let mut reached = false;
            for world in worlds().await {
                reached |= survives(world, call, fault).await;
            }
            if !reached {
                break;
            }
        }
    }
    report::add(&format!("crash: {cases} cases of a process that stops while it creates a clone"));
}

/// A tenant that is being erased cannot be cloned any more.
#[tokio::test]
async fn a_clone_fails_when_its_source_is_erased() {
    let world = World::sqlite().await;
    let process = world.start(Faults::new()).await.unwrap();
    let (control, caller) = (&process.control, Caller::system());
    control.create_tenant(&caller, &request("Acme", "starter"), None).await.unwrap();
    people(&world, control, false).await.unwrap();
    // On a virtual clock the clone does not run before this test waits for it.
    let made = control.clone_tenant(&caller, "acme", wish(), None).await.unwrap();
    let reason = serde_json::from_value(json!({ "reason": "over" })).unwrap();
    control.erase(&caller, "acme", &reason, None).await.unwrap();
    people(&world, control, false).await.unwrap();
    let ended = control.operation(&caller, made.operation.id).await.unwrap();
    assert_eq!(ended.state, OperationState::RolledBack);
    let error = ended.error.unwrap();
    assert_eq!((error.code.as_str(), error.step.as_deref()), ("source_gone", Some("clone")));
    process.control.stop().await;
}
