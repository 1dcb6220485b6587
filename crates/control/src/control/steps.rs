//! Shared state for the actions of steps. The actions are in `operations`, and so is the implementation of the engine's
//! port.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use serde_json::Value;
use tenantry_engine::Attempt;
use tenantry_model::Failure;
use tenantry_provider::{Context, Rows, Sealer as _, Spec, Tenant};
use tenantry_store::Store;
use tenantry_store::keyring::Keyring;

use crate::ledger::{OperationInput, OperationKind, Personal, StepInput, read, read_sealed, tenant_id};
use crate::resource::capacity::Slots;
use crate::resource::{ArchiveStore, Resources};

/// Shared state for actions: the providers, the stores and the keyring. It also implements the engine's port, in
/// `operations/dispatch.rs`.
pub struct ProviderSteps {
    pub(crate) resources: Arc<Resources>,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) store: Store,
    pub(crate) rows: Arc<dyn Rows>,
    pub(crate) slots: Arc<Slots>,
    pub(crate) archive_store: ArchiveStore,
    /// Maximum size of an import, in bytes.
    pub(crate) import_most: u64,
    /// Held while a deletion certificate is issued, because each certificate contains the hash of the previous one.
    pub(crate) certifying: Arc<tokio::sync::Mutex<()>>,
    front: OnceLock<Arc<dyn Front>>,
}

impl ProviderSteps {
    /// Creates the state. The endpoints of the smoke test are set later, by [`Self::set_front`].
    pub fn new(
        resources: Arc<Resources>,
        keyring: Arc<Keyring>,
        store: Store,
        slots: Arc<Slots>,
        archive_store: ArchiveStore,
        import_most: u64,
    ) -> Self {
        let rows = Arc::new(store.clone());
        let (certifying, front) = (Arc::default(), OnceLock::new());
        Self { resources, keyring, store, rows, slots, archive_store, import_most, certifying, front }
    }

    /// Sets the endpoints that the smoke test calls. Only the first call has an effect.
    pub fn set_front(&self, front: Arc<dyn Front>) {
        let _ = self.front.set(front);
    }

    /// Returns the endpoints that the smoke test calls; a retryable failure while the server starts.
    pub(crate) fn front(&self) -> Result<&dyn Front, Failure> {
        let front = self.front.get().map(|front| &**front);
        front.ok_or_else(|| Failure::retryable("not_ready", "the server is still starting"))
    }

    /// Builds the arguments of a provider call for a step. The spec contains the tenant's personal data, decrypted.
    pub(crate) async fn spec(
        &self,
        attempt: &Attempt,
        input: &StepInput,
    ) -> Result<(Context, Spec), Failure> {
        let operation = &attempt.operation;
        let start: OperationInput = read(&operation.input)?;
        let tenant = tenant_id(operation)?;
        self.keyring.load(tenant).await?;
        let personal: Personal = read_sealed(&self.keyring.open(tenant, &start.sealed)?)?;
        let resource =
            input.resource.ok_or_else(|| Failure::fatal("bad_plan", "the step names no resource"))?;
        let spec = Spec {
            resource,
            operation: operation.parent.unwrap_or(operation.id),
            generation: input.generation,
            tenant: Tenant {
                id: tenant,
                slug: personal.slug,
                name: personal.name,
                plan: start.plan,
                region: start.region,
                locale: start.locale,
                admin: personal.admin,
            },
            name: input.name.clone(),
            claim: input.claim.clone(),
            settings: input.settings.clone(),
            inputs: attempt
                .step
                .needs
                .iter()
                .filter_map(|need| Some((need.clone(), attempt.outputs.get(need)?.clone())))
                .collect::<BTreeMap<_, _>>(),
            note: attempt.step.note.clone(),
        };
        Ok((self.context(attempt), spec))
    }

    /// Builds what a provider may use during an attempt: time, encryption, the tenant's rows and notes.
    pub(crate) fn context(&self, attempt: &Attempt) -> Context {
        let operation = &attempt.operation;
        // The tenant of an onboarding that is not in the ledger yet has no rows.
        let is_new = operation.version == 0 && OperationKind::of(operation) == OperationKind::Onboard;
        Context {
            now: attempt.now,
            sealer: self.keyring.clone(),
            rows: if is_new { Arc::new(NoRows) } else { self.rows.clone() },
            notes: Arc::new(ProviderNotes(attempt.notes.clone())),
        }
    }
}

/// The public endpoints as a tenant's client sees them.
#[async_trait]
pub trait Front: Send + Sync + 'static {
    /// Exchanges a one-time code for a token.
    async fn sign_in(&self, code: &str) -> Result<String, Failure>;
    /// The identity that the token states: `{tenant_id, role, …}`.
    async fn me(&self, token: &str) -> Result<Value, Failure>;
    /// Inserts a row and returns it with its `id`.
    async fn insert(&self, token: &str, table: &str, row: &Value) -> Result<Value, Failure>;
    /// Reads a row; none if no row of this id is visible to the bearer.
    async fn get(&self, token: &str, table: &str, id: &str) -> Result<Option<Value>, Failure>;
    /// Deletes a row.
    async fn delete(&self, token: &str, table: &str, id: &str) -> Result<(), Failure>;
    /// Stores an object through an address that the token signs.
    async fn store(&self, token: &str, key: &str, bytes: &[u8]) -> Result<(), Failure>;
    /// Reads an object through an address that the token signs.
    async fn fetch(&self, token: &str, key: &str) -> Result<Vec<u8>, Failure>;
    /// Deletes an object through an address that the token signs.
    async fn discard(&self, token: &str, key: &str) -> Result<(), Failure>;
}

/// Rows of a tenant that is not written yet.
struct NoRows;

#[async_trait]
impl Rows for NoRows {
    async fn find(&self, _: &'static str, _: &[(&'static str, Value)]) -> Result<Vec<Value>, Failure> {
        Ok(Vec::new())
    }
}

/// Passes a provider's note on to the ledger.
pub(crate) struct ProviderNotes(pub(crate) Arc<dyn tenantry_engine::run::Notes>);

#[async_trait]
impl tenantry_provider::Notes for ProviderNotes {
    async fn note(&self, note: Value) -> Result<(), Failure> {
        self.0.note(note).await
    }
}
