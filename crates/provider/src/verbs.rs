//! The trait [`Provider`]: the verbs that every provider implements, with their parameters and results. The
//! suite in the module `conformance` checks providers against these rules. No I/O.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tenantry_model::id::{OperationId, ResourceId};
use tenantry_model::{Failure, Isolation, TenantId, Timestamp, Write};
use zeroize::Zeroizing;

use crate::data::Data;
use crate::fence::Fence;
use crate::isolation::IsolationCheck;
use crate::objects::Objects;
use crate::purge::Purge;
use crate::rotate::Rotate;
use crate::transfer::Transfer;

/// Kind of a resource.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Database for the tenant's rows.
    Database,
    /// Bucket for the tenant's files.
    Bucket,
    /// Namespace in which the tenant's workload runs.
    Namespace,
    /// DNS names of the tenant.
    Dns,
    /// TLS certificate for these names.
    Certificate,
    /// Members of the tenant and their sign-in.
    Identity,
    /// Feature flags and settings of the tenant.
    Config,
    /// Customer and subscription of the tenant.
    Billing,
    /// Mail to a person.
    Mail,
    /// Anything else, through a command or a signed call.
    Custom,
}

impl Kind {
    /// The word used in templates, the API and the tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Database => "database",
            Self::Bucket => "bucket",
            Self::Namespace => "namespace",
            Self::Dns => "dns",
            Self::Certificate => "certificate",
            Self::Identity => "identity",
            Self::Config => "config",
            Self::Billing => "billing",
            Self::Mail => "mail",
            Self::Custom => "custom",
        }
    }
}

/// The tenant that owns a resource. The control plane builds it from its own rows, never from a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tenant {
    /// Id of the tenant.
    pub id: TenantId,
    /// DNS label of the tenant.
    pub slug: String,
    /// Display name. Personal data: only for the resource itself, never for logs, outputs or messages.
    pub name: String,
    /// Name of the plan.
    pub plan: String,
    /// Region of its resources.
    pub region: String,
    /// BCP 47 language of seeds and mails; the provider falls back to `en`.
    pub locale: String,
    /// First administrator. Personal data.
    pub admin: Person,
}

/// A person. Personal data throughout.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Person {
    /// Mail address, also used to sign in.
    pub email: String,
    /// Given name.
    pub first_name: Option<String>,
    /// Family name.
    pub last_name: Option<String>,
    /// Role in the tenant: `owner`, `admin`, `member` …
    pub role: String,
}

/// Desired state of one resource. Everything but the personal fields of `tenant` was committed to the ledger
/// before the call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// The resource.
    pub resource: ResourceId,
    /// The operation that calls the provider.
    pub operation: OperationId,
    /// Increases each time the resource is created anew. A call of an older generation must change nothing.
    pub generation: i64,
    /// The tenant that owns the resource.
    pub tenant: Tenant,
    /// External name of the resource, planned and committed before the call.
    pub name: String,
    /// The owner tag that the resource carries from its creation. A resource with this name and another tag is never
    /// changed: the call fails with the fatal `name_taken`.
    pub claim: String,
    /// Settings of the kind and of the provider in one object, checked against both schemas at plan time. A provider reads
    /// them with [`settings`](crate::settings).
    pub settings: Value,
    /// Outputs of the steps that this one needs, by step key.
    pub inputs: BTreeMap<String, Value>,
    /// Note of the previous attempt, if a crash interrupted it.
    pub note: Option<Value>,
}

/// Access to the control plane during one attempt.
#[derive(Clone)]
pub struct Context {
    /// Time of the attempt.
    pub now: Timestamp,
    /// Encrypts with the tenant's key.
    pub sealer: Arc<dyn Sealer>,
    /// Reads the registry's rows of this tenant.
    pub rows: Arc<dyn Rows>,
    /// Commits a note of the running attempt, such as a process group, for the next attempt after a crash.
    pub notes: Arc<dyn Notes>,
}

/// A key of 256 bits, wiped when dropped.
pub type Key = Zeroizing<[u8; 32]>;

/// Encrypts with the tenant's key, which is destroyed when the tenant is deleted.
pub trait Sealer: Send + Sync {
    /// Encrypts a text. Returns an error if the tenant's key is not available.
    fn seal(&self, tenant: TenantId, clear: &str) -> Result<String, Failure>;
    /// Decrypts the result of `seal`. Returns an error if the key is destroyed or the text was not sealed with it.
    fn open(&self, tenant: TenantId, sealed: &str) -> Result<String, Failure>;
    /// Derives a key from the tenant's key, for content that is too large for `seal`. The same tenant and
    /// purpose always give the same key, others give another. It is lost with the tenant's key. Returns the
    /// errors of `seal`.
    fn derive(&self, tenant: TenantId, purpose: &str) -> Result<Key, Failure>;
    /// Keyed digest of a text, in hexadecimal: HMAC-SHA-256 with the pepper, over the purpose and the text.
    /// Rows can be searched by it without storing the text. Each purpose gives other digests.
    fn mac(&self, purpose: &str, text: &str) -> String;
}

/// Reads the rows that a built-in provider keeps in the registry.
#[async_trait]
pub trait Rows: Send + Sync {
    /// Rows of `table` whose columns have these values, as JSON objects, in key order. `table` and the column names
    /// are constants of the code.
    async fn find(&self, table: &'static str, equal: &[(&'static str, Value)])
    -> Result<Vec<Value>, Failure>;
}

/// Stores a durable note of the running attempt.
#[async_trait]
pub trait Notes: Send + Sync {
    /// Returns once the note is committed.
    async fn note(&self, note: Value) -> Result<(), Failure>;
}

