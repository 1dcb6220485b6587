//! Billing as rows of the registry: customer, subscription, invoices. Does no I/O; returns the rows to write.
//! Takes no payment, and bills no generation of a resource that was ended.
//!
#![doc = include_str!("docs.md")]

mod config;
mod transfer;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use chrono::Months;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tenantry_model::id::{CustomerId, InvoiceId, SubscriptionId};
use tenantry_model::{Failure, Timestamp, Write, columns};

pub use config::Config;
use tenantry_provider::factory::{self, ProviderFactory};
use tenantry_provider::kinds::billing::{BillingSettings as Settings, Cycle};
use tenantry_provider::transfer::Transfer;
use tenantry_provider::verbs::{Context, Ensured, Fault, Kind, Observed, Provider, Removed, Spec};
use tenantry_provider::{derived, settings};

/// The type, and the name of its default instance.
const NAME: &str = "builtin_billing";

/// How a server makes these providers.
pub const FACTORY: ProviderFactory = ProviderFactory {
    type_name: NAME,
    kind: Kind::Billing,
    about: "Customers, subscriptions and invoices in the registry",
    parts: &[""],
    always: true,
    schema: settings::schema::<Config>,
    defaults: factory::no_defaults,
    check: factory::no_check,
    build: |context, config| {
        Box::pin(async move {
            Ok(factory::one(BillingBuiltin::new(factory::config(config)?).named(&context.name)))
        })
    },
};

/// The provider.
#[derive(Clone, Debug)]
pub struct BillingBuiltin {
    name: Arc<str>,
}

impl BillingBuiltin {
    /// With this configuration.
    pub fn new(_: Config) -> Self {
        Self { name: NAME.into() }
    }

    /// The same under another name.
    pub fn named(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }
}

impl Default for BillingBuiltin {
    fn default() -> Self {
        Self::new(Config::default())
    }
}

/// The end of a period that begins at `start`: the same day of a later month, or that month's last day.
pub fn period_end(start: Timestamp, cycle: Cycle) -> Timestamp {
    start.to_chrono().checked_add_months(Months::new(cycle.months())).map_or(start, Timestamp::from)
}

/// The number on an invoice: what people read out to each other. It follows from the id.
fn invoice_number(id: InvoiceId) -> String {
    let suffix = id.suffix().to_uppercase();
    let random = suffix.get(14..).unwrap_or(&suffix);
    let (head, tail) = random.split_at_checked(6).unwrap_or((random, ""));
    format!("INV-{head}-{tail}")
}

/// The ids of a generation's rows. The customer is the same in every generation of the resource.
struct Ids {
    customer: CustomerId,
    subscription: SubscriptionId,
    invoice: InvoiceId,
}

impl Ids {
    fn of(spec: &Spec) -> Self {
        Self {
            customer: derived::id(spec.resource, 0, "customer"),
            subscription: derived::id(spec.resource, spec.generation, "subscription"),
            invoice: derived::id(spec.resource, spec.generation, "first_invoice"),
        }
    }
}

/// The tenant's part of the ledger.
struct Ledger {
    customer: Option<Value>,
    /// Those of our customer.
    subscriptions: Vec<Value>,
    /// Whether another resource bills the tenant.
    foreign: bool,
    invoices: Vec<Value>,
}

impl Ledger {
    async fn read(context: &Context, spec: &Spec) -> Result<Self, Failure> {
        let tenant = [("tenant_id", json!(spec.tenant.id))];
        let customer = json!(Ids::of(spec).customer);
        let all = context.rows.find("subscriptions", &tenant).await?;
        let (ours, others): (Vec<Value>, Vec<Value>) =
            all.into_iter().partition(|row| row.get("customer_id") == Some(&customer));
        let mut ledger = Self {
            customer: None,
            foreign: others.iter().any(is_active),
            subscriptions: ours,
            invoices: Vec::new(),
        };
        // Without a subscription there can be no invoice, and a customer that is there is not written again.
        if !ledger.subscriptions.is_empty() {
            let customers = context.rows.find("customers", &tenant).await?;
            ledger.customer = customers.into_iter().find(|row| row.get("id") == Some(&customer));
            ledger.invoices = context.rows.find("invoices", &tenant).await?;
        }
        Ok(ledger)
    }

