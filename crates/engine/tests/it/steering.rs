//! The executor with signals and child operations.

use tenantry_engine::{Direction, SignalKind};

use crate::plan::{Shape, approve, busy, lost, never, reject, skip, step, wrong};
use crate::scene::{Scene, seconds};
use crate::world::Act;

#[tokio::test]
async fn a_paused_attempt_ends_and_resume_continues() {
    let scene = Scene::new().await;
    scene.world.script("a", Direction::Run, [Act::Take(seconds(10))]);
    let id = scene.submit([step("a"), step("b").needs(&["a"])]).await;
    scene.ask(id, SignalKind::Pause).await;
    assert_eq!(scene.line(id), "paused: a=running b=pending");
    scene.quiet().await;
    assert_eq!(scene.line(id), "paused: a=done b=pending");
    assert_eq!(scene.executor.load(), (0, 0));
    scene.ask(id, SignalKind::Resume).await;
    scene.quiet().await;
    assert_eq!(scene.world.log(), ["do a at 0", "do b at 10"]);
    scene.world.check().unwrap();
}

#[tokio::test]
async fn cancel_stops_attempts_before_their_compensation() {
    let scene = Scene::new().await;
    scene.world.script("a", Direction::Run, [Act::HangAfter]);
    scene.world.script("b", Direction::Run, [Act::Take(seconds(10))]);
    let id = scene.submit([step("a"), step("b"), step("c").needs(&["a", "b"])]).await;
    scene.until(3).await;
    scene.ask(id, SignalKind::Cancel).await;
    scene.quiet().await;
    assert_eq!(scene.line(id), "cancelled: a=undone b=undone c=undone");
    assert_eq!((scene.seconds(), scene.world.peak()), (3, 2));
    scene.world.check().unwrap();
}

#[tokio::test]
async fn a_superseded_operation_ends_without_compensation() {
    let scene = Scene::new().await;
    scene.world.script("b", Direction::Run, [Act::HangAfter]);
    scene.world.script("pay", Direction::Run, [Act::Take(seconds(100))]);
    let id = scene
        .submit([
            step("a"),
            step("bill").detached(&["pay"]),
            step("b").needs(&["a"]),
            step("c").needs(&["b"]),
        ])
        .await;
    scene.until(3).await;
    let child = scene.child(id, "bill");
    scene.ask(id, SignalKind::Supersede).await;
    scene.quiet().await;
    assert_eq!(scene.line(id), "cancelled: a=undone bill=undone b=undone c=undone");
    assert_eq!(scene.line(child), "cancelled: pay=undone");
    assert_eq!(scene.run(id).operation.error.unwrap().code, tenantry_engine::decide::SUPERSEDED);
    assert!(
        scene.run(id).steps.iter().all(|step| step.note.is_some()),
        "each note names the superseding operation"
    );
    assert!(!scene.world.log().iter().any(|line| line.starts_with("undo")), "{:?}", scene.world.log());
    assert_eq!((scene.seconds(), scene.executor.load()), (3, (0, 0)));
}

#[tokio::test]
async fn retry_ends_the_delay() {
    let scene = Scene::new().await;
    scene.world.script("a", Direction::Run, [Act::Fail(busy().after(seconds(1000)))]);
    let id = scene.submit([step("a")]).await;
    scene.until(5).await;
    scene.ask(id, SignalKind::Retry).await;
    assert_eq!(scene.line(id), "succeeded: a=done");
    scene.quiet().await;
    scene.world.check().unwrap();
}

/// Each operation that may wait for the provider is woken; a failed call of another one, or a wrong answer, is not a reason.
#[tokio::test]
async fn operations_continue_when_their_provider_works_again() {
    let scene = Scene::new().await;
    let down = |provider: Option<&str>| {
        let failure = busy().after(seconds(1000));
        Act::Fail(tenantry_model::Failure { provider: provider.map(str::to_owned), ..failure })
    };
    scene.world.script("named", Direction::Run, [down(Some("postgres"))]);
    scene.world.script("undone", Direction::Run, [Act::Fail(never())]);
    scene.world.script("undone", Direction::Compensate, [down(Some("postgres"))]);
    scene.world.script("unnamed", Direction::Run, [down(None)]);
    scene.world.script("other", Direction::Run, [down(Some("dns"))]);
    scene.world.script("wrong", Direction::Run, [Act::Fail(wrong().after(seconds(1000)))]);
    let mut ids = Vec::new();
    for key in ["named", "undone", "unnamed", "other", "wrong"] {
        ids.push(scene.submit([step(key)]).await);
    }
    scene.until(5).await;
    assert_eq!((scene.executor.waiting_for("postgres"), scene.executor.waiting_for("dns")), (3, 2));
    assert_eq!(scene.executor.wake("postgres").await.unwrap(), 3);
    scene.until(7).await;
    let lines: Vec<String> = ids.iter().map(|id| scene.line(*id)).collect();
    assert_eq!(
        lines,
        [
            "succeeded: named=done",
            "rolled_back: undone=undone",
            "succeeded: unnamed=done",
            "running: other=retrying",
            "running: wrong=retrying"
        ]
    );
    assert_eq!((scene.executor.waiting_for("postgres"), scene.executor.waiting_for("dns")), (0, 1));
    scene.quiet().await;
    scene.world.check().unwrap();
}

