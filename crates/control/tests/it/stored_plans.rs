//! Plans that earlier versions stored: an operation of each kind, put into a registry half-way through, is carried out to its
//! end. The files in `stored_plans/` were written by the last version before operations became batches; a new kind gets its
//! file by TENANTRY_WRITE_STORED_PLANS=1, and no file is ever written again.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sqlx::{AssertSqlSafe, Connection as _, Row as _, SqliteConnection};
use tenantry_control::operations::archive::{ArchiveSettings, Purpose, RestoreTenant};
use tenantry_control::operations::clone::CloneTenant;
use tenantry_control::operations::erase::EraseTenant;
use tenantry_control::operations::offboard::OffboardTenant;
use tenantry_control::operations::repair::RepairTenant;
use tenantry_control::operations::rotate_credentials::RotateCredentials;
use tenantry_control::{Caller, Control, PageQuery};
use tenantry_engine::{OperationState, SignalKind};
use tenantry_model::id::{ArchiveId, OperationId};
use tenantry_testkit::crash_ledger::Faults;

use crate::crash::people;
use crate::faulty::{Fault, How};
use crate::offboard::{DAY, Stopped};
use crate::world::{World, request};

/// Every kind of operation, and a detached step.
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

/// A row: its columns as SQLite stores them.
type Row = Map<String, Value>;

/// The rows of an operation and of its steps. Ids and sealed texts, which differ between registries, stand as `{word}`.
#[derive(Serialize, Deserialize)]
struct Stored {
    operation: Row,
    steps: Vec<Row>,
}

#[tokio::test]
async fn operations_that_earlier_versions_stored_are_finished() {
    for kind in KINDS {
        is_finished(kind).await;
    }
}

async fn is_finished(kind: &str) {
    let world = World::sqlite().await;
    let id = begin(&world, kind).await;
    let now = read(&world, id).await;
    if std::env::var_os("TENANTRY_WRITE_STORED_PLANS").is_some() && !file(kind).exists() {
        std::fs::write(file(kind), without_names(rewound(kind, now))).unwrap();
        return;
    }
    let stored = with_names(&std::fs::read_to_string(file(kind)).unwrap(), &now);
    write(&world, &now, &stored).await;
    let process = world.start(Faults::new()).await.unwrap();
    let finished = people(&world, &process.control, false).await;
    let ended = process.control.operation(&Caller::system(), id).await.unwrap();
    assert_eq!(finished, Ok(()), "{kind}: {ended:#?}");
    assert_eq!(ended.state, OperationState::Succeeded, "{kind}: {ended:#?}");
    assert_eq!(ended.error, None, "{kind}");
    let keys: Vec<_> = ended.steps.iter().map(|step| step.key.as_str()).collect();
    let stored: Vec<_> = stored.steps.iter().map(|step| step["key"].as_str().unwrap()).collect();
    assert_eq!(keys, stored, "{kind}: the stored plan was carried out");
    process.control.stop().await;
}

fn file(kind: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/it/stored_plans/{kind}.json"))
}

/// Begins an operation of this kind and stops the process. Those that wait for a time or an operator are half-way then, the
/// others have ended.
async fn begin(world: &World, kind: &str) -> OperationId {
    let process = world.start(Faults::new()).await.unwrap();
    let (control, caller) = (&process.control, Caller::system());
    let made = control.create_tenant(&caller, &request("Acme", "gated"), None).await.unwrap();
    let approve = SignalKind::Approve { step: "approve".to_owned() };
    if kind == "onboard" {
        let mut clock = Stopped::clock(world);
        control.signal(&caller, made.operation.id, approve, None).await.unwrap();
        clock.pass(DAY).await;
        control.stop().await;
        return made.operation.id;
    }
    people(world, control, false).await.unwrap();
    let id = match kind {
        "detached" => {
            let onboarded = control.operation(&caller, made.operation.id).await.unwrap();
            onboarded.steps.iter().find(|step| step.key == "last").unwrap().operation_id.unwrap()
        }
        "repair" => control.repair(&caller, "acme", &RepairTenant::default(), None).await.unwrap().value.id,
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
            let cloned = control.clone_tenant(&caller, "acme", wish, None).await.unwrap();
            control.signal(&caller, cloned.operation.id, approve, None).await.unwrap();
            clock.pass(DAY).await;
            control.stop().await;
            return cloned.operation.id;
        }
        "offboard" => {
            let what = OffboardTenant { reason: "contract 7 has ended".to_owned(), hold_days: Some(30) };
            let mut clock = Stopped::clock(world);
            let begun = control.offboard(&caller, "acme", &what, None).await.unwrap().value.id;
            clock.pass(DAY).await;
            control.stop().await;
            return begun;
        }
        "erase" => {
            world.plan.set(&world.clock, &[Fault::new("database", false, How::Fatal, 1)]);
            let what = EraseTenant { reason: "request 3".to_owned() };
            let begun = control.erase(&caller, "acme", &what, None).await.unwrap().value.id;
            world.quiet().await;
            control.stop().await;
            return begun;
        }
        other => panic!("{other}"),
    };
    people(world, control, false).await.unwrap();
    control.stop().await;
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

async fn registry(world: &World) -> SqliteConnection {
    SqliteConnection::connect(&world.registry_url()).await.unwrap()
}

