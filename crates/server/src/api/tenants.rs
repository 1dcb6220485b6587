//! `/v1/tenants`: sign-up, reading, labels, a new try after a rollback, and the end.

use std::collections::BTreeMap;

use axum::http::header::{ETAG, LOCATION};
use axum::http::{HeaderName, Method, StatusCode};
use schemars::JsonSchema;
use serde_json::json;
use tenantry_control::access::{Caller, Permission};
use tenantry_control::operations::clone::CloneTenant;
use tenantry_control::operations::erase::EraseTenant;
use tenantry_control::operations::offboard::OffboardTenant;
use tenantry_control::operations::onboard::request::CreateTenant;
use tenantry_control::operations::repair::RepairTenant;
use tenantry_control::operations::rotate_credentials::RotateCredentials;
use tenantry_control::suspension::{ResumeTenant, SuspendTenant};
use tenantry_control::view::{OperationView, Page, PlannedView, StandingView, TenantView};
use tenantry_control::{Answered, Created, TenantQuery};
use tenantry_engine::OperationState;
use tenantry_model::TenantStatus;

use super::call::{Call, answer, replayed, with_header};
use super::problem::{Problem, Result};
use super::route::{CURSOR, IDEMPOTENCY_KEY, JSON, LIMIT, MERGE_PATCH, Param, REPLAYED, Route, key};

const DRY_RUN: Param = Param {
    name: "dry_run",
    about: "`true`: answer what would be done, and do nothing.",
    schema: || json!({ "type": "boolean", "default": false }),
    check: |text| match text {
        "true" | "false" => Ok(()),
        _ => Err("must be true or false".to_owned()),
    },
    required: false,
};
const STATUS: Param = Param {
    name: "status",
    about: "Only tenants in this status.",
    schema: || json!({ "type": "string", "enum": TenantStatus::ALL }),
    check: |text| match text.parse::<TenantStatus>() {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("must be one of {}", TenantStatus::ALL.map(|s| s.to_string()).join(", "))),
    },
    required: false,
};
const PLAN: Param = Param::text("plan", "Only tenants on this plan.");
const PREFER: Param = Param::text(
    "Prefer",
    "`wait=N`: answer once the tenant is active, at the latest after N seconds (at most 60).",
);
const IF_MATCH: Param =
    Param::text("If-Match", "the ETag of the tenant as you read it, so that nobody's change is overwritten")
        .needed();
const CREATED: &[(&str, &str)] =
    &[("Location", "Where to look next."), ("Preference-Applied", "How long this was waited for."), REPLAYED];
const TAGGED: &[(&str, &str)] = &[("ETag", "The tenant's version, for If-Match.")];

/// What may be changed directly.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct TenantPatch {
    /// Labels to set; null removes one.
    #[schemars(extend("maxProperties" = 64))]
    #[expect(dead_code, reason = "describes what the use case reads as a patch")]
    labels: Option<BTreeMap<String, Option<String>>>,
}

