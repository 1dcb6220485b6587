//! Billing resources: the subscription of a tenant's customer.
//!
//! Every provider starts one subscription per generation of the resource. A repeated `ensure` does not change the price
//! of a subscription that has started; `remove` ends the subscription and keeps its invoices.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::KindSettings;
use crate::verbs::Kind;

/// Settings of a billing step. The planner fills in cycle, amount and currency from the plan and the request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BillingSettings {
    /// Period between two invoices.
    pub billing_cycle: Cycle,
    /// Price of one cycle in the currency's smallest unit.
    #[schemars(range(min = 0, max = 9_000_000_000_000_000_i64))]
    pub amount: i64,
    /// ISO 4217 code.
    #[schemars(regex(pattern = "^[A-Z]{3}$"))]
    pub currency: String,
    /// Whether the unused part of the current period is credited when the subscription ends. If not, open invoices
    /// become void.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub prorate: bool,
}

impl Default for BillingSettings {
    fn default() -> Self {
        Self { billing_cycle: Cycle::Monthly, amount: 0, currency: "EUR".to_owned(), prorate: false }
    }
}

impl KindSettings for BillingSettings {
    const KIND: Kind = Kind::Billing;
    const KEYS: &'static [&'static str] = &["billing_cycle", "amount", "currency", "prorate"];
}

/// A billing cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cycle {
    /// One calendar month.
    Monthly,
    /// Twelve calendar months.
    Yearly,
}

impl Cycle {
    /// The word used in settings, outputs and rows.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Monthly => "monthly",
            Self::Yearly => "yearly",
        }
    }

    /// Length of the cycle in calendar months.
    pub const fn months(self) -> u32 {
        match self {
            Self::Monthly => 1,
            Self::Yearly => 12,
        }
    }
}

/// Outputs of a billing resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BillingOutputs {
    /// Period between two invoices.
    pub billing_cycle: Cycle,
    /// Price of one cycle in the currency's smallest unit.
    pub amount: i64,
    /// ISO 4217 code.
    pub currency: String,
}
