//! Archives through the use cases: a process that stops at any commit point of an export or a backup leaves a
//! complete archive or none; failed archives leave no file, expired ones are deleted.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use tenantry_control::operations::archive::ArchiveLink;
use tenantry_control::operations::archive::{ArchiveSettings, ArchiveView, Purpose};
use tenantry_control::operations::repair::RepairTenant;
use tenantry_control::view::OperationView;
use tenantry_control::{Caller, Control, ErrorKind, IdempotencyKey, PageQuery};
use tenantry_engine::{Clock, OperationState, SignalKind};
use tenantry_model::{Write, columns};
use tenantry_provider::Rows as _;
use tenantry_store::{Store, StoreConfig, WriteBatch};
use tenantry_testkit::Raw;
use tenantry_testkit::crash_ledger::{Fault as LedgerFault, Faults};
use tenantry_testkit::database::execute;
use tenantry_testkit::report;
use tokio::io::AsyncReadExt;

use crate::crash::{every, full, in_lives, people};
use crate::faulty::{Fault, How};
use crate::world::{Process, World, in_both_worlds, request};

in_both_worlds! {
    a_failed_archive_leaves_no_file
    expired_archives_are_deleted
    a_tenant_has_one_operation_at_a_time
    an_import_is_limited_in_size
    a_blocked_tenant_can_be_exported
    an_import_gives_no_more_than_the_tenants_plan
}

/// A process with an active tenant that has a bucket.
async fn active(world: &World) -> Process {
    let process = world.start(Faults::new()).await.unwrap();
    let caller = Caller::system();
    process.control.create_tenant(&caller, &request("Acme", "growth"), None).await.unwrap();
    people(world, &process.control, false).await.unwrap();
    process
}

async fn begin(
    control: &Control,
    purpose: Purpose,
    key: Option<&str>,
) -> Result<OperationView, tenantry_control::Error> {
    let key = key.and_then(|key| IdempotencyKey::parse(key).ok());
    let what = ArchiveSettings::default();
    control.archive_tenant(&Caller::system(), "acme", purpose, &what, key).await.map(|begun| begun.value)
}

async fn archives(control: &Control, purpose: Purpose) -> Vec<ArchiveView> {
    control.archives(&Caller::system(), "acme", purpose, &PageQuery::default()).await.unwrap().data
}

/// Files in the archive store.
fn shelf(world: &World) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(world.stores().data.join("archives")).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

async fn opens(control: &Control, link: &ArchiveLink) -> usize {
    let mut part = control.open_link(link, None).await.unwrap();
    let mut bytes = Vec::new();
    part.body.read_to_end(&mut bytes).await.unwrap();
    bytes.len()
}

async fn a_failed_archive_leaves_no_file(world: World) {
    let process = active(&world).await;
    let control = &process.control;
    // A bucket without its index cannot be exported.
    let stores = world.stores();
    let buckets = std::fs::read_dir(stores.data.join("buckets")).unwrap().map(|entry| entry.unwrap().path());
    let index = buckets.map(|bucket| bucket.join("index.db")).find(|index| index.is_file()).unwrap();
    std::fs::rename(&index, index.with_extension("away")).unwrap();
    for purpose in [Purpose::Export, Purpose::Backup] {
        let begun = begin(control, purpose, None).await.unwrap();
        people(&world, control, false).await.unwrap();
        let ended = control.operation(&Caller::system(), begun.id).await.unwrap();
        assert_eq!(ended.state, OperationState::RolledBack, "{ended:?}");
        assert_eq!(ended.error.unwrap().step.unwrap(), purpose.as_str());
        assert_eq!(archives(control, purpose).await, []);
        assert_eq!(shelf(&world), Vec::<PathBuf>::new());
    }
    assert_eq!(control.tenant(&Caller::system(), "acme").await.unwrap().status.to_string(), "active");
    process.control.stop().await;
}

