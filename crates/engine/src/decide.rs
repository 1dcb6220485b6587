//! What next? Pure functions over an operation and its steps: no clock, no ledger, no chance.
//!
//! `recover` takes over what a dead process left, `settle` records how an attempt ended, `decide` applies signals
//! and says what to start. They change the run in memory; the executor commits it before it acts.

use tenantry_model::{Failure, Timestamp, id::OperationId};

use crate::operation::{Mode, OnFailure, Operation, OperationState as Op, Run, Step, StepState as S, Wait};
use crate::retry::{MAX_INTERRUPTIONS, next_delay};
use crate::run::Verb;
use crate::signal::{Signal, SignalKind};

/// The error's code of an operation that another one has taken over from.
pub const SUPERSEDED: &str = "superseded";

/// What to do once the changed run is committed.
#[derive(Debug, Default, PartialEq)]
pub struct Decision {
    /// Attempts to begin.
    pub start: Vec<(String, Verb)>,
    /// Steps that have become child operations, whose ids stand in `Step::child`.
    pub detached: Vec<String>,
    /// Signals to other operations.
    pub signals: Vec<(OperationId, SignalKind)>,
}

/// Applies the signals, then moves the run as far as it goes without the outside.
pub fn decide(run: &mut Run, signals: &[Signal], now: Timestamp) -> Decision {
    let mut decision = Decision::default();
    for signal in signals {
        apply(run, signal, &mut decision);
    }
    if run.operation.state == Op::Running && run.steps.iter().any(|s| s.state == S::Failed) {
        fail(run);
    }
    match run.operation.state {
        Op::Running => go_forward(run, now, &mut decision),
        Op::RollingBack => go_back(run, now, &mut decision),
        Op::Paused | Op::NeedsAttention | Op::Succeeded | Op::RolledBack | Op::Cancelled => {}
    }
    let operation = &mut run.operation;
    if operation.state.is_final() && operation.finished_at.is_none() {
        operation.finished_at = Some(now);
        if let (Some(parent), true) = (operation.parent, operation.cancelled) {
            decision.signals.push((parent, SignalKind::ChildFinished));
        }
    }
    look_ahead(run, now);
    decision
}

/// Records how an attempt ended. `jitter` is drawn evenly from 0 to 1.
pub fn settle(
    run: &mut Run,
    key: &str,
    verb: Verb,
    result: Result<serde_json::Value, Failure>,
    now: Timestamp,
    jitter: f64,
) {
    let Some(step) = run.step_mut(key) else { return };
    step.note = None;
    match (verb, result) {
        // Somebody decided against the step while it ran: what it made is undone.
        (Verb::Do, Ok(_)) if step.state != S::Running => {}
        (Verb::Do, Ok(output)) => {
            step.state = S::Done;
            step.output = output;
            step.due_at = None;
            step.finished_at = Some(now);
        }
        (Verb::Do, Err(failure)) if step.state == S::Running => {
            step.uncertain |= failure.class == tenantry_model::FailureClass::Unknown;
            step.due_at = next_delay(&step.policy, step.attempts, &failure, jitter).map(|d| now + d);
            step.state = if step.due_at.is_some() { S::Retrying } else { S::Failed };
            step.finished_at = (step.state == S::Failed).then_some(now);
            step.error = Some(failure);
        }
        (Verb::Undo, Ok(_)) if step.state == S::Undoing => {
            if step.uncertain && step.policy.in_flight_ms > 0 {
                // A call without an answer may still arrive at the other side: look again after its bound.
                step.uncertain = false;
                step.attempts = 0;
                step.state = S::UndoPending;
                step.due_at = Some(now + std::time::Duration::from_millis(step.policy.in_flight_ms));
            } else {
                step.state = S::Undone;
                step.due_at = None;
                step.finished_at = Some(now);
            }
        }
        (Verb::Undo, Err(failure)) if step.state == S::Undoing => {
            step.due_at = next_delay(&step.policy, step.attempts, &failure, jitter).map(|d| now + d);
            step.state = if step.due_at.is_some() { S::UndoPending } else { S::UndoFailed };
            step.error = Some(failure);
        }
        (Verb::Do | Verb::Undo, _) => {}
    }
}

/// Takes over a run whose executor is gone: what ran is to be run again, and nobody knows how far it came.
pub fn recover(run: &mut Run, epoch: i64, now: Timestamp) {
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
            let message =
                format!("the process ended {MAX_INTERRUPTIONS} times while this step ran; not tried again");
            step.error = Some(Failure::fatal("interrupted", message));
            step.state = if forward { S::Failed } else { S::UndoFailed };
        } else {
            step.state = if forward { S::Retrying } else { S::UndoPending };
            step.due_at = Some(now);
        }
    }
}

/// Whether the run is undoing, or stopped while it was.
fn is_undoing(run: &Run) -> bool {
    run.steps.iter().any(|s| matches!(s.state, S::UndoPending | S::Undoing | S::Undone | S::UndoFailed))
}

