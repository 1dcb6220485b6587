//! The invariants of ARCHITECTURE.md, checked by queries of their own once the installation is at rest and its servers have
//! ended: SQL, files and signatures, without the product's code.

mod audit;
mod certificates;
mod folders;
mod keys;
mod markers;
mod neighbours;
mod registry;
mod tenants;

use std::path::PathBuf;

use tenantry_testkit::Raw;

use crate::fleet::Tenant;

/// What is checked.
pub struct Ground {
    /// Sessions to registry, keyring and tenants' main database.
    pub registry: Raw,
    pub keyring: Raw,
    pub tenants: Raw,
    /// URL of the tenants' main database.
    pub tenants_url: String,
    /// What the run knows of its tenants.
    pub fleet: Vec<Tenant>,
    /// Folder of all files.
    pub shared: PathBuf,
    /// The servers' logs.
    pub logs: Vec<PathBuf>,
    /// Raw Ed25519 key that verifies certificates, 32 bytes.
    pub certificate_key: Vec<u8>,
}

/// An invariant with the faults that were found.
pub struct Checked {
    pub name: &'static str,
    pub faults: Vec<String>,
}

/// Checks every invariant.
pub async fn check(ground: &Ground) -> Vec<Checked> {
    let mut all = registry::check(ground).await;
    let mut add = |name, faults| all.push(Checked { name, faults });
    add("error_codes_are_listed", registry::unlisted_codes(ground).await);
    add("the_audit_chain_is_whole", audit::check(ground).await);
    add("certificates_are_genuine_and_chained", certificates::check(ground).await);
    add("keys_live_as_long_as_tenants", keys::check(ground).await);
    add("nothing_of_deleted_tenants_is_on_the_server", tenants::leftovers(ground).await);
    add("rows_belong_to_living_tenants", tenants::orphan_rows(ground).await);
    add("fences_are_as_ordered", tenants::fences(ground).await);
    add("files_belong_to_living_tenants", folders::check(ground).await);
    add("no_tenant_lost_a_row", neighbours::check(ground).await);
    add("no_marker_of_a_deleted_tenant_is_left", markers::check(ground).await);
    add("logs_name_no_tenant_and_no_panic", markers::logs(ground));
    all
}
