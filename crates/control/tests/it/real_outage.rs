//! Outages of PostgreSQL for 20 seconds of the machine's time: from the start of a step on, connections are cut and new ones
//! refused. The operation waits, and ends by itself as if nothing had happened.
//!
//! A printed seed draws the operations and steps of a plain run, whose outages are at the same time, and whether the
//! registry is on the server too; `cargo xtask test --full` runs every step.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{StreamExt as _, stream};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use tenantry_control::{Caller, Control, Error, ErrorKind};
use tenantry_engine::OperationState;
use tenantry_engine::retry::RETRY_FOR;
use tenantry_model::Timestamp;
use tenantry_testkit::crash_ledger::Faults;
use tenantry_testkit::gate::Gate;
use tenantry_testkit::scan::Scan;
use tenantry_testkit::{report, seed};
use tokio::sync::Notify;

use crate::crash::full;
use crate::faulty::Started;
use crate::outage::{Archive, Scenario, told, try_operations};
use crate::world::{Process, World};

const OUTAGE: Duration = Duration::from_secs(20);
/// Longest time for an operation, sufficient on a busy machine.
const LONG: Duration = Duration::from_secs(240);
/// Pause between two looks at the operations.
const PAUSE: Duration = Duration::from_millis(100);
/// Pause between two runs of the background task that probes providers.
const PROBES: Duration = Duration::from_secs(2);
/// Steps of a plain run, and outages at the same time.
const DRAWN: usize = 5;

/// Fewer bytes than a call of PostgreSQL passes, and more than the ends of idle sessions do.
const A_CALL: u64 = 100;

/// All but the onboarding with a hold and the offboarding, which wait for days.
const SCENARIOS: [Scenario; 10] = [
    Scenario::Onboard("growth"),
    Scenario::RollBack("growth"),
    Scenario::Repair,
    Scenario::Rotate,
    Scenario::Export,
    Scenario::Backup,
    Scenario::Restore,
    Scenario::Import,
    Scenario::Clone,
    Scenario::Erase,
];

