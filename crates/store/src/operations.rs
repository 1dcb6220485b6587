//! Reads of operations and their steps.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use sea_orm::sea_query::Expr;
use sea_orm::{
    ColumnTrait as _, EntityTrait as _, PaginatorTrait as _, QueryFilter as _, QueryOrder as _,
    QuerySelect as _, QueryTrait as _,
};
use tenantry_engine::{Operation, OperationState, Run, Step, StepState};
use tenantry_model::id::OperationId;

use super::entity::{operation, step, tenant};
use super::ledger::UNFINISHED;
use super::page::newest;
use super::reading;
use super::{ReadError, Stamp, Store};

/// How many of the latest operations the estimates look at.
const LATEST: u64 = 200;

impl Store {
    /// An operation with its steps.
    pub async fn run(&self, id: OperationId) -> Result<Option<Run>, ReadError> {
        // The operation first: if it changes while its steps are read, its version gives that away at the commit.
        let Some(row) = operation::Entity::find_by_id(id.to_string()).one(self.reads()).await? else {
            return Ok(None);
        };
        Ok(self.with_steps(vec![row]).await?.pop())
    }

    /// Operations with their steps, newest first, from the one after this id on, those that a detached step started
    /// included; of one tenant, in one state. Two queries.
    pub async fn operations(
        &self,
        tenant: Option<&str>,
        state: Option<OperationState>,
        after: Option<&str>,
        limit: u64,
    ) -> Result<Vec<Run>, ReadError> {
        // The index's own condition, so that the few that are open are not looked for among all that ever were.
        let open = state.filter(|state| !state.is_final());
        let query = operation::Entity::find()
            .apply_if(open, |query, _| query.filter(Expr::cust(UNFINISHED)))
            .apply_if(tenant, |query, tenant| query.filter(operation::Column::TenantId.eq(tenant)))
            .apply_if(state, |query, state| query.filter(operation::Column::State.eq(state.as_str())));
        self.with_steps(reading::all(self.reads(), newest(query, operation::Column::Id, after, limit)).await?)
            .await
    }

    /// The tenant's latest operation of this kind in this state.
    pub async fn latest_run(
        &self,
        tenant: &str,
        kind: &str,
        state: OperationState,
    ) -> Result<Option<Run>, ReadError> {
        let query = operation::Entity::find()
            .filter(operation::Column::TenantId.eq(tenant))
            .filter(operation::Column::Kind.eq(kind))
            .filter(operation::Column::State.eq(state.as_str()))
            .filter(operation::Column::ParentId.is_null());
        let row = query.order_by_desc(operation::Column::Id).one(self.reads()).await?;
        Ok(self.with_steps(row.into_iter().collect()).await?.pop())
    }

    /// Operations with their steps, in no order. Two queries for every 500.
    pub async fn runs(&self, ids: BTreeSet<String>) -> Result<Vec<Run>, ReadError> {
        let ids = Vec::from_iter(ids);
        let mut runs = Vec::with_capacity(ids.len());
        // Small pieces: a query has a bounded number of parameters.
        for ids in ids.chunks(500) {
            let query = operation::Entity::find().filter(operation::Column::Id.is_in(ids));
            runs.extend(self.with_steps(query.all(self.reads()).await?).await?);
        }
        Ok(runs)
    }

    /// All operations that a tenant has had, oldest first, those that a detached step started included. Two queries.
    pub async fn runs_of(&self, tenant: &str) -> Result<Vec<Run>, ReadError> {
        let query = operation::Entity::find().filter(operation::Column::TenantId.eq(tenant));
        self.with_steps(query.order_by_asc(operation::Column::Id).all(self.reads()).await?).await
    }

    /// How many operations a tenant has had, children not counted.
    pub async fn operation_count(&self, tenant: &str) -> Result<i64, ReadError> {
        let query = operation::Entity::find().filter(operation::Column::TenantId.eq(tenant));
        let count = query.filter(operation::Column::ParentId.is_null()).count(self.reads()).await?;
        Ok(i64::try_from(count).unwrap_or(i64::MAX))
    }

    async fn with_steps(&self, rows: Vec<operation::Model>) -> Result<Vec<Run>, ReadError> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let mut steps = Vec::new();
        // Small pieces: a query has a bounded number of parameters.
        for rows in rows.chunks(500) {
            let query = step::Entity::find()
                .filter(step::Column::OperationId.is_in(rows.iter().map(|row| row.id.as_str())))
                .order_by_asc(step::Column::Position)
                .order_by_asc(step::Column::Key);
            steps.extend(reading::all(self.reads(), query).await?);
        }
        let mut of: HashMap<String, Vec<Step>> = HashMap::new();
        for mut row in steps {
            let operation = std::mem::take(&mut row.operation_id);
            of.entry(operation).or_default().push(row.try_into()?);
        }
        rows.into_iter()
            .map(|row| {
                let steps = of.remove(&row.id).unwrap_or_default();
                Ok(Run { operation: Operation::try_from(row)?, steps })
            })
            .collect()
    }

    /// How long the steps of operations on tenants of this template usually take, from first start to end (the median of
    /// the latest ones), by step key: for the ETA (S4.77). Steps that never got done are not in it.
    pub async fn step_lengths(&self, template: &str) -> Result<HashMap<String, Duration>, ReadError> {
        // Bounded first, filtered afterwards: the estimate must not scan all history.
        let latest = operation::Entity::find()
            .select_only()
            .columns([operation::Column::Id, operation::Column::TenantId])
            .filter(operation::Column::ParentId.is_null())
            .order_by_desc(operation::Column::Id)
            .limit(LATEST);
        let latest: Vec<(String, String)> = latest.into_tuple().all(self.reads()).await?;
        let tenants: Vec<String> = tenant::Entity::find()
            .select_only()
            .column(tenant::Column::Id)
            .filter(tenant::Column::Id.is_in(latest.iter().map(|(_, tenant)| tenant.as_str())))
            .filter(tenant::Column::Template.eq(template))
            .into_tuple()
            .all(self.reads())
            .await?;
        let tenants: HashSet<String> = tenants.into_iter().collect();
        let operations =
            latest.iter().filter(|(_, tenant)| tenants.contains(tenant)).map(|(id, _)| id.as_str());
        let steps: Vec<(String, Option<Stamp>, Option<Stamp>)> = step::Entity::find()
            .select_only()
            .columns([step::Column::Key, step::Column::StartedAt, step::Column::FinishedAt])
            .filter(step::Column::OperationId.is_in(operations))
            .filter(step::Column::State.eq(StepState::Done.as_str()))
            .into_tuple()
            .all(self.reads())
            .await?;
        let mut lengths: HashMap<String, Vec<Duration>> = HashMap::new();
        for (key, started, finished) in steps {
            if let (Some(started), Some(finished)) = (started, finished) {
                lengths.entry(key).or_default().push(finished.since(*started));
            }
        }
        Ok(lengths.into_iter().map(|(key, all)| (key, median(all))).collect())
    }
}

fn median(mut all: Vec<Duration>) -> Duration {
    all.sort_unstable();
    all.get(all.len() / 2).copied().unwrap_or_default()
}
