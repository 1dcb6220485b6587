//! The provider contract for the built-in providers on registry rows, the outbox on a folder, the name server on
//! a socket and the certificate authority on a folder. Commands and HTTP have theirs beside their own tests.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use serde_json::{Value, json};
use tempfile::TempDir;
use tenantry_builtin::billing_builtin::BillingBuiltin;
use tenantry_builtin::certificate_local_ca::{CertificateLocalCa, Config as CaConfig};
use tenantry_builtin::config_builtin::ConfigBuiltin;
use tenantry_builtin::dns_builtin::{Config as DnsConfig, DnsBuiltin};
use tenantry_builtin::identity_builtin::IdentityBuiltin;
use tenantry_builtin::mail_outbox::{Config as MailConfig, MailOutbox};
use tenantry_provider::{Observed, Provider, Spec};

use crate::contract::{Environment, ensure, must_keep_contract, rival};
use crate::world::{World, object};

/// A provider whose resources are registry rows. `spoil` makes one incomplete.
struct BuiltIn {
    provider: Box<dyn Provider>,
    settings: Value,
    world: World,
    /// Table of the resource.
    table: &'static str,
    spoil: fn(&World, &Spec),
}

#[async_trait]
impl Environment for BuiltIn {
    fn provider(&self) -> &dyn Provider {
        &*self.provider
    }
    fn world(&self) -> &World {
        &self.world
    }
    fn settings(&self) -> Value {
        self.settings.clone()
    }
    async fn count(&self, spec: &Spec) -> usize {
        self.world.registry.with(self.table, |rows| {
            let living = rows.iter().filter(|row| row.get("state").is_none_or(|state| state != "cancelled"));
            living.filter(|row| row.get("tenant_id") == Some(&json!(spec.tenant.id))).count()
        })
    }
    async fn snapshot(&self) -> String {
        self.world.registry.dump()
    }
    async fn plant_foreign(&self, spec: &Spec) {
        let mut rival = rival(spec);
        rival.resource = tenantry_model::id::ResourceId::new();
        rival.operation = tenantry_model::id::OperationId::new();
        ensure(self, &rival).await;
    }
    async fn leave_half(&self, spec: &Spec) {
        ensure(self, spec).await;
        (self.spoil)(&self.world, spec);
    }
    async fn unusable(&self) -> Option<Box<dyn Provider>> {
        None
    }
}

fn forget(world: &World, spec: &Spec, table: &'static str) {
    world
        .registry
        .with(table, |rows| rows.retain(|row| row.get("tenant_id") != Some(&json!(spec.tenant.id))));
}

#[tokio::test]
async fn builtin_identity() {
    let environment = |first_admin: &str, spoil| BuiltIn {
        provider: Box::new(IdentityBuiltin::default()),
        settings: json!({ "first_admin": first_admin }),
        world: World::default(),
        table: "members",
        spoil,
    };
    must_keep_contract(&environment("invitation", |world, spec| forget(world, spec, "invitations"))).await;
    must_keep_contract(&environment("one_time_password", |_, _| {})).await;
}

#[tokio::test]
async fn builtin_config() {
    must_keep_contract(&BuiltIn {
        provider: Box::new(ConfigBuiltin::default()),
        settings: json!({ "flags": { "projects": true }, "settings": { "date_format": "iso" }, "quotas": { "seats": 5 } }),
        world: World::default(),
        table: "configs",
        spoil: |world, _| {
            world.registry.with("configs", |rows| rows.iter_mut().for_each(|row| drop(row.insert("flags".into(), json!({})))));
        },
    })
    .await;
}

#[tokio::test]
async fn builtin_billing() {
    for spoil in [(|world, spec| forget(world, spec, "invoices")) as fn(&World, &Spec), |world, spec| {
        forget(world, spec, "customers")
    }] {
        must_keep_contract(&BuiltIn {
            provider: Box::new(BillingBuiltin::default()),
            settings: json!({ "billing_cycle": "yearly", "amount": 9000, "currency": "EUR" }),
            world: World::default(),
            table: "subscriptions",
            spoil,
        })
        .await;
    }
}

struct Outbox {
    dir: TempDir,
    outbox: MailOutbox,
    world: World,
}

impl Outbox {
    fn files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.dir.path().join("outbox")).into_iter().flatten();
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }
}