#[tokio::test]
async fn a_parked_operation_waits_for_a_signal() {
    for (kind, end) in [
        (SignalKind::Retry, "succeeded: a=done b=done"),
        (skip("a"), "succeeded: a=skipped b=done"),
        (SignalKind::Cancel, "cancelled: a=undone b=undone"),
    ] {
        let scene = Scene::new().await;
        scene.world.script("a", Direction::Run, [Act::Fail(never())]);
        let id = scene.submit([step("a").park(), step("b").needs(&["a"])]).await;
        scene.quiet().await;
        assert_eq!(scene.line(id), "needs_attention: a=failed b=pending");
        assert_eq!(scene.executor.load(), (0, 0));
        scene.ask(id, kind).await;
        scene.quiet().await;
        assert_eq!(scene.line(id), end);
        scene.world.check().unwrap();
    }
}

#[tokio::test]
async fn approval_and_rejection() {
    for (kind, end) in [
        (approve("ask"), "succeeded: a=done ask=done b=done"),
        (reject("ask"), "rolled_back: a=undone ask=undone b=undone"),
        (skip("ask"), "succeeded: a=done ask=skipped b=done"),
    ] {
        let scene = Scene::new().await;
        let id =
            scene.submit([step("a"), step("ask").approval().needs(&["a"]), step("b").needs(&["ask"])]).await;
        scene.quiet().await;
        assert_eq!(scene.line(id), "running: a=done ask=waiting b=pending");
        scene.ask(id, kind).await;
        scene.quiet().await;
        assert_eq!(scene.line(id), end);
        scene.world.check().unwrap();
    }
}

#[tokio::test]
async fn a_skipped_compensation_counts_as_done() {
    let scene = Scene::new().await;
    scene.world.script("b", Direction::Run, [Act::Fail(never())]);
    scene.world.script("a", Direction::Compensate, [Act::FailAfter(never())]);
    let id = scene.submit([step("a"), step("b").needs(&["a"])]).await;
    scene.quiet().await;
    assert_eq!(scene.line(id), "needs_attention: a=undo_failed b=undone");
    scene.ask(id, skip("a")).await;
    scene.quiet().await;
    assert_eq!(scene.line(id), "rolled_back: a=undone b=undone");
    scene.world.check().unwrap();
}

#[tokio::test]
async fn concurrent_signals_are_applied_in_order() {
    let scene = Scene::new().await;
    scene.world.script("a", Direction::Run, [Act::Take(seconds(10))]);
    let id = scene.submit([step("a")]).await;
    let [pause, resume] = [SignalKind::Pause, SignalKind::Resume].map(crate::plan::signal);
    let (first, second) =
        tokio::join!(scene.executor.signal(id, pause, vec![]), scene.executor.signal(id, resume, vec![]));
    assert!(first.unwrap() && second.unwrap());
    scene.quiet().await;
    assert_eq!(scene.line(id), "succeeded: a=done");
    assert_eq!(scene.pending_signals(id).await, 0);
}

#[tokio::test]
async fn a_signal_to_a_final_operation_is_consumed() {
    let scene = Scene::new().await;
    let id = scene.submit([step("a")]).await;
    scene.quiet().await;
    scene.ask(id, SignalKind::Cancel).await;
    assert_eq!((scene.line(id).as_str(), scene.pending_signals(id).await), ("succeeded: a=done", 0));
    scene.world.check().unwrap();
}

#[tokio::test]
async fn the_next_process_gets_the_note_of_an_attempt() {
    let scene = Scene::new().await;
    scene.world.script("a", Direction::Run, [Act::NoteThenHang]);
    let id = scene.submit([step("a").timeout(1000)]).await;
    scene.settle().await;
    assert_eq!(scene.run(id).step("a").unwrap().note, Some(serde_json::json!({ "group": 42 })));
    let next = scene.next().await;
    next.quiet().await;
    assert_eq!(next.run(id).step("a").unwrap().note, None, "cleared when the attempt ends");
}

#[tokio::test]
async fn a_child_continues_after_its_parent() {
    let scene = Scene::new().await;
    scene.world.script("charge", Direction::Run, [Act::Fail(busy().after(seconds(600)))]);
    let id = scene.submit([step("bill").detached(&["charge"]), step("a").needs(&["bill"])]).await;
    scene.until(1).await;
    assert_eq!(scene.line(id), "succeeded: bill=done a=done");
    let child = scene.child(id, "bill");
    assert_eq!(scene.line(child), "running: charge=retrying");
    scene.quiet().await;
    assert_eq!(scene.line(child), "succeeded: charge=done");
    assert_eq!(scene.run(child).operation.parent, Some(id));
    scene.world.check().unwrap();
}

