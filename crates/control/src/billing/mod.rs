//! What tenants pay: customers, subscriptions and invoices as rows of the registry. The billing resource of a tenant is
//! these rows; `provider` serves it. Takes no payment.

mod provider;
mod rows;
mod transfer;

#[cfg(test)]
mod tests;

pub use provider::{BillingBuiltin, FACTORY};