/// Result of [`Provider::ensure`].
#[derive(Clone, Debug, Default)]
pub struct Ensured {
    /// Outputs of the resource, which other steps and operators can read. Must contain no secrets and no
    /// personal data.
    pub outputs: Value,
    /// Rows of the registry, written in the transaction that records the step's end.
    pub writes: Vec<Write>,
}

/// Observed state of a resource.
#[derive(Clone, Debug, PartialEq)]
pub enum Observed {
    /// No resource has the spec's name.
    Absent,
    /// A resource has the spec's name and owner tag.
    Present {
        /// Differences from the spec, one sentence each: names of parts, never values. Empty: it is complete
        /// and works.
        differs: Vec<String>,
        /// Version of its content, such as the last migration. A database without one has no content.
        version: Option<String>,
        /// Changes when the resource was changed by other means than this provider.
        fingerprint: String,
    },
    /// A resource has the spec's name and another owner tag.
    Foreign,
}

impl Observed {
    /// A resource with the spec's owner tag, for a provider that cannot name the differences.
    pub fn present(healthy: bool, version: Option<String>, fingerprint: String) -> Self {
        let differs =
            if healthy { Vec::new() } else { vec!["it is not as it was made, or not complete".to_owned()] };
        Self::Present { differs, version, fingerprint }
    }

    /// Whether the resource exists, is complete, and works.
    pub fn is_healthy(&self) -> bool {
        matches!(self, Self::Present { differs, .. } if differs.is_empty())
    }

    /// State of a resource whose name is free: absent, unless `left` says that remains must be removed.
    pub fn absent_unless(left: bool) -> Self {
        if !left {
            return Self::Absent;
        }
        let differs = vec!["something is left of an attempt that was cut off, or of a removal".to_owned()];
        Self::Present { differs, version: None, fingerprint: "remains".to_owned() }
    }
}

/// What has the name of a resource, by its owner tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ownership<T = ()> {
    /// Nothing.
    Absent,
    /// Something with another owner tag, or without one.
    Foreign,
    /// The resource, and what was read of it.
    Own(T),
}

/// Result of [`Provider::remove`].
#[derive(Clone, Debug, Default)]
pub struct Removed {
    /// Receipt: counts of the removed parts. Must contain no secrets and no personal data.
    pub receipt: Value,
    /// Rows of the registry, written in the transaction that records the step's end.
    pub writes: Vec<Write>,
}

/// A fault in a step's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Path from the step, such as `seed`.
    pub path: String,
    /// The fault, and the fix.
    pub message: String,
}

/// Creates, observes and removes resources of one kind.
#[async_trait]
pub trait Provider: Send + Sync + 'static {
    /// Name in templates, configuration and ledger: that of the configured instance.
    fn name(&self) -> &str;

    /// Kind of its resources.
    fn kind(&self) -> Kind;

    /// Whether it isolates tenants in this way. Only used for databases.
    fn isolates(&self, _: Isolation) -> bool {
        true
    }

    /// True if it changes only registry rows, which it returns as writes. They are then committed in one
    /// transaction with the records of its step.
    fn transactional(&self) -> bool {
        false
    }

    /// Longest time for which a call can still take effect after its response was lost.
    fn in_flight(&self) -> Duration {
        Duration::ZERO
    }

    /// Opens what it serves from, such as a port or a folder. Called once in each process that runs steps,
    /// before any verb that acts. A process that only reads templates does not call it.
    async fn start(&self) -> Result<(), Failure> {
        Ok(())
    }

    /// JSON Schema (2020-12) of the settings that a template's step gives under `with`: an object without additional
    /// properties, none of which is a setting of the kind. Settings of the kind are in [`kinds`](crate::kinds).
    fn settings_schema(&self) -> Value;

    /// Checks the settings beyond their schemas: those of the kind and those under `with`, in one object.
    /// Called at plan time.
    fn check(&self, _settings: &Value) -> Vec<Fault> {
        Vec::new()
    }

    /// Checks that a resource can have this external name. The error says why not. Called when a template is read and at plan
    /// time, so that no accepted plan fails for its names.
    fn check_name(&self, _name: &str) -> Result<(), String> {
        Ok(())
    }

    /// Creates or updates the resource, and completes one that an interrupted call left. Safe to call again
    /// after a failure or an interruption at any point, and while another call with the same spec runs.
    async fn ensure(&self, context: &Context, spec: &Spec) -> Result<Ensured, Failure>;

    /// Reads the state of the resource. Changes nothing.
    async fn observe(&self, context: &Context, spec: &Spec) -> Result<Observed, Failure>;

    /// Deletes the resource permanently. Succeeds if it is absent. Changes only what has this spec's owner tag.
    async fn remove(&self, context: &Context, spec: &Spec) -> Result<Removed, Failure>;

    /// Returns an error unless the provider's backend is reachable and its credentials are sufficient.
    async fn probe(&self) -> Result<(), Failure>;

    /// Access to the tenants' rows, if the provider keeps any.
    fn data(&self) -> Option<&dyn Data> {
        None
    }

    /// Fences of its resources, if tenants' applications have direct access to them.
    fn fence(&self) -> Option<&dyn Fence> {
        None
    }

    /// Rotation of its resources' secrets, if tenants' applications use them for direct access.
    fn rotate(&self) -> Option<&dyn Rotate> {
        None
    }

    /// Check of the isolation between its tenants, if it has one.
    fn isolation(&self) -> Option<&dyn IsolationCheck> {
        None
    }

    /// Access to the tenants' objects, if the provider keeps any.
    fn objects(&self) -> Option<&dyn Objects> {
        None
    }

    /// Removal of what deleted rows leave, if its resources share files.
    fn purge(&self) -> Option<&dyn Purge> {
        None
    }

    /// Export and import of a resource's content, if the provider stores any.
    fn transfer(&self) -> Option<&dyn Transfer> {
        None
    }
}
