//! Access to one tenant's objects through a handle scoped to it. The tenant comes from a verified token, or
//! from the bucket in a verified signature; keys never become paths.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tenantry_model::{Failure, TenantId, Timestamp};
use tokio::io::AsyncRead;

use crate::verbs::Sealer;

/// Longest key, in bytes.
pub const MAX_KEY: usize = 1024;
/// Most objects in one page.
pub const MAX_PAGE: u32 = 1000;
/// Longest validity of a signature.
pub const MAX_LIFE: Duration = Duration::from_secs(7 * 86_400);

/// A stream of an object's bytes.
pub type Body = Pin<Box<dyn AsyncRead + Send>>;

/// A provider that stores tenants' objects.
#[async_trait]
pub trait Objects: Send + Sync {
    /// A handle on one tenant's objects. Cheap: the bucket is accessed only by the handle's methods. Objects
    /// can be stored and read only while the sealer has the tenant's key.
    fn scoped(&self, tenant: TenantId, sealer: Arc<dyn Sealer>) -> Arc<dyn TenantObjects>;

    /// Verifies a signed address and returns the tenant that owns its bucket. An error `bad_signature` or
    /// `expired`. The caller must allow only the signed method and key.
    async fn verify(&self, signed: &Signed, now: Timestamp) -> Result<TenantId, Failure>;

    /// Deletes objects that are due at `now` by the rules of their buckets, and files of interrupted uploads,
    /// in all buckets.
    async fn expire(&self, now: Timestamp) -> Result<Expired, Failure>;
}

/// One tenant's objects. Failures of class `Invalid` are errors of the caller.
#[async_trait]
pub trait TenantObjects: Send + Sync {
    /// Stores an object atomically, replacing one with the same key. Returns when it is on the disk.
    async fn put(&self, new: New<'_>, body: Body) -> Result<Meta, Failure>;

    /// Reads an object or a part of it. The body stays unchanged even if the object is replaced while it is
    /// read.
    async fn get(&self, key: &str, range: Option<Range>) -> Result<Option<Content>, Failure>;

    /// Metadata of an object.
    async fn meta(&self, key: &str) -> Result<Option<Meta>, Failure>;

    /// Up to `limit` objects (1 to [`MAX_PAGE`]) whose keys begin with `prefix`, in the order of their keys'
    /// bytes, starting after the key `after`.
    async fn list(&self, prefix: &str, limit: u32, after: Option<&str>) -> Result<Listing, Failure>;

    /// Deletes an object; false if it does not exist.
    async fn delete(&self, key: &str) -> Result<bool, Failure>;

    /// Signs an address that allows one method on one object until `expires_at`, at most [`MAX_LIFE`] after
    /// `now`. Any client that has the address can use it.
    async fn sign(
        &self,
        key: &str,
        method: Method,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<Signed, Failure>;

    /// Number of objects and bytes in the bucket.
    async fn usage(&self) -> Result<Usage, Failure>;
}

/// An object to store.
#[derive(Clone, Copy, Debug)]
pub struct New<'a> {
    /// Key in the bucket.
    pub key: &'a str,
    /// Value of the `Content-Type` header.
    pub content_type: Option<&'a str>,
    /// Time of the request.
    pub at: Timestamp,
}

/// Metadata of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Meta {
    /// Key in the bucket.
    pub key: String,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256 of the bytes, in hexadecimal.
    pub etag: String,
    /// Media type.
    pub content_type: Option<String>,
    /// Time at which it was stored.
    pub modified: Timestamp,
}

/// A range of an object's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    /// From this byte to the end.
    From(u64),
    /// From the first to the last byte, both included.
    Between(u64, u64),
    /// This many bytes at the end.
    Last(u64),
}

/// An object or a part of it.
pub struct Content {
    /// Metadata of the whole object.
    pub meta: Meta,
    /// Offset of the part in the object.
    pub first: u64,
    /// Bytes in the body.
    pub length: u64,
    /// The bytes.
    pub body: Body,
}

/// One page of objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// Objects in the order of their keys.
    pub objects: Vec<Meta>,
    /// The key after which the next page starts; none on the last page.
    pub next: Option<String>,
}

/// Fill level of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Usage {
    /// Number of objects.
    pub objects: u64,
    /// Sum of their bytes.
    pub bytes: u64,
    /// Most bytes the bucket may hold.
    pub quota_bytes: Option<u64>,
}

/// Result of an expiry run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Expired {
    /// Number of deleted objects.
    pub objects: u64,
    /// Sum of their bytes.
    pub bytes: u64,
}

/// Method that a signature allows. `HEAD` counts as `Get`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// Read the object.
    #[default]
    Get,
    /// Store the object.
    Put,
    /// Delete the object.
    Delete,
}

impl Method {
    /// Name of the HTTP method.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
        }
    }
}

/// The parts of a signed URL: `/{bucket}/{key}?expires={expires_at}&signature={signature}`, the key percent-encoded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// The allowed method.
    pub method: Method,
    /// Name of the bucket.
    pub bucket: String,
    /// Key of the object.
    pub key: String,
    /// Expiry, in seconds since 1970.
    pub expires_at: i64,
    /// Signature, in URL-safe base64 without padding.
    pub signature: String,
}

/// An error `bad_key` if the key is empty or too long, has control characters, or could lead elsewhere if a
/// client used it as a path.
pub fn check_key(key: &str) -> Result<(), Failure> {
    let bad = |why: &str| Err(Failure::invalid("bad_key", format!("the key {why}")));
    if key.is_empty() || key.len() > MAX_KEY {
        return bad("must have 1 to 1024 bytes");
    }
    if key.chars().any(char::is_control) {
        return bad("must not have control characters");
    }
    if key.starts_with(['/', '\\']) {
        return bad("must not begin with a slash");
    }
    if key.split(['/', '\\']).any(|part| matches!(part, "." | "..")) {
        return bad("must not have `.` or `..` between slashes");
    }
    Ok(())
}

/// First byte and length of a range of `size` bytes. An error `bad_range` if the range is empty.
pub fn part(size: u64, range: Option<Range>) -> Result<(u64, u64), Failure> {
    let (first, end) = match range {
        None => return Ok((0, size)),
        Some(Range::From(first)) => (first, size),
        Some(Range::Between(first, last)) if first <= last => (first, last.saturating_add(1).min(size)),
        Some(Range::Between(..)) => (size, size),
        Some(Range::Last(length)) => (size.saturating_sub(length), size),
    };
    if first >= end {
        return Err(Failure::invalid(
            "bad_range",
            format!("the range is outside of the object, which has {size} bytes"),
        ));
    }
    Ok((first, end - first))
}

/// The error for an object that does not fit into the bucket's quota.
pub fn over_quota() -> Failure {
    Failure::invalid(
        "quota_exceeded",
        "the upload exceeds the bucket's quota: delete objects or request a larger quota",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejects_empty_long_and_path_like_keys() {
        let long = "ä".repeat(512);
        for good in ["a", "a/b.txt", "ä/漢字 🎉.pdf", "...", "a..b/..c", "CON", "a//b", "a/", "~", &long]
        {
            assert_eq!(check_key(good), Ok(()), "{good}");
        }
        let too_long = format!("{long}a");
        for bad in [
            "", "/a", "\\a", "..", ".", "../a", "a/../b", "a/..", "a\\..\\b", "a\0b", "a\nb", "\u{7f}",
            &too_long,
        ] {
            assert_eq!(check_key(bad).unwrap_err().code, "bad_key", "{bad:?}");
        }
    }
}
