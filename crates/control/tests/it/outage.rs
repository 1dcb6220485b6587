//! Outages of ten minutes, on the virtual clock: from the start of each step of each operation on, no provider
//! works, or the ledger does not. Every operation ends by itself as if nothing had happened, and the outage is
//! told once.
//!
//! A plain run fails each step in one way, in turn; `cargo xtask test --full` in every way.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use tenantry_control::operations::archive::{ArchiveSettings, Purpose, RestoreTenant};
use tenantry_control::operations::erase::EraseTenant;
use tenantry_control::operations::offboard::OffboardTenant;
use tenantry_control::operations::repair::RepairTenant;
use tenantry_control::operations::rotate_credentials::RotateCredentials;
use tenantry_control::view::{EventView, OperationView, StepView};
use tenantry_control::{Caller, Control, Error, OperationQuery, PageQuery};
use tenantry_engine::retry::RETRY_FOR;
use tenantry_engine::{Clock, OperationState, SignalKind, StepState};
use tenantry_model::id::ArchiveId;
use tenantry_testkit::crash_ledger::Faults;
use tenantry_testkit::report;
use tenantry_testkit::scan::Scan;
use tenantry_testkit::store::events_are_numbered;
use tokio::io::AsyncReadExt as _;

use crate::crash::full;
use crate::faulty::{Fault, How, OUTAGE, Outage, Started};
use crate::real_outage;
use crate::world::{Process, World, request};

/// Most attempts at one step during the outage: more would be too many for a provider that is down.
const ATTEMPTS: i32 = 40;

