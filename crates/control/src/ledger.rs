//! Records that operations and steps keep in the ledger: their kinds and inputs, and how they are read. Rows that an
//! earlier version stored must load: fields are only added, with a default.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tenantry_engine::{Operation, Step};
use tenantry_model::id::ResourceId;
use tenantry_model::{Failure, TenantId};
use tenantry_provider::Person;
use tenantry_store::entity;

use crate::error::{Error, Result};

/// Kind of an operation. The ledger stores the word of [`OperationKind::as_str`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum OperationKind {
    /// Creates a tenant's resources and activates the tenant. An onboarding of a clone is one as well.
    Onboard,
    /// Reconciles the resources of a tenant with the plan by which they were created.
    Repair,
    /// Replaces the secrets of a tenant's database logins and other direct logins.
    RotateCredentials,
    /// Writes an archive for the customer.
    Export,
    /// Writes an archive for the operator and proves that it can be restored.
    Backup,
    /// Loads one of the tenant's archives.
    Restore,
    /// Loads an archive that a client uploaded.
    Import,
    /// Deletes a tenant after a hold.
    Offboard,
    /// Deletes a tenant at once.
    Erase,
    /// Runs one detached step of another operation.
    Detached {
        /// Key of that step in the parent's plan.
        step: String,
    },
}

impl OperationKind {
    /// Every kind that is named by its word.
    const NAMED: [Self; 9] = [
        Self::Onboard,
        Self::Repair,
        Self::RotateCredentials,
        Self::Export,
        Self::Backup,
        Self::Restore,
        Self::Import,
        Self::Offboard,
        Self::Erase,
    ];

    /// The kind of a stored operation. A child is detached whatever its step's key is: the key may be the word of another
    /// kind. So is an operation whose word this version does not know, which therefore gets no special treatment.
    pub fn of(operation: &Operation) -> Self {
        Self::read(&operation.kind, operation.parent.is_some())
    }

    /// The kind that a row's word stands for.
    pub fn read(word: &str, is_child: bool) -> Self {
        let known = Self::NAMED.into_iter().find(|kind| !is_child && kind.as_str() == word);
        known.unwrap_or_else(|| Self::Detached { step: word.to_owned() })
    }

    /// The word in the ledger and the API; of a detached step's operation, the step's key.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Onboard => "onboard",
            Self::Repair => "repair",
            Self::RotateCredentials => "rotate_credentials",
            Self::Export => "export",
            Self::Backup => "backup",
            Self::Restore => "restore",
            Self::Import => "import",
            Self::Offboard => "offboard",
            Self::Erase => "erase",
            Self::Detached { step } => step,
        }
    }
}

/// Input of an operation, from its request. It is stored, so fields may only be added, with a default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OperationInput {
    /// Plan name.
    pub plan: String,
    /// Template name.
    pub template: String,
    /// Template version. Versions that are published later do not change the operation.
    pub template_version: u32,
    /// Region of the resources.
    pub region: String,
    /// Language of seeds and mails.
    pub locale: String,
    /// Number of times that the tenant was provisioned, this one included.
    pub generation: i64,
    /// [`Personal`], sealed under the tenant's key.
    pub sealed: String,
    /// Principal that requested the operation, or id of the operation that it was detached from.
    #[serde(default)]
    pub begun_by: String,
    /// Reason for a deletion, in the words of the caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The part of an operation's input that may identify people. The ledger holds it only sealed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Personal {
    /// Slug.
    pub slug: String,
    /// Tenant name.
    pub name: String,
    /// First administrator.
    pub admin: Person,
}

/// Input of a step, fixed when the plan is made. It is stored, so fields may only be added, with a default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepInput {
    /// The resource that the step acts on; none for an action without a provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<ResourceId>,
    /// Number of times that the tenant was provisioned, this one included.
    #[serde(default)]
    pub generation: i64,
    /// External name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Owner tag.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub claim: String,
    /// Settings of the provider or of the action.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub settings: Value,
    /// The verb that the step calls on its resource.
    #[serde(default, skip_serializing_if = "Act::is_ensure")]
    pub act: Act,
}

/// The verb that a step calls on its resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// Creates or updates the resource.
    #[default]
    Ensure,
    /// Deletes the resource permanently.
    Remove,
    /// Replaces the secret of the resource's logins.
    Rotate,
}

