//! The provider contract for the outbox on a folder, the name server on a socket and the certificate authority on a
//! folder. Commands and HTTP have theirs beside their own tests.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use serde_json::{Value, json};
use tempfile::TempDir;
use tenantry_builtin::certificate_local_ca::{CertificateLocalCa, Config as CaConfig};
use tenantry_builtin::dns_builtin::{Config as DnsConfig, DnsBuiltin};
use tenantry_builtin::mail_outbox::{Config as MailConfig, MailOutbox};
use tenantry_model::{Write, columns};
use tenantry_provider::kinds::identity::INVITATION_TOKEN;
use tenantry_provider::{Observed, Provider, Spec};

use crate::contract::{Environment, ensure, must_keep_contract, rival};
use crate::world::World;

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
    let mut mail = crate::world::spec(outbox.settings());
    let context = outbox.world.context();
    let sealed = context.sealer.seal(mail.tenant.id, "the-token").unwrap();
    outbox.world.registry.apply(&[Write::insert(
        "credentials",
        columns! {
            "operation_id": mail.operation, "name": INVITATION_TOKEN, "tenant_id": mail.tenant.id,
            "sealed": sealed, "created_at": context.now, "claimed_at": (),
        },
    )]);

    let outputs = outbox.outbox.ensure(&context, &mail).await.unwrap().outputs;
    assert!(!outputs.to_string().contains("the-token"));
    assert_eq!(outputs["locale"], "de");
    let text = text_of(outbox.files().first().unwrap());
    assert!(text.contains("join#the-token"), "{text}");

    outbox.world.registry.with("credentials", |rows| rows[0].insert("sealed".to_owned(), Value::Null));
    mail.resource = tenantry_model::id::ResourceId::new();
    outbox.outbox.ensure(&context, &mail).await.unwrap();
    let later = text_of(outbox.files().last().unwrap());
    assert!(!later.contains("join#"), "{later}");
}
