//! Billing: customers, subscriptions and invoices, as rows of the registry. These rows are a tenant's billing resource,
//! which `provider` creates. Nothing here collects payments.

mod provider;
mod rows;
mod transfer;

#[cfg(test)]
mod tests;

pub use provider::{BillingBuiltin, FACTORY};
