//! Files: each belongs to a resource that is present, or to an archive that the registry lists.

use std::collections::BTreeSet;
use std::path::Path;

use super::Ground;

/// Folders whose entries belong to one resource each, named by its id or its name.
const FOLDERS: [&str; 4] = ["outbox", "manifests", "dns", "certificates/certificates"];
/// The folder of buckets, whose entries are named in the same way.
const BUCKETS: &str = "buckets";
/// Subfolder with incomplete entries and links by tenant.
const PRIVATE: &str = ".tenantry";
/// Entries of it that belong to no tenant.
const SHARED: [&str; 2] = ["canary.db", "signing.key"];
const RESOURCES: &str = "SELECT id, name FROM resources WHERE state <> 'absent'";
const TENANTS: &str = "SELECT id FROM tenants WHERE status NOT IN ('pending', 'deprovisioned')";
const ARCHIVES: &str = "SELECT id FROM archives";

/// Entries that belong to nothing.
pub async fn check(ground: &Ground) -> Vec<String> {
    let mut known = BTreeSet::new();
    for row in ground.registry.rows(RESOURCES).await {
        known.insert(row.get::<String>(0).trim_start_matches("res_").to_owned());
        known.insert(row.get::<String>(1));
    }
    let tenants: BTreeSet<String> =
        ground.registry.rows(TENANTS).await.iter().map(|row| row.get(0)).collect();
    let mut faults = Vec::new();
    for folder in FOLDERS.into_iter().chain([BUCKETS]) {
        let path = ground.shared.join(folder);
        for name in entries(&path).into_iter().filter(|name| name != PRIVATE) {
            if !known.contains(resource(&name)) {
                faults.push(format!("{folder}/{name}"));
            }
        }
        for name in entries(&path.join(PRIVATE)) {
            let shared = SHARED.iter().any(|shared| name.starts_with(shared));
            if !shared && !tenants.contains(&name) && !known.contains(resource(&name)) {
                faults.push(format!("{folder}/{PRIVATE}/{name}"));
            }
        }
    }
    let archives: BTreeSet<String> =
        ground.registry.rows(ARCHIVES).await.iter().map(|row| row.get(0)).collect();
    for name in entries(&ground.shared.join("archives")) {
        if !archives.contains(&name) {
            faults.push(format!("archives/{name}"));
        }
    }
    faults
}

/// Id or name of the resource that an entry is named by.
fn resource(name: &str) -> &str {
    let name = name.trim_start_matches('.').trim_start_matches("res_");
    name.split('.').next().unwrap_or_default()
}

fn entries(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
