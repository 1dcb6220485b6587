//! The providers of this process by name. Adding one: its `mod` line in `lib.rs` and its `add` line where the
//! process is wired.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::verbs::{Kind, Provider};

/// The registration list.
#[derive(Clone, Default)]
pub struct Registry {
    by_name: BTreeMap<&'static str, Arc<dyn Provider>>,
    default: BTreeMap<Kind, &'static str>,
}

impl Registry {
    /// Adds a provider; the first of a kind is what a step gets that names none.
    #[expect(clippy::should_implement_trait, reason = "nobody takes a list of providers for a number")]
    pub fn add(mut self, provider: impl Provider) -> Self {
        let provider: Arc<dyn Provider> = Arc::new(provider);
        self.default.entry(provider.kind()).or_insert(provider.name());
        self.by_name.insert(provider.name(), provider);
        self
    }

    /// The provider of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<dyn Provider>> {
        self.by_name.get(name)
    }

    /// The provider for a kind whose step names none.
    pub fn default_for(&self, kind: Kind) -> Option<&Arc<dyn Provider>> {
        self.by_name.get(self.default.get(&kind)?)
    }

    /// All providers, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn Provider>> {
        self.by_name.values()
    }
}