/// An operation that meets the outage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// An onboarding on this plan, with its detached children.
    Onboard(&'static str),
    /// The compensations of an onboarding whose smoke test fails.
    RollBack(&'static str),
    Repair,
    Rotate,
    Export,
    Backup,
    Restore,
    Import,
    Clone,
    Offboard,
    Erase,
}

/// An archive to load.
pub struct Archive {
    id: ArchiveId,
    /// Its file, if it is to be uploaded.
    bytes: Vec<u8>,
}

impl Scenario {
    /// A world without a trace of an outage; none without PostgreSQL, where the scenario needs it.
    pub async fn world(self) -> Option<World> {
        let mut world = match self {
            Self::Rotate => World::with_tenants_on_postgres().await?,
            _ => World::sqlite().await,
        };
        world.retry_for = RETRY_FOR;
        Some(world)
    }

    /// Makes what the operation needs: a tenant, an archive.
    pub async fn prepare(self, world: &World, control: &Control) -> Option<Archive> {
        let caller = Caller::system();
        match self {
            Self::Onboard(_) => return None,
            Self::RollBack(_) => {
                let fault = Fault::new("smoke_test", true, How::Fatal, u32::MAX);
                world.plan.set(&world.clock, &[fault]);
                return None;
            }
            _ => {}
        }
        // The plan with the fewest resources whose content moves.
        let plan = if self == Self::Repair { "enterprise" } else { "growth" };
        control.create_tenant(&caller, &request("Acme", plan), None).await.unwrap();
        approve(control).await;
        ends(world, control).await.unwrap();
        if matches!(self, Self::Restore | Self::Import) {
            let what = ArchiveSettings::default();
            let purpose = if self == Self::Restore { Purpose::Backup } else { Purpose::Export };
            control.archive_tenant(&caller, "acme", purpose, &what, None).await.unwrap();
            ends(world, control).await.unwrap();
            let page = PageQuery::default();
            let made = control.archives(&caller, "acme", purpose, &page).await.unwrap().data.remove(0);
            let mut bytes = Vec::new();
            if self == Self::Import {
                let link = control.export_link(&caller, "acme", made.id).await.unwrap();
                control.open_link(&link, None).await.unwrap().body.read_to_end(&mut bytes).await.unwrap();
            }
            return Some(Archive { id: made.id, bytes });
        }
        None
    }

    pub async fn begin(self, control: &Control, prepared: Option<&Archive>) -> Result<(), Error> {
        let (caller, reason) = (Caller::system(), "it leaves".to_owned());
        let archive = |purpose| {
            let caller = caller.clone();
            async move {
                let what = ArchiveSettings::default();
                control.archive_tenant(&caller, "acme", purpose, &what, None).await.map(drop)
            }
        };
        match self {
            Self::Onboard(plan) | Self::RollBack(plan) => {
                control.create_tenant(&caller, &request("Acme", plan), None).await.map(drop)
            }
            Self::Repair => {
                let what = RepairTenant::default();
                control.repair(&caller, "acme", &what, None).await.map(drop)
            }
            Self::Rotate => {
                let what = RotateCredentials::default();
                control.rotate_credentials(&caller, "acme", what, None).await.map(drop)
            }
            Self::Export => archive(Purpose::Export).await,
            Self::Backup => archive(Purpose::Backup).await,
            Self::Restore => {
                let what = RestoreTenant { archive: prepared.unwrap().id };
                control.restore(&caller, "acme", what, None).await.map(drop)
            }
            Self::Import => {
                let bytes = Box::pin(std::io::Cursor::new(prepared.unwrap().bytes.clone()));
                control.import(&caller, "acme", bytes, None).await.map(drop)
            }
            Self::Clone => {
                let wish = json!({ "slug": "sandbox", "admin_user": { "email": "dev@example.com" } });
                let wish = serde_json::from_value(wish).unwrap();
                control.clone_tenant(&caller, "acme", wish, None).await.map(drop)
            }
            Self::Offboard => {
                let what = OffboardTenant { reason, hold_days: None };
                control.offboard(&caller, "acme", &what, None).await.map(drop)
            }
            Self::Erase => control.erase(&caller, "acme", &EraseTenant { reason }, None).await.map(drop),
        }
    }

    /// Compares what is left with what an undisturbed operation leaves.
    pub async fn left(self, world: &World, undisturbed: &Scan) -> Result<(), String> {
        let found = world.stores().scan().await;
        // A repair starts finished work again.
        let mut faults = if self == Self::Repair { Vec::new() } else { world.plan.violations() };
        faults.extend(found.orphans);
        if found.tenants.len() != undisturbed.tenants.len() {
            faults.push(format!("{} tenants", found.tenants.len()));
        }
        let pairs = found.tenants.values().zip(undisturbed.tenants.values());
        faults.extend(pairs.flat_map(|(found, undisturbed)| found.faults(undisturbed)));
        if faults.is_empty() { Ok(()) } else { Err(faults.join("\n")) }
    }

    /// State in which an operation of this kind ends.
    pub fn end(self, operation: &OperationView) -> OperationState {
        match self {
            Self::RollBack(_) if operation.parent_id.is_some() => OperationState::Cancelled,
            Self::RollBack(_) => OperationState::RolledBack,
            _ => OperationState::Succeeded,
        }
    }
}

/// Gives the approvals that operations wait for: they belong to the plan, whose first step asks for them.
pub async fn approve(control: &Control) {
    for operation in operations(control).await {
        let asks = |step: &&StepView| step.state == StepState::Waiting && step.approval.is_some();
        if let Some(step) = operation.steps.iter().find(asks) {
            let approve = SignalKind::Approve { step: step.key.clone() };
            control.signal(&Caller::system(), operation.id, approve, None).await.unwrap();
        }
    }
}

async fn operations(control: &Control) -> Vec<OperationView> {
    try_operations(control).await.unwrap()
}

/// All operations, if the registry answers.
pub async fn try_operations(control: &Control) -> Result<Vec<OperationView>, Error> {
    let page = PageQuery::new(Some(100), None).unwrap();
    Ok(control.operations(&Caller::system(), &OperationQuery::default(), &page).await?.data)
}

/// Waits until all operations have ended, without an operator.
pub async fn ends(world: &World, control: &Control) -> Result<(), String> {
    if world.gate.is_some() {
        return real_outage::ends(control).await;
    }
    world.quiet().await;
    match operations(control).await.into_iter().find(|operation| !operation.done) {
        None => Ok(()),
        Some(open) => Err(format!("{} needs a person: {:?} {:?}", open.kind, open.state, open.error)),
    }
}

/// The steps that the operation starts when nothing fails, each once, and what is left of its tenants afterwards.
pub async fn undisturbed(scenario: Scenario) -> Option<(Vec<Started>, Scan)> {
    let world = scenario.world().await?;
    world.plan.set(&world.clock, &[]);
    let process = world.start(Faults::new()).await.unwrap();
    let prepared = scenario.prepare(&world, &process.control).await;
    world.plan.started.lock().clear();
    scenario.begin(&process.control, prepared.as_ref()).await.unwrap();
    approve(&process.control).await;
    ends(&world, &process.control).await.unwrap_or_else(|why| panic!("{scenario:?}: {why}"));
    let started = std::mem::take(&mut *world.plan.started.lock());
    process.control.stop().await;
    let mut seen = BTreeSet::new();
    let backward = matches!(scenario, Scenario::RollBack(_));
    let of_interest = |started: &Started| !backward || !started.2;
    let steps = started.into_iter().filter(of_interest).filter(|started| seen.insert(started.clone()));
    Some((steps.collect(), world.stores().scan().await))
}

/// Runs the operation with an outage from the start of this step on. Returns the number of calls that failed.
async fn survives(
    scenario: Scenario,
    at: &Started,
    providers: Option<How>,
    undisturbed: &Scan,
) -> Result<u32, String> {
    let world = scenario.world().await.ok_or("no server")?;
    world.plan.set(&world.clock, &[]);
    let process = world.start(Faults::new()).await.map_err(|why| why.to_string())?;
    let Process { control, .. } = &process;
    let prepared = scenario.prepare(&world, control).await;
    let outage = Outage { at: at.clone(), providers, until: None, failed: 0 };
    *world.plan.outage.lock() = Some(outage);
    scenario.begin(control, prepared.as_ref()).await.map_err(|why| why.to_string())?;
    approve(control).await;
    let probing = async {
        world.plan.outage_began.notified().await;
        // The background task, at a tenth of its pace, until the outage is over and told.
        loop {
            world.clock.sleep_until(world.clock.now() + Duration::from_secs(20)).await;
            let _busy = world.clock.busy();
            control.probe_providers().await;
            if world.plan.outage_is_over(world.clock.now()) {
                control.probe_providers().await;
                break;
            }
        }
    };
    tokio::select! {
        biased;
        () = probing => {}
        () = world.quiet() => return Err("the outage does not begin".to_owned()),
    }
    ends(&world, control).await?;
    let failed = world.plan.outage.lock().as_ref().map_or(0, |outage| outage.failed);
    for operation in operations(control).await {
        let end = scenario.end(&operation);
        if operation.state != end {
            return Err(format!("{} is {:?}: {:?}", operation.kind, operation.state, operation.error));
        }
        if let Some(step) = operation.steps.iter().find(|step| step.attempts > ATTEMPTS) {
            return Err(format!("{} was attempted {} times", step.key, step.attempts));
        }
    }
    events_are_numbered(&world.registry_url()).await;
    told(control, failed > 0 && providers.is_some()).await?;
    process.control.stop().await;
    scenario.left(&world, undisturbed).await.map(|()| failed)
}

/// Each outage has one event for its beginning and one for its end, and none is left.
pub async fn told(control: &Control, begun: bool) -> Result<(), String> {
    let caller = Caller::system();
    let left = control.system(&caller).map_err(|why| why.to_string())?.outages;
    let all = control.events(&caller, 0, 1_000).await.map_err(|why| why.to_string())?;
    let of = |kind: &str| {
        let named = |event: &&EventView| event.kind == kind;
        let mut names: Vec<String> =
            all.iter().filter(named).map(|event| event.data["provider"].to_string()).collect();
        names.sort();
        names
    };
    let (down, up) = (of("provider.down"), of("provider.up"));
    let once = down.iter().collect::<BTreeSet<_>>().len() == down.len();
    match left.is_empty() && once && down == up && (!begun || !down.is_empty()) {
        true => Ok(()),
        false => Err(format!("told: down {down:?}, up {up:?}, left {left:?}")),
    }
}

/// The ways in which the step with this number fails.
fn ways(number: usize) -> Vec<Option<How>> {
    let all = [Some(How::Retryable), Some(How::UnknownBefore), Some(How::HangBefore), None];
    if full() { all.to_vec() } else { vec![all[number % all.len()]] }
}

/// Runs the operation once for each of its steps and each kind of failure.
async fn waits_in_every_step(scenario: Scenario) {
    assert!(OUTAGE < RETRY_FOR);
    let Some((steps, undisturbed)) = undisturbed(scenario).await else { return };
    let (mut cases, mut struck) = (0, 0);
    for (number, at) in steps.iter().enumerate() {
        for providers in ways(number) {
            let survived = survives(scenario, at, providers, &undisturbed).await;
            let failed = survived.unwrap_or_else(|why| panic!("{scenario:?} {at:?} {providers:?}: {why}"));
            cases += 1;
            struck += u32::from(failed > 0);
        }
    }
    assert!(struck > 0, "none of {cases} outages met a call");
    report::add(&format!("outage: {scenario:?} waited in {cases} cases, {struck} of which met a call"));
}

macro_rules! scenarios {
    ($($name:ident: $scenario:expr,)*) => {
        $(#[tokio::test]
        async fn $name() {
            waits_in_every_step($scenario).await;
        })*
    };
}

scenarios! {
    an_onboarding_waits: Scenario::Onboard("enterprise"),
    an_onboarding_with_waits_and_a_mail_waits: Scenario::Onboard("gated"),
    a_rollback_waits: Scenario::RollBack("enterprise"),
    a_repair_waits: Scenario::Repair,
    a_rotation_waits: Scenario::Rotate,
    an_export_waits: Scenario::Export,
    a_backup_waits: Scenario::Backup,
    a_restore_waits: Scenario::Restore,
    an_import_waits: Scenario::Import,
    a_clone_waits: Scenario::Clone,
    an_offboarding_waits: Scenario::Offboard,
    an_erasure_waits: Scenario::Erase,
}
