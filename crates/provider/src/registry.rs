//! The providers of a process by name, in the order in which steps that name none get them.

use std::collections::BTreeMap;
use std::sync::Arc;

use tenantry_model::{Failure, Isolation};

use crate::verbs::{Kind, Provider};

/// Providers by name.
#[derive(Clone, Default)]
pub struct Registry {
    by_name: BTreeMap<String, Arc<dyn Provider>>,
    in_order: Vec<String>,
}

impl Registry {
    /// Adds a provider after the others; one of the same name is replaced.
    #[expect(clippy::should_implement_trait, reason = "a list of providers is not a number")]
    pub fn add(mut self, provider: impl Provider) -> Self {
        let name = provider.name().to_owned();
        if self.by_name.insert(name.clone(), Arc::new(provider)).is_none() {
            self.in_order.push(name);
        }
        self
    }

    /// Each provider replaced by what `wrap` makes of it; names and order stay.
    pub fn map<P: Provider>(mut self, mut wrap: impl FnMut(Arc<dyn Provider>) -> Arc<P>) -> Self {
        self.by_name =
            self.by_name.into_iter().map(|(name, it)| (name, wrap(it) as Arc<dyn Provider>)).collect();
        self
    }

    /// Adds a provider after the others. Fails with `duplicate_provider` if there is one of the same name.
    pub fn insert(&mut self, provider: Arc<dyn Provider>) -> Result<(), Failure> {
        let name = provider.name().to_owned();
        if self.by_name.contains_key(&name) {
            let why = format!("there are two providers with the name {name}; rename one of the instances");
            return Err(Failure::invalid("duplicate_provider", why));
        }
        self.in_order.push(name.clone());
        self.by_name.insert(name, provider);
        Ok(())
    }

    /// The provider of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<dyn Provider>> {
        self.by_name.get(name)
    }

    /// The provider for a step that names none: the first of the kind that keeps tenants apart in this way.
    pub fn default_for(&self, kind: Kind, isolation: Isolation) -> Option<&Arc<dyn Provider>> {
        let mut all = self.in_order.iter().filter_map(|name| self.by_name.get(name));
        all.find(|provider| provider.kind() == kind && provider.isolates(isolation))
    }

    /// All providers, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn Provider>> {
        self.by_name.values()
    }
}
