//! Buckets: where a tenant's files are.
//!
//! Every provider refuses to make a bucket that can be read without a signature or token, encrypts objects at rest under
//! a key that is destroyed with the tenant's, rejects uploads over the quota, and deletes what the lifecycle rules say.
//! Its [`Objects`] reach one tenant's objects and no other's.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tenantry_model::quota::Quota;

use super::KindSettings;
pub use crate::objects::{Objects, TenantObjects};
use crate::verbs::Kind;

/// What a step says of a bucket. The planner fills in the quota from the plan and the encryption from the request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BucketSettings {
    /// Bytes that the bucket may hold, such as `10GiB`; without it, as many as the storage has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota_bytes: Option<Quota>,
    /// How objects are encrypted at rest.
    #[serde(skip_serializing_if = "Encryption::is_standard")]
    pub encryption: Encryption,
    /// What is deleted after a time.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lifecycle: Vec<LifecycleRule>,
    /// Whether the bucket is readable without a signature or token. Must be false.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub public: bool,
}

impl KindSettings for BucketSettings {
    const KIND: Kind = Kind::Bucket;
    const KEYS: &'static [&'static str] = &["quota_bytes", "encryption", "lifecycle", "public"];
}

/// How objects are encrypted at rest. A change holds for objects that are stored from then on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Encryption {
    /// Under a key that is derived from the tenant's, which the master key wraps.
    #[default]
    Standard,
    /// Under a key of the bucket's own, which the tenant's key seals and which is deleted with the bucket.
    Enhanced,
}

impl Encryption {
    /// The word of templates, outputs and the index.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Enhanced => "enhanced",
        }
    }

    fn is_standard(&self) -> bool {
        *self == Self::Standard
    }
}

/// When objects are deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LifecycleRule {
    /// How their keys begin; empty: all of them.
    #[serde(default)]
    pub prefix: String,
    /// Days after they were stored.
    #[schemars(range(min = 1, max = 36500))]
    pub expire_after: u32,
}

/// What is known of a bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BucketOutputs {
    /// Its name.
    pub bucket: String,
    /// How objects are encrypted.
    pub encryption: Encryption,
    /// Bytes that it may hold.
    pub quota_bytes: Option<u64>,
}
