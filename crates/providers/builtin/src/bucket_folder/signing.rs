//! Creates and verifies signatures of URLs with one secret. Does not access the objects.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::path::Path;

use aws_lc_rs::hmac::{self, HMAC_SHA256, Key};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tempfile::Builder;
use tenantry_model::{Failure, Timestamp};

use tenantry_provider::objects::{MAX_LIFE, Signed};
use tenantry_provider::resource_folder;

/// Shortest secret, in bytes.
const MIN_SECRET: usize = 32;
/// Bytes of a secret file that are used.
const MAX_SECRET: u64 = 4096;

/// Reads the signing key from the operator's file, or from the one beside the buckets, which is generated if
/// it is missing.
pub fn key(root: &Path, given: Option<&Path>) -> Result<Key, Failure> {
    let secret = match given {
        Some(file) => read(file).map_err(|error| unreadable(file, &error))?,
        None => generated(root).map_err(|error| resource_folder::failure(root, &error))?,
    };
    if secret.len() < MIN_SECRET {
        return Err(Failure::fatal(
            "bad_config",
            format!(
                "the secret for signed URLs has fewer than {MIN_SECRET} bytes: write at least {MIN_SECRET} random bytes into its file"
            ),
        ));
    }
    // Derive a key for this purpose alone: the operator may use the secret elsewhere.
    let derived = hmac::sign(&Key::new(HMAC_SHA256, &secret), b"tenantry signed objects v1");
    Ok(Key::new(HMAC_SHA256, derived.as_ref()))
}

fn read(file: &Path) -> std::io::Result<Vec<u8>> {
    let mut secret = Vec::new();
    File::open(file)?.take(MAX_SECRET).read_to_end(&mut secret)?;
    Ok(secret.trim_ascii().to_vec())
}

fn generated(root: &Path) -> std::io::Result<Vec<u8>> {
    let folder = resource_folder::private_folder(root)?;
    let file = folder.join("signing.key");
    match read(&file) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        other => return other,
    }
    // The file appears complete, and if two processes generate it at once the first one stays.
    let mut draft = Builder::new().prefix("signing").tempfile_in(&folder)?;
    let random: [u8; 32] = rand::random();
    draft.write_all(URL_SAFE_NO_PAD.encode(random).as_bytes())?;
    draft.as_file().sync_all()?;
    match draft.persist_noclobber(&file) {
        Err(refused) if refused.error.kind() != ErrorKind::AlreadyExists => return Err(refused.error),
        _ => File::open(&folder)?.sync_all()?,
    }
    read(&file)
}

fn unreadable(file: &Path, error: &std::io::Error) -> Failure {
    Failure::retryable("unreadable", format!("cannot read {}: {error}", file.display()))
}

/// The text to sign. Only the object's key, which comes last, can contain any character; the owner tag binds
/// the signature to this bucket and not to a later one of the same name.
fn message(signed: &Signed, owner: &str) -> String {
    let Signed { method, bucket, key, expires_at, .. } = signed;
    format!("{}\n{bucket}\n{}:{owner}\n{expires_at}\n{key}", method.as_str(), owner.len())
}

/// Signs an address. An error if its expiry is past or more than [`MAX_LIFE`] ahead.
pub fn sign(key: &Key, mut signed: Signed, owner: &str, now: Timestamp) -> Result<Signed, Failure> {
    check_time(signed.expires_at, now)?;
    let tag = hmac::sign(key, message(&signed, owner).as_bytes());
    signed.signature = URL_SAFE_NO_PAD.encode(tag.as_ref());
    Ok(signed)
}

/// Verifies the signature, in constant time, and then the expiry.
pub fn verify(key: &Key, signed: &Signed, owner: &str, now: Timestamp) -> Result<(), Failure> {
    let tag = URL_SAFE_NO_PAD.decode(&signed.signature).map_err(|_| bad_signature())?;
    hmac::verify(key, message(signed, owner).as_bytes(), &tag).map_err(|_| bad_signature())?;
    check_time(signed.expires_at, now)
}

/// The error for any invalid signature; it does not reveal what is wrong.
pub fn bad_signature() -> Failure {
    Failure::invalid("bad_signature", "the signature does not match this URL: request a new signed URL")
}

fn check_time(expires_at: i64, now: Timestamp) -> Result<(), Failure> {
    let now = now.seconds();
    if expires_at <= now {
        return Err(Failure::invalid("expired", "the signed URL has expired: request a new one"));
    }
    let most = i64::try_from(MAX_LIFE.as_secs()).unwrap_or(i64::MAX);
    if expires_at.saturating_sub(now) > most {
        return Err(Failure::invalid(
            "bad_expiry",
            "a signed URL may be valid for at most 7 days: request an earlier expiry",
        ));
    }
    Ok(())
}
