//! Pure decisions over an operation and its steps, without clock, ledger or randomness. `recover` takes over
//! a run of a process that ended, `settle` records the result of an attempt, `decide` applies signals and
//! returns what to start. They change the run in memory; the executor commits it before it acts.

use tenantry_model::{Failure, Timestamp, id::OperationId};

use crate::operation::{Mode, OnFailure, Operation, OperationState as Op, Run, Step, StepState as S, Wait};
use crate::retry::{MAX_INTERRUPTIONS, RetryInputs, next_delay};
use crate::run::Direction;
use crate::signal::{Signal, SignalKind};
use crate::waiting::may_continue_with;

/// Error code of an operation that another operation has superseded.
pub const SUPERSEDED: &str = "superseded";

/// What to start after the changed run is committed.
#[derive(Debug, Default, PartialEq)]
pub struct Decision {
    /// Attempts to start: step key and direction.
    pub start: Vec<(String, Direction)>,
    /// Keys of steps that have become child operations; `Step::child` has their ids.
    pub detached: Vec<String>,
    /// Signals to other operations.
    pub signals: Vec<(OperationId, SignalKind)>,
}

/// Applies the signals, then advances the run until it waits for an attempt, a timer or a signal.
pub fn decide(run: &mut Run, signals: &[Signal], now: Timestamp) -> Decision {
    let mut decision = Decision::default();
    for signal in signals {
        apply(run, signal, &mut decision);
    }
    if run.operation.state == Op::Running && run.steps.iter().any(|s| s.state == S::Failed) {
        fail(run);
    }
    match run.operation.state {
        Op::Running => advance(run, now, &mut decision),
        Op::RollingBack => compensate(run, now, &mut decision),
        Op::Paused | Op::NeedsAttention | Op::Succeeded | Op::RolledBack | Op::Cancelled => {}
    }
    let operation = &mut run.operation;
    if operation.state.is_final() && operation.finished_at.is_none() {
        operation.finished_at = Some(now);
        if let (Some(parent), true) = (operation.parent, operation.cancelled) {
            decision.signals.push((parent, SignalKind::ChildFinished));
        }
    }
    set_wake_up(run, now);
    decision
}

/// Records the result of an attempt.
pub fn settle(
    run: &mut Run,
    key: &str,
    direction: Direction,
    result: Result<serde_json::Value, Failure>,
    now: Timestamp,
    inputs: RetryInputs,
) {
    let Some(step) = run.step_mut(key) else { return };
    step.note = None;
    match (direction, result) {
        // The step was turned back while it ran: its result is discarded, and the compensation removes what
        // it made.
        (Direction::Run, Ok(_)) if step.state != S::Running => {}
        (Direction::Run, Ok(output)) => {
            step.state = S::Done;
            step.output = output;
            if let Some(error) = &mut step.error {
                error.untouched = false;
            }
            step.failing_since = None;
            step.due_at = None;
            step.finished_at = Some(now);
        }
        (Direction::Run, Err(failure)) if step.state == S::Running => {
            step.uncertain |= failure.class == tenantry_model::FailureClass::Unknown;
            let retried = record_failure(step, failure, now, inputs);
            step.state = if retried { S::Retrying } else { S::Failed };
            step.finished_at = (!retried).then_some(now);
        }
        (Direction::Compensate, Ok(_)) if step.state == S::Undoing => {
            if step.uncertain && step.policy.in_flight_ms > 0 {
                // A call without an answer may still take effect: compensate again after the in-flight bound.
                step.uncertain = false;
                if let Some(error) = &mut step.error {
                    error.untouched = false;
                }
                step.attempts = 0;
                step.failing_since = None;
                step.state = S::UndoPending;
                step.due_at = Some(now + std::time::Duration::from_millis(step.policy.in_flight_ms));
            } else {
                step.state = S::Undone;
                step.failing_since = None;
                step.due_at = None;
                step.finished_at = Some(now);
            }
        }
        (Direction::Compensate, Err(failure)) if step.state == S::Undoing => {
            let retried = record_failure(step, failure, now, inputs);
            step.state = if retried { S::UndoPending } else { S::UndoFailed };
        }
        (Direction::Run | Direction::Compensate, _) => {}
    }
}

