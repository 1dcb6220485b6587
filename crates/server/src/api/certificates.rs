//! Deletion certificates, and the public key that verifies them.

use axum::http::{Method, StatusCode};
use tenantry_control::access::{Caller, Permission};
use tenantry_control::operations::offboard::certificate::{CertificateView, PublicKeyView};

use super::call::{Call, answer};
use super::problem::Result;
use super::route::{Route, key, public};

/// The routes of this resource.
pub fn routes() -> Vec<Route> {
    vec![
        Route::new(
            Method::GET,
            "/v1/tenants/{id}/certificate",
            "get_certificate",
            "Get the deletion certificate of a tenant",
            key(Permission::ReadTenants, get),
        )
        .about(
            "A certificate is issued only after every store was scanned and nothing was found. Store the \
             response unchanged: `tenantry certificate verify` checks it byte for byte, offline.",
        )
        .gives::<CertificateView>(StatusCode::OK, "The certificate, with sorted keys.")
        .fails(&[404]),
        Route::new(
            Method::GET,
            "/v1/certificates/public-key",
            "get_certificate_public_key",
            "Get the public key that verifies certificates",
            public(public_key),
        )
        .gives::<PublicKeyView>(StatusCode::OK, "The public key."),
    ]
}

async fn get(call: Call, caller: Caller) -> Result {
    answer(StatusCode::OK, &call.control().certificate(&caller, call.segment("id")).await?)
}

async fn public_key(call: Call) -> Result {
    answer(StatusCode::OK, &call.control().certificate_public_key().await?)
}
