//! The plan of a tenant's end: from all that its operations made, or were about to make, to the steps that delete it in
//! the reverse order, look for it, and certify that nothing was found. Nothing of it is ever undone: what fails asks for
//! a person.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tenantry_engine::{Mode, OnFailure, Policy, Run, Step, StepState, Wait};
use tenantry_model::id::ResourceId;
use tenantry_provider::Kind;

use crate::error::{Error, Result};
use crate::planner::{Act, StepInput};
use crate::repair::nearest;
use tenantry_store::entity;

/// Waits until no other operation of the tenant runs.
pub const STAND_DOWN: &str = "stand_down";
/// Waits until what was asked for and not answered cannot appear any more.
pub const SETTLE: &str = "settle";
/// Hands the customer what they are entitled to (S1.34).
pub const EXPORT: &str = "export";
/// Holds everything, so that the customer can think better of it.
pub const HOLD: &str = "hold";
/// Waits until the notice is written or stuck.
const AWAIT_NOTICE: &str = "await_notice";
/// The last backup, proven to be one (S3.47), without which nothing is deleted (T10).
pub const BACKUP: &str = "backup";
/// Asks every provider whether anything is left.
pub const SCAN: &str = "scan";
/// Keeps the archives, and the key that opens them, until their time is over.
pub const KEEP: &str = "keep";
/// Deletes the archives.
pub const DISCARD: &str = "discard_archives";
/// Destroys the tenant's key.
pub const DESTROY_KEY: &str = "destroy_key";
/// Takes out of the registry what it holds in clear.
pub const WIPE: &str = "wipe";
/// Looks through the registry itself.
pub const SCAN_REGISTRY: &str = "scan_registry";
/// Issues the certificate: the tenant is gone.
pub const CERTIFY: &str = "certify";
/// Looks through the registry again when nothing is kept any more.
pub const SCAN_REST: &str = "scan_rest";
/// Issues the final certificate.
pub const CERTIFY_REST: &str = "certify_rest";

/// Steps without which nothing is proven: nobody may leave them out.
pub const VITAL: [&str; 12] = [
    STAND_DOWN,
    SETTLE,
    EXPORT,
    BACKUP,
    SCAN,
    DISCARD,
    DESTROY_KEY,
    WIPE,
    SCAN_REGISTRY,
    CERTIFY,
    SCAN_REST,
    CERTIFY_REST,
];

/// Before the key of a step that deletes.
const REMOVE: &str = "remove_";
/// Longest time of one attempt at an archive: a large tenant's takes its time.
const ARCHIVE_MS: u64 = 6 * 3_600_000;
/// How often a step is tried whose time comes when others are out of its way.
const PATIENCE: u32 = 1_000;

/// A resource that was or may be there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// The step of the operation that deletes it; none if it was deleted before.
    pub step: Option<String>,
    /// What it is.
    pub kind: String,
    /// Who serves it.
    pub provider: String,
    /// Its own particulars.
    pub input: StepInput,
    /// Whether it was made, so that whatever stands under its name is not somebody else's but unknown.
    #[serde(default)]
    pub ours: bool,
}

/// A resource with what says when it can go.
struct Found<'a> {
    resource: ResourceId,
    policy: &'a Policy,
    target: Target,
    /// Resources that it was made from.
    needs: Vec<ResourceId>,
    /// How long a lost call may still make it, in milliseconds.
    in_flight_ms: u64,
}

/// What an offboarding does before anything is deleted.
pub struct Farewell {
    /// Tells the administrators; none if nobody here sends mail.
    pub notice: Option<Step>,
    /// How long everything is held, in seconds.
    pub hold: u64,
    /// How long the archives are kept after the deletion, in seconds.
    pub keep: u64,
}

/// The steps that delete everything that these operations, oldest first, made or were about to make. `recorded` is what
/// the registry says of it.
pub fn erasure(runs: &[Run], recorded: &[entity::resource::Model]) -> Result<Vec<Step>> {
    let found = found(runs, recorded)?;
    let mut plan = Plan::begin(&found)?;
    for this in found.iter().rev() {
        plan.delete(this)?;
    }
    plan.look()?;
    plan.then(&[
        (DISCARD, DISCARD),
        (DESTROY_KEY, DESTROY_KEY),
        (WIPE, WIPE),
        (SCAN_REGISTRY, SCAN_REGISTRY),
    ])?;
    plan.then(&[(CERTIFY, CERTIFY)])?;
    Ok(plan.steps)
}

