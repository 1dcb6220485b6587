//! Plans: what is sold. The catalogue is data (conflict C1), read from a file; nothing in the code names a plan.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::quota::Quotas;

/// A plan: quotas, features and the template that makes its tenants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The name used everywhere.
    pub name: String,
    /// Other names for the same plan.
    #[serde(default)]
    pub aliases: BTreeSet<String>,
    /// The text customers see.
    pub title: String,
    /// The template by which its tenants are made.
    pub template: String,
    /// Hard limits (S1.25). They win over the template's.
    #[serde(default)]
    pub quotas: Quotas,
    /// Features that the plan includes; a request may ask for these only.
    #[serde(default)]
    pub features: BTreeSet<String>,
    /// Price of a month in the currency's smallest unit.
    #[serde(default)]
    pub price_per_month: u64,
    /// Price of a year in the currency's smallest unit.
    #[serde(default)]
    pub price_per_year: u64,
    /// ISO 4217 code.
    #[serde(default = "euro")]
    pub currency: String,
    /// How many days everything is held for a customer who leaves, unless contract or request say otherwise (S1.36).
    #[serde(default = "thirty")]
    pub hold_days: u32,
}

fn euro() -> String {
    "EUR".to_owned()
}

const fn thirty() -> u32 {
    30
}

/// The plans on offer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Catalogue {
    /// In the order in which they are shown.
    pub plans: Vec<Plan>,
}

impl Catalogue {
    /// The plan of this name or alias.
    pub fn find(&self, name: &str) -> Option<&Plan> {
        self.plans.iter().find(|p| p.name == name || p.aliases.contains(name))
    }

    /// Every name twice given, by a plan or an alias.
    pub fn duplicates(&self) -> Vec<&str> {
        let mut seen = BTreeSet::new();
        self.plans
            .iter()
            .flat_map(|p| std::iter::once(&p.name).chain(&p.aliases))
            .filter(|name| !seen.insert(name.as_str()))
            .map(String::as_str)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(name: &str, aliases: &[&str]) -> Plan {
        serde_json::from_value(
            serde_json::json!({ "name": name, "aliases": aliases, "title": name, "template": name }),
        )
        .unwrap()
    }

    #[test]
    fn aliases_find_the_plan() {
        let catalogue = Catalogue { plans: vec![plan("starter", &["standard"]), plan("growth", &[])] };
        assert_eq!(catalogue.find("standard").unwrap().name, "starter");
        assert!(catalogue.find("gold").is_none());
        assert!(catalogue.duplicates().is_empty());
    }

    #[test]
    fn a_name_twice_given_is_seen() {
        let catalogue = Catalogue { plans: vec![plan("starter", &["growth"]), plan("growth", &[])] };
        assert_eq!(catalogue.duplicates(), ["growth"]);
    }
}
