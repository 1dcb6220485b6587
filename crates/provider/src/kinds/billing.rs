//! Billing: what a tenant's customer pays.
//!
//! Every provider begins one subscription per generation of the resource. A repeated `ensure` keeps the price that the
//! subscription began with; `remove` ends it and keeps the books.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::KindSettings;
use crate::verbs::Kind;

/// What a step says of a subscription. The planner fills in cycle, amount and currency from plan and request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BillingSettings {
    /// How often an invoice is due.
    pub billing_cycle: Cycle,
    /// Price of one cycle in the currency's smallest unit.
    #[schemars(range(min = 0, max = 9_000_000_000_000_000_i64))]
    pub amount: i64,
    /// ISO 4217 code.
    #[schemars(regex(pattern = "^[A-Z]{3}$"))]
    pub currency: String,
    /// Whether the rest of a period that has begun is credited when the subscription ends. Without it, open invoices are
    /// void.
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
    /// One month by the calendar.
    Monthly,
    /// Twelve of them.
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

    /// Its length in calendar months.
    pub const fn months(self) -> u32 {
        match self {
            Self::Monthly => 1,
            Self::Yearly => 12,
        }
    }
}

/// What is known of a subscription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BillingOutputs {
    /// How often an invoice is due.
    pub billing_cycle: Cycle,
    /// Price of one cycle in the currency's smallest unit.
    pub amount: i64,
    /// ISO 4217 code.
    pub currency: String,
}
