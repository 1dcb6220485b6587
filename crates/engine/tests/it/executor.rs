//! The executor without crashes: order and overlap, commits, retries and time, permits, panics, stopping.

use std::sync::Arc;

use futures::FutureExt;
use tenantry_engine::{Clock, CommitError, Direction, ExecutorConfig, SignalKind};

use crate::plan::{Shape, approve, at, busy, run, signal, step, unknown_id};
use crate::scene::{Scene, active, seconds};
use crate::world::{Act, Effect};
use tenantry_testkit::crash_ledger::{Fault, Faults};

#[tokio::test]
async fn steps_run_in_the_order_of_their_needs() {
    let scene = Scene::new().await;
    let id = scene
        .submit([
            step("a").registry(),
            step("b").needs(&["a"]),
            step("c").needs(&["b"]).registry(),
            step("d").needs(&["c"]),
        ])
        .await;
    scene.quiet().await;
    assert_eq!(scene.line(id), "succeeded: a=done b=done c=done d=done");
    assert_eq!(scene.world.log(), ["do a at 0", "do b at 0", "do c at 0", "do d at 0"]);
    assert_eq!(scene.run(id).step("d").unwrap().output, serde_json::json!({ "made": "d", "saw": ["c"] }));
    assert_eq!(scene.executor.load(), (0, 0));
    scene.world.check().unwrap();
}

#[tokio::test]
async fn independent_steps_overlap() {
    let scene = Scene::new().await;
    for key in ["a", "b", "c"] {
        scene.world.script(key, Direction::Run, [Act::Take(seconds(10))]);
    }
    scene.submit([step("a"), step("b"), step("c"), step("d").needs(&["a", "b", "c"])]).await;
    scene.quiet().await;
    assert_eq!((scene.world.peak(), scene.seconds()), (3, 10));
    scene.world.check().unwrap();
}

#[tokio::test]
async fn guards_of_an_attempt_are_kept_until_its_end_is_committed() {
    let scene = Scene::new().await;
    scene.world.script("link", Direction::Run, vec![Act::Link; 8]);
    for _ in 0..8 {
        scene.submit([step("link")]).await;
    }
    scene.quiet().await;
    let links: Vec<String> = (0..8).map(|n| format!("link {n}")).collect();
    assert_eq!(scene.world.claims(), links);
    assert_eq!(scene.world.log().len(), 8, "no attempt is repeated because of a conflict");
    scene.world.check().unwrap();
}

#[tokio::test]
async fn transactional_steps_share_one_commit() {
    let scene = Scene::new().await;
    let mut steps = vec![step("s0").registry()];
    for i in 1..20 {
        steps.push(step(&format!("s{i}")).registry().needs(&[&format!("s{}", i - 1)]));
    }
    let id = scene.submit(steps).await;
    assert!(scene.line(id).starts_with("succeeded"), "when submit returns");
    scene.quiet().await;
    assert_eq!((scene.ledger.commits(), scene.run(id).operation.version), (1, 1));
    assert_eq!(scene.world.registry().len(), 20);
}

#[tokio::test]
async fn each_step_outside_adds_one_commit() {
    let scene = Scene::new().await;
    let chain = [
        step("r").registry(),
        step("a").needs(&["r"]),
        step("s").needs(&["a"]).registry(),
        step("b").needs(&["s"]),
    ];
    scene.submit(chain).await;
    scene.quiet().await;
    // Creation with the start of a; the end of a with s and the start of b; the end of b.
    assert_eq!(scene.ledger.commits(), 3);
}

#[tokio::test]
async fn effects_are_committed_with_their_step() {
    let scene = Scene::new().await;
    let id = scene.submit([step("a")]).await;
    let begun = [Effect::Intended(id, "a".into(), Direction::Run), Effect::Changed(id, "running", false)];
    assert_eq!(scene.world.ledger.effects(), begun);
    scene.quiet().await;
    let ended = [Effect::Made(id, "a".into()), Effect::Changed(id, "succeeded", false)];
    assert_eq!(scene.world.ledger.effects()[2..], ended);
}

#[tokio::test]
async fn followers_get_every_change_of_their_operation() {
    let scene = Scene::new().await;
    for key in ["a", "other"] {
        scene.world.script(key, Direction::Run, [Act::Take(seconds(1))]);
    }
    let other = scene.submit([step("other")]).await;
    let id = scene.submit([step("a"), step("b").needs(&["a"])]).await;
    let mut changes = scene.executor.follow(id);
    scene.quiet().await;
    let mut seen = Vec::new();
    while let Some(Ok(run)) = changes.next().now_or_never() {
        assert_ne!(run.operation.id, other);
        seen.push((run.operation.version, run.operation.state.as_str()));
    }
    assert_eq!(seen, [(2, "running"), (3, "succeeded")]);
}

