//! Going forward: needs and parallel steps, retries, waits and timers, approvals, detached steps, stuck detection,
//! and what the ledger is told about waking.

use std::time::Duration;

use tenantry_engine::{OperationState as Op, SignalKind, StepState as S};

use crate::plan::{Shape, approve, at, busy, lost, never, reject, run, skip, step};
use crate::story::Story;

#[test]
fn a_step_starts_when_all_that_it_needs_is_over() {
    let mut story = Story::of([step("a"), step("b"), step("c").needs(&["a", "b"]), step("d").needs(&["c"])]);
    assert_eq!(story.starts(), "do a, do b");
    assert_eq!(story.ok("b").starts(), "");
    assert_eq!(story.ok("a").starts(), "do c");
    assert_eq!(story.ok("c").starts(), "do d");
    assert_eq!(story.ok("d").line(), "succeeded: a=done b=done c=done d=done");
    assert_eq!(story.run.operation.finished_at, Some(at(0)));
    assert_eq!(story.wakes(), None);
}

#[test]
fn the_order_of_the_plan_does_not_matter() {
    let mut story = Story::of([step("last").needs(&["first"]), step("first")]);
    assert_eq!(story.starts(), "do first");
    assert_eq!(story.ok("first").starts(), "do last");
}

#[test]
fn a_plan_without_steps_is_done() {
    assert_eq!(Story::of([]).line(), "succeeded:");
}

#[test]
fn a_failed_attempt_is_made_again_after_its_delay() {
    let mut story = Story::of([step("a").backoff(4_000).retries(2)]);
    story.failed("a", busy());
    assert_eq!(
        (story.line().as_str(), story.starts(), story.wakes()),
        ("running: a=retrying", String::new(), Some(4.0))
    );
    assert!(story.run.operation.idle, "a delay costs no task");
    assert_eq!(story.at(3).starts(), "");
    assert_eq!(story.at(4).starts(), "do a");
    assert!(!story.run.operation.idle);
    assert_eq!(story.failed("a", busy()).wakes(), Some(12.0));
    assert_eq!(story.at(12).starts(), "do a");
    assert_eq!(story.ok("a").line(), "succeeded: a=done");
    assert_eq!(story.step("a").attempts, 3);
    assert!(story.step("a").error.is_some(), "stays as history");
}

#[test]
fn retry_after_is_heeded_however_long() {
    let mut story = Story::of([step("a")]);
    story.failed("a", busy().after(Duration::from_secs(3600)));
    assert_eq!(story.wakes(), Some(3600.0));
}

#[test]
fn what_cannot_succeed_is_not_tried_again() {
    let mut story = Story::of([step("a")]);
    assert_eq!(story.failed("a", never()).starts(), "undo a");
    assert_eq!(story.ok("a").line(), "rolled_back: a=undone");
    assert_eq!(story.run.operation.error, Some(never()));
    assert_eq!(story.run.operation.error_step.as_deref(), Some("a"));
}

#[test]
fn retries_end() {
    let mut story = Story::of([step("a").retries(2)]);
    for _ in 0..3 {
        assert_eq!(story.starts(), "do a");
        story.failed("a", lost());
    }
    assert_eq!(story.line(), "rolling_back: a=undoing");
}

#[test]
fn a_timer_ends_at_its_instant() {
    let mut story = Story::of([step("hold").timer(60), step("a").needs(&["hold"])]);
    assert_eq!((story.line().as_str(), story.wakes()), ("running: hold=waiting a=pending", Some(60.0)));
    assert!(story.run.operation.idle);
    assert_eq!(story.at(59).starts(), "");
    assert_eq!(story.at(60).starts(), "do a");
    assert_eq!(story.step("hold").finished_at, Some(at(60)));
}

#[test]
fn a_timer_of_nothing_is_over_at_once() {
    assert_eq!(Story::of([step("hold").timer(0), step("a").needs(&["hold"])]).starts(), "do a");
}

#[test]
fn a_timer_that_ends_during_a_pause_counts_after_it() {
    let mut story = Story::of([step("hold").timer(60), step("a").needs(&["hold"])]);
    assert_eq!(story.told(&[SignalKind::Pause]).wakes(), None);
    assert_eq!(story.at(100).starts(), "");
    assert_eq!(story.told(&[SignalKind::Resume]).starts(), "do a");
}

#[test]
fn an_approval_waits_for_a_person() {
    let mut story = Story::of([step("ask").approval(), step("a").needs(&["ask"])]);
    assert_eq!((story.line().as_str(), story.wakes()), ("running: ask=waiting a=pending", None));
    assert!(story.run.operation.idle);
    assert_eq!(story.at(1_000_000).starts(), "");
    assert_eq!(story.told(&[approve("ask")]).starts(), "do a");
    assert_eq!(story.step("ask").output, serde_json::json!({ "approved_by": "usr_1" }));
}

