//! The built-in billing provider: a tenant's price as customer, subscription and invoices in the registry. It performs no I/O
//! and moves no money: it returns rows, which are written in the transaction that records its step.
//!
//! - Amounts are whole numbers in the currency's smallest unit. Periods follow the calendar: a month after 31 January ends on
//!   the last day of February.
//! - **Idempotent**: ids and the invoice's number are derived from the resource and its generation.
//! - **No invoice after the end**: removal cancels the subscription and voids open invoices; a step of that generation that
//!   arrives later fails with `stale_generation`.
//! - **Proration**: with `prorate`, invoices stay and the unused rest of the period becomes a credit, as an invoice with a
//!   negative amount from the end on. An offboarding uses it; a rolled-back onboarding is voided instead.
//! - Rows are never deleted. Name and address of the customer are sealed under the tenant's key.
//! - **Archives**: an export contains subscriptions and invoices as tables. An import does not load them: invoices belong to
//!   their contract.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tenantry_model::Failure;
use tenantry_provider::factory::{self, ProviderFactory};
use tenantry_provider::kinds::billing::BillingSettings;
use tenantry_provider::settings::{self, NoSettings};
use tenantry_provider::transfer::Transfer;
use tenantry_provider::verbs::{Context, Ensured, Fault, Kind, Observed, Provider, Removed, Spec};

use super::rows::{Account, Ids, invoice_number};

/// The type, and the name of its default instance.
const NAME: &str = "builtin_billing";

/// How a server makes these providers.
pub const FACTORY: ProviderFactory = ProviderFactory {
    type_name: NAME,
    kind: Kind::Billing,
    about: "Customers, subscriptions and invoices in the registry",
    parts: &[""],
    always: true,
    schema: settings::schema::<NoSettings>,
    defaults: factory::no_defaults,
    check: factory::no_check,
    build: |context, _| Box::pin(async move { Ok(factory::one(BillingBuiltin::named(&context.name))) }),
};

/// The provider.
#[derive(Clone, Debug)]
pub struct BillingBuiltin {
    name: Arc<str>,
}

impl BillingBuiltin {
    /// With this name.
    pub fn named(name: &str) -> Self {
        Self { name: name.into() }
    }
}

impl Default for BillingBuiltin {
    fn default() -> Self {
        Self::named(NAME)
    }
}

#[async_trait]
impl Provider for BillingBuiltin {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> Kind {
        Kind::Billing
    }

    fn transactional(&self) -> bool {
        true
    }

    fn settings_schema(&self) -> Value {
        settings::schema::<NoSettings>()
    }

    fn check(&self, given: &Value) -> Vec<Fault> {
        let settings: BillingSettings = match settings::check(given) {
            Ok(settings) => settings,
            Err(faults) => return faults,
        };
        let mut faults = Vec::new();
        if settings.amount < 0 {
            faults.push(Fault { path: "amount".to_owned(), message: "must not be negative".to_owned() });
        }
        if settings.currency.len() != 3 || !settings.currency.bytes().all(|b| b.is_ascii_uppercase()) {
            let message = "must be an ISO 4217 code such as EUR".to_owned();
            faults.push(Fault { path: "currency".to_owned(), message });
        }
        faults
    }

    async fn ensure(&self, context: &Context, spec: &Spec) -> Result<Ensured, Failure> {
        let settings: BillingSettings = settings::of(spec)?;
        let account = Account::read(context, spec).await?;
        if account.foreign {
            return Err(Failure::fatal(
                "name_taken",
                "another resource bills this tenant; it was not touched",
            ));
        }
        let (subscription, writes) = account.begin(context, spec, settings)?;
        let ids = Ids::of(spec);
        let outputs = json!({
            "customer_id": ids.customer, "subscription_id": ids.subscription, "invoice_id": ids.invoice,
            "invoice_number": invoice_number(ids.invoice), "billing_cycle": subscription.billing_cycle,
            "amount": subscription.amount, "currency": subscription.currency,
        });
        Ok(Ensured { outputs, writes })
    }

    async fn observe(&self, context: &Context, spec: &Spec) -> Result<Observed, Failure> {
        let account = Account::read(context, spec).await?;
        let ids = Ids::of(spec);
        let Some(row) = account.current(&ids) else {
            return Ok(if account.foreign { Observed::Foreign } else { Observed::Absent });
        };
        let terms = json!([row.plan, row.billing_cycle, row.amount, row.currency, row.generation]);
        let fingerprint = hex::encode(Sha256::digest(terms.to_string()));
        Ok(Observed::present(account.is_complete(&ids), Some(row.generation.to_string()), fingerprint))
    }

    async fn remove(&self, context: &Context, spec: &Spec) -> Result<Removed, Failure> {
        let account = Account::read(context, spec).await?;
        let active = account.active();
        let (mut voided, mut credited) = (0, 0);
        let writes;
        // A plan may have settings that this version does not know: only this one matters for the end.
        if spec.settings.get("prorate") == Some(&Value::Bool(true)) {
            (writes, credited) = account.end_with_credit(&active, spec, context.now);
        } else {
            (writes, voided) = account.end(&active, context.now);
        }
        let receipt = json!({
            "subscriptions_cancelled": active.len(),
            "invoices_voided": voided,
            "credits_issued": credited,
            "kept_in_ledger": { "subscriptions": account.subscriptions.len(), "invoices": account.invoices.len() },
        });
        Ok(Removed { receipt, writes })
    }

    async fn probe(&self) -> Result<(), Failure> {
        Ok(())
    }

    fn transfer(&self) -> Option<&dyn Transfer> {
        Some(self)
    }
}