#[tokio::test]
async fn retries_respect_retry_after() {
    let scene = Scene::new().await;
    scene.world.script(
        "a",
        Direction::Run,
        [Act::Fail(busy().after(seconds(7))), Act::Fail(busy().after(seconds(60)))],
    );
    let id = scene.submit([step("a")]).await;
    scene.until(1).await;
    assert_eq!(scene.executor.load(), (0, 1), "a delayed retry has no task");
    scene.quiet().await;
    assert_eq!(scene.world.log(), ["do a at 0", "do a at 7", "do a at 67"]);
    assert_eq!(scene.run(id).step("a").unwrap().attempts, 3);
    scene.world.check().unwrap();
}

#[tokio::test]
async fn backoff_stays_below_its_ceiling() {
    let scene = Scene::new().await;
    scene.world.script("a", Direction::Run, [Act::Fail(busy()), Act::Fail(busy()), Act::Fail(busy())]);
    scene.submit([step("a").backoff(10_000)]).await;
    scene.quiet().await;
    assert_eq!(scene.world.log().len(), 4);
    assert!(scene.seconds() <= 10 + 20 + 40, "{}", scene.seconds());
    scene.world.check().unwrap();
}

#[tokio::test]
async fn a_hanging_attempt_times_out_and_is_retried() {
    for act in [Act::Hang, Act::HangAfter] {
        let scene = Scene::new().await;
        scene.world.script("a", Direction::Run, [act]);
        let id = scene.submit([step("a").timeout(30)]).await;
        scene.quiet().await;
        assert_eq!(scene.world.log(), ["do a at 0", "do a at 30"]);
        let step = scene.run(id).step("a").unwrap().clone();
        assert_eq!((step.error.unwrap().code.as_str(), step.uncertain), ("timeout", true));
        scene.world.check().unwrap();
    }
}

#[tokio::test]
async fn a_hanging_compensation_times_out() {
    let scene = Scene::new().await;
    scene.world.script("b", Direction::Run, [Act::Fail(crate::plan::never())]);
    scene.world.script("a", Direction::Compensate, [Act::Hang, Act::HangAfter]);
    let id = scene.submit([step("a").timeout(30), step("b").needs(&["a"])]).await;
    scene.quiet().await;
    assert_eq!(scene.line(id), "rolled_back: a=undone b=undone");
    assert_eq!(scene.world.log()[2..], ["undo b at 0", "undo a at 0", "undo a at 30", "undo a at 60"]);
    scene.world.check().unwrap();
}

#[tokio::test]
async fn a_late_effect_is_removed_by_the_repeated_compensation() {
    let scene = Scene::new().await;
    scene.world.script("a", Direction::Run, [Act::Late(seconds(20))]);
    let id = scene.submit([step("a").retry_for(0).in_flight(30)]).await;
    scene.quiet().await;
    assert_eq!(scene.line(id), "rolled_back: a=undone");
    assert_eq!(scene.world.log(), ["do a at 0", "undo a at 0", "undo a at 30"]);
    scene.world.check().unwrap();
}

#[tokio::test]
async fn things_of_another_owner_are_not_removed() {
    let scene = Scene::new().await;
    scene.world.occupy("shared");
    let id = scene.submit([step("a").input(serde_json::json!({ "name": "shared" }))]).await;
    scene.quiet().await;
    // The compensation fails as well, and an operator must act.
    assert_eq!(scene.line(id), "needs_attention: a=undo_failed");
    assert_eq!(scene.world.things(), ["shared"]);
}

#[tokio::test]
async fn a_panic_is_a_failed_attempt() {
    let scene = Scene::new().await;
    scene.world.script("a", Direction::Run, [Act::Panic]);
    scene.world.script("r", Direction::Run, [Act::Panic]);
    let id = scene.submit([step("a"), step("r").registry()]).await;
    scene.quiet().await;
    assert_eq!(scene.line(id), "succeeded: a=done r=done");
    assert_eq!(scene.run(id).step("a").unwrap().error.as_ref().unwrap().code, "panic");
    scene.world.check().unwrap();
}

#[tokio::test]
async fn operations_wait_for_a_permit() {
    let scene = Scene::with(active(1), Faults::new()).await;
    for key in ["a", "b", "c"] {
        scene.world.script(key, Direction::Run, [Act::Take(seconds(60))]);
    }
    // The timeout of b begins when b starts, not while it waits for a permit.
    for key in ["a", "b", "c"] {
        scene.submit([step(key).timeout(61)]).await;
    }
    scene.quiet().await;
    assert_eq!((scene.world.peak(), scene.seconds(), scene.world.log().len()), (1, 180, 3));
    scene.world.check().unwrap();
}

