//! Archives of the first form, whose manifest lists all files itself. They are read as long as there are any, backups of
//! 90 days among them; nothing writes them any more.

use serde::Deserialize;
use tenantry_model::{Failure, TenantId, Timestamp};

use super::pages::{Listing, PackedFile, Pages};
use super::unpack::parsed;
use super::{LeftOut, Manifest, Packed};

/// Its version.
pub const VERSION: u32 = 1;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FirstForm {
    version: u32,
    tenant: TenantId,
    made_at: Timestamp,
    resources: Vec<Packed>,
    left_out: Vec<LeftOut>,
    files: Vec<PackedFile>,
}

/// What such a manifest says, if these are its files.
pub fn read(text: &[u8], mut passed: Listing) -> Result<Manifest, Failure> {
    let FirstForm { version, tenant, made_at, resources, left_out, files } = parsed(text)?;
    let mut said = Listing::default();
    for file in &files {
        said.add(file)?;
    }
    passed.compare(&said.turn())?;
    let pages = Pages { count: 0, ..passed.end() };
    Ok(Manifest { version, tenant, made_at, resources, left_out, pages })
}
