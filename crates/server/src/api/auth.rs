//! `/auth/token` and the keys that verify its tokens: how the people of a tenant come in.

use axum::http::{Method, StatusCode};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use tenantry_control::TokenView;

use super::call::{Call, answer};
use super::problem::Result;
use super::route::{JSON, Route, public};

/// What is given for a token.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Grant {
    /// `code`.
    #[expect(dead_code, reason = "there is one, and the shape has been checked")]
    grant_type: GrantType,
    /// The one-time code.
    #[schemars(length(min = 1, max = 255))]
    code: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum GrantType {
    /// A one-time code.
    Code,
}

/// The lines of the table.
pub fn routes() -> Vec<Route> {
    vec![
        Route::new(
            Method::POST,
            "/auth/token",
            "create_token",
            "Exchange a one-time code for a tenant's token",
            public(token),
        )
        .reads::<Grant>(JSON)
        .gives::<TokenView>(StatusCode::OK, "The token.")
        .fails(&[401]),
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
    let grant: Grant = call.read()?;
    answer(StatusCode::OK, &call.control().sign_in(&grant.code).await?)
}

async fn jwks(call: Call) -> Result {
    answer(StatusCode::OK, &call.control().jwks())
}