async fn expired_archives_are_deleted(world: World) {
    let process = active(&world).await;
    let control = &process.control;
    for purpose in [Purpose::Export, Purpose::Backup] {
        begin(control, purpose, None).await.unwrap();
        people(&world, control, false).await.unwrap();
    }
    let export = archives(control, Purpose::Export).await.remove(0);
    let link = control.export_link(&Caller::system(), "acme", export.id).await.unwrap();
    assert_eq!(opens(control, &link).await as u64, export.size);
    assert_eq!(control.sweep().await.unwrap().archives, 0);
    let wait = |days: u64| world.clock.sleep_until(world.clock.now() + Duration::from_secs(days * 86_400));
    wait(31).await;
    assert_eq!(control.open_link(&link, None).await.err().unwrap().code.as_str(), "expired");
    let gone = control.export_link(&Caller::system(), "acme", export.id).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::Gone);
    assert_eq!(control.sweep().await.unwrap().archives, 1);
    assert_eq!((archives(control, Purpose::Export).await.len(), shelf(&world).len()), (0, 1));
    wait(60).await;
    assert_eq!(control.sweep().await.unwrap().archives, 1, "the backup has expired");
    assert_eq!((archives(control, Purpose::Backup).await.len(), shelf(&world).len()), (0, 0));
    process.control.stop().await;
}

async fn a_tenant_has_one_operation_at_a_time(world: World) {
    let process = active(&world).await;
    let control = &process.control;
    world.plan.set(&world.clock, &[Fault::new("bucket", true, How::Fatal, u32::MAX)]);
    control.repair(&Caller::system(), "acme", &RepairTenant::default(), None).await.unwrap();
    // The operation needs attention, so it has not ended.
    world.quiet().await;
    let second = begin(control, Purpose::Backup, None).await.unwrap_err();
    assert_eq!((second.kind(), second.code.as_str()), (ErrorKind::Conflict, "tenant_busy"));
    people(&world, control, false).await.unwrap();
    let first = begin(control, Purpose::Export, Some("k")).await.unwrap();
    assert_eq!(begin(control, Purpose::Export, Some("k")).await.unwrap().id, first.id);
    people(&world, control, false).await.unwrap();
    assert_eq!(begin(control, Purpose::Export, Some("k")).await.unwrap().id, first.id);
    assert_eq!(archives(control, Purpose::Export).await.len(), 1);
    process.control.stop().await;
}

async fn an_import_is_limited_in_size(world: World) {
    let process = active(&world).await;
    let control = &process.control;
    for (size, code) in [((1 << 20) + 1, "body_too_large"), (1 << 20, "bad_archive")] {
        let bytes = Box::pin(tokio::io::repeat(0).take(size));
        let refused = control.import(&Caller::system(), "acme", bytes, None).await.unwrap_err();
        assert_eq!(refused.code.as_str(), code, "{size} bytes");
        assert_eq!(shelf(&world), Vec::<PathBuf>::new());
    }
    process.control.stop().await;
}

/// A suspended customer is still entitled to their data.
async fn a_blocked_tenant_can_be_exported(world: World) {
    let process = active(&world).await;
    let (control, caller) = (&process.control, Caller::system());
    let what = serde_json::json!({ "reason": "payment", "mode": "blocked" });
    let what = serde_json::from_value(what).unwrap();
    control.suspend(&caller, "acme", what, None).await.unwrap();
    begin(control, Purpose::Export, None).await.unwrap();
    people(&world, control, false).await.unwrap();
    let made = archives(control, Purpose::Export).await.remove(0);
    assert!(
        made.resources.iter().any(|made| made.content.counts.get("tasks").is_some_and(|tasks| *tasks > 0))
    );
    let link = control.export_link(&caller, "acme", made.id).await.unwrap();
    assert_eq!(opens(control, &link).await as u64, made.size);
    assert_eq!(control.tenant(&caller, "acme").await.unwrap().status.to_string(), "suspended");
    process.control.stop().await;
}

