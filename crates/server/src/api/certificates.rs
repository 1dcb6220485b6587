//! Certificates of tenants' deletion, and the key that they are checked with.

use axum::http::{Method, StatusCode};
use tenantry_control::access::{Caller, Permission};
use tenantry_control::operations::offboard::certificate::{CertificateView, PublicKeyView};

use super::call::{Call, answer};
use super::problem::Result;
use super::route::{Route, key, public};

/// The lines of the table.
pub fn routes() -> Vec<Route> {
    vec![
        Route::new(
            Method::GET,
            "/v1/tenants/{id}/certificate",
            "get_certificate",
            "Read the certificate of a tenant's deletion",
            key(Permission::ReadTenants, get),
        )
        .about(
            "There is none unless everything was looked for after its deletion and not found. Keep the answer as it is: it \
             is checked byte for byte, by `tenantry certificate verify`, offline.",
        )
        .gives::<CertificateView>(StatusCode::OK, "The certificate, its keys sorted.")
        .fails(&[404]),
        Route::new(
            Method::GET,
            "/v1/certificates/public-key",
            "get_certificate_public_key",
            "Read the public key that certificates are checked with",
            public(public_key),
        )
        .gives::<PublicKeyView>(StatusCode::OK, "The key."),
    ]
}

async fn get(call: Call, caller: Caller) -> Result {
    answer(StatusCode::OK, &call.control().certificate(&caller, call.segment("id")).await?)
}

async fn public_key(call: Call) -> Result {
    answer(StatusCode::OK, &call.control().certificate_public_key().await?)
}
