//! Runs the isolation check: calls the check of each database provider, and stores a signed report of the
//! results with the changes since the previous report. The providers choose what they try; this module
//! accesses no tenant's database.

mod report;

use std::collections::BTreeMap;
use tenantry_model::ErrorCode;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tenantry_model::id::IsolationReportId;
use tenantry_model::{TenantId, Write, columns};
use tenantry_provider::{Cell, Kind, Outcome, Provider as _};

pub use report::{Change, IsolationReportView, LeftOut, Report};

use crate::access::idempotency::{Answered, IdempotencyKey, Once, Outcome as Done};
use crate::access::{Caller, Permission};
use crate::control::Control;
use crate::control::page::{Page, PageQuery};
use crate::error::{Error, Result};
use tenantry_store::WriteBatch;
use tenantry_store::record::{AuditRecord, audit, fleet_event};

/// Name of the keyring's key that signs reports.
const KEY: &str = "isolation_signing";
/// Number of the oldest and of the newest tenants of each provider that are checked if the request names no
/// tenants.
const EACH_END: u64 = 20;
/// Number of reports that are kept.
const KEPT: u64 = 100;

/// Request for an isolation check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CheckIsolation {
    /// Ids or slugs of the tenants to check; without it, the 20 oldest and the 20 newest tenants of each database
    /// provider.
    #[schemars(extend("maxItems" = 100))]
    pub tenants: Vec<String>,
}

/// Tenants by the provider of their database.
type Targets = BTreeMap<String, Vec<TenantId>>;

impl Control {
    /// Runs a check, and keeps and signs its report. A red cell is an event too.
    pub async fn check_isolation(
        &self,
        caller: &Caller,
        what: &CheckIsolation,
        key: Option<IdempotencyKey>,
    ) -> Result<Answered<IsolationReportView>> {
        caller.require(Permission::CheckIsolation)?;
        let once = key.map(|key| Once::new(caller, &key, "check_isolation", &json!(what)));
        let replayed = |value| Answered { value, replayed: true };
        match self.once(once.as_ref(), self.try_isolation(caller, what, once.as_ref())).await? {
            Done::Now(value) => Ok(Answered { value, replayed: false }),
            Done::Before(answer) => {
                let id = answer.get("report_id").and_then(|id| id.as_str()).unwrap_or_default();
                let row = self.shared.store.isolation_report(id).await.map_err(Error::unavailable)?;
                let gone = || {
                    Error::new(
                        ErrorCode::ReportGone,
                        "the report was deleted: the server keeps the newest 100; run the check again",
                    )
                };
                report::open(row.ok_or_else(gone)?, &self.report_key().await?).map(replayed)
            }
        }
    }

    /// Reports, newest first.
    pub async fn isolation_reports(
        &self,
        caller: &Caller,
        page: &PageQuery,
    ) -> Result<Page<IsolationReportView>> {
        caller.require(Permission::ReadIsolation)?;
        let rows = self.shared.store.isolation_reports(page.cursor(), page.probe()).await;
        let key = self.report_key().await?;
        page.cut(rows.map_err(Error::unavailable)?, |row| row.id.clone(), |row| report::open(row, &key))
    }

    /// Checks the fleet if its last report is old enough, and there are tenants that can be checked. Answers whether it did.
    pub(crate) async fn check_isolation_if_due(&self) -> Result<bool> {
        let Some(every) = self.shared.config.isolation_every else { return Ok(false) };
        let last = self.fleet_report().await?;
        if last.is_some_and(|report| self.now().since(report.at) < every) {
            return Ok(false);
        }
        let checkable = |name: &String| {
            self.shared.resources.get(name).is_some_and(|provider| provider.isolation().is_some())
        };
        if !self.sample().await?.keys().any(checkable) {
            return Ok(false);
        }
        self.check_isolation(&Caller::system(), &CheckIsolation::default(), None).await.map(|_| true)
    }

    /// Returns the report of the last check of all tenants, if it is still kept.
    pub async fn fleet_report(&self) -> Result<Option<Report>> {
        let key = self.report_key().await?;
        // It is nearly always the newest report, so read only that one first.
        for most in [1, KEPT] {
            let rows = self.shared.store.isolation_reports(None, most).await.map_err(Error::unavailable)?;
            for row in rows {
                let report = report::open(row, &key)?.report;
                if !report.named {
                    return Ok(Some(report));
                }
            }
        }
        Ok(None)
    }