async fn texts(registry: &mut SqliteConnection, query: &str) -> Vec<String> {
    let rows = sqlx::raw_sql(AssertSqlSafe(query)).fetch_all(registry).await.expect(query);
    rows.iter().map(|row| row.get(0)).collect()
}

/// Rows of a table, each as a JSON object.
async fn rows(registry: &mut SqliteConnection, table: &str, condition: &str) -> Vec<Row> {
    let columns = texts(registry, &format!("SELECT name FROM pragma_table_info('{table}')")).await;
    let pairs: Vec<_> = columns.iter().map(|column| format!("'{column}', \"{column}\"")).collect();
    let query = format!("SELECT json_object({}) FROM \"{table}\" WHERE {condition}", pairs.join(", "));
    texts(registry, &query).await.iter().map(|row| serde_json::from_str(row).unwrap()).collect()
}

async fn read(world: &World, id: OperationId) -> Stored {
    let mut registry = registry(world).await;
    let operation = rows(&mut registry, "operations", &format!("id = '{id}'")).await.remove(0);
    let steps = rows(&mut registry, "steps", &format!("operation_id = '{id}' ORDER BY position")).await;
    registry.close().await.unwrap();
    Stored { operation, steps }
}

/// Replaces the present rows by the stored ones. The outputs of finished steps are those of this registry.
async fn write(world: &World, now: &Stored, stored: &Stored) {
    let mut operation = stored.operation.clone();
    for column in ["version", "epoch"] {
        operation.insert(column.to_owned(), now.operation[column].clone());
    }
    let id = &now.operation["id"];
    let mut statements = vec![
        format!("DELETE FROM operations WHERE id = {}", literal(id)),
        format!("DELETE FROM steps WHERE operation_id = {}", literal(id)),
        insert("operations", &operation),
    ];
    for step in &stored.steps {
        let mut step = step.clone();
        let known = now.steps.iter().find(|known| known["key"] == step["key"]);
        if let (Some("done"), Some(known)) = (step["state"].as_str(), known) {
            step.insert("output".to_owned(), known["output"].clone());
        }
        statements.push(insert("steps", &step));
    }
    let mut registry = registry(world).await;
    let statements = format!("BEGIN IMMEDIATE; {}; COMMIT", statements.join(";"));
    sqlx::raw_sql(AssertSqlSafe(statements.as_str())).execute(&mut registry).await.expect(&statements);
    registry.close().await.unwrap();
}

fn insert(table: &str, row: &Row) -> String {
    let columns: Vec<_> = row.keys().map(|column| format!("\"{column}\"")).collect();
    let values: Vec<_> = row.values().map(literal).collect();
    format!("INSERT INTO \"{table}\" ({}) VALUES ({})", columns.join(", "), values.join(", "))
}

fn literal(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::String(text) => format!("'{}'", text.replace('\'', "''")),
        other => other.to_string(),
    }
}

/// An operation that has ended, as it was when half of its steps were done.
fn rewound(kind: &str, mut stored: Stored) -> Stored {
    if !["onboard", "clone", "offboard", "erase"].contains(&kind) {
        let operation = &mut stored.operation;
        assert_eq!(operation["state"], "succeeded", "{kind}");
        operation.insert("state".to_owned(), json!("running"));
        operation.insert("finished_at".to_owned(), Value::Null);
        operation.insert("idle".to_owned(), json!(0));
        let half = stored.steps.len() / 2;
        for (position, step) in stored.steps.iter_mut().enumerate().skip(half) {
            step.insert("finished_at".to_owned(), Value::Null);
            if position > half {
                step.insert("started_at".to_owned(), Value::Null);
                step.insert("attempts".to_owned(), json!(0));
            }
            step.insert("state".to_owned(), json!(if position == half { "running" } else { "pending" }));
        }
    }
    for step in &mut stored.steps {
        step.insert("output".to_owned(), json!("null"));
        step.insert("note".to_owned(), Value::Null);
    }
    stored
}

/// The placeholder of each id and sealed text in the rows of this registry.
fn names(Stored { operation, steps }: &Stored) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let parsed = |row: &Row| serde_json::from_str::<Value>(&text(&row["input"])).unwrap();
    let mut names = vec![
        ("{operation}".to_owned(), text(&operation["id"])),
        ("{parent}".to_owned(), text(&operation["parent_id"])),
        ("{sealed}".to_owned(), text(&parsed(operation)["sealed"])),
    ];
    for step in steps {
        let (key, input) = (text(&step["key"]), parsed(step));
        let settings = &input["settings"];
        names.extend([
            (format!("{{resource.{key}}}"), text(&input["resource"])),
            (format!("{{child.{key}}}"), text(&step["child_id"])),
            ("{archive}".to_owned(), text(&settings["archive"])),
            ("{notice}".to_owned(), text(&settings["sealed"])),
            ("{source}".to_owned(), text(&settings["from"])),
        ]);
        // The size of an archive, beside its name: the number alone may stand for something else as well.
        if let Some(size) = settings["size"].as_u64() {
            let pair = |size: &str| format!("\\\"size\\\":{size}");
            names.push((pair("{size}"), pair(&size.to_string())));
        }
    }
    let tenant = text(&operation["tenant_id"]);
    let suffix = tenant.split_once('_').map_or(tenant.as_str(), |(_, suffix)| suffix).to_owned();
    names.extend([("{tenant}".to_owned(), tenant), ("{suffix}".to_owned(), suffix)]);
    names.retain(|(_, value)| !value.is_empty());
    names
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
