//! The contract notices: a small provider that keeps it, and the same provider with one fault at a time. A suite that
//! never fails proves nothing.

use std::collections::BTreeMap;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tenantry_model::{Failure, columns};
use tenantry_provider::{Context, Ensured, Fault as Complaint, Kind, Observed, Provider, Removed, Spec};

use crate::contract::{Environment, Violation, violations};
use crate::world::World;

/// What can be wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    AdoptsForeign,
    SkipsOnExistence,
    LeaksEmail,
    LeaksInFailure,
    LeaksInRows,
    RemovesEverything,
    RemovesForeign,
    MakesAnother,
    ChangesOutputs,
    FailsWhenAbsent,
    StaysHalfWhenDropped,
    LosesTheRace,
    SeesWhatIsNotThere,
    LooksWithSideEffects,
    SaysYesToEverything,
    TakesAnySetting,
}

#[derive(Clone, Debug)]
struct Thing {
    claim: String,
    complete: bool,
    busy: bool,
}

/// Things in memory, by name.
struct Toy {
    fault: Fault,
    usable: bool,
    things: Mutex<BTreeMap<String, Thing>>,
    looks: Mutex<usize>,
}

impl Toy {
    fn new(fault: Fault) -> Self {
        Self { fault, usable: true, things: Mutex::default(), looks: Mutex::default() }
    }

    fn is(&self, fault: Fault) -> bool {
        self.fault == fault
    }
}

#[async_trait]
impl Provider for Toy {
    fn name(&self) -> &str {
        "toy"
    }
    fn kind(&self) -> Kind {
        Kind::Custom
    }
    fn settings_schema(&self) -> Value {
        json!({ "type": "object", "additionalProperties": false })
    }
    fn check(&self, settings: &Value) -> Vec<Complaint> {
        let unknown = settings.as_object().and_then(|map| map.keys().next());
        let complaint = |key: &String| Complaint { path: key.clone(), message: "unknown".to_owned() };
        unknown.filter(|_| !self.is(Fault::TakesAnySetting)).map(complaint).into_iter().collect()
    }

    async fn ensure(&self, _: &Context, spec: &Spec) -> Result<Ensured, Failure> {
        let found = self.things.lock().get(&spec.name).cloned();
        tokio::task::yield_now().await;
        let foreign = found.as_ref().is_some_and(|thing| thing.claim != spec.claim);
        if foreign && !self.is(Fault::AdoptsForeign) {
            let who = if self.is(Fault::LeaksInFailure) { &spec.tenant.admin.email } else { "somebody else" };
            return Err(Failure::fatal("name_taken", format!("{who} has it")));
        }
        if self.is(Fault::StaysHalfWhenDropped) && found.as_ref().is_some_and(|thing| thing.busy) {
            return Err(Failure::retryable("busy", "another attempt is at work"));
        }
        if self.is(Fault::LosesTheRace) && found.is_none() && self.things.lock().contains_key(&spec.name) {
            return Err(Failure::fatal("exists", "it has just appeared"));
        }
        if self.is(Fault::MakesAnother) && found.is_some() {
            let another = Thing { claim: spec.claim.clone(), complete: true, busy: false };
            self.things.lock().insert(format!("{} again", spec.name), another);
        }
        let half = Thing { claim: spec.claim.clone(), complete: false, busy: true };
        self.things.lock().entry(spec.name.clone()).or_insert(half);
        tokio::task::yield_now().await;
        if !(self.is(Fault::SkipsOnExistence) && found.is_some()) {
            let whole = Thing { claim: spec.claim.clone(), complete: true, busy: false };
            self.things.lock().insert(spec.name.clone(), whole);
        }
        tokio::task::yield_now().await;
        let mut outputs = json!({ "name": spec.name });
        if self.is(Fault::LeaksEmail) {
            outputs = json!({ "admin": spec.tenant.admin.email });
        }
        if self.is(Fault::ChangesOutputs) {
            outputs = json!({ "at": rand::random::<u64>() });
        }
        let mut writes = Vec::new();
        if self.is(Fault::LeaksInRows) {
            writes.push(tenantry_model::Write::upsert(
                "customers",
                columns! {
                "id": spec.resource, "tenant_id": spec.tenant.id, "resource_id": spec.resource,
                "sealed": spec.tenant.name, "currency": "EUR", "created_at": "now" },
            ));
        }
        Ok(Ensured { outputs, writes })
    }

    async fn observe(&self, _: &Context, spec: &Spec) -> Result<Observed, Failure> {
        if self.is(Fault::LooksWithSideEffects) {
            *self.looks.lock() += 1;
        }
        let things = self.things.lock();
        let present = |healthy| Observed::present(healthy, None, "same".to_owned());
        Ok(match things.get(&spec.name) {
            None if self.is(Fault::SeesWhatIsNotThere) => present(true),
            None => Observed::Absent,
            Some(thing) if thing.claim != spec.claim => Observed::Foreign,
            Some(thing) => present(thing.complete),
        })
    }

