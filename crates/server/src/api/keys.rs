//! `/v1/keys`: creates, lists and revokes API keys. A key's secret is revealed once, when the key is created.

use axum::http::{Method, StatusCode};
use tenantry_control::access::{Caller, Permission};
use tenantry_control::keys::CreateKey;
use tenantry_control::view::{KeyView, NewKeyView, Page};

use super::call::{Call, answer, replayed};
use super::problem::Result;
use super::route::{CURSOR, IDEMPOTENCY_KEY, JSON, LIMIT, REPLAYED, Route, key};

/// The routes of this resource.
pub fn routes() -> Vec<Route> {
    let needs = Permission::ManageKeys;
    vec![
        Route::new(Method::POST, "/v1/keys", "create_key", "Create an API key", key(needs, create))
            .about(
                "Only the first response contains the secret. A repeated request with the same \
                 `Idempotency-Key` returns the key without it: if the first response was lost, revoke the \
                 key and create another one.",
            )
            .header(&[IDEMPOTENCY_KEY])
            .reads::<CreateKey>(JSON)
            .gives::<NewKeyView>(StatusCode::CREATED, "The key with its secret.")
            .having(&[REPLAYED])
            .fails(&[404]),
        Route::new(Method::GET, "/v1/keys", "list_keys", "List API keys, newest first", key(needs, list))
            .query(&[LIMIT, CURSOR])
            .gives::<Page<KeyView>>(StatusCode::OK, "Page of keys."),
        Route::new(
            Method::POST,
            "/v1/keys/{id}/revoke",
            "revoke_key",
            "Revoke an API key at once",
            key(needs, revoke),
        )
        .header(&[IDEMPOTENCY_KEY])
        .gives::<KeyView>(StatusCode::OK, "The revoked key.")
        .having(&[REPLAYED])
        .fails(&[404]),
    ]
}

async fn create(call: Call, caller: Caller) -> Result {
    let created = call.control().create_key(&caller, &call.body, call.idempotency_key.clone()).await?;
    replayed(answer(StatusCode::CREATED, &created.value)?, created.replayed)
}

async fn list(call: Call, caller: Caller) -> Result {
    answer(StatusCode::OK, &call.control().keys(&caller, &call.page()?).await?)
}

async fn revoke(call: Call, caller: Caller) -> Result {
    let revoked = call.control().revoke_key(&caller, call.id("key")?, call.idempotency_key.clone()).await?;
    replayed(answer(StatusCode::OK, &revoked.value)?, revoked.replayed)
}
