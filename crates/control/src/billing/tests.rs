//! Periods, invoice numbers and settings. The provider contract is tested in `tests/it`.

use serde_json::{Value, json};
use tenantry_model::Timestamp;
use tenantry_model::id::InvoiceId;
use tenantry_provider::Provider as _;
use tenantry_provider::kinds::billing::Cycle;

use super::BillingBuiltin;
use super::rows::{invoice_number, period_end, unused};

fn end(start: &str, cycle: Cycle) -> String {
    period_end(start.parse().unwrap(), cycle).to_string()
}

#[test]
fn periods_end_on_the_same_day_or_the_last_of_the_month() {
    for (start, cycle, expected) in [
        ("2026-01-31T10:00:00Z", Cycle::Monthly, "2026-02-28T10:00:00.000000Z"),
        ("2028-01-31T00:00:00Z", Cycle::Monthly, "2028-02-29T00:00:00.000000Z"),
        ("2026-12-15T23:59:59Z", Cycle::Monthly, "2027-01-15T23:59:59.000000Z"),
        ("2028-02-29T12:00:00Z", Cycle::Yearly, "2029-02-28T12:00:00.000000Z"),
    ] {
        assert_eq!(end(start, cycle), expected, "{start}");
    }
}

#[test]
fn credits_the_unused_rest_of_a_period() {
    let at = |day: &str| format!("2026-11-{day}T00:00:00Z").parse::<Timestamp>().unwrap();
    for (now, credit) in [("01", 900), ("02", 870), ("16", 450), ("30", 30)] {
        assert_eq!(unused(900, at("01"), "2026-12-01T00:00:00Z".parse().unwrap(), at(now)), credit, "{now}");
    }
    assert_eq!(
        unused(900, at("02"), at("03"), at("01")),
        900,
        "a clock that was set back credits at most the whole amount"
    );
    assert_eq!(
        (unused(900, at("01"), at("02"), at("05")), unused(900, at("01"), at("01"), at("01"))),
        (0, 0)
    );
    assert_eq!(unused(i64::MAX, at("01"), at("02"), at("01")), i64::MAX);
}

#[test]
fn invoice_numbers_are_derived_from_the_id() {
    let id: InvoiceId = "in_01h455vb4pex5vsknk084sn02q".parse().unwrap();
    assert_eq!(invoice_number(id), "INV-SKNK08-4SN02Q");
    assert_ne!(invoice_number(InvoiceId::new()), invoice_number(InvoiceId::new()));
}

#[test]
fn rejects_invalid_settings() {
    let paths = |settings: Value| {
        BillingBuiltin::default().check(&settings).into_iter().map(|f| f.path).collect::<Vec<_>>()
    };
    assert!(paths(json!({ "billing_cycle": "yearly", "amount": 9000, "currency": "EUR" })).is_empty());
    assert_eq!(paths(json!({ "amount": -1, "currency": "euro" })), ["amount", "currency"]);
    assert_eq!(paths(json!({ "billing_cycle": "weekly" })).len(), 1);
}
