//! Certificate of a tenant's deletion: its content, its signature and chain, and the offline check. It holds ids, times and
//! counts, and names only as HMACs, so that it keeps no deleted data.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tenantry_model::id::{CertificateId, OperationId, ResourceId};
use tenantry_model::{TenantId, Timestamp};

pub use super::clones::LivingClone;
pub use super::searched::{NotSearched, PurgedFile};
use crate::error::{Error, Result};
use tenantry_store::entity;
use tenantry_store::keyring::{SigningKey, base64url, from_base64url, verify};

/// Name of the keyring's key that signs certificates.
pub const KEY: &str = "certificate_signing";

/// First line of the signed text; the certificate follows.
const HEADING: &str = "tenantry deletion certificate v1";

/// Prefix of an Ed25519 public key in DER (RFC 8410); the key's 32 bytes follow.
const DER: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The signed content of a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// Certificate id.
    pub id: CertificateId,
    /// Number in the chain of all certificates, from 1 on.
    pub seq: i64,
    /// SHA-256 of the previous certificate, as it was signed, in hexadecimal; null in the first certificate.
    pub previous: Option<String>,
    /// Deleted tenant.
    pub tenant_id: TenantId,
    /// Deleting operation.
    pub operation_id: OperationId,
    /// `erase` or `offboard`.
    pub kind: String,
    /// Principal that requested the deletion.
    pub requested_by: String,
    /// Reason, in the words of the request.
    pub reason: String,
    /// Time of the request, at which access ended.
    pub requested_at: Timestamp,
    /// Time from which data that was encrypted with the tenant's key cannot be read any more, not even from a backup;
    /// null while archives that need the key are retained. A final certificate follows when these expire.
    pub key_destroyed_at: Option<Timestamp>,
    /// Time of issue.
    pub issued_at: Timestamp,
    /// Name and version of the program that issued the certificate.
    pub issued_by: String,
    /// Resources of the tenant. Each was deleted, and its absence was then confirmed.
    pub resources: Vec<DeletedResource>,
    /// Tables of the registry that were searched for rows of the tenant, with the number of rows found, which is 0.
    pub registry: BTreeMap<String, u64>,
    /// Files that others share with the tenant, from which copies of its deleted rows were removed.
    #[serde(default)]
    pub files: Vec<PurgedFile>,
    /// Places that were not looked through and may have copies.
    #[serde(default)]
    pub not_searched: Vec<NotSearched>,
    /// Data that is kept, with the legal basis.
    pub retained: Vec<Retained>,
    /// Existing tenants with copies of the deleted tenant's rows.
    #[serde(default)]
    pub clones: Vec<LivingClone>,
}

/// A deleted resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeletedResource {
    /// Resource id.
    pub id: ResourceId,
    /// Resource kind.
    pub kind: String,
    /// Provider.
    pub provider: String,
    /// HMAC of the resource's external name.
    pub name: String,
    /// Number of the tenant's provisioning that created the resource, from 1 on.
    pub generation: i64,
    /// Step that deleted the resource; null if a rollback had deleted it before.
    pub step: Option<String>,
    /// Time of the deletion.
    pub deleted_at: Option<Timestamp>,
    /// The provider's receipt: counts as they are, texts as HMACs.
    #[schemars(with = "BTreeMap<String, Value>")]
    pub receipt: Value,
    /// Time at which the provider confirmed that the resource is absent.
    pub absent_at: Timestamp,
}

/// Data that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Retained {
    /// Kind of data.
    pub what: String,
    /// Number of items.
    pub count: u64,
    /// Legal basis.
    pub legal_basis: String,
    /// End of the retention; null: as long as the law requires.
    pub until: Option<Timestamp>,
}

/// A certificate with its signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificateView {
    /// Certificate.
    pub certificate: Certificate,
    /// Ed25519, base64url, over the line `tenantry deletion certificate v1` and `certificate` as JSON with sorted keys and
    /// without spaces.
    pub signature: String,
    /// Public key of the signature, base64url. For a check, take the key from a trusted source instead.
    pub public_key: String,
}

/// The public key of certificates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PublicKeyView {
    /// The key's 32 bytes in base64url.
    pub public_key: String,
    /// The key as a PEM file (RFC 8410), for `--public-key` or OpenSSL.
    pub pem: String,
}

/// A signed certificate: its text, the signature of the text, and the hash for the next certificate.
pub(super) struct Sealed {
    pub text: String,
    pub signature: String,
    pub hash: String,
}

pub(super) fn seal(
    certificate: &Certificate,
    key: &SigningKey,
) -> std::result::Result<Sealed, serde_json::Error> {
    // A `Value` writes its keys in order.
    let text = serde_json::to_value(certificate)?.to_string();
    let signature = base64url(&key.sign(message(&text).as_bytes()));
    let hash = hex::encode(Sha256::digest(&text));
    Ok(Sealed { text, signature, hash })
}

/// A certificate in the form that clients get and check: JSON with sorted keys.
pub(super) fn document(row: &entity::certificate::Model, key: &SigningKey) -> Result<Value> {
    let certificate: Value = serde_json::from_str(&row.certificate).map_err(Error::internal)?;
    Ok(json!({ "certificate": certificate, "signature": row.signature, "public_key": key.x() }))
}

