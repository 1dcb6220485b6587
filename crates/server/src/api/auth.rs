//! `/auth/token` and the keys that verify its tokens: how the people of a tenant come in.

use axum::http::{Method, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tenantry_control::TokenView;
use tenantry_control::error::{Error, FieldError};

use super::call::{Call, answer};
use super::problem::Result;
use super::route::{JSON, Route, public};

/// What is given for a token.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes the forms; each is read by itself, so that its faults are named")]
enum Grant {
    /// A one-time code.
    Code(CodeGrant),
    /// An invitation.
    Invitation(InvitationGrant),
    /// A password.
    Password(PasswordGrant),
}

/// A one-time code.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct CodeGrant {
    /// `code`.
    #[expect(dead_code, reason = "says which grant this is, and that has been looked at")]
    #[schemars(extend("const" = "code"))]
    grant_type: String,
    /// The one-time code.
    #[schemars(length(min = 1, max = 255))]
    code: String,
}

/// An invitation: it is accepted, once.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct InvitationGrant {
    /// `invitation`.
    #[expect(dead_code, reason = "says which grant this is, and that has been looked at")]
    #[schemars(extend("const" = "invitation"))]
    grant_type: String,
    /// The invitation's token: what stands behind `#` in its link.
    #[schemars(length(min = 1, max = 255))]
    token: String,
}

/// A member's password.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PasswordGrant {
    /// `password`.
    #[expect(dead_code, reason = "says which grant this is, and that has been looked at")]
    #[schemars(extend("const" = "password"))]
    grant_type: String,
    /// The tenant, by id or slug.
    #[schemars(length(min = 1, max = 255))]
    tenant: String,
    /// The member's e-mail address.
    #[schemars(length(min = 1, max = 320))]
    email: String,
    /// The password.
    #[schemars(length(min = 1, max = 1024))]
    password: String,
}

/// What to do with an invitation's link.
#[derive(Serialize, JsonSchema)]
struct Invited {
    /// In words.
    message: &'static str,
    /// The request to send.
    post: &'static str,
    /// Its body.
    body: Value,
}

/// The lines of the table.
pub fn routes() -> Vec<Route> {
    vec![
        Route::new(
            Method::POST,
            "/auth/token",
            "create_token",
            "Exchange a one-time code, an invitation or a password for a tenant's token",
            public(token),
        )
        .about(
            "Whatever is wrong with a grant (unknown, used, expired), the answer is the same 401. Of a right one whose \
             tenant is not active it is 403, and an invitation stays good.",
        )
        .reads::<Grant>(JSON)
        .gives::<TokenView>(StatusCode::OK, "The token.")
        .fails(&[401, 403]),
        Route::new(
            Method::GET,
            "/auth/invitation",
            "explain_invitation",
            "Read what to do with an invitation's link",
            public(invitation),
        )
        .gives::<Invited>(StatusCode::OK, "How to come in. The token itself never reaches the server by a link."),
        Route::new(
            Method::GET,
            "/.well-known/jwks.json",
            "get_jwks",
            "Read the public keys that verify tokens",
            public(jwks),
        )
        .gives::<Value>(StatusCode::OK, "A JWK set (RFC 7517)."),
    ]
}

async fn token(call: Call) -> Result {
    let control = call.control();
    let token = match call.body.get("grant_type").and_then(Value::as_str) {
        Some("code") => control.sign_in(&call.read::<CodeGrant>()?.code).await,
        Some("invitation") => control.accept_invitation(&call.read::<InvitationGrant>()?.token).await,
        Some("password") => {
            let PasswordGrant { tenant, email, password, .. } = call.read()?;
            control.sign_in_by_password(&tenant, &email, &password).await
        }
        _ => {
            let fault = FieldError::new("grant_type", "must be one of code, invitation, password");
            Err(Error::invalid("request_invalid", vec![fault]))
        }
    };
    answer(StatusCode::OK, &token?)
}

async fn invitation(_: Call) -> Result {
    let message = "Send what stands behind # in the link of your invitation as the token of this request. It works once, \
                   and what it gives is your token.";
    let body = json!({ "grant_type": "invitation", "token": "…" });
    answer(StatusCode::OK, &Invited { message, post: "/auth/token", body })
}

async fn jwks(call: Call) -> Result {
    answer(StatusCode::OK, &call.control().jwks())
}
