//! Rows of the table `customers`: the billing customer of each tenant.

use crate::Stamp;
use crate::table::table;

table! {
    /// A customer.
    Model = "customers" ("id") {
        /// Id, `cus_…`.
        id: String,
        /// The tenant.
        tenant_id: String,
        /// The billing resource.
        resource_id: String,
        /// Recipient of the invoices, encrypted with the tenant's key.
        sealed: Option<String>,
        /// Currency code (ISO 4217).
        currency: String,
        /// Time of creation.
        created_at: Stamp,
    }
}
