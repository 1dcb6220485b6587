//! Encryption keys of buckets. `standard`: derived from the tenant's key, not stored. `enhanced`: random, one
//! per bucket, in a file sealed with the tenant's key. Without the tenant's key, or after its destruction, no
//! object can be read. All functions block.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tenantry_model::{Failure, TenantId};
use zeroize::Zeroizing;

use tenantry_provider::kinds::bucket::Encryption;
use tenantry_provider::resource_folder;
use tenantry_provider::verbs::{Key, Sealer};

/// Purpose under which the key is derived from the tenant's.
const PURPOSE: &str = "folder_bucket objects";

/// File of a bucket's own key.
pub fn key_file(folder: &Path) -> PathBuf {
    folder.join("key.sealed")
}

/// Generates the key of the bucket in this folder, replacing an existing one.
pub fn make(folder: &Path, tenant: TenantId, sealer: &dyn Sealer) -> Result<(), Failure> {
    let random = Key::new(rand::random());
    let clear = Zeroizing::new(URL_SAFE_NO_PAD.encode(random.as_slice()));
    let sealed = sealer.seal(tenant, &clear)?;
    resource_folder::write(&key_file(folder), sealed.as_bytes())
        .map_err(|error| resource_folder::failure(folder, &error))
}

/// Opens the bucket's key for an encryption level. Returns the sealer's error if the tenant's key is
/// unavailable or destroyed.
pub fn open(level: Encryption, folder: &Path, tenant: TenantId, sealer: &dyn Sealer) -> Result<Key, Failure> {
    if level == Encryption::Standard {
        return sealer.derive(tenant, PURPOSE);
    }
    let sealed = fs::read_to_string(key_file(folder)).map_err(|error| match error.kind() {
        ErrorKind::NotFound => no_key(),
        _ => resource_folder::failure(folder, &error),
    })?;
    let clear = Zeroizing::new(sealer.open(tenant, &sealed)?);
    let mut key = Key::default();
    match URL_SAFE_NO_PAD.decode_slice(clear.as_bytes(), key.as_mut_slice()) {
        Ok(length) if length == key.len() => Ok(key),
        _ => Err(Failure::fatal("corrupt", "the bucket's key.sealed is damaged: restore it from a backup")),
    }
}

/// The error for a missing key. It is not generated again, because every object under it would be lost.
pub fn no_key() -> Failure {
    Failure::fatal(
        "corrupt",
        "the bucket's key.sealed is missing: restore it from a backup, with the objects beside it",
    )
}
