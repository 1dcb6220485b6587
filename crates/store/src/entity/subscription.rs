//! Rows of the table `subscriptions`: the billing subscription of each tenant.

use crate::Stamp;
use crate::table::table;

table! {
    /// A subscription.
    Model = "subscriptions" ("id") {
        /// Id, `sub_…`.
        id: String,
        /// The tenant.
        tenant_id: String,
        /// The customer that pays.
        customer_id: String,
        /// Name of the plan.
        plan: String,
        /// `monthly` or `yearly`.
        billing_cycle: String,
        /// `active` or `cancelled`.
        state: String,
        /// Generation of the billing resource. A call of an older generation must not bill.
        generation: i64,
        /// Price of a period in minor units of the currency, such as cents.
        amount: i64,
        /// Currency code (ISO 4217).
        currency: String,
        /// Start of the current period.
        current_period_start: Stamp,
        /// End of the current period.
        current_period_end: Stamp,
        /// Time of creation.
        created_at: Stamp,
        /// Time of cancellation.
        cancelled_at: Option<Stamp>,
    }
}
