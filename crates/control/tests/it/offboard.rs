//! Offboarding: all data is kept during the hold, in which the offboarding can be reconsidered, and deleted
//! after it.

use std::time::Duration;

use serde_json::{Value, json};
use tenantry_control::operations::archive::ArchiveLink;
use tenantry_control::operations::archive::Purpose;
use tenantry_control::operations::erase::EraseTenant;
use tenantry_control::operations::offboard::OffboardTenant;
use tenantry_control::operations::repair::RepairTenant;
use tenantry_control::suspension::{ResumeTenant, SuspendTenant};
use tenantry_control::view::OperationView;
use tenantry_control::{Caller, Control, ErrorKind, IdempotencyKey, PageQuery};
use tenantry_engine::clock::Busy;
use tenantry_engine::{Clock, OperationState, SignalKind, StepState};
use tenantry_model::TenantStatus;
use tenantry_model::id::ArchiveId;
use tenantry_model::suspension::{Reason, SuspensionMode};
use tenantry_testkit::crash_ledger::Faults;
use tenantry_testkit::scan::Remains;
use tokio::io::AsyncReadExt as _;

use crate::crash::people;
use crate::faulty::{Fault, How};
use crate::leaving::{active, certificate};
use crate::scan;
use crate::world::{World, in_both_worlds, request};

in_both_worlds! {
    data_is_kept_during_the_hold_and_then_deleted
    a_reconsidered_tenant_has_everything_back
    a_reconsidered_tenant_is_observed_and_repaired
    an_erasure_skips_the_hold
    illegal_requests_are_rejected_with_the_alternative
    a_failed_notice_does_not_delay_the_offboarding
    the_hold_follows_the_contract_or_the_request
}

pub const DAY: Duration = Duration::from_secs(86_400);

fn leave(hold_days: Option<u32>) -> OffboardTenant {
    OffboardTenant { reason: "contract 7 has ended".to_owned(), hold_days }
}

async fn offboard(control: &Control, tenant: &str, hold_days: Option<u32>) -> OperationView {
    control.offboard(&Caller::system(), tenant, &leave(hold_days), None).await.unwrap().value
}

async fn status(control: &Control, tenant: &str) -> TenantStatus {
    control.tenant(&Caller::system(), tenant).await.unwrap().status
}

/// Stops the virtual clock except when a test lets time pass; otherwise a hold would end before the test can
/// look.
pub struct Stopped<'a> {
    world: &'a World,
    still: Option<Busy>,
}

impl<'a> Stopped<'a> {
    pub fn clock(world: &'a World) -> Self {
        Self { world, still: Some(world.clock.busy()) }
    }

    /// Lets time pass, with all work that is due in it.
    pub async fn pass(&mut self, time: Duration) {
        let until = self.world.clock.now() + time;
        self.still = None;
        self.world.clock.sleep_until(until).await;
        self.still = Some(self.world.clock.busy());
    }

    /// Lets the clock run until all work has ended or waits for a signal.
    async fn rest(&mut self) {
        self.still = None;
        self.world.quiet().await;
        self.still = Some(self.world.clock.busy());
    }

    /// Like [`Self::rest`], with the signals of an operator.
    async fn people(&mut self, control: &Control) {
        self.still = None;
        people(self.world, control, false).await.unwrap();
        self.still = Some(self.world.clock.busy());
    }
}

async fn standing(world: &World, tenant: &str) -> Remains {
    world.stores().scan().await.tenants[tenant].clone()
}

fn count(found: &Remains, what: &str) -> i64 {
    found.counts.get(what).copied().unwrap_or(0)
}

/// Resources of the tenant that must not change in a hold.
const OWN: [&str; 6] = ["databases", "buckets", "namespaces", "hosts", "certificates", "members"];

/// Extracts the link from a mail, whose lines are folded according to RFC 2045.
fn addressed(mail: &str, archive: ArchiveId) -> ArchiveLink {
    let text = mail.replace("=\r\n", "").replace("=3D", "=");
    let (_, rest) = text.split_once(&format!("/exports/{archive}?expires=")).expect("an address");
    let (expires_at, rest) = rest.split_once("&signature=").expect("a signature");
    let signature = rest.split_whitespace().next().expect("a signature").to_owned();
    ArchiveLink { archive, expires_at: expires_at.parse().unwrap(), signature }
}