/// The same after a farewell: until its hold is over, a customer can think better of it and nothing is lost.
pub fn offboarding(
    runs: &[Run],
    recorded: &[entity::resource::Model],
    farewell: Farewell,
) -> Result<Vec<Step>> {
    let mut found = found(runs, recorded)?;
    if let Some(notice) = &farewell.notice {
        found.extend(found_in(notice, &found)?);
    }
    let mut plan = Plan::begin(&found)?;
    plan.then_after_gate(EXPORT)?;
    let mut before_hold = vec![plan.gate.clone()];
    if let Some(notice) = farewell.notice.clone() {
        before_hold.push(notice.key.clone());
        plan.push(notice, vec![plan.gate.clone()]);
    }
    // Nobody pays for the time in which nobody is let in (S1.63).
    let (billing, others): (Vec<&Found<'_>>, Vec<&Found<'_>>) =
        found.iter().partition(|found| found.target.kind == Kind::Billing.as_str());
    for this in billing.into_iter().rev() {
        // At once, whatever was made after it.
        before_hold.extend(plan.delete_after(this, Vec::new())?);
    }
    let policy = Policy { wait: Some(Wait::Timer(farewell.hold)), ..policy() };
    plan.push(Step::new(HOLD, "wait", "tenantry", policy, json!(StepInput::default())), before_hold);
    plan.push(own(AWAIT_NOTICE, STAND_DOWN, json!({ "children": true }))?, vec![HOLD.to_owned()]);
    plan.gate = AWAIT_NOTICE.to_owned();
    plan.then_after_gate(BACKUP)?;
    for this in others.into_iter().rev() {
        plan.delete(this)?;
    }
    plan.look()?;
    plan.then(&[(WIPE, WIPE), (SCAN_REGISTRY, SCAN_REGISTRY), (CERTIFY, CERTIFY)])?;
    let policy = Policy { wait: Some(Wait::Timer(farewell.keep)), ..self::policy() };
    plan.push(
        Step::new(KEEP, "wait", "tenantry", policy, json!(StepInput::default())),
        vec![CERTIFY.to_owned()],
    );
    plan.then(&[(DISCARD, DISCARD), (DESTROY_KEY, DESTROY_KEY), (SCAN_REST, SCAN_REGISTRY)])?;
    plan.then(&[(CERTIFY_REST, CERTIFY)])?;
    Ok(plan.steps)
}

/// Steps in their order.
struct Plan<'a> {
    steps: Vec<Step>,
    found: &'a [Found<'a>],
    /// The step before which nothing is deleted.
    gate: String,
}

impl<'a> Plan<'a> {
    fn begin(found: &'a [Found<'a>]) -> Result<Self> {
        let mut plan = Self { steps: Vec::new(), found, gate: STAND_DOWN.to_owned() };
        plan.push(own(STAND_DOWN, STAND_DOWN, Value::Null)?, Vec::new());
        let in_flight_ms = found.iter().map(|found| found.in_flight_ms).max().unwrap_or(0);
        if in_flight_ms > 0 {
            // What was asked for and not answered may still appear: nothing is deleted before that time is over.
            let policy = Policy { wait: Some(Wait::Timer(in_flight_ms.div_ceil(1_000))), ..policy() };
            let settle = Step::new(SETTLE, "wait", "tenantry", policy, json!(StepInput::default()));
            plan.push(settle, vec![STAND_DOWN.to_owned()]);
            plan.gate = SETTLE.to_owned();
        }
        Ok(plan)
    }

    fn push(&mut self, step: Step, needs: Vec<String>) {
        let position = i32::try_from(self.steps.len()).unwrap_or(i32::MAX);
        self.steps.push(Step { position, needs, ..step });
    }

    /// Deletes a resource after those that were made from it. Answers with the step's key, unless it is deleted already.
    fn delete(&mut self, this: &Found<'_>) -> Result<Option<String>> {
        let made_from_it = self.found.iter().filter(|other| other.needs.contains(&this.resource));
        let needs = made_from_it.filter_map(|other| other.target.step.clone()).collect();
        self.delete_after(this, needs)
    }

    fn delete_after(&mut self, this: &Found<'_>, mut needs: Vec<String>) -> Result<Option<String>> {
        let Some(key) = &this.target.step else { return Ok(None) };
        needs.push(self.gate.clone());
        let Target { kind, provider, input, .. } = &this.target;
        let &Policy { timeout_ms, in_flight_ms, .. } = this.policy;
        let policy = Policy { timeout_ms, in_flight_ms, ..policy() };
        let input = serde_json::to_value(input).map_err(Error::internal)?;
        self.push(Step::new(key, kind, provider, policy, input), needs);
        Ok(Some(key.clone()))
    }

    /// An archive, before which nothing else happens.
    fn then_after_gate(&mut self, archive: &str) -> Result<()> {
        let before = std::mem::replace(&mut self.gate, archive.to_owned());
        self.push(own(archive, archive, json!({}))?, vec![before]);
        Ok(())
    }

    /// Looks for all of it when every other step is done.
    fn look(&mut self) -> Result<()> {
        let targets: Vec<&Target> = self.found.iter().map(|found| &found.target).collect();
        let all = self.steps.iter().map(|step| step.key.clone()).collect();
        self.push(own(SCAN, SCAN, json!(targets))?, all);
        Ok(())
    }

    /// Steps of our own by key and kind, each after the last one of the plan.
    fn then(&mut self, steps: &[(&str, &str)]) -> Result<()> {
        for (key, kind) in steps {
            let last = self.steps.last().map(|step| step.key.clone());
            self.push(own(key, kind, Value::Null)?, last.into_iter().collect());
        }
        Ok(())
    }
}

