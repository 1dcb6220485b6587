//! Plans of offboarding and erasure: from all resources that the tenant's operations created, or were about to create, to the
//! steps that delete them in reverse order, look for them, and certify the deletion. A failed step asks for an operator.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tenantry_engine::{Mode, Policy, Run, Step, StepState, Wait};
use tenantry_model::id::ResourceId;
use tenantry_provider::Kind;

use super::Offboard;
use crate::error::{Error, Result};
use crate::ledger::{Act, StepInput};
use crate::operations::archive::TIMEOUT_MS;
use crate::operations::repair::nearest;
use crate::operations::{Operation as _, TENANTRY};
use tenantry_store::entity;

/// Waits until no other operation of the tenant runs.
pub const STAND_DOWN: &str = "stand_down";
/// Waits until provider calls without an answer cannot create anything any more.
pub const SETTLE: &str = "settle";
/// Writes the export that the customer is entitled to.
pub const EXPORT: &str = "export";
/// Holds everything, so that the customer can come back.
pub const HOLD: &str = "hold";
/// Waits until the notice is sent, or stuck.
const AWAIT_NOTICE: &str = "await_notice";
/// Writes the last backup, without which nothing is deleted.
pub const BACKUP: &str = "backup";
/// Asks every provider whether anything is left.
pub const SCAN: &str = "scan";
/// Keeps the archives, and the key that opens them, until they expire.
pub const KEEP: &str = "keep";
/// Deletes the archives.
pub const DISCARD: &str = "discard_archives";
/// Destroys the tenant's key.
pub const DESTROY_KEY: &str = "destroy_key";
/// Anonymises the registry's rows.
pub const WIPE: &str = "wipe";
/// Looks through the registry itself.
pub const SCAN_REGISTRY: &str = "scan_registry";
/// Issues the certificate; the tenant is `deprovisioned`.
pub const CERTIFY: &str = "certify";
/// Looks through the registry again after the archives are deleted.
pub const SCAN_REST: &str = "scan_rest";
/// Issues the final certificate.
pub const CERTIFY_REST: &str = "certify_rest";

/// Keys of steps without which the deletion is not proven. A client may not skip them.
const REQUIRED: [&str; 12] = [
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

/// Whether a client may skip a step of a deletion. Some keys name waits and repeated actions, so the key decides.
pub fn may_skip(step: &Step) -> std::result::Result<(), &'static str> {
    match REQUIRED.contains(&step.key.as_str()) {
        true => Err("the deletion cannot be certified without this step"),
        false => Ok(()),
    }
}

/// Prefix of the keys of steps that delete a resource.
const REMOVE: &str = "remove_";
/// Timeout of the steps that remove copies of deleted rows, each of which reads whole files of any size, in milliseconds.
const PURGE_TIMEOUT_MS: u64 = 1_800_000;

/// A resource that exists, or may exist.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// Key of the step that deletes it; none if it was deleted before.
    pub step: Option<String>,
    /// Resource kind.
    pub kind: String,
    /// Provider.
    pub provider: String,
    /// Input of the step that created it.
    pub input: StepInput,
    /// Whether it was created for sure. Then a resource of its name with another owner tag counts as not deleted.
    #[serde(default)]
    pub ours: bool,
}

/// A resource that is to be deleted, and what decides its place in the plan.
struct Removable<'a> {
    resource: ResourceId,
    policy: &'a Policy,
    target: Target,
    /// Resources that it was created from.
    needs: Vec<ResourceId>,
    /// Time for which a call without a response may still create the resource, in milliseconds.
    in_flight_ms: u64,
}

/// The waiting period of an offboarding, which an erasure does not have.
pub struct Hold {
    /// Step that mails the administrators; none without a mail provider.
    pub notice: Option<Step>,
    /// Time before the deletion starts, in seconds.
    pub hold: u64,
    /// Time for which archives are kept after the deletion, in seconds.
    pub keep: u64,
}

/// Plans an erasure, which deletes all resources of these operations. `runs` are the operations, oldest first, and
/// `recorded` the rows of their resources in the registry.
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

