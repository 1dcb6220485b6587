//! A tenant's own objects, through a handle that can reach no other tenant's. The tenant comes from a verified token, or
//! the bucket from a signature of ours; keys never become paths.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tenantry_model::{Failure, TenantId, Timestamp};
use tokio::io::AsyncRead;

use crate::verbs::Sealer;

/// Longest key in bytes.
pub const MAX_KEY: usize = 1024;
/// Most objects in one page.
pub const MAX_PAGE: u32 = 1000;
/// Longest life of a signature.
pub const MAX_LIFE: Duration = Duration::from_secs(7 * 86_400);

/// Bytes on their way.
pub type Body = Pin<Box<dyn AsyncRead + Send>>;

/// A provider that keeps tenants' objects.
#[async_trait]
pub trait Objects: Send + Sync {
    /// A handle on one tenant's objects. Cheap; no access happens before its methods are called. Bytes go in and out only
    /// while the sealer has the tenant's key.
    fn scoped(&self, tenant: TenantId, sealer: Arc<dyn Sealer>) -> Arc<dyn TenantObjects>;

    /// Whose bucket a signature opens. Refuses with `bad_signature` or `expired`; a handle on that tenant's objects is then
    /// good for nothing but the method and the key that were signed, which the caller keeps to.
    async fn verify(&self, signed: &Signed, now: Timestamp) -> Result<TenantId, Failure>;

    /// Deletes what is due at `now` by the buckets' own rules, in every bucket, and what uploads that were cut off have
    /// left.
    async fn expire(&self, now: Timestamp) -> Result<Expired, Failure>;
}

/// One tenant's objects. Failures of class `Invalid` are the caller's.
#[async_trait]
pub trait TenantObjects: Send + Sync {
    /// Stores an object, in place of one with the same key, as a whole or not at all. Returns when it is on the disk.
    async fn put(&self, new: New<'_>, body: Body) -> Result<Meta, Failure>;

    /// An object, or a part of it, as it is now, whatever becomes of it while it is read.
    async fn get(&self, key: &str, range: Option<Range>) -> Result<Option<Content>, Failure>;

    /// What is known of an object.
    async fn meta(&self, key: &str) -> Result<Option<Meta>, Failure>;

    /// Up to `limit` objects (1 to [`MAX_PAGE`]) whose keys begin with `prefix`, in the order of their keys' bytes, from
    /// the one after `after` on.
    async fn list(&self, prefix: &str, limit: u32, after: Option<&str>) -> Result<Listing, Failure>;

    /// Removes an object; false if there is none.
    async fn delete(&self, key: &str) -> Result<bool, Failure>;

    /// Lets whoever has the answer do one thing until `expires_at`, at most [`MAX_LIFE`] after `now`.
    async fn sign(
        &self,
        key: &str,
        method: Method,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<Signed, Failure>;

    /// How full the bucket is.
    async fn usage(&self) -> Result<Usage, Failure>;
}

/// An object to be stored.
#[derive(Clone, Copy, Debug)]
pub struct New<'a> {
    /// Its name in the bucket.
    pub key: &'a str,
    /// What it is, as an HTTP header says it.
    pub content_type: Option<&'a str>,
    /// The instant of the request.
    pub at: Timestamp,
}

/// An object without its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Meta {
    /// Its name in the bucket.
    pub key: String,
    /// Its length in bytes.
    pub size: u64,
    /// SHA-256 of its bytes in hexadecimal.
    pub etag: String,
    /// What it is.
    pub content_type: Option<String>,
    /// When it was stored.
    pub modified: Timestamp,
}

/// A part of an object, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    /// From this byte on.
    From(u64),
    /// From the first to the last, both included.
    Between(u64, u64),
    /// So many at the end.
    Last(u64),
}

/// An object, or a part of it.
pub struct Content {
    /// The whole object's.
    pub meta: Meta,
    /// Where the part begins.
    pub first: u64,
    /// How many bytes the body has.
    pub length: u64,
    /// The bytes.
    pub body: Body,
}

/// Some objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// In the order of their keys.
    pub objects: Vec<Meta>,
    /// The key after which the next page begins; none at the end.
    pub next: Option<String>,
}

/// How full a bucket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Usage {
    /// Objects in it.
    pub objects: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Bytes that it may hold.
    pub quota_bytes: Option<u64>,
}

/// What came to its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Expired {
    /// Objects that were due.
    pub objects: u64,
    /// Bytes in them.
    pub bytes: u64,
}

/// What a signature allows. `HEAD` is a `Get` whose body is not read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// Read it.
    #[default]
    Get,
    /// Store it.
    Put,
    /// Remove it.
    Delete,
}

impl Method {
    /// The word of HTTP.
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
    /// What may be done.
    pub method: Method,
    /// In which bucket.
    pub bucket: String,
    /// With which object.
    pub key: String,
    /// Until when, in seconds since 1970.
    pub expires_at: i64,
    /// Base64 for URLs, without padding.
    pub signature: String,
}

/// Refuses what cannot be a key: nothing, too long, with control characters, or with a part that would lead elsewhere if
/// somebody took it for a path.
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

/// First byte and length of what is asked for of `size` bytes; refuses a part that has none, with `bad_range`.
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
            format!("there is nothing in this range: there are {size} bytes"),
        ));
    }
    Ok((first, end - first))
}

/// The bucket is full.
pub fn over_quota() -> Failure {
    Failure::invalid(
        "quota_exceeded",
        "the bucket would hold more bytes than it may: delete something, or ask for a larger quota",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
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
