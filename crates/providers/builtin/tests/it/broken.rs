//! Tests of the contract suite itself: a small provider that keeps the contract, and the same provider with
//! one fault at a time.

use std::collections::BTreeMap;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tenantry_model::{Failure, columns};
use tenantry_provider::{Context, Ensured, Fault as Complaint, Kind, Observed, Provider, Removed, Spec};

use crate::contract::{Environment, Violation, violations};
use crate::world::World;

/// One fault of the provider.
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

/// Resources in memory, by name.
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
            let who = if self.is(Fault::LeaksInFailure) { &spec.tenant.admin.email } else { "another owner" };
            return Err(Failure::fatal("name_taken", format!("{who} owns it")));
        }
        if self.is(Fault::StaysHalfWhenDropped) && found.as_ref().is_some_and(|thing| thing.busy) {
            return Err(Failure::retryable("busy", "another attempt is at work"));
        }
        if self.is(Fault::LosesTheRace) && found.is_none() && self.things.lock().contains_key(&spec.name) {
            return Err(Failure::fatal("exists", "it was created at the same time"));
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
            let own = things.get(&spec.name).is_none_or(|thing| thing.claim == spec.claim);
            things.retain(|_, thing| !own || thing.claim == "another owner");
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
        let thing = Thing { claim: "another owner".to_owned(), complete: true, busy: false };
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
        "{fault:?} was not reported as `{rule}`: {found:?}"
    );
}

#[tokio::test]
async fn a_correct_provider_has_no_violations() {
    assert_eq!(found(Fault::None).await, []);
}

macro_rules! reported {
    ($($name:ident: $fault:ident => $rule:literal;)*) => {$(
        #[tokio::test]
        async fn $name() {
            must_find(Fault::$fault, $rule).await;
        }
    )*};
}

reported! {
    adopting_a_foreign_resource_is_reported: AdoptsForeign => "another owner's resource is never touched";
    removing_a_foreign_resource_is_reported: RemovesForeign => "another owner's resource is never touched";
    skipping_an_incomplete_resource_is_reported: SkipsOnExistence => "an incomplete resource is completed";
    a_leak_in_outputs_is_reported: LeaksEmail => "leak";
    a_leak_in_a_failure_is_reported: LeaksInFailure => "leak";
    a_leak_in_rows_is_reported: LeaksInRows => "leak";
    removing_other_resources_is_reported: RemovesEverything => "a removal affects one tenant";
    a_second_resource_is_reported: MakesAnother => "a repeated ensure gives the same outputs and one resource";
    changing_outputs_are_reported: ChangesOutputs => "a repeated ensure gives the same outputs and one resource";
    failing_to_remove_an_absent_resource_is_reported: FailsWhenAbsent => "removing an absent resource succeeds";
    a_lock_after_a_dropped_attempt_is_reported: StaysHalfWhenDropped => "a dropped attempt can be repeated";
    a_lost_race_is_reported: LosesTheRace => "concurrent ensures create one resource";
    observing_an_absent_resource_is_reported: SeesWhatIsNotThere => "observe reports the resource and changes nothing";
    side_effects_of_observe_are_reported: LooksWithSideEffects => "observe reports the resource and changes nothing";
    a_wrong_probe_is_reported: SaysYesToEverything => "probe reports whether the provider works";
    accepting_unknown_settings_is_reported: TakesAnySetting => "unknown settings are rejected";
}
