//! Decisions of a rollback: order of compensations, repeated ones after unknown outcomes, failed ones, child
//! operations.

use tenantry_engine::{OperationState as Op, SignalKind, StepState as S};
use tenantry_model::Failure;

use crate::plan::{Shape, busy, lost, never, run, signal_from, skip, step, unknown_id, wrong};
use crate::story::Story;

#[test]
fn compensations_run_in_reverse_order() {
    let mut story = Story::of([
        step("a"),
        step("b").needs(&["a"]),
        step("c").needs(&["a"]),
        step("d").needs(&["b"]),
        step("e").needs(&["c", "d"]),
    ]);
    story.ok("a").ok("b").ok("c").ok("d");
    assert_eq!(story.failed("e", never()).starts(), "undo e");
    assert_eq!(story.ok("e").starts(), "undo c, undo d");
    assert_eq!(story.ok("c").starts(), "");
    assert_eq!(story.ok("d").starts(), "undo b");
    assert_eq!(story.ok("b").starts(), "undo a");
    assert_eq!(story.ok("a").line(), "rolled_back: a=undone b=undone c=undone d=undone e=undone");
}

#[test]
fn a_step_that_never_started_is_not_compensated() {
    let mut story = Story::of([step("a"), step("hold").timer(9).needs(&["a"]), step("b").needs(&["hold"])]);
    story.ok("a").asked(&[SignalKind::Cancel]);
    assert_eq!(
        (story.line().as_str(), story.starts()),
        ("rolling_back: a=undoing hold=undone b=undone", "undo a".to_owned())
    );
    assert_eq!(story.ok("a").line(), "cancelled: a=undone hold=undone b=undone");
}

#[test]
fn cancel_revokes_running_attempts_and_compensates_them() {
    for before in [vec![], vec![SignalKind::Pause]] {
        let mut story = Story::of([step("a"), step("b")]);
        story.ok("a").asked(&before).asked(&[SignalKind::Cancel]);
        assert_eq!(story.starts(), "undo a, undo b");
        assert_eq!((story.step("a").uncertain, story.step("b").uncertain), (false, true));
    }
}

#[test]
fn cancel_during_a_retry_delay_compensates() {
    let mut story = Story::of([step("a").backoff(9_000)]);
    assert_eq!(story.failed("a", lost()).asked(&[SignalKind::Cancel]).starts(), "undo a");
}

#[test]
fn a_step_with_a_pending_retry_is_compensated() {
    let mut together = Story::of([step("a").park()]);
    together.failed("a", never()).asked(&[SignalKind::Retry, SignalKind::Cancel]);
    assert_eq!(together.starts(), "undo a");

    let mut paused = Story::of([step("a").backoff(9_000)]);
    paused.failed("a", lost()).asked(&[SignalKind::Pause, SignalKind::Retry]);
    assert_eq!(paused.asked(&[SignalKind::Cancel]).starts(), "undo a");
}

#[test]
fn a_skipped_step_that_started_is_compensated() {
    let mut story = Story::of([step("a").park(), step("b").needs(&["a"])]);
    story.failed("a", never()).asked(&[skip("a")]);
    story.asked(&[SignalKind::Cancel]);
    assert_eq!(story.ok("b").starts(), "undo a");
}

#[test]
fn cancel_survives_a_pause() {
    let mut story = Story::of([step("a"), step("b").needs(&["a"])]);
    story.ok("a").asked(&[SignalKind::Cancel, SignalKind::Pause]);
    assert_eq!(story.run.operation.state, Op::Paused);
    assert_eq!(story.asked(&[SignalKind::Resume]).run.operation.state, Op::RollingBack);
}

#[test]
fn a_pause_during_a_rollback() {
    let mut story = Story::of([step("a"), step("b").needs(&["a"])]);
    story.ok("a").failed("b", never()).asked(&[SignalKind::Pause]);
    assert_eq!(story.ok("b").line(), "paused: a=undo_pending b=undone");
    assert_eq!(story.asked(&[SignalKind::Resume]).starts(), "undo a");
}

#[test]
fn a_failed_compensation_is_retried_and_then_needs_attention() {
    let mut story = Story::of([step("a"), step("b").needs(&["a"]), step("c")]);
    story.ok("a").ok("c").failed("b", never());
    assert_eq!(story.starts(), "undo b, undo c");
    story.failed("b", wrong()).failed("b", wrong()).failed("b", wrong()).failed("b", wrong());
    // The other branch is still compensated.
    assert_eq!(story.line(), "rolling_back: a=undo_pending b=undo_failed c=undoing");
    assert_eq!(story.ok("c").line(), "needs_attention: a=undo_pending b=undo_failed c=undone");
    // The step has the compensation's error; the operation keeps the error that caused the rollback.
    assert_eq!(story.step("b").error, Some(Failure { wrong_answers: 4, ..wrong() }));
    assert_eq!(story.run.operation.error_step.as_deref(), Some("b"));
    assert_eq!(story.run.operation.error, Some(never()));
    story.asked(&[SignalKind::Retry]).ok("b").ok("a");
    assert_eq!(story.line(), "rolled_back: a=undone b=undone c=undone");
    assert_eq!(story.run.operation.error, Some(never()));
}