/// The plan of an offboarding: the same after a hold. Until the hold is over, the customer can come back.
pub fn offboarding(runs: &[Run], recorded: &[entity::resource::Model], with: Hold) -> Result<Vec<Step>> {
    let mut found = found(runs, recorded)?;
    if let Some(notice) = &with.notice {
        found.extend(found_in(notice, &found)?);
    }
    let mut plan = Plan::begin(&found)?;
    plan.then_after_gate(EXPORT)?;
    let mut before_hold = vec![plan.gate.clone()];
    if let Some(notice) = with.notice.clone() {
        before_hold.push(notice.key.clone());
        plan.push(notice, vec![plan.gate.clone()]);
    }
    // The customer does not pay for the hold, in which the tenant has no access.
    let (billing, others): (Vec<&Removable<'_>>, Vec<&Removable<'_>>) =
        found.iter().partition(|found| found.target.kind == Kind::Billing.as_str());
    for this in billing.into_iter().rev() {
        // At once, without waiting for resources that were created from it.
        before_hold.extend(plan.delete_after(this, Vec::new())?);
    }
    let policy = Policy { wait: Some(Wait::Timer(with.hold)), ..policy() };
    plan.push(Step::new(HOLD, "wait", TENANTRY, policy, json!(StepInput::default())), before_hold);
    plan.push(own(AWAIT_NOTICE, STAND_DOWN, json!({ "children": true }))?, vec![HOLD.to_owned()]);
    plan.gate = AWAIT_NOTICE.to_owned();
    plan.then_after_gate(BACKUP)?;
    for this in others.into_iter().rev() {
        plan.delete(this)?;
    }
    plan.look()?;
    plan.then(&[(WIPE, WIPE), (SCAN_REGISTRY, SCAN_REGISTRY), (CERTIFY, CERTIFY)])?;
    let policy = Policy { wait: Some(Wait::Timer(with.keep)), ..self::policy() };
    plan.push(
        Step::new(KEEP, "wait", TENANTRY, policy, json!(StepInput::default())),
        vec![CERTIFY.to_owned()],
    );
    plan.then(&[(DISCARD, DISCARD), (DESTROY_KEY, DESTROY_KEY), (SCAN_REST, SCAN_REGISTRY)])?;
    plan.then(&[(CERTIFY_REST, CERTIFY)])?;
    Ok(plan.steps)
}

/// A plan that grows.
struct Plan<'a> {
    steps: Vec<Step>,
    found: &'a [Removable<'a>],
    /// Key of the step before which nothing is deleted.
    gate: String,
}

impl<'a> Plan<'a> {
    fn begin(found: &'a [Removable<'a>]) -> Result<Self> {
        let mut plan = Self { steps: Vec::new(), found, gate: STAND_DOWN.to_owned() };
        plan.push(own(STAND_DOWN, STAND_DOWN, Value::Null)?, Vec::new());
        let in_flight_ms = found.iter().map(|found| found.in_flight_ms).max().unwrap_or(0);
        if in_flight_ms > 0 {
            // A call without an answer may still create something: nothing is deleted before that time is over.
            let policy = Policy { wait: Some(Wait::Timer(in_flight_ms.div_ceil(1_000))), ..policy() };
            let settle = Step::new(SETTLE, "wait", TENANTRY, policy, json!(StepInput::default()));
            plan.push(settle, vec![STAND_DOWN.to_owned()]);
            plan.gate = SETTLE.to_owned();
        }
        Ok(plan)
    }

    fn push(&mut self, step: Step, needs: Vec<String>) {
        let position = i32::try_from(self.steps.len()).unwrap_or(i32::MAX);
        self.steps.push(Step { position, needs, ..step });
    }

    /// Deletes a resource after those that were created from it. Returns the step's key, unless the resource is deleted already.
    fn delete(&mut self, this: &Removable<'_>) -> Result<Option<String>> {
        let made_from_it = self.found.iter().filter(|other| other.needs.contains(&this.resource));
        let needs = made_from_it.filter_map(|other| other.target.step.clone()).collect();
        self.delete_after(this, needs)
    }

    fn delete_after(&mut self, this: &Removable<'_>, mut needs: Vec<String>) -> Result<Option<String>> {
        let Some(key) = &this.target.step else { return Ok(None) };
        needs.push(self.gate.clone());
        let Target { kind, provider, input, .. } = &this.target;
        let &Policy { timeout_ms, in_flight_ms, .. } = this.policy;
        let policy = Policy { timeout_ms, in_flight_ms, ..policy() };
        let input = serde_json::to_value(input).map_err(Error::internal)?;
        self.push(Step::new(key, kind, provider, policy, input), needs);
        Ok(Some(key.clone()))
    }

    /// Adds an archive, and makes all later steps wait for it.
    fn then_after_gate(&mut self, archive: &str) -> Result<()> {
        let before = std::mem::replace(&mut self.gate, archive.to_owned());
        self.push(own(archive, archive, json!({}))?, vec![before]);
        Ok(())
    }

    /// Looks for every resource when all steps before are done.
    fn look(&mut self) -> Result<()> {
        let targets: Vec<&Target> = self.found.iter().map(|found| &found.target).collect();
        let all = self.steps.iter().map(|step| step.key.clone()).collect();
        self.push(own(SCAN, SCAN, json!(targets))?, all);
        Ok(())
    }

    /// Adds actions by key and kind, each after the last step of the plan.
    fn then(&mut self, steps: &[(&str, &str)]) -> Result<()> {
        for (key, kind) in steps {
            let last = self.steps.last().map(|step| step.key.clone());
            self.push(own(key, kind, Value::Null)?, last.into_iter().collect());
        }
        Ok(())
    }
}

