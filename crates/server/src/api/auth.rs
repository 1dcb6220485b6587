//! `/auth/token`, and the keys that verify its tokens: signing in as a member of a tenant.

use axum::http::{Method, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tenantry_control::TokenView;
use tenantry_control::error::{Error, FieldError};
use tenantry_model::ErrorCode;

use super::call::{Call, answer};
use super::problem::{Problem, Result};
use super::route::{Route, public};

/// A credential to exchange for a token.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(
    dead_code,
    reason = "only for the schema; each variant is read separately, so that errors name its fields"
)]
enum Grant {
    /// A one-time code.
    Code(CodeGrant),
    /// An invitation.
    Invitation(InvitationGrant),
    /// A password.
    Password(PasswordGrant),
    /// A refresh token.
    RefreshToken(RefreshGrant),
}

/// A one-time code.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct CodeGrant {
    /// `code`.
    #[expect(dead_code, reason = "only for the schema; the handler has matched it already")]
    #[schemars(extend("const" = "code"))]
    grant_type: String,
    /// The one-time code.
    #[schemars(length(min = 1, max = 255))]
    code: String,
}

/// An invitation, which is accepted once.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct InvitationGrant {
    /// `invitation`.
    #[expect(dead_code, reason = "only for the schema; the handler has matched it already")]
    #[schemars(extend("const" = "invitation"))]
    grant_type: String,
    /// The invitation's token: the part of its link after `#`.
    #[schemars(length(min = 1, max = 255))]
    token: String,
}

/// A member's password.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PasswordGrant {
    /// `password`.
    #[expect(dead_code, reason = "only for the schema; the handler has matched it already")]
    #[schemars(extend("const" = "password"))]
    grant_type: String,
    /// Tenant id or slug.
    #[schemars(length(min = 1, max = 255))]
    tenant: String,
    /// E-mail address of the member.
    #[schemars(length(min = 1, max = 320))]
    email: String,
    /// Password.
    #[schemars(length(min = 1, max = 1024))]
    password: String,
}

/// A refresh token, which is replaced by the one of the response (RFC 6749 §6).
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RefreshGrant {
    /// `refresh_token`.
    #[expect(dead_code, reason = "only for the schema; the handler has matched it already")]
    #[schemars(extend("const" = "refresh_token"))]
    grant_type: String,
    /// The refresh token of the last response.
    #[schemars(length(min = 1, max = 255))]
    refresh_token: String,
}

/// Instructions for an invitation's link.
#[derive(Serialize, JsonSchema)]
struct Invited {
    /// Instructions for people.
    message: &'static str,
    /// Path of the request to send.
    post: &'static str,
    /// Body of that request.
    body: Value,
}

/// The routes of this resource.
pub fn routes() -> Vec<Route> {
    vec![
        Route::new(
            Method::POST,
            "/auth/token",
            "create_token",
            "Sign in by a one-time code, an invitation or a password, or refresh a session's tokens",
            public(token),
        )
        .about(
            "A sign-in begins a session, whose refresh token is exchanged here for the next tokens: each works once, and a \
             used one that comes back ends the session. \
             An unknown, used or expired grant always gets the same 401, a refresh token 400. A valid grant of a tenant that is \
             not active gets 402 or 403, and an invitation stays valid. Too many passwords that were refused, to one \
             account or from one address, get 429 for 15 minutes.",
        )
        .reads_form::<Grant>()
        .gives::<TokenView>(StatusCode::OK, "Token.")
        .fails(&[401, 402, 403, 429]),
        Route::new(
            Method::GET,
            "/auth/invitation",
            "explain_invitation",
            "Show how to use an invitation's link",
            public(invitation),
        )
        .gives::<Invited>(
            StatusCode::OK,
            "Instructions. The token in the link's fragment is not sent to the \
                                           server.",
        ),
        Route::new(
            Method::GET,
            "/.well-known/jwks.json",
            "get_jwks",
            "Get the public keys that verify tokens",
            public(jwks),
        )
        .gives::<Value>(StatusCode::OK, "JWK set (RFC 7517)."),
    ]
}

async fn token(call: Call) -> Result {
    exchange(call).await.map_err(Problem::for_oauth)
}

async fn exchange(call: Call) -> Result {
    let (control, client) = (call.control(), call.user_agent());
    let token = match call.body.get("grant_type").and_then(Value::as_str) {
        Some("code") => control.sign_in(&call.read::<CodeGrant>()?.code, client).await,
        Some("invitation") => control.accept_invitation(&call.read::<InvitationGrant>()?.token, client).await,
        Some("refresh_token") => control.refresh(&call.read::<RefreshGrant>()?.refresh_token).await,
        Some("password") => {
            let PasswordGrant { tenant, email, password, .. } = call.read()?;
            control.sign_in_by_password(&tenant, &email, &password, call.client, client).await
        }
        _ => {
            let fault =
                FieldError::new("grant_type", "must be one of code, invitation, password, refresh_token");
            Err(Error::invalid(ErrorCode::RequestInvalid, vec![fault]))
        }
    };
    answer(StatusCode::OK, &token?)
}

async fn invitation(_: Call) -> Result {
    let message = "Send the part of your invitation's link after # as the token of this request. It works \
                   once and returns your access token and a refresh token.";
    let body = json!({ "grant_type": "invitation", "token": "…" });
    answer(StatusCode::OK, &Invited { message, post: "/auth/token", body })
}

async fn jwks(call: Call) -> Result {
    answer(StatusCode::OK, &call.control().jwks())
}
