//! The resource kind `bucket`, for a tenant's files: settings, outputs, and the rules for its providers. No I/O.
//!
//! Every provider rejects a bucket that can be read without a signature or token, encrypts objects at rest
//! with a key that is destroyed with the tenant's key, rejects uploads over the quota, and deletes objects by
//! the lifecycle rules. A handle from [`Objects`] gives access to one tenant's objects only.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tenantry_model::quota::Quota;

use super::KindSettings;
pub use crate::objects::{Objects, TenantObjects};
use crate::verbs::Kind;

/// Settings of a bucket. The planner sets the quota from the plan and the encryption from the request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BucketSettings {
    /// Most bytes in the bucket, such as `10GiB`; without it, the storage is the only limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota_bytes: Option<Quota>,
    /// Encryption of objects at rest.
    #[serde(skip_serializing_if = "Encryption::is_standard")]
    pub encryption: Encryption,
    /// Rules for the deletion of objects after a time.
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

/// Encryption of objects at rest. A change affects only objects that are stored later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Encryption {
    /// With a key that is derived from the tenant's key, which the master key encrypts.
    #[default]
    Standard,
    /// With the bucket's own key, which the tenant's key encrypts and which is deleted with the bucket.
    Enhanced,
}

impl Encryption {
    /// The word in templates, outputs and the index.
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

/// Rule for the deletion of objects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LifecycleRule {
    /// Prefix of the objects' keys; empty for all objects.
    #[serde(default)]
    pub prefix: String,
    /// Days after which a stored object is deleted.
    #[schemars(range(min = 1, max = 36500))]
    pub expire_after: u32,
}

/// Outputs of a bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BucketOutputs {
    /// Name of the bucket.
    pub bucket: String,
    /// Encryption of objects.
    pub encryption: Encryption,
    /// Most bytes in the bucket; none without a quota.
    pub quota_bytes: Option<u64>,
}