/// What there was or may be, in the order in which it was made.
fn found<'a>(runs: &'a [Run], recorded: &[entity::resource::Model]) -> Result<Vec<Found<'a>>> {
    let recorded: HashMap<&str, &entity::resource::Model> =
        recorded.iter().map(|row| (row.id.as_str(), row)).collect();
    let mut all: Vec<Found<'a>> = Vec::new();
    // A child's step is its parent's.
    for run in runs.iter().filter(|run| run.operation.parent.is_none()) {
        let mut made: Vec<(&Step, StepInput, ResourceId)> = Vec::new();
        for step in &run.steps {
            let input: StepInput = serde_json::from_value(step.input.clone()).map_err(Error::internal)?;
            if let (Some(resource), Act::Ensure) = (input.resource, input.act) {
                made.push((step, input, resource));
            }
        }
        let keys: BTreeSet<&str> = made.iter().map(|(step, ..)| step.key.as_str()).collect();
        let ids: HashMap<&str, ResourceId> =
            made.iter().map(|(step, _, resource)| (step.key.as_str(), *resource)).collect();
        for (step, input, resource) in made {
            let row = recorded.get(resource.to_string().as_str());
            let state = row.map(|row| row.state.as_str());
            // What is repaired was made before; what was never begun, and never will be, is not there.
            let undone =
                run.operation.state.is_final() && step.state == StepState::Undone && step.note.is_none();
            if let Some(known) = all.iter_mut().find(|found| found.resource == resource) {
                // A repair that was cut off may still bring it back.
                let in_doubt = step.started_at.is_some() && step.state != StepState::Done;
                let in_flight_ms = if in_doubt { step.policy.in_flight_ms } else { 0 };
                known.in_flight_ms = known.in_flight_ms.max(in_flight_ms);
                continue;
            }
            if state.is_none() && undone {
                continue;
            }
            let needs = nearest(run, step, &keys);
            let needs = needs.iter().filter_map(|key| ids.get(key.as_str()).copied()).collect();
            let generation = row.map_or(input.generation, |row| row.generation.max(input.generation));
            let certain = matches!(state, Some("absent" | "present"));
            let in_flight_ms = if certain { 0 } else { step.policy.in_flight_ms };
            let policy = &step.policy;
            let mut target = target(step, StepInput { generation, ..input }, &all);
            if state == Some("absent") {
                target.step = None;
            }
            target.ours = state == Some("present");
            all.push(Found { resource, policy, target, needs, in_flight_ms });
        }
    }
    Ok(all)
}

/// What an offboarding makes itself.
fn found_in<'a>(step: &'a Step, others: &[Found<'a>]) -> Result<Option<Found<'a>>> {
    let input: StepInput = serde_json::from_value(step.input.clone()).map_err(Error::internal)?;
    Ok(input.resource.map(|resource| Found {
        resource,
        policy: &step.policy,
        target: target(step, input, others),
        needs: Vec::new(),
        in_flight_ms: 0,
    }))
}

/// A resource to be deleted. Its step has a key that no other one of the plan has: a tenant that was provisioned again
/// has had more than one of a kind.
fn target(made_by: &Step, mut input: StepInput, others: &[Found<'_>]) -> Target {
    let first = format!("{REMOVE}{}", made_by.key);
    let taken = |key: &String| others.iter().any(|found| found.target.step.as_ref() == Some(key));
    let numbered = (2..).map(|n| format!("{first}.{n}"));
    let key = std::iter::once(first.clone()).chain(numbered).find(|key| !taken(key)).unwrap_or(first);
    input.act = Act::Remove;
    if made_by.kind == Kind::Billing.as_str()
        && let Some(settings) = input.settings.as_object_mut()
    {
        // It has been served until now.
        settings.insert("prorate".to_owned(), json!(true));
    }
    let (kind, provider) = (made_by.kind.clone(), made_by.provider.clone());
    Target { step: Some(key), kind, provider, input, ours: false }
}

/// A step of our own.
fn own(key: &str, kind: &str, settings: Value) -> Result<Step> {
    let input = StepInput { settings, ..StepInput::default() };
    let input = serde_json::to_value(input).map_err(Error::internal)?;
    let policy = match kind {
        // Others get out of the way in their own time: another operation, another certificate.
        STAND_DOWN | CERTIFY => {
            Policy { max_retries: PATIENCE, backoff_ms: 100, backoff_cap_ms: 1_000, ..policy() }
        }
        EXPORT | BACKUP => Policy { timeout_ms: ARCHIVE_MS, ..policy() },
        _ => policy(),
    };
    Ok(Step::new(key, kind, "tenantry", policy, input))
}

fn policy() -> Policy {
    Policy { on_failure: OnFailure::Park, mode: Mode::Inline, max_retries: 5, ..Policy::default() }
}