    async fn remove(&self, _: &Context, spec: &Spec) -> Result<Removed, Failure> {
        tokio::task::yield_now().await;
        let mut things = self.things.lock();
        if self.is(Fault::FailsWhenAbsent) && !things.contains_key(&spec.name) {
            return Err(Failure::fatal("not_found", "there is nothing to remove"));
        }
        let before = things.len();
        if self.is(Fault::RemovesEverything) {
            let ours = things.get(&spec.name).is_none_or(|thing| thing.claim == spec.claim);
            things.retain(|_, thing| !ours || thing.claim == "somebody else");
        } else {
            let any = self.is(Fault::RemovesForeign);
            things.retain(|name, thing| *name != spec.name || (thing.claim != spec.claim && !any));
        }
        Ok(Removed { receipt: json!({ "things": before - things.len() }), writes: Vec::new() })
    }

    async fn probe(&self) -> Result<(), Failure> {
        if self.usable || self.is(Fault::SaysYesToEverything) {
            return Ok(());
        }
        Err(Failure::retryable("unusable", "nothing works here"))
    }
}

struct Playroom {
    toy: Toy,
    world: World,
}

#[async_trait]
impl Environment for Playroom {
    fn provider(&self) -> &dyn Provider {
        &self.toy
    }
    fn world(&self) -> &World {
        &self.world
    }
    fn settings(&self) -> Value {
        json!({})
    }
    async fn count(&self, spec: &Spec) -> usize {
        self.toy.things.lock().keys().filter(|name| name.starts_with(&spec.name)).count()
    }
    async fn snapshot(&self) -> String {
        format!("{:?} {}", self.toy.things.lock(), self.toy.looks.lock())
    }
    async fn plant_foreign(&self, spec: &Spec) {
        let thing = Thing { claim: "somebody else".to_owned(), complete: true, busy: false };
        self.toy.things.lock().insert(spec.name.clone(), thing);
    }
    async fn leave_half(&self, spec: &Spec) {
        let thing = Thing { claim: spec.claim.clone(), complete: false, busy: false };
        self.toy.things.lock().insert(spec.name.clone(), thing);
    }
    async fn unusable(&self) -> Option<Box<dyn Provider>> {
        Some(Box::new(Toy { usable: false, ..Toy::new(self.toy.fault) }))
    }
}

async fn found(fault: Fault) -> Vec<Violation> {
    violations(&Playroom { toy: Toy::new(fault), world: World::default() }).await
}

async fn must_find(fault: Fault, rule: &str) {
    let found = found(fault).await;
    assert!(
        found.iter().any(|violation| violation.rule == rule),
        "{fault:?} was not noticed as `{rule}`: {found:?}"
    );
}

#[tokio::test]
async fn a_provider_that_keeps_the_contract() {
    assert_eq!(found(Fault::None).await, []);
}

macro_rules! noticed {
    ($($name:ident: $fault:ident => $rule:literal;)*) => {$(
        #[tokio::test]
        async fn $name() {
            must_find(Fault::$fault, $rule).await;
        }
    )*};
}

noticed! {
    adopting_is_noticed: AdoptsForeign => "a thing with another owner tag is never touched";
    removing_a_foreign_thing_is_noticed: RemovesForeign => "a thing with another owner tag is never touched";
    skipping_on_existence_is_noticed: SkipsOnExistence => "existence is not completion";
    a_leak_in_outputs_is_noticed: LeaksEmail => "leak";
    a_leak_in_a_failure_is_noticed: LeaksInFailure => "leak";
    a_leak_in_rows_is_noticed: LeaksInRows => "leak";
    removing_everything_is_noticed: RemovesEverything => "a removal concerns one tenant";
    a_second_thing_is_noticed: MakesAnother => "a repeated ensure gives the same outputs and one thing";
    other_outputs_are_noticed: ChangesOutputs => "a repeated ensure gives the same outputs and one thing";
    failing_when_absent_is_noticed: FailsWhenAbsent => "absent is removed";
    a_lock_that_stays_is_noticed: StaysHalfWhenDropped => "an attempt that is dropped anywhere can be repeated";
    a_lost_race_is_noticed: LosesTheRace => "two ensures at once make one thing";
    seeing_things_is_noticed: SeesWhatIsNotThere => "observe says what is there";
    looking_that_changes_something_is_noticed: LooksWithSideEffects => "observe says what is there";
    a_lying_probe_is_noticed: SaysYesToEverything => "probe tells whether it works";
    any_setting_is_noticed: TakesAnySetting => "unknown settings are rejected";
}
