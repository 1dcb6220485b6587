//! Signals by state: a table of the accepted ones, the messages of refused ones, and that those change
//! nothing.

use std::fmt::Write;

use tenantry_engine::decide::{decide, refuse};
use tenantry_engine::{OperationState as Op, Run, SignalKind, StepState as S};

use crate::plan::{Shape, approve, at, reject, run, signal, skip, step};

const OPERATIONS: [Op; 7] = [
    Op::Running,
    Op::Paused,
    Op::RollingBack,
    Op::NeedsAttention,
    Op::Succeeded,
    Op::RolledBack,
    Op::Cancelled,
];
const STEPS: [S; 11] = [
    S::Pending,
    S::Running,
    S::Retrying,
    S::Waiting,
    S::Done,
    S::Skipped,
    S::Failed,
    S::UndoPending,
    S::Undoing,
    S::Undone,
    S::UndoFailed,
];

/// Every kind of signal, with `a` as its step.
fn kinds() -> Vec<(&'static str, SignalKind)> {
    vec![
        ("pause", SignalKind::Pause),
        ("resume", SignalKind::Resume),
        ("cancel", SignalKind::Cancel),
        ("retry", SignalKind::Retry),
        ("skip", skip("a")),
        ("approve", approve("a")),
        ("reject", reject("a")),
        ("supersede", SignalKind::Supersede),
        ("child_finished", SignalKind::ChildFinished),
        ("wake", SignalKind::Wake { provider: "postgres".to_owned() }),
    ]
}

/// An operation with one step, in these states; a waiting step waits for approval.
fn in_states(operation: Op, state: S) -> Run {
    let mut run = run([if state == S::Waiting { step("a").approval() } else { step("a") }]);
    run.operation.state = operation;
    run.operation.finished_at = operation.is_final().then(|| at(0));
    run.steps[0].state = state;
    run
}

#[test]
fn accepted_signals() {
    let mut table = String::new();
    for operation in OPERATIONS {
        for state in STEPS {
            let run = in_states(operation, state);
            let accepted =
                kinds().into_iter().filter(|(_, kind)| refuse(&run, kind).is_ok()).map(|(name, _)| name);
            let accepted: Vec<_> = accepted.collect();
            let line = format!("{:<16}{:<14}{}", operation.as_str(), state.as_str(), accepted.join(" "));
            writeln!(table, "{}", line.trim_end()).unwrap();
        }
    }
    insta::assert_snapshot!(table);
}

#[test]
fn refusals_say_why() {
    let mut text = String::new();
    let timer = {
        let mut run = run([step("a").timer(60)]);
        decide(&mut run, &[], at(0));
        run
    };
    for (run, kind) in [
        (in_states(Op::Succeeded, S::Done), SignalKind::Cancel),
        (in_states(Op::RollingBack, S::Undoing), SignalKind::Cancel),
        (in_states(Op::Running, S::Running), SignalKind::Resume),
        (in_states(Op::Running, S::Running), SignalKind::Retry),
        (in_states(Op::Running, S::Running), skip("a")),
        (in_states(Op::Running, S::Running), skip("b")),
        (in_states(Op::Running, S::Running), approve("a")),
        (timer.clone(), approve("a")),
        (timer, reject("a")),
    ] {
        writeln!(text, "{}", refuse(&run, &kind).unwrap_err()).unwrap();
    }
    insta::assert_snapshot!(text);
}

#[test]
fn a_refused_signal_changes_nothing() {
    for operation in OPERATIONS {
        for state in STEPS {
            for (name, kind) in kinds() {
                let mut without = in_states(operation, state);
                if refuse(&without, &kind).is_ok() {
                    continue;
                }
                let mut with = without.clone();
                let decided = (decide(&mut with, &[signal(kind)], at(1)), decide(&mut without, &[], at(1)));
                assert_eq!(decided.0, decided.1, "{name} in {operation:?} with {state:?}");
                assert_eq!(with, without, "{name} in {operation:?} with {state:?}");
            }
        }
    }
}
