//! The name server as others see it: `dig` finds a tenant, and a customer proves a domain through another server.

use std::net::SocketAddr;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;
use tenantry_builtin::dns_builtin::{Config, DnsBuiltin};
use tenantry_model::FailureClass;
use tenantry_provider::{Observed, Provider, Spec};

use crate::world::{World, spec};

async fn started(dir: &TempDir, change: impl FnOnce(&mut Config)) -> DnsBuiltin {
    let mut config = Config::new(dir.path());
    change(&mut config);
    DnsBuiltin::started(config).await.unwrap()
}

/// What `dig` prints; none where there is no `dig`.
async fn dig(server: SocketAddr, words: &[&str]) -> Option<String> {
    let mut command = Command::new("dig");
    command.arg(format!("@{}", server.ip())).arg("-p").arg(server.port().to_string());
    command.args(["+time=3", "+tries=2"]).args(words);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().ok()?;
    Some(String::from_utf8(output.stdout).unwrap())
}

#[tokio::test]
async fn dig_finds_a_tenant_until_it_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let (dns, world) = (started(&dir, |_| {}).await, World::default());
    let spec = Spec { name: "acme".to_owned(), ..spec(json!({ "txt": { "@": ["hello"] } })) };
    let outputs = dns.ensure(&world.context(), &spec).await.unwrap().outputs;
    assert_eq!(
        outputs,
        json!({
            "host": "acme.tenantry.test", "names": ["acme.tenantry.test"], "zone": "tenantry.test",
            "targets": ["127.0.0.1"], "ttl": 60, "server": dns.address().unwrap(),
        })
    );
    let ask = async |words: &[&str]| dig(dns.address().unwrap(), words).await;
    let Some(found) = ask(&["+short", "acme.tenantry.test", "A"]).await else {
        tenantry_testkit::skip::skip("dns: dig", "dig is not installed", "apt-get install bind9-dnsutils");
        return;
    };
    assert_eq!(found, "127.0.0.1\n");
    assert_eq!(ask(&["+short", "+tcp", "acme.tenantry.test", "TXT"]).await.unwrap(), "\"hello\"\n");
    assert_eq!(ask(&["+short", "tenantry.test", "NS"]).await.unwrap(), "ns.tenantry.test.\n");
    let soa = ask(&["+short", "tenantry.test", "SOA"]).await.unwrap();
    assert!(soa.starts_with("ns.tenantry.test. hostmaster.tenantry.test. "), "{soa}");
    let transfer = ask(&["tenantry.test", "AXFR"]).await.unwrap();
    assert!(transfer.contains("Transfer failed") && !transfer.contains("acme"), "{transfer}");
    let receipt = dns.remove(&world.context(), &spec).await.unwrap().receipt;
    assert_eq!(receipt, json!({ "records": 3 }));
    let gone = ask(&["acme.tenantry.test", "A"]).await.unwrap();
    assert!(gone.contains("status: NXDOMAIN") && gone.contains("SOA"), "{gone}");
    let other = ask(&["example.com", "A"]).await.unwrap();
    assert!(other.contains("status: REFUSED"), "{other}");
}

/// The TXT record that a failure asks for: its name and its value.
fn asked_for(message: &str) -> (String, String) {
    let (before, value) = message.split_once(" TXT \"").unwrap();
    let name = before.rsplit(' ').next().unwrap();
    (name.to_owned(), value.trim_end_matches('"').to_owned())
}