/// Stores the failure of an attempt and sets the time of the next one; false when there is none.
fn record_failure(step: &mut Step, mut failure: Failure, now: Timestamp, inputs: RetryInputs) -> bool {
    if let (true, Some(before)) = (failure.wrong_answers > 0 && step.failing_since.is_some(), &step.error) {
        failure.wrong_answers += before.wrong_answers;
    }
    // A step that succeeded has no error of an earlier attempt: it has created what its compensation removes.
    failure.untouched &= match &step.error {
        Some(before) => before.untouched,
        None => step.state == S::Running,
    };
    step.failing_since.get_or_insert(now);
    step.due_at = next_delay(step, &failure, now, inputs).map(|delay| now + delay);
    step.error = Some(failure);
    step.due_at.is_some()
}

/// Takes over a run whose executor has ended: running attempts are repeated, with unknown progress, and what waits
/// for a provider is due, because the new executor does not know whether the provider works again.
pub fn recover(run: &mut Run, epoch: i64, now: Timestamp) {
    if run.operation.epoch < epoch {
        let due = now + spread(run.operation.id);
        for step in run.steps.iter_mut().filter(|step| step.waits_out_an_outage()) {
            step.due_at = step.due_at.map(|at| at.min(due));
        }
    }
    run.operation.epoch = epoch;
    for step in &mut run.steps {
        let forward = match step.state {
            S::Running => true,
            S::Undoing if step.child.is_none() => false,
            _ => continue,
        };
        step.interruptions += 1;
        step.attempts = step.attempts.saturating_sub(1);
        step.uncertain = true;
        if step.interruptions > MAX_INTERRUPTIONS {
            let message = format!(
                "{MAX_INTERRUPTIONS} processes in a row ended while this step ran; retry the step when the cause is known"
            );
            step.error = Some(Failure::fatal("interrupted", message));
            step.state = if forward { S::Failed } else { S::UndoFailed };
        } else {
            step.state = if forward { S::Retrying } else { S::UndoPending };
            step.due_at = Some(now);
        }
    }
}

/// True when the run is compensating, or stopped while it was.
fn is_undoing(run: &Run) -> bool {
    run.steps.iter().any(|s| matches!(s.state, S::UndoPending | S::Undoing | S::Undone | S::UndoFailed))
}

/// Checks whether a signal can be applied. The error is a message for the sender.
pub fn refuse(run: &Run, kind: &SignalKind) -> Result<(), String> {
    let state = run.operation.state;
    let word = state.as_str();
    let step_in = |key: &str, states: &[S]| match run.step(key) {
        None => Err(format!("there is no step `{key}` in this operation")),
        Some(step) if states.contains(&step.state) => Ok(()),
        Some(step) => Err(format!("step `{key}` is {}", step.state.as_str())),
    };
    match kind {
        _ if state.is_final() => Err(format!("the operation has ended ({word})")),
        SignalKind::Pause if matches!(state, Op::Running | Op::RollingBack) => Ok(()),
        SignalKind::Resume if state == Op::Paused => Ok(()),
        SignalKind::Cancel if state != Op::RollingBack => Ok(()),
        SignalKind::Retry if run.steps.iter().any(|s| s.state == S::Retrying || has_failed(s)) => Ok(()),
        SignalKind::Skip { step, .. } => {
            step_in(step, &[S::Pending, S::Retrying, S::Waiting, S::Failed, S::UndoFailed])
        }
        SignalKind::Approve { step: key } | SignalKind::Reject { step: key, .. } => match run.step(key) {
            Some(step) if matches!(step.policy.wait, Some(Wait::Timer(_))) => {
                Err(format!("step `{key}` waits for a timer, not for an approval"))
            }
            _ => step_in(key, &[S::Waiting]),
        },
        SignalKind::Supersede | SignalKind::ChildFinished | SignalKind::Wake { .. } => Ok(()),
        SignalKind::Pause | SignalKind::Resume | SignalKind::Cancel | SignalKind::Retry => {
            Err(format!("the operation is {word}"))
        }
    }
}