#[tokio::test]
async fn idle_operations_hold_no_permit() {
    let scene = Scene::with(active(1), Faults::new()).await;
    scene.submit([step("hold").timer(1000)]).await;
    scene.submit([step("ask").approval()]).await;
    scene.world.script("slow", Direction::Run, [Act::Fail(busy().after(seconds(500)))]);
    scene.submit([step("slow")]).await;
    let id = scene.submit([step("a")]).await;
    scene.until(1).await;
    assert_eq!(scene.line(id), "succeeded: a=done");
}

#[tokio::test]
async fn stop_waits_for_attempts_and_starts_none() {
    let scene = Scene::new().await;
    scene.world.script("a", Direction::Run, [Act::Take(seconds(5))]);
    scene.world.script("c", Direction::Run, [Act::Fail(busy().after(seconds(1)))]);
    let id = scene.submit([step("a"), step("b").needs(&["a"]), step("c")]).await;
    scene.settle().await;
    scene.executor.stop().await;
    assert_eq!((scene.line(id).as_str(), scene.seconds()), ("running: a=done b=pending c=retrying", 5));
    let refused = scene.executor.submit(run([step("x")]), vec![]).await;
    assert!(matches!(refused, Err(CommitError::Unavailable(_))));
    // The next process applies the signal.
    assert!(scene.executor.signal(id, signal(SignalKind::Pause), vec![]).await.unwrap());
    scene.quiet().await;
    assert_eq!(scene.world.log(), ["do a at 0", "do c at 0"]);
    let next = scene.next().await;
    next.quiet().await;
    assert_eq!(next.line(id), "paused: a=done b=pending c=retrying");
    next.ask(id, SignalKind::Resume).await;
    next.quiet().await;
    next.world.check().unwrap();
}

#[tokio::test]
async fn a_committed_signal_survives_a_stop_at_any_point() {
    for polls in 0..40 {
        let scene = Scene::new().await;
        scene.world.script("a", Direction::Run, [Act::Take(seconds(5))]);
        let id = scene.submit([step("a"), step("b").needs(&["a"])]).await;
        scene.settle().await;
        let mut ask = Box::pin(scene.executor.signal(id, signal(SignalKind::Pause), vec![]));
        let answered = poll_times(&mut ask, 4).await;
        poll_times(&mut Box::pin(std::future::pending::<()>()), polls).await;
        drop(ask);
        scene.executor.stop().await;
        assert!(answered);
        let next = scene.restart().await;
        next.quiet().await;
        assert_eq!(next.line(id), "paused: a=done b=pending", "{polls} polls");
    }
}

#[tokio::test]
async fn stop_waits_at_most_for_the_grace_period() {
    let scene =
        Scene::with(ExecutorConfig { grace: seconds(8), ..ExecutorConfig::default() }, Faults::new()).await;
    scene.world.script("a", Direction::Run, [Act::Hang]);
    let id = scene.submit([step("a")]).await;
    scene.settle().await;
    scene.executor.stop().await;
    assert_eq!((scene.line(id).as_str(), scene.seconds()), ("running: a=running", 8));
    let next = scene.next().await;
    next.quiet().await;
    assert_eq!(next.line(id), "succeeded: a=done");
    next.world.check().unwrap();
}

#[tokio::test]
async fn stop_does_not_wait_for_an_unavailable_ledger() {
    let down = (3..2000).map(|call| (call, Fault::FailBefore)).collect();
    let scene = Scene::with(ExecutorConfig::default(), down).await;
    let refused = scene.executor.submit(run([step("a")]), vec![]).await;
    assert!(matches!(refused, Err(CommitError::Unavailable(_))));
    scene.settle().await;
    scene.executor.stop().await;
    assert!(scene.seconds() < 10, "{}", scene.seconds());
}

#[tokio::test]
async fn a_dropped_executor_stops() {
    let scene = Scene::new().await;
    scene.world.script("a", Direction::Run, [Act::Take(seconds(5))]);
    let id = scene.submit([step("a"), step("hold").timer(3)]).await;
    scene.settle().await;
    let Scene { clock, world, executor, .. } = scene;
    drop(executor.clone());
    drop(executor);
    assert!(clock.quiet(at(100)).await);
    assert_eq!(clock.now(), at(0), "no timer is left");
    let run = world.ledger.runs().into_iter().find(|run| run.operation.id == id).unwrap();
    assert_eq!(run.operation.version, 1);
}

