//! The rows of a tenant's billing: customer, subscriptions and invoices, and the rules by which they change. Reads them and
//! returns the rows to write; commits nothing. Rows are never deleted.

use chrono::Months;
use serde_json::json;
use tenantry_model::id::{CustomerId, InvoiceId, SubscriptionId};
use tenantry_model::{Failure, Timestamp, Write, columns};
use tenantry_provider::kinds::billing::{BillingSettings, Cycle};
use tenantry_provider::{Context, Spec, derived};
use tenantry_store::entity::{customer, invoice, subscription};
use tenantry_store::rows_of;
use tenantry_store::table::insert_absent;

/// Ids of a generation's rows. The customer is the same in every generation of the resource.
pub(super) struct Ids {
    pub customer: CustomerId,
    pub subscription: SubscriptionId,
    pub invoice: InvoiceId,
}

impl Ids {
    pub fn of(spec: &Spec) -> Self {
        Self {
            customer: derived::id(spec.resource, 0, "customer"),
            subscription: derived::id(spec.resource, spec.generation, "subscription"),
            invoice: derived::id(spec.resource, spec.generation, "first_invoice"),
        }
    }
}

/// The stored rows of one billing resource.
pub(super) struct Account {
    customer: Option<customer::Model>,
    pub subscriptions: Vec<subscription::Model>,
    pub invoices: Vec<invoice::Model>,
    /// Whether another billing resource has an active subscription of the tenant.
    pub foreign: bool,
}

impl Account {
    pub async fn read(context: &Context, spec: &Spec) -> Result<Self, Failure> {
        let (rows, tenant) = (&*context.rows, spec.tenant.id);
        let id = Ids::of(spec).customer.to_string();
        let all: Vec<subscription::Model> = rows_of(rows, tenant).await?;
        let (subscriptions, others): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|row| row.customer_id == id);
        let foreign = others.iter().any(is_active);
        // Without a subscription there is no invoice, and a customer that exists is not written again.
        if subscriptions.is_empty() {
            return Ok(Self { customer: None, subscriptions, invoices: Vec::new(), foreign });
        }
        let customers: Vec<customer::Model> = rows_of(rows, tenant).await?;
        let customer = customers.into_iter().find(|row| row.id == id);
        Ok(Self { customer, subscriptions, invoices: rows_of(rows, tenant).await?, foreign })
    }

    fn subscription(&self, id: SubscriptionId) -> Option<&subscription::Model> {
        let id = id.to_string();
        self.subscriptions.iter().find(|row| row.id == id)
    }

    fn has_invoice(&self, id: InvoiceId) -> bool {
        let id = id.to_string();
        self.invoices.iter().any(|row| row.id == id)
    }

    /// The subscription of this generation, if it has not ended.
    pub fn current(&self, ids: &Ids) -> Option<&subscription::Model> {
        self.subscription(ids.subscription).filter(|row| is_active(row))
    }

    /// Whether the subscription has its customer and its first invoice.
    pub fn is_complete(&self, ids: &Ids) -> bool {
        self.customer.is_some() && self.has_invoice(ids.invoice)
    }

    /// The subscriptions that have not ended.
    pub fn active(&self) -> Vec<&subscription::Model> {
        self.subscriptions.iter().filter(|row| is_active(row)).collect()
    }

    /// Begins the subscription of this generation with its customer and first invoice, and ends those of older ones. One that
    /// exists keeps its terms: prices do not change behind a customer's back. Fails if the generation has ended.
    pub fn begin(
        &self,
        context: &Context,
        spec: &Spec,
        settings: BillingSettings,
    ) -> Result<(subscription::Model, Vec<Write>), Failure> {
        let (ids, now) = (Ids::of(spec), context.now);
        let existing = self.subscription(ids.subscription);
        let ended = existing.is_some_and(|row| !is_active(row));
        if ended || self.subscriptions.iter().any(|row| row.generation > spec.generation) {
            return Err(Failure::fatal(
                "stale_generation",
                "this subscription was ended; only a newer generation can begin another",
            ));
        }
        let tenant_id = spec.tenant.id.to_string();
        let subscription = existing.cloned().unwrap_or_else(|| subscription::Model {
            id: ids.subscription.to_string(),
            tenant_id: tenant_id.clone(),
            customer_id: ids.customer.to_string(),
            plan: spec.tenant.plan.clone(),
            billing_cycle: settings.billing_cycle.as_str().to_owned(),
            state: "active".to_owned(),
            generation: spec.generation,
            amount: settings.amount,
            currency: settings.currency,
            current_period_start: now.into(),
            current_period_end: period_end(now, settings.billing_cycle).into(),
            created_at: now.into(),
            cancelled_at: None,
        });
        let mut older = self.active();
        older.retain(|row| row.id != subscription.id);
        let (mut writes, _) = self.end(&older, now);
        if self.customer.is_none() {
            let recipient = json!({ "name": spec.tenant.name, "email": spec.tenant.admin.email });
            writes.push(insert_absent(&customer::Model {
                id: ids.customer.to_string(),
                tenant_id: tenant_id.clone(),
                resource_id: spec.resource.to_string(),
                sealed: Some(context.sealer.seal(spec.tenant.id, &recipient.to_string())?),
                currency: subscription.currency.clone(),
                created_at: now.into(),
            }));
        }
        if existing.is_none() {
            writes.push(insert_absent(&subscription));
        }
        if !self.has_invoice(ids.invoice) {
            let amount = subscription.amount;
            writes.push(insert_absent(&invoice::Model {
                id: ids.invoice.to_string(),
                tenant_id,
                subscription_id: subscription.id.clone(),
                number: invoice_number(ids.invoice),
                amount,
                currency: subscription.currency.clone(),
                lines: json!([{
                    "description": spec.tenant.plan, "quantity": 1, "unit_amount": amount, "amount": amount,
                }]),
                period_start: subscription.current_period_start,
                period_end: subscription.current_period_end,
                // An invoice of nothing is paid.
                state: if amount == 0 { "paid" } else { "open" }.to_owned(),
                issued_at: now.into(),
            }));
        }
        Ok((subscription, writes))
    }

    /// Ends subscriptions and voids their open invoices. Returns the number of voided invoices too.
    pub fn end(&self, subscriptions: &[&subscription::Model], now: Timestamp) -> (Vec<Write>, usize) {
        let mut writes: Vec<Write> = subscriptions.iter().map(|row| cancel(row, now)).collect();
        let open = self.invoices.iter().filter(|row| {
            row.state == "open" && subscriptions.iter().any(|ended| ended.id == row.subscription_id)
        });
        writes.extend(
            open.map(|row| {
                Write::update("invoices", columns! { "id": row.id }, columns! { "state": "void" })
            }),
        );
        let voided = writes.len() - subscriptions.len();
        (writes, voided)
    }

    /// Ends subscriptions, keeps their invoices, and credits the unused rest of the current periods as invoices with a negative
    /// amount. Returns the number of credits too.
    pub fn end_with_credit(
        &self,
        subscriptions: &[&subscription::Model],
        spec: &Spec,
        now: Timestamp,
    ) -> (Vec<Write>, usize) {
        let mut writes: Vec<Write> = subscriptions.iter().map(|row| cancel(row, now)).collect();
        writes.extend(subscriptions.iter().filter_map(|row| credit(row, spec, now)));
        let credits = writes.len() - subscriptions.len();
        (writes, credits)
    }
}