/// The lines of the table.
pub fn routes() -> Vec<Route> {
    use Permission as P;
    vec![
        Route::new(
            Method::POST,
            "/v1/tenants",
            "create_tenant",
            "Create a tenant",
            key(P::CreateTenant, create),
        )
        .query(&[DRY_RUN])
        .header(&[IDEMPOTENCY_KEY, PREFER])
        .reads::<CreateTenant>(JSON)
        .gives::<OperationView>(StatusCode::ACCEPTED, "The tenant is being made; follow the operation.")
        .having(CREATED)
        .gives::<TenantView>(StatusCode::CREATED, "The tenant is active: it was done within `Prefer: wait`.")
        .having(CREATED)
        .gives::<PlannedView>(StatusCode::OK, "With `dry_run`: what would be done.")
        .fails(&[409]),
        Route::new(
            Method::GET,
            "/v1/tenants",
            "list_tenants",
            "List tenants, newest first",
            key(P::ReadTenants, list),
        )
        .query(&[LIMIT, CURSOR, STATUS, PLAN])
        .gives::<Page<TenantView>>(StatusCode::OK, "A page."),
        Route::new(
            Method::GET,
            "/v1/tenants/{id}",
            "get_tenant",
            "Read a tenant by id or slug",
            key(P::ReadTenants, get),
        )
        .gives::<TenantView>(StatusCode::OK, "The tenant.")
        .having(TAGGED)
        .fails(&[404]),
        Route::new(
            Method::PATCH,
            "/v1/tenants/{id}",
            "update_tenant",
            "Change a tenant's labels",
            key(P::WriteTenants, update),
        )
        .header(&[IF_MATCH])
        .reads::<TenantPatch>(MERGE_PATCH)
        .gives::<TenantView>(StatusCode::OK, "The tenant as it is now.")
        .having(TAGGED)
        .fails(&[404, 412, 428]),
        Route::new(
            Method::POST,
            "/v1/tenants/{id}/provision",
            "provision_tenant",
            "Make a tenant again whose onboarding was rolled back",
            key(P::WriteTenants, provision),
        )
        .header(&[IDEMPOTENCY_KEY])
        .gives::<OperationView>(StatusCode::ACCEPTED, "The tenant is being made; follow the operation.")
        .having(&[("Location", "The operation."), REPLAYED])
        .fails(&[404, 409]),
        Route::new(
            Method::POST,
            "/v1/tenants/{id}/clones",
            "clone_tenant",
            "Make a sandbox with a tenant's content under masks",
            key(P::WriteTenants, clone),
        )
        .about(
            "A tenant of its own, on the same plan and in the same region. Rows are masked on their way, by what the template \
             says and by what is asked for; members, settings and billing do not come along.",
        )
        .header(&[IDEMPOTENCY_KEY])
        .reads::<CloneTenant>(JSON)
        .gives::<OperationView>(StatusCode::ACCEPTED, "The clone is being made; follow the operation.")
        .having(&[("Location", "The operation."), REPLAYED])
        .fails(&[404, 409]),
        Route::new(
            Method::POST,
            "/v1/tenants/{id}/repair",
            "repair_tenant",
            "Make an active tenant's resources as they should be",
            key(P::WriteTenants, repair),
        )
        .about("What is as it should be stays as it is; nothing is ever undone.")
        .header(&[IDEMPOTENCY_KEY])
        .reads::<RepairTenant>(JSON)
        .gives::<OperationView>(StatusCode::ACCEPTED, "It is being repaired; follow the operation.")
        .having(&[("Location", "The operation."), REPLAYED])
        .fails(&[404, 409]),
        Route::new(
            Method::POST,
            "/v1/tenants/{id}/rotate-credentials",
            "rotate_credentials",
            "Give a tenant's own applications new secrets",
            key(P::WriteTenants, rotate_credentials),
        )
        .about(
            "What they log in with past Tenantry, such as a role in PostgreSQL. The operation hands the new secret out once, at \
             `POST /v1/operations/{id}/credentials`. The former one is good for the hours of grace; with 0, it ends at once, and \
             every session with it.",
        )
        .header(&[IDEMPOTENCY_KEY])
        .reads::<RotateCredentials>(JSON)
        .gives::<OperationView>(StatusCode::ACCEPTED, "New secrets are being made; follow the operation.")
        .having(&[("Location", "The operation."), REPLAYED])
        .fails(&[404, 409]),
        Route::new(
            Method::POST,
            "/v1/tenants/{id}/suspend",
            "suspend_tenant",
            "Deny a tenant access for a reason",
            key(P::WriteTenants, suspend),
        )
        .about(
            "Holds from the next request on, for tokens issued before too. All data and infrastructure stay. Reasons are \
             cleared each on its own; the strictest grade counts.",
        )
        .header(&[IDEMPOTENCY_KEY])
        .reads::<SuspendTenant>(JSON)
        .gives::<StandingView>(StatusCode::OK, "The tenant as it is now, and which of its fences have acknowledged it.")
        .having(&[REPLAYED])
        .fails(&[404, 409]),
        Route::new(
            Method::POST,
            "/v1/tenants/{id}/resume",
            "resume_tenant",
            "Clear a reason for a tenant's suspension, or all",
            key(P::WriteTenants, resume),
        )
        .about("The tenant is active again when no reason is left. Nothing is made again: it was all there.")
        .header(&[IDEMPOTENCY_KEY])
        .reads::<ResumeTenant>(JSON)
        .gives::<StandingView>(StatusCode::OK, "The tenant as it is now, and which of its fences have acknowledged it.")
        .having(&[REPLAYED])
        .fails(&[404, 409]),
        Route::new(
            Method::POST,
            "/v1/tenants/{id}/offboard",
            "offboard_tenant",
            "End a tenant: hold everything for a while, then delete it",
            key(P::WriteTenants, offboard),
        )
        .about(
            "Access ends with the answer, and billing right after it, with a credit for the unused rest of the period. Until \
             the hold is over, `reconsider` brings everything back as it was, and `erase` skips the rest of it.",
        )
        .header(&[IDEMPOTENCY_KEY])
        .reads::<OffboardTenant>(JSON)
        .gives::<OperationView>(StatusCode::ACCEPTED, "It is leaving; follow the operation.")
        .having(&[("Location", "The operation."), REPLAYED])
        .fails(&[404, 409]),
        Route::new(
            Method::POST,
            "/v1/tenants/{id}/reconsider",
            "reconsider_tenant",
            "Bring a tenant back that is in its hold",
            key(P::WriteTenants, reconsider),
        )
        .about("Active, or suspended for the reasons that it still has; nothing of its own was touched.")
        .header(&[IDEMPOTENCY_KEY])
        .gives::<TenantView>(StatusCode::OK, "The tenant as it is now.")
        .having(&[REPLAYED])
        .fails(&[404, 409]),
        Route::new(
            Method::POST,
            "/v1/tenants/{id}/erase",
            "erase_tenant",
            "Delete a tenant for good, at once (GDPR Art. 17)",
            key(P::WriteTenants, erase),
        )
        .about(
            "Access ends with the answer; whatever operation runs is taken over. It cannot be taken back. A tenant that is \
             being deleted, or is gone, gives the operation that does it, or did. The reason is kept for ever.",
        )
        .header(&[IDEMPOTENCY_KEY])
        .reads::<EraseTenant>(JSON)
        .gives::<OperationView>(StatusCode::ACCEPTED, "It is being deleted; follow the operation.")
        .having(&[("Location", "The operation."), REPLAYED])
        .fails(&[404, 409]),
    ]
}

