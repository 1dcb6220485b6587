//! The engine's ledger on the registry: one commit is one batch of the writer.
//!
//! Conditions of a commit: the operation's row must have the version and epoch that were read (the id of a new one must
//! be free), and the registry's epoch, read in the same transaction, must not be newer than the executor's. So an
//! executor that was replaced cannot write, not even to an operation that its successor has not touched yet.

use std::collections::BTreeMap;

use async_trait::async_trait;
use tenantry_engine::{Commit, CommitError, Ledger, Operation, Run, Signal, Step, StepState, Waiting};
use tenantry_model::id::OperationId;
use tenantry_model::{Columns, Write, columns};

use super::entity::signal;
use super::query::Query;
use super::rows::parse;
use super::{Notification, ReadError, Rejected, Stamp, Store, WriteBatch};

/// States in which an operation never changes again, as the partial indexes have them.
pub(super) const UNFINISHED: &str = "state NOT IN ('succeeded', 'rolled_back', 'cancelled')";

#[async_trait]
impl Ledger<Write> for Store {
    async fn begin_epoch(&self) -> Result<i64, CommitError> {
        loop {
            let epoch = self.epoch().await?;
            let (old, new) = (columns! { "epoch": epoch }, columns! { "epoch": epoch + 1 });
            let write = Write::update_if("leader", columns! { "id": 1 }, old, new);
            match Store::commit(self, WriteBatch::new(vec![write])).await {
                Ok(()) => return self.epochs.saw(epoch + 1, epoch).map_err(commit_error),
                // Another one took over in between: after it, then.
                Err(Rejected::Stale { .. }) => {}
                Err(rejected) => return Err(commit_error(rejected)),
            }
        }
    }

    async fn epoch(&self) -> Result<i64, CommitError> {
        let before = self.epochs.latest();
        let row: Option<(i64,)> =
            self.reads().one(Query::new("SELECT epoch FROM leader WHERE id = 1")).await?;
        let (epoch,) =
            row.ok_or_else(|| CommitError::Unavailable("the row of `leader` is missing".to_owned()))?;
        self.epochs.saw(epoch, before).map_err(commit_error)
    }

    async fn load(&self, id: OperationId) -> Result<Option<(Run, Vec<Signal>)>, CommitError> {
        // The operation first: if it changes while its steps are read, its version gives that away at the commit.
        let Some(run) = self.run(id).await? else { return Ok(None) };
        let rows =
            Query::of::<signal::Model>().filter("operation_id = ?", id.to_string()).only("NOT applied");
        let rows: Vec<signal::Model> = self.reads().all(rows.sql("ORDER BY id")).await?;
        let signals = rows.into_iter().map(Signal::try_from).collect::<Result<_, _>>()?;
        Ok(Some((run, signals)))
    }

    async fn commit(&self, commit: Commit<Write>) -> Result<(), CommitError> {
        let (id, new) = (commit.run.operation.id, commit.run.operation.version == 1);
        let children = commit.children.iter().map(|child| child.operation.id);
        let changed =
            [id].into_iter().chain(children).chain(commit.signals.iter().map(|(to, _)| *to)).collect();
        match Store::commit(self, batch(commit)).await {
            // Without an answer it may hold all the same, and a hint too many does no harm.
            result @ (Ok(()) | Err(Rejected::Unavailable(_))) => {
                self.notify(Notification::Operations(changed));
                result.map_err(commit_error)
            }
            Err(Rejected::Stale { table: "operations" | "leader", .. }) => Err(CommitError::Stale),
            Err(Rejected::Conflict { table: "operations" }) if new && self.run(id).await?.is_some() => {
                Err(CommitError::Stale)
            }
            result => result.map_err(commit_error),
        }
    }

    async fn unfinished(&self) -> Result<Vec<Waiting>, CommitError> {
        let signalled = Query::new("SELECT DISTINCT operation_id FROM signals WHERE NOT applied");
        let signalled: Vec<String> = self.reads().column(signalled).await?;
        let mut waiting = BTreeMap::new();
        let operations = || Query::new("SELECT id, idle, wake_at FROM operations");
        for query in [operations().only(UNFINISHED), operations().filter("id IN ?", signalled.clone())] {
            let rows: Vec<(String, bool, Option<Stamp>)> = self.reads().all(query).await?;
            for (id, idle, wake_at) in rows {
                let id = parse(&id)?;
                waiting.insert(id, Waiting { id, idle, wake_at: wake_at.map(Into::into), signalled: false });
            }
        }
        for id in signalled {
            if let Some(waiting) = waiting.get_mut(&parse(&id)?) {
                waiting.signalled = true;
            }
        }
        Ok(waiting.into_values().collect())
    }