async fn data_is_kept_during_the_hold_and_then_deleted(world: World) {
    let process = world.start(Faults::new()).await.unwrap();
    let (control, caller) = (&process.control, Caller::system());
    let tenant = active(&world, control, "Acme", "enterprise").await;
    let before = standing(&world, &tenant).await;
    let mut time = Stopped::clock(&world);
    time.pass(DAY * 10).await;
    let begun = offboard(control, "acme", None).await;
    assert_eq!(status(control, &tenant).await, TenantStatus::Deprovisioning);
    time.pass(DAY * 29).await;
    let held = control.operation(&caller, begun.id).await.unwrap();
    let hold = held.steps.iter().find(|step| step.key == "hold").unwrap();
    assert_eq!((held.state, hold.state), (OperationState::Running, StepState::Waiting), "{held:#?}");
    let exports = control.archives(&caller, &tenant, Purpose::Export, &PageQuery::default()).await.unwrap();
    control.export_link(&caller, &tenant, exports.data[0].id).await.unwrap();
    let during = standing(&world, &tenant).await;
    for what in OWN {
        assert_eq!(count(&during, what), count(&before, what), "{what} is kept");
    }
    assert_eq!((count(&during, "subscriptions cancelled"), count(&during, "subscriptions active")), (1, 0));
    let credits = "SELECT CAST(amount AS bigint) FROM invoices WHERE amount < 0";
    let credit = crate::leaving::ask(&world, credits).await;
    let credit: i64 = tenantry_testkit::scan::get(&credit[0], 0);
    assert!((-199_000..-100_000).contains(&credit), "20 of 30 days of 1990: {credit}");
    let mails = std::fs::read_dir(world.stores().data.join("outbox")).unwrap().flatten();
    let mails: Vec<String> = mails.map(|mail| std::fs::read_to_string(mail.path()).unwrap()).collect();
    assert_eq!(mails.len(), 2);
    let until = (world.clock.now() + DAY).to_string();
    let notice = mails
        .iter()
        .find(|mail| mail.contains(&until[..10]))
        .expect("a notice that names the end of the hold");
    // The address in the notice opens the export and is not stored in the registry.
    let address = addressed(notice, exports.data[0].id);
    let mut part = control.open_link(&address, None).await.unwrap();
    let mut bytes = Vec::new();
    part.body.read_to_end(&mut bytes).await.unwrap();
    assert_eq!(bytes.len() as u64, exports.data[0].size);
    let steps = "SELECT operation_id FROM steps WHERE CAST(input AS text) LIKE";
    let told = crate::leaving::ask(&world, &format!("{steps} '%{}%'", address.signature)).await;
    assert!(told.is_empty(), "an address is in the ledger");
    time.pass(DAY * 2).await;
    // All data is deleted except the export for the customer, the backup and the invoices.
    let proof = certificate(control, &tenant).await;
    let kept: Vec<&str> = proof.retained.iter().map(|kept| kept.what.as_str()).collect();
    assert_eq!((kept, proof.key_destroyed_at), (vec!["invoices", "export", "backup"], None));
    assert_eq!(status(control, &tenant).await, TenantStatus::Deprovisioned);
    time.people(control).await;
    let ended = control.operation(&caller, begun.id).await.unwrap();
    assert_eq!(ended.state, OperationState::Succeeded, "{ended:#?}");
    let proof = certificate(control, &tenant).await;
    assert_eq!((proof.kind.as_str(), proof.operation_id), ("offboard", begun.id));
    assert!(proof.resources.iter().any(|gone| gone.step.as_deref() == Some("remove_notice")), "{proof:#?}");
    assert!(proof.key_destroyed_at.is_some());
    assert_eq!(proof.retained.len(), 1, "the archives are gone: {:?}", proof.retained);
    assert_eq!(proof.retained[0].count, 2, "the invoice and the credit: {:?}", proof.retained);
    assert_eq!(status(control, &tenant).await, TenantStatus::Deprovisioned);
    process.control.stop().await;
    let faults = scan::faults(&world).await;
    assert!(faults.is_empty(), "{faults:#?}");
}

async fn a_reconsidered_tenant_is_observed_and_repaired(world: World) {
    let process = world.start(Faults::new()).await.unwrap();
    let (control, caller) = (&process.control, Caller::system());
    for (plan, wait) in [("starter", None), ("enterprise", Some(Duration::from_secs(60)))] {
        active(&world, control, plan, plan).await;
        let mut time = Stopped::clock(&world);
        offboard(control, plan, None).await;
        if let Some(wait) = wait {
            time.pass(wait).await;
        }
        control.reconsider(&caller, plan, None).await.unwrap();
        time.rest().await;
        let status = control.tenant_status(&caller, plan).await.unwrap();
        // The invitation has expired meanwhile; the repair replaces it.
        let differ = status.resources.iter().filter(|it| !it.healthy && it.step != "identity");
        assert_eq!(differ.map(|it| (&*it.step, &it.differs)).collect::<Vec<_>>(), []);
        let repair = control.repair(&caller, plan, &RepairTenant::default(), None).await.unwrap().value;
        time.rest().await;
        let repaired = control.operation(&caller, repair.id).await.unwrap();
        assert_eq!(repaired.state, OperationState::Succeeded, "{repaired:#?}");
        // The invitation of the tenant before it has expired again.
        let drift = control.drift(&caller, &PageQuery::default()).await.unwrap().page.data;
        let own: Vec<_> = drift.iter().filter(|it| it.slug.as_deref() == Some(plan)).collect();
        assert!(own.is_empty(), "{own:?}");
    }
    process.control.stop().await;
}