/// Waits until all operations have ended, without an operator, whether the registry answers or not.
pub async fn ends(control: &Control) -> Result<(), String> {
    let started = Instant::now();
    loop {
        if let Ok(all) = try_operations(control).await {
            if let Some(parked) = all.iter().find(|one| one.state == OperationState::NeedsAttention) {
                return Err(format!("{} needs a person: {parked:?}", parked.kind));
            }
            match all.iter().find(|operation| !operation.done) {
                None => return Ok(()),
                Some(open) if started.elapsed() > LONG => return Err(format!("never ends: {open:?}")),
                Some(_) => {}
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// A process that leads, in a world with what the operation needs.
struct Stage {
    world: World,
    gate: Arc<Gate>,
    process: Process,
    prepared: Option<Archive>,
}

impl Stage {
    /// None without PostgreSQL. `registry`: the registry is on it too.
    async fn new(scenario: Scenario, registry: bool) -> Option<Self> {
        let mut world = World::behind_a_gate(registry).await?;
        world.retry_for = RETRY_FOR;
        world.plan.set(&world.clock, &[]);
        let gate = world.gate.clone()?;
        let process = world.start(Faults::new()).await.expect("a process");
        let mut runs = process.control.runs();
        runs.wait_for(|runs| *runs).await.expect("it leads");
        let prepared = scenario.prepare(&world, &process.control).await;
        Some(Self { world, gate, process, prepared })
    }

    /// Begins the operation. `at_start` is called with each step that starts, before its attempt.
    async fn begin(
        &self,
        scenario: Scenario,
        at_start: impl FnMut(&Started) + Send + 'static,
    ) -> Result<(), Error> {
        *self.world.plan.at_start.lock() = Some(Box::new(at_start));
        scenario.begin(&self.process.control, self.prepared.as_ref()).await
    }

    /// Stops the process, and returns what is left.
    async fn end(self) -> World {
        self.process.control.stop().await;
        self.world
    }
}

/// The steps from whose start on an undisturbed operation calls PostgreSQL, each once, and what it leaves.
async fn undisturbed(scenario: Scenario, registry: bool) -> Option<(Vec<Started>, Scan)> {
    let stage = Stage::new(scenario, registry).await?;
    let passed = Arc::new(Mutex::new(Vec::new()));
    let (at, gate) = (passed.clone(), stage.gate.clone());
    stage.begin(scenario, move |step| at.lock().push((step.clone(), gate.passed()))).await.unwrap();
    ends(&stage.process.control).await.unwrap_or_else(|why| panic!("{scenario:?}: {why}"));
    let total = stage.gate.passed();
    let world = stage.end().await;
    let backward = matches!(scenario, Scenario::RollBack(_));
    let mut steps = Vec::new();
    for (step, passed) in std::mem::take(&mut *passed.lock()) {
        if passed + A_CALL < total && !(backward && step.2) && !steps.contains(&step) {
            steps.push(step);
        }
    }
    Some((steps, world.stores().scan().await))
}

/// Runs the operation with an outage from the start of the step on.
async fn waits(scenario: Scenario, at: &Started, registry: bool, undisturbed: &Scan) -> Result<(), String> {
    let stage = Stage::new(scenario, registry).await.ok_or("no server")?;
    let began = Arc::new(Notify::new());
    let (step, gate, notify) = (at.clone(), stage.gate.clone(), began.clone());
    let mut first = true;
    let close = move |started: &Started| {
        if *started == step && std::mem::take(&mut first) {
            gate.close();
            notify.notify_one();
        }
    };
    match stage.begin(scenario, close).await {
        // The operation began, and the answer could not be read.
        Err(why) if !registry || why.kind() != ErrorKind::Unavailable => return Err(why.to_string()),
        _ => {}
    }
    let control = &stage.process.control;
    let probes = async {
        loop {
            tokio::time::sleep(PROBES).await;
            control.probe_providers().await;
        }
    };
    let outage = async {
        let began = tokio::time::timeout(LONG, began.notified()).await;
        began.map_err(|_| "the outage does not begin")?;
        tokio::time::sleep(OUTAGE).await;
        // A process that does not lead, because it does not reach the registry, knows of no outage.
        if !registry {
            known(control).await?;
        }
        let over = Timestamp::now();
        stage.gate.open();
        ends(control).await?;
        let all = try_operations(control).await.map_err(|why| why.to_string())?;
        if let Some(wrong) = all.iter().find(|operation| operation.state != scenario.end(operation)) {
            return Err(format!("{} is {:?}: {:?}", wrong.kind, wrong.state, wrong.error));
        }
        if !all.iter().any(|operation| operation.finished_at > Some(over)) {
            return Err("no operation waited for the end of the outage".to_owned());
        }
        // Each change of the leader may report it anew.
        match registry {
            true => Ok(()),
            false => told_in_time(control).await,
        }
    };
    tokio::select! {
        () = probes => {}
        ended = outage => ended?,
    }
    scenario.left(&stage.end().await, undisturbed).await
}

/// Waits until a call of the operation, and a probe after it, have met the outage.
async fn known(control: &Control) -> Result<(), String> {
    let started = Instant::now();
    loop {
        let outages = control.system(&Caller::system()).map_err(|why| why.to_string())?.outages;
        if let Some(outage) = outages.first() {
            return match &*outage.code {
                "unreachable" => Ok(()),
                _ => Err(format!("the outage is told as {outages:?}")),
            };
        }
        if started.elapsed() > LONG {
            return Err(format!("no call meets the outage: {:?}", try_operations(control).await));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Waits until the end of each outage is told.
async fn told_in_time(control: &Control) -> Result<(), String> {
    let started = Instant::now();
    loop {
        match told(control, true).await {
            Err(_) if started.elapsed() < LONG => tokio::time::sleep(PAUSE).await,
            told => return told,
        }
    }
}

/// Has the operation meet an outage in one of its steps, or in each. Returns their number.
async fn case(scenario: Scenario, registry: bool, mut random: StdRng) -> usize {
    let (mut steps, undisturbed) = undisturbed(scenario, registry).await.expect("a server");
    if !full() {
        steps = steps.sample(&mut random, 1).cloned().collect();
    }
    for at in &steps {
        let waited = waits(scenario, at, registry, &undisturbed).await;
        waited.unwrap_or_else(|why| panic!("{scenario:?} at {at:?}, registry: {registry}: {why}"));
    }
    assert!(!steps.is_empty(), "{scenario:?} calls PostgreSQL");
    steps.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_wait_for_postgresql() {
    if tenantry_testkit::database::admin().is_none() {
        return;
    }
    let (_, mut random) = seed::generator("outage of PostgreSQL");
    let number = if full() { SCENARIOS.len() } else { DRAWN };
    let drawn: Vec<Scenario> = SCENARIOS.sample(&mut random, number).copied().collect();
    let cases: Vec<_> = drawn
        .into_iter()
        .map(|scenario| case(scenario, random.random(), StdRng::seed_from_u64(random.random())))
        .collect();
    let met: Vec<usize> = stream::iter(cases).buffer_unordered(DRAWN).collect().await;
    report::add(&format!("outage: {} steps met 20 s without PostgreSQL", met.iter().sum::<usize>()));
}
