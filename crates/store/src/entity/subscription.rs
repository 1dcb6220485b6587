//! Subscriptions of tenants.

use crate::Stamp;
use crate::table::table;

table! {
    /// A subscription.
    Model = "subscriptions" ("id") {
        /// Its id, `sub_…`.
        id: String,
        /// Its tenant.
        tenant_id: String,
        /// The customer that pays.
        customer_id: String,
        /// The plan's name.
        plan: String,
        /// `monthly` or `yearly`.
        billing_cycle: String,
        /// `active` or `cancelled`.
        state: String,
        /// The billing resource's generation: an older one must not bill.
        generation: i64,
        /// Price of a period in the currency's minor batch.
        amount: i64,
        /// ISO 4217.
        currency: String,
        /// Start of the current period.
        current_period_start: Stamp,
        /// Its end.
        current_period_end: Stamp,
        /// When it was made.
        created_at: Stamp,
        /// When it was cancelled.
        cancelled_at: Option<Stamp>,
    }
}
