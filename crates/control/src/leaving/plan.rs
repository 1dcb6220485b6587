//! The plan of a tenant's end: from all that its operations made, or were about to make, to the steps that delete it in
//! the reverse order, look for it, and certify that nothing was found. Nothing of it is ever undone: what fails asks for
//! a person.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tenantry_engine::{Mode, OnFailure, Policy, Run, Step, StepState, Wait};
use tenantry_model::id::ResourceId;

use crate::error::{Error, Result};
use crate::planner::{Act, StepInput};
use crate::repair::nearest;
use crate::store::entity;

/// Waits until no other operation of the tenant runs.
pub const STAND_DOWN: &str = "stand_down";
/// Asks every provider whether anything is left.
pub const SCAN: &str = "scan";
/// Destroys the tenant's key.
pub const DESTROY_KEY: &str = "destroy_key";
/// Takes out of the registry what it holds in clear.
pub const WIPE: &str = "wipe";
/// Looks through the registry itself.
pub const SCAN_REGISTRY: &str = "scan_registry";
/// Issues the certificate: the tenant is gone.
pub const CERTIFY: &str = "certify";

/// Steps without which nothing is proven: nobody may leave them out.
pub const VITAL: [&str; 6] = [STAND_DOWN, SCAN, DESTROY_KEY, WIPE, SCAN_REGISTRY, CERTIFY];

/// Before the key of a step that deletes.
const REMOVE: &str = "remove_";
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
}

/// A resource with what says when it can go.
struct Found<'a> {
    resource: ResourceId,
    made_by: &'a Step,
    target: Target,
    /// Resources that it was made from.
    needs: Vec<ResourceId>,
    /// How long a lost call may still make it, in milliseconds.
    in_flight_ms: u64,
}

/// The steps that delete everything that these operations, oldest first, made or were about to make. `recorded` is what
/// the registry says of it.
pub fn deletion(runs: &[Run], recorded: &[entity::resource::Model]) -> Result<Vec<Step>> {
    let states: HashMap<&str, &str> =
        recorded.iter().map(|row| (row.id.as_str(), row.state.as_str())).collect();
    let found = found(runs, &states)?;
    let mut steps = vec![own(STAND_DOWN, &[], Value::Null)?];
    let in_flight_ms = found.iter().map(|found| found.in_flight_ms).max().unwrap_or(0);
    let mut first = STAND_DOWN;
    if in_flight_ms > 0 {
        // What was asked for and not answered may still appear: nothing is deleted before that time is over.
        first = "settle";
        let policy = Policy { wait: Some(Wait::Timer(in_flight_ms.div_ceil(1_000))), ..policy() };
        let input = json!(StepInput::default());
        let settle = Step::new(first, "wait", "tenantry", policy, input);
        steps.push(Step { needs: vec![STAND_DOWN.to_owned()], ..settle });
    }
    for this in found.iter().rev() {
        let Some(key) = &this.target.step else { continue };
        let made_from_it = found.iter().filter(|other| other.needs.contains(&this.resource));
        let mut needs: Vec<String> = made_from_it.filter_map(|other| other.target.step.clone()).collect();
        needs.push(first.to_owned());
        let Target { kind, provider, input, .. } = &this.target;
        let made_by = &this.made_by.policy;
        let policy =
            Policy { timeout_ms: made_by.timeout_ms, in_flight_ms: made_by.in_flight_ms, ..policy() };
        let input = serde_json::to_value(input).map_err(Error::internal)?;
        steps.push(Step { needs, ..Step::new(key, kind, provider, policy, input) });
    }
    let targets: Vec<&Target> = found.iter().map(|found| &found.target).collect();
    let all: Vec<String> = steps.iter().map(|step| step.key.clone()).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    steps.push(own(SCAN, &all, json!(targets))?);
    for (key, before) in
        [(DESTROY_KEY, SCAN), (WIPE, DESTROY_KEY), (SCAN_REGISTRY, WIPE), (CERTIFY, SCAN_REGISTRY)]
    {
        steps.push(own(key, &[before], Value::Null)?);
    }
    for (position, step) in (0..).zip(&mut steps) {
        step.position = position;
    }
    Ok(steps)
}

/// What there was or may be, in the order in which it was made.
fn found<'a>(runs: &'a [Run], states: &HashMap<&str, &str>) -> Result<Vec<Found<'a>>> {
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
            let state = states.get(resource.to_string().as_str()).copied();
            // What is repaired was made before; what was never begun, and never will be, is not there.
            let undone =
                run.operation.state.is_final() && step.state == StepState::Undone && step.note.is_none();
            if all.iter().any(|found| found.resource == resource) || state.is_none() && undone {
                continue;
            }
            let needs = nearest(run, step, &keys);
            let needs = needs.iter().filter_map(|key| ids.get(key.as_str()).copied()).collect();
            let gone = state == Some("absent");
            let certain = gone || state == Some("present");
            let target = Target {
                step: (!gone).then(|| removal(&step.key, &all)),
                kind: step.kind.clone(),
                provider: step.provider.clone(),
                input: StepInput { act: Act::Remove, ..input },
            };
            let in_flight_ms = if certain { 0 } else { step.policy.in_flight_ms };
            all.push(Found { resource, made_by: step, target, needs, in_flight_ms });
        }
    }
    Ok(all)
}

/// A key that no other step of the plan has: a tenant that was provisioned again has had more than one of a kind.
fn removal(key: &str, others: &[Found<'_>]) -> String {
    let first = format!("{REMOVE}{key}");
    let taken = |key: &String| others.iter().any(|found| found.target.step.as_ref() == Some(key));
    let numbered = (2..).map(|n| format!("{first}.{n}"));
    std::iter::once(first.clone()).chain(numbered).find(|key| !taken(key)).unwrap_or(first)
}

/// A step of our own.
fn own(key: &str, needs: &[&str], settings: Value) -> Result<Step> {
    let input =
        serde_json::to_value(StepInput { settings, ..StepInput::default() }).map_err(Error::internal)?;
    let policy = match key {
        // Others get out of the way in their own time: another operation, another certificate.
        STAND_DOWN | CERTIFY => {
            Policy { max_retries: PATIENCE, backoff_ms: 100, backoff_cap_ms: 1_000, ..policy() }
        }
        _ => policy(),
    };
    let needs = needs.iter().map(|need| (*need).to_owned()).collect();
    Ok(Step { needs, ..Step::new(key, key, "tenantry", policy, input) })
}

fn policy() -> Policy {
    Policy { on_failure: OnFailure::Park, mode: Mode::Inline, max_retries: 5, ..Policy::default() }
}