/// The public key in the form that clients get.
pub(super) fn public_key(key: &SigningKey) -> PublicKeyView {
    let body = STANDARD.encode([&DER, key.public()].concat());
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n");
    PublicKeyView { public_key: key.x(), pem }
}

/// Checks a certificate file with a public key file, offline. Fails unless the file is byte for byte as the owner of the key
/// issued it.
pub fn check(file: &str, public_key: &str) -> std::result::Result<Certificate, String> {
    let key = read_key(public_key).ok_or("the public key is not an Ed25519 key in PEM format")?;
    let document: Value =
        serde_json::from_str(file).map_err(|why| format!("the certificate is not valid JSON: {why}"))?;
    let same = |written: String| written == file.strip_suffix('\n').unwrap_or(file);
    // Only two forms are valid, in one line and indented, so that no byte of a file can change undetected.
    if !same(document.to_string()) && !serde_json::to_string_pretty(&document).is_ok_and(same) {
        return Err(
            "the file was reformatted or changed: verify the file as the server returned it".to_owned()
        );
    }
    let view: CertificateView = serde_json::from_value(document.clone())
        .map_err(|why| format!("the file is not a certificate: {why}"))?;
    if from_base64url(&view.public_key).as_deref() != Some(key.as_slice()) {
        return Err("the certificate was signed with another key than the given one".to_owned());
    }
    let signature = from_base64url(&view.signature).unwrap_or_default();
    if !verify(&key, message(&document["certificate"].to_string()).as_bytes(), &signature) {
        return Err(
            "the signature does not match: the certificate was changed after it was issued".to_owned()
        );
    }
    Ok(view.certificate)
}

fn read_key(pem: &str) -> Option<Vec<u8>> {
    let body =
        pem.trim().strip_prefix("-----BEGIN PUBLIC KEY-----")?.strip_suffix("-----END PUBLIC KEY-----")?;
    let der = STANDARD.decode(body.split_whitespace().collect::<String>()).ok()?;
    der.strip_prefix(&DER).filter(|key| key.len() == 32).map(<[u8]>::to_vec)
}

fn message(text: &str) -> String {
    format!("{HEADING}\n{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate() -> Certificate {
        let at = Timestamp::from_micros(1_800_000_000_000_000);
        Certificate {
            id: CertificateId::new(),
            seq: 1,
            previous: None,
            tenant_id: TenantId::new(),
            operation_id: OperationId::new(),
            kind: "erase".to_owned(),
            requested_by: "key_a".to_owned(),
            reason: "Art. 17, Übermut".to_owned(),
            requested_at: at,
            key_destroyed_at: Some(at),
            issued_at: at,
            issued_by: "tenantry".to_owned(),
            resources: Vec::new(),
            registry: BTreeMap::from([("members".to_owned(), 0)]),
            files: Vec::new(),
            not_searched: Vec::new(),
            retained: Vec::new(),
            clones: Vec::new(),
        }
    }

    fn issued(key: &SigningKey) -> Value {
        let Sealed { text, signature, hash } = seal(&certificate(), key).unwrap();
        let at = Timestamp::from_micros(0).into();
        let (id, tenant_id) = (String::new(), String::new());
        let row =
            entity::certificate::Model { id, seq: 1, tenant_id, certificate: text, signature, hash, at };
        document(&row, key).unwrap()
    }

    fn key() -> SigningKey {
        SigningKey::from_pkcs8(SigningKey::generate()).unwrap()
    }

    #[test]
    fn no_byte_changes_undetected() {
        let key = key();
        let (document, pem) = (issued(&key), public_key(&key).pem);
        for file in [document.to_string(), serde_json::to_string_pretty(&document).unwrap() + "\n"] {
            check(&file, &pem).unwrap();
            for i in 0..file.len() {
                for bit in [1_u8, 4, 32] {
                    let mut bytes = file.clone().into_bytes();
                    bytes[i] ^= bit;
                    let passed = String::from_utf8(bytes).is_ok_and(|changed| check(&changed, &pem).is_ok());
                    assert!(!passed, "byte {i} of {file}");
                }
            }
        }
    }

    #[test]
    fn a_certificate_of_an_earlier_release_is_valid() {
        let key = key();
        let mut older = serde_json::to_value(certificate()).unwrap();
        for later in ["clones", "files", "not_searched"] {
            older.as_object_mut().unwrap().remove(later).unwrap();
        }
        let signature = base64url(&key.sign(message(&older.to_string()).as_bytes()));
        let document = json!({ "certificate": older, "signature": signature, "public_key": key.x() });
        let read = check(&document.to_string(), &public_key(&key).pem).unwrap();
        assert_eq!((read.clones, read.files, read.not_searched), (vec![], vec![], vec![]));
    }

    #[test]
    fn only_the_key_owner_can_issue_one() {
        let (signer, other) = (key(), key());
        let pem = public_key(&signer).pem;
        let why = check(&issued(&other).to_string(), &pem).unwrap_err();
        assert_eq!(why, "the certificate was signed with another key than the given one");
        let mut lied = issued(&other);
        lied["public_key"] = json!(signer.x());
        assert!(check(&lied.to_string(), &pem).unwrap_err().starts_with("the signature does not match"));
        assert!(check(&issued(&signer).to_string(), "no key").is_err());
        assert!(check("[]", &pem).is_err() && check("", &pem).is_err());
    }
}