    fn subscription(&self, id: SubscriptionId) -> Option<&Value> {
        self.subscriptions.iter().find(|row| row.get("id") == Some(&json!(id)))
    }

    fn has_invoice(&self, id: InvoiceId) -> bool {
        self.invoices.iter().any(|row| row.get("id") == Some(&json!(id)))
    }

    /// Credits what is left of the periods that were invoiced.
    fn credit(&self, subscriptions: &[&Value], spec: &Spec, now: Timestamp) -> Vec<Write> {
        let running = subscriptions.iter().filter_map(|subscription| {
            let [start, end] = ["current_period_start", "current_period_end"]
                .map(|column| subscription.get(column)?.as_str()?.parse::<Timestamp>().ok());
            Some((*subscription, start?, end?))
        });
        let credits = running.filter_map(|(subscription, start, end)| {
            let amount = subscription.get("amount")?.as_i64()?;
            let credit = unused(amount, start, end, now);
            if credit == 0 {
                return None;
            }
            let id: InvoiceId = derived::id(spec.resource, generation(subscription), "credit");
            let lines = json!([{ "description": "credit for the unused part of the period", "quantity": 1,
                "unit_amount": -credit, "amount": -credit }]);
            Some(Write::insert_absent(
                "invoices",
                columns! {
                "id": id, "tenant_id": spec.tenant.id, "subscription_id": subscription.get("id"),
                "number": invoice_number(id), "amount": -credit, "currency": subscription.get("currency"),
                "lines": lines, "period_start": now, "period_end": end, "state": "open", "issued_at": now },
            ))
        });
        credits.collect()
    }

    /// Ends the subscriptions and voids what is still to be paid for them. Rows stay: a ledger forgets nothing.
    fn end(&self, subscriptions: &[&Value], now: Timestamp) -> (Vec<Write>, usize) {
        let mut writes = Vec::new();
        let mut voided = 0;
        for subscription in subscriptions {
            let id = subscription.get("id");
            writes.push(Write::update(
                "subscriptions",
                columns! { "id": id },
                columns! { "state": "cancelled", "cancelled_at": now },
            ));
            let open = self.invoices.iter().filter(|row| {
                row.get("subscription_id") == id && row.get("state").is_some_and(|state| state == "open")
            });
            for invoice in open {
                voided += 1;
                writes.push(Write::update(
                    "invoices",
                    columns! { "id": invoice.get("id") },
                    columns! { "state": "void" },
                ));
            }
        }
        (writes, voided)
    }
}

/// What of a period's price stands for the time after `now`, in the customer's favour.
fn unused(amount: i64, start: Timestamp, end: Timestamp, now: Timestamp) -> i64 {
    let (period, rest) = (end.since(start).as_micros(), end.since(now.max(start)).as_micros());
    let amount = u128::from(amount.unsigned_abs());
    let share = (amount * rest).checked_add(period.saturating_sub(1)).and_then(|all| all.checked_div(period));
    share.and_then(|share| i64::try_from(share).ok()).unwrap_or(0)
}

fn is_active(row: &Value) -> bool {
    row.get("state").is_some_and(|state| state == "active")
}