fn apply(run: &mut Run, signal: &Signal, decision: &mut Decision) {
    if let Some(parent) = run.operation.parent
        && signal.kind == SignalKind::Cancel
        && signal.by == parent.to_string()
        && cancelled_by_parent(run, parent, decision)
    {
        return;
    }
    if refuse(run, &signal.kind).is_err() {
        return;
    }
    match &signal.kind {
        SignalKind::Pause => run.operation.state = Op::Paused,
        SignalKind::Resume => {
            let since = run.operation.updated_at;
            extend_deadline(&mut run.operation, since, signal.at);
            run.operation.state = if is_undoing(run) { Op::RollingBack } else { Op::Running }
        }
        SignalKind::Cancel => {
            run.operation.cancelled = true;
            start_rollback(run);
            for step in run.steps.iter_mut().filter(|s| s.state == S::UndoFailed) {
                restart(step, S::UndoPending);
            }
        }
        SignalKind::Retry => {
            for step in &mut run.steps {
                match step.state {
                    S::Failed | S::Retrying => restart(step, S::Retrying),
                    S::UndoFailed => restart(step, S::UndoPending),
                    _ => {}
                }
            }
            leave_needs_attention(run, signal.at);
        }
        SignalKind::Skip { step, reason } => {
            if let Some(step) = run.step_mut(step) {
                // A skipped compensation counts as done: the operator has removed what was there.
                step.state = if step.state == S::UndoFailed { S::Undone } else { S::Skipped };
                step.finished_at = Some(signal.at);
                step.due_at = None;
                step.note = Some(serde_json::json!({ "skipped": reason, "by": signal.by }));
            }
            leave_needs_attention(run, signal.at);
        }
        SignalKind::Approve { step } => {
            let since = run.step(step).and_then(|step| step.started_at).unwrap_or(signal.at);
            extend_deadline(&mut run.operation, since, signal.at);
            if let Some(step) = run.step_mut(step) {
                step.state = S::Done;
                step.finished_at = Some(signal.at);
                step.output = serde_json::json!({ "approved_by": signal.by });
            }
        }
        SignalKind::Reject { step: key, reason } => {
            let failure =
                Failure::invalid("rejected", format!("approval of step `{key}` was refused: {reason}"));
            if let Some(step) = run.step_mut(key) {
                step.finished_at = Some(signal.at);
                step.error = Some(failure.clone());
            }
            set_error(&mut run.operation, key.clone(), Some(failure));
            start_rollback(run);
        }
        SignalKind::Supersede => supersede(run, signal, decision),
        SignalKind::Wake { provider } => {
            let due = signal.at + spread(run.operation.id);
            for step in run.steps.iter_mut().filter(|step| may_continue_with(step, provider)) {
                step.due_at = step.due_at.map(|at| at.min(due));
            }
        }
        SignalKind::ChildFinished => {
            let sent = |s: &&mut Step| s.child.is_some_and(|child| child.to_string() == signal.by);
            for step in run.steps.iter_mut().filter(|s| s.state == S::Undoing).filter(sent) {
                step.state = S::Undone;
                step.finished_at = Some(signal.at);
            }
        }
    }
}

/// Handles the cancellation of a detached child by its parent, which waits for `ChildFinished` in every state
/// of the child. Returns false when it is an ordinary cancellation.
fn cancelled_by_parent(run: &mut Run, parent: OperationId, decision: &mut Decision) -> bool {
    let operation = &mut run.operation;
    match operation.state {
        Op::Succeeded => {
            operation.cancelled = true;
            operation.finished_at = None;
            start_rollback(run);
        }
        Op::RollingBack => operation.cancelled = true,
        Op::RolledBack | Op::Cancelled => decision.signals.push((parent, SignalKind::ChildFinished)),
        Op::Running | Op::Paused | Op::NeedsAttention => return false,
    }
    true
}

/// Ends the run and its children without compensation: the superseding operation, named in the steps' notes,
/// does it.
fn supersede(run: &mut Run, signal: &Signal, decision: &mut Decision) {
    let operation = &mut run.operation;
    operation.cancelled = true;
    operation.state = Op::Cancelled;
    operation.error_step = None;
    operation.error = Some(Failure::fatal(SUPERSEDED, format!("superseded by operation {}", signal.by)));
    for step in run.steps.iter_mut().filter(|step| !matches!(step.state, S::Undone | S::Skipped)) {
        decision.signals.extend(step.child.map(|child| (child, SignalKind::Supersede)));
        step.uncertain |= matches!(step.state, S::Running | S::Undoing);
        step.state = S::Undone;
        step.due_at = None;
        step.finished_at = Some(signal.at);
        step.note = Some(serde_json::json!({ "left_to": signal.by }));
    }
}

