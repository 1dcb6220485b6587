//! `/v1/tenants/{id}/exports`, `backups`, `restores` and `imports`: archives of a tenant's data. `/exports`:
//! a tenant's own exports by its token, and their content through signed URLs.

use axum::body::Body;
use axum::http::header::{
    ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, RANGE,
};
use axum::http::{Method, StatusCode};
use axum::response::IntoResponse;
use schemars::JsonSchema;
use serde::Serialize;
use tenantry_control::TenantSession;
use tenantry_control::access::{Caller, Permission};
use tenantry_control::error::Error;
use tenantry_control::operations::archive::{ArchiveLink, RestoreTenant};
use tenantry_control::operations::archive::{ArchiveSettings, ArchiveView, Purpose};
use tenantry_control::view::{OperationView, Page};
use tenantry_model::Timestamp;
use tenantry_model::id::ArchiveId;
use tokio_util::io::{ReaderStream, StreamReader};

use super::admitted::admitted;
use super::call::{Call, answer, replayed};
use super::objects::{range, with};
use super::problem::Result;
use super::route::{
    CURSOR, EXPIRES, IDEMPOTENCY_KEY, JSON, LIMIT, OCTETS, Param, REPLAYED, Route, SIGNATURE, key, public,
    token,
};
use super::shares::Kind;
use super::tenants::accepted;

/// An export with its signed URL.
#[derive(Serialize, JsonSchema)]
struct OwnExport {
    /// Export.
    #[serde(flatten)]
    export: ArchiveView,
    /// Signed URL. Anyone with the URL can read all data of the tenant: treat it as a secret.
    url: String,
}

/// A signed URL for an export.
#[derive(Serialize, JsonSchema)]
struct ExportLink {
    /// Signed URL. Anyone with the URL can read all data of the tenant: treat it as a secret.
    url: String,
    /// Expiry: when the export is deleted.
    expires_at: Timestamp,
}

const BYTES_RANGE: Param = Param::text("Range", "One range of bytes, such as `bytes=0-99` (RFC 9110 §14).");
const OPERATION_HEADERS: &[(&str, &str)] = &[("Location", "The operation."), REPLAYED];

/// The routes of this resource.
pub fn routes() -> Vec<Route> {
    use Permission as P;
    let list = |path, id, summary, purpose| {
        Route::new(
            Method::GET,
            path,
            id,
            summary,
            key(P::ReadTenants, move |call, caller| list(call, caller, purpose)),
        )
        .query(&[LIMIT, CURSOR])
        .gives::<Page<ArchiveView>>(StatusCode::OK, "Page of archives.")
        .fails(&[404])
    };
    let make = |path, id, summary, purpose| {
        Route::new(
            Method::POST,
            path,
            id,
            summary,
            key(P::WriteTenants, move |call, caller| make(call, caller, purpose)),
        )
        .header(&[IDEMPOTENCY_KEY])
        .reads::<ArchiveSettings>(JSON)
        .gives::<OperationView>(StatusCode::ACCEPTED, "The operation; its response contains the archive.")
        .having(OPERATION_HEADERS)
        .fails(&[404, 409])
    };
    vec![
        make("/v1/tenants/{id}/exports", "export_tenant", "Export all data of a tenant", Purpose::Export),
        list(
            "/v1/tenants/{id}/exports",
            "list_exports",
            "List a tenant's exports, newest first",
            Purpose::Export,
        ),
        Route::new(
            Method::POST,
            "/v1/tenants/{id}/exports/{export}/link",
            "link_export",
            "Sign a URL for an export",
            key(P::WriteTenants, link),
        )
        .about(
            "The URL needs no key and is valid until the export is deleted, even if the tenant is suspended.",
        )
        .gives::<ExportLink>(StatusCode::CREATED, "Signed URL.")
        .fails(&[404, 410]),
        Route::new(
            Method::POST,
            "/exports",
            "export_own",
            "Export all data of the token's tenant",
            token(make_own),
        )
        .about(
            "Requires an administrator of the tenant. `GET /exports` returns the signed URL of a finished \
             export.",
        )
        .header(&[IDEMPOTENCY_KEY])
        .gives::<OperationView>(StatusCode::ACCEPTED, "The operation.")
        .having(&[REPLAYED])
        .fails(&[404, 409]),
        Route::new(
            Method::GET,
            "/exports",
            "list_own_exports",
            "List the exports of the token's tenant, newest first",
            token(list_own),
        )
        .query(&[LIMIT, CURSOR])
        .gives::<Page<OwnExport>>(StatusCode::OK, "Page of exports.")
        .fails(&[404]),
        Route::new(Method::GET, "/exports/{export}", "get_export", "Read an export", public(get))
            .about("`POST /v1/tenants/{id}/exports/{export}/link` returns the signed URL.")
            .query(&[EXPIRES, SIGNATURE])
            .header(&[BYTES_RANGE])
            .gives_as::<()>(StatusCode::OK, Some(OCTETS), "Tar archive compressed with zstd.")
            .having(&[("ETag", "SHA-256 of the content."), ("Accept-Ranges", "`bytes`.")])
            .gives_as::<()>(StatusCode::PARTIAL_CONTENT, Some(OCTETS), "The requested range.")
            .having(&[("Content-Range", "Position of the range.")])
            .fails(&[403, 410, 416]),
        make(
            "/v1/tenants/{id}/backups",
            "back_up_tenant",
            "Back up all data of a tenant and verify that the backup can be restored",
            Purpose::Backup,
        ),
        list(
            "/v1/tenants/{id}/backups",
            "list_backups",
            "List a tenant's backups, newest first",
            Purpose::Backup,
        ),
        Route::new(
            Method::POST,
            "/v1/tenants/{id}/restores",
            "restore_tenant",
            "Replace a tenant's data with an archive's",
            key(P::WriteTenants, restore),
        )
        .about(
            "The archive must belong to the tenant. Back up first: the replaced data cannot be recovered \
             otherwise.",
        )
        .header(&[IDEMPOTENCY_KEY])
        .reads::<RestoreTenant>(JSON)
        .gives::<OperationView>(StatusCode::ACCEPTED, "The operation.")
        .having(OPERATION_HEADERS)
        .fails(&[404, 409, 410]),
        Route::new(
            Method::POST,
            "/v1/tenants/{id}/imports",
            "import_tenant",
            "Replace a tenant's data with an uploaded export",
            key(P::WriteTenants, import),
        )
        .about(
            "The body is the content of an export. It is validated completely before the operation begins.",
        )
        .header(&[IDEMPOTENCY_KEY])
        .reads_bytes()
        .gives::<OperationView>(StatusCode::ACCEPTED, "The operation.")
        .having(OPERATION_HEADERS)
        .fails(&[404, 409]),
    ]
}

