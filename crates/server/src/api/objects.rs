//! `/objects`: lists a tenant's objects and signs URLs for them, by a tenant token. `/files`: serves objects
//! through signed URLs only, as attachments in a sandbox, so that uploaded HTML never runs on the server's
//! origin.

use axum::body::Body;
use axum::http::header::{
    ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE,
    ETAG, HeaderName, IF_NONE_MATCH, LAST_MODIFIED, RANGE,
};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use futures::future::BoxFuture;
use schemars::JsonSchema;
use serde::Serialize;
use tenantry_control::TenantSession;
use tenantry_control::error::Error;
use tenantry_control::objects::{Opened, SignObject, object_error};
use tenantry_control::view::Page;
use tenantry_model::Timestamp;
use tenantry_provider::objects::{self, Content, Meta, New, Range, Signed, Usage};
use tokio_util::io::{ReaderStream, StreamReader};

use super::admitted::admitted;
use super::call::{Call, answer};
use super::problem::Result;
use super::route::{
    CURSOR, DEFAULT_LIMIT, EXPIRES, JSON, LIMIT, OCTETS, Param, Route, SIGNATURE, public, token,
};
use super::shares::Kind;
use crate::client::path_segment;

/// A signed URL for one object.
#[derive(Serialize, JsonSchema)]
struct SignedUrl {
    /// URL. Anyone with the URL can use it: treat it as a secret.
    url: String,
    /// The allowed method.
    method: objects::Method,
    /// Expiry.
    expires_at: Timestamp,
}

const PREFIX: Param = Param::text("prefix", "Only objects whose keys start with this prefix.");
const BYTES_RANGE: Param = Param::text("Range", "One range of bytes, such as `bytes=0-99` (RFC 9110 §14).");
const IF_NONE_MATCH_TAG: Param = Param::text("If-None-Match", "ETag of the client's copy.");

/// The routes of this resource.
pub fn routes() -> Vec<Route> {
    let signed = |method: Method, id, summary, access| {
        Route::new(method, "/files/{bucket}/{*key}", id, summary, access)
            .about("`POST /objects/urls` returns the signed URL.")
            .query(&[EXPIRES, SIGNATURE])
            .fails(&[402, 403, 404])
    };
    vec![
        Route::new(Method::GET, "/objects", "list_objects", "List objects by key", token(list))
            .query(&[PREFIX, LIMIT, CURSOR])
            .gives::<Page<Meta>>(StatusCode::OK, "Page of objects.")
            .fails(&[404]),
        Route::new(
            Method::GET,
            "/objects/usage",
            "get_objects_usage",
            "Get the size of the bucket",
            token(usage),
        )
        .gives::<Usage>(StatusCode::OK, "Number of objects, bytes and the quota.")
        .fails(&[404]),
        Route::new(Method::POST, "/objects/urls", "sign_object", "Sign a URL for an object", token(sign))
            .reads::<SignObject>(JSON)
            .gives::<SignedUrl>(StatusCode::CREATED, "Signed URL.")
            .fails(&[404]),
        signed(Method::GET, "get_object", "Read an object", public(get))
            .header(&[BYTES_RANGE, IF_NONE_MATCH_TAG])
            .gives_as::<()>(StatusCode::OK, Some(OCTETS), "Content, in the media type it was stored with.")
            .having(&[("ETag", "SHA-256 of the content."), ("Accept-Ranges", "`bytes`.")])
            .gives_as::<()>(StatusCode::PARTIAL_CONTENT, Some(OCTETS), "The requested range.")
            .having(&[("Content-Range", "Position of the range.")])
            .gives_as::<()>(StatusCode::NOT_MODIFIED, None, "The client's copy is current.")
            .fails(&[416]),
        signed(Method::PUT, "put_object", "Store an object", public(put))
            .reads_bytes()
            .gives::<Meta>(StatusCode::OK, "The stored object; it replaces an earlier one with the same key.")
            .fails(&[409]),
        signed(Method::DELETE, "delete_object", "Delete an object", public(delete)).gives_as::<()>(
            StatusCode::NO_CONTENT,
            None,
            "Deleted.",
        ),
    ]
}

async fn list(call: Call, session: TenantSession) -> Result {
    let limit = call.param("limit").and_then(|text| text.parse().ok()).unwrap_or(DEFAULT_LIMIT as u32);
    let prefix = call.param("prefix").unwrap_or_default();
    let page = call.control().objects(&session, prefix, limit, call.param("cursor")).await?;
    answer(
        StatusCode::OK,
        &Page { data: page.objects, has_more: page.next.is_some(), next_cursor: page.next },
    )
}

async fn usage(call: Call, session: TenantSession) -> Result {
    answer(StatusCode::OK, &call.control().objects_usage(&session).await?)
}

async fn sign(call: Call, session: TenantSession) -> Result {
    let signed = call.control().sign_object(&session, &call.read::<SignObject>()?).await?;
    let key: Vec<String> = signed.key.split('/').map(path_segment).collect();
    let url = format!(
        "{}/files/{}/{}?expires={}&signature={}",
        call.control().public_url().trim_end_matches('/'),
        path_segment(&signed.bucket),
        key.join("/"),
        signed.expires_at,
        signed.signature
    );
    let expires_at = Timestamp::from_micros(signed.expires_at.saturating_mul(1_000_000));
    answer(StatusCode::CREATED, &SignedUrl { url, method: signed.method, expires_at })
}

