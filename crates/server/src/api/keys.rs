//! `/v1/keys`: API keys. A secret is shown in the answer that made it, and never again.

use axum::http::{Method, StatusCode};
use tenantry_control::access::{Caller, Permission};
use tenantry_control::keys::CreateKey;
use tenantry_control::view::{KeyView, NewKeyView, Page};

use super::call::{Call, answer, replayed};
use super::problem::Result;
use super::route::{CURSOR, IDEMPOTENCY_KEY, JSON, LIMIT, REPLAYED, Route, key};

/// The lines of the table.
pub fn routes() -> Vec<Route> {
    let needs = Permission::ManageKeys;
    vec![
        Route::new(Method::POST, "/v1/keys", "create_key", "Create an API key", key(needs, create))
            .about(
                "The secret is in the first answer alone. Sent again under the same `Idempotency-Key`, the answer is the \
                 same API key without its secret: if the first answer was lost, revoke the key and create another.",
            )
            .header(&[IDEMPOTENCY_KEY])
            .reads::<CreateKey>(JSON)
            .gives::<NewKeyView>(StatusCode::CREATED, "The key with its secret, shown this once.")
            .having(&[REPLAYED])
            .fails(&[404]),
        Route::new(Method::GET, "/v1/keys", "list_keys", "List API keys, newest first", key(needs, list))
            .query(&[LIMIT, CURSOR])
            .gives::<Page<KeyView>>(StatusCode::OK, "A page."),
        Route::new(
            Method::POST,
            "/v1/keys/{id}/revoke",
            "revoke_key",
            "End an API key at once",
            key(needs, revoke),
        )
        .header(&[IDEMPOTENCY_KEY])
        .gives::<KeyView>(StatusCode::OK, "The key as it is now.")
        .having(&[REPLAYED])
        .fails(&[404]),
    ]
}

async fn create(call: Call, caller: Caller) -> Result {
    let made = call.control().create_key(&caller, &call.body, call.idempotency_key.clone()).await?;
    replayed(answer(StatusCode::CREATED, &made.value)?, made.replayed)
}

async fn list(call: Call, caller: Caller) -> Result {
    answer(StatusCode::OK, &call.control().keys(&caller, &call.page()?).await?)
}

async fn revoke(call: Call, caller: Caller) -> Result {
    let ended = call.control().revoke_key(&caller, call.id("key")?, call.idempotency_key.clone()).await?;
    replayed(answer(StatusCode::OK, &ended.value)?, ended.replayed)
}
