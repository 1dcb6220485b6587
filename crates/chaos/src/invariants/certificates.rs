//! Certificates of deletion: every deleted tenant has one, each is signed, and each names the hash of the one before.

use std::collections::BTreeSet;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::Ground;

const ALL: &str = "SELECT seq, tenant_id, certificate, signature, hash FROM certificates ORDER BY seq";
const DELETED: &str = "SELECT id FROM tenants WHERE status = 'deprovisioned'";

/// Faults of the certificates.
pub async fn check(ground: &Ground) -> Vec<String> {
    let key = UnparsedPublicKey::new(&ED25519, &ground.certificate_key);
    let (mut faults, mut before, mut certified) = (Vec::new(), Value::Null, BTreeSet::new());
    for (n, row) in (1..).zip(ground.registry.rows(ALL).await) {
        let (seq, text) = (row.get::<i64>(0), row.get::<String>(2));
        let [tenant, signature, hash]: [String; 3] = [1, 3, 4].map(|column| row.get(column));
        let certificate: Value = serde_json::from_str(&text).unwrap_or_default();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap_or_default();
        let message = format!("tenantry deletion certificate v1\n{text}");
        for (wrong, what) in [
            (seq != n, "a certificate is missing before it"),
            (key.verify(message.as_bytes(), &signature).is_err(), "the signature is not valid"),
            (hash != hex::encode(Sha256::digest(&text)), "the hash is not that of its text"),
            (certificate["previous"] != before, "it does not name the hash of the certificate before"),
            (certificate["tenant_id"] != *tenant, "it is about another tenant"),
        ] {
            if wrong {
                faults.push(format!("certificate {seq} of {tenant}: {what}"));
            }
        }
        before = hash.into();
        certified.insert(tenant);
    }
    for row in ground.registry.rows(DELETED).await {
        let tenant: String = row.get(0);
        if !certified.contains(&tenant) {
            faults.push(format!("{tenant} is deleted without a certificate"));
        }
    }
    faults
}
