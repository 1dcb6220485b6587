//! Operations of detached steps: each runs one step of its parent, with retries of its own.

use tenantry_engine::{OnFailure, Operation as Row, Policy, Run, Step};

use super::Operation;
use crate::ledger::OperationKind;

/// The operation of a detached step.
pub(crate) struct Detached;

impl Operation for Detached {
    fn kind(&self) -> OperationKind {
        OperationKind::Detached { step: String::new() }
    }

    /// The operation stops in `needs_attention`: the tenant is active already, so nothing is compensated.
    fn on_failure(&self) -> OnFailure {
        OnFailure::Park
    }
}

/// The child operation of a parent's step. The engine sets id, parent, version and epoch.
pub(super) fn run(parent: &Row, step: &Step, kind: OperationKind, policy: Policy) -> Run {
    let (id, began) = (step.child.unwrap_or_default(), parent.updated_at);
    let child = Row {
        parent: Some(parent.id),
        version: 1,
        epoch: parent.epoch,
        // It may take as long as its parent, from now on.
        expected_by: parent.expected_by.map(|by| began + by.since(parent.created_at)),
        ..Row::new(id, &parent.subject, kind.as_str(), parent.input.clone(), began)
    };
    let step = Step::new(&step.key, &step.kind, &step.provider, policy, step.input.clone());
    Run { operation: child, steps: vec![step] }
}