async fn create(call: Call, caller: Caller) -> Result {
    if call.param("dry_run") == Some("true") {
        return answer(StatusCode::OK, &call.control().plan_tenant(&caller, &call.body).await?);
    }
    let mut created = call.control().create_tenant(&caller, &call.body, call.idempotency_key.clone()).await?;
    if let Some(patience) = call.patience()
        && !created.operation.done
    {
        // Nobody is held up at the end of the process: the operation goes on without us.
        tokio::select! {
            waited = call.control().wait(&caller, created.operation.id, patience) => created.operation = waited?,
            () = call.app.draining.cancelled() => {}
        }
    }
    let response = match created.operation.state {
        OperationState::Succeeded if call.patience().is_some() => active(&call, &created).await?,
        _ => accepted(&created.operation)?,
    };
    let response = match call.patience() {
        Some(patience) => {
            let applied = format!("wait={}", patience.as_secs());
            with_header(response, HeaderName::from_static("preference-applied"), &applied)?
        }
        None => response,
    };
    replayed(response, created.replayed)
}

/// 201 with the tenant as it is by now. Whoever may create may see what they created.
async fn active(call: &Call, created: &Created) -> Result {
    let tenant = call.control().tenant(&Caller::system(), &created.tenant.id.to_string()).await?;
    let response = tagged(StatusCode::CREATED, &tenant)?;
    with_header(response, LOCATION, &format!("/v1/tenants/{}", tenant.id))
}

/// 202 with the operation that goes on.
pub(super) fn accepted(operation: &OperationView) -> Result {
    with_header(
        answer(StatusCode::ACCEPTED, operation)?,
        LOCATION,
        &format!("/v1/operations/{}", operation.id),
    )
}

async fn list(call: Call, caller: Caller) -> Result {
    let query = TenantQuery { status: call.value("status"), plan: call.param("plan").map(str::to_owned) };
    answer(StatusCode::OK, &call.control().tenants(&caller, &query, &call.page()?).await?)
}

async fn get(call: Call, caller: Caller) -> Result {
    tagged(StatusCode::OK, &call.control().tenant(&caller, call.segment("id")).await?)
}