#[test]
fn a_cancelled_operation_shows_the_failed_compensation() {
    let mut story = Story::of([step("a")]);
    story
        .asked(&[SignalKind::Cancel])
        .failed("a", busy())
        .failed("a", busy())
        .failed("a", busy())
        .failed("a", never());
    assert_eq!(story.line(), "needs_attention: a=undo_failed");
    assert_eq!(story.run.operation.error, Some(never()));
}

#[test]
fn signals_after_a_failed_compensation() {
    let stuck = || {
        let mut story = Story::of([step("a"), step("b").needs(&["a"])]);
        story.ok("a").failed("b", never()).failed("b", never());
        assert_eq!(story.line(), "needs_attention: a=undo_pending b=undo_failed");
        story
    };
    assert_eq!(stuck().asked(&[SignalKind::Retry]).starts(), "undo b");
    assert_eq!(stuck().asked(&[skip("b")]).starts(), "undo a");
    let mut cancelled = stuck();
    assert_eq!(cancelled.asked(&[SignalKind::Cancel]).starts(), "undo b");
    assert_eq!(cancelled.ok("b").ok("a").line(), "cancelled: a=undone b=undone");
}

#[test]
fn a_failed_compensation_can_be_retried_during_a_rollback() {
    let mut story = Story::of([step("a"), step("b")]);
    story.ok("a").failed("b", never()).failed("b", never());
    assert_eq!(story.line(), "rolling_back: a=undoing b=undo_failed");
    assert_eq!(story.asked(&[SignalKind::Retry]).starts(), "undo b");
}

#[test]
fn a_compensation_repeats_after_an_unknown_outcome() {
    let mut story = Story::of([step("a").in_flight(30).retry_for(0)]);
    assert_eq!(story.failed("a", lost()).starts(), "undo a");
    story.ok("a");
    assert_eq!((story.line().as_str(), story.wakes()), ("rolling_back: a=undo_pending", Some(30.0)));
    assert!(story.run.operation.idle);
    assert_eq!(story.at(29).starts(), "");
    assert_eq!(story.at(30).starts(), "undo a");
    assert_eq!(story.ok("a").line(), "rolled_back: a=undone");
}

#[test]
fn a_crash_is_an_unknown_outcome() {
    let mut story = Story::of([step("a").in_flight(30)]);
    story.crashed().asked(&[SignalKind::Cancel]).ok("a");
    assert_eq!(story.line(), "rolling_back: a=undo_pending");

    let mut undoing = Story::of([step("a").in_flight(30), step("b").needs(&["a"])]);
    undoing.ok("a").asked(&[SignalKind::Cancel]).ok("b");
    assert_eq!(undoing.line(), "rolling_back: a=undoing b=undone");
    assert_eq!(undoing.crashed().starts(), "undo a");
    assert_eq!(undoing.ok("a").line(), "rolling_back: a=undo_pending b=undone");
    assert_eq!(undoing.at(30).ok("a").line(), "cancelled: a=undone b=undone");
}

/// The call that the crash cut off may take effect after the first compensation.
#[test]
fn a_repeated_compensation_looks_again() {
    let mut story = Story::of([step("a").in_flight(30)]);
    story.failed("a", busy().untouched()).crashed().asked(&[SignalKind::Cancel]);
    assert!(!story.step("a").is_untouched(), "the attempt that the crash cut off may have changed something");
    assert_eq!(story.ok("a").at(30).starts(), "undo a");
    assert!(!story.step("a").is_untouched());
}

#[test]
fn a_step_is_untouched_when_no_attempt_changed_anything() {
    let mut story = Story::of([step("a")]);
    story.failed("a", busy().untouched()).failed("a", never().untouched());
    assert_eq!(story.starts(), "undo a");
    assert!(story.step("a").is_untouched());

    let mut story = Story::of([step("a")]);
    story.failed("a", busy()).failed("a", never().untouched());
    assert!(!story.step("a").is_untouched());
}