fn generation(row: &Value) -> i64 {
    row.get("generation").and_then(Value::as_i64).unwrap_or(0)
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
        settings::schema::<settings::NoSettings>()
    }

    fn check(&self, given: &Value) -> Vec<Fault> {
        let settings: Settings = match settings::check(given) {
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
        let settings: Settings = settings::of(spec)?;
        let ledger = Ledger::read(context, spec).await?;
        if ledger.foreign {
            return Err(Failure::fatal(
                "name_taken",
                "another resource bills this tenant; it was not touched",
            ));
        }
        let ids = Ids::of(spec);
        let there = ledger.subscription(ids.subscription);
        let ended = there.is_some_and(|row| !is_active(row));
        if ended || ledger.subscriptions.iter().any(|row| generation(row) > spec.generation) {
            return Err(Failure::fatal(
                "stale_generation",
                "this subscription was ended; only a newer generation can begin another",
            ));
        }
        // What is there counts, whatever the step would say today: prices do not change behind a customer's back.
        let now = context.now;
        let text =
            |column: &str, default: Value| there.and_then(|row| row.get(column)).cloned().unwrap_or(default);
        let amount = text("amount", json!(settings.amount));
        let currency = text("currency", json!(settings.currency));
        let cycle = text("billing_cycle", json!(settings.billing_cycle));
        let start = text("current_period_start", json!(now));
        let end = text("current_period_end", json!(period_end(now, settings.billing_cycle)));
        let number = invoice_number(ids.invoice);
        let outputs = json!({
            "customer_id": ids.customer, "subscription_id": ids.subscription, "invoice_id": ids.invoice,
            "invoice_number": number, "billing_cycle": cycle, "amount": amount, "currency": currency,
        });

        let tenant = spec.tenant.id;
        let older: Vec<&Value> =
            ledger.subscriptions.iter().filter(|row| is_active(row) && Some(*row) != there).collect();
        let (mut writes, _) = ledger.end(&older, now);
        if ledger.customer.is_none() {
            let who = json!({ "name": spec.tenant.name, "email": spec.tenant.admin.email });
            writes.push(Write::insert_absent(
                "customers",
                columns! {
                    "id": ids.customer, "tenant_id": tenant, "resource_id": spec.resource,
                    "sealed": context.sealer.seal(tenant, &who.to_string())?, "currency": currency, "created_at": now },
            ));
        }
        if there.is_none() {
            writes.push(Write::insert_absent(
                "subscriptions",
                columns! {
                    "id": ids.subscription, "tenant_id": tenant, "customer_id": ids.customer, "plan": spec.tenant.plan,
                    "billing_cycle": cycle, "state": "active", "generation": spec.generation, "amount": amount,
                    "currency": currency, "current_period_start": start, "current_period_end": end,
                    "created_at": now, "cancelled_at": () },
            ));
        }
        if !ledger.has_invoice(ids.invoice) {
            let lines = json!([{ "description": spec.tenant.plan, "quantity": 1, "unit_amount": amount, "amount": amount }]);
            // Nothing to pay is paid.
            let state = if amount == json!(0) { "paid" } else { "open" };
            writes.push(Write::insert_absent(
                "invoices",
                columns! {
                    "id": ids.invoice, "tenant_id": tenant, "subscription_id": ids.subscription, "number": number,
                    "amount": amount, "currency": currency, "lines": lines, "period_start": start, "period_end": end,
                    "state": state, "issued_at": now },
            ));
        }
        Ok(Ensured { outputs, writes })
    }

    async fn observe(&self, context: &Context, spec: &Spec) -> Result<Observed, Failure> {
        let ledger = Ledger::read(context, spec).await?;
        let ids = Ids::of(spec);
        let Some(row) = ledger.subscription(ids.subscription).filter(|row| is_active(row)) else {
            return Ok(if ledger.foreign { Observed::Foreign } else { Observed::Absent });
        };
        let terms =
            ["plan", "billing_cycle", "amount", "currency", "generation"].map(|column| row.get(column));
        let healthy = ledger.customer.is_some() && ledger.has_invoice(ids.invoice);
        let fingerprint = hex::encode(Sha256::digest(json!(terms).to_string()));
        Ok(Observed::present(healthy, Some(generation(row).to_string()), fingerprint))
    }

    async fn remove(&self, context: &Context, spec: &Spec) -> Result<Removed, Failure> {
        let ledger = Ledger::read(context, spec).await?;
        let active: Vec<&Value> = ledger.subscriptions.iter().filter(|row| is_active(row)).collect();
        let (mut writes, mut voided) = ledger.end(&active, context.now);
        let mut credited = 0;
        if spec.settings.get("prorate") == Some(&Value::Bool(true)) {
            // What was served is paid; the invoices stay as they are.
            writes.retain(|write| write.table != "invoices");
            voided = 0;
            let credits = ledger.credit(&active, spec, context.now);
            credited = credits.len();
            writes.extend(credits);
        }
        let receipt = json!({
            "subscriptions_cancelled": active.len(),
            "invoices_voided": voided,
            "credits_issued": credited,
            "kept_in_ledger": { "subscriptions": ledger.subscriptions.len(), "invoices": ledger.invoices.len() },
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
