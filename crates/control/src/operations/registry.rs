//! The list of operation kinds and actions. This file alone names them all: a new kind is a folder and a line here.

use std::collections::HashMap;
use std::sync::LazyLock;

use tenantry_engine::{Operation as Row, Step};
use tenantry_model::Failure;

use super::archive::{self, Create, Load, Purpose};
use super::clone::CloneContent;
use super::detached::Detached;
use super::erase::Erase;
use super::offboard::{
    Certify, DestroyKey, DiscardArchives, Offboard, ScanProviders, ScanRegistry, StandDown, WipeRegistry,
};
use super::onboard::{Activate, Onboard, Reserve, SmokeTest, Wait};
use super::repair::Repair;
use super::resource_steps::{Ensure, Remove};
use super::rotate_credentials::{Rotate, RotateOperation};
use super::{Action, Operation};
use crate::ledger::{Act, OperationKind, input_of};

/// Actions of steps without a resource. A step with a resource has the action [`Ensure`], [`Remove`] or
/// [`Rotate`].
static ACTIONS: [&dyn Action; 15] = [
    &Reserve,
    &SmokeTest,
    &Activate,
    &Wait,
    &CloneContent,
    &Create(Purpose::Export),
    &Create(Purpose::Backup),
    &Load,
    &StandDown,
    &ScanProviders,
    &DiscardArchives,
    &DestroyKey,
    &WipeRegistry,
    &ScanRegistry,
    &Certify,
];

/// [`ACTIONS`] by kind.
static BY_KIND: LazyLock<HashMap<&str, &dyn Action>> =
    LazyLock::new(|| ACTIONS.iter().map(|action| (action.kind(), *action)).collect());

/// The [`Operation`] of an operation kind.
pub(crate) fn operation(kind: &OperationKind) -> &'static dyn Operation {
    match kind {
        OperationKind::Onboard => &Onboard,
        OperationKind::Repair => &Repair,
        OperationKind::RotateCredentials => &RotateOperation,
        OperationKind::Export => &archive::EXPORT,
        OperationKind::Backup => &archive::BACKUP,
        OperationKind::Restore => &archive::RESTORE,
        OperationKind::Import => &archive::IMPORT,
        OperationKind::Offboard => &Offboard,
        OperationKind::Erase => &Erase,
        OperationKind::Detached { .. } => &Detached,
    }
}

/// The [`Operation`] of a stored operation.
pub(crate) fn operation_of(row: &Row) -> &'static dyn Operation {
    operation(&OperationKind::of(row))
}

/// The action of a step. Returns `unknown_action` if this version does not know the step's kind.
pub(crate) fn action(step: &Step) -> Result<&'static dyn Action, Failure> {
    let input = input_of(step)?;
    match (input.resource, input.act) {
        (Some(_), Act::Ensure) => Ok(&Ensure),
        (Some(_), Act::Remove) => Ok(&Remove),
        (Some(_), Act::Rotate) => Ok(&Rotate),
        (None, _) => BY_KIND.get(step.kind.as_str()).copied().ok_or_else(|| {
            Failure::fatal("unknown_action", format!("this version has no action `{}`", step.kind))
        }),
    }
}

#[cfg(test)]
mod tests {
    use tenantry_engine::Policy;
    use tenantry_model::TenantId;

    use super::*;
    use crate::templates::built_in;

    #[test]
    fn every_action_has_a_kind_of_its_own() {
        assert_eq!(BY_KIND.len(), ACTIONS.len());
    }

    #[test]
    fn every_built_in_step_of_templates_has_an_action() {
        for name in built_in::ALLOWED.iter().chain(&built_in::REQUIRED).chain(&built_in::RESERVED) {
            assert!(BY_KIND.contains_key(name), "{name}");
        }
    }

    #[test]
    fn every_kind_has_its_own_unit() {
        for word in ["onboard", "repair", "rotate_credentials", "export", "backup", "restore", "import"] {
            let kind = OperationKind::read(word, false);
            assert_eq!(operation(&kind).kind(), kind);
            assert_eq!(operation(&kind).may_cancel(), Ok(()), "{word}");
        }
        for kind in [OperationKind::Offboard, OperationKind::Erase] {
            assert_eq!(operation(&kind).kind(), kind);
            assert!(operation(&kind).may_cancel().is_err() && operation(&kind).ends_tenant());
        }
    }

    #[test]
    fn the_action_decides_whether_a_step_may_be_skipped() {
        let step = |key: &str, kind: &str| {
            Step::new(key, kind, "tenantry", Policy::default(), serde_json::json!({}))
        };
        let may_skip = |kind: OperationKind, step: &Step| operation(&kind).may_skip(step).is_ok();
        assert!(!may_skip(OperationKind::Onboard, &step("activate", "activate")));
        assert!(may_skip(OperationKind::Onboard, &step("reserve", "reserve")));
        assert!(may_skip(OperationKind::Offboard, &step("keep", "wait")));
        assert!(!may_skip(OperationKind::Offboard, &step("settle", "wait")));
        // The template chooses the key of a detached step: here, the key of a step that a deletion must not skip.
        let detached = OperationKind::Detached { step: "certify".to_owned() };
        let mut mail = step("certify", "mail");
        mail.input =
            serde_json::json!({ "resource": crate::ledger::resource_id(TenantId::new(), 1, "certify") });
        assert!(may_skip(detached, &mail));
    }

    /// Step kinds and inputs that earlier versions have stored.
    #[test]
    fn stored_steps_find_their_actions() {
        let step = |kind: &str, input| Step::new("any", kind, "any", Policy::default(), input);
        let own = [
            "reserve",
            "smoke_test",
            "activate",
            "wait",
            "clone",
            "export",
            "backup",
            "load",
            "stand_down",
            "scan",
            "discard_archives",
            "destroy_key",
            "wipe",
            "scan_registry",
            "certify",
        ];
        for kind in own {
            let stored = step(kind, serde_json::json!({ "generation": 0 }));
            assert_eq!(action(&stored).unwrap().kind(), kind);
        }
        let resource = crate::ledger::resource_id(TenantId::new(), 1, "database");
        let mut input =
            serde_json::json!({ "resource": resource, "generation": 1, "name": "n", "claim": "c" });
        assert_eq!(action(&step("database", input.clone())).unwrap().kind(), "ensure");
        for act in ["remove", "rotate"] {
            input["act"] = serde_json::json!(act);
            assert_eq!(action(&step("database", input.clone())).unwrap().kind(), act);
        }
        let unknown = action(&step("later", serde_json::json!({}))).err();
        assert_eq!(unknown.map(|failure| failure.code).as_deref(), Some("unknown_action"));
    }
}
