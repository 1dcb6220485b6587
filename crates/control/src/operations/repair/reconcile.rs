//! Reconciles one resource with its plan, and reports what that cannot bring back.

use serde_json::json;
use tenantry_model::Failure;
use tenantry_provider::{Context, Ensured, Kind, Observed, Provider as _, Spec};

use crate::resource::ResourceHandle;

/// Code of the failure for a resource whose content is gone, and key of the note about it.
const LOST: &str = "content_lost";

/// Creates or updates a resource that the tenant has already. Fails with `cannot_repair` if it still differs, and with
/// `content_lost` if it had to be created anew without its content.
pub(crate) async fn reconcile(
    provider: &ResourceHandle,
    context: &Context,
    spec: &Spec,
) -> Result<Ensured, Failure> {
    let is_empty = match provider.observe(context, spec).await? {
        Observed::Absent => true,
        Observed::Present { version, .. } => provider.kind() == Kind::Database && version.is_none(),
        Observed::Foreign => false,
    };
    let noted = spec.note.as_ref().is_some_and(|note| note.get(LOST).is_some());
    let lost = noted || is_empty && provider.transfer().is_some();
    if lost {
        // An attempt after a crash finds the resource present, as good as new.
        context.notes.note(json!({ LOST: true })).await?;
    }
    let ensured = provider.ensure(context, spec).await?;
    match provider.observe(context, spec).await? {
        Observed::Present { differs, .. } if differs.is_empty() => {}
        Observed::Present { differs, .. } => {
            let message = format!(
                "repair cannot restore: {}; correct it by hand and retry the step; or, if the resource serves this tenant \
                 only, delete it, retry the step, and restore a backup",
                differs.join("; ")
            );
            return Err(Failure::fatal("cannot_repair", message));
        }
        Observed::Absent | Observed::Foreign => {
            return Err(Failure::retryable(
                "just_gone",
                "the resource disappeared right after it was created",
            )
            .wrong_answer());
        }
    }
    if lost {
        return Err(Failure::fatal(
            LOST,
            "the resource was missing and was created again without the tenant's content: retry the step and restore a backup",
        ));
    }
    Ok(ensured)
}