fn restart(step: &mut Step, state: S) {
    step.state = state;
    step.attempts = 0;
    step.interruptions = 0;
    step.failing_since = None;
    step.due_at = None;
    step.finished_at = None;
}

/// Extends the deadline by a time in which the operation waited for a timer or an operator.
fn extend_deadline(operation: &mut Operation, since: Timestamp, until: Timestamp) {
    operation.expected_by = operation.expected_by.map(|by| by + until.since(since));
}

/// Leaves `needs_attention`, in the direction in which it was entered, when no failed step is left.
fn leave_needs_attention(run: &mut Run, at: Timestamp) {
    if run.operation.state != Op::NeedsAttention {
        return;
    }
    let undoing = is_undoing(run);
    if let Some(step) = run.steps.iter().find(|s| has_failed(s)) {
        if !undoing {
            set_error(&mut run.operation, step.key.clone(), step.error.clone());
        }
        return;
    }
    let since = run.operation.updated_at;
    extend_deadline(&mut run.operation, since, at);
    if undoing {
        // The error that caused the rollback stays: `last_error` shows it after the rollback.
        run.operation.state = Op::RollingBack;
    } else {
        run.operation.state = Op::Running;
        run.operation.error = None;
        run.operation.error_step = None;
    }
}

/// True when a step continues only after an operator's signal.
fn has_failed(step: &Step) -> bool {
    matches!(step.state, S::Failed | S::UndoFailed)
}

fn set_error(operation: &mut Operation, step: String, error: Option<Failure>) {
    operation.error = error;
    operation.error_step = Some(step);
}

/// Applies the policies of permanently failed steps; rollback takes precedence over park.
fn fail(run: &mut Run) {
    let failed = |on| move |s: &&Step| s.state == S::Failed && s.policy.on_failure == on;
    if let Some(step) = run.steps.iter().find(failed(OnFailure::Rollback)) {
        set_error(&mut run.operation, step.key.clone(), step.error.clone());
        start_rollback(run);
    } else if let Some(step) = run.steps.iter().find(failed(OnFailure::Park)) {
        set_error(&mut run.operation, step.key.clone(), step.error.clone());
        run.operation.state = Op::NeedsAttention;
    }
}

fn advance(run: &mut Run, now: Timestamp, decision: &mut Decision) {
    // Waits and detached steps may complete immediately, which may unblock others: repeat until none does.
    loop {
        let over: Vec<String> =
            run.steps.iter().filter(|s| s.state.is_over()).map(|s| s.key.clone()).collect();
        let operation = run.operation.id;
        let mut waited = std::time::Duration::ZERO;
        let mut moved = false;
        for step in &mut run.steps {
            let ready = match step.state {
                S::Pending => step.needs.iter().all(|need| over.contains(need)),
                S::Retrying => step.due_at.is_none_or(|due| due <= now),
                S::Waiting => step.due_at.is_some_and(|due| due <= now),
                _ => false,
            };
            if !ready {
                continue;
            }
            step.started_at.get_or_insert(now);
            match (step.policy.wait, step.policy.mode) {
                (Some(_), _) if step.state == S::Waiting => {
                    waited += now.since(step.started_at.unwrap_or(now));
                    step.state = S::Done;
                    step.due_at = None;
                    step.finished_at = Some(now);
                    moved = true;
                }
                (Some(wait), _) => {
                    step.state = S::Waiting;
                    step.due_at = match wait {
                        Wait::Approval => None,
                        Wait::Timer(seconds) => Some(now + std::time::Duration::from_secs(seconds)),
                    };
                    moved = true;
                }
                (None, Mode::Detached) => {
                    step.state = S::Done;
                    step.finished_at = Some(now);
                    step.child = Some(child_id(operation, &step.key));
                    decision.detached.push(step.key.clone());
                    moved = true;
                }
                (None, Mode::Inline) => {
                    begin(step, S::Running);
                    decision.start.push((step.key.clone(), Direction::Run));
                }
            }
        }
        run.operation.expected_by = run.operation.expected_by.map(|by| by + waited);
        if !moved {
            break;
        }
    }
    if run.steps.iter().all(|s| s.state.is_over()) {
        run.operation.state = Op::Succeeded;
    }
}

