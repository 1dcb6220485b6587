//! Exports a tenant's subscriptions and invoices as tables. Import is not supported, because an invoice
//! belongs to the contract under which it was written.

use async_trait::async_trait;
use serde_json::{Value, json};
use tenantry_model::{Failure, Write};
use tenantry_provider::csv;
use tenantry_provider::transfer::{Content, Sink, Source, Tally, Transfer};
use tenantry_provider::verbs::{Context, Spec};

use super::provider::BillingBuiltin;

/// The exported tables and columns.
const TABLES: [(&str, &[&str]); 2] = [
    (
        "subscriptions",
        &[
            "id",
            "plan",
            "billing_cycle",
            "state",
            "amount",
            "currency",
            "current_period_start",
            "current_period_end",
            "created_at",
            "cancelled_at",
        ],
    ),
    (
        "invoices",
        &[
            "id",
            "number",
            "subscription_id",
            "amount",
            "currency",
            "lines",
            "period_start",
            "period_end",
            "state",
            "issued_at",
        ],
    ),
];
const ONE_WAY: &str =
    "invoices cannot be imported: they belong to the contract under which they were written";

#[async_trait]
impl Transfer for BillingBuiltin {
    fn form(&self) -> &'static str {
        "billing"
    }

    async fn export(&self, context: &Context, spec: &Spec, sink: &mut dyn Sink) -> Result<Content, Failure> {
        let mut tally = Tally::default();
        for (name, columns) in TABLES {
            let rows = context.rows.find(name, &[("tenant_id", json!(spec.tenant.id))]).await?;
            let mut table = csv::Table::new(sink, &mut tally, name, columns.iter().copied());
            for row in rows {
                let fields: Vec<Option<String>> = columns.iter().map(|column| text(&row[column])).collect();
                table.row(&csv::line(fields.iter().map(Option::as_deref))).await?;
            }
            table.end().await?;
        }
        Ok(tally.content())
    }

    async fn load(&self, _: &Context, _: &Spec, _: &mut dyn Source) -> Result<Vec<Write>, Failure> {
        Err(Failure::invalid("one_way", ONE_WAY))
    }

    fn one_way(&self) -> Option<&'static str> {
        Some(ONE_WAY)
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}
