//! The verbs, and what they take and give. The contract suite in `tests/it/contract.rs` holds every
//! provider to the words written here.

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
use crate::rotate::Rotate;
use crate::transfer::Transfer;

/// What a resource is.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Where the tenant's rows live.
    Database,
    /// Where the tenant's files live.
    Bucket,
    /// Where the tenant's workload runs.
    Namespace,
    /// The names by which the tenant is reached.
    Dns,
    /// What proves those names.
    Certificate,
    /// Who may sign in.
    Identity,
    /// Flags and settings.
    Config,
    /// What the tenant pays.
    Billing,
    /// A message to a person.
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

/// The tenant a resource belongs to. Built by the control plane from its own rows, never from a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tenant {
    /// Its id.
    pub id: TenantId,
    /// Its DNS label.
    pub slug: String,
    /// Its name, as people write it. Personal data: for the thing itself, never for logs, outputs or messages.
    pub name: String,
    /// The plan's name.
    pub plan: String,
    /// Where its resources are.
    pub region: String,
    /// BCP 47 language of seeds and mails; the provider falls back to `en`.
    pub locale: String,
    /// Its first administrator. Personal data.
    pub admin: Person,
}

/// A person. Personal data throughout.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Person {
    /// Where mail reaches them; they sign in with it.
    pub email: String,
    /// Given name.
    pub first_name: Option<String>,
    /// Family name.
    pub last_name: Option<String>,
    /// Role in the tenant: `owner`, `admin`, `member` …
    pub role: String,
}

/// One resource as it shall be. Everything but `tenant`'s personal fields was committed to the ledger before the call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// The resource.
    pub resource: ResourceId,
    /// The operation that works on it.
    pub operation: OperationId,
    /// Raised whenever the resource is made anew; older generations must not act any more.
    pub generation: i64,
    /// Whose it is.
    pub tenant: Tenant,
    /// The external name, planned and committed before the call.
    pub name: String,
    /// The owner tag that the resource carries from its creation. A resource with this name and another tag is never
    /// changed: the call fails with the fatal `name_taken`.
    pub claim: String,
    /// Settings of the kind and of the provider in one object, checked against both schemas at plan time. A provider reads
    /// them with [`settings`](crate::settings).
    pub settings: Value,
    /// Outputs of the steps that this one needs, by step key.
    pub inputs: BTreeMap<String, Value>,
    /// What the attempt before this one noted of itself, if a crash cut it off.
    pub note: Option<Value>,
}

/// What a provider may use while it works.
#[derive(Clone)]
pub struct Context {
    /// The instant of the attempt.
    pub now: Timestamp,
    /// Encrypts for the tenant.
    pub sealer: Arc<dyn Sealer>,
    /// Reads the registry's rows of this tenant.
    pub rows: Arc<dyn Rows>,
    /// Commits a note of the running attempt (a process group …), so that the next attempt finds it after a crash.
    pub notes: Arc<dyn Notes>,
}

/// A key of 256 bits, wiped when dropped.
pub type Key = Zeroizing<[u8; 32]>;

/// Encrypts under the tenant's key, which dies with the tenant.
pub trait Sealer: Send + Sync {
    /// Ciphertext as text. Fails when the tenant's key is not at hand.
    fn seal(&self, tenant: TenantId, clear: &str) -> Result<String, Failure>;
    /// The clear text again; fails when the key is destroyed or the text is not ours.
    fn open(&self, tenant: TenantId, sealed: &str) -> Result<String, Failure>;
    /// A key that follows from the tenant's and dies with it, for what is too big to be sealed as a text. Other purposes
    /// and other tenants have other keys; the same ones have the same key for ever. Fails as `seal` does.
    fn derive(&self, tenant: TenantId, purpose: &str) -> Result<Key, Failure>;
    /// A keyed digest of a text (HMAC-SHA-256 with the pepper, over the purpose and the text), in hexadecimal: by it a
    /// text can be found again without being stored. Other purposes give other digests.
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

/// Leaves a durable note of the running attempt.
#[async_trait]
pub trait Notes: Send + Sync {
    /// Returns once the note is committed.
    async fn note(&self, note: Value) -> Result<(), Failure>;
}

/// A resource that stands.
#[derive(Clone, Debug, Default)]
pub struct Ensured {
    /// What other steps and people may know of it. Neither secrets nor personal data.
    pub outputs: Value,
    /// Rows of the registry, written in the transaction that records the step's end.
    pub writes: Vec<Write>,
}

/// What is really there.
#[derive(Clone, Debug, PartialEq)]
pub enum Observed {
    /// Nothing of this name.
    Absent,
    /// A thing of this name with our owner mark.
    Present {
        /// What is not as it should be, a sentence each: names of parts, never values. None: it is complete and works.
        differs: Vec<String>,
        /// Version of what it holds, such as the last migration; a database without one holds nothing.
        version: Option<String>,
        /// Changes when the thing is changed behind our back.
        fingerprint: String,
    },
    /// A thing of this name that belongs to somebody else.
    Foreign,
}

impl Observed {
    /// A thing of ours, of a provider that knows no more than whether it is as it should be.
    pub fn present(healthy: bool, version: Option<String>, fingerprint: String) -> Self {
        let differs =
            if healthy { Vec::new() } else { vec!["it is not as it was made, or not complete".to_owned()] };
        Self::Present { differs, version, fingerprint }
    }