impl Act {
    fn is_ensure(&self) -> bool {
        *self == Self::Ensure
    }
}

/// The tenant that an operation changes.
pub fn tenant_id(operation: &Operation) -> std::result::Result<TenantId, Failure> {
    operation
        .subject
        .parse()
        .map_err(|why| Failure::fatal("bad_ledger", format!("the operation's tenant {why}")))
}

/// The id in a tenant's row.
pub(crate) fn id_of(row: &entity::tenant::Model) -> Result<TenantId> {
    row.id.parse().map_err(Error::internal)
}

/// A step's input. Fails with `bad_ledger` on a row that does not fit.
pub(crate) fn input_of(step: &Step) -> std::result::Result<StepInput, Failure> {
    read(&step.input)
}

/// Reads a record of the ledger. Fails with `bad_ledger` on one that does not fit.
pub(crate) fn read<T: DeserializeOwned>(value: &Value) -> std::result::Result<T, Failure> {
    T::deserialize(value)
        .map_err(|why| Failure::fatal("bad_ledger", format!("the ledger's record does not fit: {why}")))
}

/// Sets the generation of the resource in a step's input: a resource that was created anew has a later one than its step.
pub(crate) fn set_generation(input: &mut Value, generation: i64) {
    if let Some(input) = input.as_object_mut() {
        input.insert("generation".to_owned(), generation.into());
    }
}

/// A step's settings, or the defaults if it has none.
pub(crate) fn settings_of<T: DeserializeOwned + Default>(
    input: &StepInput,
) -> std::result::Result<T, Failure> {
    if input.settings.is_null() { Ok(T::default()) } else { read(&input.settings) }
}

/// Reads a record that was sealed. The error does not quote it: the text holds personal data.
pub(crate) fn read_sealed<T: DeserializeOwned>(text: &str) -> std::result::Result<T, Failure> {
    serde_json::from_str(text)
        .map_err(|_| Failure::fatal("bad_ledger", "the ledger's sealed record does not fit"))
}

/// The id of a step's resource: the same each time that the plan is made.
pub fn resource_id(tenant: TenantId, generation: i64, key: &str) -> ResourceId {
    let mut hash = Sha256::new();
    hash.update(tenant.uuid());
    hash.update(generation.to_be_bytes());
    hash.update(key);
    let digest: [u8; 32] = hash.finalize().into();
    let mut low = [0u8; 8];
    low.copy_from_slice(&digest[..8]);
    // The time of the tenant and 62 bits of the hash: still a UUIDv7.
    ResourceId::from_uuid(uuid::Uuid::from_u128(
        tenant.uuid().as_u128() ^ u128::from(u64::from_be_bytes(low) >> 2),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resource_ids_differ_by_step_and_generation() {
        let tenant = TenantId::from_uuid(uuid::Uuid::nil());
        let one = resource_id(tenant, 1, "database");
        assert_eq!(one, resource_id(tenant, 1, "database"));
        assert_ne!(one, resource_id(tenant, 1, "config"));
        assert_ne!(one, resource_id(tenant, 2, "database"));
    }

    #[test]
    fn every_named_kind_is_read_back() {
        use OperationKind as K;
        for word in [
            "onboard",
            "repair",
            "rotate_credentials",
            "export",
            "backup",
            "restore",
            "import",
            "offboard",
            "erase",
        ] {
            let kind = OperationKind::read(word, false);
            // A new kind does not compile here: it belongs into the list above and into `NAMED`.
            match kind {
                K::Onboard | K::Repair | K::RotateCredentials | K::Export | K::Backup => {}
                K::Restore | K::Import | K::Offboard | K::Erase => {}
                K::Detached { .. } => panic!("{word} is not in `NAMED`"),
            }
            assert_eq!(kind.as_str(), word);
        }
    }

    #[test]
    fn a_child_is_detached_whatever_its_key() {
        for word in
            ["onboard", "repair", "rotate_credentials", "export", "import", "erase", "offboard", "welcome"]
        {
            let child = OperationKind::read(word, true);
            assert_eq!(child, OperationKind::Detached { step: word.to_owned() });
            assert_eq!(child.as_str(), word, "the stored word stays");
        }
        assert_eq!(OperationKind::read("erase", false), OperationKind::Erase);
    }
}
