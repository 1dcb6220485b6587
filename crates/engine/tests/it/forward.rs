//! Decisions going forward: needs and parallel steps, retries, waits and timers, approvals, detached steps,
//! stuck operations, and `wake_at`.

use std::time::Duration;

use tenantry_engine::{OperationState as Op, SignalKind, StepState as S};

use crate::plan::{Shape, approve, at, busy, lost, never, reject, run, skip, step, wrong};
use crate::story::Story;

#[test]
fn a_step_starts_after_its_needs() {
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
fn a_plan_without_steps_succeeds() {
    assert_eq!(Story::of([]).line(), "succeeded:");
}

#[test]
fn a_failed_attempt_is_retried_after_its_delay() {
    let mut story = Story::of([step("a").backoff(4_000)]);
    story.failed("a", busy());
    assert_eq!(
        (story.line().as_str(), story.starts(), story.wakes()),
        ("running: a=retrying", String::new(), Some(4.0))
    );
    assert!(story.run.operation.idle, "idle during the delay");
    assert_eq!(story.at(3).starts(), "");
    assert_eq!(story.at(4).starts(), "do a");
    assert!(!story.run.operation.idle);
    assert_eq!(story.failed("a", busy()).wakes(), Some(12.0));
    assert_eq!(story.at(12).starts(), "do a");
    assert_eq!(story.ok("a").line(), "succeeded: a=done");
    assert_eq!(story.step("a").attempts, 3);
    assert!(story.step("a").error.is_some(), "the error stays after the retry");
    assert_eq!(story.step("a").failing_since, None, "and does not count any more");
}

#[test]
fn retry_after_may_exceed_the_cap() {
    let mut story = Story::of([step("a")]);
    story.failed("a", busy().after(Duration::from_secs(3600)));
    assert_eq!(story.wakes(), Some(3600.0));
}

#[test]
fn a_permanent_failure_is_not_retried() {
    let mut story = Story::of([step("a")]);
    assert_eq!(story.failed("a", never()).starts(), "undo a");
    assert_eq!(story.ok("a").line(), "rolled_back: a=undone");
    assert_eq!(story.run.operation.error, Some(never()));
    assert_eq!(story.run.operation.error_step.as_deref(), Some("a"));
}

#[test]
fn wrong_answers_in_a_row_are_limited() {
    let mut story = Story::of([step("a").retries(2)]);
    for failure in [wrong(), lost(), wrong(), wrong()] {
        assert_eq!(story.starts(), "do a");
        story.failed("a", failure);
    }
    assert_eq!(story.line(), "running: a=running", "an outage between them begins a new row");
    story.failed("a", wrong());
    assert_eq!(story.line(), "rolling_back: a=undoing");
}

#[test]
fn an_outage_is_waited_for_by_time_whatever_the_number_of_attempts() {
    for failure in [busy, lost] {
        let mut story = Story::of([step("a").retries(0).retry_for(600)]);
        for second in 0..600 {
            assert_eq!(story.at(second).line(), "running: a=running");
            story.failed("a", failure().after(Duration::from_millis(1)));
            assert_eq!(story.step("a").failing_since, Some(at(0)));
        }
        assert_eq!(story.at(600).failed("a", failure()).line(), "rolling_back: a=undoing");
    }
}

#[test]
fn an_outage_during_a_compensation_is_waited_for_from_its_own_start() {
    let mut story = Story::of([step("a").retry_for(600).backoff(1)]);
    story.failed("a", busy()).at(590).failed("a", never());
    assert_eq!(story.line(), "rolling_back: a=undoing");
    story.failed("a", busy()).at(1_189).failed("a", busy());
    assert_eq!(story.line(), "rolling_back: a=undo_pending");
    assert_eq!(story.step("a").failing_since, Some(at(590)));
    assert_eq!(story.at(1_190).failed("a", busy()).line(), "needs_attention: a=undo_failed");
}

#[test]
fn the_time_of_an_outage_goes_on_after_a_crash() {
    let mut story = Story::of([step("a").retry_for(600).backoff(1)]);
    story.failed("a", busy()).at(300).crashed().at(600).failed("a", busy());
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
fn a_timer_of_zero_ends_immediately() {
    assert_eq!(Story::of([step("hold").timer(0), step("a").needs(&["hold"])]).starts(), "do a");
}

#[test]
fn a_timer_that_ends_during_a_pause_applies_after_it() {
    let mut story = Story::of([step("hold").timer(60), step("a").needs(&["hold"])]);
    assert_eq!(story.asked(&[SignalKind::Pause]).wakes(), None);
    assert_eq!(story.at(100).starts(), "");
    assert_eq!(story.asked(&[SignalKind::Resume]).starts(), "do a");
}

#[test]
fn an_approval_waits_for_a_signal() {
    let mut story = Story::of([step("ask").approval(), step("a").needs(&["ask"])]);
    assert_eq!((story.line().as_str(), story.wakes()), ("running: ask=waiting a=pending", None));
    assert!(story.run.operation.idle);
    assert_eq!(story.at(1_000_000).starts(), "");
    assert_eq!(story.asked(&[approve("ask")]).starts(), "do a");
    assert_eq!(story.step("ask").output, serde_json::json!({ "approved_by": "usr_1" }));
}

#[test]
fn an_approval_during_a_pause_applies_after_it() {
    let mut story = Story::of([step("ask").approval(), step("a").needs(&["ask"])]);
    assert_eq!(story.asked(&[SignalKind::Pause, approve("ask")]).line(), "paused: ask=done a=pending");
    assert_eq!(story.asked(&[SignalKind::Resume]).starts(), "do a");
}

#[test]
fn an_approval_does_not_end_a_timer() {
    let mut story = Story::of([step("hold").timer(60)]);
    assert_eq!(story.asked(&[approve("hold")]).line(), "running: hold=waiting");
    assert_eq!(story.asked(&[skip("hold")]).line(), "succeeded: hold=skipped");
}

#[test]
fn a_rejection_rolls_back_in_every_state() {
    for before in [vec![], vec![SignalKind::Pause]] {
        let mut story = Story::of([step("a"), step("ask").approval().park().needs(&["a"])]);
        story.ok("a").asked(&before).asked(&[reject("ask")]);
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
    assert_eq!(parked.asked(&[reject("ask")]).line(), "rolling_back: a=undoing ask=undone");
}

#[test]
fn a_rejection_survives_a_pause() {
    let mut story = Story::of([step("ask").approval().park(), step("a").needs(&["ask"])]);
    story.asked(&[reject("ask"), SignalKind::Pause]);
    assert_ne!(story.asked(&[SignalKind::Resume]).run.operation.state, Op::Running);
}

#[test]
fn a_detached_step_becomes_a_child_and_blocks_no_step() {
    let mut story = Story::of([step("a").detached(&["x"]), step("b").needs(&["a"])]);
    assert_eq!(
        (story.decision.detached.as_slice(), story.starts()),
        (&["a".to_owned()][..], "do b".to_owned())
    );
    assert!(story.step("a").child.is_some());
    assert_eq!(story.ok("b").line(), "succeeded: a=done b=done");
}

#[test]
fn children_have_distinct_ids() {
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
fn a_skipped_step_unblocks_its_dependents() {
    let plan = || [step("a").park().backoff(9_000), step("b").needs(&["a"])];
    let mut pending = Story::of(plan());
    assert_eq!(pending.asked(&[skip("b")]).line(), "running: a=running b=skipped");
    assert_eq!(pending.ok("a").line(), "succeeded: a=done b=skipped");

    let mut retrying = Story::of(plan());
    assert_eq!(retrying.failed("a", busy()).asked(&[skip("a")]).starts(), "do b");

    let mut failed = Story::of(plan());
    assert_eq!(failed.failed("a", never()).line(), "needs_attention: a=failed b=pending");
    assert_eq!(failed.asked(&[skip("a")]).starts(), "do b");
    assert_eq!(failed.run.operation.error, None);
    assert_eq!(failed.ok("b").line(), "succeeded: a=skipped b=done");
}

#[test]
fn needs_attention_ends_with_the_last_failed_step() {
    let mut story = Story::of([step("a").park(), step("b").park(), step("c").needs(&["a", "b"])]);
    story.failed("a", never()).failed("b", lost().after(Duration::ZERO));
    assert_eq!(story.line(), "needs_attention: a=failed b=retrying c=pending");
    assert_eq!(story.asked(&[skip("a")]).starts(), "do b");

    let mut both = Story::of([step("a").park(), step("b").park()]);
    both.failed("a", never()).failed("b", never());
    assert_eq!(both.asked(&[skip("a")]).line(), "needs_attention: a=skipped b=failed");
    assert_eq!(both.run.operation.error_step.as_deref(), Some("b"));
    assert_eq!(both.asked(&[skip("b")]).line(), "succeeded: a=skipped b=skipped");
}

#[test]
fn parking_does_not_cancel_other_attempts() {
    let mut story = Story::of([step("a").park(), step("b"), step("c").needs(&["b"])]);
    story.failed("a", never());
    assert_eq!(story.line(), "needs_attention: a=failed b=running c=pending");
    assert!(!story.run.operation.idle);
    assert_eq!((story.ok("b").starts(), story.run.operation.idle), (String::new(), true));
    assert_eq!(story.asked(&[SignalKind::Retry]).starts(), "do a, do c");
    assert_eq!(story.step("a").attempts, 1);
}

#[test]
fn retry_resets_the_attempts_and_ends_the_delay() {
    let mut story = Story::of([step("a").retry_for(60).backoff(60_000).park()]);
    story.failed("a", busy());
    assert_eq!(story.asked(&[SignalKind::Retry]).starts(), "do a");
    assert_eq!((story.step("a").attempts, story.step("a").failing_since), (1, None));
    story.failed("a", busy()).at(60).failed("a", busy());
    assert_eq!(story.line(), "needs_attention: a=failed");
    assert_eq!(story.asked(&[SignalKind::Retry]).starts(), "do a");
    assert_eq!(story.failed("a", busy()).line(), "running: a=retrying");
}

#[test]
fn a_step_that_failed_during_a_pause_can_be_retried() {
    let mut story = Story::of([step("a")]);
    story.asked(&[SignalKind::Pause]).failed("a", never());
    assert_eq!(story.line(), "paused: a=failed");
    assert_eq!(story.asked(&[SignalKind::Retry, SignalKind::Resume]).starts(), "do a");
}

#[test]
fn rollback_takes_precedence_over_park() {
    let mut story = Story::of([step("a").park(), step("b")]);
    story.asked(&[SignalKind::Pause]).failed("a", never()).failed("b", never());
    assert_eq!(story.asked(&[SignalKind::Resume]).run.operation.error_step.as_deref(), Some("b"));
    assert_eq!(story.run.operation.state, Op::RollingBack);
}

#[test]
fn a_pause_starts_no_attempt_and_cancels_none() {
    let mut story = Story::of([step("a"), step("b").needs(&["a"])]);
    story.asked(&[SignalKind::Pause]);
    assert_eq!(story.line(), "paused: a=running b=pending");
    assert_eq!((story.ok("a").starts(), story.run.operation.idle), (String::new(), true));
    assert_eq!(story.asked(&[SignalKind::Resume]).starts(), "do b");
    assert_eq!(story.asked(&[SignalKind::Pause]).ok("b").line(), "paused: a=done b=done");
    assert_eq!(story.asked(&[SignalKind::Resume]).line(), "succeeded: a=done b=done");
}

#[test]
fn signals_apply_in_their_order() {
    let mut story = Story::of([step("a")]);
    assert_eq!(story.asked(&[SignalKind::Pause, SignalKind::Resume]).run.operation.state, Op::Running);
    assert_eq!(story.asked(&[SignalKind::Resume, SignalKind::Pause]).run.operation.state, Op::Paused);
}

#[test]
fn a_crash_does_not_count_as_an_attempt() {
    let mut story = Story::of([step("a").retries(0)]);
    for crash in 1..=10 {
        assert_eq!(story.crashed().starts(), "do a");
        let step = story.step("a");
        assert_eq!((step.attempts, step.interruptions, step.uncertain), (1, crash, true));
    }
    // The eleventh process that ends during this step: the step fails.
    assert_eq!(story.crashed().line(), "rolling_back: a=undoing");
    assert_eq!(story.run.operation.error.as_ref().map(|e| e.code.as_str()), Some("interrupted"));
}

#[test]
fn a_crash_does_not_change_waits_and_delays() {
    let mut story = Story::of([step("ask").approval(), step("hold").timer(60), step("a").backoff(5_000)]);
    story.failed("a", wrong());
    let before = story.run.steps.clone();
    story.crashed();
    assert_eq!(story.run.steps, before);
    assert_eq!(story.wakes(), Some(5.0));
}

#[test]
fn an_operation_is_stuck_after_its_deadline() {
    let mut plan = run([step("a"), step("ask").approval().needs(&["a"]), step("b").needs(&["ask"])]);
    plan.operation.expected_by = Some(at(100));
    let mut story = Story::from(plan);
    assert_eq!(story.wakes(), Some(100.0));
    assert!(!story.at(99).run.operation.stuck);
    assert!(story.at(100).run.operation.stuck);
    assert_eq!(story.wakes(), None, "no second alert");
}

#[test]
fn a_waiting_operation_is_not_stuck() {
    let mut plan = run([step("ask").approval(), step("a").needs(&["ask"])]);
    plan.operation.expected_by = Some(at(100));
    let mut story = Story::from(plan);
    assert_eq!(story.wakes(), None);
    assert!(!story.at(200).run.operation.stuck);
    assert!(!story.asked(&[approve("ask")]).run.operation.stuck, "the wait extends the deadline");
    assert!(matches!(story.step("a").state, S::Running));
    assert!(!story.at(299).run.operation.stuck);
    assert!(story.at(300).run.operation.stuck, "stuck after the extended deadline");
}