#[async_trait]
impl Environment for Outbox {
    fn provider(&self) -> &dyn Provider {
        &self.outbox
    }
    fn world(&self) -> &World {
        &self.world
    }
    fn settings(&self) -> Value {
        json!({ "template": "welcome" })
    }
    async fn count(&self, spec: &Spec) -> usize {
        let resource = spec.resource.suffix();
        let of_it =
            |file: &&PathBuf| file.file_name().is_some_and(|name| name.to_string_lossy().contains(&resource));
        self.files().iter().filter(of_it).count()
    }
    async fn snapshot(&self) -> String {
        let text = |file: &PathBuf| format!("{}: {:?}\n", file.display(), std::fs::read(file).unwrap());
        self.files().iter().map(text).collect()
    }
    async fn plant_foreign(&self, spec: &Spec) {
        ensure(self, &rival(spec)).await;
    }
    async fn leave_half(&self, spec: &Spec) {
        let folder = self.dir.path().join("outbox");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!(".{}.draft", spec.resource.suffix())), "Subject: half of")
            .unwrap();
    }
    async fn unusable(&self) -> Option<Box<dyn Provider>> {
        let blocked = self.dir.path().join("blocked");
        std::fs::write(&blocked, "").unwrap();
        Some(Box::new(MailOutbox::new(MailConfig::new(blocked)).unwrap()))
    }
}

fn outbox() -> Outbox {
    let dir = tempfile::tempdir().unwrap();
    let outbox = MailOutbox::new(MailConfig::new(dir.path().join("outbox"))).unwrap();
    Outbox { dir, outbox, world: World::default() }
}

#[tokio::test]
async fn mail_outbox() {
    must_keep_contract(&outbox()).await;
}

struct Dns {
    dir: TempDir,
    dns: DnsBuiltin,
    world: World,
}

impl Dns {
    fn folder(&self) -> PathBuf {
        self.dir.path().join("dns")
    }

    fn file(&self, spec: &Spec) -> PathBuf {
        self.folder().join(format!("{}.json", spec.name))
    }
}

/// All files below a folder with their content, sorted.
fn texts(folder: &Path) -> String {
    let mut found: Vec<String> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            if path.is_dir() {
                texts(&path)
            } else {
                format!("{}: {:?}\n", path.display(), std::fs::read(&path).unwrap())
            }
        })
        .collect();
    found.sort();
    found.concat()
}

#[async_trait]
impl Environment for Dns {
    fn provider(&self) -> &dyn Provider {
        &self.dns
    }
    fn world(&self) -> &World {
        &self.world
    }
    fn settings(&self) -> Value {
        json!({ "targets": ["192.0.2.1", "2001:db8::1"], "txt": { "_dmarc": ["v=DMARC1; p=none"] } })
    }
    async fn count(&self, spec: &Spec) -> usize {
        usize::from(self.file(spec).exists())
    }
    async fn snapshot(&self) -> String {
        texts(&self.folder())
    }
    async fn plant_foreign(&self, spec: &Spec) {
        ensure(self, &rival(spec)).await;
    }
    async fn leave_half(&self, spec: &Spec) {
        ensure(self, spec).await;
        let text = std::fs::read_to_string(self.file(spec)).unwrap();
        std::fs::write(self.file(spec), text.replace("192.0.2.1", "192.0.2.99")).unwrap();
        let healthy = self.dns.observe(&self.world.context(), spec).await.unwrap();
        assert!(matches!(&healthy, Observed::Present { differs, .. } if !differs.is_empty()));
    }
    async fn unusable(&self) -> Option<Box<dyn Provider>> {
        let blocked = self.dir.path().join("blocked");
        let dns = DnsBuiltin::started(DnsConfig::new(&blocked)).await.unwrap();
        std::fs::remove_dir(&blocked).unwrap();
        std::fs::write(&blocked, "").unwrap();
        Some(Box::new(dns))
    }
}

#[tokio::test]
async fn builtin_dns() {
    let dir = tempfile::tempdir().unwrap();
    let dns = DnsBuiltin::started(DnsConfig::new(dir.path().join("dns"))).await.unwrap();
    must_keep_contract(&Dns { dir, dns, world: World::default() }).await;
}

struct Certificates {
    dir: TempDir,
    ca: CertificateLocalCa,
    world: World,
    /// The file that an incomplete certificate lacks.
    lost: &'static str,
}

#[async_trait]
impl Environment for Certificates {
    fn provider(&self) -> &dyn Provider {
        &self.ca
    }
    fn world(&self) -> &World {
        &self.world
    }
    fn settings(&self) -> Value {
        json!({ "names": ["acme.example.com", "*.acme.example.com", "192.0.2.1"], "lifetime_days": 7 })
    }
    async fn count(&self, spec: &Spec) -> usize {
        usize::from(self.ca.folder_of(&spec.name).unwrap().exists())
    }
    async fn snapshot(&self) -> String {
        texts(self.dir.path())
    }
    async fn plant_foreign(&self, spec: &Spec) {
        ensure(self, &rival(spec)).await;
    }
    async fn leave_half(&self, spec: &Spec) {
        ensure(self, spec).await;
        let folder = self.ca.folder_of(&spec.name).unwrap();
        std::fs::remove_file(folder.join(self.lost)).unwrap();
        std::fs::write(folder.join(".x.draft"), "half of").unwrap();
    }
    async fn unusable(&self) -> Option<Box<dyn Provider>> {
        let blocked = self.dir.path().join("blocked");
        let ca = CertificateLocalCa::started(CaConfig::new(&blocked)).await.unwrap();
        std::fs::remove_dir_all(&blocked).unwrap();
        Some(Box::new(ca))
    }
}