fn begin(step: &mut Step, state: S) {
    step.state = state;
    step.attempts += 1;
    step.due_at = None;
    step.finished_at = None;
}

/// Starts the rollback: every step that was started gets a compensation.
fn start_rollback(run: &mut Run) {
    run.operation.state = Op::RollingBack;
    for step in &mut run.steps {
        let begun = step.started_at.is_some() && step.policy.wait.is_none();
        match step.state {
            S::UndoPending | S::Undoing | S::Undone | S::UndoFailed => {}
            state if begun => {
                // The executor cuts off an attempt that still runs, so its progress is unknown.
                step.uncertain |= state == S::Running;
                restart(step, S::UndoPending);
            }
            _ => {
                step.state = S::Undone;
                step.due_at = None;
            }
        }
    }
}

/// Compensates in the reverse of the plan's order, independent branches in parallel: a step waits for its
/// dependents.
fn compensate(run: &mut Run, now: Timestamp, decision: &mut Decision) {
    loop {
        let standing: Vec<String> =
            run.steps.iter().filter(|s| s.state != S::Undone).flat_map(|s| s.needs.iter().cloned()).collect();
        let mut moved = false;
        for step in &mut run.steps {
            let due = step.due_at.is_none_or(|due| due <= now);
            if step.state != S::UndoPending || !due || standing.contains(&step.key) {
                continue;
            }
            begin(step, S::Undoing);
            moved = true;
            match step.child {
                Some(child) => decision.signals.push((child, SignalKind::Cancel)),
                None => decision.start.push((step.key.clone(), Direction::Compensate)),
            }
        }
        if !moved {
            break;
        }
    }
    if run.steps.iter().all(|s| s.state == S::Undone) {
        run.operation.state = if run.operation.cancelled { Op::Cancelled } else { Op::RolledBack };
    } else if let Some(failed) = run.steps.iter().find(|s| s.state == S::UndoFailed)
        && !run.steps.iter().any(|s| s.state == S::Undoing)
        && !run.steps.iter().any(|s| s.state == S::UndoPending && s.due_at.is_some())
    {
        // Only steps whose compensation failed are left, and an operator must act. The operation keeps the
        // error that caused the rollback; the compensation's error is in its step.
        if run.operation.error.is_none() {
            set_error(&mut run.operation, failed.key.clone(), failed.error.clone());
        }
        run.operation.state = Op::NeedsAttention;
    }
}

/// Sets the fields by which the operation is woken: `idle` and `wake_at`; also `stuck` after the deadline.
fn set_wake_up(run: &mut Run, now: Timestamp) {
    let active = |s: &Step| matches!(s.state, S::Running | S::Undoing);
    let timed = |s: &Step| matches!(s.state, S::Retrying | S::Waiting | S::UndoPending);
    let operation = &mut run.operation;
    let moving = matches!(operation.state, Op::Running | Op::RollingBack);
    let busy =
        moving && run.steps.iter().any(|s| active(s) || matches!(s.state, S::Retrying | S::UndoPending));
    operation.idle = !run.steps.iter().any(|s| active(s) && s.child.is_none());
    if busy && !operation.stuck && operation.expected_by.is_some_and(|by| by <= now) {
        operation.stuck = true;
    }
    let deadline = operation.expected_by.filter(|_| busy && !operation.stuck);
    let timer = run.steps.iter().filter(|s| moving && timed(s)).filter_map(|s| s.due_at).min();
    operation.wake_at = deadline.into_iter().chain(timer).min();
}

/// Delay of a woken step: below a second, and evenly spread over the operations, which are all woken at once.
fn spread(operation: OperationId) -> std::time::Duration {
    let random = operation.uuid().as_u128() % 1_000;
    std::time::Duration::from_millis(u64::try_from(random).unwrap_or(0))
}

/// The id of a detached step's child: derived from parent and step key, with the parent's time.
fn child_id(parent: OperationId, key: &str) -> OperationId {
    // FNV-1a, to distinguish the children of one parent from each other and from the parent.
    let bytes = parent.uuid().into_bytes().into_iter().chain(key.bytes());
    let hash =
        bytes.fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    // The low 62 bits of a UUIDv7 are random; version and variant are above them.
    OperationId::from_uuid(uuid::Uuid::from_u128(parent.uuid().as_u128() ^ u128::from(hash >> 2)))
}
