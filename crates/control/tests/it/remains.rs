//! Remains of a tenant outside of its plan, which a certificate must not hide: resources of an interrupted
//! backup rehearsal, a file without its owner tag, an offboarding missing from a restored registry, personal
//! words in the history.

use std::time::Duration;

use tenantry_control::operations::archive::RestoreTenant;
use tenantry_control::operations::archive::{ArchiveSettings, Purpose};
use tenantry_control::operations::erase::EraseTenant;
use tenantry_control::operations::offboard::OffboardTenant;
use tenantry_control::suspension::{ResumeTenant, SuspendTenant};
use tenantry_control::{Caller, Control, PageQuery};
use tenantry_engine::{OperationState, SignalKind};
use tenantry_model::TenantStatus;
use tenantry_model::suspension::{Reason, SuspensionMode};
use tenantry_testkit::crash_ledger::Faults;

use crate::crash::people;
use crate::faulty::{Fault, How};
use crate::leaving::{active, ask, certificate};
use crate::offboard::{DAY, Stopped};
use crate::scan;
use crate::story::REHEARSAL;
use crate::world::{World, in_both_worlds, request};

in_both_worlds! {
    an_erasure_deletes_the_rehearsal_of_an_interrupted_backup
    a_failed_backup_does_not_prevent_an_erasure
    suspension_changes_in_the_hold_restore_no_access
    a_tenant_is_not_offboarded_during_a_restore
    reasons_of_operators_are_erased_with_the_tenant
}

fn erasure() -> EraseTenant {
    EraseTenant { reason: "request under Art. 17 GDPR".to_owned() }
}

fn ending(hold_days: u32) -> OffboardTenant {
    OffboardTenant { reason: "contract 7 has ended".to_owned(), hold_days: Some(hold_days) }
}

async fn status(control: &Control, tenant: &str) -> TenantStatus {
    control.tenant(&Caller::system(), tenant).await.unwrap().status
}

async fn an_erasure_deletes_the_rehearsal_of_an_interrupted_backup(world: World) {
    let process = world.start(Faults::new()).await.unwrap();
    let (control, caller) = (&process.control, Caller::system());
    for plan in ["enterprise", "starter"] {
        let tenant = active(&world, control, &format!("Acme {plan}"), plan).await;
        let before = world.plan.struck();
        let hangs = Fault::new(REHEARSAL, true, How::HangAfter, u32::MAX);
        world.plan.set(&world.clock, &[hangs]);
        let still = tenantry_engine::Clock::busy(&world.clock);
        let what = ArchiveSettings::default();
        control.archive_tenant(&caller, &tenant, Purpose::Backup, &what, None).await.unwrap();
        while world.plan.struck() == before {
            tokio::task::yield_now().await;
        }
        world.plan.settled().await;
        assert_eq!(world.stores().scan().await.orphans.len(), 1, "{plan}: the rehearsal's resource exists");
        control.erase(&caller, &tenant, &erasure(), None).await.unwrap();
        drop(still);
        world.plan.set(&world.clock, &[]);
        people(&world, control, false).await.unwrap();
        certificate(control, &tenant).await;
    }
    let faults = scan::faults(&world).await;
    assert!(faults.is_empty(), "{faults:#?}");
}

async fn a_failed_backup_does_not_prevent_an_erasure(world: World) {
    let process = world.start(Faults::new()).await.unwrap();
    let (control, caller) = (&process.control, Caller::system());
    let tenant = active(&world, control, "Acme", "enterprise").await;
    world.plan.set(&world.clock, &[Fault::new(REHEARSAL, true, How::Fatal, u32::MAX)]);
    let begun = control.offboard(&caller, &tenant, &ending(1), None).await.unwrap().value;
    world.quiet().await;
    let parked = control.operation(&caller, begun.id).await.unwrap();
    assert_eq!(parked.state, OperationState::NeedsAttention, "{parked:#?}");
    let refused = control.reconsider(&caller, &tenant, None).await.unwrap_err();
    assert!(refused.message.contains("its hold is over"), "{refused:?}");
    let erasing = control.erase(&caller, &tenant, &erasure(), None).await.unwrap().value;
    assert_ne!(erasing.id, begun.id);
    people(&world, control, false).await.unwrap();
    assert_eq!(certificate(control, &tenant).await.operation_id, erasing.id);
    let faults = scan::faults(&world).await;
    assert!(faults.is_empty(), "{faults:#?}");
}

/// A database file that has lost its owner tag is neither deleted nor certified as deleted.
#[tokio::test]
async fn a_file_without_its_owner_tag_blocks_the_certificate() {
    let world = World::sqlite().await;
    let process = world.start(Faults::new()).await.unwrap();
    let (control, caller) = (&process.control, Caller::system());
    let tenant = active(&world, control, "Acme", "growth").await;
    let folders = std::fs::read_dir(world.stores().data.join("tenants")).unwrap().flatten();
    let mut files = folders.map(|folder| folder.path().join("tenant.db")).filter(|file| file.is_file());
    let file = files.next().expect("a database of its own");
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, b"no database").unwrap();
    let begun = control.erase(&caller, &tenant, &erasure(), None).await.unwrap().value;
    world.quiet().await;
    let stopped = control.operation(&caller, begun.id).await.unwrap();
    assert_eq!(stopped.state, OperationState::NeedsAttention, "{stopped:#?}");
    assert_eq!(
        control.certificate(&caller, &tenant).await.unwrap_err().code.as_str(),
        "certificate_not_found"
    );
    assert!(file.is_file(), "a file without an owner tag is not deleted");
    // The operator repairs the file and deletes it.
    std::fs::write(&file, bytes).unwrap();
    std::fs::remove_dir_all(file.parent().unwrap()).unwrap();
    control.signal(&caller, begun.id, SignalKind::Retry, None).await.unwrap();
    people(&world, control, false).await.unwrap();
    certificate(control, &tenant).await;
}