/// The source's features do not come with its content; and an archive with too many members changes nothing.
async fn an_import_gives_no_more_than_the_tenants_plan(world: World) {
    let process = active(&world).await;
    let (control, caller) = (&process.control, Caller::system());
    let small = control.create_tenant(&caller, &request("Small", "starter"), None).await.unwrap().tenant.id;
    people(&world, control, false).await.unwrap();
    let store = StoreConfig { url: world.registry_url(), readers: 1 };
    let store = Store::open(&store).await.unwrap();
    let config = async || store.find("configs", &[("tenant_id", json!(small))]).await.unwrap().remove(0);
    let before = config().await;
    begin(control, Purpose::Export, None).await.unwrap();
    people(&world, control, false).await.unwrap();
    let export = archives(control, Purpose::Export).await.remove(0);
    let link = control.export_link(&caller, "acme", export.id).await.unwrap();
    let mut bytes = Vec::new();
    control.open_link(&link, None).await.unwrap().body.read_to_end(&mut bytes).await.unwrap();
    let import = async || {
        let body = Box::pin(std::io::Cursor::new(bytes.clone()));
        let begun = control.import(&caller, "small", body, None).await.unwrap().value;
        world.quiet().await;
        control.operation(&caller, begun.id).await.unwrap()
    };
    let seats = async |seats: u64| {
        let mut settings = before["settings"].clone();
        settings["quotas"]["seats"] = json!(seats);
        let set =
            Write::update("configs", columns! { "tenant_id": small }, columns! { "settings": settings });
        store.commit(WriteBatch::new(vec![set])).await.unwrap();
    };
    // A row that only the import would delete.
    seats(1).await;
    let rows = async || {
        let pool = Raw::connect(&format!("sqlite://{}", world.stores().pool().display())).await;
        let found =
            pool.rows(&format!("SELECT id FROM projects WHERE tenant_id = '{small}' AND id = 'own'")).await;
        pool.close().await;
        found.len()
    };
    let add = format!("INSERT INTO projects (tenant_id, id, name) VALUES ('{small}', 'own', 'Own')");
    execute(&format!("sqlite://{}", world.stores().pool().display()), add).await.unwrap();
    assert_eq!(rows().await, 1);
    let refused = import().await;
    assert_eq!(refused.steps[0].error.as_ref().map(|error| error.code.as_str()), Some("quota_exceeded"));
    assert_eq!(rows().await, 1, "the database is unchanged");
    control.signal(&caller, refused.id, SignalKind::Cancel, None).await.unwrap();
    world.quiet().await;
    seats(2).await;
    assert_eq!(import().await.state, OperationState::Succeeded);
    assert_eq!((rows().await, &config().await["flags"]), (0, &before["flags"]));
    store.close().await;
    process.control.stop().await;
}

/// Starts one process after another until the archive exists. Returns whether the first one reached its
/// fault.
async fn survives(purpose: Purpose, call: u64, fault: LedgerFault) -> bool {
    let world = World::sqlite().await;
    active(&world).await.control.stop().await;
    let mut begun = false;
    let lives = [Faults::from([(call, fault)])];
    let reached = in_lives(&world, &lives, async |process| {
        let control = &process.control;
        while !begun {
            match begin(control, purpose, Some("crash")).await {
                Ok(_) => begun = true,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}"),
            }
        }
        people(&world, control, false).await?;
        let (made, files) = (archives(control, purpose).await, shelf(&world));
        assert_eq!((made.len(), files.len()), (1, 1), "{purpose:?} {fault:?} at {call}: {files:?}");
        assert!(files[0].ends_with(&made[0].location));
        if purpose == Purpose::Export {
            let link = control.export_link(&Caller::system(), "acme", made[0].id).await.unwrap();
            assert_eq!(opens(control, &link).await as u64, made[0].size);
        }
        control.stop().await;
        Ok(())
    });
    let reached = reached.await.unwrap() == [true];
    let scanned = world.stores().scan().await.tenants.into_values().next().unwrap();
    assert_eq!(scanned.counts["buckets"], 1, "the rehearsal's resources are deleted");
    reached
}

#[tokio::test]
async fn the_process_stops_at_every_commit_point() {
    let mut cases = 0;
    for purpose in [Purpose::Export, Purpose::Backup] {
        for (lane, fault) in LedgerFault::ALL.into_iter().enumerate() {
            for call in every(if full() { 1 } else { 3 }, lane) {
                cases += 1;
                if !survives(purpose, call, fault).await {
                    break;
                }
            }
        }
    }
    report::add(&format!("crash: {cases} cases of a process that stops while it creates an archive"));
}