#[tokio::test]
async fn a_custom_domain_counts_once_it_is_proven() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let customer = started(&theirs, |config| config.zone = "example.org".to_owned()).await;
    let dns = started(&ours, |config| config.resolver = Some(customer.address().unwrap())).await;
    let world = World::default();
    let wish = |name: &str| Spec {
        name: name.to_owned(),
        ..spec(json!({ "targets": ["proxy.example.com"], "custom_domain": "Shop.example.org." }))
    };
    let (acme, other) = (wish("acme"), wish("other"));

    let failure = dns.ensure(&world.context(), &acme).await.unwrap_err();
    assert_eq!((failure.class, failure.code.as_str()), (FailureClass::Retryable, "domain_unproven"));
    assert!(failure.retry_after_ms.is_some());
    assert!(!failure.message.contains(&acme.claim), "{failure}");
    assert_eq!(dns.observe(&world.context(), &acme).await.unwrap(), Observed::Absent);
    let (name, value) = asked_for(&failure.message);
    assert_eq!(name, "_tenantry-challenge.shop.example.org");

    let records = spec(json!({ "txt": { "_tenantry-challenge": ["something else", value.clone()] } }));
    let set = Spec { name: "shop".to_owned(), ..records };
    customer.ensure(&world.context(), &set).await.unwrap();
    let outputs = dns.ensure(&world.context(), &acme).await.unwrap().outputs;
    let names: &Value = &outputs["names"];
    assert_eq!(names, &json!(["acme.tenantry.test", "shop.example.org"]));
    assert_eq!(outputs["targets"], json!(["proxy.example.com"]));

    // The proof is this tenant's alone.
    let failure = dns.ensure(&world.context(), &other).await.unwrap_err();
    assert_eq!(failure.code, "domain_unproven");

    // The tenant that proved it first has it, whatever its owner says of others, and until it is given back.
    let (_, theirs) = asked_for(&failure.message);
    let both = Spec { settings: json!({ "txt": { "_tenantry-challenge": [value, theirs] } }), ..set.clone() };
    customer.ensure(&world.context(), &both).await.unwrap();
    let failure = dns.ensure(&world.context(), &other).await.unwrap_err();
    assert_eq!((failure.class, failure.code.as_str()), (FailureClass::Fatal, "domain_taken"));
    assert_eq!(dns.observe(&world.context(), &other).await.unwrap(), Observed::Absent);
    dns.remove(&world.context(), &acme).await.unwrap();
    dns.ensure(&world.context(), &other).await.unwrap();
    dns.remove(&world.context(), &other).await.unwrap();
    assert_eq!(dns.ensure(&world.context(), &acme).await.unwrap().outputs, outputs);
    customer.ensure(&world.context(), &set).await.unwrap();

    // What was proven stays so, also when the record and the resolver are gone.
    customer.remove(&world.context(), &set).await.unwrap();
    drop(customer);
    assert_eq!(dns.ensure(&world.context(), &acme).await.unwrap().outputs, outputs);
    let failure = dns.ensure(&world.context(), &other).await.unwrap_err();
    assert!(failure.may_retry(), "{failure}");
}

#[tokio::test]
async fn a_name_that_cannot_be_a_host_is_refused_and_nothing_is_there_to_remove() {
    let dir = tempfile::tempdir().unwrap();
    let (dns, world) = (started(&dir, |_| {}).await, World::default());
    for name in ["", "ns", "a.b", "_x", "ümlaut", &"a".repeat(64)] {
        let spec = Spec { name: name.to_owned(), ..spec(json!({})) };
        let failure = dns.ensure(&world.context(), &spec).await.unwrap_err();
        assert_eq!((failure.class, failure.code.as_str()), (FailureClass::Invalid, "bad_name"), "{name}");
        assert_eq!(dns.remove(&world.context(), &spec).await.unwrap().receipt, json!({ "records": 0 }));
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn many_tenants_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (dns, world) = (started(&dir, |_| {}).await, World::default());
    let specs: Vec<Spec> = (0..50).map(|_| spec(json!({}))).collect();
    let context = world.context();
    let made = futures::future::join_all(specs.iter().map(|spec| dns.ensure(&context, spec))).await;
    assert!(made.iter().all(Result::is_ok), "{made:?}");
    drop(dns);
    let again = started(&dir, |_| {}).await;
    for spec in &specs {
        let seen = again.observe(&context, spec).await.unwrap();
        assert!(seen.is_healthy(), "{seen:?}");
    }
}
