//! The code behind the steps: from a step of the engine to a verb of a provider and back, and what the registry says
//! about it in the same transaction.

mod archives;
mod input;
mod own;
mod resources;
mod told;

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use serde::Deserialize as _;
use tenantry_engine::{Attempt, Done, Mode, OnFailure, Operation, Policy, Run, Step, Steps, Verb};
use tenantry_model::{Failure, Timestamp, Write, columns};
use tenantry_provider::{Provider, Registry, Rows};

use crate::archive::{Archives, Purpose};
use crate::capacity::Places;
use crate::clones::CLONE;
use crate::leaving::plan as end;
use crate::planner::{Act, StepInput};
use crate::rotation::ROTATE_CREDENTIALS;
use crate::serving::Serving;
use crate::smoke::Front;
pub(crate) use input::read;
pub use input::{ONBOARD, OperationInput, Personal, REPAIR, VITAL, tenant_id};
pub(crate) use resources::ProviderNotes;
use resources::resource_row;
use tenantry_store::Store;
use tenantry_store::keyring::Keyring;

/// Carries steps to providers.
pub struct ProviderSteps {
    pub(crate) providers: Registry,
    pub(crate) serving: Arc<Serving>,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) store: Store,
    pub(crate) rows: Arc<dyn Rows>,
    pub(crate) places: Arc<Places>,
    pub(crate) archives: Arc<Archives>,
    /// Whose turn it is to issue a certificate: each names the one before it.
    pub(crate) certifying: Arc<tokio::sync::Mutex<()>>,
    front: OnceLock<Arc<dyn Front>>,
}

impl ProviderSteps {
    /// Steps over these providers.
    pub fn new(
        providers: Registry,
        serving: Arc<Serving>,
        keyring: Arc<Keyring>,
        store: Store,
        places: Arc<Places>,
        archives: Arc<Archives>,
    ) -> Self {
        let rows = Arc::new(store.clone());
        let (certifying, front) = (Arc::default(), OnceLock::new());
        Self { providers, serving, keyring, store, rows, places, archives, certifying, front }
    }

    /// Gives the smoke test its endpoints. Only the first call counts.
    pub fn set_front(&self, front: Arc<dyn Front>) {
        let _ = self.front.set(front);
    }

    fn provider(&self, step: &Step) -> Option<&Arc<dyn Provider>> {
        self.providers.get(&step.provider)
    }
}

#[async_trait]
impl Steps for ProviderSteps {
    type Effect = Write;

    fn transactional(&self, step: &Step) -> bool {
        // What deletes must see what is committed, as an undo must.
        ["activate", "reserve"].contains(&step.kind.as_str())
            || !deletes(step) && self.provider(step).is_some_and(|provider| provider.transactional())
    }

    fn intend(&self, run: &Run, step: &Step, verb: Verb, now: Timestamp) -> Vec<Write> {
        let Ok(input) = read::<StepInput>(&step.input) else { return Vec::new() };
        if keeps(&run.operation) {
            // What stands is on record.
            return Vec::new();
        }
        if let (Act::Remove, Verb::Undo) = (input.act, verb) {
            return Vec::new();
        }
        if let (Act::Remove, Some(resource)) = (input.act, input.resource) {
            let removing = columns! { "state": "removing", "updated_at": now };
            return vec![Write::update("resources", columns! { "id": resource }, removing)];
        }
        if step.kind == "smoke_test" && verb == Verb::Do {
            return vec![self.smoke_code_row(run, step, now)];
        }
        let state = if verb == Verb::Do { "creating" } else { "removing" };
        let row = resource_row(&run.operation, step, &input, state, &step.output, now);
        row.map(|row| Write::upsert("resources", row)).into_iter().collect()
    }

    async fn attempt(&self, attempt: Attempt) -> Result<Done<Write>, Failure> {
        let nothing = Ok(Done { output: attempt.step.output.clone(), effects: Vec::new() });
        match (attempt.step.kind.as_str(), attempt.verb) {
            ("smoke_test", Verb::Do) => self.smoke_test(&attempt).await,
            ("activate", Verb::Do) => self.activate(&attempt).await,
            ("reserve", Verb::Do) => self.reserve(&attempt).await,
            ("reserve", Verb::Undo) => self.give_back(&attempt).await,
            ("export", _) => self.archive(&attempt, Purpose::Export).await,
            ("backup", _) => self.archive(&attempt, Purpose::Backup).await,
            ("load", Verb::Do) => self.load(&attempt).await,
            (CLONE, Verb::Do) => self.clone_content(&attempt).await,
            // What was there before is in no memory but an archive's: whoever wants it back loads that. A clone goes with its
            // resources.
            ("smoke_test" | "wait" | "load" | CLONE | end::STAND_DOWN, Verb::Undo) => nothing,
            (end::STAND_DOWN, Verb::Do) => self.stand_down(&attempt).await,
            (end::DISCARD, Verb::Do) => self.discard_archives(&attempt).await,
            (end::SCAN, Verb::Do) => self.scan(&attempt).await,
            (end::DESTROY_KEY, Verb::Do) => self.destroy_key(&attempt).await,
            (end::WIPE, Verb::Do) => self.wipe(&attempt).await,
            (end::SCAN_REGISTRY, Verb::Do) => self.scan_registry(&attempt).await,
            (end::CERTIFY, Verb::Do) => self.certify(&attempt).await,
            (_, Verb::Undo) if keeps(&attempt.operation) => nothing,
            _ => {
                let provider = self.provider(&attempt.step).ok_or_else(|| {
                    Failure::fatal(
                        "no_provider",
                        format!("provider `{}` is not configured here", attempt.step.provider),
                    )
                })?;
                match attempt.verb {
                    Verb::Do if deletes(&attempt.step) => self.delete(&attempt, &**provider).await,
                    Verb::Undo if deletes(&attempt.step) => self.begin_again(&attempt, &**provider).await,
                    Verb::Do if acts(&attempt.step, Act::Rotate) => self.rotate(&attempt, &**provider).await,
                    Verb::Do => self.ensure(&attempt, &**provider).await,
                    Verb::Undo => self.remove(&attempt, &**provider).await,
                }
            }
        }
    }

    fn detach(&self, operation: &Operation, step: &Step) -> Run {
        let (id, began) = (step.child.unwrap_or_default(), operation.updated_at);
        let child = Operation {
            parent: Some(operation.id),
            version: 1,
            epoch: operation.epoch,
            // As long as its parent may take, from now on.
            expected_by: operation.expected_by.map(|by| began + by.since(operation.created_at)),
            ..Operation::new(id, &operation.subject, &step.key, operation.input.clone(), began)
        };
        // A failure of its own never undoes what works: it asks for a person.
        let policy = Policy { mode: Mode::Inline, on_failure: OnFailure::Park, ..step.policy.clone() };
        let step = Step::new(&step.key, &step.kind, &step.provider, policy, step.input.clone());
        Run { operation: child, steps: vec![step] }
    }

    fn changed(&self, before: Option<&Operation>, after: &Run, now: Timestamp) -> Vec<Write> {
        told::changed(before, after, now)
    }
}

/// Whether an operation works on what is the tenant's already, and makes nothing that could be undone.
fn keeps(operation: &Operation) -> bool {
    [REPAIR, ROTATE_CREDENTIALS].contains(&operation.kind.as_str())
}

/// Whether a step deletes what another one made.
fn deletes(step: &Step) -> bool {
    acts(step, Act::Remove)
}

fn acts(step: &Step, wanted: Act) -> bool {
    step.input.get("act").is_some_and(|act| Act::deserialize(act).is_ok_and(|act| act == wanted))
}
