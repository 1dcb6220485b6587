//! `/v1/tenants`: creates, reads and labels tenants, and begins operations on them.

use std::collections::BTreeMap;
use tenantry_model::ErrorCode;

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
use tenantry_control::view::{OperationView, Page, PlannedView, SuspensionView, TenantView};
use tenantry_control::{Answered, Created, TenantQuery};
use tenantry_engine::OperationState;
use tenantry_model::TenantStatus;

use super::call::{Call, answer, replayed, with_header};
use super::problem::{Problem, Result};
use super::route::{CURSOR, IDEMPOTENCY_KEY, JSON, LIMIT, MERGE_PATCH, Param, REPLAYED, Route, key};

const DRY_RUN: Param = Param {
    name: "dry_run",
    about: "`true` returns the plan of the operation without creating the tenant.",
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
const PREFER: Param =
    Param::text("Prefer", "`wait=N` responds once the tenant is active, or after N seconds (at most 60).");
const IF_MATCH: Param =
    Param::text("If-Match", "the tenant's ETag as last read, so that no concurrent change is overwritten")
        .needed();
const CREATED: &[(&str, &str)] = &[
    ("Location", "The operation, or the tenant once it is active."),
    ("Preference-Applied", "Applied `wait`."),
    REPLAYED,
];
const OPERATION_HEADERS: &[(&str, &str)] = &[("Location", "The operation."), REPLAYED];
const TAGGED: &[(&str, &str)] = &[("ETag", "The tenant's version, for `If-Match`.")];

/// The fields of a tenant that can be changed directly.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct TenantPatch {
    /// Labels to set; null removes one.
    #[schemars(extend("maxProperties" = 64))]
    #[expect(dead_code, reason = "only for the schema; the control plane reads the patch itself")]
    labels: Option<BTreeMap<String, Option<String>>>,
}

