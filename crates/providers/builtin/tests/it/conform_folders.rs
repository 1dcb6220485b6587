//! The provider contract for providers that keep a folder for each tenant: buckets and manifests.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use serde_json::{Value, json};
use tenantry_builtin::bucket_folder::{BucketFolder, Config as BucketConfig};
use tenantry_builtin::namespace_manifests::{Config as ManifestsConfig, NamespaceManifests};
use tenantry_provider::{Provider, Spec};

use crate::contract::folders::{Root, must_delete_remains};
use crate::contract::{Environment, ensure, must_keep_contract, rival};
use crate::world::World;

/// Files below a folder with their content, sorted.
fn texts(folder: &Path) -> Vec<String> {
    let mut all = Vec::new();
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            all.push(format!("{}\n", path.display()));
            all.extend(texts(&path));
        } else {
            let bytes = std::fs::read(&path).unwrap_or_default();
            all.push(format!("{}: {}\n", path.display(), String::from_utf8_lossy(&bytes)));
        }
    }
    all
}

struct Buckets {
    root: Root,
    buckets: BucketFolder,
}

#[async_trait]
impl Environment for Buckets {
    fn provider(&self) -> &dyn Provider {
        &self.buckets
    }
    fn world(&self) -> &World {
        &self.root.world
    }
    fn settings(&self) -> Value {
        json!({
            "quota_bytes": "1GiB", "encryption": "enhanced", "lifecycle": [{ "prefix": "tmp/", "expire_after": 7 }],
        })
    }
    async fn count(&self, spec: &Spec) -> usize {
        self.root.count(spec)
    }
    async fn snapshot(&self) -> String {
        texts(&self.root.path()).concat()
    }
    async fn plant_foreign(&self, spec: &Spec) {
        ensure(self, &rival(spec)).await;
    }
    async fn leave_half(&self, spec: &Spec) {
        ensure(self, spec).await;
        std::fs::remove_dir(self.root.path().join(&spec.name).join("objects")).unwrap();
        self.root.leave_draft(spec, "policy.json");
    }
    async fn unusable(&self) -> Option<Box<dyn Provider>> {
        Some(Box::new(BucketFolder::new(BucketConfig::new(self.root.blocked()))))
    }
}

#[tokio::test]
async fn folder_bucket() {
    let root = Root::default();
    let buckets = BucketFolder::new(BucketConfig::new(root.path()));
    let environment = Buckets { root, buckets };
    must_keep_contract(&environment).await;
    must_delete_remains(&environment, &environment.root).await;
}

struct Manifests {
    root: Root,
    manifests: NamespaceManifests,
}

#[async_trait]
impl Environment for Manifests {
    fn provider(&self) -> &dyn Provider {
        &self.manifests
    }
    fn world(&self) -> &World {
        &self.root.world
    }
    fn settings(&self) -> Value {
        json!({ "cpu": "4", "memory": "8Gi", "storage": "100Gi", "pods": 50 })
    }
    async fn count(&self, spec: &Spec) -> usize {
        self.root.count(spec)
    }
    async fn snapshot(&self) -> String {
        texts(&self.root.path()).concat()
    }
    async fn plant_foreign(&self, spec: &Spec) {
        ensure(self, &rival(spec)).await;
    }
    async fn leave_half(&self, spec: &Spec) {
        ensure(self, spec).await;
        std::fs::remove_file(self.root.path().join(&spec.name).join("role.yaml")).unwrap();
        self.root.leave_draft(spec, "namespace.yaml");
    }
    async fn unusable(&self) -> Option<Box<dyn Provider>> {
        Some(Box::new(NamespaceManifests::new(ManifestsConfig::new(self.root.blocked()))))
    }
}

#[tokio::test]
async fn manifests() {
    let root = Root::default();
    let manifests = NamespaceManifests::new(ManifestsConfig::new(root.path()));
    let environment = Manifests { root, manifests };
    must_keep_contract(&environment).await;
    must_delete_remains(&environment, &environment.root).await;
}