async fn update(call: Call, caller: Caller) -> Result {
    let tenant = call.control().tenant(&caller, call.segment("id")).await?;
    if !is_match(call.header("if-match")?.unwrap_or_default(), tenant.version) {
        let detail = format!("the tenant has version {} by now; read it again", tenant.version);
        return Err(Problem::new(StatusCode::PRECONDITION_FAILED, "version_mismatch", detail));
    }
    let id = tenant.id.to_string();
    tagged(StatusCode::OK, &call.control().update_tenant(&caller, &id, &call.body, tenant.version).await?)
}

async fn provision(call: Call, caller: Caller) -> Result {
    let key = call.idempotency_key.clone();
    let begun = call.control().provision_again(&caller, call.segment("id"), key).await?;
    replayed(accepted(&begun.value)?, begun.replayed)
}

async fn clone(call: Call, caller: Caller) -> Result {
    let (key, what) = (call.idempotency_key.clone(), call.read::<CloneTenant>()?);
    let created = call.control().clone_tenant(&caller, call.segment("id"), what, key).await?;
    replayed(accepted(&created.operation)?, created.replayed)
}

async fn repair(call: Call, caller: Caller) -> Result {
    let (key, what) = (call.idempotency_key.clone(), call.read::<RepairTenant>()?);
    let begun = call.control().repair(&caller, call.segment("id"), &what, key).await?;
    replayed(accepted(&begun.value)?, begun.replayed)
}

async fn rotate_credentials(call: Call, caller: Caller) -> Result {
    let (key, what) = (call.idempotency_key.clone(), call.read::<RotateCredentials>()?);
    let begun = call.control().rotate_credentials(&caller, call.segment("id"), what, key).await?;
    replayed(accepted(&begun.value)?, begun.replayed)
}

async fn suspend(call: Call, caller: Caller) -> Result {
    let (key, what) = (call.idempotency_key.clone(), call.read::<SuspendTenant>()?);
    let done = call.control().suspend(&caller, call.segment("id"), what, key).await?;
    standing(&done)
}

async fn resume(call: Call, caller: Caller) -> Result {
    let (key, what) = (call.idempotency_key.clone(), call.read::<ResumeTenant>()?);
    let done = call.control().resume(&caller, call.segment("id"), what, key).await?;
    standing(&done)
}

fn standing(done: &Answered<StandingView>) -> Result {
    let answer = answer(StatusCode::OK, &done.value)?;
    replayed(with_header(answer, ETAG, &etag(&done.value.tenant))?, done.replayed)
}

fn etag(tenant: &TenantView) -> String {
    format!("\"{}\"", tenant.version)
}

async fn offboard(call: Call, caller: Caller) -> Result {
    let (key, what) = (call.idempotency_key.clone(), call.read::<OffboardTenant>()?);
    let begun = call.control().offboard(&caller, call.segment("id"), &what, key).await?;
    replayed(accepted(&begun.value)?, begun.replayed)
}

async fn reconsider(call: Call, caller: Caller) -> Result {
    let key = call.idempotency_key.clone();
    let done = call.control().reconsider(&caller, call.segment("id"), key).await?;
    replayed(tagged(StatusCode::OK, &done.value)?, done.replayed)
}

async fn erase(call: Call, caller: Caller) -> Result {
    let (key, what) = (call.idempotency_key.clone(), call.read::<EraseTenant>()?);
    let begun = call.control().erase(&caller, call.segment("id"), &what, key).await?;
    replayed(accepted(&begun.value)?, begun.replayed)
}

fn tagged(status: StatusCode, tenant: &TenantView) -> Result {
    with_header(answer(status, tenant)?, ETAG, &etag(tenant))
}

/// Strong comparison (RFC 9110 §8.8.3.2) of If-Match's tags with a version.
fn is_match(header: &str, version: i64) -> bool {
    let tag = format!("\"{version}\"");
    header.split(',').map(str::trim).any(|given| given == "*" || given == tag)
}

#[cfg(test)]
mod tests {
    use super::is_match;

    #[test]
    fn tags_are_compared_strongly() {
        assert!(is_match("\"3\"", 3) && is_match("\"1\", \"3\"", 3) && is_match("*", 3));
        for no in ["", "3", "\"4\"", "W/\"3\"", "\"33\""] {
            assert!(!is_match(no, 3), "{no}");
        }
    }
}
