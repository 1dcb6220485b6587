//! Offboarding: ends a tenant. Access ends when the operation begins, billing after the final export. During the hold, the
//! offboarding can be reversed; after it, all data is deleted and a certificate is issued (GDPR Art. 17). An erasure has the
//! same actions without the hold.

pub mod certificate;
mod certify;
pub(crate) mod clones;
mod deletion;
mod destroy_key;
mod discard;
mod plan;
mod reconsider;
mod scan;
mod scan_registry;
mod searched;
mod stand_down;
mod wipe;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tenantry_engine::{Attempt, OnFailure, OperationState, Run, Step};
use tenantry_model::{Failure, Timestamp};
use tenantry_provider::{Context, Person, Sealer as _, Spec, Tenant};

use super::{Operation, ProviderSteps};
use crate::control::ProviderNotes;
use crate::ledger::{OperationInput, OperationKind, StepInput, read, tenant_id};

pub(super) use certify::Certify;
pub use deletion::OffboardTenant;
pub(super) use deletion::{Demand, deletes_already};
pub(super) use destroy_key::DestroyKey;
pub(super) use discard::DiscardArchives;
pub(super) use plan::{BACKUP, may_skip};
pub(super) use scan::ScanProviders;
pub(super) use scan_registry::ScanRegistry;
pub(super) use stand_down::StandDown;
pub(super) use wipe::WipeRegistry;

/// Purpose of the MAC of names in certificates.
const NAME: &str = "certificate_name";

/// The operation that offboards a tenant.
pub(super) struct Offboard;

impl Operation for Offboard {
    fn kind(&self) -> OperationKind {
        OperationKind::Offboard
    }

    fn on_failure(&self) -> OnFailure {
        OnFailure::Park
    }

    fn ends_tenant(&self) -> bool {
        true
    }

    /// It deletes from its last backup on.
    fn deletes_tenant(&self, run: &Run) -> bool {
        !has_failed(run) && run.step(BACKUP).is_none_or(|step| step.state.is_over())
    }

    fn may_skip(&self, step: &Step) -> Result<(), &'static str> {
        may_skip(step)
    }

    fn may_cancel(&self) -> Result<(), &'static str> {
        Err("an offboarding cannot be cancelled; use `tenantry tenant reconsider` before its hold ends")
    }
}

/// Whether an operation ended without success.
pub(super) fn has_failed(run: &Run) -> bool {
    run.operation.state.is_final() && run.operation.state != OperationState::Succeeded
}

/// Output of a step that deleted a resource.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Deleted {
    /// Time of the deletion.
    pub deleted_at: Timestamp,
    /// The provider's receipt, anonymised.
    pub receipt: Value,
}

impl ProviderSteps {
    /// Builds the arguments of a provider call that deletes or observes a resource. They contain no personal data, so the
    /// tenant's key, which may be destroyed already, is not needed.
    pub(super) fn nameless(&self, attempt: &Attempt, input: &StepInput) -> Result<(Context, Spec), Failure> {
        let operation = &attempt.operation;
        let start: OperationInput = read(&operation.input)?;
        let resource = input.resource;
        let spec = Spec {
            resource: resource.ok_or_else(|| Failure::fatal("bad_plan", "the step names no resource"))?,
            operation: operation.id,
            generation: input.generation,
            tenant: Tenant {
                id: tenant_id(operation)?,
                slug: String::new(),
                name: String::new(),
                plan: start.plan,
                region: start.region,
                locale: start.locale,
                admin: Person::default(),
            },
            name: input.name.clone(),
            claim: input.claim.clone(),
            settings: input.settings.clone(),
            inputs: BTreeMap::new(),
            note: attempt.step.note.clone(),
        };
        let context = Context {
            now: attempt.now,
            sealer: self.keyring.clone(),
            rows: self.rows.clone(),
            notes: std::sync::Arc::new(ProviderNotes(attempt.notes.clone())),
        };
        Ok((context, spec))
    }

    /// Anonymises a receipt so that it may be kept: integers stay, all other numbers and all texts become HMACs.
    pub(super) fn anonymous(&self, receipt: &Value) -> Value {
        match receipt {
            Value::Null | Value::Bool(_) => receipt.clone(),
            Value::Number(number) if !number.is_f64() => receipt.clone(),
            Value::Number(number) => Value::from(self.keyring.mac(NAME, &number.to_string())),
            Value::String(text) => Value::from(self.keyring.mac(NAME, text)),
            Value::Array(values) => values.iter().map(|value| self.anonymous(value)).collect(),
            Value::Object(map) => {
                let entries = map.iter().map(|(key, value)| (key.clone(), self.anonymous(value)));
                Value::Object(entries.collect::<Map<_, _>>())
            }
        }
    }
}