/// The content of a signed URL, to be verified.
fn signed(call: &Call, method: objects::Method) -> Signed {
    let param = |name| call.param(name).unwrap_or_default().to_owned();
    Signed {
        method,
        bucket: call.segment("bucket").to_owned(),
        key: call.segment("key").to_owned(),
        // The signature of an invalid expiry does not match.
        expires_at: param("expires").parse().unwrap_or_default(),
        signature: param("signature"),
    }
}

async fn get(call: Call) -> Result {
    let range = call.header(RANGE.as_str())?.and_then(range);
    let signed = signed(&call, objects::Method::Get);
    let Opened { objects, tenant, at } = call.control().open_signed(&signed).await?;
    call.becomes_of(Kind::Downloads, tenant)?;
    let content = objects.get(&signed.key, range).await.map_err(object_error)?;
    let content = content.ok_or_else(|| Error::not_found("object"))?;
    let body = admitted(ReaderStream::new(content.body), readmit(&call, &signed, at));
    let content = Content { body: Box::pin(StreamReader::new(body)), ..content };
    let etag = format!("\"{}\"", content.meta.etag);
    let known = call.header(IF_NONE_MATCH.as_str())?.unwrap_or_default();
    if known.split(',').any(|one| one.trim().trim_start_matches("W/") == etag) {
        return with(StatusCode::NOT_MODIFIED.into_response(), [(ETAG, etag)]);
    }
    serve(content, range.is_some(), etag)
}

fn serve(content: Content, partial: bool, etag: String) -> Result {
    let Content { meta, first, length, body } = content;
    let status = if partial { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    let response = (status, Body::from_stream(ReaderStream::new(body))).into_response();
    let mut headers = vec![
        (CONTENT_TYPE, meta.content_type.unwrap_or_else(|| OCTETS.to_owned())),
        (CONTENT_LENGTH, length.to_string()),
        (ETAG, etag),
        (ACCEPT_RANGES, "bytes".to_owned()),
        (LAST_MODIFIED, http_date(meta.modified)),
        // Never render uploaded content as a page of this origin.
        (CONTENT_DISPOSITION, "attachment".to_owned()),
        (CONTENT_SECURITY_POLICY, "sandbox; default-src 'none'".to_owned()),
    ];
    if partial {
        let last = (first + length).saturating_sub(1);
        headers.push((CONTENT_RANGE, format!("bytes {first}-{last}/{}", meta.size)));
    }
    with(response, headers)
}

async fn put(mut call: Call) -> Result {
    let signed = signed(&call, objects::Method::Put);
    let Opened { objects, tenant, at } = call.control().open_signed(&signed).await?;
    call.becomes_of(Kind::Uploads, tenant)?;
    let check = readmit(&call, &signed, at);
    let bytes = Box::pin(StreamReader::new(admitted(call.take_bytes(), check.clone())));
    let content_type = call.header(CONTENT_TYPE.as_str())?;
    let stored = objects.put(New { key: &signed.key, content_type, at }, bytes).await;
    if stored.is_err() {
        // If the access has ended meanwhile, that is the reason.
        check().await?;
    }
    answer(StatusCode::OK, &stored.map_err(object_error)?)
}

/// The check of a signed URL that was opened at this time, while bytes pass.
fn readmit(
    call: &Call,
    signed: &Signed,
    at: Timestamp,
) -> impl Fn() -> BoxFuture<'static, std::result::Result<(), Error>> + Clone + Send + use<> {
    let (control, signed) = (call.control().clone(), signed.clone());
    move || {
        let (control, signed) = (control.clone(), signed.clone());
        Box::pin(async move { control.readmit_signed(&signed, at).await })
    }
}

async fn delete(call: Call) -> Result {
    let signed = signed(&call, objects::Method::Delete);
    let Opened { objects, .. } = call.control().open_signed(&signed).await?;
    if objects.delete(&signed.key).await.map_err(object_error)? {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    Err(Error::not_found("object").into())
}

/// Parses one range of bytes. Anything else is ignored, as RFC 9110 §14.2 allows.
pub(super) fn range(header: &str) -> Option<Range> {
    let (first, last) = header.strip_prefix("bytes=")?.split_once('-')?;
    match (first.trim(), last.trim()) {
        ("", last) => last.parse().ok().map(Range::Last),
        (first, "") => first.parse().ok().map(Range::From),
        (first, last) => Some(Range::Between(first.parse().ok()?, last.parse().ok()?)),
    }
}

fn http_date(at: Timestamp) -> String {
    let seconds = u64::try_from(at.seconds()).unwrap_or_default();
    httpdate::fmt_http_date(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds))
}

/// Adds headers to a response.
pub(super) fn with(
    mut response: Response,
    headers: impl IntoIterator<Item = (HeaderName, String)>,
) -> Result {
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_str(&value).map_err(Error::internal)?);
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_single_byte_ranges_are_parsed() {
        assert_eq!(range("bytes=0-99"), Some(Range::Between(0, 99)));
        assert_eq!(range("bytes=5-"), Some(Range::From(5)));
        assert_eq!(range("bytes=-7"), Some(Range::Last(7)));
        for ignored in ["bytes=0-1,3-4", "lines=1-2", "bytes=", "bytes=-", "bytes=a-b", "bytes=1", ""] {
            assert_eq!(range(ignored), None, "{ignored}");
        }
    }
}
