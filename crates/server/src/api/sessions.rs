//! Members' sessions: `/auth/sessions` with a member's token, `/v1/tenants/{id}/sessions` and `/v1/sessions` with an API key,
//! and signing out.

use axum::http::{Method, StatusCode};
use axum::response::IntoResponse;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use tenantry_control::TenantSession;
use tenantry_control::access::{Caller, Permission};
use tenantry_control::members::sessions::SessionView;
use tenantry_control::view::Page;

use super::call::{Call, answer, replayed};
use super::problem::Result;
use super::route::{CURSOR, IDEMPOTENCY_KEY, LIMIT, Param, REPLAYED, Route, key, public, token};

/// `?all=`
const ALL: Param = Param {
    name: "all",
    about: "`true`: sessions of all members of the tenant. Needs a role with the permission `users:write`.",
    schema: || json!({ "type": "boolean", "default": false }),
    check: |text| match text {
        "true" | "false" => Ok(()),
        _ => Err("must be true or false".to_owned()),
    },
    required: false,
};

/// A refresh token whose session ends (RFC 7009).
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SignOut {
    /// The refresh token.
    #[schemars(length(min = 1, max = 255))]
    token: String,
    /// Kind of the token, which is ignored.
    #[serde(default)]
    #[schemars(length(max = 255))]
    #[expect(dead_code, reason = "clients may send it; only refresh tokens are taken")]
    token_type_hint: Option<String>,
}

/// The routes of this resource.
pub fn routes() -> Vec<Route> {
    vec![
        Route::new(
            Method::POST,
            "/auth/revoke",
            "sign_out",
            "Sign out: end the session of a refresh token",
            public(sign_out),
        )
        .about(
            "RFC 7009. The session's refresh and access tokens stop working here at once; services that verify access \
             tokens by themselves accept them for up to 300 seconds. An unknown token is no error.",
        )
        .reads_form::<SignOut>()
        .gives_as::<()>(StatusCode::OK, None, "The session has ended."),
        Route::new(
            Method::GET,
            "/auth/sessions",
            "list_own_sessions",
            "List the member's sessions, newest first",
            token(list_own),
        )
        .query(&[ALL, LIMIT, CURSOR])
        .gives::<Page<SessionView>>(StatusCode::OK, "Page of sessions."),
        Route::new(
            Method::POST,
            "/auth/sessions/{id}/revoke",
            "revoke_own_session",
            "End a session of the member at once",
            token(revoke_own),
        )
        .about("A role with the permission `users:write` ends sessions of all members of the tenant.")
        .gives::<SessionView>(StatusCode::OK, "The ended session.")
        .fails(&[404]),
        Route::new(
            Method::GET,
            "/v1/tenants/{id}/sessions",
            "list_sessions",
            "List sessions of a tenant's members, newest first",
            key(Permission::ReadTenants, list),
        )
        .query(&[LIMIT, CURSOR])
        .gives::<Page<SessionView>>(StatusCode::OK, "Page of sessions.")
        .fails(&[404]),
        Route::new(
            Method::POST,
            "/v1/sessions/{id}/revoke",
            "revoke_session",
            "End a session at once",
            key(Permission::WriteTenants, revoke),
        )
        .header(&[IDEMPOTENCY_KEY])
        .gives::<SessionView>(StatusCode::OK, "The ended session.")
        .having(&[REPLAYED])
        .fails(&[404]),
    ]
}

async fn sign_out(call: Call) -> Result {
    call.control().sign_out(&call.read::<SignOut>()?.token).await?;
    Ok(StatusCode::OK.into_response())
}

async fn list_own(call: Call, session: TenantSession) -> Result {
    let all = call.param("all") == Some("true");
    answer(StatusCode::OK, &call.control().own_sessions(&session, all, &call.page()?).await?)
}

async fn revoke_own(call: Call, session: TenantSession) -> Result {
    answer(StatusCode::OK, &call.control().revoke_own_session(&session, call.id("session")?).await?)
}

async fn list(call: Call, caller: Caller) -> Result {
    answer(StatusCode::OK, &call.control().sessions(&caller, call.segment("id"), &call.page()?).await?)
}

async fn revoke(call: Call, caller: Caller) -> Result {
    let key = call.idempotency_key.clone();
    let revoked = call.control().revoke_session(&caller, call.id("session")?, key).await?;
    replayed(answer(StatusCode::OK, &revoked.value)?, revoked.replayed)
}