/// Why a signal cannot be applied, in words for the person who sends it.
pub fn refuse(run: &Run, kind: &SignalKind) -> Result<(), String> {
    let state = run.operation.state;
    let word = state.as_str();
    let step_in = |key: &str, states: &[S]| match run.step(key) {
        None => Err(format!("there is no step `{key}` in this operation")),
        Some(step) if states.contains(&step.state) => Ok(()),
        Some(step) => Err(format!("step `{key}` is {}", step.state.as_str())),
    };
    match kind {
        _ if state.is_final() => Err(format!("the operation has ended: it is {word}")),
        SignalKind::Pause if matches!(state, Op::Running | Op::RollingBack) => Ok(()),
        SignalKind::Resume if state == Op::Paused => Ok(()),
        SignalKind::Cancel if state != Op::RollingBack => Ok(()),
        SignalKind::Retry if run.steps.iter().any(|s| s.state == S::Retrying || has_failed(s)) => Ok(()),
        SignalKind::Skip { step, .. } => {
            step_in(step, &[S::Pending, S::Retrying, S::Waiting, S::Failed, S::UndoFailed])
        }
        SignalKind::Approve { step: key } | SignalKind::Reject { step: key, .. } => match run.step(key) {
            Some(step) if matches!(step.policy.wait, Some(Wait::Timer(_))) => {
                Err(format!("step `{key}` waits for its time, not for an approval"))
            }
            _ => step_in(key, &[S::Waiting]),
        },
        SignalKind::Supersede | SignalKind::ChildFinished => Ok(()),
        SignalKind::Pause | SignalKind::Resume | SignalKind::Cancel | SignalKind::Retry => {
            Err(format!("the operation is {word}"))
        }
    }
}

fn apply(run: &mut Run, signal: &Signal, decision: &mut Decision) {
    if let Some(parent) = run.operation.parent
        && signal.kind == SignalKind::Cancel
        && signal.by == parent.to_string()
        && called_back(run, parent, decision)
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
            postpone(&mut run.operation, since, signal.at);
            run.operation.state = if is_undoing(run) { Op::RollingBack } else { Op::Running }
        }
        SignalKind::Cancel => {
            run.operation.cancelled = true;
            turn_back(run);
            for step in run.steps.iter_mut().filter(|s| s.state == S::UndoFailed) {
                begin_again(step, S::UndoPending);
            }
        }
        SignalKind::Retry => {
            for step in &mut run.steps {
                match step.state {
                    S::Failed | S::Retrying => begin_again(step, S::Retrying),
                    S::UndoFailed => begin_again(step, S::UndoPending),
                    _ => {}
                }
            }
            go_on(run, signal.at);
        }
        SignalKind::Skip { step, reason } => {
            if let Some(step) = run.step_mut(step) {
                // An undo that is left out counts as undone: the person has dealt with what is there.
                step.state = if step.state == S::UndoFailed { S::Undone } else { S::Skipped };
                step.finished_at = Some(signal.at);
                step.due_at = None;
                step.note = Some(serde_json::json!({ "skipped": reason, "by": signal.by }));
            }
            go_on(run, signal.at);
        }
        SignalKind::Approve { step } => {
            let since = run.step(step).and_then(|step| step.started_at).unwrap_or(signal.at);
            postpone(&mut run.operation, since, signal.at);
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
            blame(&mut run.operation, key.clone(), Some(failure));
            turn_back(run);
        }
        SignalKind::Supersede => supersede(run, signal, decision),
        SignalKind::ChildFinished => {
            let sent = |s: &&mut Step| s.child.is_some_and(|child| child.to_string() == signal.by);
            for step in run.steps.iter_mut().filter(|s| s.state == S::Undoing).filter(sent) {
                step.state = S::Undone;
                step.finished_at = Some(signal.at);
            }
        }
    }
}

/// A detached step's operation is called back by its parent, which waits for the answer in whatever state the child
/// is (design §4). False: it is an ordinary cancellation.
fn called_back(run: &mut Run, parent: OperationId, decision: &mut Decision) -> bool {
    let operation = &mut run.operation;
    match operation.state {
        Op::Succeeded => {
            operation.cancelled = true;
            operation.finished_at = None;
            turn_back(run);
        }
        Op::RollingBack => operation.cancelled = true,
        Op::RolledBack | Op::Cancelled => decision.signals.push((parent, SignalKind::ChildFinished)),
        Op::Running | Op::Paused | Op::NeedsAttention => return false,
    }
    true
}

/// Ends the run where it is. Nothing of it is undone here: its steps say to whom that is left. Its children end too.
fn supersede(run: &mut Run, signal: &Signal, decision: &mut Decision) {
    let operation = &mut run.operation;
    operation.cancelled = true;
    operation.state = Op::Cancelled;
    operation.error_step = None;
    operation.error = Some(Failure::fatal(
        SUPERSEDED,
        format!("operation {} has taken over what this one made", signal.by),
    ));
    for step in run.steps.iter_mut().filter(|step| !matches!(step.state, S::Undone | S::Skipped)) {
        decision.signals.extend(step.child.map(|child| (child, SignalKind::Supersede)));
        step.uncertain |= matches!(step.state, S::Running | S::Undoing);
        step.state = S::Undone;
        step.due_at = None;
        step.finished_at = Some(signal.at);
        step.note = Some(serde_json::json!({ "left_to": signal.by }));
    }
}

