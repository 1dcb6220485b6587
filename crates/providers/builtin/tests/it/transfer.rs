//! Export and load of buckets.

use async_trait::async_trait;
use serde_json::{Value, json};
use tempfile::TempDir;
use tenantry_builtin::bucket_folder::{BucketFolder, Config as BucketConfig};
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
