//! What a template's step may say to the built-in billing ledger. There is nothing to configure.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Nothing.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {}

/// What a step may say. The planner fills all of it in from plan and request.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// How often an invoice is due.
    pub billing_cycle: Cycle,
    /// Price of one cycle in the currency's smallest unit.
    #[schemars(range(min = 0, max = 9_000_000_000_000_000_i64))]
    pub amount: i64,
    /// ISO 4217 code.
    #[schemars(regex(pattern = "^[A-Z]{3}$"))]
    pub currency: String,
    /// What becomes of an unfinished period when the subscription is ended: the rest of it is credited. Without this, what is
    /// still to be paid is void.
    pub prorate: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { billing_cycle: Cycle::Monthly, amount: 0, currency: "EUR".to_owned(), prorate: false }
    }
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
    /// Its length in calendar months.
    pub const fn months(self) -> u32 {
        match self {
            Self::Monthly => 1,
            Self::Yearly => 12,
        }
    }
}
