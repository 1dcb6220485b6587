//! Reads of the statistics: how onboardings ended, and which slots are taken.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;
use tenantry_engine::{OperationState, StepState};
use tenantry_model::Timestamp;

use super::outcome::{Outcome, StepOutcome, Taken};
use super::query::Query;
use super::{ReadError, Stamp, Store};

/// Stored kind of the operation that onboards a tenant.
const ONBOARD: &str = "onboard";

/// Maximum number of onboardings in the statistics; the newest are read.
const ONBOARDINGS: u64 = 1_000;

/// Number of the newest operations, of any kind, among which the onboardings are searched.
const OPERATIONS: i64 = 20_000;

/// States of the onboardings that the statistics include.
const ENDS: [OperationState; 4] = [
    OperationState::Succeeded,
    OperationState::RolledBack,
    OperationState::Cancelled,
    OperationState::NeedsAttention,
];

/// An operation: id, state, input, error, the step to blame, beginning and end.
type OperationRow = (String, String, Value, Option<Value>, Option<String>, Stamp, Option<Stamp>);
/// A step: operation, key, kind, needs, state, attempts, start, end and child.
type StepRow = (String, String, String, Value, String, i32, Option<Stamp>, Option<Stamp>, Option<String>);

impl Store {
    /// Returns the newest onboardings that started after `since` and have ended or need attention, and whether these are
    /// all of them. Reads a bounded number of rows, by an index.
    pub async fn onboardings(&self, since: Timestamp) -> Result<(Vec<Outcome>, bool), ReadError> {
        let oldest = Query::new("SELECT id FROM operations ORDER BY id DESC LIMIT 1 OFFSET ?");
        let oldest = self.reads().column::<String>(oldest.value(OPERATIONS)).await?.pop();
        let ends = ENDS.map(|end| end.as_str().to_owned()).to_vec();
        let query =
            Query::new("SELECT id, state, input, error, error_step, created_at, finished_at FROM operations");
        let query = query
            .filter("kind = ?", ONBOARD)
            .only("parent_id IS NULL")
            .filter("state IN ?", ends)
            .filter_if("id > ?", oldest.as_deref())
            .sql("ORDER BY id DESC")
            .limit(ONBOARDINGS);
        let mut rows: Vec<OperationRow> = self.reads().all(query).await?;
        // The ids stand in the order of the beginnings, to the millisecond.
        let bounded = oldest.is_some() || rows.len() as u64 == ONBOARDINGS;
        let complete = !bounded || rows.last().is_some_and(|row| *row.5 < since);
        rows.retain(|row| *row.5 >= since);
        let mut steps = self.steps_of(&rows).await?;
        let outcomes = rows.into_iter().map(|row| {
            let steps = steps.remove(&row.0).unwrap_or_default();
            outcome(row, steps)
        });
        Ok((outcomes.collect(), complete))
    }

    async fn steps_of(&self, rows: &[OperationRow]) -> Result<HashMap<String, Vec<StepOutcome>>, ReadError> {
        let mut of: HashMap<String, Vec<StepOutcome>> = HashMap::new();
        if rows.is_empty() {
            return Ok(of);
        }
        let query = Query::new(
            "SELECT operation_id, key, kind, needs, state, attempts, started_at, finished_at, child_id FROM steps",
        );
        let query =
            query.filter("operation_id IN ?", rows.iter().map(|row| row.0.clone()).collect::<Vec<_>>());
        let steps: Vec<StepRow> = self.reads().all(query.sql("ORDER BY position, key")).await?;
        for (operation, key, kind, needs, state, attempts, started, ended, child) in steps {
            of.entry(operation).or_default().push(StepOutcome {
                key,
                kind,
                needs: serde_json::from_value(needs)?,
                attempts: u32::try_from(attempts).unwrap_or_default(),
                started: started.map(Into::into),
                ended: ended.map(Into::into),
                over: [StepState::Done, StepState::Skipped].iter().any(|over| over.as_str() == state),
                detached: child.is_some(),
            });
        }
        Ok(of)
    }

    /// How many slots tenants have, and how many are reserved and not yet free again, by region and kind.
    pub async fn slots_taken(&self, now: Timestamp) -> Result<Vec<Taken>, ReadError> {
        let used = Query::new("SELECT region, kind, count(*) FROM slots")
            .only("tenant_id IS NOT NULL")
            .only("reserved_until IS NULL")
            .sql("GROUP BY region, kind");
        let used: Vec<(String, String, i64)> = self.reads().all(used).await?;
        // Only onboardings under way have such.
        let reserved = Query::new("SELECT region, kind, count(*) FROM slots")
            .only("tenant_id IS NOT NULL")
            .filter("reserved_until > ?", now)
            .sql("GROUP BY region, kind");
        let reserved: Vec<(String, String, i64)> = self.reads().all(reserved).await?;
        let mut all: BTreeMap<(String, String), (u64, u64)> = BTreeMap::new();
        for (region, kind, used) in used {
            all.entry((region, kind)).or_default().0 = u64::try_from(used).unwrap_or_default();
        }
        for (region, kind, reserved) in reserved {
            all.entry((region, kind)).or_default().1 = u64::try_from(reserved).unwrap_or_default();
        }
        let taken =
            all.into_iter().map(|((region, kind), (used, reserved))| Taken { region, kind, used, reserved });
        Ok(taken.collect())
    }
}

fn outcome(row: OperationRow, steps: Vec<StepOutcome>) -> Outcome {
    let (_, state, input, error, error_step, began, ended) = row;
    let text =
        |value: &Value, field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let code = error.map(|error| text(&error, "code")).unwrap_or_default();
    Outcome {
        plan: text(&input, "plan"),
        template: text(&input, "template"),
        state: ENDS.into_iter().find(|end| end.as_str() == state).unwrap_or(OperationState::NeedsAttention),
        stopped_by: error_step.map(|step| (step, code)),
        began: began.into(),
        ended: ended.map(Into::into),
        steps,
    }
}
