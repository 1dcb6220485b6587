//! Plans and their catalogue, which is read from a file: no code depends on the name of a plan.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::quota::Quotas;

/// A plan: quotas, features, price, and the template of its tenants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Name in requests and the API.
    pub name: String,
    /// Other names for the same plan.
    #[serde(default)]
    pub aliases: BTreeSet<String>,
    /// Text shown to customers.
    pub title: String,
    /// Template of its tenants.
    pub template: String,
    /// Hard limits. They override the template's.
    #[serde(default)]
    pub quotas: Quotas,
    /// Features of the plan; a request may enable only these.
    #[serde(default)]
    pub features: BTreeSet<String>,
    /// Price per month in the smallest unit of the currency.
    #[serde(default)]
    pub price_per_month: u64,
    /// Price per year in the smallest unit of the currency.
    #[serde(default)]
    pub price_per_year: u64,
    /// ISO 4217 code.
    #[serde(default = "euro")]
    pub currency: String,
    /// Days between an offboarding and the deletion of its data, unless the request sets another number.
    #[serde(default = "thirty")]
    pub hold_days: u32,
}

fn euro() -> String {
    "EUR".to_owned()
}

const fn thirty() -> u32 {
    30
}

/// The plans for sale.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Catalogue {
    /// In display order.
    pub plans: Vec<Plan>,
}

impl Catalogue {
    /// The plan with this name or alias.
    pub fn find(&self, name: &str) -> Option<&Plan> {
        self.plans.iter().find(|p| p.name == name || p.aliases.contains(name))
    }

    /// Names and aliases that occur more than once.
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
    fn finds_a_plan_by_its_alias() {
        let catalogue = Catalogue { plans: vec![plan("starter", &["standard"]), plan("growth", &[])] };
        assert_eq!(catalogue.find("standard").unwrap().name, "starter");
        assert!(catalogue.find("gold").is_none());
        assert!(catalogue.duplicates().is_empty());
    }

    #[test]
    fn finds_duplicate_names() {
        let catalogue = Catalogue { plans: vec![plan("starter", &["growth"]), plan("growth", &[])] };
        assert_eq!(catalogue.duplicates(), ["growth"]);
    }
}