#[test]
fn an_approval_given_during_a_pause_counts_after_it() {
    let mut story = Story::of([step("ask").approval(), step("a").needs(&["ask"])]);
    assert_eq!(story.told(&[SignalKind::Pause, approve("ask")]).line(), "paused: ask=done a=pending");
    assert_eq!(story.told(&[SignalKind::Resume]).starts(), "do a");
}

#[test]
fn approval_does_not_shorten_a_timer() {
    let mut story = Story::of([step("hold").timer(60)]);
    assert_eq!(story.told(&[approve("hold")]).line(), "running: hold=waiting");
    assert_eq!(story.told(&[skip("hold")]).line(), "succeeded: hold=skipped");
}

#[test]
fn a_rejection_rolls_back_whatever_the_policy_and_the_state() {
    for before in [vec![], vec![SignalKind::Pause]] {
        let mut story = Story::of([step("a"), step("ask").approval().park().needs(&["a"])]);
        story.ok("a").told(&before).told(&[reject("ask")]);
        assert_eq!(
            (story.line().as_str(), story.starts()),
            ("rolling_back: a=undoing ask=undone", "undo a".to_owned())
        );
        assert_eq!(story.run.operation.error_step.as_deref(), Some("ask"));
        assert_eq!(story.run.operation.error.as_ref().map(|e| e.code.as_str()), Some("rejected"));
        assert_eq!(story.ok("a").line(), "rolled_back: a=undone ask=undone");
    }
    let mut parked = Story::of([step("a").park(), step("ask").approval()]);
    parked.failed("a", never());
    assert_eq!(parked.line(), "needs_attention: a=failed ask=waiting");
    assert_eq!(parked.told(&[reject("ask")]).line(), "rolling_back: a=undoing ask=undone");
}

#[test]
fn a_rejection_is_not_lost_in_a_pause() {
    let mut story = Story::of([step("ask").approval().park(), step("a").needs(&["ask"])]);
    story.told(&[reject("ask"), SignalKind::Pause]);
    assert_ne!(story.told(&[SignalKind::Resume]).run.operation.state, Op::Running);
}

#[test]
fn a_detached_step_becomes_a_child_and_holds_nothing_back() {
    let mut story = Story::of([step("a").detached(&["x"]), step("b").needs(&["a"])]);
    assert_eq!(
        (story.decision.detached.as_slice(), story.starts()),
        (&["a".to_owned()][..], "do b".to_owned())
    );
    assert!(story.step("a").child.is_some());
    assert_eq!(story.ok("b").line(), "succeeded: a=done b=done");
}

#[test]
fn children_have_ids_of_their_own() {
    let story = Story::of([step("a").detached(&[]), step("b").detached(&[])]);
    let [a, b] = ["a", "b"].map(|key| story.step(key).child.unwrap());
    let mut child = run([step("a").detached(&[])]);
    child.operation.id = a;
    let grandchild = Story::from(child).step("a").child.unwrap();
    let mut ids = vec![story.run.operation.id, a, b, grandchild];
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 4);
    assert!(ids.iter().all(|id| id.uuid().get_version_num() == 7));
}

#[test]
fn skipping_lets_what_needs_the_step_go_on() {
    let plan = || [step("a").park().backoff(9_000), step("b").needs(&["a"])];
    let mut pending = Story::of(plan());
    assert_eq!(pending.told(&[skip("b")]).line(), "running: a=running b=skipped");
    assert_eq!(pending.ok("a").line(), "succeeded: a=done b=skipped");

    let mut retrying = Story::of(plan());
    assert_eq!(retrying.failed("a", busy()).told(&[skip("a")]).starts(), "do b");

    let mut failed = Story::of(plan());
    assert_eq!(failed.failed("a", never()).line(), "needs_attention: a=failed b=pending");
    assert_eq!(failed.told(&[skip("a")]).starts(), "do b");
    assert_eq!(failed.run.operation.error, None);
    assert_eq!(failed.ok("b").line(), "succeeded: a=skipped b=done");
}

#[test]
fn attention_ends_when_the_last_failed_step_is_dealt_with() {
    let mut story = Story::of([step("a").park(), step("b").park(), step("c").needs(&["a", "b"])]);
    story.failed("a", never()).failed("b", lost().after(Duration::ZERO));
    assert_eq!(story.line(), "needs_attention: a=failed b=retrying c=pending");
    assert_eq!(story.told(&[skip("a")]).starts(), "do b");

    let mut both = Story::of([step("a").park(), step("b").park()]);
    both.failed("a", never()).failed("b", never());
    assert_eq!(both.told(&[skip("a")]).line(), "needs_attention: a=skipped b=failed");
    assert_eq!(both.run.operation.error_step.as_deref(), Some("b"));
    assert_eq!(both.told(&[skip("b")]).line(), "succeeded: a=skipped b=skipped");
}

