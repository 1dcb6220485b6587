//! Customers: who pays for a tenant.

use crate::Stamp;
use crate::table::table;

table! {
    /// A customer.
    Model = "customers" ("id") {
        /// Its id, `cus_…`.
        id: String,
        /// The tenant that pays.
        tenant_id: String,
        /// The billing resource.
        resource_id: String,
        /// Recipient of the invoices, under the tenant's key.
        sealed: Option<String>,
        /// ISO 4217.
        currency: String,
        /// When it was made.
        created_at: Stamp,
    }
}
