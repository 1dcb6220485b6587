//! Invoices. One per subscription and period.

use serde_json::Value as Json;

use crate::Stamp;
use crate::table::table;

table! {
    /// An invoice.
    Model = "invoices" ("id") {
        /// Its id, `in_…`.
        id: String,
        /// Its tenant.
        tenant_id: String,
        /// Its subscription.
        subscription_id: String,
        /// Number on the invoice.
        number: String,
        /// Total in the currency's minor batch.
        amount: i64,
        /// ISO 4217.
        currency: String,
        /// Its lines.
        lines: Json,
        /// Start of the period.
        period_start: Stamp,
        /// End of the period.
        period_end: Stamp,
        /// `open`, `paid` or `void`.
        state: String,
        /// When it was made.
        issued_at: Stamp,
    }
}