/// An offboarded tenant keeps its key until its backups end, so the offboarding must survive a restore of the
/// registry.
#[tokio::test]
async fn an_offboarding_survives_a_restore_of_the_registry() {
    let mut world = World::sqlite().await;
    let process = world.start(Faults::new()).await.unwrap();
    let tenant = active(&world, &process.control, "Acme", "enterprise").await;
    process.control.stop().await;
    drop(process);
    let backup = world.back_up().await;
    let process = world.start(Faults::new()).await.unwrap();
    let mut time = Stopped::clock(&world);
    process.control.offboard(&Caller::system(), &tenant, &ending(1), None).await.unwrap();
    time.pass(DAY * 2).await;
    assert_eq!(status(&process.control, &tenant).await, TenantStatus::Deprovisioned);
    assert_eq!(certificate(&process.control, &tenant).await.key_destroyed_at, None);
    process.control.stop().await;
    drop(process);
    // The next start begins no erasure, because the offboarding continues.
    let process = world.start(Faults::new()).await.unwrap();
    assert_eq!(certificate(&process.control, &tenant).await.kind, "offboard");
    process.control.stop().await;
    drop((process, time));
    world.restore(backup);
    let process = world.start(Faults::new()).await.unwrap();
    let control = &process.control;
    assert_eq!(
        status(control, &tenant).await,
        TenantStatus::Deprovisioning,
        "the erasure starts before requests are served"
    );
    people(&world, control, false).await.unwrap();
    let proof = certificate(control, &tenant).await;
    assert_eq!((proof.kind.as_str(), proof.reason), ("erase", ending(1).reason));
    assert!(proof.key_destroyed_at.is_some());
    process.control.stop().await;
    let faults = scan::faults(&world).await;
    assert!(faults.is_empty(), "{faults:#?}");
}

async fn suspension_changes_in_the_hold_restore_no_access(world: World) {
    let process = world.start(Faults::new()).await.unwrap();
    let (control, caller) = (&process.control, Caller::system());
    let tenant = active(&world, control, "Acme", "enterprise").await;
    let mut time = Stopped::clock(&world);
    control.offboard(&caller, &tenant, &ending(30), None).await.unwrap();
    time.pass(Duration::from_secs(60)).await;
    let denied = async || ask(&world, "SELECT id FROM tenants WHERE denied = 'blocked'").await.len();
    assert_eq!(denied().await, 1);
    let (reason, mode) = (Reason::Payment, SuspensionMode::ReadOnly);
    control.suspend(&caller, &tenant, SuspendTenant { reason, mode }, None).await.unwrap();
    assert_eq!(denied().await, 1);
    control.resume(&caller, &tenant, ResumeTenant::default(), None).await.unwrap();
    assert_eq!(denied().await, 1);
    let told = "SELECT id FROM events WHERE type IN ('tenant.suspended', 'tenant.resumed')";
    assert_eq!(ask(&world, told).await.len(), 0);
    assert_eq!(status(control, &tenant).await, TenantStatus::Deprovisioning);
}

async fn a_tenant_is_not_offboarded_during_a_restore(world: World) {
    let process = world.start(Faults::new()).await.unwrap();
    let (control, caller) = (&process.control, Caller::system());
    let tenant = active(&world, control, "Acme", "starter").await;
    let what = ArchiveSettings::default();
    control.archive_tenant(&caller, &tenant, Purpose::Backup, &what, None).await.unwrap();
    people(&world, control, false).await.unwrap();
    let all = control.archives(&caller, &tenant, Purpose::Backup, &PageQuery::default()).await.unwrap();
    let archive = all.data[0].id;
    let still = tenantry_engine::Clock::busy(&world.clock);
    control.restore(&caller, &tenant, RestoreTenant { archive }, None).await.unwrap();
    let refused = control.offboard(&caller, &tenant, &ending(0), None).await.unwrap_err();
    assert_eq!(refused.code.as_str(), "tenant_busy", "{refused:?}");
    drop(still);
    people(&world, control, false).await.unwrap();
    control.offboard(&caller, &tenant, &ending(0), None).await.unwrap();
}

async fn reasons_of_operators_are_erased_with_the_tenant(world: World) {
    let process = world.start(Faults::new()).await.unwrap();
    let (control, caller) = (&process.control, Caller::system());
    let word = "Lovelace has no credit".to_owned();
    let made = control.create_tenant(&caller, &request("Acme", "gated"), None).await.unwrap();
    world.quiet().await;
    let no = SignalKind::Reject { step: "approve".to_owned(), reason: word.clone() };
    control.signal(&caller, made.operation.id, no, None).await.unwrap();
    people(&world, control, false).await.unwrap();
    let ended = control.operation(&caller, made.operation.id).await.unwrap();
    assert!(ended.error.unwrap().message.contains(&word), "the error contains the reason");
    control.erase(&caller, &made.tenant.id.to_string(), &erasure(), None).await.unwrap();
    people(&world, control, false).await.unwrap();
    for table in ["audit", "events", "operations", "steps", "signals"] {
        let column = if ["audit", "events"].contains(&table) { "data" } else { "error" };
        let column = if table == "signals" { "signal" } else { column };
        let said = format!("SELECT 1 FROM {table} WHERE CAST({column} AS text) LIKE '%Lovelace%'");
        assert_eq!(ask(&world, &said).await.len(), 0, "{table}");
    }
}
