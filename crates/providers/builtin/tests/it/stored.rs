//! Settings as plans were stored before a step's `with`: in one object, whichever side they stand on today.

use serde_json::{Value, json};
use tenantry_builtin::bucket_folder::{BucketFolder, Config as BucketConfig};
use tenantry_builtin::certificate_local_ca::{CertificateLocalCa, Config as CaConfig};
use tenantry_builtin::dns_builtin::{Config as DnsConfig, DnsBuiltin};
use tenantry_builtin::exec::Exec;
use tenantry_builtin::mail_outbox::{Config as MailConfig, MailOutbox};
use tenantry_builtin::namespace_manifests::{Config as ManifestsConfig, NamespaceManifests};
use tenantry_provider::Provider;

fn understands(provider: impl Provider, settings: Value) {
    assert_eq!(provider.check(&settings), [], "{} {settings}", provider.name());
}

#[test]
fn every_provider_still_understands_them() {
    let dir = tempfile::tempdir().unwrap();
    let folder = |name: &str| dir.path().join(name);
    understands(
        BucketFolder::new(BucketConfig::new(folder("buckets"))),
        json!({ "quota_bytes": "10GiB", "encryption": "enhanced", "lifecycle": [{ "prefix": "tmp/", "expire_after": 7 }] }),
    );
    understands(
        CertificateLocalCa::new(CaConfig::new(folder("certificates"))).unwrap(),
        json!({ "names": ["a.example"], "lifetime_days": 30 }),
    );
    understands(
        DnsBuiltin::new(DnsConfig::new(folder("dns"))).unwrap(),
        json!({ "custom_domain": "shop.example.com", "ttl": 30, "txt": { "_dmarc": ["v=DMARC1"] } }),
    );
    understands(Exec::default(), json!({ "command": ["true"], "parameters": { "tier": 2 } }));
    understands(
        MailOutbox::new(MailConfig::new(folder("outbox"))).unwrap(),
        json!({ "template": "welcome" }),
    );
    understands(
        NamespaceManifests::new(ManifestsConfig::new(folder("manifests"))),
        json!({ "cpu": "4", "memory": "8Gi", "storage": "100Gi" }),
    );
}

#[test]
fn unknown_settings_are_rejected_on_both_sides() {
    let dns = DnsBuiltin::new(DnsConfig::new("dns")).unwrap();
    assert_eq!(dns.check(&json!({ "custom_domain": "a.example", "colour": "red" })).len(), 1);
}
