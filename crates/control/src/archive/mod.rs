//! Archives of what a tenant has: a tar inside zstd, with a folder for each resource, pages that list the files before them,
//! and a manifest at the end, because only then it is known what was written. An archive without it was cut off, and is none.

mod first_form;
mod make;
mod pack;
mod pages;
mod put_back;
mod rehearse;
mod shelf;
#[cfg(test)]
mod tests;
mod unpack;

pub use make::{ArchiveSettings, Archives, Standing, Written, archive_id, forget, remember};
pub(crate) use put_back::taker;
pub use put_back::{LoadSettings, Loaded};
pub use rehearse::Verified;
pub use shelf::Shelf;

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tenantry_model::id::ArchiveId;
use tenantry_model::{TenantId, Timestamp};
use tenantry_provider::portable::Content;

use pages::Pages;

/// Version of the form.
pub const VERSION: u32 = 2;
/// The last file of an archive.
pub const MANIFEST: &str = "manifest.json";
const DAY: Duration = Duration::from_secs(86_400);

/// What an archive is for. It has the same form whatever that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// For the customer, behind a signed address (S1.34).
    Export,
    /// For us, in case it is needed again (S3.47).
    Backup,
    /// Brought from elsewhere, to be put into the tenant.
    Import,
}

impl Purpose {
    /// The word in tables, and of the step that makes one.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Export => "export",
            Self::Backup => "backup",
            Self::Import => "import",
        }
    }

    /// How long one is kept unless somebody says otherwise: S1.34 and S3.48; an import until it has surely been put in.
    pub const fn kept(self) -> Duration {
        match self {
            Self::Export => DAY.saturating_mul(30),
            Self::Backup => DAY.saturating_mul(90),
            Self::Import => DAY.saturating_mul(7),
        }
    }
}

/// What an archive says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Of the form: [`VERSION`].
    pub version: u32,
    /// Whose it was.
    pub tenant: TenantId,
    /// When it was begun.
    pub made_at: Timestamp,
    /// The resources, in the order of their folders.
    pub resources: Vec<Packed>,
    /// Resources that hold something and are not in it.
    pub left_out: Vec<LeftOut>,
    /// The pages that say which other files there are.
    pub pages: Pages,
}

/// An archive, as it is told of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ArchiveView {
    /// Its id.
    pub id: ArchiveId,
    /// Whose it is.
    pub tenant_id: TenantId,
    /// What it is for.
    pub purpose: Purpose,
    /// Its file's name on the shelf.
    pub location: String,
    /// Its length in bytes.
    pub size: u64,
    /// SHA-256 of those, in hexadecimal.
    pub sha256: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it goes.
    pub expires_at: Timestamp,
    /// What is in it.
    pub resources: Vec<Packed>,
    /// What the tenant had besides.
    pub left_out: Vec<LeftOut>,
    /// What was proven of it; of a backup alone.
    pub verified: Option<Verified>,
}

/// A resource in an archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Packed {
    /// Its folder: the step that made it.
    pub folder: String,
    /// What it is.
    pub kind: String,
    /// Who served it.
    pub provider: String,
    /// The form of its files. Providers of the same form can take them back.
    pub form: String,
    /// What is in it.
    pub content: Content,
}

/// A resource that is not in an archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeftOut {
    /// The step that made it.
    pub step: String,
    /// Who serves it.
    pub provider: String,
    /// Why it is not in it.
    pub why: String,
}
