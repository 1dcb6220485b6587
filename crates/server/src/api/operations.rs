//! `/v1/operations`: lists, follows and controls operations.

use axum::http::{Method, StatusCode};
use axum::response::IntoResponse;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use tenantry_control::OperationQuery;
use tenantry_control::access::{Caller, Permission};
use tenantry_control::view::{CredentialView, OperationView, Page};
use tenantry_engine::SignalKind;
use tenantry_model::id::OperationId;

use super::call::{Call, answer, replayed};
use super::problem::Result;
use super::route::{
    CURSOR, EVENT_STREAM, IDEMPOTENCY_KEY, JSON, LAST_EVENT_ID, LIMIT, Param, REPLAYED, Route, key,
};
use super::shares::Kind;
use super::stream;

const STATES: [&str; 7] =
    ["running", "paused", "rolling_back", "needs_attention", "succeeded", "rolled_back", "cancelled"];

const STATE: Param = Param {
    name: "state",
    about: "Only operations in this state.",
    schema: || json!({ "type": "string", "enum": STATES }),
    check: |text| {
        if STATES.contains(&text) { Ok(()) } else { Err(format!("must be one of {}", STATES.join(", "))) }
    },
    required: false,
};
const TENANT: Param = Param::text("tenant", "Only operations of this tenant, by id or slug.");

/// A step of the operation.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct StepChoice {
    /// Key of the step.
    #[schemars(length(min = 1, max = 63))]
    step: String,
}

/// A step of the operation and a reason.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct StepRefusal {
    /// Key of the step.
    #[schemars(length(min = 1, max = 63))]
    step: String,
    /// Reason, for the audit trail.
    #[schemars(length(min = 1, max = 500))]
    reason: String,
}

/// The secrets of an operation.
#[derive(serde::Serialize, JsonSchema)]
struct Credentials {
    /// Secrets; each is revealed once.
    credentials: Vec<CredentialView>,
}

/// The routes of this resource.
pub fn routes() -> Vec<Route> {
    use Permission as P;
    let command = |path, id, summary, access| {
        Route::new(Method::POST, path, id, summary, access)
            .header(&[IDEMPOTENCY_KEY])
            .gives::<OperationView>(StatusCode::OK, "The updated operation.")
            .having(&[REPLAYED])
            .fails(&[404, 409])
    };
    vec![
        Route::new(
            Method::GET,
            "/v1/operations",
            "list_operations",
            "List operations, newest first",
            key(P::ListOperations, list),
        )
        .query(&[LIMIT, CURSOR, STATE, TENANT])
        .gives::<Page<OperationView>>(StatusCode::OK, "Page of operations.")
        .fails(&[404]),
        Route::new(
            Method::GET,
            "/v1/operations/{id}",
            "get_operation",
            "Get an operation, or follow it as a stream",
            key(P::ReadOperations, get),
        )
        .header(&[LAST_EVENT_ID])
        .gives::<OperationView>(StatusCode::OK, "The operation; as a stream, each change until it is done.")
        .gives_as::<OperationView>(StatusCode::OK, Some(EVENT_STREAM), "")
        .fails(&[404]),
        Route::new(
            Method::GET,
            "/v1/operations/{id}/events",
            "follow_operation",
            "Follow an operation: a message for each change until it is done",
            key(P::ReadOperations, follow),
        )
        .header(&[LAST_EVENT_ID])
        .gives_as::<OperationView>(
            StatusCode::OK,
            Some(EVENT_STREAM),
            "The operation after each change; the message id is its version.",
        )
        .gives_as::<()>(
            StatusCode::NO_CONTENT,
            None,
            "The operation is done, and the client has its last \
                                                       version.",
        )
        .fails(&[404]),
        command(
            "/v1/operations/{id}/pause",
            "pause_operation",
            "Pause an operation: running attempts finish, no new ones start",
            signal(|_| Ok(SignalKind::Pause)),
        ),
        command(
            "/v1/operations/{id}/resume",
            "resume_operation",
            "Resume a paused operation",
            signal(|_| Ok(SignalKind::Resume)),
        ),
        command(
            "/v1/operations/{id}/cancel",
            "cancel_operation",
            "Cancel an operation and roll it back",
            signal(|_| Ok(SignalKind::Cancel)),
        ),
        command(
            "/v1/operations/{id}/retry",
            "retry_operation",
            "Retry the failed steps of an operation",
            signal(|_| Ok(SignalKind::Retry)),
        ),
        command(
            "/v1/operations/{id}/skip",
            "skip_step",
            "Skip a step permanently",
            signal(|call| call.read().map(|StepRefusal { step, reason }| SignalKind::Skip { step, reason })),
        )
        .reads::<StepRefusal>(JSON),
        command(
            "/v1/operations/{id}/approve",
            "approve_step",
            "Approve a step that waits for approval",
            signal(|call| call.read().map(|StepChoice { step }| SignalKind::Approve { step })),
        )
        .reads::<StepChoice>(JSON),
        command(
            "/v1/operations/{id}/reject",
            "reject_step",
            "Reject a step that waits for approval; the operation is rolled back",
            signal(|call| {
                call.read().map(|StepRefusal { step, reason }| SignalKind::Reject { step, reason })
            }),
        )
        .reads::<StepRefusal>(JSON),
        Route::new(
            Method::POST,
            "/v1/operations/{id}/credentials",
            "claim_credentials",
            "Claim the secrets of an operation, once",
            key(P::ClaimCredentials, claim),
        )
        .about(
            "Each secret is revealed once. `Idempotency-Key` has no effect here: a second request gets 410, \
             even if the first response was lost.",
        )
        .gives::<Credentials>(StatusCode::OK, "The secrets. They are not revealed again.")
        .fails(&[404, 409, 410]),
    ]
}

fn signal(kind: impl Fn(&Call) -> Result<SignalKind> + Copy + Send + Sync + 'static) -> super::route::Access {
    key(Permission::SignalOperations, move |call: Call, caller: Caller| async move {
        let (id, kind) = (id(&call)?, kind(&call)?);
        let signalled = call.control().signal(&caller, id, kind, call.idempotency_key.clone()).await?;
        replayed(answer(StatusCode::OK, &signalled.value)?, signalled.replayed)
    })
}

fn id(call: &Call) -> Result<OperationId> {
    call.id("operation")
}

async fn list(call: Call, caller: Caller) -> Result {
    let query =
        OperationQuery { tenant: call.param("tenant").map(str::to_owned), state: call.value("state") };
    answer(StatusCode::OK, &call.control().operations(&caller, &query, &call.page()?).await?)
}

async fn get(call: Call, caller: Caller) -> Result {
    if call.media == EVENT_STREAM {
        return follow(call, caller).await;
    }
    answer(StatusCode::OK, &call.control().operation(&caller, id(&call)?).await?)
}

async fn follow(call: Call, caller: Caller) -> Result {
    call.becomes(Kind::Streams)?;
    let (id, seen) = (id(&call)?, call.last_event_id()?);
    let changes = call.control().follow(id);
    let now = call.control().operation(&caller, id).await?;
    if now.done && seen >= Some(now.version) {
        // 204 is the only response after which an EventSource does not reconnect.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    Ok(stream::operation(call.app.clone(), caller, now, changes, seen).into_response())
}

async fn claim(call: Call, caller: Caller) -> Result {
    let credentials = call.control().claim_credentials(&caller, id(&call)?).await?;
    answer(StatusCode::OK, &Credentials { credentials })
}
