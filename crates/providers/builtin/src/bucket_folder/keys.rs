//! The key that a bucket's objects are encrypted under. `standard`: it follows from the tenant's key, and nothing of it is
//! stored. `enhanced`: it is the bucket's own, random, in a file that only the tenant's key opens. So no object can be read
//! by whoever has not the tenant's key, or has it no more. All of it blocks.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tenantry_model::{Failure, TenantId};
use zeroize::Zeroizing;

use tenantry_provider::kinds::bucket::Encryption;
use tenantry_provider::place;
use tenantry_provider::verbs::{Key, Sealer};

/// What the tenant's key is asked for.
const PURPOSE: &str = "folder_bucket objects";

/// The file of a bucket's own key.
pub fn key_file(folder: &Path) -> PathBuf {
    folder.join("key.sealed")
}

/// Gives the bucket in this folder a key of its own, in place of any that it had.
pub fn make(folder: &Path, tenant: TenantId, sealer: &dyn Sealer) -> Result<(), Failure> {
    let random = Key::new(rand::random());
    let clear = Zeroizing::new(URL_SAFE_NO_PAD.encode(random.as_slice()));
    let sealed = sealer.seal(tenant, &clear)?;
    place::write(&key_file(folder), sealed.as_bytes()).map_err(|error| place::failure(folder, &error))
}

/// The key of this level. Fails as the sealer does when the tenant's key is not at hand, or is destroyed.
pub fn open(level: Encryption, folder: &Path, tenant: TenantId, sealer: &dyn Sealer) -> Result<Key, Failure> {
    if level == Encryption::Standard {
        return sealer.derive(tenant, PURPOSE);
    }
    let sealed = fs::read_to_string(key_file(folder)).map_err(|error| match error.kind() {
        ErrorKind::NotFound => no_key(),
        _ => place::failure(folder, &error),
    })?;
    let clear = Zeroizing::new(sealer.open(tenant, &sealed)?);
    let mut key = Key::default();
    match URL_SAFE_NO_PAD.decode_slice(clear.as_bytes(), key.as_mut_slice()) {
        Ok(length) if length == key.len() => Ok(key),
        _ => Err(Failure::fatal("corrupt", "the bucket's key.sealed holds no key: restore it from a backup")),
    }
}

/// A key that is missing is not made anew: every object under it would be lost.
pub fn no_key() -> Failure {
    Failure::fatal(
        "corrupt",
        "the bucket's key.sealed is missing: restore it from a backup, with the objects beside it",
    )
}