    async fn try_isolation(
        &self,
        caller: &Caller,
        what: &CheckIsolation,
        once: Option<&Once>,
    ) -> Result<IsolationReportView> {
        let targets = match what.tenants.is_empty() {
            true => self.sample().await?,
            false => self.named(caller, &what.tenants).await?,
        };
        let mut report = Report { named: !what.tenants.is_empty(), ..self.found(targets).await };
        let store = &self.shared.store;
        let kept = store.isolation_reports(None, KEPT).await.map_err(Error::unavailable)?;
        let key = self.report_key().await?;
        if let Some(last) = kept.first() {
            let last = report::open(last.clone(), &key)?.report;
            report.previous = Some(last.id);
            report.changes = report::changes(&last.matrix, &report.matrix);
        }
        let (text, signature) = report::seal(&report, &key)?;
        let (id, now) = (report.id.to_string(), report.at);
        let row = columns! { "id": report.id, "report": &*text, "signature": &*signature, "at": now };
        let audited = AuditRecord {
            actor: &caller.principal,
            action: "isolation.check",
            target: &id,
            tenant: None,
            data: json!({ "tenants": report.tenants.len(), "leaks": report.leaks, "obstructions": report.obstructions }),
        };
        let mut writes = vec![Write::insert("isolation_reports", row), audit(audited, now)];
        for (outcome, kind, count) in [
            (Outcome::Leak, "isolation.leak_found", "leaks"),
            (Outcome::Obstruction, "isolation.obstruction_found", "obstructions"),
        ] {
            let found: Vec<&Cell> = of(&report.matrix, outcome).collect();
            if found.is_empty() {
                continue;
            }
            let words: Vec<String> =
                found.iter().map(|c| format!("{} {}", c.model.as_str(), c.what)).collect();
            tracing::error!(report = id, cells = words.join(", "), "{kind}");
            let cells: Vec<_> = found.iter().map(|c| json!({ "model": c.model, "what": c.what })).collect();
            writes.push(fleet_event(
                kind,
                json!({ "report_id": id, count: cells.len(), "cells": cells }),
                now,
            ));
        }
        let too_old = kept.iter().skip(usize::try_from(KEPT - 1).unwrap_or(usize::MAX));
        writes.extend(too_old.map(|row| Write::delete("isolation_reports", columns! { "id": &*row.id })));
        writes.extend(once.map(|once| once.guard(&json!({ "report_id": id }), None, now)));
        store.commit(WriteBatch::new(writes)).await.map_err(Error::unavailable)?;
        Ok(IsolationReportView { report, signature, public_key: key.x(), genuine: true })
    }

    /// Has the providers look. One that cannot is said to be left out: its tenants do not count as kept apart.
    async fn found(&self, targets: Targets) -> Report {
        let mut report = Report {
            id: IsolationReportId::new(),
            at: self.now(),
            leaks: 0,
            obstructions: 0,
            matrix: Vec::new(),
            named: false,
            tenants: Vec::new(),
            left_out: Vec::new(),
            trusted: Vec::new(),
            previous: None,
            changes: Vec::new(),
        };
        for (name, tenants) in targets {
            let provider = self.shared.resources.get(&name);
            let checked = match provider.and_then(|provider| provider.isolation()) {
                Some(isolation) => isolation.check(&tenants).await.map_err(|failure| failure.message),
                None => Err("tenants on this provider have no database logins".to_owned()),
            };
            match checked {
                Ok(checked) => {
                    report.matrix.extend(checked.cells);
                    report.trusted.extend(checked.trusted);
                    report.tenants.extend(tenants);
                }
                Err(why) => {
                    let tenants = tenants.len() as u64;
                    report.left_out.push(LeftOut { provider: name, tenants, why });
                }
            }
        }
        report.trusted.sort_unstable();
        report.trusted.dedup();
        report.leaks = of(&report.matrix, Outcome::Leak).count() as u64;
        report.obstructions = of(&report.matrix, Outcome::Obstruction).count() as u64;
        report.at = self.now();
        report
    }

    async fn sample(&self) -> Result<Targets> {
        let mut targets = Targets::new();
        for provider in self.shared.resources.iter().filter(|provider| provider.kind() == Kind::Database) {
            let ids = self.shared.store.tenants_at_both_ends(provider.name(), EACH_END).await;
            let ids = ids.map_err(Error::unavailable)?;
            if !ids.is_empty() {
                let ids = ids.iter().map(|id| id.parse().map_err(Error::internal)).collect::<Result<_>>()?;
                targets.insert(provider.name().to_owned(), ids);
            }
        }
        Ok(targets)
    }

    async fn named(&self, caller: &Caller, names: &[String]) -> Result<Targets> {
        let mut targets = Targets::new();
        for name in names {
            let row = self.tenant_row(caller, name).await?;
            let serving = self.shared.store.tenant_serving(&row.id, Kind::Database).await;
            let provider = serving.map_err(Error::unavailable)?.and_then(|(_, provider)| provider);
            let provider = provider.ok_or_else(|| {
                Error::new(ErrorCode::NoDatabase, format!("the tenant {name} has no database"))
            })?;
            let id = row.id.parse().map_err(Error::internal)?;
            let of_it = targets.entry(provider).or_default();
            if !of_it.contains(&id) {
                of_it.push(id);
            }
        }
        Ok(targets)
    }

    async fn report_key(&self) -> Result<tenantry_store::keyring::SigningKey> {
        self.shared.keyring.signing_key(KEY).await.map_err(Error::unavailable)
    }
}

/// The cells with this outcome.
fn of(matrix: &[Cell], outcome: Outcome) -> impl Iterator<Item = &Cell> {
    matrix.iter().filter(move |cell| cell.outcome == outcome)
}