fn begin_again(step: &mut Step, state: S) {
    step.state = state;
    step.attempts = 0;
    step.interruptions = 0;
    step.due_at = None;
    step.finished_at = None;
}

/// Time in which the operation waited for its plan or for a person is not held against it (S0.15).
fn postpone(operation: &mut Operation, since: Timestamp, until: Timestamp) {
    operation.expected_by = operation.expected_by.map(|by| by + until.since(since));
}

/// Leaves `needs_attention`, in the direction in which it was entered, when nothing asks for a person any more.
fn go_on(run: &mut Run, at: Timestamp) {
    if run.operation.state != Op::NeedsAttention {
        return;
    }
    let undoing = is_undoing(run);
    if let Some(step) = run.steps.iter().find(|s| has_failed(s)) {
        if !undoing {
            blame(&mut run.operation, step.key.clone(), step.error.clone());
        }
        return;
    }
    let since = run.operation.updated_at;
    postpone(&mut run.operation, since, at);
    if undoing {
        // What it turned back for stays: people ask for it long after the undo (design §5, `last_error`).
        run.operation.state = Op::RollingBack;
    } else {
        run.operation.state = Op::Running;
        run.operation.error = None;
        run.operation.error_step = None;
    }
}

/// Whether a step can only go on with a person's help.
fn has_failed(step: &Step) -> bool {
    matches!(step.state, S::Failed | S::UndoFailed)
}

fn blame(operation: &mut Operation, step: String, error: Option<Failure>) {
    operation.error = error;
    operation.error_step = Some(step);
}

/// A step has failed for good: its policy decides, rollback before park.
fn fail(run: &mut Run) {
    let failed = |on| move |s: &&Step| s.state == S::Failed && s.policy.on_failure == on;
    if let Some(step) = run.steps.iter().find(failed(OnFailure::Rollback)) {
        blame(&mut run.operation, step.key.clone(), step.error.clone());
        turn_back(run);
    } else if let Some(step) = run.steps.iter().find(failed(OnFailure::Park)) {
        blame(&mut run.operation, step.key.clone(), step.error.clone());
        run.operation.state = Op::NeedsAttention;
    }
}

fn go_forward(run: &mut Run, now: Timestamp, decision: &mut Decision) {
    // Waits and detached steps may be over at once, which may free others: repeat until nothing moves.
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
                    decision.start.push((step.key.clone(), Verb::Do));
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

/// Turns the run round: from here on, all that was begun is to be undone.
fn turn_back(run: &mut Run) {
    run.operation.state = Op::RollingBack;
    for step in &mut run.steps {
        let begun = step.started_at.is_some() && step.policy.wait.is_none();
        match step.state {
            S::UndoPending | S::Undoing | S::Undone | S::UndoFailed => {}
            state if begun => {
                // Whatever still runs is cut off by the executor, so nobody knows how far it came.
                step.uncertain |= state == S::Running;
                begin_again(step, S::UndoPending);
            }
            _ => {
                step.state = S::Undone;
                step.due_at = None;
            }
        }
    }
}

/// Undoes in the reverse of the plan's order, side branches side by side: a step waits for those that needed it.
fn go_back(run: &mut Run, now: Timestamp, decision: &mut Decision) {
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
                None => decision.start.push((step.key.clone(), Verb::Undo)),
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
        // Everything that can be undone without a person is; what is left must be seen by one (S4.100).
        // The undo's own failure stands with its step; the operation keeps the failure that it turned back for.
        if run.operation.error.is_none() {
            blame(&mut run.operation, failed.key.clone(), failed.error.clone());
        }
        run.operation.state = Op::NeedsAttention;
    }
}

/// Sets what the ledger must know to wake the operation: whether it is idle, and its next timer.
fn look_ahead(run: &mut Run, now: Timestamp) {
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
    let alarm = operation.expected_by.filter(|_| busy && !operation.stuck);
    let timer = run.steps.iter().filter(|s| moving && timed(s)).filter_map(|s| s.due_at).min();
    operation.wake_at = alarm.into_iter().chain(timer).min();
}

/// The id of the child of a detached step: the same whenever it is asked for, with the parent's time.
fn child_id(parent: OperationId, key: &str) -> OperationId {
    // FNV-1a: only to tell the steps of one parent apart, and a child's from the parent's own.
    let bytes = parent.uuid().into_bytes().into_iter().chain(key.bytes());
    let hash =
        bytes.fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    // The low 62 bits of a UUIDv7 are random; version and variant lie above them.
    OperationId::from_uuid(uuid::Uuid::from_u128(parent.uuid().as_u128() ^ u128::from(hash >> 2)))
}
