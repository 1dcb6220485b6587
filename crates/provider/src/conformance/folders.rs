//! The part of the suite for providers that keep a folder for each resource
//! ([`resource_folder`](crate::resource_folder)).

use std::path::PathBuf;

use tempfile::TempDir;

use super::world::{World, spec};
use super::{Environment, ensure};
use crate::{Observed, Spec};

/// A temporary folder that holds the resources' folders.
pub struct Root {
    dir: TempDir,
    /// The registry, keys and notes of the provider.
    pub world: World,
}

impl Default for Root {
    fn default() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary folder"), world: World::default() }
    }
}

impl Root {
    /// Path for the resources' folders; does not exist before the provider creates it.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// Number of entries whose names contain the spec's name.
    pub fn count(&self, spec: &Spec) -> usize {
        let entries = std::fs::read_dir(self.path()).into_iter().flatten().flatten();
        entries.filter(|entry| entry.file_name().to_string_lossy().contains(&spec.name)).count()
    }

    /// Leaves a draft like that of an attempt that died.
    pub fn leave_draft(&self, spec: &Spec, file: &str) {
        let draft = self.hidden(spec, "draft");
        std::fs::create_dir_all(&draft).expect("a folder");
        std::fs::write(draft.join(file), "half of").expect("a file");
    }

    /// A path at which no folder can be created.
    pub fn blocked(&self) -> PathBuf {
        let blocked = self.dir.path().join("blocked");
        std::fs::write(&blocked, "").expect("a file");
        blocked
    }

    /// Private name of the spec's folder while it is filled (`draft`) or deleted (`gone`).
    fn hidden(&self, spec: &Spec, word: &str) -> PathBuf {
        self.path().join(".tenantry").join(format!("{}.{word}", spec.resource.suffix()))
    }
}

/// Fails the test unless the provider reports and deletes what an interrupted attempt or removal left under a private name.
pub async fn must_delete_remains(environment: &dyn Environment, root: &Root) {
    for word in ["gone", "draft"] {
        let spec = spec(environment.settings());
        ensure(environment, &spec).await;
        let (provider, context) = (environment.provider(), environment.world().context());
        let hidden = root.hidden(&spec, word);
        std::fs::rename(root.path().join(&spec.name), &hidden).expect("the folder gets its private name");
        let seen = provider.observe(&context, &spec).await.expect("it is observed");
        assert!(matches!(seen, Observed::Present { .. }) && !seen.is_healthy(), "{word}: {seen:?}");
        provider.remove(&context, &spec).await.expect("it is removed");
        let seen = provider.observe(&context, &spec).await.expect("it is observed");
        assert_eq!(seen, Observed::Absent, "{word}");
        assert!(!hidden.exists(), "{word}");
    }
}