#[tokio::test]
async fn a_failed_child_does_not_affect_its_parent() {
    for (park, end) in [(false, "rolled_back: charge=undone"), (true, "needs_attention: charge=failed")] {
        let scene = Scene::new().await;
        scene.world.script("charge", Direction::Run, [Act::Fail(never())]);
        let bill = step("bill").detached(&["charge"]);
        let id = scene.submit([if park { bill.park() } else { bill }, step("a").needs(&["bill"])]).await;
        scene.quiet().await;
        assert_eq!(scene.line(id), "succeeded: bill=done a=done");
        assert_eq!(scene.line(scene.child(id, "bill")), end);
    }
}

/// A failing parent cancels its child in every state of the child.
#[tokio::test]
async fn a_failed_parent_cancels_its_child() {
    let delay = || Act::Fail(busy().after(seconds(3600)));
    let cases: [(&str, Vec<Act>, Vec<Act>, bool); 7] = [
        ("succeeded", vec![], vec![], false),
        ("running", vec![Act::Take(seconds(3600))], vec![], false),
        ("retrying", vec![delay()], vec![], false),
        ("parked", vec![Act::FailAfter(never())], vec![], true),
        ("rolled back", vec![Act::Fail(never())], vec![], false),
        ("rolling back", vec![Act::FailAfter(never())], vec![Act::Take(seconds(50))], false),
        ("compensation to be retried", vec![Act::FailAfter(never())], vec![delay()], false),
    ];
    for (name, forward, back, park) in cases {
        let scene = Scene::new().await;
        scene.world.script("charge", Direction::Run, forward);
        scene.world.script("charge", Direction::Compensate, back);
        scene.world.script("a", Direction::Run, [Act::Take(seconds(10)), Act::Fail(never())]);
        let bill = step("bill").detached(&["charge"]);
        let bill = if park { bill.park() } else { bill };
        let id = scene.submit([bill, step("a").timeout(5).retry_for(0).needs(&["bill"])]).await;
        scene.quiet().await;
        assert_eq!(scene.line(id), "rolled_back: bill=undone a=undone", "{name}");
        assert!(scene.run(scene.child(id, "bill")).operation.state.is_final(), "{name}");
        scene.world.check().unwrap_or_else(|why| panic!("{name}: {why}"));
    }
}

#[tokio::test]
async fn a_parent_waits_for_a_child_whose_compensation_failed() {
    let scene = Scene::new().await;
    scene.world.script("charge", Direction::Compensate, [Act::Fail(never())]);
    let id = scene.submit([step("bill").detached(&["charge"]), step("ask").approval()]).await;
    scene.quiet().await;
    scene.ask(id, SignalKind::Cancel).await;
    scene.quiet().await;
    let child = scene.child(id, "bill");
    assert_eq!(scene.line(child), "needs_attention: charge=undo_failed");
    assert_eq!(scene.line(id), "rolling_back: bill=undoing ask=undone");
    assert_eq!(scene.executor.load(), (0, 0));
    scene.ask(child, SignalKind::Retry).await;
    scene.quiet().await;
    assert_eq!(scene.line(id), "cancelled: bill=undone ask=undone");
    scene.world.check().unwrap();
}

#[tokio::test]
async fn children_end_independently() {
    let scene = Scene::new().await;
    scene.world.script("x", Direction::Compensate, [Act::Take(seconds(10))]);
    scene.world.script("y", Direction::Compensate, [Act::Take(seconds(50))]);
    let id =
        scene.submit([step("a").detached(&["x"]), step("b").detached(&["y"]), step("ask").approval()]).await;
    scene.settle().await;
    scene.ask(id, SignalKind::Cancel).await;
    scene.until(20).await;
    assert_eq!(scene.line(id), "rolling_back: a=undone b=undoing ask=undone");
    scene.quiet().await;
    assert_eq!((scene.line(id).as_str(), scene.seconds()), ("cancelled: a=undone b=undone ask=undone", 50));
    scene.world.check().unwrap();
}

#[tokio::test]
async fn a_step_with_a_lost_answer_is_compensated() {
    let scene = Scene::new().await;
    scene.world.script("a", Direction::Run, [Act::FailAfter(lost())]);
    scene.world.script("b", Direction::Run, [Act::Fail(never())]);
    let id = scene.submit([step("a").in_flight(10).retry_for(0), step("b")]).await;
    scene.quiet().await;
    assert_eq!((scene.line(id).as_str(), scene.seconds()), ("rolled_back: a=undone b=undone", 10));
    scene.world.check().unwrap();
}
