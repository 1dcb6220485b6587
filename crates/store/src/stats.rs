//! Reads of the statistics: how onboardings ended, and which places are taken.

use std::collections::{BTreeMap, HashMap};

use sea_orm::{
    ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _, QueryTrait as _,
};
use serde_json::Value;
use tenantry_engine::{OperationState, StepState};
use tenantry_model::Timestamp;

use super::entity::{operation, place, step};
use super::outcome::{Outcome, StepOutcome, Taken};
use super::{ReadError, Stamp, Store};

/// The kind of an operation that makes a tenant, as its rows name it.
const ONBOARD: &str = "onboard";

/// How many of the newest onboardings are looked at.
const ONBOARDINGS: u64 = 1_000;

/// Among how many of the newest operations of every sort.
const OPERATIONS: u64 = 20_000;

/// What an onboarding can have become when it is looked at.
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
    /// The newest onboardings that began since then and have ended or need a person, and whether these are all. A bounded
    /// number of rows, by index, however long the history is.
    pub async fn onboardings(&self, since: Timestamp) -> Result<(Vec<Outcome>, bool), ReadError> {
        use operation::Column as C;
        let oldest = operation::Entity::find().select_only().column(C::Id).order_by_desc(C::Id);
        let oldest: Option<String> =
            oldest.offset(OPERATIONS).limit(1).into_tuple().one(self.reads()).await?;
        let mut rows: Vec<OperationRow> = operation::Entity::find()
            .select_only()
            .columns([C::Id, C::State, C::Input, C::Error, C::ErrorStep, C::CreatedAt, C::FinishedAt])
            .filter(C::Kind.eq(ONBOARD))
            .filter(C::ParentId.is_null())
            .filter(C::State.is_in(ENDS.map(OperationState::as_str)))
            .apply_if(oldest.as_deref(), |query, oldest| query.filter(C::Id.gt(oldest)))
            .order_by_desc(C::Id)
            .limit(ONBOARDINGS)
            .into_tuple()
            .all(self.reads())
            .await?;
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
        use step::Column as C;
        let mut of: HashMap<String, Vec<StepOutcome>> = HashMap::new();
        if rows.is_empty() {
            return Ok(of);
        }
        let steps: Vec<StepRow> = step::Entity::find()
            .select_only()
            .columns([C::OperationId, C::Key, C::Kind, C::Needs, C::State, C::Attempts])
            .columns([C::StartedAt, C::FinishedAt, C::ChildId])
            .filter(C::OperationId.is_in(rows.iter().map(|row| row.0.as_str())))
            .order_by_asc(C::Position)
            .order_by_asc(C::Key)
            .into_tuple()
            .all(self.reads())
            .await?;
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

    /// How many places tenants have, and how many are reserved and not yet free again, by region and kind.
    pub async fn places_taken(&self, now: Timestamp) -> Result<Vec<Taken>, ReadError> {
        use place::Column as C;
        let taken = place::Entity::find()
            .select_only()
            .columns([C::Region, C::Kind])
            .filter(C::TenantId.is_not_null());
        let used: Vec<(String, String, i64)> = taken
            .clone()
            .column_as(C::Place.count(), "used")
            .filter(C::ReservedUntil.is_null())
            .group_by(C::Region)
            .group_by(C::Kind)
            .into_tuple()
            .all(self.reads())
            .await?;
        // Row by row: instants are not compared by the databases. Only onboardings under way have such.
        let reserved: Vec<(String, String, Option<Stamp>)> = taken
            .column(C::ReservedUntil)
            .filter(C::ReservedUntil.is_not_null())
            .into_tuple()
            .all(self.reads())
            .await?;
        let mut all: BTreeMap<(String, String), (u64, u64)> = BTreeMap::new();
        for (region, kind, used) in used {
            all.entry((region, kind)).or_default().0 = u64::try_from(used).unwrap_or_default();
        }
        for (region, kind, _) in reserved.into_iter().filter(|row| row.2.is_some_and(|until| *until > now)) {
            all.entry((region, kind)).or_default().1 += 1;
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
