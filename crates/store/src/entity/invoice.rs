//! Rows of the table `invoices`: one per subscription and period.

use serde_json::Value as Json;

use crate::Stamp;
use crate::table::table;

table! {
    /// An invoice.
    Model = "invoices" ("id") {
        /// Id, `in_…`.
        id: String,
        /// The tenant.
        tenant_id: String,
        /// The subscription.
        subscription_id: String,
        /// Number on the invoice.
        number: String,
        /// Total in minor units of the currency, such as cents.
        amount: i64,
        /// Currency code (ISO 4217).
        currency: String,
        /// Lines of the invoice.
        lines: Json,
        /// Start of the period.
        period_start: Stamp,
        /// End of the period.
        period_end: Stamp,
        /// `open`, `paid` or `void`.
        state: String,
        /// Time of creation.
        issued_at: Stamp,
    }
}