/// The routes of this resource.
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
        .gives::<OperationView>(StatusCode::ACCEPTED, "The onboarding.")
        .having(CREATED)
        .gives::<TenantView>(StatusCode::CREATED, "The active tenant, if `Prefer: wait` was long enough.")
        .having(CREATED)
        .gives::<PlannedView>(StatusCode::OK, "With `dry_run`: the plan of the onboarding.")
        .fails(&[409]),
        Route::new(
            Method::GET,
            "/v1/tenants",
            "list_tenants",
            "List tenants, newest first",
            key(P::ReadTenants, list),
        )
        .query(&[LIMIT, CURSOR, STATUS, PLAN])
        .gives::<Page<TenantView>>(StatusCode::OK, "Page of tenants."),
        Route::new(
            Method::GET,
            "/v1/tenants/{id}",
            "get_tenant",
            "Get a tenant by id or slug",
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
        .gives::<TenantView>(StatusCode::OK, "The updated tenant.")
        .having(TAGGED)
        .fails(&[404, 412, 428]),
        Route::new(
            Method::POST,
            "/v1/tenants/{id}/provision",
            "provision_tenant",
            "Retry onboarding after a rollback",
            key(P::WriteTenants, provision),
        )
        .header(&[IDEMPOTENCY_KEY])
        .gives::<OperationView>(StatusCode::ACCEPTED, "The onboarding.")
        .having(OPERATION_HEADERS)
        .fails(&[404, 409]),
        Route::new(
            Method::POST,
            "/v1/tenants/{id}/clones",
            "clone_tenant",
            "Clone a tenant into a sandbox with masked data",
            key(P::WriteTenants, clone),
        )
        .about(
            "The clone is a separate tenant on the same plan and in the same region. Rows are masked while \
             they are copied, by the template's masks and the request's; members, settings and billing are \
             not copied.",
        )
        .header(&[IDEMPOTENCY_KEY])
        .reads::<CloneTenant>(JSON)
        .gives::<OperationView>(StatusCode::ACCEPTED, "The onboarding of the clone.")
        .having(OPERATION_HEADERS)
        .fails(&[404, 409]),
        Route::new(
            Method::POST,
            "/v1/tenants/{id}/repair",
            "repair_tenant",
            "Reconcile a tenant's resources with the plan of its onboarding",
            key(P::WriteTenants, repair),
        )
        .about("Resources that match it are not changed. A repair is never rolled back.")
        .header(&[IDEMPOTENCY_KEY])
        .reads::<RepairTenant>(JSON)
        .gives::<OperationView>(StatusCode::ACCEPTED, "The operation.")
        .having(OPERATION_HEADERS)
        .fails(&[404, 409]),
        Route::new(
            Method::POST,
            "/v1/tenants/{id}/rotate-credentials",
            "rotate_credentials",
            "Rotate the credentials of a tenant's applications",
            key(P::WriteTenants, rotate_credentials),
        )
        .about(
            "Replaces the secrets of direct database access, such as the password of a PostgreSQL role. \
             `POST /v1/operations/{id}/credentials` reveals the new secrets once. The old ones stay valid \
             for the grace period; with 0 hours, they are invalidated and their sessions ended at once.",
        )
        .header(&[IDEMPOTENCY_KEY])
        .reads::<RotateCredentials>(JSON)
        .gives::<OperationView>(StatusCode::ACCEPTED, "The operation.")
        .having(OPERATION_HEADERS)
        .fails(&[404, 409]),
        Route::new(
            Method::POST,
            "/v1/tenants/{id}/suspend",
            "suspend_tenant",
            "Suspend a tenant for a reason",
            key(P::WriteTenants, suspend),
        )
        .about(
            "Applies from the next request on, also to tokens issued before. All data and resources are \
             kept. Each reason is cleared separately; the strictest mode applies.",
        )
        .header(&[IDEMPOTENCY_KEY])
        .reads::<SuspendTenant>(JSON)
        .gives::<SuspensionView>(
            StatusCode::OK,
            "The tenant, and the fences that have acknowledged the \
                                                suspension.",
        )
        .having(&[REPLAYED])
        .fails(&[404, 409]),
        Route::new(
            Method::POST,
            "/v1/tenants/{id}/resume",
            "resume_tenant",
            "Clear one reason for a tenant's suspension, or all",
            key(P::WriteTenants, resume),
        )
        .about(
            "The tenant becomes active once no reason is left. Its resources were kept, so none is created \
             again.",
        )
        .header(&[IDEMPOTENCY_KEY])
        .reads::<ResumeTenant>(JSON)
        .gives::<SuspensionView>(
            StatusCode::OK,
            "The tenant, and the fences that have acknowledged the \
                                                change.",
        )
        .having(&[REPLAYED])
        .fails(&[404, 409]),
        Route::new(
            Method::POST,
            "/v1/tenants/{id}/offboard",
            "offboard_tenant",
            "Offboard a tenant: end its access, and delete its data after a hold",
            key(P::WriteTenants, offboard),
        )
        .about(
            "The server denies access from the response on; direct database access ends when its provider \
             has applied the fence. Billing ends after the final export, with a credit for the unused period. \
             During the hold, `reconsider` restores access and `erase` deletes at once.",
        )
        .header(&[IDEMPOTENCY_KEY])
        .reads::<OffboardTenant>(JSON)
        .gives::<OperationView>(StatusCode::ACCEPTED, "The operation.")
        .having(OPERATION_HEADERS)
        .fails(&[404, 409]),
        Route::new(
            Method::POST,
            "/v1/tenants/{id}/reconsider",
            "reconsider_tenant",
            "Stop the offboarding of a tenant in its hold",
            key(P::WriteTenants, reconsider),
        )
        .about(
            "The tenant becomes active, or suspended if reasons for a suspension remain. Its data was not \
             changed.",
        )
        .header(&[IDEMPOTENCY_KEY])
        .gives::<TenantView>(StatusCode::OK, "The updated tenant.")
        .having(&[REPLAYED])
        .fails(&[404, 409]),
        Route::new(
            Method::POST,
            "/v1/tenants/{id}/erase",
            "erase_tenant",
            "Delete a tenant at once and permanently (GDPR Art. 17)",
            key(P::WriteTenants, erase),
        )
        .about(
            "The server denies access from the response on. The operation supersedes all other operations of \
             the tenant and cannot be undone. For a tenant that is being or was erased, the response is that \
             operation. The reason is kept forever.",
        )
        .header(&[IDEMPOTENCY_KEY])
        .reads::<EraseTenant>(JSON)
        .gives::<OperationView>(StatusCode::ACCEPTED, "The operation.")
        .having(OPERATION_HEADERS)
        .fails(&[404, 409]),
    ]
}