/// A compensation that could not begin says nothing about what the step has created.
#[test]
fn a_step_that_succeeded_stays_to_be_removed_when_its_compensation_cannot_begin() {
    let mut story = Story::of([step("a"), step("b").needs(&["a"])]);
    story.ok("a").failed("b", never()).ok("b").failed("a", never().untouched());
    assert_eq!(story.line(), "needs_attention: a=undo_failed b=undone");
    assert_eq!(story.asked(&[SignalKind::Retry]).starts(), "undo a");
    assert!(!story.step("a").is_untouched());
}

#[test]
fn a_compensation_does_not_repeat_after_a_known_outcome() {
    let mut story = Story::of([step("a").in_flight(30)]);
    story.failed("a", never());
    assert_eq!(story.ok("a").line(), "rolled_back: a=undone");
}

#[test]
fn a_compensation_fails_after_ten_crashes() {
    let mut story = Story::of([step("a"), step("b").needs(&["a"])]);
    story.ok("a").failed("b", never()).ok("b");
    for _ in 0..10 {
        assert_eq!(story.crashed().starts(), "undo a");
    }
    assert_eq!(story.crashed().line(), "needs_attention: a=undo_failed b=undone");
}

#[test]
fn a_rollback_cancels_each_child() {
    let mut story = Story::of([step("a").detached(&[]), step("b").detached(&[]), step("c")]);
    let [a, b] = ["a", "b"].map(|key| story.step(key).child.unwrap());
    story.failed("c", never());
    assert_eq!(story.decision.signals, [(a, SignalKind::Cancel), (b, SignalKind::Cancel)]);
    story.ok("c");
    assert_eq!(story.line(), "rolling_back: a=undoing b=undoing c=undone");
    assert!(story.run.operation.idle, "idle while it waits for a child");
    story.crashed();
    assert_eq!((story.step("a").interruptions, story.step("a").state), (0, S::Undoing));
    story.signalled(signal_from(unknown_id(), SignalKind::ChildFinished));
    assert_eq!(story.line(), "rolling_back: a=undoing b=undoing c=undone");
    story.signalled(signal_from(b, SignalKind::ChildFinished));
    assert_eq!(story.line(), "rolling_back: a=undoing b=undone c=undone");
    story.signalled(signal_from(a, SignalKind::ChildFinished));
    assert_eq!(story.line(), "rolled_back: a=undone b=undone c=undone");
}

#[test]
fn a_child_answers_its_parent_in_every_state() {
    let parent = unknown_id();
    let answer = [(parent, SignalKind::ChildFinished)];
    let cancel = || signal_from(parent, SignalKind::Cancel);
    let child = |steps: &[&str]| {
        let mut plan = run(steps.iter().map(|key| step(key).park()));
        plan.operation.parent = Some(parent);
        Story::from(plan)
    };
    // Running.
    let mut story = child(&["x"]);
    assert_eq!(story.signalled(cancel()).line(), "rolling_back: x=undoing");
    assert_eq!(story.ok("x").line(), "cancelled: x=undone");
    assert_eq!(story.decision.signals, answer);
    // Already cancelled: it only answers again.
    assert_eq!(story.signalled(cancel()).decision.signals, answer);
    assert_eq!(story.starts(), "");
    // Succeeded: only the parent can cancel it.
    let mut story = child(&["x"]);
    assert_eq!(story.ok("x").line(), "succeeded: x=done");
    assert_eq!(story.asked(&[SignalKind::Cancel]).line(), "succeeded: x=done");
    assert_eq!(story.signalled(cancel()).line(), "rolling_back: x=undoing");
    assert_eq!(story.run.operation.finished_at, None);
    assert_eq!(story.ok("x").decision.signals, answer);
    // Cancelled and paused in one decision.
    let mut story = child(&["x"]);
    let pause = signal_from(unknown_id(), SignalKind::Pause);
    story.ok("x").signalled_all(&[cancel(), pause]).asked(&[SignalKind::Resume]);
    assert_eq!(story.run.operation.state, Op::RollingBack);
    // Parked.
    let mut story = child(&["x"]);
    assert_eq!(story.failed("x", never()).line(), "needs_attention: x=failed");
    assert_eq!(story.signalled(cancel()).ok("x").decision.signals, answer);
    // Rolling back after its own failure.
    let mut plan = run([step("x")]);
    plan.operation.parent = Some(parent);
    let mut story = Story::from(plan);
    story.failed("x", never());
    assert_eq!(story.line(), "rolling_back: x=undoing");
    assert_eq!(story.signalled(cancel()).ok("x").decision.signals, answer);
    // Rolled back before the parent cancelled it.
    let mut plan = run([step("x")]);
    plan.operation.parent = Some(parent);
    let mut story = Story::from(plan);
    assert_eq!(story.failed("x", never()).ok("x").line(), "rolled_back: x=undone");
    assert_eq!(story.decision.signals, []);
    assert_eq!(story.signalled(cancel()).decision.signals, answer);
}
