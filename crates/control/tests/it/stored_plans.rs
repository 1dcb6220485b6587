//! Plans stored by earlier versions: one operation of each kind, put into a registry half-way through, goes on to its
//! end. `TENANTRY_WRITE_STORED_PLANS=1` writes the files anew, for a kind that has none yet.

use std::path::PathBuf;

use sea_orm::{
    ActiveModelTrait as _, ColumnTrait as _, EntityTrait as _, IntoActiveModel as _, QueryFilter as _,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tenantry_control::operations::archive::RestoreTenant;
use tenantry_control::operations::archive::{ArchiveSettings, Purpose};
use tenantry_control::operations::clone::CloneTenant;
use tenantry_control::operations::erase::EraseTenant;
use tenantry_control::operations::offboard::OffboardTenant;
use tenantry_control::operations::repair::RepairTenant;
use tenantry_control::operations::rotate_credentials::RotateCredentials;
use tenantry_control::{Caller, Control, PageQuery};
use tenantry_engine::{OperationState, SignalKind};
use tenantry_model::id::{ArchiveId, OperationId};
use tenantry_store::entity::{operation, step};
use tenantry_testkit::crash_ledger::Faults;

use crate::crash::people;
use crate::faulty::{Fault, How};
use crate::offboard::{DAY, Stopped};
use crate::world::{World, request};

const KINDS: [&str; 11] = [
    "onboard",
    "detached",
    "repair",
    "rotate_credentials",
    "export",
    "backup",
    "restore",
    "import",
    "clone",
    "offboard",
    "erase",
];

/// Rows of an operation and its steps. What differs between registries stands in them as `{word}`.
#[derive(Serialize, Deserialize)]
struct Stored {
    operation: operation::Model,
    steps: Vec<step::Model>,
}

#[tokio::test]
async fn operations_stored_by_earlier_versions_go_on() {
    for kind in KINDS {
        goes_on(kind).await;
    }
}

async fn goes_on(kind: &str) {
    let world = World::sqlite().await;
    let id = begin(&world, kind).await;
    let now = read(&world, id).await;
    if std::env::var_os("TENANTRY_WRITE_STORED_PLANS").is_some() {
        std::fs::write(file(kind), without_names(rewound(kind, now))).unwrap();
        return;
    }
    let stored = with_names(&std::fs::read_to_string(file(kind)).unwrap(), &now);
    write(&world, &now, stored).await;
    let process = world.start(Faults::new()).await.unwrap();
    people(&world, &process.control, false).await.unwrap();
    let ended = process.control.operation(&Caller::system(), id).await.unwrap();
    assert_eq!(ended.state, OperationState::Succeeded, "{kind}: {ended:#?}");
    assert_eq!(ended.error, None, "{kind}");
    process.control.stop().await;
}

fn file(kind: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/it/stored_plans/{kind}.json"))
}

/// Begins an operation of this kind. Those that wait for a time or for a person are half-way then, the others done.
async fn begin(world: &World, kind: &str) -> OperationId {
    let process = world.start(Faults::new()).await.unwrap();
    let (control, caller) = (&process.control, Caller::system());
    let made = control.create_tenant(&caller, &request("Acme", "gated"), None).await.unwrap();
    let approve = SignalKind::Approve { step: "approve".to_owned() };
    let id = if kind == "onboard" {
        let mut clock = Stopped::clock(world);
        control.signal(&caller, made.operation.id, approve, None).await.unwrap();
        clock.pass(DAY).await;
        process.control.stop().await;
        return made.operation.id;
    } else {
        people(world, control, false).await.unwrap();
        match kind {
            "detached" => {
                let onboarded = control.operation(&caller, made.operation.id).await.unwrap();
                onboarded.steps.iter().find(|step| step.key == "last").unwrap().operation_id.unwrap()
            }
            "repair" => {
                control.repair(&caller, "acme", &RepairTenant::default(), None).await.unwrap().value.id
            }
            "rotate_credentials" => {
                let what = RotateCredentials::default();
                control.rotate_credentials(&caller, "acme", what, None).await.unwrap().value.id
            }
            "export" => archive(control, Purpose::Export).await,
            "backup" => archive(control, Purpose::Backup).await,
            "restore" => {
                archive(control, Purpose::Backup).await;
                people(world, control, false).await.unwrap();
                let what = RestoreTenant { archive: newest(control, Purpose::Backup).await };
                control.restore(&caller, "acme", what, None).await.unwrap().value.id
            }
            "import" => {
                archive(control, Purpose::Export).await;
                people(world, control, false).await.unwrap();
                let export = newest(control, Purpose::Export).await;
                let link = control.export_link(&caller, "acme", export).await.unwrap();
                let bytes = control.open_link(&link, None).await.unwrap().body;
                control.import(&caller, "acme", bytes, None).await.unwrap().value.id
            }
            "clone" => {
                let wish = json!({ "slug": "clone", "admin_user": { "email": "eve@example.com" } });
                let wish: CloneTenant = serde_json::from_value(wish).unwrap();
                let mut clock = Stopped::clock(world);
                let made = control.clone_tenant(&caller, "acme", wish, None).await.unwrap();
                control.signal(&caller, made.operation.id, approve, None).await.unwrap();
                clock.pass(DAY).await;
                process.control.stop().await;
                return made.operation.id;
            }
            "offboard" => {
                let what = OffboardTenant { reason: "contract 7 has ended".to_owned(), hold_days: Some(30) };
                let mut clock = Stopped::clock(world);
                let begun = control.offboard(&caller, "acme", &what, None).await.unwrap().value.id;
                clock.pass(DAY).await;
                process.control.stop().await;
                return begun;
            }
            "erase" => {
                world.plan.set(&world.clock, &[Fault::new("database", false, How::Fatal, 1)]);
                let what = EraseTenant { reason: "request 3".to_owned() };
                let begun = control.erase(&caller, "acme", &what, None).await.unwrap().value.id;
                world.quiet().await;
                process.control.stop().await;
                return begun;
            }
            other => panic!("{other}"),
        }
    };
    people(world, control, false).await.unwrap();
    process.control.stop().await;
    id
}

async fn archive(control: &Control, purpose: Purpose) -> OperationId {
    let what = ArchiveSettings::default();
    control.archive_tenant(&Caller::system(), "acme", purpose, &what, None).await.unwrap().value.id
}

async fn newest(control: &Control, purpose: Purpose) -> ArchiveId {
    let page = PageQuery::new(Some(1), None).unwrap();
    control.archives(&Caller::system(), "acme", purpose, &page).await.unwrap().data[0].id
}

async fn read(world: &World, id: OperationId) -> Stored {
    let registry = sea_orm::Database::connect(world.registry_url()).await.unwrap();
    let found = operation::Entity::find_by_id(id.to_string()).one(&registry).await.unwrap().unwrap();
    let of_operation = step::Column::OperationId.eq(id.to_string());
    let mut steps = step::Entity::find().filter(of_operation).all(&registry).await.unwrap();
    steps.sort_by_key(|step| step.position);
    registry.close().await.unwrap();
    Stored { operation: found, steps }
}

/// Puts a stored operation in the place of the present one. What its finished steps gave is of this registry.
async fn write(world: &World, now: &Stored, stored: Stored) {
    let registry = sea_orm::Database::connect(world.registry_url()).await.unwrap();
    let operation::Model { version, epoch, .. } = now.operation;
    let row = operation::Model { version, epoch, ..stored.operation };
    row.into_active_model().reset_all().update(&registry).await.unwrap();
    let of_operation = step::Column::OperationId.eq(now.operation.id.as_str());
    step::Entity::delete_many().filter(of_operation).exec(&registry).await.unwrap();
    for mut row in stored.steps {
        let known = now.steps.iter().find(|step| step.key == row.key);
        if let ("done", Some(known)) = (row.state.as_str(), known) {
            row.output = known.output.clone();
        }
        row.into_active_model().insert(&registry).await.unwrap();
    }
    registry.close().await.unwrap();
}

/// The operation as it was when half of its steps were done, if it is one that ended meanwhile.
fn rewound(kind: &str, mut stored: Stored) -> Stored {
    if !["onboard", "clone", "offboard", "erase"].contains(&kind) {
        let operation = &mut stored.operation;
        assert_eq!(operation.state, "succeeded", "{kind}");
        operation.state = "running".to_owned();
        operation.finished_at = None;
        let half = stored.steps.len() / 2;
        for (place, step) in stored.steps.iter_mut().enumerate().skip(half) {
            step.finished_at = None;
            if place > half {
                step.started_at = None;
                step.attempts = 0;
            }
            step.state = if place == half { "running" } else { "pending" }.to_owned();
        }
    }
    for step in &mut stored.steps {
        step.output = Value::Null;
        step.note = None;
    }
    stored
}

/// What stands for what in the rows of this registry.
fn names(Stored { operation, steps }: &Stored) -> Vec<(String, String)> {
    let mut names = vec![
        ("{operation}".to_owned(), operation.id.clone()),
        ("{parent}".to_owned(), operation.parent_id.clone().unwrap_or_default()),
        ("{sealed}".to_owned(), text(&operation.input["sealed"])),
    ];
    for step in steps {
        let settings = &step.input["settings"];
        names.extend([
            (format!("{{resource.{}}}", step.key), text(&step.input["resource"])),
            (format!("{{child.{}}}", step.key), step.child_id.clone().unwrap_or_default()),
            ("{archive}".to_owned(), text(&settings["archive"])),
            ("{notice}".to_owned(), text(&settings["sealed"])),
            ("{source}".to_owned(), text(&settings["from"])),
        ]);
    }
    let tenant = &operation.tenant_id;
    let suffix = tenant.split_once('_').map_or(tenant.as_str(), |(_, suffix)| suffix);
    names.push(("{tenant}".to_owned(), tenant.clone()));
    names.push(("{suffix}".to_owned(), suffix.to_owned()));
    names.retain(|(_, value)| !value.is_empty());
    names
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn without_names(stored: Stored) -> String {
    let names = names(&stored);
    let text = serde_json::to_string_pretty(&stored).unwrap() + "\n";
    names.iter().fold(text, |text, (name, value)| text.replace(value.as_str(), name))
}

fn with_names(text: &str, now: &Stored) -> Stored {
    let text =
        names(now).iter().fold(text.to_owned(), |text, (name, value)| text.replace(name.as_str(), value));
    serde_json::from_str(&text).unwrap()
}