fn cancel(row: &subscription::Model, now: Timestamp) -> Write {
    let set = columns! { "state": "cancelled", "cancelled_at": now };
    Write::update("subscriptions", columns! { "id": row.id }, set)
}

/// The invoice that credits the unused rest of a subscription's current period.
fn credit(row: &subscription::Model, spec: &Spec, now: Timestamp) -> Option<Write> {
    let amount = -unused(row.amount, *row.current_period_start, *row.current_period_end, now);
    if amount == 0 {
        return None;
    }
    let id: InvoiceId = derived::id(spec.resource, row.generation, "credit");
    Some(insert_absent(&invoice::Model {
        id: id.to_string(),
        tenant_id: spec.tenant.id.to_string(),
        subscription_id: row.id.clone(),
        number: invoice_number(id),
        amount,
        currency: row.currency.clone(),
        lines: json!([{
            "description": "credit for the unused part of the period", "quantity": 1,
            "unit_amount": amount, "amount": amount,
        }]),
        period_start: now.into(),
        period_end: row.current_period_end,
        state: "open".to_owned(),
        issued_at: now.into(),
    }))
}

fn is_active(row: &subscription::Model) -> bool {
    row.state == "active"
}

/// The end of a period that begins at `start`: the same day of a later month, or that month's last day.
pub(super) fn period_end(start: Timestamp, cycle: Cycle) -> Timestamp {
    start.to_chrono().checked_add_months(Months::new(cycle.months())).map_or(start, Timestamp::from)
}

/// The part of a period's price that stands for the time after `now`, rounded up.
pub(super) fn unused(amount: i64, start: Timestamp, end: Timestamp, now: Timestamp) -> i64 {
    let (period, rest) = (end.since(start).as_micros(), end.since(now.max(start)).as_micros());
    let amount = u128::from(amount.unsigned_abs());
    let share = (amount * rest).checked_add(period.saturating_sub(1)).and_then(|all| all.checked_div(period));
    share.and_then(|share| i64::try_from(share).ok()).unwrap_or(0)
}

/// The number on an invoice, short enough to read out. It follows from the id.
pub(super) fn invoice_number(id: InvoiceId) -> String {
    let suffix = id.suffix().to_uppercase();
    let random = suffix.get(14..).unwrap_or(&suffix);
    let (head, tail) = random.split_at_checked(6).unwrap_or((random, ""));
    format!("INV-{head}-{tail}")
}