async fn create(call: Call, caller: Caller) -> Result {
    if call.param("dry_run") == Some("true") {
        return answer(StatusCode::OK, &call.control().plan_tenant(&caller, &call.body).await?);
    }
    let mut created = call.control().create_tenant(&caller, &call.body, call.idempotency_key.clone()).await?;
    let wait = call.preferred_wait();
    if let Some(wait) = wait
        && !created.operation.done
    {
        // A shutdown ends the wait; the next process continues the operation.
        tokio::select! {
            waited = call.control().wait(&caller, created.operation.id, wait) => created.operation = waited?,
            () = call.app.draining.cancelled() => {}
        }
    }
    let response = match created.operation.state {
        OperationState::Succeeded if wait.is_some() => active(&call, &created).await?,
        _ => accepted(&created.operation)?,
    };
    let response = match wait {
        Some(wait) => {
            let applied = format!("wait={}", wait.as_secs());
            with_header(response, HeaderName::from_static("preference-applied"), &applied)?
        }
        None => response,
    };
    replayed(response, created.replayed)
}

/// 201 with the active tenant. A caller with permission to create tenants may read this one.
async fn active(call: &Call, created: &Created) -> Result {
    let tenant = call.control().tenant(&Caller::system(), &created.tenant.id.to_string()).await?;
    let response = tagged(StatusCode::CREATED, &tenant)?;
    with_header(response, LOCATION, &format!("/v1/tenants/{}", tenant.id))
}

/// 202 with the operation.
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
        let detail = format!("the tenant was changed: it has version {}; read it again", tenant.version);
        return Err(Problem::new(ErrorCode::VersionMismatch, detail));
    }
    let id = tenant.id.to_string();
    tagged(StatusCode::OK, &call.control().update_tenant(&caller, &id, &call.body, tenant.version).await?)
}

async fn provision(call: Call, caller: Caller) -> Result {
    let key = call.idempotency_key.clone();
    let begun = call.control().retry_onboarding(&caller, call.segment("id"), key).await?;
    replayed(accepted(&begun.value)?, begun.replayed)
}

async fn clone(call: Call, caller: Caller) -> Result {
    let (key, request) = (call.idempotency_key.clone(), call.read::<CloneTenant>()?);
    let created = call.control().clone_tenant(&caller, call.segment("id"), request, key).await?;
    replayed(accepted(&created.operation)?, created.replayed)
}

async fn repair(call: Call, caller: Caller) -> Result {
    let (key, request) = (call.idempotency_key.clone(), call.read::<RepairTenant>()?);
    let begun = call.control().repair(&caller, call.segment("id"), &request, key).await?;
    replayed(accepted(&begun.value)?, begun.replayed)
}

async fn rotate_credentials(call: Call, caller: Caller) -> Result {
    let (key, request) = (call.idempotency_key.clone(), call.read::<RotateCredentials>()?);
    let begun = call.control().rotate_credentials(&caller, call.segment("id"), request, key).await?;
    replayed(accepted(&begun.value)?, begun.replayed)
}

async fn suspend(call: Call, caller: Caller) -> Result {
    let (key, request) = (call.idempotency_key.clone(), call.read::<SuspendTenant>()?);
    let done = call.control().suspend(&caller, call.segment("id"), request, key).await?;
    suspension(&done)
}

async fn resume(call: Call, caller: Caller) -> Result {
    let (key, request) = (call.idempotency_key.clone(), call.read::<ResumeTenant>()?);
    let done = call.control().resume(&caller, call.segment("id"), request, key).await?;
    suspension(&done)
}

fn suspension(done: &Answered<SuspensionView>) -> Result {
    let answer = answer(StatusCode::OK, &done.value)?;
    replayed(with_header(answer, ETAG, &etag(&done.value.tenant))?, done.replayed)
}

fn etag(tenant: &TenantView) -> String {
    format!("\"{}\"", tenant.version)
}

async fn offboard(call: Call, caller: Caller) -> Result {
    let (key, request) = (call.idempotency_key.clone(), call.read::<OffboardTenant>()?);
    let begun = call.control().offboard(&caller, call.segment("id"), &request, key).await?;
    replayed(accepted(&begun.value)?, begun.replayed)
}

async fn reconsider(call: Call, caller: Caller) -> Result {
    let key = call.idempotency_key.clone();
    let done = call.control().reconsider(&caller, call.segment("id"), key).await?;
    replayed(tagged(StatusCode::OK, &done.value)?, done.replayed)
}

async fn erase(call: Call, caller: Caller) -> Result {
    let (key, request) = (call.idempotency_key.clone(), call.read::<EraseTenant>()?);
    let begun = call.control().erase(&caller, call.segment("id"), &request, key).await?;
    replayed(accepted(&begun.value)?, begun.replayed)
}

fn tagged(status: StatusCode, tenant: &TenantView) -> Result {
    with_header(answer(status, tenant)?, ETAG, &etag(tenant))
}

/// Whether `If-Match` names this version, by strong comparison (RFC 9110 §8.8.3.2).
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
