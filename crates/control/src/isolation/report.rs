//! Report of an isolation check: the matrix of attempts, the changes since the previous report, and the signature.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tenantry_model::id::IsolationReportId;
use tenantry_model::{Isolation, TenantId, Timestamp};
use tenantry_provider::{Cell, Outcome, Who};

use crate::error::{Error, Result};
use tenantry_store::entity;
use tenantry_store::keyring::{SigningKey, base64url, from_base64url, verify};

/// The signed content of a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// Report id.
    pub id: IsolationReportId,
    /// Time at which the check ended.
    pub at: Timestamp,
    /// Number of leaks.
    pub leaks: u64,
    /// Number of kinds of obstruction that were found.
    #[serde(default)]
    pub obstructions: u64,
    /// Attempts by model, actor and kind of access.
    pub matrix: Vec<Cell>,
    /// Whether the request named the tenants; otherwise the report covers a sample of all tenants.
    #[serde(default)]
    pub named: bool,
    /// Checked tenants.
    pub tenants: Vec<TenantId>,
    /// Databases that were not checked.
    pub left_out: Vec<LeftOut>,
    /// Assumptions of the check.
    pub trusted: Vec<String>,
    /// The previous report, if it is still kept.
    pub previous: Option<IsolationReportId>,
    /// Attempts whose outcome differs from the previous report.
    pub changes: Vec<Change>,
}

/// Databases that were not checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeftOut {
    /// Provider.
    pub provider: String,
    /// Number of tenants of the request or sample that were not checked.
    pub tenants: u64,
    /// Reason.
    pub why: String,
}

/// A cell of the matrix whose outcome differs from the previous report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Change {
    /// Isolation model.
    pub model: Isolation,
    /// Actor.
    pub who: Who,
    /// Kind of access.
    pub what: String,
    /// Previous outcome; null if it was not checked.
    pub before: Option<Outcome>,
    /// Present outcome; null if it was not checked.
    pub now: Option<Outcome>,
}

/// A report with its signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IsolationReportView {
    /// The report.
    pub report: Report,
    /// Ed25519, base64url, over the line `tenantry isolation report v1` and `report` as JSON with sorted keys and without spaces.
    pub signature: String,
    /// Public key that verifies the signature, base64url.
    pub public_key: String,
    /// Whether the signature is valid.
    pub genuine: bool,
}

/// The cells whose outcome is another one than before.
pub(super) fn changes(before: &[Cell], now: &[Cell]) -> Vec<Change> {
    let outcomes = |cells: &[Cell]| -> BTreeMap<(&'static str, Who, String), (Isolation, Outcome)> {
        let key = |cell: &Cell| (cell.model.as_str(), cell.who, cell.what.clone());
        cells.iter().map(|cell| (key(cell), (cell.model, cell.outcome))).collect()
    };
    let (before, now) = (outcomes(before), outcomes(now));
    let mut keys: Vec<_> = before.keys().chain(now.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    let changed = keys.into_iter().filter_map(|key| {
        let [was, is] = [before.get(key), now.get(key)];
        let (model, _) = is.or(was)?;
        let [before, now] = [was, is].map(|found| found.map(|(_, outcome)| *outcome));
        let (_, who, what) = key.clone();
        (before != now).then_some(Change { model: *model, who, what, before, now })
    });
    changed.collect()
}

/// The text that is kept, and its signature.
pub(super) fn seal(report: &Report, key: &SigningKey) -> Result<(String, String)> {
    // A `Value` writes its keys in order.
    let text = serde_json::to_value(report).map_err(Error::internal)?.to_string();
    let signature = base64url(&key.sign(message(&text).as_bytes()));
    Ok((text, signature))
}

/// A report as it was kept.
pub(super) fn open(row: entity::isolation_report::Model, key: &SigningKey) -> Result<IsolationReportView> {
    let signature = from_base64url(&row.signature).unwrap_or_default();
    let genuine = verify(key.public(), message(&row.report).as_bytes(), &signature);
    let report = serde_json::from_str(&row.report).map_err(Error::internal)?;
    Ok(IsolationReportView { report, signature: row.signature, public_key: key.x(), genuine })
}

fn message(text: &str) -> String {
    format!("tenantry isolation report v1\n{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(what: &str, outcome: Outcome) -> Cell {
        Cell {
            model: Isolation::Pool,
            who: Who::Catalogue,
            what: what.to_owned(),
            outcome,
            tried: 1,
            leaks: 0,
            found: Vec::new(),
            why: None,
        }
    }

    #[test]
    fn a_report_that_was_changed_is_not_genuine() {
        let key = SigningKey::from_pkcs8(SigningKey::generate()).unwrap();
        let report = Report {
            id: IsolationReportId::new(),
            at: Timestamp::from_micros(0),
            leaks: 1,
            obstructions: 0,
            matrix: vec![cell("rows", Outcome::Leak)],
            named: false,
            tenants: Vec::new(),
            left_out: Vec::new(),
            trusted: Vec::new(),
            previous: None,
            changes: Vec::new(),
        };
        let (text, signature) = seal(&report, &key).unwrap();
        let kept = |report: String| entity::isolation_report::Model {
            id: String::new(),
            report,
            signature: signature.clone(),
            at: Timestamp::from_micros(0).into(),
        };
        let same = open(kept(text.clone()), &key).unwrap();
        assert_eq!((same.genuine, &same.report), (true, &report));
        assert!(!open(kept(text.replace("leak\"", "denied\"")), &key).unwrap().genuine);
        let other = SigningKey::from_pkcs8(SigningKey::generate()).unwrap();
        assert!(!open(kept(text), &other).unwrap().genuine);
    }

    #[test]
    fn only_what_is_different_is_a_change() {
        let before = [cell("a", Outcome::Denied), cell("b", Outcome::Denied), cell("c", Outcome::Denied)];
        let now = [cell("a", Outcome::Denied), cell("b", Outcome::Leak), cell("d", Outcome::Denied)];
        let said: Vec<_> = changes(&before, &now).into_iter().map(|c| (c.what, c.before, c.now)).collect();
        let expected = [
            ("b".to_owned(), Some(Outcome::Denied), Some(Outcome::Leak)),
            ("c".to_owned(), Some(Outcome::Denied), None),
            ("d".to_owned(), None, Some(Outcome::Denied)),
        ];
        assert_eq!(said, expected);
    }
}
