//! One transaction of the writer, with many batches: first the guards of all batches, then the other writes of the
//! batches whose guards were met.
//!
//! Statements run wave by wave: two changes of the same row in one batch are in different waves. Within a wave,
//! conditions run first, then inserts that may conflict, then the other writes, so that a rejected batch has usually
//! written nothing yet.

use std::collections::{HashSet, VecDeque};

use super::connection::{Connection, Request};
use super::failed::{Cause, Failed};
use super::statement::{Shape, Statements, Verb};
use super::write_batch::{Prepared, Rejected};

/// Stands in place of a table's name in errors after which the transaction may or may not be committed.
pub(super) const TRANSACTION: &str = "transaction";

/// Result of a transaction, with an entry per batch: why it was rejected, or none if it was accepted.
pub(super) enum Attempt {
    /// The accepted batches are committed.
    Committed(Vec<Option<Rejected>>),
    /// All batches were rejected; nothing is written.
    Rejected(Vec<Option<Rejected>>),
    /// Rolled back although some batches were accepted, because a rejected batch had already written something.
    Mixed(Vec<Option<Rejected>>),
}

/// Changes of one shape, as indexes: (batch, item of the batch).
struct Group {
    shape: Shape,
    members: Vec<(usize, usize)>,
}

/// Writes the batches in the open transaction of this connection, and commits or rolls back. After an error, which
/// names the table, the caller must roll back.
///
/// Statements that do not depend on each other's results are sent together: first conditions, then, for the batches
/// that met them, all writes up to the next conditions. The commit is sent together with the last writes.
pub(super) async fn attempt(
    connection: &mut Connection,
    statements: &mut Statements,
    batches: &[&Prepared],
) -> Result<Attempt, (Failed, &'static str)> {
    let mut state = State { batches, rejected: vec![None; batches.len()], wrote: vec![false; batches.len()] };
    let last = batches.iter().flat_map(|batch| &batch.items).map(|item| item.wave).max().unwrap_or(0);
    let epoch = batches.iter().any(|batch| batch.epoch.is_some()).then_some(Step::Epoch);
    let groups = (0..=last).flat_map(|wave| groups(batches, wave)).map(Step::Group);
    let mut steps: VecDeque<Step> = epoch.into_iter().chain(groups).collect();
    let mut committed = false;
    while !committed {
        let together = together(&mut steps, connection.pipelines());
        let together: Vec<Step> = together.into_iter().filter(|step| state.has_rows(step)).collect();
        committed = steps.is_empty() && !together.iter().any(Step::decides);
        let schema = statements.schema;
        let table = |step: &Step| match step {
            Step::Epoch => "leader",
            Step::Group(group) => schema.at(group.shape.table).name,
        };
        let requests: Vec<Request<'_>> = together.iter().map(|step| state.request(step)).collect();
        let answers = connection.run(statements, &requests, committed).await;
        let answers = answers.map_err(|(failed, step)| {
            // The commit was sent with the statement; without a response it may have succeeded.
            let in_doubt = committed && failed.cause == Cause::Lost;
            let step = step.and_then(|step| together.get(step)).filter(|_| !in_doubt);
            (failed, step.map_or(TRANSACTION, table))
        })?;
        for (step, keys) in together.iter().zip(answers) {
            match step {
                Step::Epoch => {
                    state.compare_epoch(&keys);
                    // Another process is the leader: write nothing, whatever the other conditions are.
                    if state.rejected.iter().all(Option::is_some) {
                        connection.rollback().await.map_err(|failed| (failed, TRANSACTION))?;
                        return Ok(Attempt::Rejected(state.rejected));
                    }
                }
                Step::Group(group) => state.note(group, table(step), &keys),
            }
        }
        let failed = |e| (e, TRANSACTION);
        if state.left_something() && batches.len() > 1 {
            connection.rollback().await.map_err(failed)?;
            return Ok(Attempt::Mixed(state.rejected));
        }
        if state.left_something() || !committed && state.rejected.iter().all(Option::is_some) {
            connection.rollback().await.map_err(failed)?;
            return Ok(Attempt::Rejected(state.rejected));
        }
    }
    Ok(Attempt::Committed(state.rejected))
}

/// A statement of the transaction.
enum Step {
    /// Reads the registry's epoch and locks it until the transaction ends.
    Epoch,
    /// Changes or checks the rows of a group.
    Group(Group),
}

