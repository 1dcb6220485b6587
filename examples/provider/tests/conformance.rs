//! The contract's suite over the provider.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use serde_json::{Value, json};
use tempfile::TempDir;
use tenantry_example_provider::{Config, FACTORY, Handoff};
use tenantry_provider::conformance::world::World;
use tenantry_provider::conformance::{Environment, ensure, must_keep_contract, rival};
use tenantry_provider::{Provider, Spec};

/// The provider, and the folder that another system watches.
struct Watched {
    root: TempDir,
    world: World,
    handoff: Handoff,
}

#[async_trait]
impl Environment for Watched {
    fn provider(&self) -> &dyn Provider {
        &self.handoff
    }
    fn world(&self) -> &World {
        &self.world
    }
    fn settings(&self) -> Value {
        json!({ "data": { "tier": 2 } })
    }
    async fn count(&self, spec: &Spec) -> usize {
        usize::from(self.folder().join(format!("{}.json", spec.name)).exists())
    }
    async fn snapshot(&self) -> String {
        texts(&self.folder())
    }
    async fn plant_foreign(&self, spec: &Spec) {
        ensure(self, &rival(spec)).await;
    }
    async fn leave_half(&self, spec: &Spec) {
        ensure(self, spec).await;
        let file = self.folder().join(format!("{}.json", spec.name));
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(file, text.replace("\"tier\":2", "\"tier\":1")).unwrap();
    }
    async fn unusable(&self) -> Option<Box<dyn Provider>> {
        let blocked = self.root.path().join("blocked");
        std::fs::write(&blocked, "").ok()?;
        Some(Box::new(Handoff::new(Config { folder: blocked })))
    }
}

impl Watched {
    fn folder(&self) -> PathBuf {
        self.root.path().join("root")
    }
}

/// The files of a folder with their texts, in order.
fn texts(folder: &Path) -> String {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let text = |path: &PathBuf| format!("{}: {}\n", path.display(), std::fs::read_to_string(path).unwrap());
    paths.iter().filter(|path| path.is_file()).map(text).collect()
}

#[tokio::test]
async fn it_keeps_the_contract() {
    let root = tempfile::tempdir().unwrap();
    let handoff = Handoff::new(Config { folder: root.path().join("root") });
    must_keep_contract(&Watched { root, world: World::default(), handoff }).await;
}

#[test]
fn its_factory_is_sound() {
    assert_eq!(FACTORY.faults(), [""; 0]);
}