async fn make(call: Call, caller: Caller, purpose: Purpose) -> Result {
    let (key, request) = (call.idempotency_key.clone(), call.read::<ArchiveSettings>()?);
    let begun = call.control().archive_tenant(&caller, call.segment("id"), purpose, &request, key).await?;
    replayed(accepted(&begun.value)?, begun.replayed)
}

async fn list(call: Call, caller: Caller, purpose: Purpose) -> Result {
    answer(
        StatusCode::OK,
        &call.control().archives(&caller, call.segment("id"), purpose, &call.page()?).await?,
    )
}

async fn restore(call: Call, caller: Caller) -> Result {
    let (key, request) = (call.idempotency_key.clone(), call.read::<RestoreTenant>()?);
    let begun = call.control().restore(&caller, call.segment("id"), request, key).await?;
    replayed(accepted(&begun.value)?, begun.replayed)
}

async fn import(mut call: Call, caller: Caller) -> Result {
    call.becomes(Kind::Uploads)?;
    let (control, uploader) = (call.control().clone(), caller.clone());
    let check = move || {
        let (control, uploader) = (control.clone(), uploader.clone());
        async move { control.reauthenticate(&uploader).await }
    };
    let bytes = Box::pin(StreamReader::new(admitted(call.take_bytes(), check.clone())));
    let key = call.idempotency_key.clone();
    let begun = call.control().import(&caller, call.segment("id"), bytes, key).await;
    if begun.is_err() {
        // If the key was revoked meanwhile, that is the reason.
        check().await?;
    }
    let begun = begun?;
    replayed(accepted(&begun.value)?, begun.replayed)
}

async fn link(call: Call, caller: Caller) -> Result {
    let link = call.control().export_link(&caller, call.segment("id"), export(&call)?).await?;
    let expires_at = Timestamp::from_micros(link.expires_at.saturating_mul(1_000_000));
    answer(StatusCode::CREATED, &ExportLink { url: url(&call, &link), expires_at })
}

fn url(call: &Call, link: &ArchiveLink) -> String {
    link.url(call.control().public_url())
}

async fn make_own(call: Call, session: TenantSession) -> Result {
    let begun = call.control().export_own(&session, call.idempotency_key.clone()).await?;
    replayed(answer(StatusCode::ACCEPTED, &begun.value)?, begun.replayed)
}

async fn list_own(call: Call, session: TenantSession) -> Result {
    let Page { data, has_more, next_cursor } = call.control().own_exports(&session, &call.page()?).await?;
    let data = data.into_iter().map(|(export, link)| OwnExport { export, url: url(&call, &link) });
    answer(StatusCode::OK, &Page { data: data.collect(), has_more, next_cursor })
}

fn export(call: &Call) -> Result<ArchiveId> {
    call.segment("export").parse().map_err(|_| Error::not_found("export").into())
}

async fn get(call: Call) -> Result {
    let wanted = call.header(RANGE.as_str())?.and_then(range);
    let param = |name| call.param(name).unwrap_or_default().to_owned();
    // The signature of an invalid expiry does not match.
    let expires_at = param("expires").parse().unwrap_or_default();
    let link = ArchiveLink { archive: export(&call)?, expires_at, signature: param("signature") };
    let part = call.control().open_link(&link, wanted).await?;
    call.becomes_of(Kind::Downloads, part.archive.tenant_id)?;
    let status = if wanted.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    let response = (status, Body::from_stream(ReaderStream::new(part.body))).into_response();
    let (archive, first, length) = (part.archive, part.first, part.length);
    let mut headers = vec![
        (CONTENT_TYPE, OCTETS.to_owned()),
        (CONTENT_LENGTH, length.to_string()),
        (ETAG, format!("\"{}\"", archive.sha256)),
        (ACCEPT_RANGES, "bytes".to_owned()),
        (CONTENT_DISPOSITION, format!("attachment; filename=\"{}.tar.zst\"", archive.id)),
    ];
    if wanted.is_some() {
        let last = (first + length).saturating_sub(1);
        headers.push((CONTENT_RANGE, format!("bytes {first}-{last}/{}", archive.size)));
    }
    with(response, headers)
}
