//! `/v1/operations`: following what is being done, live or by asking, and stepping in.

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

/// Which step.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct StepChoice {
    /// The step's key.
    #[schemars(length(min = 1, max = 63))]
    step: String,
}

/// Which step, and why.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct StepRefusal {
    /// The step's key.
    #[schemars(length(min = 1, max = 63))]
    step: String,
    /// Why; it is audited.
    #[schemars(length(min = 1, max = 500))]
    reason: String,
}

/// The secrets that an operation made.
#[derive(serde::Serialize, JsonSchema)]
struct Credentials {
    /// Each is handed out this once.
    credentials: Vec<CredentialView>,
}

/// The lines of the table.
pub fn routes() -> Vec<Route> {
    use Permission as P;
    let ask = |path, id, summary, access| {
        Route::new(Method::POST, path, id, summary, access)
            .header(&[IDEMPOTENCY_KEY])
            .gives::<OperationView>(StatusCode::OK, "What has become of it.")
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
        .gives::<Page<OperationView>>(StatusCode::OK, "A page.")
        .fails(&[404]),
        Route::new(
            Method::GET,
            "/v1/operations/{id}",
            "get_operation",
            "Read an operation, or follow it live",
            key(P::ReadOperations, get),
        )
        .header(&[LAST_EVENT_ID])
        .gives::<OperationView>(
            StatusCode::OK,
            "The operation; as a stream, each change of it until it is done.",
        )
        .gives_as::<OperationView>(StatusCode::OK, Some(EVENT_STREAM), "")
        .fails(&[404]),
        Route::new(
            Method::GET,
            "/v1/operations/{id}/events",
            "follow_operation",
            "Follow an operation live: a message for each change, until it is done",
            key(P::ReadOperations, follow),
        )
        .header(&[LAST_EVENT_ID])
        .gives_as::<OperationView>(
            StatusCode::OK,
            Some(EVENT_STREAM),
            "The operation after each change; `id` is its version.",
        )
        .gives_as::<()>(StatusCode::NO_CONTENT, None, "It is done, and the client has seen that.")
        .fails(&[404]),
        ask(
            "/v1/operations/{id}/pause",
            "pause_operation",
            "Start nothing new",
            signal(|_| Ok(SignalKind::Pause)),
        ),
        ask(
            "/v1/operations/{id}/resume",
            "resume_operation",
            "Go on after a pause",
            signal(|_| Ok(SignalKind::Resume)),
        ),
        ask(
            "/v1/operations/{id}/cancel",
            "cancel_operation",
            "End it and undo what it made",
            signal(|_| Ok(SignalKind::Cancel)),
        ),
        ask(
            "/v1/operations/{id}/retry",
            "retry_operation",
            "Try the failed steps again",
            signal(|_| Ok(SignalKind::Retry)),
        ),
        ask(
            "/v1/operations/{id}/skip",
            "skip_step",
            "Leave a step out for good",
            signal(|call| call.read().map(|StepRefusal { step, reason }| SignalKind::Skip { step, reason })),
        )
        .reads::<StepRefusal>(JSON),
        ask(
            "/v1/operations/{id}/approve",
            "approve_step",
            "Let a step go on that waits for approval",
            signal(|call| call.read().map(|StepChoice { step }| SignalKind::Approve { step })),
        )
        .reads::<StepChoice>(JSON),
        ask(
            "/v1/operations/{id}/reject",
            "reject_step",
            "Refuse a step that waits for approval: the operation is rolled back",
            signal(|call| {
                call.read().map(|StepRefusal { step, reason }| SignalKind::Reject { step, reason })
            }),
        )
        .reads::<StepRefusal>(JSON),
        Route::new(
            Method::POST,
            "/v1/operations/{id}/credentials",
            "claim_credentials",
            "Take the secrets that an operation made, once",
            key(P::ClaimCredentials, claim),
        )
        .about(
            "Each secret is handed out once. An `Idempotency-Key` is not replayed here: who asks again gets 410, whatever \
             the key, also when the first answer was lost.",
        )
        .gives::<Credentials>(StatusCode::OK, "The secrets. They are not handed out again.")
        .fails(&[404, 409, 410]),
    ]
}

fn signal(kind: impl Fn(&Call) -> Result<SignalKind> + Copy + Send + Sync + 'static) -> super::route::Access {
    key(Permission::SignalOperations, move |call: Call, caller: Caller| async move {
        let (id, kind) = (id(&call)?, kind(&call)?);
        let asked = call.control().signal(&caller, id, kind, call.idempotency_key.clone()).await?;
        replayed(answer(StatusCode::OK, &asked.value)?, asked.replayed)
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
    let (id, seen) = (id(&call)?, call.last_event_id()?);
    let changes = call.control().follow(id);
    let now = call.control().operation(&caller, id).await?;
    if now.done && seen >= Some(now.version) {
        // The one answer that keeps an EventSource from coming back.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    Ok(stream::operation(call.app.clone(), caller, now, changes, seen).into_response())
}

async fn claim(call: Call, caller: Caller) -> Result {
    let credentials = call.control().claim_credentials(&caller, id(&call)?).await?;
    answer(StatusCode::OK, &Credentials { credentials })
}