impl Step {
    /// Whether the result of the statement can reject a batch.
    fn decides(&self) -> bool {
        match self {
            Self::Epoch => true,
            Self::Group(group) => group.shape.returns_keys(),
        }
    }
}

/// Removes and returns the next steps that can be sent together: only one if the connection does not pipeline,
/// otherwise writes and then the conditions that follow them.
fn together(steps: &mut VecDeque<Step>, pipelines: bool) -> Vec<Step> {
    let mut together: Vec<Step> = steps.pop_front().into_iter().collect();
    while pipelines
        && let Some(next) = steps.front()
        && (next.decides() || !together.iter().any(Step::decides))
    {
        together.extend(steps.pop_front());
    }
    together
}

/// Progress of the transaction: for each batch, why it was rejected so far, and whether it has written something.
struct State<'a> {
    batches: &'a [&'a Prepared],
    rejected: Vec<Option<Rejected>>,
    wrote: Vec<bool>,
}

impl<'a> State<'a> {
    /// Whether the step has rows of a batch that is not rejected.
    fn has_rows(&self, step: &Step) -> bool {
        match step {
            Step::Epoch => true,
            Step::Group(group) => group.members.iter().any(|(batch, _)| self.rejected[*batch].is_none()),
        }
    }

    /// The statement's rows, without those of rejected batches.
    fn request(&self, step: &Step) -> Request<'a> {
        let Step::Group(group) = step else { return Request::Epoch };
        let members = group.members.iter().filter(|(batch, _)| self.rejected[*batch].is_none());
        let rows = members.map(|(batch, item)| self.batches[*batch].items[*item].cells.as_slice());
        Request::Rows(group.shape, rows.collect())
    }

    /// Rejects the batches whose executor has an earlier epoch than the registry.
    fn compare_epoch(&mut self, keys: &[String]) {
        let current = keys.first().and_then(|epoch| epoch.parse::<i64>().ok());
        for (batch, rejection) in self.batches.iter().zip(&mut self.rejected) {
            // A registry without an epoch is not the one that the executor was started on.
            if batch.epoch.is_some_and(|epoch| current.is_none_or(|current| epoch < current)) {
                *rejection = Some(Rejected::Stale { table: "leader", key: "1".to_owned() });
            }
        }
    }

    /// Rejects the batches whose rows are not among the returned keys, and records which batches have written.
    fn note(&mut self, group: &Group, table: &'static str, keys: &[String]) {
        let passed: HashSet<&str> = keys.iter().map(String::as_str).collect();
        for (batch, item) in &group.members {
            let key = &self.batches[*batch].items[*item].key;
            let rejection = &mut self.rejected[*batch];
            if !group.shape.returns_keys() {
                self.wrote[*batch] |= rejection.is_none();
            } else if passed.contains(key.as_str()) {
                self.wrote[*batch] |= group.shape.verb != Verb::Check;
            } else if rejection.is_none() {
                *rejection = Some(match group.shape.verb {
                    Verb::InsertGuard => Rejected::Conflict { table },
                    _ => Rejected::Stale { table, key: key.clone() },
                });
            }
        }
    }

    /// Whether a rejected batch has written something, so that the transaction must be rolled back.
    fn left_something(&self) -> bool {
        self.rejected.iter().zip(&self.wrote).any(|(rejection, wrote)| rejection.is_some() && *wrote)
    }
}

/// Groups the items of a wave by shape, in the order in which their statements must run.
fn groups(batches: &[&Prepared], wave: u16) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for (u, batch) in batches.iter().enumerate() {
        for (i, item) in batch.items.iter().enumerate().filter(|(_, item)| item.wave == wave) {
            match groups.iter_mut().find(|group| group.shape == item.shape) {
                Some(group) => group.members.push((u, i)),
                None => groups.push(Group { shape: item.shape, members: vec![(u, i)] }),
            }
        }
    }
    groups.sort_by_key(|group| match group.shape.verb {
        Verb::Check => 0,
        Verb::Update if group.shape.returns_keys() => 1,
        Verb::InsertGuard => 2,
        Verb::Delete => 3,
        Verb::Update => 4,
        Verb::Upsert | Verb::Insert | Verb::InsertAbsent => 5,
    });
    groups
}
