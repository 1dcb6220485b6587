//! The engine's port to the actions: from a step of the ledger to the action that does it, and back.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use tenantry_engine::{Attempt, Direction, Done, Mode, Operation, Policy, Run, Step, Steps};
use tenantry_model::{Failure, Timestamp, Write};
use tenantry_provider::{Provider, Registry, Rows};
use tenantry_store::Store;
use tenantry_store::keyring::Keyring;

use super::archive::Archives;
use super::onboard::Front;
use super::registry::{action, operation};
use super::{Compensation, Start, detached, no_provider, transitions};
use crate::ledger::{OperationKind, input_of};
use crate::resource::Resources;
use crate::resource::capacity::Slots;

/// What actions work with. Implements the engine's port by the registry of actions.
pub struct ProviderSteps {
    pub(crate) providers: Registry,
    pub(crate) resources: Arc<Resources>,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) store: Store,
    pub(crate) rows: Arc<dyn Rows>,
    pub(crate) slots: Arc<Slots>,
    pub(crate) archives: Arc<Archives>,
    /// Lock of the certificate chain: each certificate names the one before it.
    pub(crate) certifying: Arc<tokio::sync::Mutex<()>>,
    front: OnceLock<Arc<dyn Front>>,
}

impl ProviderSteps {
    /// Actions over these providers.
    pub fn new(
        providers: Registry,
        resources: Arc<Resources>,
        keyring: Arc<Keyring>,
        store: Store,
        slots: Arc<Slots>,
        archives: Arc<Archives>,
    ) -> Self {
        let rows = Arc::new(store.clone());
        let (certifying, front) = (Arc::default(), OnceLock::new());
        Self { providers, resources, keyring, store, rows, slots, archives, certifying, front }
    }

    /// Gives the smoke test its endpoints. Only the first call counts.
    pub fn set_front(&self, front: Arc<dyn Front>) {
        let _ = self.front.set(front);
    }

    /// The smoke test's endpoints. Fails while the server starts.
    pub(crate) fn front(&self) -> Result<&dyn Front, Failure> {
        let front = self.front.get().map(|front| &**front);
        front.ok_or_else(|| Failure::retryable("not_ready", "the server is still starting"))
    }

    /// The provider of this name.
    pub(crate) fn provider(&self, name: &str) -> Result<&dyn Provider, Failure> {
        self.providers.get(name).map(|provider| &**provider).ok_or_else(|| no_provider(name))
    }
}

#[async_trait]
impl Steps for ProviderSteps {
    type Effect = Write;

    fn transactional(&self, step: &Step) -> bool {
        action(step).is_ok_and(|action| action.transactional(self, step))
    }

    fn intend(&self, run: &Run, step: &Step, direction: Direction, now: Timestamp) -> Vec<Write> {
        let (Ok(action), Ok(input)) = (action(step), input_of(step)) else { return Vec::new() };
        action.intend(self, &Start { run, step, input: &input, direction, now })
    }

    async fn attempt(&self, attempt: Attempt) -> Result<Done<Write>, Failure> {
        let action = action(&attempt.step)?;
        if attempt.direction == Direction::Run {
            return action.run(self, &attempt).await;
        }
        let effects = match action.compensate(self, &attempt).await? {
            Compensation::Writes(writes) => writes,
            Compensation::None(_) => Vec::new(),
        };
        // The forward output stays, as a record of what was made.
        Ok(Done { output: attempt.step.output, effects })
    }

    fn detach(&self, parent: &Operation, step: &Step) -> Run {
        let kind = OperationKind::Detached { step: step.key.clone() };
        let policy = Policy { mode: Mode::Inline, ..operation(&kind).policy(step.policy.clone()) };
        detached::run(parent, step, kind, policy)
    }

    fn changed(&self, before: Option<&Operation>, after: &Run, now: Timestamp) -> Vec<Write> {
        transitions::changed(before, after, now)
    }
}
