//! Detached steps whose keys are also kinds of operations: each is treated as any other detached step.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::json;
use tenantry_control::operations::offboard::OffboardTenant;
use tenantry_control::view::OperationView;
use tenantry_control::{Caller, Control};
use tenantry_engine::{OperationState, SignalKind};
use tenantry_model::TenantStatus;
use tenantry_testkit::crash_ledger::Faults;
use tenantry_testkit::scan::get;

use crate::crash::people;
use crate::faulty::{Fault, How};
use crate::leaving::{ask, certificate};
use crate::offboard::{DAY, Stopped};
use crate::story;
use crate::world::{World, request};

/// One ordinary key, and every key that is the name of an operation kind or of an action and may stand in a template.
const KEYS: [&str; 10] = [
    "welcome",
    "onboard",
    "repair",
    "rotate_credentials",
    "export",
    "backup",
    "restore",
    "import",
    "offboard",
    "erase",
];

/// A world with a template that has a detached step of each key.
async fn world() -> World {
    let mut world = World::sqlite().await;
    let folder = world.stores().data.join("templates");
    std::fs::create_dir(&folder).unwrap();
    std::fs::copy(story::folder().join("gated.yaml"), folder.join("gated.yaml")).unwrap();
    let mut template = "\
template: named
version: 1
isolation: pool
steps:
  identity:   { kind: identity, first_admin: one_time_password }
  database:   { kind: database, migrations: app, seed: defaults, needs: [identity] }
  smoke_test: { needs: [database], table: projects, row: { id: smoke, name: Smoke test } }
  activate:   { needs: [smoke_test] }
"
    .to_owned();
    for key in KEYS {
        writeln!(template, "  {key}: {{ kind: custom, provider: shelf, mode: detached, needs: [activate] }}")
            .unwrap();
    }
    std::fs::write(folder.join("named.yaml"), template).unwrap();
    let plan = json!({ "name": "named", "title": "named", "template": "named", "price_per_month": 900 });
    world.templates = folder;
    world.plans.push(serde_json::from_value(plan).unwrap());
    world
}

/// Faults of all detached steps: the shipped templates know the key `welcome`; the others have the name of steps that are
/// in no template.
fn every_detached_step_fails() -> [Fault; 2] {
    [story::REHEARSAL, "welcome"].map(|step| Fault::new(step, true, How::Fatal, u32::MAX))
}

/// The operation of each detached step, by its key.
async fn children(control: &Control, parent: &OperationView) -> BTreeMap<String, OperationView> {
    let parent = control.operation(&Caller::system(), parent.id).await.unwrap();
    let mut children = BTreeMap::new();
    for step in &parent.steps {
        if let Some(id) = step.operation_id {
            let child = control.operation(&Caller::system(), id).await.unwrap();
            children.insert(step.key.clone(), child);
        }
    }
    assert_eq!(children.len(), KEYS.len(), "{parent:#?}");
    children
}

#[tokio::test]
async fn a_step_that_is_named_like_an_operation_makes_its_resource() {
    let world = world().await;
    let process = world.start(Faults::new()).await.unwrap();
    let (control, caller) = (&process.control, Caller::system());
    let made = control.create_tenant(&caller, &request("Acme", "named"), None).await.unwrap();
    people(&world, control, false).await.unwrap();
    for (key, child) in children(control, &made.operation).await {
        assert_eq!(
            (child.kind.as_str(), child.state),
            (key.as_str(), OperationState::Succeeded),
            "{child:#?}"
        );
        let rows = format!(
            "SELECT operation_id FROM resources WHERE state = 'present' AND step_key = '{key}' AND operation_id = '{}'",
            child.id
        );
        assert_eq!(ask(&world, &rows).await.len(), 1, "the resource of `{key}` is on record");
        let events = format!("SELECT type FROM events WHERE operation_id = '{}'", child.id);
        let events: Vec<String> = ask(&world, &events).await.iter().map(|row| get(row, 0)).collect();
        assert_eq!(events, Vec::<String>::new(), "`{key}` reports nothing of its own");
    }
    // All of it is found and deleted again.
    let what = OffboardTenant { reason: "contract 7 has ended".to_owned(), hold_days: Some(1) };
    control.offboard(&caller, "acme", &what, None).await.unwrap();
    people(&world, control, false).await.unwrap();
    let tenant = made.tenant.id.to_string();
    let deleted = certificate(control, &tenant).await.resources;
    for key in KEYS {
        let step = format!("remove_{key}");
        assert!(deleted.iter().any(|it| it.step.as_deref() == Some(&step)), "{key}: {deleted:#?}");
    }
    process.control.stop().await;
}

#[tokio::test]
async fn a_step_that_is_named_like_an_operation_is_cancelled_and_skipped_like_any_other() {
    for cancel in [true, false] {
        let world = world().await;
        let process = world.start(Faults::new()).await.unwrap();
        let (control, caller) = (&process.control, Caller::system());
        world.plan.set(&world.clock, &every_detached_step_fails());
        let made = control.create_tenant(&caller, &request("Acme", "named"), None).await.unwrap();
        world.quiet().await;
        world.plan.set(&world.clock, &[]);
        for (key, child) in children(control, &made.operation).await {
            assert_eq!(child.state, OperationState::NeedsAttention, "{child:#?}");
            let signal = match cancel {
                true => SignalKind::Cancel,
                false => SignalKind::Skip { step: key.clone(), reason: "not needed".to_owned() },
            };
            control.signal(&caller, child.id, signal, None).await.unwrap();
        }
        world.quiet().await;
        let end = if cancel { OperationState::Cancelled } else { OperationState::Succeeded };
        for (key, child) in children(control, &made.operation).await {
            assert_eq!(child.state, end, "`{key}`: {child:#?}");
        }
        assert_eq!(control.tenant(&caller, "acme").await.unwrap().status, TenantStatus::Active);
        process.control.stop().await;
    }
}

#[tokio::test]
async fn a_step_that_is_named_like_an_operation_does_not_block_an_offboarding() {
    let world = world().await;
    let process = world.start(Faults::new()).await.unwrap();
    let (control, caller) = (&process.control, Caller::system());
    world.plan.set(&world.clock, &every_detached_step_fails());
    let made = control.create_tenant(&caller, &request("Acme", "named"), None).await.unwrap();
    world.quiet().await;
    world.plan.set(&world.clock, &[]);
    let mut clock = Stopped::clock(&world);
    let what = OffboardTenant { reason: "contract 7 has ended".to_owned(), hold_days: Some(30) };
    let begun = control.offboard(&caller, "acme", &what, None).await.unwrap().value;
    clock.pass(DAY).await;
    for (key, child) in children(control, &made.operation).await {
        assert!(child.done, "`{key}` has ended: {child:#?}");
        assert_eq!(child.clones, Vec::new(), "`{key}`");
    }
    let held = control.operation(&caller, begun.id).await.unwrap();
    assert_eq!(held.state, OperationState::Running, "{held:#?}");
    drop(clock);
    people(&world, control, false).await.unwrap();
    assert_eq!(control.operation(&caller, begun.id).await.unwrap().state, OperationState::Succeeded);
    process.control.stop().await;
}

/// `clone` alone stays reserved: an onboarding that clones has a step of that key.
#[tokio::test]
async fn a_template_may_not_name_a_step_clone() {
    let world = world().await;
    let file = world.templates.join("named.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("  welcome:", "  clone:")).unwrap();
    let Err(refused) = world.start(Faults::new()).await else { panic!("it starts") };
    assert!(refused.errors.iter().any(|fault| fault.path.contains("steps.clone")), "{refused:?}");
}