async fn a_reconsidered_tenant_has_everything_back(world: World) {
    let process = world.start(Faults::new()).await.unwrap();
    let (control, caller) = (&process.control, Caller::system());
    let tenant = active(&world, control, "Acme", "enterprise").await;
    let before = standing(&world, &tenant).await;
    let mut time = Stopped::clock(&world);
    let suspend = SuspendTenant { reason: Reason::Policy, mode: SuspensionMode::ReadOnly };
    for round in 0..3 {
        if round == 1 {
            control.suspend(&caller, "acme", suspend, None).await.unwrap();
        }
        let begun = offboard(control, "acme", None).await;
        // A payment does not end the offboarding; cleared suspension reasons count after a reconsideration.
        if round == 2 {
            control.resume(&caller, "acme", ResumeTenant::default(), None).await.unwrap();
        }
        assert_eq!(status(control, "acme").await, TenantStatus::Deprovisioning, "round {round}");
        time.pass(DAY * 12).await;
        let key = || IdempotencyKey::parse(format!("back {round}")).ok();
        let back = control.reconsider(&caller, "acme", key()).await.unwrap();
        let expected = [TenantStatus::Active, TenantStatus::Suspended, TenantStatus::Active][round];
        assert_eq!((back.value.status, back.replayed), (expected, false), "round {round}");
        assert_eq!(back.value.suspended_at.is_some(), round == 1);
        time.rest().await;
        let ended = control.operation(&caller, begun.id).await.unwrap();
        assert_eq!(ended.state, OperationState::Cancelled, "{ended:#?}");
        let again = control.reconsider(&caller, "acme", key()).await.unwrap();
        assert!(again.replayed, "the same key is the same answer");
        let after = standing(&world, &tenant).await;
        for what in OWN {
            assert_eq!(count(&after, what), count(&before, what), "{what} is unchanged");
        }
        assert_eq!(count(&after, "subscriptions active"), 1, "{after:#?}");
        assert_eq!(count(&after, "mails"), 1, "the welcome mail");
    }
    // Finally the tenant is offboarded without a hold.
    offboard(control, "acme", Some(0)).await;
    time.people(control).await;
    certificate(control, &tenant).await;
    process.control.stop().await;
    let faults = scan::faults(&world).await;
    assert!(faults.is_empty(), "{faults:#?}");
}

async fn an_erasure_skips_the_hold(world: World) {
    let process = world.start(Faults::new()).await.unwrap();
    let (control, caller) = (&process.control, Caller::system());
    let tenant = active(&world, control, "Acme", "growth").await;
    let mut time = Stopped::clock(&world);
    let begun = offboard(control, "acme", None).await;
    time.pass(DAY).await;
    let erase = EraseTenant { reason: "at once, please".to_owned() };
    let erased = control.erase(&caller, "acme", &erase, None).await.unwrap().value;
    time.pass(DAY / 24).await;
    time.people(control).await;
    let (left, ended) = (
        control.operation(&caller, begun.id).await.unwrap(),
        control.operation(&caller, erased.id).await.unwrap(),
    );
    assert_eq!((left.state, ended.state), (OperationState::Cancelled, OperationState::Succeeded));
    assert_eq!(left.error.unwrap().code.as_str(), "superseded");
    assert_eq!(certificate(control, &tenant).await.reason, erase.reason);
    // An offboarding that already deletes is not replaced by an erasure.
    drop(time);
    let other = active(&world, control, "Other", "growth").await;
    world.plan.set(&world.clock, &[Fault::new("bucket", false, How::Fatal, u32::MAX)]);
    let mut time = Stopped::clock(&world);
    let begun = offboard(control, &other, Some(0)).await;
    time.rest().await;
    let same = control.erase(&caller, &other, &erase, None).await.unwrap().value;
    assert_eq!((same.id, same.state), (begun.id, OperationState::NeedsAttention));
    time.people(control).await;
    certificate(control, &other).await;
    process.control.stop().await;
    let faults = scan::faults(&world).await;
    assert!(faults.is_empty(), "{faults:#?}");
}

