//! The keyring: a living tenant has its key, and that of an erased tenant is destroyed.

use std::collections::BTreeMap;

use super::Ground;

const KEYS: &str = "SELECT tenant_id, wrapped IS NOT NULL, destroyed_at IS NOT NULL FROM tenant_keys";
/// Whether each tenant has to have its key: false once a certificate says that it was destroyed.
const TENANTS: &str = "SELECT t.id, t.status, NOT EXISTS (SELECT FROM certificates c
    WHERE c.tenant_id = t.id AND c.certificate::jsonb ->> 'key_destroyed_at' IS NOT NULL) FROM tenants t
    WHERE t.status NOT IN ('pending', 'deprovisioning')";

/// Faults of the keyring.
pub async fn check(ground: &Ground) -> Vec<String> {
    let keys = ground.keyring.rows(KEYS).await;
    let keys: BTreeMap<String, (bool, bool)> =
        keys.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect();
    let mut faults = Vec::new();
    for row in ground.registry.rows(TENANTS).await {
        let (tenant, status, lives): (String, String, bool) = (row.get(0), row.get(1), row.get(2));
        let fault = match keys.get(&tenant) {
            Some((true, false)) if lives => continue,
            Some((false, true)) if !lives => continue,
            Some((key, destroyed)) => format!("has a key: {key}, destroyed: {destroyed}, must live: {lives}"),
            None => "is not in the keyring".to_owned(),
        };
        faults.push(format!("{tenant}, {status}: {fault}"));
    }
    faults
}
