//! Reads of operations and their steps.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use tenantry_engine::{Operation, OperationState, Run, Step, StepState};
use tenantry_model::id::OperationId;

use super::entity::{operation, step};
use super::ledger::UNFINISHED;
use super::query::Query;
use super::{ReadError, Stamp, Store};

/// An operation with its steps, or why it cannot be read.
type Read = Result<Run, ReadError>;

/// Number of the latest operations from which durations are estimated.
const LATEST: u64 = 200;

impl Store {
    /// Returns an operation with its steps.
    pub async fn run(&self, id: OperationId) -> Result<Option<Run>, ReadError> {
        // Read the operation first: if it changes while its steps are read, the commit is rejected by its version.
        let row = Query::of::<operation::Model>().filter("id = ?", id.to_string());
        let Some(row) = self.reads().one(row).await? else { return Ok(None) };
        self.with_steps(vec![row]).await?.pop().map(|(_, run)| run).transpose()
    }

    /// Returns a page of operations with their steps, newest first, after the id `after`; optionally only those of one
    /// tenant or in one state. Includes child operations of detached steps. An operation that cannot be read is an error beside its id,
    /// so that it does not hide the others. Runs two queries.
    pub async fn operations(
        &self,
        tenant: Option<&str>,
        state: Option<OperationState>,
        after: Option<&str>,
        limit: u64,
    ) -> Result<Vec<(String, Read)>, ReadError> {
        // The condition of a partial index, which has only the few operations that have not ended.
        let open = state.is_some_and(|state| !state.is_final());
        let query = Query::of::<operation::Model>();
        let query = if open { query.only(UNFINISHED) } else { query };
        let query = query
            .filter_if("tenant_id = ?", tenant)
            .filter_if("state = ?", state.map(OperationState::as_str))
            .newest(after, limit);
        self.with_steps(self.reads().all(query).await?).await
    }

    /// Returns the tenant's latest operation of this kind in this state, with its steps.
    pub async fn latest_run(
        &self,
        tenant: &str,
        kind: &str,
        state: OperationState,
    ) -> Result<Option<Run>, ReadError> {
        let query = Query::of::<operation::Model>()
            .filter("tenant_id = ?", tenant)
            .filter("kind = ?", kind)
            .filter("state = ?", state.as_str())
            .only("parent_id IS NULL")
            .sql("ORDER BY id DESC");
        let row = self.reads().one(query).await?;
        self.with_steps(row.into_iter().collect()).await?.pop().map(|(_, run)| run).transpose()
    }

    /// Returns operations with their steps, by id. One that cannot be read is logged and left out. Runs two queries.
    pub async fn runs(&self, ids: BTreeSet<String>) -> Result<HashMap<String, Run>, ReadError> {
        let query = Query::of::<operation::Model>().filter("id IN ?", Vec::from_iter(ids));
        let runs = self.with_steps(self.reads().all(query).await?).await?.into_iter();
        let readable = |(id, run): (String, Read)| match run {
            Ok(run) => Some((id, run)),
            Err(why) => {
                tracing::error!(operation = id, %why, "the operation cannot be read");
                None
            }
        };
        Ok(runs.filter_map(readable).collect())
    }

    /// Returns all operations of a tenant, oldest first, child operations included. Runs two queries.
    pub async fn runs_of(&self, tenant: &str) -> Result<Vec<Run>, ReadError> {
        let query = Query::of::<operation::Model>().filter("tenant_id = ?", tenant).sql("ORDER BY id");
        self.with_steps(self.reads().all(query).await?).await?.into_iter().map(|(_, run)| run).collect()
    }

    /// Returns the number of a tenant's operations, without child operations.
    pub async fn operation_count(&self, tenant: &str) -> Result<i64, ReadError> {
        let query = Query::new("SELECT count(*) FROM operations").filter("tenant_id = ?", tenant);
        let count = self.reads().column(query.only("parent_id IS NULL")).await?;
        Ok(count.first().copied().unwrap_or_default())
    }

    /// The operations of these rows, each with its id.
    async fn with_steps(&self, rows: Vec<operation::Model>) -> Result<Vec<(String, Read)>, ReadError> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<String> = rows.iter().map(|row| row.id.clone()).collect();
        let steps = Query::of::<step::Model>().filter("operation_id IN ?", ids).sql("ORDER BY position, key");
        let steps: Vec<step::Model> = self.reads().all(steps).await?;
        let mut of: HashMap<String, Vec<step::Model>> = HashMap::new();
        for mut row in steps {
            let operation = std::mem::take(&mut row.operation_id);
            of.entry(operation).or_default().push(row);
        }
        let mut run = |row: operation::Model| {
            let steps = of.remove(&row.id).unwrap_or_default();
            let steps = steps.into_iter().map(Step::try_from).collect::<Result<_, _>>()?;
            Ok(Run { operation: Operation::try_from(row)?, steps })
        };
        Ok(rows.into_iter().map(|row| (row.id.clone(), run(row))).collect())
    }

    /// Returns the usual duration of each step, by step key, for tenants of this template: the median of the latest
    /// operations, from the first start to the end. Steps that were never done are missing.
    pub async fn step_lengths(&self, template: &str) -> Result<HashMap<String, Duration>, ReadError> {
        // Limit the operations first and filter them then, so that the query does not scan the whole history.
        let latest = Query::new("SELECT id, tenant_id FROM operations")
            .only("parent_id IS NULL")
            .sql("ORDER BY id DESC")
            .limit(LATEST);
        let latest: Vec<(String, String)> = self.reads().all(latest).await?;
        let tenants: Vec<String> = latest.iter().map(|(_, tenant)| tenant.clone()).collect();
        let tenants = Query::new("SELECT id FROM tenants").filter("id IN ?", tenants);
        let tenants: Vec<String> = self.reads().column(tenants.filter("template = ?", template)).await?;
        let tenants: HashSet<String> = tenants.into_iter().collect();
        let operations = latest.into_iter().filter(|(_, tenant)| tenants.contains(tenant));
        let operations: Vec<String> = operations.map(|(id, _)| id).collect();
        let steps = Query::new("SELECT key, started_at, finished_at FROM steps")
            .filter("operation_id IN ?", operations)
            .filter("state = ?", StepState::Done.as_str());
        let steps: Vec<(String, Option<Stamp>, Option<Stamp>)> = self.reads().all(steps).await?;
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
