//! The providers of this process by name. Adding one: its `mod` line in `lib.rs` and its `add` line where the
//! process is wired.

use std::collections::BTreeMap;
use std::sync::Arc;

use tenantry_model::Isolation;

use crate::verbs::{Kind, Provider};

/// The registration list.
#[derive(Clone, Default)]
pub struct Registry {
    by_name: BTreeMap<&'static str, Arc<dyn Provider>>,
    in_order: Vec<&'static str>,
}

impl Registry {
    /// Adds a provider, after those that are there.
    #[expect(clippy::should_implement_trait, reason = "nobody takes a list of providers for a number")]
    pub fn add(mut self, provider: impl Provider) -> Self {
        let provider: Arc<dyn Provider> = Arc::new(provider);
        self.in_order.push(provider.name());
        self.by_name.insert(provider.name(), provider);
        self
    }

    /// Each provider replaced by what `wrap` makes of it; names and order stay.
    pub fn map<P: Provider>(mut self, mut wrap: impl FnMut(Arc<dyn Provider>) -> Arc<P>) -> Self {
        self.by_name =
            self.by_name.into_iter().map(|(name, it)| (name, wrap(it) as Arc<dyn Provider>)).collect();
        self
    }

    /// The provider of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<dyn Provider>> {
        self.by_name.get(name)
    }

    /// The provider for a step that names none: the first of the kind that keeps tenants apart in this way.
    pub fn default_for(&self, kind: Kind, isolation: Isolation) -> Option<&Arc<dyn Provider>> {
        let all = self.in_order.iter().filter_map(|name| self.by_name.get(name));
        all.into_iter().find(|provider| provider.kind() == kind && provider.isolates(isolation))
    }

    /// All providers, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn Provider>> {
        self.by_name.values()
    }
}
