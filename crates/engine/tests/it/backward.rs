//! Going back: what is undone, in which order, what is looked at twice, and who is asked when an undo fails.

use tenantry_engine::{OperationState as Op, SignalKind, StepState as S};

use crate::plan::{Shape, busy, lost, never, run, signal_from, skip, step, stranger};
use crate::story::Story;

#[test]
fn undoing_goes_against_the_needs() {
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
fn what_never_began_is_not_undone() {
    let mut story = Story::of([step("a"), step("hold").timer(9).needs(&["a"]), step("b").needs(&["hold"])]);
    story.ok("a").told(&[SignalKind::Cancel]);
    assert_eq!(
        (story.line().as_str(), story.starts()),
        ("rolling_back: a=undoing hold=undone b=undone", "undo a".to_owned())
    );
    assert_eq!(story.ok("a").line(), "cancelled: a=undone hold=undone b=undone");
}

#[test]
fn cancel_cuts_off_what_runs_and_undoes_it() {
    for before in [vec![], vec![SignalKind::Pause]] {
        let mut story = Story::of([step("a"), step("b")]);
        story.ok("a").told(&before).told(&[SignalKind::Cancel]);
        assert_eq!(story.starts(), "undo a, undo b");
        assert_eq!((story.step("a").uncertain, story.step("b").uncertain), (false, true));
    }
}

#[test]
fn cancel_during_a_delay_undoes_what_the_attempts_left() {
    let mut story = Story::of([step("a").backoff(9_000)]);
    assert_eq!(story.failed("a", lost()).told(&[SignalKind::Cancel]).starts(), "undo a");
}

#[test]
fn a_step_that_is_to_be_tried_again_is_undone_all_the_same() {
    let mut together = Story::of([step("a").park()]);
    together.failed("a", never()).told(&[SignalKind::Retry, SignalKind::Cancel]);
    assert_eq!(together.starts(), "undo a");

    let mut paused = Story::of([step("a").backoff(9_000)]);
    paused.failed("a", lost()).told(&[SignalKind::Pause, SignalKind::Retry]);
    assert_eq!(paused.told(&[SignalKind::Cancel]).starts(), "undo a");
}

#[test]
fn a_skipped_step_that_began_is_undone() {
    let mut story = Story::of([step("a").park(), step("b").needs(&["a"])]);
    story.failed("a", never()).told(&[skip("a")]);
    story.told(&[SignalKind::Cancel]);
    assert_eq!(story.ok("b").starts(), "undo a");
}

#[test]
fn cancel_is_not_lost_in_a_pause() {
    let mut story = Story::of([step("a"), step("b").needs(&["a"])]);
    story.ok("a").told(&[SignalKind::Cancel, SignalKind::Pause]);
    assert_eq!(story.run.operation.state, Op::Paused);
    assert_eq!(story.told(&[SignalKind::Resume]).run.operation.state, Op::RollingBack);
}

#[test]
fn a_pause_while_undoing() {
    let mut story = Story::of([step("a"), step("b").needs(&["a"])]);
    story.ok("a").failed("b", never()).told(&[SignalKind::Pause]);
    assert_eq!(story.ok("b").line(), "paused: a=undo_pending b=undone");
    assert_eq!(story.told(&[SignalKind::Resume]).starts(), "undo a");
}

#[test]
fn undo_is_retried_and_then_a_person_is_asked() {
    let mut story = Story::of([step("a").retries(1), step("b").needs(&["a"]), step("c")]);
    story.ok("a").ok("c").failed("b", never());
    assert_eq!(story.starts(), "undo b, undo c");
    story.failed("b", busy()).failed("b", busy()).failed("b", busy()).failed("b", busy());
    // The other branch is still being undone.
    assert_eq!(story.line(), "rolling_back: a=undo_pending b=undo_failed c=undoing");
    assert_eq!(story.ok("c").line(), "needs_attention: a=undo_pending b=undo_failed c=undone");
    // The undo's failure stands with the step, what it turned back for with the operation, to its end.
    assert_eq!(story.step("b").error, Some(busy()));
    assert_eq!(story.run.operation.error_step.as_deref(), Some("b"));
    assert_eq!(story.run.operation.error, Some(never()));
    story.told(&[SignalKind::Retry]).ok("b").ok("a");
    assert_eq!(story.line(), "rolled_back: a=undone b=undone c=undone");
    assert_eq!(story.run.operation.error, Some(never()));
}

#[test]
fn a_cancellation_names_the_undo_that_failed() {
    let mut story = Story::of([step("a")]);
    story
        .told(&[SignalKind::Cancel])
        .failed("a", busy())
        .failed("a", busy())
        .failed("a", busy())
        .failed("a", never());
    assert_eq!(story.line(), "needs_attention: a=undo_failed");
    assert_eq!(story.run.operation.error, Some(never()));
}

#[test]
fn ways_out_of_a_failed_undo() {
    let stuck = || {
        let mut story = Story::of([step("a"), step("b").needs(&["a"])]);
        story.ok("a").failed("b", never()).failed("b", never());
        assert_eq!(story.line(), "needs_attention: a=undo_pending b=undo_failed");
        story
    };
    assert_eq!(stuck().told(&[SignalKind::Retry]).starts(), "undo b");
    assert_eq!(stuck().told(&[skip("b")]).starts(), "undo a");
    let mut cancelled = stuck();
    assert_eq!(cancelled.told(&[SignalKind::Cancel]).starts(), "undo b");
    assert_eq!(cancelled.ok("b").ok("a").line(), "cancelled: a=undone b=undone");
}

#[test]
fn a_failed_undo_can_be_tried_again_while_others_are_undone() {
    let mut story = Story::of([step("a"), step("b")]);
    story.ok("a").failed("b", never()).failed("b", never());
    assert_eq!(story.line(), "rolling_back: a=undoing b=undo_failed");
    assert_eq!(story.told(&[SignalKind::Retry]).starts(), "undo b");
}

#[test]
fn an_unknown_answer_is_looked_at_again() {
    let mut story = Story::of([step("a").in_flight(30).retries(0)]);
    assert_eq!(story.failed("a", lost()).starts(), "undo a");
    story.ok("a");
    assert_eq!((story.line().as_str(), story.wakes()), ("rolling_back: a=undo_pending", Some(30.0)));
    assert!(story.run.operation.idle);
    assert_eq!(story.at(29).starts(), "");
    assert_eq!(story.at(30).starts(), "undo a");
    assert_eq!(story.ok("a").line(), "rolled_back: a=undone");
}

#[test]
fn a_crash_is_an_unknown_answer() {
    let mut story = Story::of([step("a").in_flight(30)]);
    story.crashed().told(&[SignalKind::Cancel]).ok("a");
    assert_eq!(story.line(), "rolling_back: a=undo_pending");

    let mut undoing = Story::of([step("a").in_flight(30), step("b").needs(&["a"])]);
    undoing.ok("a").told(&[SignalKind::Cancel]).ok("b");
    // b ran when it was cut off: it is looked at twice, then a is undone, which a crash cuts off.
    assert_eq!(undoing.line(), "rolling_back: a=undoing b=undone");
    assert_eq!(undoing.crashed().starts(), "undo a");
    assert_eq!(undoing.ok("a").line(), "rolling_back: a=undo_pending b=undone");
    assert_eq!(undoing.at(30).ok("a").line(), "cancelled: a=undone b=undone");
}

#[test]
fn what_is_known_is_not_looked_at_again() {
    let mut story = Story::of([step("a").in_flight(30)]);
    story.failed("a", never());
    assert_eq!(story.ok("a").line(), "rolled_back: a=undone");
}

#[test]
fn a_process_that_ends_again_and_again_under_an_undo() {
    let mut story = Story::of([step("a"), step("b").needs(&["a"])]);
    story.ok("a").failed("b", never()).ok("b");
    for _ in 0..10 {
        assert_eq!(story.crashed().starts(), "undo a");
    }
    assert_eq!(story.crashed().line(), "needs_attention: a=undo_failed b=undone");
}

#[test]
fn children_are_called_back_one_by_one() {
    let mut story = Story::of([step("a").detached(&[]), step("b").detached(&[]), step("c")]);
    let [a, b] = ["a", "b"].map(|key| story.step(key).child.unwrap());
    story.failed("c", never());
    assert_eq!(story.decision.signals, [(a, SignalKind::Cancel), (b, SignalKind::Cancel)]);
    story.ok("c");
    assert_eq!(story.line(), "rolling_back: a=undoing b=undoing c=undone");
    assert!(story.run.operation.idle, "waiting for a child costs no task");
    story.crashed();
    assert_eq!((story.step("a").interruptions, story.step("a").state), (0, S::Undoing));
    story.signalled(signal_from(stranger(), SignalKind::ChildFinished));
    assert_eq!(story.line(), "rolling_back: a=undoing b=undoing c=undone");
    story.signalled(signal_from(b, SignalKind::ChildFinished));
    assert_eq!(story.line(), "rolling_back: a=undoing b=undone c=undone");
    story.signalled(signal_from(a, SignalKind::ChildFinished));
    assert_eq!(story.line(), "rolled_back: a=undone b=undone c=undone");
}

#[test]
fn a_child_answers_its_parent_in_every_state() {
    let parent = stranger();
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
    // Cancelled already: it answers again, and does nothing else.
    assert_eq!(story.signalled(cancel()).decision.signals, answer);
    assert_eq!(story.starts(), "");
    // Succeeded: the parent may still call it back, nobody else.
    let mut story = child(&["x"]);
    assert_eq!(story.ok("x").line(), "succeeded: x=done");
    assert_eq!(story.told(&[SignalKind::Cancel]).line(), "succeeded: x=done");
    assert_eq!(story.signalled(cancel()).line(), "rolling_back: x=undoing");
    assert_eq!(story.run.operation.finished_at, None);
    assert_eq!(story.ok("x").decision.signals, answer);
    // Called back and paused in one breath.
    let mut story = child(&["x"]);
    let pause = signal_from(stranger(), SignalKind::Pause);
    story.ok("x").signalled_all(&[cancel(), pause]).told(&[SignalKind::Resume]);
    assert_eq!(story.run.operation.state, Op::RollingBack);
    // Parked.
    let mut story = child(&["x"]);
    assert_eq!(story.failed("x", never()).line(), "needs_attention: x=failed");
    assert_eq!(story.signalled(cancel()).ok("x").decision.signals, answer);
    // Undoing by itself, after a failure of its own.
    let mut plan = run([step("x")]);
    plan.operation.parent = Some(parent);
    let mut story = Story::from(plan);
    story.failed("x", never());
    assert_eq!(story.line(), "rolling_back: x=undoing");
    assert_eq!(story.signalled(cancel()).ok("x").decision.signals, answer);
    // Rolled back by itself before it was called.
    let mut plan = run([step("x")]);
    plan.operation.parent = Some(parent);
    let mut story = Story::from(plan);
    assert_eq!(story.failed("x", never()).ok("x").line(), "rolled_back: x=undone");
    assert_eq!(story.decision.signals, []);
    assert_eq!(story.signalled(cancel()).decision.signals, answer);
}