#[tokio::test]
async fn local_ca() {
    for lost in ["cert.pem", "chain.pem", "key.pem"] {
        let dir = tempfile::tempdir().unwrap();
        let ca = CertificateLocalCa::started(CaConfig::new(dir.path().join("certificates"))).await.unwrap();
        must_keep_contract(&Certificates { dir, ca, world: World::default(), lost }).await;
    }
}

/// Decodes quoted-printable.
fn text_of(file: &Path) -> String {
    let text = std::fs::read_to_string(file).unwrap();
    text.replace("=\r\n", "").replace("=3D", "=")
}

#[tokio::test]
async fn the_welcome_message_has_the_link_until_its_token_is_claimed() {
    let outbox = outbox();
    let invited = crate::world::spec(json!({}));
    let context = outbox.world.context();
    let made = IdentityBuiltin::default().ensure(&context, &invited).await.unwrap();
    outbox.world.registry.apply(&made.writes);
    let token = outbox.world.secrets().pop().unwrap();

    let mut mail = invited.clone();
    mail.resource = tenantry_model::id::ResourceId::new();
    mail.settings = outbox.settings();
    let outputs = outbox.outbox.ensure(&context, &mail).await.unwrap().outputs;
    assert!(!outputs.to_string().contains(&token));
    assert_eq!(outputs["locale"], "de");
    let text = text_of(outbox.files().first().unwrap());
    assert!(text.contains(&format!("join#{token}")), "{text}");

    outbox.world.registry.with("credentials", |rows| rows[0].insert("sealed".to_owned(), Value::Null));
    mail.resource = tenantry_model::id::ResourceId::new();
    outbox.outbox.ensure(&context, &mail).await.unwrap();
    let later = text_of(outbox.files().last().unwrap());
    assert!(!later.contains("join#"), "{later}");
}

#[tokio::test]
async fn a_removed_administrator_is_not_recreated() {
    let (world, provider) = (World::default(), IdentityBuiltin::default());
    let spec = crate::world::spec(json!({ "first_admin": "one_time_password" }));
    world.registry.apply(&provider.ensure(&world.context(), &spec).await.unwrap().writes);
    world.registry.with("members", |rows| rows[0].insert("id".to_owned(), json!("usr_another")));
    let again = provider.ensure(&world.context(), &spec).await.unwrap();
    assert_eq!(again.writes, []);
}

#[tokio::test]
async fn a_late_step_does_not_restart_a_subscription() {
    let world = World::default();
    let spec = crate::world::spec(json!({ "amount": 900 }));
    let made = BillingBuiltin::default().ensure(&world.context(), &spec).await.unwrap();
    world.registry.apply(&made.writes);
    let gone = BillingBuiltin::default().remove(&world.context(), &spec).await.unwrap();
    world.registry.apply(&gone.writes);
    assert_eq!(
        (&gone.receipt["subscriptions_cancelled"], &gone.receipt["invoices_voided"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(gone.receipt["kept_in_ledger"], json!({ "subscriptions": 1, "invoices": 1 }));
    let late = BillingBuiltin::default().ensure(&world.context(), &spec).await.unwrap_err();
    assert_eq!(late.code, "stale_generation");
    let newer = Spec { generation: 2, ..spec.clone() };
    let made = BillingBuiltin::default().ensure(&world.context(), &newer).await.unwrap();
    world.registry.apply(&made.writes);
    assert_eq!(
        BillingBuiltin::default().ensure(&world.context(), &spec).await.unwrap_err().code,
        "stale_generation"
    );
    let states = world
        .registry
        .with("subscriptions", |rows| rows.iter().map(|r| r["state"].clone()).collect::<Vec<_>>());
    assert_eq!(states, [json!("cancelled"), json!("active")]);
}

#[tokio::test]
async fn changes_of_the_tenant_are_kept() {
    let world = World::default();
    let spec = crate::world::spec(json!({ "flags": { "a": true }, "settings": { "x": 1 } }));
    world.registry.apply(&ConfigBuiltin::default().ensure(&world.context(), &spec).await.unwrap().writes);
    world.registry.with("configs", |rows| rows[0].insert("flags".to_owned(), json!({ "a": false })));
    let more =
        Spec { settings: json!({ "flags": { "a": true, "b": true }, "settings": { "x": 1 } }), ..spec };
    world.registry.apply(&ConfigBuiltin::default().ensure(&world.context(), &more).await.unwrap().writes);
    let flags = world.registry.with("configs", |rows| rows[0]["flags"].clone());
    assert_eq!(object(flags), object(json!({ "a": false, "b": true })));
}
