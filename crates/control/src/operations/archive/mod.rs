//! Archives of a tenant's content: exports, backups, restores and imports, each an operation of one step. An archive is a tar
//! inside zstd with a folder for each resource, pages that list the files before them, and a manifest at the end. An
//! archive without a manifest was truncated and is rejected.

mod archives;
mod create;
mod load;
mod pack;
mod pages;
mod rehearse;
mod requests;
#[cfg(test)]
mod tests;
mod unpack;

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tenantry_engine::OnFailure;
use tenantry_model::id::ArchiveId;
use tenantry_model::{TenantId, Timestamp};
use tenantry_provider::transfer::Content;

use super::{Operation, OperationKind};
use pages::Pages;

pub use archives::{ArchiveSettings, Archives, PresentResource, Written, archive_id, forget, remember};
pub(super) use create::Create;
pub(super) use load::{Load, target_of};
pub use load::{LoadSettings, Loaded};
pub use rehearse::Verified;
pub(super) use requests::TIMEOUT_MS;
pub use requests::{ArchiveLink, ArchivePart, RestoreTenant, archive_error};

/// An operation that creates or loads one archive.
pub(super) struct ArchiveOperation {
    kind: OperationKind,
    on_failure: OnFailure,
}

/// An archive that is incomplete is removed.
pub(super) static EXPORT: ArchiveOperation =
    ArchiveOperation { kind: OperationKind::Export, on_failure: OnFailure::Rollback };
/// An archive that is incomplete is removed.
pub(super) static BACKUP: ArchiveOperation =
    ArchiveOperation { kind: OperationKind::Backup, on_failure: OnFailure::Rollback };
/// Content that is partly loaded is neither the old nor the new one: that asks for an operator.
pub(super) static RESTORE: ArchiveOperation =
    ArchiveOperation { kind: OperationKind::Restore, on_failure: OnFailure::Park };
/// As for a restore.
pub(super) static IMPORT: ArchiveOperation =
    ArchiveOperation { kind: OperationKind::Import, on_failure: OnFailure::Park };

impl Operation for ArchiveOperation {
    fn kind(&self) -> OperationKind {
        self.kind.clone()
    }

    fn on_failure(&self) -> OnFailure {
        self.on_failure
    }

    fn replaces_content(&self) -> bool {
        matches!(self.kind, OperationKind::Restore | OperationKind::Import)
    }
}

/// Version of the format.
pub const VERSION: u32 = 2;
/// The last file of an archive.
pub const MANIFEST: &str = "manifest.json";
const DAY: Duration = Duration::from_secs(86_400);

/// Purpose of an archive. The format is the same for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// For the customer, by a signed URL.
    Export,
    /// For the operator; verified to be restorable.
    Backup,
    /// Uploaded by a client, to be loaded into the tenant.
    Import,
}

impl Purpose {
    /// The word in tables, and the kind of the action that creates one.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Export => "export",
            Self::Backup => "backup",
            Self::Import => "import",
        }
    }

    /// Default time until an archive is removed. An import is kept for as long as loading it may take.
    pub const fn kept(self) -> Duration {
        match self {
            Self::Export => DAY.saturating_mul(30),
            Self::Backup => DAY.saturating_mul(90),
            Self::Import => DAY.saturating_mul(7),
        }
    }
}

/// Manifest of an archive.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of the format: [`VERSION`].
    pub version: u32,
    /// Tenant.
    pub tenant: TenantId,
    /// Time at which writing began.
    pub made_at: Timestamp,
    /// The resources, in the order of their folders.
    pub resources: Vec<Packed>,
    /// Resources with content that are not in the archive.
    pub left_out: Vec<LeftOut>,
    /// Summary of the pages, which list all other files.
    pub pages: Pages,
}

/// An archive in the API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ArchiveView {
    /// Archive id.
    pub id: ArchiveId,
    /// Tenant whose content the archive has.
    pub tenant_id: TenantId,
    /// Reason why the archive was created.
    pub purpose: Purpose,
    /// File name in the archive store.
    pub location: String,
    /// Size of the file in bytes.
    pub size: u64,
    /// SHA-256 of the file's bytes, in hexadecimal.
    pub sha256: String,
    /// Time of creation.
    pub created_at: Timestamp,
    /// Time of removal.
    pub expires_at: Timestamp,
    /// Resources in the archive.
    pub resources: Vec<Packed>,
    /// Resources with content that are not in the archive.
    pub left_out: Vec<LeftOut>,
    /// Result of the verification; only for a backup.
    pub verified: Option<Verified>,
}

/// A resource in an archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Packed {
    /// Folder: key of the step that created the resource.
    pub folder: String,
    /// Resource kind.
    pub kind: String,
    /// Provider.
    pub provider: String,
    /// Format of the resource's files. Providers of the same format can load them.
    pub form: String,
    /// Content.
    pub content: Content,
}

/// A resource that is not in an archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeftOut {
    /// Key of the step that created it.
    pub step: String,
    /// Provider.
    pub provider: String,
    /// Reason.
    pub why: String,
}