/// Resources of these operations, in the order of their creation.
fn found<'a>(runs: &'a [Run], recorded: &[entity::resource::Model]) -> Result<Vec<Removable<'a>>> {
    let recorded: HashMap<&str, &entity::resource::Model> =
        recorded.iter().map(|row| (row.id.as_str(), row)).collect();
    let mut all: Vec<Removable<'a>> = Vec::new();
    // A parent's plan has its children's steps.
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
            // A repaired resource was created before; one whose step never began does not exist.
            let undone =
                run.operation.state.is_final() && step.state == StepState::Undone && step.note.is_none();
            if let Some(known) = all.iter_mut().find(|found| found.resource == resource) {
                // An interrupted repair may still create it again.
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
            all.push(Removable { resource, policy, target, needs, in_flight_ms });
        }
    }
    Ok(all)
}

/// The resource that a step of the offboarding itself creates.
fn found_in<'a>(step: &'a Step, others: &[Removable<'a>]) -> Result<Option<Removable<'a>>> {
    let input: StepInput = serde_json::from_value(step.input.clone()).map_err(Error::internal)?;
    Ok(input.resource.map(|resource| Removable {
        resource,
        policy: &step.policy,
        target: target(step, input, others),
        needs: Vec::new(),
        in_flight_ms: 0,
    }))
}

/// The target of a resource, with a step key that is unique in the plan: a tenant that was provisioned again has several
/// resources of one step.
fn target(made_by: &Step, mut input: StepInput, others: &[Removable<'_>]) -> Target {
    let first = format!("{REMOVE}{}", made_by.key);
    let taken = |key: &String| others.iter().any(|found| found.target.step.as_ref() == Some(key));
    let numbered = (2..).map(|n| format!("{first}.{n}"));
    let key = std::iter::once(first.clone()).chain(numbered).find(|key| !taken(key)).unwrap_or(first);
    input.act = Act::Remove;
    if made_by.kind == Kind::Billing.as_str()
        && let Some(settings) = input.settings.as_object_mut()
    {
        // The customer is billed until now.
        settings.insert("prorate".to_owned(), json!(true));
    }
    let (kind, provider) = (made_by.kind.clone(), made_by.provider.clone());
    Target { step: Some(key), kind, provider, input, ours: false }
}

/// A step of an action of Tenantry's own.
fn own(key: &str, kind: &str, settings: Value) -> Result<Step> {
    let input = StepInput { settings, ..StepInput::default() };
    let input = serde_json::to_value(input).map_err(Error::internal)?;
    let policy = match kind {
        // These wait for another operation, or for another certificate, however long the executor waits for what is down.
        STAND_DOWN | CERTIFY => {
            Policy { backoff_ms: 100, backoff_cap_ms: 1_000, retry_for_ms: Some(86_400_000), ..policy() }
        }
        EXPORT | BACKUP => Policy { timeout_ms: TIMEOUT_MS, ..policy() },
        SCAN | SCAN_REGISTRY | DESTROY_KEY => Policy { timeout_ms: PURGE_TIMEOUT_MS, ..policy() },
        _ => policy(),
    };
    Ok(Step::new(key, kind, TENANTRY, policy, input))
}

fn policy() -> Policy {
    Offboard.policy(Policy { mode: Mode::Inline, max_retries: 5, ..Policy::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Another operation that takes its time is no outage.
    #[test]
    fn waits_for_other_operations_have_a_time_of_their_own() {
        let steps = erasure(&[], &[]).unwrap();
        let waits: Vec<_> = steps.iter().filter(|step| step.policy.retry_for_ms.is_some()).collect();
        assert_eq!(waits.iter().map(|step| &*step.key).collect::<Vec<_>>(), [STAND_DOWN, CERTIFY]);
    }
}
