//! Export and load of the providers with tenants' content.

use async_trait::async_trait;
use serde_json::{Value, json};
use tempfile::TempDir;
use tenantry_builtin::billing_builtin::BillingBuiltin;
use tenantry_builtin::bucket_folder::{BucketFolder, Config as BucketConfig};
use tenantry_builtin::config_builtin::ConfigBuiltin;
use tenantry_builtin::identity_builtin::IdentityBuiltin;
use tenantry_provider::objects::New;
use tenantry_provider::{Provider, Spec};

use crate::contract::transfer::{ContentEnvironment, must_keep_content};
use crate::world::World;

struct Bucket {
    _dir: TempDir,
    provider: BucketFolder,
    world: World,
    level: &'static str,
}

#[async_trait]
impl ContentEnvironment for Bucket {
    fn provider(&self) -> &dyn Provider {
        &self.provider
    }
    fn world(&self) -> &World {
        &self.world
    }
    fn settings(&self) -> Value {
        json!({ "encryption": self.level })
    }
    async fn fill(&self, spec: &Spec, word: &str) {
        let context = self.world.context();
        let objects = self.provider.objects().unwrap().scoped(spec.tenant.id, context.sealer.clone());
        let keys = ["a", "a/b", "a//b", "a/", "漢字 🎉.pdf", "\"quoted\", with comma", "empty", "z"];
        for (number, key) in keys.into_iter().enumerate() {
            let text = if key == "empty" { String::new() } else { word.repeat(number * 30_000 + 1) };
            let content_type = (number % 2 == 0).then_some("text/plain; charset=utf-8");
            let new = New { key, content_type, at: context.now };
            objects.put(new, Box::pin(std::io::Cursor::new(text.into_bytes()))).await.unwrap();
        }
    }
}

#[tokio::test]
async fn bucket_folder() {
    for level in ["standard", "enhanced"] {
        let dir = tempfile::tempdir().unwrap();
        let provider = BucketFolder::new(BucketConfig::new(dir.path().join("root")));
        must_keep_content(&Bucket { _dir: dir, provider, world: World::default(), level }).await;
    }
}

/// A provider whose rows are in the registry.
struct BuiltIn<P> {
    provider: P,
    world: World,
}

#[async_trait]
impl<P: Provider> ContentEnvironment for BuiltIn<P> {
    fn provider(&self) -> &dyn Provider {
        &self.provider
    }
    fn world(&self) -> &World {
        &self.world
    }
    fn settings(&self) -> Value {
        json!({})
    }
    async fn fill(&self, _: &Spec, _: &str) {}
}

#[tokio::test]
async fn settings() {
    let environment = BuiltIn { provider: ConfigBuiltin::default(), world: World::default() };
    let (old, new) = (environment.tenant().await, environment.tenant().await);
    environment.world().registry.with("configs", |rows| {
        let row = rows.iter_mut().find(|row| row["tenant_id"] == json!(old.tenant.id)).unwrap();
        row.insert(
            "settings".to_owned(),
            json!({ "quotas": { "seats": 5 }, "a": { "deep": [1, null, "ü"] } }),
        );
        row.insert("flags".to_owned(), json!({ "sso": true }));
    });
    let (export, content) = environment.export(&old).await;
    environment.load(&new, &mut export.source()).await.unwrap();
    assert_eq!(environment.content(&new).await, content);
    let quotas = environment.world().registry.with("configs", |rows| {
        rows.iter().find(|row| row["tenant_id"] == json!(new.tenant.id)).unwrap()["settings"]["quotas"]
            .clone()
    });
    assert_eq!(quotas, json!({}), "quotas come from the plan");
}

#[tokio::test]
async fn members() {
    let environment = BuiltIn { provider: IdentityBuiltin::default(), world: World::default() };
    let (old, new) = (environment.tenant().await, environment.tenant().await);
    let (export, content) = environment.export(&old).await;
    assert!(export.text().contains(&old.tenant.admin.email), "in clear text");
    for secret in environment.world().secrets() {
        assert!(!export.text().contains(&secret), "a secret was exported");
    }
    for _ in 0..2 {
        environment.load(&new, &mut export.source()).await.unwrap();
    }
    let both = environment.content(&new).await;
    assert_eq!((content.counts["members"], both.counts["members"]), (1, 2), "the first administrator stays");
    let invited = environment.world().registry.with("invitations", |rows| {
        rows.iter().filter(|row| row["tenant_id"] == json!(new.tenant.id)).count()
    });
    assert_eq!(invited, 2, "each loaded member is invited");
    // The same members in a tenant without others.
    let mut alike = environment.tenant().await;
    alike.tenant.admin = old.tenant.admin.clone();
    environment
        .world()
        .registry
        .with("members", |rows| rows.retain(|row| row["tenant_id"] != json!(alike.tenant.id)));
    environment.load(&alike, &mut export.source()).await.unwrap();
    assert_eq!(environment.content(&alike).await, content);
}

#[tokio::test]
async fn invoices_are_exported_and_not_loaded() {
    let environment = BuiltIn { provider: BillingBuiltin::default(), world: World::default() };
    let old = environment.tenant().await;
    let (export, content) = environment.export(&old).await;
    assert!(export.text().contains("INV-"), "{}", export.text());
    assert_eq!((content.counts["subscriptions"], content.counts["invoices"]), (1, 1));
    assert!(environment.provider().transfer().unwrap().one_way().is_some());
    assert_eq!(environment.load(&old, &mut export.source()).await.unwrap_err().code, "one_way");
}