    async fn signal(
        &self,
        id: OperationId,
        signal: Signal,
        effects: Vec<Write>,
    ) -> Result<bool, CommitError> {
        // Operations are never deleted, so what is there now is there when the signal is written.
        let found = Query::new("SELECT id FROM operations").filter("id = ?", id.to_string());
        if self.reads().column::<String>(found).await?.is_empty() {
            return Ok(false);
        }
        let mut writes = vec![signal_row(id, &signal)];
        writes.extend(effects);
        let signalled = Store::commit(self, WriteBatch::new(writes)).await;
        if matches!(signalled, Ok(()) | Err(Rejected::Unavailable(_))) {
            self.notify(Notification::Operations(vec![id]));
        }
        signalled.map(|()| true).map_err(commit_error)
    }

    async fn note(&self, id: OperationId, epoch: i64, step: &Step) -> Result<(), CommitError> {
        if !matches!(step.state, StepState::Running | StepState::Undoing) {
            return Err(CommitError::Stale);
        }
        let writes = vec![
            Write::update_if("operations", columns! { "id": id }, columns! { "epoch": epoch }, columns! {}),
            Write::update_if(
                "steps",
                columns! { "operation_id": id, "key": step.key },
                columns! { "state": step.state },
                columns! { "note": step.note },
            ),
        ];
        match Store::commit(self, WriteBatch { writes, epoch: Some(epoch) }).await {
            Err(Rejected::Stale { .. }) => Err(CommitError::Stale),
            result => result.map_err(commit_error),
        }
    }
}

/// The rows of a commit.
fn batch(commit: Commit<Write>) -> WriteBatch {
    let operation = &commit.run.operation;
    let mut writes = Vec::new();
    if operation.version == 1 {
        new_run(&commit.run, &mut writes);
    } else {
        let as_read = columns! { "version": operation.version - 1, "epoch": commit.expected_epoch };
        let key = columns! { "id": operation.id };
        writes.push(Write::update_if("operations", key, as_read, operation_state(operation)));
        for step in commit.run.steps.iter().filter(|step| commit.changed_steps.contains(&step.key)) {
            let key = columns! { "operation_id": operation.id, "key": step.key };
            writes.push(Write::update("steps", key, step_state(step)));
        }
    }
    for id in commit.applied {
        writes.push(Write::update("signals", columns! { "id": id }, columns! { "applied": true }));
    }
    for child in &commit.children {
        new_run(child, &mut writes);
    }
    for (to, signal) in &commit.signals {
        writes.push(signal_row(*to, signal));
    }
    let epoch = Some(operation.epoch);
    writes.extend(commit.effects);
    WriteBatch { writes, epoch }
}

fn new_run(run: &Run, writes: &mut Vec<Write>) {
    let o = &run.operation;
    let mut row = columns! {
        "id": o.id, "tenant_id": o.subject, "kind": o.kind, "parent_id": o.parent, "input": o.input,
        "created_at": o.created_at, "expected_by": o.expected_by,
    };
    row.extend(operation_state(o));
    writes.push(Write::insert_unique("operations", row));
    for step in &run.steps {
        let mut row = columns! {
            "operation_id": o.id, "key": step.key, "position": step.position, "kind": step.kind,
            "provider": step.provider, "needs": step.needs, "policy": step.policy, "input": step.input,
        };
        row.extend(step_state(step));
        writes.push(Write::insert("steps", row));
    }
}

/// A signal that waits for an operation.
pub fn signal_row(to: OperationId, signal: &Signal) -> Write {
    let Signal { id, kind, by, at } = signal;
    let row = columns! { "id": id, "operation_id": to, "signal": kind, "by": by, "at": at, "applied": false };
    Write::insert("signals", row)
}

/// The columns of an operation that change.
fn operation_state(operation: &Operation) -> Columns {
    columns! {
        "state": operation.state,
        "version": operation.version,
        "epoch": operation.epoch,
        "error": operation.error,
        "error_step": operation.error_step,
        "cancelled": operation.cancelled,
        "updated_at": operation.updated_at,
        "finished_at": operation.finished_at,
        "stuck": operation.stuck,
        "wake_at": operation.wake_at,
        "idle": operation.idle,
    }
}

/// The columns of a step that change.
fn step_state(step: &Step) -> Columns {
    columns! {
        "state": step.state,
        "attempts": step.attempts,
        "interruptions": step.interruptions,
        "failing_since": step.failing_since,
        "due_at": step.due_at,
        "started_at": step.started_at,
        "finished_at": step.finished_at,
        "output": step.output,
        "error": step.error,
        "uncertain": step.uncertain,
        "note": step.note,
        "child_id": step.child,
    }
}

fn commit_error(rejected: Rejected) -> CommitError {
    match rejected {
        Rejected::Conflict { table } | Rejected::Stale { table, .. } => {
            CommitError::Conflict { table: table.to_owned() }
        }
        Rejected::Invalid { table, .. } => {
            tracing::error!(table, "the database refuses rows: a defect");
            CommitError::Refused { table: table.to_owned() }
        }
        Rejected::Unavailable(why) => CommitError::Unavailable(why),
    }
}

impl From<ReadError> for CommitError {
    fn from(error: ReadError) -> Self {
        Self::Unavailable(error.to_string())
    }
}