async fn illegal_requests_are_rejected_with_the_alternative(world: World) {
    let process = world.start(Faults::new()).await.unwrap();
    let (control, caller) = (&process.control, Caller::system());
    let conflict = |error: tenantry_control::Error| {
        assert_eq!((error.kind(), error.code.as_str()), (ErrorKind::Conflict, "illegal_transition"));
        error.message
    };
    let mut time = Stopped::clock(&world);
    let made = control.create_tenant(&caller, &request("Waits", "enterprise"), None).await.unwrap();
    let waits = made.tenant.id.to_string();
    let why = conflict(control.offboard(&caller, &waits, &leave(None), None).await.unwrap_err());
    assert_eq!(
        why,
        "a tenant that is provisioning cannot be offboarded: only active and suspended tenants can be; use `erase` for other statuses"
    );
    time.people(control).await;
    drop(time);
    let tenant = active(&world, control, "Acme", "starter").await;
    let mut time = Stopped::clock(&world);
    let why = conflict(control.reconsider(&caller, &tenant, None).await.unwrap_err());
    assert_eq!(why, "the offboarding cannot be reversed: it is active");
    let begun = offboard(control, &tenant, None).await;
    let why = conflict(control.offboard(&caller, &tenant, &leave(None), None).await.unwrap_err());
    assert!(why.contains("`reconsider` stops it during the hold, `erase` skips the hold"), "{why}");
    let refused = control.signal(&caller, begun.id, SignalKind::Cancel, None).await.unwrap_err();
    assert!(refused.message.contains("reconsider"), "{refused:?}");
    conflict(control.retry_onboarding(&caller, &tenant, None).await.unwrap_err());
    conflict(control.repair(&caller, &tenant, &Default::default(), None).await.unwrap_err());
    world.plan.set(&world.clock, &[Fault::new("database", false, How::Fatal, u32::MAX)]);
    time.pass(DAY * 31).await;
    let why = conflict(control.reconsider(&caller, &tenant, None).await.unwrap_err());
    assert_eq!(why, "the offboarding cannot be reversed: its hold is over, or an erasure has begun");
    time.people(control).await;
    let why = conflict(control.reconsider(&caller, &tenant, None).await.unwrap_err());
    assert_eq!(why, "the offboarding cannot be reversed: it is deleted");
    conflict(control.offboard(&caller, &tenant, &leave(None), None).await.unwrap_err());
    let too_long = control.offboard(&caller, &waits, &leave(Some(36_501)), None).await.unwrap_err();
    assert_eq!((too_long.kind(), too_long.errors[0].path.as_str()), (ErrorKind::Invalid, "hold_days"));
}

async fn a_failed_notice_does_not_delay_the_offboarding(world: World) {
    let process = world.start(Faults::new()).await.unwrap();
    let control = &process.control;
    let tenant = active(&world, control, "Acme", "starter").await;
    let mut time = Stopped::clock(&world);
    world.plan.set(&world.clock, &[Fault::new("notice", true, How::Fatal, u32::MAX)]);
    let begun = offboard(control, &tenant, None).await;
    time.rest().await;
    let ended = control.operation(&Caller::system(), begun.id).await.unwrap();
    assert_eq!(ended.state, OperationState::Succeeded, "{ended:#?}");
    certificate(control, &tenant).await;
    process.control.stop().await;
    drop(process);
    // The next process ends what was stuck, because its tenant is gone.
    let process = world.start(Faults::new()).await.unwrap();
    time.rest().await;
    assert_eq!(world.stores().unfinished().await, 0);
    process.control.stop().await;
    let faults = scan::faults(&world).await;
    assert!(faults.is_empty(), "{faults:#?}");
}

async fn the_hold_follows_the_contract_or_the_request(world: World) {
    let process = world.start(Faults::new()).await.unwrap();
    let (control, caller) = (&process.control, Caller::system());
    let days = |operation: &OperationView| {
        let hold = operation.steps.iter().find(|step| step.key == "hold").unwrap();
        hold.due_at.unwrap().since(hold.started_at.unwrap()).as_secs() / 86_400
    };
    let mut contract: Value = request("Contract", "starter");
    contract["compliance"] = json!({ "retention_period": 90 });
    let made = control.create_tenant(&caller, &contract, None).await.unwrap();
    let bound = made.tenant.id.to_string();
    let other = active(&world, control, "Other", "starter").await;
    let mut time = Stopped::clock(&world);
    for (tenant, asked, expected) in
        [(&bound, None, 90), (&bound, Some(3), 3), (&other, None, 30), (&other, Some(0), 0)]
    {
        let begun = offboard(control, tenant, asked).await;
        time.pass(Duration::from_secs(5)).await;
        let held = control.operation(&caller, begun.id).await.unwrap();
        match expected {
            0 => assert_eq!(status(control, tenant).await, TenantStatus::Deprovisioned, "{held:#?}"),
            expected => {
                assert_eq!(days(&held), expected);
                control.reconsider(&caller, tenant, None).await.unwrap();
                time.pass(Duration::from_secs(5)).await;
            }
        }
    }
}