#[test]
fn parking_leaves_the_others_to_end() {
    let mut story = Story::of([step("a").park(), step("b"), step("c").needs(&["b"])]);
    story.failed("a", never());
    assert_eq!(story.line(), "needs_attention: a=failed b=running c=pending");
    assert!(!story.run.operation.idle);
    assert_eq!((story.ok("b").starts(), story.run.operation.idle), (String::new(), true));
    assert_eq!(story.told(&[SignalKind::Retry]).starts(), "do a, do c");
    assert_eq!(story.step("a").attempts, 1);
}

#[test]
fn retry_gives_fresh_retries_and_waits_no_longer() {
    let mut story = Story::of([step("a").retries(1).backoff(60_000).park()]);
    story.failed("a", busy());
    assert_eq!(story.told(&[SignalKind::Retry]).starts(), "do a");
    assert_eq!(story.step("a").attempts, 1);
    story.failed("a", busy()).at(60).failed("a", busy());
    assert_eq!(story.line(), "needs_attention: a=failed");
    assert_eq!(story.told(&[SignalKind::Retry]).starts(), "do a");
    assert_eq!(story.failed("a", busy()).line(), "running: a=retrying");
}

#[test]
fn a_step_that_failed_during_a_pause_can_be_tried_again_after_it() {
    let mut story = Story::of([step("a")]);
    story.told(&[SignalKind::Pause]).failed("a", never());
    assert_eq!(story.line(), "paused: a=failed");
    assert_eq!(story.told(&[SignalKind::Retry, SignalKind::Resume]).starts(), "do a");
}

#[test]
fn rollback_goes_before_park() {
    let mut story = Story::of([step("a").park(), step("b")]);
    story.told(&[SignalKind::Pause]).failed("a", never()).failed("b", never());
    assert_eq!(story.told(&[SignalKind::Resume]).run.operation.error_step.as_deref(), Some("b"));
    assert_eq!(story.run.operation.state, Op::RollingBack);
}

#[test]
fn a_pause_starts_nothing_and_cuts_nothing_off() {
    let mut story = Story::of([step("a"), step("b").needs(&["a"])]);
    story.told(&[SignalKind::Pause]);
    assert_eq!(story.line(), "paused: a=running b=pending");
    assert_eq!((story.ok("a").starts(), story.run.operation.idle), (String::new(), true));
    assert_eq!(story.told(&[SignalKind::Resume]).starts(), "do b");
    assert_eq!(story.told(&[SignalKind::Pause]).ok("b").line(), "paused: a=done b=done");
    assert_eq!(story.told(&[SignalKind::Resume]).line(), "succeeded: a=done b=done");
}

#[test]
fn signals_apply_in_their_order() {
    let mut story = Story::of([step("a")]);
    assert_eq!(story.told(&[SignalKind::Pause, SignalKind::Resume]).run.operation.state, Op::Running);
    assert_eq!(story.told(&[SignalKind::Resume, SignalKind::Pause]).run.operation.state, Op::Paused);
}

#[test]
fn a_crash_is_no_failed_attempt() {
    let mut story = Story::of([step("a").retries(0)]);
    for crash in 1..=10 {
        assert_eq!(story.crashed().starts(), "do a");
        let step = story.step("a");
        assert_eq!((step.attempts, step.interruptions, step.uncertain), (1, crash, true));
    }
    // The eleventh process that ends under this step: it is the step's fault.
    assert_eq!(story.crashed().line(), "rolling_back: a=undoing");
    assert_eq!(story.run.operation.error.as_ref().map(|e| e.code.as_str()), Some("interrupted"));
}

#[test]
fn a_crash_leaves_waits_and_delays_alone() {
    let mut story = Story::of([step("ask").approval(), step("hold").timer(60), step("a").backoff(5_000)]);
    story.failed("a", busy());
    let before = story.run.steps.clone();
    story.crashed();
    assert_eq!(story.run.steps, before);
    assert_eq!(story.wakes(), Some(5.0));
}

#[test]
fn what_takes_too_long_is_stuck_once() {
    let mut plan = run([step("a"), step("ask").approval().needs(&["a"]), step("b").needs(&["ask"])]);
    plan.operation.expected_by = Some(at(100));
    let mut story = Story::from(plan);
    assert_eq!(story.wakes(), Some(100.0));
    assert!(!story.at(99).run.operation.stuck);
    assert!(story.at(100).run.operation.stuck);
    assert_eq!(story.wakes(), None, "no second alarm");
}

#[test]
fn who_waits_for_a_person_or_a_timer_is_not_stuck() {
    let mut plan = run([step("ask").approval(), step("a").needs(&["ask"])]);
    plan.operation.expected_by = Some(at(100));
    let mut story = Story::from(plan);
    assert_eq!(story.wakes(), None);
    assert!(!story.at(200).run.operation.stuck);
    assert!(!story.told(&[approve("ask")]).run.operation.stuck, "waiting is not held against it");
    assert!(matches!(story.step("a").state, S::Running));
    assert!(!story.at(299).run.operation.stuck);
    assert!(story.at(300).run.operation.stuck, "from here on it is the machine that is late");
}