/// A caller may drop the future at any point: the request is committed or not, and never partially.
#[tokio::test]
async fn a_dropped_call_is_committed_or_not() {
    for polls in 0.. {
        let scene = Scene::new().await;
        let id;
        {
            let run = run([step("ask").approval(), step("a")]);
            id = run.operation.id;
            let mut submit = Box::pin(scene.executor.submit(run, vec![]));
            if poll_times(&mut submit, polls).await {
                assert!(polls > 0);
                break;
            }
        }
        scene.quiet().await;
        let Some(run) = scene.world.ledger.runs().pop() else { continue };
        assert_eq!(
            (run.operation.id, scene.line(id).as_str()),
            (id, "running: ask=waiting a=done"),
            "{polls} polls"
        );
        for polls in 0.. {
            let mut ask = Box::pin(scene.executor.signal(id, signal(approve("ask")), vec![]));
            let answered = poll_times(&mut ask, polls).await;
            drop(ask);
            scene.quiet().await;
            let waiting =
                scene.world.ledger.runs()[0].operation.state == tenantry_engine::OperationState::Running;
            let kept = scene.pending_signals(id).await;
            assert_eq!(kept, 0, "a signal was kept and not applied after {polls} polls");
            if answered || !waiting {
                break;
            }
        }
    }
}

/// Polls a future that many times and runs other tasks in between. True when it has completed.
async fn poll_times<F: Future + Unpin>(future: &mut F, times: usize) -> bool {
    for _ in 0..times {
        let ended = std::future::poll_fn(|cx| {
            std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(cx).is_ready())
        });
        if ended.await {
            return true;
        }
        tokio::task::yield_now().await;
    }
    false
}

#[tokio::test]
async fn an_id_is_submitted_once() {
    let scene = Scene::new().await;
    let plan = run([step("a")]);
    let [first, second] = [plan.clone(), plan].map(|plan| scene.executor.submit(plan, vec![]));
    let (first, second) = tokio::join!(first, second);
    assert!(first.is_ok() && second.is_err());
    scene.quiet().await;
    assert_eq!(scene.world.log(), ["do a at 0"]);
    scene.world.check().unwrap();
}

#[tokio::test]
async fn one_unfinished_operation_per_subject() {
    let scene = Scene::new().await;
    let mut plan = run([step("ask").approval()]);
    plan.operation.subject = "ten_1".into();
    let first = Arc::new(plan);
    scene.executor.submit((*first).clone(), vec![]).await.unwrap();
    let mut second = run([step("a")]);
    second.operation.subject = "ten_1".into();
    let refused = scene.executor.submit(second.clone(), vec![]).await;
    assert!(matches!(refused, Err(CommitError::Conflict { .. })), "{refused:?}");
    scene.ask(first.operation.id, approve("ask")).await;
    scene.executor.submit(second, vec![]).await.unwrap();
    scene.quiet().await;
    scene.world.check().unwrap();
}

#[tokio::test]
async fn signals_to_an_unknown_operation_are_rejected() {
    let scene = Scene::new().await;
    assert!(!scene.executor.signal(unknown_id(), signal(SignalKind::Pause), vec![]).await.unwrap());
    scene.executor.hint(unknown_id());
    scene.quiet().await;
    assert_eq!(scene.executor.load(), (0, 0));
}

#[tokio::test]
async fn a_stuck_operation_raises_one_alert() {
    let scene = Scene::new().await;
    scene.world.script("a", Direction::Run, [Act::Take(seconds(50)), Act::Take(seconds(50))]);
    let mut plan = run([step("a"), step("b").needs(&["a"])]);
    plan.operation.expected_by = Some(at(20));
    let id = plan.operation.id;
    scene.executor.submit(plan, vec![]).await.unwrap();
    scene.until(19).await;
    assert!(!scene.run(id).operation.stuck);
    scene.until(20).await;
    assert!(scene.run(id).operation.stuck);
    scene.quiet().await;
    let alerts =
        scene.world.ledger.effects().iter().filter(|e| **e == Effect::Changed(id, "running", true)).count();
    assert_eq!(alerts, 1);
}

#[tokio::test]
async fn idle_operations_have_no_task_and_are_not_loaded_at_start() {
    let scene = Scene::new().await;
    for i in 0..10_000u64 {
        let wait = match i % 3 {
            0 => step("w").approval(),
            1 => step("w").timer(1_000_000),
            _ => step("w").detached(&[]),
        };
        // A child without steps succeeds immediately; its parent waits for approval.
        let steps =
            if i % 3 == 2 { vec![wait, step("ask").approval()] } else { vec![wait, step("a").needs(&["w"])] };
        scene.submit(steps).await;
    }
    scene.settle().await;
    assert_eq!(scene.executor.load(), (0, 3_333));
    let next = scene.next().await;
    next.settle().await;
    assert_eq!((next.ledger.loads(), next.ledger.commits(), next.ledger.calls()), (0, 0, 2));
    assert_eq!(next.executor.load(), (0, 3_333));
    next.until(1_000_000).await;
    next.quiet().await;
    assert_eq!(next.world.log().len(), 3_333);
}