    /// Whether it is there, complete, and works.
    pub fn is_healthy(&self) -> bool {
        matches!(self, Self::Present { differs, .. } if differs.is_empty())
    }

    /// What is seen where nothing has the name: absent, unless something is left of it that is to be removed.
    pub fn absent_unless(left: bool) -> Self {
        if !left {
            return Self::Absent;
        }
        let differs = vec!["something is left of an attempt that was cut off, or of a removal".to_owned()];
        Self::Present { differs, version: None, fingerprint: "remains".to_owned() }
    }
}

/// A resource that is gone.
#[derive(Clone, Debug, Default)]
pub struct Removed {
    /// What was removed, counted: the receipt. Neither secrets nor personal data.
    pub receipt: Value,
    /// Rows of the registry, written in the transaction that records the step's end.
    pub writes: Vec<Write>,
}

/// A fault in a step's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Path from the step, such as `seed`.
    pub path: String,
    /// What is wrong and what would be right.
    pub message: String,
}

/// Who makes resources of one kind.
#[async_trait]
pub trait Provider: Send + Sync + 'static {
    /// The name in templates, configuration and ledger: that of the configured instance.
    fn name(&self) -> &str;

    /// The kind it serves.
    fn kind(&self) -> Kind;

    /// Whether tenants that it serves are kept apart in this way. Says something of databases alone.
    fn isolates(&self, _: Isolation) -> bool {
        true
    }

    /// True if it touches nothing but registry rows, which it returns as writes. Its steps then share one
    /// transaction with their own records.
    fn transactional(&self) -> bool {
        false
    }

    /// How long after a lost answer the other side may still act.
    fn in_flight(&self) -> Duration {
        Duration::ZERO
    }

    /// Opens what it serves from, a port or a folder. Called before any other verb that acts, once per process that carries
    /// steps out; a process that only reads templates does not call it.
    async fn start(&self) -> Result<(), Failure> {
        Ok(())
    }

    /// JSON Schema (2020-12) of the settings that a template's step gives under `with`: an object without additional
    /// properties, none of which is a setting of the kind. Settings of the kind are in [`kinds`](crate::kinds).
    fn settings_schema(&self) -> Value;

    /// What the schemas cannot say about the settings: those of the kind and those under `with`, in one object. Called at
    /// plan time.
    fn check(&self, _settings: &Value) -> Vec<Fault> {
        Vec::new()
    }

    /// Make it so. Safe to call again after any failure, at any point inside itself, and while another call with the
    /// same spec runs. Existence is not completion: a thing that is half there is finished.
    async fn ensure(&self, context: &Context, spec: &Spec) -> Result<Ensured, Failure>;

    /// What is there. Changes nothing.
    async fn observe(&self, context: &Context, spec: &Spec) -> Result<Observed, Failure>;

    /// Make it not so. Absent is success. Touches only what carries this spec's owner mark.
    async fn remove(&self, context: &Context, spec: &Spec) -> Result<Removed, Failure>;

    /// Is the provider itself reachable, and are its credentials sufficient?
    async fn probe(&self) -> Result<(), Failure>;

    /// Access to the tenants' rows, if the provider keeps any.
    fn data(&self) -> Option<&dyn Data> {
        None
    }

    /// The fences around what it serves past Tenantry, if it does.
    fn fence(&self) -> Option<&dyn Fence> {
        None
    }

    /// The way to new secrets for who logs in to it past Tenantry, if anybody does.
    fn rotate(&self) -> Option<&dyn Rotate> {
        None
    }

    /// The check that its tenants are kept apart, if it has one.
    fn isolation(&self) -> Option<&dyn IsolationCheck> {
        None
    }

    /// Access to the tenants' objects, if the provider keeps any.
    fn objects(&self) -> Option<&dyn Objects> {
        None
    }

    /// The way out and back for what the tenant has in it, if it holds anything of theirs.
    fn transfer(&self) -> Option<&dyn Transfer> {
        None
    }
}
