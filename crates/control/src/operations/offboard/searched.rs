//! What a deletion looked through, and what it could not: the files from which copies of deleted rows were removed, and the
//! places that may still have copies, as the certificate names them.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tenantry_model::{Failure, Timestamp};
use tenantry_provider::{Provider as _, Purged};

use crate::ledger::read;
use crate::operations::ProviderSteps;

/// Store of the registry's files.
pub(super) const REGISTRY: &str = "registry";
/// Store of the keyring's files.
pub(super) const KEYRING: &str = "keyring";

/// A file from which copies of deleted rows were removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PurgedFile {
    /// `registry`, `keyring`, or the provider.
    pub store: String,
    /// Name of the file.
    pub file: String,
    /// `overwritten`: the unused parts of all pages were overwritten. `rewritten`: the file was written again without them.
    /// `truncated`: the log was copied into its database and truncated.
    pub method: String,
    /// Size of the file afterwards.
    pub bytes: u64,
    /// Time at which the step began: rows that were deleted before it have no copies in the file.
    pub at: Timestamp,
}

/// A place that may still have copies of deleted data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NotSearched {
    /// The place.
    pub place: String,
    /// What was not looked through there, and what is known about it.
    pub what: String,
}

/// The files of a store, for the certificate.
pub(super) fn files(store: &str, purged: Vec<Purged>, at: Timestamp) -> Vec<PurgedFile> {
    let file = |Purged { file, method, bytes }| {
        let (store, method) = (store.to_owned(), method.as_str().to_owned());
        PurgedFile { store, file, method, bytes, at }
    };
    purged.into_iter().map(file).collect()
}

/// Output of the step that scans the registry.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RegistryScan {
    /// Number of the tenant's rows by table.
    pub tables: BTreeMap<String, u64>,
    /// Files of the registry and the keyring; none on PostgreSQL.
    pub files: Vec<PurgedFile>,
}

impl RegistryScan {
    /// Reads the output. Earlier releases stored the tables alone.
    pub fn read(output: &Value) -> Result<Self, Failure> {
        if output.get("tables").is_some() {
            return read(output);
        }
        Ok(Self { tables: read(output)?, files: Vec::new() })
    }
}

/// The places that were not looked through. `providers`: those of the deleted resources. `files`: those that were purged.
pub(super) fn not_searched<'a>(
    steps: &ProviderSteps,
    providers: impl Iterator<Item = &'a str>,
    files: &[PurgedFile],
) -> Vec<NotSearched> {
    let entry = |place: &str, what: &str| NotSearched { place: place.to_owned(), what: what.to_owned() };
    let mut all = vec![
        entry(
            "backups",
            "copies of databases, files and disks that were made outside of Tenantry, and freed blocks of file systems",
        ),
        entry("downloads", "exports that were downloaded"),
        entry("log", "the server's log, which names tenants by id only"),
    ];
    for store in [REGISTRY, KEYRING].into_iter().filter(|store| files.iter().all(|file| file.store != *store))
    {
        all.push(entry(
            store,
            "the write-ahead log, the standbys, the server log and dead rows, until PostgreSQL removes them",
        ));
    }
    let providers: BTreeSet<&str> = providers.collect();
    let is_unknown = |name: &&str| {
        let provider = steps.provider(name);
        // The rows of transactional providers are in the registry.
        provider.map_or(true, |provider| provider.purge().is_none() && !provider.transactional())
    };
    for provider in providers.into_iter().filter(is_unknown) {
        all.push(entry(
            provider,
            "the provider found each resource absent; logs, standbys and freed space behind it were not looked through",
        ));
    }
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn scans_of_earlier_releases_are_read() {
        let tables = BTreeMap::from([("members".to_owned(), 0)]);
        let earlier = RegistryScan::read(&json!({ "members": 0 })).unwrap();
        assert_eq!(earlier, RegistryScan { tables: tables.clone(), files: Vec::new() });
        let purged = Purged {
            file: "registry.db".to_owned(),
            method: tenantry_provider::purge::PurgeMethod::Overwritten,
            bytes: 4_096,
        };
        let files = files(REGISTRY, vec![purged], Timestamp::from_micros(0));
        let scan = RegistryScan { tables, files };
        assert_eq!(RegistryScan::read(&json!(scan)).unwrap(), scan);
    }
}
