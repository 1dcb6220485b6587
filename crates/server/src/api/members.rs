//! `/v1/tenants/{id}/invitations`: new invitations for members of a tenant. A token is revealed once.

use axum::http::{Method, StatusCode};
use tenantry_control::access::{Caller, Permission};
use tenantry_control::members::{InvitationView, InviteMember};

use super::call::{Call, answer, replayed};
use super::problem::Result;
use super::route::{IDEMPOTENCY_KEY, JSON, REPLAYED, Route, key};

/// The routes of this resource.
pub fn routes() -> Vec<Route> {
    vec![
        Route::new(
            Method::POST,
            "/v1/tenants/{id}/invitations",
            "invite_member",
            "Invite a member again, such as one whose invitation has expired",
            key(Permission::WriteTenants, invite),
        )
        .about(
            "Ends the member's previous invitation. Only the first response contains the token: a repeated request with \
             the same `Idempotency-Key` returns the invitation without it.",
        )
        .header(&[IDEMPOTENCY_KEY])
        .reads::<InviteMember>(JSON)
        .gives::<InvitationView>(StatusCode::CREATED, "The invitation with its token.")
        .having(&[REPLAYED])
        .fails(&[404, 409]),
    ]
}

async fn invite(call: Call, caller: Caller) -> Result {
    let (key, what) = (call.idempotency_key.clone(), call.read::<InviteMember>()?);
    let made = call.control().invite(&caller, call.segment("id"), &what, key).await?;
    replayed(answer(StatusCode::CREATED, &made.value)?, made.replayed)
}
